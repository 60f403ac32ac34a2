//! The gRPC service that agents, and other servers on their behalf, call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::handle::Inner;
use super::hub::{Attach, Heard, HubEvent};
use super::line::{self, Reader};
use super::{checks, sessions};
use crate::consensus::{Leadership, ProposeError};
use crate::limits::{AGENT_HELLO_WAIT_MS, AGENT_QUEUE_MAX};
use crate::model::node::{NodeSpec, NodeState};
use crate::rpc::v1;
use crate::rpc::v1::from_agent::Message;
use crate::state::{Command, RejectedCode};

/// Metadata key under which a server that does not lead names the one that does.
pub(super) const LEADER_KEY: &str = "orch-leader";

/// How long a server that is about to lead lets callers wait.
const ABOUT_TO_LEAD: Duration = Duration::from_secs(2);

/// Carries out `orch.v1.Agents`.
#[derive(Debug, Clone)]
pub struct Agents {
    pub(super) inner: Arc<Inner>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How a server answers that can't take agents: with the leader's address if it knows one.
pub(super) fn redirect(leadership: &Leadership, me: u64) -> Status {
    let Some(leader) = &leadership.leader else {
        return Status::unavailable("no leader is known; try again");
    };
    if leader.id == me {
        return Status::unavailable("this server is about to lead; try again");
    }
    let message = format!("server {} leads, at {}", leader.name, leader.rpc_addr);
    let mut status = Status::failed_precondition(message);
    if let Ok(address) = leader.rpc_addr.parse() {
        status.metadata_mut().insert(LEADER_KEY, address);
    }
    status
}

/// The first message of a stream, waited for a bounded time.
async fn first<T>(inbound: &mut Streaming<T>, what: &str) -> Result<T, Status> {
    match timeout(Duration::from_millis(AGENT_HELLO_WAIT_MS), inbound.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::invalid_argument(format!("the stream ended before {what}"))),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded(format!("{what} did not come"))),
    }
}

fn stopping() -> Status {
    Status::unavailable("this server is stopping; try another")
}

/// What an agent is told when something it needs could not be proposed.
pub(super) fn from_propose(error: ProposeError) -> Status {
    match error {
        ProposeError::Rejected(rejected) => match rejected.code {
            RejectedCode::NameTaken => Status::already_exists(rejected.message),
            RejectedCode::NotFound | RejectedCode::Conflict => Status::aborted(rejected.message),
            _ => Status::invalid_argument(rejected.message),
        },
        ProposeError::TooLarge(message) => Status::invalid_argument(message),
        ProposeError::NoLeader(_) | ProposeError::Unknown(_) | ProposeError::Stopping(_) => {
            Status::unavailable(error.to_string())
        }
    }
}

impl Agents {
    /// Where agents are taken, or the redirect. A server that is about to lead is waited for: at
    /// that moment all agents look for it.
    async fn leading(&self) -> Result<Leadership, Status> {
        let me = self.inner.consensus.me().id;
        let settled = |now: &Leadership| {
            now.ready || now.leader.as_ref().is_none_or(|leader| leader.id != me)
        };
        let mut leadership = self.inner.leadership.clone();
        let _ = timeout(ABOUT_TO_LEAD, leadership.wait_for(settled)).await;
        let leadership = leadership.borrow().clone();
        if leadership.ready { Ok(leadership) } else { Err(redirect(&leadership, me)) }
    }

    /// Has the node in the state, as its agent describes it, and waits until this server sees it.
    async fn register(&self, spec: NodeSpec) -> Result<(), Status> {
        let state = self.inner.consensus.views().borrow().state.clone();
        let known = state
            .node(&spec.name)
            .is_some_and(|node| node.state == NodeState::Ready && node.spec == spec);
        if known {
            // The usual case after a change of leaders, when all agents come at once.
            return Ok(());
        }
        let command = Command::RegisterNode { spec };
        let committed = self.inner.consensus.propose(command.into()).await.map_err(from_propose)?;
        self.inner.seen(committed.index).await
    }
}

