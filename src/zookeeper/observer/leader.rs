//! Which server of an ensemble leads, and where its quorum port is.

use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;

use super::config::read_config;
use crate::zookeeper::client::{Client, Ensemble, Options, four_letter};

/// Where learners go unless a server's configuration says otherwise.
pub const QUORUM_PORT: u16 = 2888;
/// Where servers write their members.
const CONFIG_PATH: &str = "/zookeeper/config";

/// The leader of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// `host:port` where clients reach it, if it told itself that it leads.
    pub client: Option<String>,
    /// `host:port` where learners reach it.
    pub quorum: String,
}

/// What a server said when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Leads,
    Follows,
    Alone,
    /// It did not say, and why.
    Unknown(String),
}

/// No leader was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// It is a server without an ensemble.
    #[error(
        "{0} stands alone and has no quorum port; \
         read its data directory, or its clients' port (zk://{0})"
    )]
    Alone(String),
    /// None of the servers leads, or none could be reached on its quorum port.
    #[error(
        "none of the servers lets learners in: {}; name all of them, open the leader's quorum \
         port ({QUORUM_PORT} unless zoo.cfg says otherwise), or read its files or its clients' \
         port (zk://…)", list(.0)
    )]
    Nobody(Vec<Asked>),
}

/// What came of asking one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which one.
    pub address: String,
    /// What it said, or why it did not.
    pub answer: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.answer)
    }
}

fn list(asked: &[Asked]) -> String {
    asked.iter().map(Asked::to_string).collect::<Vec<_>>().join("; ")
}

/// Asks the servers of an ensemble (`host:port` of their clients' ports) who leads. Its quorum port
/// is `quorum_port` if that is given, else the usual one, else what the ensemble's own
/// configuration says. Only a leader listens on its quorum port, so a server that does not say is
/// tried there.
///
/// # Errors
/// If none leads, or none can be reached.
pub async fn find_leader(
    servers: &[String],
    quorum_port: Option<u16>,
    wait: Duration,
) -> Result<Leader, FindError> {
    let modes = join_all(servers.iter().map(|server| mode(server, wait))).await;
    if let [Mode::Alone] = modes.as_slice() {
        return Err(FindError::Alone(servers[0].clone()));
    }
    let mut asked: Vec<Asked> = servers
        .iter()
        .zip(&modes)
        .map(|(server, mode)| Asked { address: server.clone(), answer: mode.to_string() })
        .collect();
    // Whoever leads first, then those who don't say.
    let leads = servers.iter().zip(&modes).filter(|(_, mode)| **mode == Mode::Leads);
    let unknown = servers.iter().zip(&modes).filter(|(_, mode)| matches!(mode, Mode::Unknown(_)));
    let port = quorum_port.unwrap_or(QUORUM_PORT);
    for (server, mode) in leads.chain(unknown) {
        let quorum = format!("{}:{port}", host(server));
        match listens(&quorum, wait).await {
            Ok(()) => {
                let client = (*mode == Mode::Leads).then(|| server.clone());
                return Ok(Leader { client, quorum });
            }
            Err(answer) => asked.push(Asked { address: quorum, answer }),
        }
    }
    if quorum_port.is_none() {
        for quorum in configured(servers, wait).await {
            match listens(&quorum, wait).await {
                Ok(()) => return Ok(Leader { client: None, quorum }),
                Err(answer) => asked.push(Asked { address: quorum, answer }),
            }
        }
    }
    Err(FindError::Nobody(asked))
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leads => f.write_str("leads"),
            Self::Follows => f.write_str("follows"),
            Self::Alone => f.write_str("stands alone"),
            Self::Unknown(why) => f.write_str(why),
        }
    }
}

async fn mode(server: &str, wait: Duration) -> Mode {
    let answer = match four_letter(server, "srvr", wait).await {
        Ok(answer) => answer,
        Err(error) => return Mode::Unknown(format!("does not answer ({error})")),
    };
    match answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::trim) {
        Some("leader") => Mode::Leads,
        Some("standalone") => Mode::Alone,
        Some("follower" | "observer" | "read-only") => Mode::Follows,
        _ => Mode::Unknown("does not say whether it leads".to_owned()),
    }
}

/// Whether somebody listens; if not, why.
async fn listens(address: &str, wait: Duration) -> Result<(), String> {
    match tokio::time::timeout(wait, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("can't be reached ({error})")),
        Err(_) => Err("can't be reached (no answer)".to_owned()),
    }
}

/// Quorum ports by the ensemble's own configuration.
async fn configured(servers: &[String], wait: Duration) -> Vec<String> {
    let ensemble = Ensemble { servers: servers.to_vec(), chroot: String::new() };
    let options = Options { give_up: wait, ..Options::default() };
    let Ok((client, _events)) = Client::connect(&ensemble, options).await else {
        return Vec::new();
    };
    let data = client.get_data(CONFIG_PATH, false).await.ok().and_then(|(data, _)| data);
    let text = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    // The session is not needed any more; what becomes of that is the server's affair.
    let _ = client.close().await;
    read_config(&text).into_iter().map(|server| server.quorum).collect()
}

fn host(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host)
}
