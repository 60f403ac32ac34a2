//! Settings of the endpoint for ZooKeeper's clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::flags::SettingsError;
use crate::limits::{ZK_SERVED_REQUEST_BYTES_MAX, ZK_TICK_MS_MIN};
use crate::model::time::Millis;
use crate::zookeeper::config::{Config, FourLetter};
use crate::zookeeper::tls::TlsFiles;

/// What ZooKeeper's clients find: of `orch server` and `orch dev`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Clients of ZooKeeper")]
pub struct ZkFlags {
    /// Where ZooKeeper's clients connect, as 0.0.0.0:2181 [default: nowhere]
    #[arg(long, env = "ORCH_ZK_ADDR", value_name = "IP:PORT")]
    pub zk_addr: Option<SocketAddr>,
    /// Where they connect with TLS, as 0.0.0.0:2281 [default: nowhere]
    #[arg(long, env = "ORCH_ZK_TLS_ADDR", value_name = "IP:PORT")]
    pub zk_tls_addr: Option<SocketAddr>,
    /// This server's certificate for that (PEM), and those between it and its authority
    #[arg(long, env = "ORCH_ZK_TLS_CERT", value_name = "FILE")]
    pub zk_tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "ORCH_ZK_TLS_KEY", value_name = "FILE")]
    pub zk_tls_key: Option<PathBuf>,
    /// Authorities (PEM) one of which must have signed a client's certificate; its subject is then
    /// who the client is in access lists, as x509 [default: clients need no certificate]
    #[arg(long, env = "ORCH_ZK_TLS_CLIENT_CA", value_name = "FILE")]
    pub zk_tls_client_ca: Option<PathBuf>,
    /// Unit of session time-outs, which are 2 to 20 of it (tickTime)
    #[arg(long, env = "ORCH_ZK_TICK", value_name = "TIME", default_value = "2s",
          value_parser = tick)]
    pub zk_tick: Millis,
    /// Four-letter words that are answered, with commas; * for all
    #[arg(long = "zk-4lw", env = "ORCH_ZK_4LW", value_name = "WORDS", default_value = "srvr")]
    pub zk_4lw: FourLetter,
    /// Who proves this digest may do everything: super:HASH, HASH being the base64 of the SHA-1 of
    /// super:PASSWORD [default: nobody]
    #[arg(long, env = "ORCH_ZK_SUPER_DIGEST", value_name = "super:HASH",
          value_parser = super_digest)]
    pub zk_super_digest: Option<String>,
    /// Bytes of one request (jute.maxbuffer)
    #[arg(long, env = "ORCH_ZK_MAX_REQUEST", value_name = "BYTES", default_value = "1048575",
          value_parser = max_request)]
    pub zk_max_request: usize,
    /// Connections from one address; 0 for any number (maxClientCnxns)
    #[arg(long, env = "ORCH_ZK_MAX_CONNECTIONS", value_name = "N", default_value = "60")]
    pub zk_max_connections: usize,
    /// Requests of one connection that may wait for their answers (globalOutstandingLimit)
    #[arg(long, env = "ORCH_ZK_MAX_OUTSTANDING", value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub zk_max_outstanding: u32,
    /// Refuse what goes beyond a quota's hard limits (enforceQuota)
    #[arg(long, env = "ORCH_ZK_ENFORCE_QUOTA", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub zk_enforce_quota: bool,
    /// Let the super user change the list of servers in /zookeeper/config (reconfigEnabled)
    #[arg(long, env = "ORCH_ZK_RECONFIG", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub zk_reconfig: bool,
    /// Let clients that agree to it read while no server leads (readonlymode.enabled)
    #[arg(long, env = "ORCH_ZK_READ_ONLY", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub zk_read_only: bool,
}

impl ZkFlags {
    /// The endpoint's settings, if there is to be one.
    ///
    /// # Errors
    /// If encrypted connections are wanted without a certificate and its key.
    pub(super) fn config(&self) -> Result<Option<Config>, SettingsError> {
        let tls = match (self.zk_tls_addr, &self.zk_tls_cert, &self.zk_tls_key) {
            (Some(addr), Some(cert), Some(key)) => {
                let client_ca = self.zk_tls_client_ca.clone();
                Some((addr, TlsFiles { cert: cert.clone(), key: key.clone(), client_ca }))
            }
            (Some(_), ..) => return Err(SettingsError::ZkTls),
            _ => None,
        };
        if self.zk_addr.is_none() && tls.is_none() {
            return Ok(None);
        }
        Ok(Some(Config {
            addr: self.zk_addr,
            tls,
            tick: self.zk_tick,
            four_letter: self.zk_4lw.clone(),
            super_digest: self.zk_super_digest.clone(),
            max_request: self.zk_max_request,
            max_connections_per_address: self.zk_max_connections,
            max_outstanding: self.zk_max_outstanding as usize,
            enforce_quota: self.zk_enforce_quota,
            reconfig: self.zk_reconfig,
            read_only: self.zk_read_only,
        }))
    }
}

fn tick(text: &str) -> Result<Millis, String> {
    let tick: Millis = text.parse().map_err(|error| format!("{error}"))?;
    if tick.0 < ZK_TICK_MS_MIN {
        return Err(format!("less than {ZK_TICK_MS_MIN}ms is no unit for session time-outs"));
    }
    Ok(tick)
}

fn super_digest(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("super", hash)) if hash.len() == 28 => Ok(text.to_owned()),
        _ => Err(
            "it has the form super:HASH; get HASH by: printf super:PASSWORD | openssl sha1 -binary | \
             base64"
                .to_owned(),
        ),
    }
}

fn max_request(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|error| format!("{error}"))?;
    if !(1024..=ZK_SERVED_REQUEST_BYTES_MAX).contains(&bytes) {
        return Err(format!("it is 1024 to {ZK_SERVED_REQUEST_BYTES_MAX}"));
    }
    Ok(bytes)
}
