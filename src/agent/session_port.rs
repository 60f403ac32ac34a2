//! Sessions that are a connection to a task's port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tonic::Streaming;

use super::order::Published;
use super::sessions::{Failure, Session};
use super::view::View;
use crate::limits::SESSION_PIECE_BYTES;
use crate::model::job::Protocol;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::{ForwardRequest, Opened, SessionFrame, StdoutEnd};

/// For the task to take the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

impl Session {
    pub(super) async fn forward(
        &self,
        views: &[View],
        request: &ForwardRequest,
        incoming: &mut Streaming<SessionFrame>,
    ) -> Result<(), Failure> {
        let address = address(views, request).await?;
        let connect = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address));
        let socket = match connect.await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                return Err(Failure("failed", format!("port {}: {error}", name(request))));
            }
            Err(_) => {
                let text = format!("port {} does not answer", name(request));
                return Err(Failure("failed", text));
            }
        };
        let _ = socket.set_nodelay(true);
        self.send(Frame::Opened(Opened {})).await?;
        let (mut from, mut to) = socket.into_split();
        let broke =
            |error: std::io::Error| Failure("failed", format!("the connection broke: {error}"));
        let outward = async {
            let mut piece = BytesMut::with_capacity(SESSION_PIECE_BYTES);
            loop {
                piece.reserve(SESSION_PIECE_BYTES);
                if from.read_buf(&mut piece).await.map_err(broke)? == 0 {
                    return self.send(Frame::StdoutEnd(StdoutEnd {})).await;
                }
                self.send(Frame::Stdout(piece.split().freeze())).await?;
            }
        };
        tokio::pin!(outward);
        // Each end is closed by itself.
        let left = tokio::select! {
            ended = &mut outward => {
                ended?;
                inward(incoming, &mut to).await;
                return Ok(());
            }
            left = inward(incoming, &mut to) => left,
        };
        if left {
            return Ok(());
        }
        let gone = async { while let Ok(Some(_)) = incoming.message().await {} };
        tokio::select! {
            ended = &mut outward => ended,
            () = gone => Ok(()),
        }
    }
}

/// Passes on what the caller sends until he has said its end; whether he left before that.
async fn inward(incoming: &mut Streaming<SessionFrame>, to: &mut OwnedWriteHalf) -> bool {
    let mut open = true;
    loop {
        match incoming.message().await {
            Ok(Some(SessionFrame { frame: Some(Frame::Stdin(bytes)) })) if open => {
                // Who has closed his end may still have something to say.
                open = to.write_all(&bytes).await.is_ok();
            }
            Ok(Some(SessionFrame { frame: Some(Frame::StdinEnd(_)) })) => {
                let _ = to.shutdown().await;
                return false;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return true,
        }
    }
}

fn name(request: &ForwardRequest) -> String {
    if request.name.is_empty() { request.port.to_string() } else { request.name.clone() }
}

/// Where the port is reached from this host.
async fn address(views: &[View], request: &ForwardRequest) -> Result<SocketAddr, Failure> {
    for view in views {
        if let Some(port) = view.ports.iter().find(|port| is_meant(view, port, request)) {
            if port.protocol != Protocol::Tcp {
                let text = format!(
                    "port {} is {}, and only TCP can be forwarded",
                    name(request),
                    port.protocol
                );
                return Err(Failure("refused", text));
            }
            running(view)?;
            return Ok(SocketAddr::new(reachable(view.bind_address), port.host));
        }
    }
    let known: Vec<String> = views
        .iter()
        .flat_map(|view| &view.ports)
        .map(|port| format!("{} ({})", port.name, port.inside))
        .collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    if !request.name.is_empty() {
        let text = format!("it has no port {:?}; it has {known}", request.name);
        return Err(Failure("not_found", text));
    }
    let Ok(number) = u16::try_from(request.port) else {
        return Err(Failure("refused", format!("{} is no port", request.port)));
    };
    // Not published: straight into the container, if there is just one that can be meant.
    let view = super::sessions::only(views)?;
    let (runtime, handle) = running(view)?;
    match runtime.inside(&view.key, handle).await? {
        Some(address) => Ok(SocketAddr::new(address, number)),
        None => {
            let text = format!("port {number} was not given to the job; its ports are: {known}");
            Err(Failure("refused", text))
        }
    }
}

fn running(view: &View) -> Result<(&std::sync::Arc<dyn super::runtime::Runtime>, &str), Failure> {
    let task = &view.key.task;
    let Some(runtime) = &view.runtime else {
        return Err(Failure("unreachable", format!("the runtime of task {task} is away")));
    };
    match view.handle.as_deref().filter(|_| view.running) {
        Some(handle) => Ok((runtime, handle)),
        None => Err(Failure("refused", format!("task {task} does not run now"))),
    }
}

/// By its name, or by its number: that inside, or for a process the host's.
fn is_meant(view: &View, port: &Published, request: &ForwardRequest) -> bool {
    let on_host = view.runtime.as_ref().is_some_and(|runtime| runtime.word() == "process");
    let inside = if on_host { port.host } else { port.inside };
    match request.name.as_str() {
        "" => request.port == u32::from(inside),
        name => port.name.as_str() == name,
    }
}

/// A listener on all addresses is reached on the loopback.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}
