//! Sessions with agents (logs, exec): opened where the agent is attached, relayed by any other
//! server. A session ends when either side goes away, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::checks;
use super::handle::Inner;
use super::hub::HubEvent;
use crate::limits::{RPC_MESSAGE_BYTES_MAX, SERVER_SESSIONS_MAX, SESSION_QUEUE_MAX};
use crate::model::name::{AllocId, NodeName};
use crate::model::server::Server;
use crate::net;
use crate::rpc::v1;
use crate::rpc::v1::agents_client::AgentsClient;
use crate::rpc::v1::session_frame::Frame;

/// How much longer than the leader itself a server waits for its answer.
const RELAY_GRACE: Duration = Duration::from_secs(1);

/// For the leader to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How often a silent leader is asked whether it is still there, and how long it may think.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How soon a session is tried again where none could be opened, if nothing changes before.
const RELAY_AGAIN: Duration = Duration::from_millis(250);

/// An open session. Dropping `from` ends it; dropping `to` does not.
#[derive(Debug)]
pub struct Session {
    /// To the agent: input, window sizes, signals.
    pub to: mpsc::Sender<v1::SessionFrame>,
    /// From the agent; the last frame is an exit or an error.
    pub from: mpsc::Receiver<v1::SessionFrame>,
}

/// Why a session was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The request makes no sense or exceeds a bound.
    #[error("{0}")]
    Invalid(String),
    /// The cluster has no such allocation on that node.
    #[error("{0}")]
    NotFound(String),
    /// The node's agent is not attached.
    #[error("the agent of node {node} is not connected; see `orch node status {node}`")]
    NotConnected {
        /// Which.
        node: NodeName,
    },
    /// The agent did not answer in time.
    #[error("the agent of node {node} did not answer in time; try again")]
    TooSlow {
        /// Which.
        node: NodeName,
    },
    /// Too many sessions are open with the node.
    #[error("{max} sessions are open with node {node}, the most there can be; end one first")]
    TooMany {
        /// Which.
        node: NodeName,
        /// The bound.
        max: usize,
    },
    /// Too many sessions are open through this server.
    #[error("{SERVER_SESSIONS_MAX} sessions are open through this server; try another server")]
    Busy,
    /// No leader could be reached in time, or it could not open the session.
    #[error("{0}")]
    Unavailable(String),
}

impl SessionError {
    /// The word that a session's error frame has for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) | Self::TooMany { .. } | Self::Busy => "refused",
            Self::NotConnected { .. } | Self::TooSlow { .. } | Self::Unavailable(_) => {
                "unreachable"
            }
        }
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Status {
        let message = error.to_string();
        match error {
            SessionError::Invalid(_) => Status::invalid_argument(message),
            SessionError::NotFound(_) => Status::not_found(message),
            SessionError::NotConnected { .. } => Status::aborted(message),
            SessionError::TooSlow { .. } => Status::deadline_exceeded(message),
            SessionError::TooMany { .. } | SessionError::Busy => {
                Status::resource_exhausted(message)
            }
            SessionError::Unavailable(_) => Status::unavailable(message),
        }
    }
}

/// Why the leader did not open a session that was relayed to it.
enum RelayError {
    /// It does not lead, or can't be reached: another may.
    TryAnother(String),
    Final(SessionError),
}

fn from_leader(status: &Status, node: &NodeName) -> RelayError {
    let message = status.message().to_owned();
    RelayError::Final(match status.code() {
        Code::InvalidArgument => SessionError::Invalid(message),
        Code::NotFound => SessionError::NotFound(message),
        Code::Aborted => SessionError::NotConnected { node: node.clone() },
        Code::DeadlineExceeded => SessionError::TooSlow { node: node.clone() },
        Code::ResourceExhausted => SessionError::Unavailable(message),
        _ => return RelayError::TryAnother(message),
    })
}

/// An agent's side of a session, handed to whoever waits for it.
#[derive(Debug)]
pub(super) struct Arrival {
    inbound: Streaming<v1::SessionFrame>,
    to: mpsc::Sender<v1::SessionFrame>,
    over: DropGuard,
}

