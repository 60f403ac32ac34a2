//! The way to the leader of an ensemble that is followed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::source::{Source, SourceError};
use crate::limits::ZK_JOIN_WAIT_MS;
use crate::zookeeper::client::Ensemble;
use crate::zookeeper::observer::{self, FindError, Observer, Options, find_leader};

/// How long a server may take to say whether it leads.
const FIND_WAIT: Duration = Duration::from_secs(3);

/// An ensemble that is followed: its learners' ports, its clients' ports, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveSource {
    /// `host:port` of each server's port for learners; empty: found out through the clients'.
    pub quorum: Vec<String>,
    /// Where its clients go.
    pub clients: Option<Ensemble>,
}

/// A text that names no ensemble to follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveSourceError {
    /// A part of it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A directory, a chroot, or nothing.
    #[error(
        "{0:?} can't be followed; write observer://HOST:2888,… (its learners' ports), \
         zk://HOST:2181,… (its clients' ports, without a path), or both with a space between them"
    )]
    Unfit(String),
}

impl FromStr for LiveSource {
    type Err = LiveSourceError;

    fn from_str(text: &str) -> Result<Self, LiveSourceError> {
        let unfit = || LiveSourceError::Unfit(text.to_owned());
        let mut found = Self { quorum: Vec::new(), clients: None };
        for part in text.split_whitespace() {
            match part.parse()? {
                Source::Observer(servers) if found.quorum.is_empty() => found.quorum = servers,
                Source::Ensemble(ensemble)
                    if found.clients.is_none() && ensemble.chroot.is_empty() =>
                {
                    found.clients = Some(ensemble);
                }
                _ => return Err(unfit()),
            }
        }
        match found.quorum.is_empty() && found.clients.is_none() {
            true => Err(unfit()),
            false => Ok(found),
        }
    }
}

impl fmt::Display for LiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let observer = Source::Observer(self.quorum.clone());
        match (&self.clients, self.quorum.is_empty()) {
            (None, _) => observer.fmt(f),
            (Some(clients), true) => clients.fmt(f),
            (Some(clients), false) => write!(f, "{observer} {clients}"),
        }
    }
}

/// Nobody lets us learn.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Through the learners' ports.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// Through the clients' ports.
    #[error(transparent)]
    Find(#[from] FindError),
}

impl LiveSource {
    /// How long joining may take if nobody answers.
    pub fn patience(&self) -> Duration {
        let one = Duration::from_millis(ZK_JOIN_WAIT_MS);
        let servers = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
        match &self.clients {
            Some(clients) if self.quorum.is_empty() => {
                // Who leads, each server's quorum port, what the ensemble says of its members.
                FIND_WAIT.saturating_mul(servers(clients.servers.len()).saturating_add(2)) + one
            }
            _ => one.saturating_mul(servers(self.quorum.len())),
        }
    }

    /// Joins whoever leads, as the server of that number that has all up to `last_zxid`.
    ///
    /// # Errors
    /// Why each of the servers did not let us.
    pub async fn join(&self, server_id: i64, last_zxid: i64) -> Result<Observer, LinkError> {
        let options = Options { server_id, last_zxid, ..Options::default() };
        let mut refused = Vec::new();
        // Only a leader listens there.
        for address in &self.quorum {
            match observer::join(address, &options).await {
                Ok(observer) => return Ok(observer),
                Err(error) => refused.push(error.to_string()),
            }
        }
        match &self.clients {
            Some(clients) if self.quorum.is_empty() => {
                let leader = find_leader(&clients.servers, None, FIND_WAIT).await?;
                observer::join(&leader.quorum, &options)
                    .await
                    .map_err(|error| LinkError::Refused(vec![error.to_string()]))
            }
            _ => Err(LinkError::Refused(refused)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_followed_is_read() {
        let read = |text: &str| text.parse::<LiveSource>().map(|source| source.to_string());
        for (text, meant) in [
            ("observer://a,b", "observer://a:2888,b:2888"),
            ("zk://a", "zk://a:2181"),
            ("zk://a observer://b:1", "observer://b:1 zk://a:2181"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant));
        }
        for bad in ["", "/var/lib", "zk://a/b", "zk://a zk://b", "observer://"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
