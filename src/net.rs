//! Connections between servers, agents and their clients: the machine's network in life, a
//! simulated one in simulation. Clients of other systems and probes of tasks open their own.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http::Uri;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Error};

/// After an error of the listener, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A silent connection is asked this often whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes both ways, in order, until one side ends it.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + Debug + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + Debug + 'static> Duplex for T {}

/// A connection.
pub type Connection = Box<dyn Duplex>;

/// Where connections come from.
pub trait Listen: Send + Debug {
    /// The next one, and from where.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>>;
}

/// A listener.
pub type Listener = Box<dyn Listen>;

/// What processes reach each other by.
pub trait Net: Send + Sync + Debug {
    /// Listens on `addr`.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Listener>>;

    /// Connects to `addr`, `host:port`. It takes as long as it takes.
    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Connection>>;
}

/// A network that rooms share.
pub type SharedNet = Arc<dyn Net>;

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsNet;

impl OsNet {
    /// For sharing.
    pub fn shared() -> SharedNet {
        Arc::new(Self)
    }
}

impl Net for OsNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move {
            let listener: Listener = Box::new(TcpListener::bind(addr).await?);
            Ok(listener)
        })
    }

    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            prepare(&stream);
            let stream: Connection = Box::new(stream);
            Ok(stream)
        })
    }
}

impl Listen for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = Self::accept(self).await?;
            prepare(&stream);
            let stream: Connection = Box::new(stream);
            Ok((stream, peer))
        })
    }
}

fn prepare(stream: &TcpStream) {
    // Both only make things better; a connection without them still works. Small messages go out
    // at once: waiting for more would cost 40 ms each.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE);
}

/// A way for gRPC to `endpoint` that is connected when it is first used, and again when needed.
pub fn channel(net: &SharedNet, endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(connector(net.clone()))
}

/// The same, connected now.
///
/// # Errors
/// If that is not possible.
pub async fn connected(net: &SharedNet, endpoint: &Endpoint) -> Result<Channel, Error> {
    endpoint.connect_with_connector(connector(net.clone())).await
}

/// Connections as a gRPC server takes them; none that fails ends the listener.
pub fn incoming(listener: Listener) -> impl Stream<Item = io::Result<Served>> {
    futures::stream::unfold(listener, |mut listener| async {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(Served(connection)), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    })
}

/// A connection that is served by gRPC.
#[derive(Debug)]
pub struct Served(Connection);

impl Connected for Served {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

type Connecting = BoxFuture<'static, io::Result<TokioIo<Connection>>>;

fn connector(
    net: SharedNet,
) -> impl tower::Service<Uri, Response = TokioIo<Connection>, Error = io::Error, Future = Connecting>
+ Send
+ Clone {
    tower::service_fn(move |uri: Uri| -> Connecting {
        let addr = uri.authority().map(ToString::to_string).unwrap_or_default();
        let connecting = net.connect(addr);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    })
}
