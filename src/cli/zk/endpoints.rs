//! Where ZooKeeper's clients connect here: which servers have an endpoint, and when one of them has
//! accepted a session.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::api::view::Page;
use crate::api::view::server::ServerRow;
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::zookeeper::client::{Client, Ensemble, Options};

/// Between tries.
const PAUSE: Duration = Duration::from_millis(20);
/// The time-out of the session that is opened to see whether one can be; servers make it longer.
const SESSION: Duration = Duration::from_secs(4);

/// The endpoints of this cluster: `host:port` of each.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    plain: Vec<String>,
    tls: Vec<String>,
}

impl Endpoints {
    /// Asks the servers which have one.
    ///
    /// # Errors
    /// If none has: clients would find nobody.
    pub(super) async fn find(context: &Context) -> Result<Self, Failure> {
        let servers: Page<ServerRow> = context.client.json(Call::get(["servers"])).await?;
        let (mut found, mut without) = (Self::default(), Vec::new());
        for server in servers.items {
            if server.zk_addr.is_none() && server.zk_tls_addr.is_none() {
                without.push(match server.reachable {
                    true => format!("{} has none", server.name),
                    false => format!("{} does not answer", server.name),
                });
            }
            found.plain.extend(server.zk_addr);
            found.tls.extend(server.zk_tls_addr);
        }
        let without = without.join(", ");
        if found.plain.is_empty() && found.tls.is_empty() {
            let what = format!("no server here has an endpoint for ZooKeeper's clients: {without}");
            return Err(Failure::new(Exit::REFUSED, what).hint(
                "start the servers with --zk-addr 0.0.0.0:2181 (ORCH_ZK_ADDR), one after the \
                 other; the migration goes on meanwhile",
            ));
        }
        if !without.is_empty() {
            note(&format!("note: not every server has an endpoint for clients: {without}"));
        }
        Ok(found)
    }

    /// All of them.
    pub(super) fn names(&self) -> String {
        self.plain.iter().chain(&self.tls).map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Waits until one accepts a session, or, where all speak TLS, a connection; when that was.
    ///
    /// # Errors
    /// Why none did before `deadline`.
    pub(super) async fn accept(&self, deadline: Instant) -> Result<Instant, String> {
        if !self.plain.is_empty() {
            return self.session(deadline).await;
        }
        let mut why = "nothing was tried".to_owned();
        loop {
            for address in &self.tls {
                match timeout_at(deadline, TcpStream::connect(address)).await {
                    Ok(Ok(_)) => return Ok(Instant::now()),
                    Ok(Err(error)) => why = format!("{address}: {error}"),
                    Err(_) => why = format!("{address}: no answer"),
                }
            }
            if Instant::now() >= deadline {
                return Err(why);
            }
            sleep(PAUSE).await;
        }
    }

    async fn session(&self, deadline: Instant) -> Result<Instant, String> {
        let ensemble = Ensemble { servers: self.plain.clone(), chroot: String::new() };
        let give_up = deadline.saturating_duration_since(Instant::now());
        let options = Options { timeout: SESSION, give_up, pause: PAUSE, ..Options::default() };
        let (client, _events) =
            Client::connect(&ensemble, options).await.map_err(|error| error.to_string())?;
        let accepted = Instant::now();
        // Whether that works does not matter: nothing goes with the session.
        let _ = timeout(SESSION, client.close()).await;
        Ok(accepted)
    }
}