#[tonic::async_trait]
impl v1::agents_server::Agents for Agents {
    type AttachStream = Answers<v1::ToAgent>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let leadership = self.leading().await?;
        let mut inbound = request.into_inner();
        let Some(Message::Hello(hello)) = first(&mut inbound, "a hello").await?.message else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let spec = checks::node_spec(&hello.node)?;
        let cluster = self.inner.consensus.views().borrow().state.cluster_id();
        if cluster == 0 {
            return Err(Status::unavailable("the cluster is being founded; try again"));
        }
        if hello.cluster_id != 0 && hello.cluster_id != cluster {
            return Err(Status::permission_denied(format!(
                "the agent of node {} belongs to another cluster ({:016x}, this one is {:016x}); \
                 give it the addresses of its own servers, or an empty data directory",
                spec.name, hello.cluster_id, cluster
            )));
        }
        if hello.term > leadership.term {
            // Someone leads in a newer term, and this server has not heard of it.
            return Err(Status::unavailable(format!(
                "the agent has orders of term {}, this server leads in term {}; try again",
                hello.term, leadership.term
            )));
        }
        let (node, agent_id) = (spec.name.clone(), spec.agent_id);
        self.register(spec).await?;

        let (heard, heard_rx) = watch::channel(Heard { at: Instant::now(), stats: None });
        let (out, queue) = mpsc::channel(AGENT_QUEUE_MAX);
        let (end, ended) = oneshot::channel();
        let over = CancellationToken::new();
        let attach = Attach {
            node: node.clone(),
            agent_id,
            heard: heard_rx,
            out: out.clone(),
            end,
            over: over.clone(),
        };
        let reader = Reader::new(self.inner.clone(), node, agent_id, heard, out, over);
        let (attached, answer) = oneshot::channel();
        // A task of its own: this future is dropped if the agent goes away, and the line must end.
        self.inner.tasks.spawn(reader.run(attach, attached, inbound));
        answer.await.map_err(|_| stopping())??;
        Ok(Response::new(Box::pin(line::answers(queue, ended))))
    }

    type SessionStream = Answers<v1::SessionFrame>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut inbound = request.into_inner();
        let frame = first(&mut inbound, "a session's number").await?.frame;
        let Some(v1::session_frame::Frame::Session(session)) = frame else {
            return Err(Status::invalid_argument("the first frame must name the session"));
        };
        let waiting = self.inner.ask_hub(|reply| HubEvent::Arrived { session, reply }).await;
        let waiting = waiting.ok_or_else(stopping)?;
        let gone = || Status::not_found("nobody waits for a session under this number");
        let waiting = waiting.ok_or_else(gone)?;
        let (arrival, outgoing) = sessions::arrival(inbound);
        waiting.send(arrival).map_err(|_| gone())?;
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn usage(
        &self,
        request: Request<v1::UsageRequest>,
    ) -> Result<Response<v1::UsageReply>, Status> {
        let leadership = self.inner.leadership.borrow().clone();
        if !leadership.ready {
            return Err(redirect(&leadership, self.inner.consensus.me().id));
        }
        let node = match request.into_inner().node.as_str() {
            "" => None,
            name => {
                let invalid = |error| Status::invalid_argument(format!("node {name:?}: {error}"));
                Some(name.parse().map_err(invalid)?)
            }
        };
        Ok(Response::new(self.inner.usage_here(node.as_ref()).into()))
    }

    type RelayStream = Answers<v1::SessionFrame>;

    async fn relay(
        &self,
        request: Request<Streaming<v1::SessionFrame>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        self.leading().await?;
        let mut inbound = request.into_inner();
        let frame = first(&mut inbound, "a session's request").await?.frame;
        let Some(v1::session_frame::Frame::Request(request)) = frame else {
            return Err(Status::invalid_argument("the first frame must be the request"));
        };
        let session = self.inner.open_here(request).await.map_err(Status::from)?;
        Ok(Response::new(Box::pin(sessions::relay(&self.inner, inbound, session))))
    }
}
