//! Encrypted connections: who a client's certificate says it is, and whose are let in.

use std::path::PathBuf;
use std::sync::Arc;

use orch::jute::Id;
use orch::jute::op::PERM_ALL;
use orch::jute::reply::WhoAmIReply;
use orch::jute::request::{RequestHeader, SetAclRequest, SetDataRequest};
use orch::zookeeper::client::{FrameReader, FrameWriter, WireError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const SERVER: &str = "zk.example";
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    fn sign(&self, subject: &[(DnType, &str)]) -> Identity {
        let mut params = CertificateParams::new(vec![SERVER.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

/// A server for whoever has a certificate that `clients` has signed, if that is wanted; where it
/// is with TLS and without; and who signed its own.
fn encrypted(clients: Option<&Authority>) -> (Cluster, String, String, Authority) {
    let authority = Authority::new("servers");
    let own = authority.sign(&[(DnType::CommonName, SERVER)]);
    let mut cluster = Cluster::empty();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = cluster.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = (file("cert.pem", &own.pem), file("key.pem", &own.key.serialize_pem()));
    let address = LoopbackAddress::next();
    let plain = address.port(CLIENT_PORT).to_string();
    let tls = address.port(CLIENT_PORT + 100).to_string();
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let mut flags = vec!["--zk-addr", &plain, "--zk-tls-addr", &tls];
    flags.extend(["--zk-tls-cert", &cert, "--zk-tls-key", &key]);
    let ca = clients.map(|clients| file("clients.pem", &clients.pem).display().to_string());
    flags.extend(ca.iter().flat_map(|ca| ["--zk-tls-client-ca", ca]));
    cluster.server("s1", &flags);
    cluster.wait_for_voters(1);
    (cluster, tls, plain, authority)
}

/// A connection with TLS.
struct Secure {
    from: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    to: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
}

impl Secure {
    /// A session for whoever shows that certificate, if any.
    async fn open(
        address: &str,
        trusted: &Authority,
        shown: Option<&Identity>,
    ) -> Result<Self, WireError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some(Identity { certificate, key, .. }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(SERVER).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (read, write) = tokio::io::split(stream);
        let mut secure =
            Self { from: FrameReader::new(read, FRAME_BYTES_MAX), to: FrameWriter::new(write) };
        secure.to.add(|out| hello(0, vec![0; 16], 10_000).write(out));
        secure.to.flush().await?;
        let frame = secure.from.next().await?;
        assert_ne!(ConnectReply::from_bytes(&frame)?.session_id, 0);
        Ok(secure)
    }

    async fn ask<'a>(&mut self, op: Op, record: &impl Field<'a>) -> (ErrorCode, Vec<u8>) {
        self.to.add_request(1, op.number(), record);
        self.answer().await
    }

    async fn who(&mut self) -> Vec<Id> {
        self.to.add(|out| RequestHeader { xid: 1, op: Op::WhoAmI.number() }.write(out));
        let (_, body) = self.answer().await;
        WhoAmIReply::from_bytes(&body).unwrap().clients
    }

    async fn answer(&mut self) -> (ErrorCode, Vec<u8>) {
        self.to.flush().await.unwrap();
        let frame = self.from.next().await.unwrap();
        let mut reader = Reader::new(&frame);
        let header: ReplyHeader = reader.field().unwrap();
        (ErrorCode::of(header.err).unwrap(), reader.rest().to_vec())
    }
}

fn x509(subject: &str) -> Id {
    Id { scheme: "x509".to_owned(), id: subject.to_owned() }
}

#[test]
fn a_certificate_s_subject_is_who_the_client_is() {
    let clients = Authority::new("clients");
    let (_cluster, tls, plain, servers) = encrypted(Some(&clients));
    let of = |name: &str| {
        clients.sign(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Räder, Inc."),
            (DnType::CommonName, name),
        ])
    };
    let (alice, bob) = (of("alice"), of("bob"));
    let name = "CN=alice,O=Räder\\, Inc.,C=DE";
    run(async {
        let mut first = Secure::open(&tls, &servers, Some(&alice)).await.unwrap();
        assert!(first.who().await.contains(&x509(name)));
        let made = create("/mine", b"first", 0);
        assert_eq!(first.ask(Op::Create, &made).await.0, ErrorCode::Ok);
        let acl = vec![Acl { perms: PERM_ALL, id: x509(name) }];
        let set_acl = SetAclRequest { path: "/mine", acl, version: -1 };
        assert_eq!(first.ask(Op::SetAcl, &set_acl).await.0, ErrorCode::Ok);
        // Whoever it has proven to be, without its name.
        let acl = vec![Acl { perms: PERM_ALL, id: Id { scheme: "auth".into(), id: "".into() } }];
        let own = CreateRequest { path: "/own", data: None, acl, flags: 0 };
        assert_eq!(first.ask(Op::Create, &own).await.0, ErrorCode::Ok);

        let mut second = Secure::open(&tls, &servers, Some(&bob)).await.unwrap();
        let (mut nobody, _) = open_new(&plain).await;
        let mut again = Secure::open(&tls, &servers, Some(&alice)).await.unwrap();
        for path in ["/mine", "/own"] {
            let get = WatchRequest { path, watch: false };
            let set = SetDataRequest { path, data: Some(b"new"), version: -1 };
            assert_eq!(second.ask(Op::GetData, &get).await.0, ErrorCode::NoAuth);
            assert_eq!(second.ask(Op::SetData, &set).await.0, ErrorCode::NoAuth);
            assert_eq!(err(&mut nobody, Op::GetData, &get).await, ErrorCode::NoAuth);
            assert_eq!(err(&mut nobody, Op::SetData, &set).await, ErrorCode::NoAuth);
            assert_eq!(again.ask(Op::SetData, &set).await.0, ErrorCode::Ok);
            assert_eq!(first.ask(Op::GetData, &get).await.0, ErrorCode::Ok);
        }
    });
}

#[test]
fn who_has_no_certificate_or_another_authority_s_is_not_let_in() {
    let (clients, others) = (Authority::new("clients"), Authority::new("clients"));
    let (_cluster, tls, _, servers) = encrypted(Some(&clients));
    let subject = [(DnType::CommonName, "alice")];
    let (alice, forged) = (clients.sign(&subject), others.sign(&subject));
    run(async {
        assert!(Secure::open(&tls, &servers, Some(&alice)).await.is_ok());
        assert!(Secure::open(&tls, &servers, Some(&forged)).await.is_err());
        assert!(Secure::open(&tls, &servers, None).await.is_err());
        // Without encryption nobody is understood there.
        let mut wire = Wire::connect(&tls, SHORT).await.unwrap();
        assert!(wire.handshake(&hello(0, vec![0; 16], 10_000), SHORT).await.is_err());
        // Nor does a client stay that finds another server than it trusts.
        assert!(Secure::open(&tls, &others, Some(&alice)).await.is_err());
        assert!(Secure::open(&tls, &servers, Some(&alice)).await.is_ok());
    });
}

#[test]
fn without_an_authority_for_clients_none_needs_a_certificate() {
    let (_cluster, tls, _, servers) = encrypted(None);
    run(async {
        let mut wire = Secure::open(&tls, &servers, None).await.unwrap();
        let who = wire.who().await;
        assert!(who.iter().all(|id| id.scheme == "ip") && who.len() == 1, "{who:?}");
        // One that nobody asks for proves nothing.
        let alice = Authority::new("clients").sign(&[(DnType::CommonName, "alice")]);
        let mut wire = Secure::open(&tls, &servers, Some(&alice)).await.unwrap();
        assert!(wire.who().await.iter().all(|id| id.scheme == "ip"));
    });
}