/// A stream of frames from a queue that goes on until the session is over, even if nobody can
/// put anything in any more: its end is the other side's sign that nobody listens.
fn outgoing(
    queue: mpsc::Receiver<v1::SessionFrame>,
    over: CancellationToken,
) -> impl Stream<Item = v1::SessionFrame> + Send + use<> {
    futures::stream::unfold((queue, over), |(mut queue, over)| async {
        tokio::select! {
            biased;
            () = over.cancelled() => None,
            Some(frame) = queue.recv() => Some((frame, (queue, over))),
            else => None,
        }
    })
}

/// An agent's stream has come: its two halves.
pub(super) fn arrival(
    inbound: Streaming<v1::SessionFrame>,
) -> (Arrival, impl Stream<Item = Result<v1::SessionFrame, Status>> + Send + use<>) {
    let (to, queue) = mpsc::channel(SESSION_QUEUE_MAX);
    let over = CancellationToken::new();
    let stream = outgoing(queue, over.clone()).map(Ok);
    (Arrival { inbound, to, over: over.drop_guard() }, stream)
}

impl Inner {
    /// Opens a session with the agent of the request's node, wherever it is attached.
    pub(super) async fn open_session(
        self: &Arc<Self>,
        request: v1::SessionRequest,
    ) -> Result<Session, SessionError> {
        let node = checks::session_request(&request).map_err(SessionError::Invalid)?;
        let deadline = Instant::now() + self.config.session_open.as_duration();
        let mut leadership = self.leadership.clone();
        let mut why = "no leader is known".to_owned();
        loop {
            let now = leadership.borrow_and_update().clone();
            let relayed = match now.leader {
                _ if now.ready => return self.open_here(request).await,
                Some(leader) if leader.id != self.consensus.me().id => {
                    let open = self.relay_to(&leader, &node, request.clone());
                    // The leader keeps the same time, and knows better what went wrong.
                    Some(timeout_at(deadline + RELAY_GRACE, open).await)
                }
                _ => None,
            };
            match relayed {
                Some(Ok(Ok(session))) => return Ok(session),
                Some(Ok(Err(RelayError::Final(error)))) => return Err(error),
                Some(Ok(Err(RelayError::TryAnother(message)))) => why = message,
                Some(Err(_)) => return Err(SessionError::TooSlow { node }),
                None => {}
            }
            // A leader that is not ready yet becomes so without any change to be seen from here.
            let again = deadline.min(Instant::now() + RELAY_AGAIN);
            let gone = matches!(timeout_at(again, leadership.changed()).await, Ok(Err(_)));
            if gone || Instant::now() >= deadline {
                return Err(SessionError::Unavailable(format!("no leader: {why}; try again")));
            }
        }
    }

