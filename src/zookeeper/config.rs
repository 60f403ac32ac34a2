//! Settings of the endpoint for ZooKeeper's clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::tls::TlsFiles;
use crate::consensus::ZkAddrs;
use crate::model::time::Millis;

/// The unit of session time-outs unless something else is said.
pub const TICK: Millis = Millis(2000);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub addr: Option<SocketAddr>,
    /// Where they connect with TLS.
    pub tls: Option<(SocketAddr, TlsFiles)>,
    /// The unit of session time-outs; they are 2 to 20 of it.
    pub tick: Millis,
    /// Four-letter words that are answered.
    pub four_letter: FourLetter,
    /// Base64 of the SHA-1 of `super:PASSWORD`, behind `super:`: who proves it may do everything.
    pub super_digest: Option<String>,
    /// Bytes of one request (`jute.maxbuffer`).
    pub max_request: usize,
    /// Connections from one address; 0: any number.
    pub max_connections_per_address: usize,
    /// Requests of one connection that may wait for their answers.
    pub max_outstanding: usize,
    /// Whether hard limits of quotas hold.
    pub enforce_quota: bool,
    /// Whether the super user may change the list of servers in `/zookeeper/config`.
    pub reconfig: bool,
    /// Whether clients that agree may read while there is no leader.
    pub read_only: bool,
}

impl Config {
    /// ZooKeeper's own defaults.
    pub fn at(addr: SocketAddr) -> Self {
        Self {
            addr: Some(addr),
            tls: None,
            tick: TICK,
            four_letter: FourLetter::default(),
            super_digest: None,
            max_request: 0xf_ffff,
            max_connections_per_address: 60,
            max_outstanding: 1000,
            enforce_quota: false,
            reconfig: false,
            read_only: false,
        }
    }

    /// Where clients reach it. Where it listens on all addresses that is the host of `other`, the
    /// `host:port` at which another of the server's doors is reached.
    pub fn reached_at(&self, other: &str) -> ZkAddrs {
        let host = other.rsplit_once(':').map_or(other, |(host, _)| host);
        let at = |addr: SocketAddr| match addr.ip().is_unspecified() {
            true => format!("{host}:{}", addr.port()),
            false => addr.to_string(),
        };
        ZkAddrs { plain: self.addr.map(at), tls: self.tls.as_ref().map(|(addr, _)| at(*addr)) }
    }

    /// The time-out that a session gets which asks for `wanted` milliseconds.
    pub(super) fn timeout(&self, wanted: i32) -> i32 {
        let tick = i32::try_from(self.tick.0).unwrap_or(i32::MAX / 20);
        wanted.clamp(tick.saturating_mul(2), tick.saturating_mul(20))
    }
}

/// The four-letter words that are answered: `*` in a list stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FourLetter {
    /// All of them.
    All,
    /// These.
    These(BTreeSet<String>),
}

impl Default for FourLetter {
    /// As ZooKeeper: `srvr` alone.
    fn default() -> Self {
        Self::These(BTreeSet::from(["srvr".to_owned()]))
    }
}

impl FourLetter {
    /// Whether the word is answered.
    pub fn has(&self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(words) => words.contains(word),
        }
    }
}

impl std::str::FromStr for FourLetter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: BTreeSet<String> = text
            .split(',')
            .map(|word| word.trim().to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        if words.contains("*") {
            return Ok(Self::All);
        }
        if let Some(unknown) = words.iter().find(|word| !super::four_letter::is_known(word)) {
            return Err(format!(
                "{unknown:?} is no four-letter word; there are {} and * for all",
                super::four_letter::WORDS.join(", ")
            ));
        }
        Ok(Self::These(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_by_the_server_s_own_host() {
        let at = |addr: &str, other| Config::at(addr.parse().unwrap()).reached_at(other).plain;
        assert_eq!(at("0.0.0.0:2181", "s1:7400").as_deref(), Some("s1:2181"));
        assert_eq!(at("[::]:2181", "[fe80::1]:7400").as_deref(), Some("[fe80::1]:2181"));
        assert_eq!(at("10.0.0.1:2182", "s1:7400").as_deref(), Some("10.0.0.1:2182"));
        assert_eq!(Config::at("10.0.0.1:1".parse().unwrap()).reached_at("s1:1").tls, None);
    }
}
