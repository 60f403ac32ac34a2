//! Encrypted connections of ZooKeeper's clients, and whom their certificates prove them to be.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::jute::Id;
use crate::limits::ZK_ID_BYTES_MAX;

/// Files that a listener for encrypted connections needs, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// This server's certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities whose clients are let in; without it clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Files that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them.
    #[error("--{flag} {path}: {reason}")]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// They don't fit together.
    #[error("--zk-tls-cert and --zk-tls-key can't be used together: {0}")]
    Pair(String),
}

fn bad(flag: &'static str, path: &std::path::Path, reason: impl ToString) -> TlsError {
    TlsError::File { flag, path: path.display().to_string(), reason: reason.to_string() }
}

fn certificates(
    flag: &'static str,
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(flag, path, error))?;
    let certificates: Result<Vec<_>, _> = read.collect();
    let certificates = certificates.map_err(|error| bad(flag, path, error))?;
    if certificates.is_empty() {
        return Err(bad(flag, path, "there is no certificate in it"));
    }
    Ok(certificates)
}

/// What makes encrypted connections of plain ones.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signing = provider.key_provider;
    let chain = certificates("zk-tls-cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| bad("zk-tls-key", &files.key, error))?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Pair(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates("zk-tls-client-ca", path)? {
                roots.add(root).map_err(|error| bad("zk-tls-client-ca", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| bad("zk-tls-client-ca", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = signing.load_private_key(key).map_err(|error| TlsError::Pair(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    // A certificate of version 1 can be shown, though not compared with its key.
    let fits = certified.keys_match();
    if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = fits {
        return Err(TlsError::Pair("the key is not the certificate's".to_owned()));
    }
    let resolver = SingleCertAndKey::from(certified);
    Ok(TlsAcceptor::from(Arc::new(builder.with_cert_resolver(Arc::new(resolver)))))
}

/// Whom a client's certificate, which was verified, proves it to be: its subject, written as
/// RFC 2253 says, which is how ZooKeeper's `x509` scheme names it.
pub(super) fn identity(connection: &rustls::ServerConnection) -> Vec<Id> {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let subject = certificate
        .and_then(|der| X509Certificate::from_der(der).ok().map(|(_, cert)| name(cert.subject())))
        // It goes through the log with what the client asks.
        .filter(|subject| subject.len() <= ZK_ID_BYTES_MAX);
    subject.into_iter().map(|id| Id { scheme: "x509".to_owned(), id }).collect()
}

/// A name by RFC 2253: the last part first, with commas between.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let oid = attribute.attr_type().to_id_string();
                let key = keyword(&oid).unwrap_or(&oid);
                format!("{key}={}", escape(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// The keywords of RFC 2253, section 2.3; others are written as numbers.
fn keyword(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (at == 0 && matches!(c, ' ' | '#'))
            || (at == last && c == ' ');
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_rfc_2253_says() {
        assert_eq!(escape("James \"Jim\" Smith, III"), "James \\\"Jim\\\" Smith\\, III");
        assert_eq!(escape("#a b "), "\\#a b\\ ");
        assert_eq!(escape("plain"), "plain");
    }
}
