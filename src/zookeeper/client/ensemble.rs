//! Connect strings: the addresses of an ensemble's servers, and the path that a client is kept
//! within: `zk://one:2181,two:2181/path`.

use std::fmt;
use std::str::FromStr;

use crate::jute::path::{self, PathError};
use crate::limits::ZK_SERVERS_MAX;

const DEFAULT_PORT: u16 = 2181;
const SCHEME: &str = "zk://";

/// Where an ensemble is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensemble {
    /// `host:port` of each server, in the order in which they are tried.
    pub servers: Vec<String>,
    /// The path that the client is kept within; empty: none.
    pub chroot: String,
}

/// A text that is no connect string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnsembleError {
    /// No server is named.
    #[error("{0:?} names no server; write HOST:PORT, or several with commas between them")]
    Nobody(String),
    /// Too many are.
    #[error("{0} servers are too many; name at most {ZK_SERVERS_MAX}")]
    TooMany(usize),
    /// A port is no number.
    #[error("{0:?}: the port is no number from 1 to 65535; write HOST:PORT")]
    Port(String),
    /// The path can't be one.
    #[error("{chroot:?} behind the servers: {why}")]
    Chroot {
        /// The path.
        chroot: String,
        /// Why.
        why: PathError,
    },
}

impl FromStr for Ensemble {
    type Err = EnsembleError;

    /// `HOST[:PORT][,HOST[:PORT]…][/PATH]`, with or without `zk://` before it. IPv6 addresses
    /// stand in brackets.
    fn from_str(text: &str) -> Result<Self, EnsembleError> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (servers, chroot) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let chroot = if chroot == "/" { "" } else { chroot };
        if !chroot.is_empty() {
            path::check(chroot)
                .map_err(|why| EnsembleError::Chroot { chroot: chroot.to_owned(), why })?;
        }
        let names = servers.split(',').map(str::trim).filter(|name| !name.is_empty());
        let servers = names.map(with_port).collect::<Result<Vec<_>, _>>()?;
        match servers.len() {
            0 => Err(EnsembleError::Nobody(text.to_owned())),
            count if count > ZK_SERVERS_MAX => Err(EnsembleError::TooMany(count)),
            _ => Ok(Self { servers, chroot: chroot.to_owned() }),
        }
    }
}

fn with_port(name: &str) -> Result<String, EnsembleError> {
    // Behind the bracket of an IPv6 address, or behind the name.
    let host_end = name.rfind(']').map_or(0, |at| at + 1);
    let Some(at) = name[host_end..].rfind(':').map(|at| host_end + at) else {
        return Ok(format!("{name}:{DEFAULT_PORT}"));
    };
    let port = name[at + 1..].parse().unwrap_or(0_u16);
    let plain_ipv6 = host_end == 0 && name[..at].contains(':');
    match at == 0 || port == 0 || plain_ipv6 {
        true => Err(EnsembleError::Port(name.to_owned())),
        false => Ok(name.to_owned()),
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.servers.join(","), self.chroot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings_are_read() {
        let read = |text: &str| text.parse::<Ensemble>().map(|ensemble| ensemble.to_string());
        for (text, meant) in [
            ("a:1", "zk://a:1"),
            ("a", "zk://a:2181"),
            ("zk://a:1,b:2/c/d", "zk://a:1,b:2/c/d"),
            ("a:1, b:2,/", "zk://a:1,b:2"),
            ("[::1]:5,[fe80::1]", "zk://[::1]:5,[fe80::1]:2181"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_connect_string_is_refused() {
        let read = |text: &str| text.parse::<Ensemble>().unwrap_err();
        assert_eq!(read(""), EnsembleError::Nobody(String::new()));
        assert_eq!(read("zk:///a"), EnsembleError::Nobody("zk:///a".into()));
        for port in ["a:", "a:0", "a:70000", "a:x", ":5", "fe80::1", "::1:5"] {
            assert_eq!(read(port), EnsembleError::Port(port.into()));
        }
        let many = vec!["a"; ZK_SERVERS_MAX + 1].join(",");
        assert_eq!(read(&many), EnsembleError::TooMany(ZK_SERVERS_MAX + 1));
        let why = PathError::EmptyPart;
        assert_eq!(read("a/b//c"), EnsembleError::Chroot { chroot: "/b//c".into(), why });
    }
}
