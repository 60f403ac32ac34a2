//! Sessions over WebSockets: each binary message begins with a byte that names its channel, see
//! `exec_channel`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;

use super::context::{Context, StreamSlot};
use super::error::Problem;
use super::view::allocation::{ExecControl, ExecExit, exec_channel};
use crate::limits::EXEC_MESSAGE_BYTES_MAX;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::{Resize, SessionFrame, StdinEnd};
use crate::server::Session;

/// A quiet connection is asked this often whether it lives.
const PING: Duration = Duration::from_secs(15);

/// The upgrade that the route needs.
pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Refuses a request that asks for no WebSocket.
pub(super) fn wanted(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    upgrade.map_err(|_| {
        let detail = "this goes over a WebSocket; ask for the upgrade";
        Problem::new(StatusCode::UPGRADE_REQUIRED, "bad_request", detail)
    })
}

/// Carries the session over the connection until either ends.
pub(super) fn serve(
    context: &Context,
    upgrade: WebSocketUpgrade,
    session: Session,
    slot: StreamSlot,
) -> Response {
    let stop = context.stop.clone();
    upgrade.max_message_size(EXEC_MESSAGE_BYTES_MAX).on_upgrade(move |socket| async move {
        tokio::select! {
            () = carry(socket, session, slot) => {}
            () = stop.cancelled() => {}
        }
    })
}

/// Moves bytes both ways until the command has ended or the client has gone.
async fn carry(socket: WebSocket, session: Session, _slot: StreamSlot) {
    let (sink, stream) = socket.split();
    let Session { to, from } = session;
    tokio::select! {
        () = output(sink, from) => {}
        // Gone without an end of input: nobody waits for the command any more.
        () = input(stream, to) => {}
    }
}

async fn output(mut sink: SplitSink<WebSocket, Message>, mut from: mpsc::Receiver<SessionFrame>) {
    loop {
        let frame = tokio::select! {
            frame = from.recv() => frame.and_then(|frame| frame.frame),
            () = tokio::time::sleep(PING) => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let (channel, bytes, last) = match frame {
            Some(Frame::Stdout(bytes)) => (exec_channel::STDOUT, bytes, false),
            Some(Frame::StdoutEnd(_)) => (exec_channel::STDOUT, Bytes::new(), false),
            Some(Frame::Stderr(bytes)) => (exec_channel::STDERR, bytes, false),
            Some(Frame::Exit(exit)) => (exec_channel::EXIT, ended(Ok(exit.code)), true),
            Some(Frame::Error(error)) => (exec_channel::EXIT, ended(Err(error.message)), true),
            None => {
                let error = "the agent ended the session without a word".to_owned();
                (exec_channel::EXIT, ended(Err(error)), true)
            }
            Some(_) => continue,
        };
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(&bytes);
        if sink.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
        if last {
            // The other side reads the end from the message; a lost farewell does no harm.
            let _ = sink.close().await;
            return;
        }
    }
}

fn ended(outcome: Result<i32, String>) -> Bytes {
    let exit = match outcome {
        Ok(code) => ExecExit { code: Some(code), error: None },
        Err(error) => ExecExit { code: None, error: Some(error) },
    };
    // A number and a text: they always encode.
    serde_json::to_vec(&exit).unwrap_or_default().into()
}

async fn input(mut stream: SplitStream<WebSocket>, to: mpsc::Sender<SessionFrame>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) | Message::Text(_) => return,
        };
        let Some(frames) = frames(bytes) else { return };
        for frame in frames {
            if to.send(SessionFrame { frame: Some(frame) }).await.is_err() {
                // The command has ended; its last output is still on its way.
                return std::future::pending().await;
            }
        }
    }
}

/// What a message asks for; none if it makes no sense.
fn frames(message: Bytes) -> Option<Vec<Frame>> {
    let channel = *message.first()?;
    let bytes = message.slice(1..);
    match channel {
        exec_channel::STDIN if bytes.is_empty() => Some(vec![Frame::StdinEnd(StdinEnd {})]),
        exec_channel::STDIN => Some(vec![Frame::Stdin(bytes)]),
        exec_channel::CONTROL => {
            let control: ExecControl = serde_json::from_slice(&bytes).ok()?;
            let resize = control
                .resize
                .map(|size| Frame::Resize(Resize { columns: size.columns, rows: size.rows }));
            Some(resize.into_iter().chain(control.signal.map(Frame::Signal)).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_become_frames() {
        let frames = |message: &'static [u8]| frames(Bytes::from_static(message));
        assert_eq!(frames(b"\0hi"), Some(vec![Frame::Stdin(Bytes::from_static(b"hi"))]));
        assert_eq!(frames(b"\0"), Some(vec![Frame::StdinEnd(StdinEnd {})]));
        let resize = Frame::Resize(Resize { columns: 80, rows: 24 });
        let message = b"\x03{\"resize\":{\"columns\":80,\"rows\":24},\"signal\":2}";
        assert_eq!(frames(message), Some(vec![resize, Frame::Signal(2)]));
        for bad in [&b""[..], b"\x01out", b"\x03{", b"\x03{\"size\":1}", b"\x09"] {
            assert_eq!(frames(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_a_panic(message in proptest::collection::vec(any::<u8>(), 0..100)) {
            let empty = message.is_empty();
            let read = frames(message.into());
            prop_assert!(read.is_none() || !empty);
        }
    }
}
