//! WebSockets to the API, for what goes both ways.

use std::time::Duration;

use reqwest::Url;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::client::{pairs, refusal_of, url};
use super::context::Context;
use super::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// To the first server that takes the connection.
pub(super) async fn connect(
    id: &str,
    route: &str,
    query: &impl Serialize,
    context: &Context,
) -> Result<WebSocketStream<TcpStream>, Failure> {
    let path = ["allocations", id, route].map(str::to_owned);
    let query = pairs(query);
    let mut last = Failure::failed("no server answers");
    for server in context.client.servers_in_turn() {
        if server.scheme() != "http" {
            return Err(Failure::failed(format!("{server}: this goes over http only"))
                .hint("name a server with http:// in --addr or ORCH_ADDR"));
        }
        let mut target = url(server, &path, &query);
        if target.set_scheme("ws").is_err() {
            continue;
        }
        match open(server, &target).await {
            Ok(socket) => return Ok(socket),
            Err(failure) if failure.passing => last = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(last)
}

async fn open(server: &Url, target: &Url) -> Result<WebSocketStream<TcpStream>, Failure> {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = server.port_or_known_default().unwrap_or(80);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port)))
        .await
        .map_err(|_| Failure::failed(format!("{server} does not answer")).passing())?
        .map_err(|error| Failure::failed(format!("{server}: {error}")).passing())?;
    // Keys are sent one by one; each has to arrive at once.
    let _ = stream.set_nodelay(true);
    match tokio_tungstenite::client_async(target.as_str(), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err(refusal_of(response.status(), target.as_str(), &body))
        }
        Err(error) => Err(Failure::failed(format!("{server}: {error}")).passing()),
    }
}

/// A message on a channel.
pub(super) fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.into())
}