    /// Opens a session with an agent that is attached to this server.
    pub(super) async fn open_here(
        self: &Arc<Self>,
        request: v1::SessionRequest,
    ) -> Result<Session, SessionError> {
        let node = checks::session_request(&request).map_err(SessionError::Invalid)?;
        let id = AllocId(request.alloc);
        let find = matches!(request.kind, Some(v1::session_request::Kind::Find(_)));
        let place = self.consensus.views().borrow().state.alloc(id).map(|known| known.node.clone());
        match place {
            // It is about the node, and the hub knows whether that is attached.
            _ if find => {}
            None => return Err(SessionError::NotFound(format!("there is no allocation {id}"))),
            Some(place) if place != node => {
                let message = format!("allocation {id} is on node {place}, not on {node}");
                return Err(SessionError::NotFound(message));
            }
            Some(_) => {}
        }
        let here = self.session_slot()?;
        let stopping = || SessionError::Unavailable("this server is stopping".into());
        let deadline = Instant::now() + self.config.session_open.as_duration();
        let (for_hub, request) = (node.clone(), Box::new(request));
        let ticket = self
            .ask_hub(|reply| HubEvent::Open { node: for_hub, request, reply })
            .await
            .ok_or_else(stopping)??;
        let Arrival { inbound, to, over } = match timeout_at(deadline, ticket.arrival).await {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(_)) => return Err(SessionError::NotConnected { node }),
            Err(_) => return Err(SessionError::TooSlow { node }),
        };
        let held = (here, ticket.permit, over);
        let from = self.pump(inbound, node, held);
        Ok(Session { to, from })
    }

    fn session_slot(&self) -> Result<OwnedSemaphorePermit, SessionError> {
        self.sessions.clone().try_acquire_owned().map_err(|_| SessionError::Busy)
    }

    async fn relay_to(
        self: &Arc<Self>,
        leader: &Server,
        node: &NodeName,
        request: v1::SessionRequest,
    ) -> Result<Session, RelayError> {
        let here = self.session_slot().map_err(RelayError::Final)?;
        let unreachable = |error: &dyn std::fmt::Display| {
            RelayError::TryAnother(format!(
                "server {} at {} can't be reached: {error}",
                leader.name, leader.rpc_addr
            ))
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", leader.rpc_addr))
            .map_err(|error| unreachable(&error))?
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let connected = net::connected(&self.consensus.ground().net, &endpoint).await;
        let channel = connected.map_err(|error| unreachable(&error))?;
        let mut client =
            AgentsClient::new(channel).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX);
        let (to, queue) = mpsc::channel(SESSION_QUEUE_MAX);
        let over = CancellationToken::new();
        let first = v1::SessionFrame { frame: Some(Frame::Request(request)) };
        let first = futures::stream::once(std::future::ready(first));
        let frames = first.chain(outgoing(queue, over.clone()));
        let over = over.drop_guard();
        let inbound =
            client.relay(frames).await.map_err(|status| from_leader(&status, node))?.into_inner();
        let from = self.pump(inbound, node.clone(), (here, over));
        Ok(Session { to, from })
    }

    /// Moves frames from a stream into a queue until one of them ends; `held` is let go then.
    fn pump(
        &self,
        mut inbound: Streaming<v1::SessionFrame>,
        node: NodeName,
        held: impl Send + 'static,
    ) -> mpsc::Receiver<v1::SessionFrame> {
        let (from, queue) = mpsc::channel(SESSION_QUEUE_MAX);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let move_frames = async {
                loop {
                    let frame = match inbound.message().await {
                        Ok(Some(frame)) if checks::comes_from_agents(&frame) => frame,
                        Ok(Some(_)) => broken(&node, "it sent a frame of an unknown kind"),
                        Ok(None) => broken(&node, "it ended the session without a word"),
                        Err(status) => broken(&node, status.message()),
                    };
                    let last = checks::is_last(&frame);
                    if from.send(frame).await.is_err() || last {
                        return;
                    }
                }
            };
            tokio::select! {
                () = move_frames => {}
                () = from.closed() => {}
                () = stop.cancelled() => {
                    let message = "this server is stopping; try another".to_owned();
                    let code = "unreachable".to_owned();
                    // A full queue has no room for a farewell.
                    let _ = from.try_send(error_frame(code, message));
                }
            }
            drop(held);
        });
        queue
    }
}

fn error_frame(code: String, message: String) -> v1::SessionFrame {
    v1::SessionFrame { frame: Some(Frame::Error(v1::SessionError { code, message })) }
}

fn broken(node: &NodeName, why: &str) -> v1::SessionFrame {
    let message = format!("the session with node {node} broke off: {why}");
    error_frame("unreachable".to_owned(), message)
}

/// The leader's part in a relayed session: moves what the other server sends to the agent, and
/// returns what goes back.
pub(super) fn relay(
    inner: &Inner,
    mut inbound: Streaming<v1::SessionFrame>,
    session: Session,
) -> impl Stream<Item = Result<v1::SessionFrame, Status>> + Send + use<> {
    let Session { to, from } = session;
    let over = CancellationToken::new();
    let (gone, stop) = (over.clone(), inner.stop.clone());
    inner.tasks.spawn(async move {
        let move_frames = async {
            // The other server ends its half only when nobody listens there any more.
            while let Ok(Some(frame)) = inbound.message().await {
                if to.send(frame).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = move_frames => {}
            () = to.closed() => return,
            () = stop.cancelled() => return,
        }
        gone.cancel();
    });
    futures::stream::unfold((from, over), |(mut from, over)| async {
        tokio::select! {
            biased;
            () = over.cancelled() => None,
            frame = from.recv() => frame.map(|frame| (Ok(frame), (from, over))),
        }
    })
}
