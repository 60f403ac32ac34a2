//! What servers of an ensemble say of themselves (`srvr`), and which of them leads.

use std::time::Duration;

use serde::Serialize;

use crate::zookeeper::client::{WireError, four_letter};

/// How long a server may take to say how it is.
pub const WAIT: Duration = Duration::from_secs(3);

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Where clients reach it.
    pub address: String,
    /// `leader`, `follower`, `observer`, `standalone`.
    pub mode: Option<String>,
    /// Its release.
    pub version: Option<String>,
    /// The newest transaction that it has applied.
    pub zxid: Option<i64>,
    /// Nodes.
    pub nodes: Option<u64>,
    /// Connections.
    pub connections: Option<u64>,
    /// Why it says nothing.
    pub problem: Option<String>,
}

/// Asks a server, at its clients' port.
pub async fn ask(address: &str) -> ServerStatus {
    match four_letter(address, "srvr", WAIT).await {
        Ok(answer) => read(address, &answer),
        Err(error) => {
            let problem = Some(reason(&error));
            ServerStatus { address: address.to_owned(), problem, ..ServerStatus::default() }
        }
    }
}

fn reason(error: &WireError) -> String {
    error.to_string()
}

fn read(address: &str, answer: &str) -> ServerStatus {
    let field = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let number = |name| field(name).and_then(|text| text.parse().ok());
    let zxid = field("Zxid:").and_then(|text| {
        u64::from_str_radix(text.trim_start_matches("0x"), 16).ok().map(u64::cast_signed)
    });
    let mode = field("Mode:");
    let problem = match mode {
        Some(_) => None,
        None if answer.contains("not in the whitelist") => Some(
            "srvr is not in its 4lw.commands.whitelist; add it there, it tells how far it is"
                .to_owned(),
        ),
        None if answer.trim().is_empty() => Some("it answers nothing to srvr".to_owned()),
        None => Some(answer.lines().next().unwrap_or_default().chars().take(200).collect()),
    };
    ServerStatus {
        address: address.to_owned(),
        // "3.8.0-5a02a05…, built on …"
        version: field("Zookeeper version:")
            .map(|text| text.split([',', '-']).next().unwrap_or_default().to_owned()),
        mode,
        zxid,
        nodes: number("Node count:"),
        connections: number("Connections:"),
        problem,
    }
}

/// Asks all of them at once.
pub async fn ask_all(addresses: &[String]) -> Vec<ServerStatus> {
    futures::future::join_all(addresses.iter().map(|address| ask(address))).await
}

/// Whether a release writes the digest of its tree into transactions.
pub fn has_digests(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= (3, 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let answer = "Zookeeper version: 3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on \
                      2022-02-25 08:49 UTC\nLatency min/avg/max: 0/0.0/0\nReceived: 1\nSent: 0\n\
                      Connections: 2\nOutstanding: 0\nZxid: 0x20000001f\nMode: leader\n\
                      Node count: 7\n";
        let status = read("a:1", answer);
        assert_eq!(status.version.as_deref(), Some("3.8.0"));
        assert_eq!(status.mode.as_deref(), Some("leader"));
        assert_eq!((status.zxid, status.nodes), (Some(0x2_0000_001f), Some(7)));
        assert_eq!((status.connections, status.problem), (Some(2), None));
        let refused = read("a:1", "srvr is not executed because it is not in the whitelist.\n");
        assert!(refused.problem.unwrap().contains("4lw.commands.whitelist"));
        let starting = read("a:1", "This ZooKeeper instance is not currently serving requests\n");
        assert!(starting.problem.unwrap().contains("not currently serving"));
    }

    #[test]
    fn digests_came_with_3_6() {
        for (version, has) in [("3.4.14", false), ("3.5.9", false), ("3.6.0", true), ("4.0", true)]
        {
            assert_eq!(has_digests(version), has, "{version}");
        }
    }
}
