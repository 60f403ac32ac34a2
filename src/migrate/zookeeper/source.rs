//! Where a tree comes from: an ensemble, one server's port for learners, or a directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::zookeeper::client::{Ensemble, EnsembleError};

const OBSERVER: &str = "observer://";
const CLIENT: &str = "zk://";
const QUORUM_PORT: u16 = 2888;

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An ensemble, as its clients see it.
    Ensemble(Ensemble),
    /// Servers of an ensemble, one of which leads, as its learners see it: `host:port` of each.
    Observer(Vec<String>),
    /// A data directory.
    Directory(PathBuf),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not an ensemble's.
    #[error(transparent)]
    Ensemble(#[from] EnsembleError),
    /// Not a learners' port.
    #[error("{0:?}: name the servers as observer://HOST:PORT, several with commas between them")]
    Observer(String),
    /// Of a kind that there is none of.
    #[error(
        "{0:?} is no source; write zk://HOST:2181,… for an ensemble, observer://HOST:2888,… for \
         the port of its learners, or the path of a data directory"
    )]
    Unknown(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.starts_with(CLIENT) {
            return Ok(Self::Ensemble(text.parse()?));
        }
        if let Some(servers) = text.strip_prefix(OBSERVER) {
            let wrong = || SourceError::Observer(text.to_owned());
            if servers.contains('/') {
                return Err(wrong());
            }
            let with_ports = servers.split(',').map(str::trim).map(|server| {
                let bare = match server.rfind(']') {
                    Some(at) => !server[at..].contains(':'),
                    None => !server.contains(':'),
                };
                if bare { format!("{server}:{QUORUM_PORT}") } else { server.to_owned() }
            });
            // An ensemble's servers are written alike.
            let ensemble: Ensemble =
                with_ports.collect::<Vec<_>>().join(",").parse().map_err(|_| wrong())?;
            return Ok(Self::Observer(ensemble.servers));
        }
        if text.is_empty() || text.contains("://") {
            return Err(SourceError::Unknown(text.to_owned()));
        }
        Ok(Self::Directory(PathBuf::from(text)))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ensemble(ensemble) => ensemble.fmt(f),
            Self::Observer(servers) => write!(f, "{OBSERVER}{}", servers.join(",")),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let read = |text: &str| text.parse::<Source>().map(|source| source.to_string());
        for (text, meant) in [
            ("zk://a,b:2/c", "zk://a:2181,b:2/c"),
            ("observer://a,b:4,[::1],[::2]:5", "observer://a:2888,b:4,[::1]:2888,[::2]:5"),
            ("/var/lib/zookeeper", "/var/lib/zookeeper"),
            ("data", "data"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant));
        }
        for bad in ["zk://", "observer://", "observer://a/b", "observer://a:x", "", "http://a"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
