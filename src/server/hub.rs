//! The owner of the agents' lines: who is attached, what each was told, which sessions wait for
//! their agent. Follows the state's events and sends each agent what changed for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::agents::redirect;
use super::dispatch::Book;
use super::handle::Config;
use super::sessions::{Arrival, SessionError};
use crate::clock::SharedClock;
use crate::consensus::{Consensus, Leadership, View};
use crate::limits::AGENT_SESSIONS_MAX;
use crate::model::name::NodeName;
use crate::model::node::NodeState;
use crate::observe::metrics::Metrics;
use crate::rpc::v1;
use crate::rpc::v1::to_agent::Message;
use crate::state::Event;

/// When an agent was last heard, and what it said of its host.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) stats: Option<v1::NodeStats>,
}

/// A node whose agent is attached here, or was until not long ago.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) heard: watch::Receiver<Heard>,
    pub(super) attached: bool,
}

/// All of them; published by the hub for planners and the API.
pub(super) type Peers = OrdMap<NodeName, Peer>;

/// An agent that said hello and is registered.
#[derive(Debug)]
pub(super) struct Attach {
    pub(super) node: NodeName,
    pub(super) agent_id: u64,
    pub(super) heard: watch::Receiver<Heard>,
    pub(super) out: mpsc::Sender<v1::ToAgent>,
    /// Ends the stream to the agent with this status.
    pub(super) end: oneshot::Sender<Status>,
    /// Cancelled when the line is ended from here.
    pub(super) over: CancellationToken,
}

/// A session that waits for its agent.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) arrival: oneshot::Receiver<Arrival>,
    /// Held while the session is open.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the hub is told and asked.
#[derive(Debug)]
pub(super) enum HubEvent {
    /// An agent attaches; the answer is its line's number.
    Attach(Box<Attach>, oneshot::Sender<Result<u64, Status>>),
    /// A line has ended, with this to say to the agent if it still listens.
    Detach { node: NodeName, line: u64, status: Status },
    /// A session with a node's agent is wanted.
    Open {
        node: NodeName,
        request: Box<v1::SessionRequest>,
        reply: oneshot::Sender<Result<Ticket, SessionError>>,
    },
    /// An agent answers with a session; the answer is who waits for it.
    Arrived { session: u64, reply: oneshot::Sender<Option<oneshot::Sender<Arrival>>> },
}

#[derive(Debug)]
struct Line {
    id: u64,
    attach: Attach,
    book: Book,
    sessions: Arc<Semaphore>,
}

impl Line {
    fn end(self, status: Status) {
        // The stream may have ended by itself.
        let _ = self.attach.end.send(status);
        self.attach.over.cancel();
    }

    /// Whether the message went into the agent's queue: a full one means it does not keep up.
    fn send(&self, message: Message) -> bool {
        self.attach.out.try_send(v1::ToAgent { message: Some(message) }).is_ok()
    }
}

#[derive(Debug)]
struct Waiting {
    node: NodeName,
    arrival: oneshot::Sender<Arrival>,
}

pub(super) struct Hub {
    consensus: Consensus,
    leadership: watch::Receiver<Leadership>,
    config: Config,
    clock: SharedClock,
    metrics: Metrics,
    peers: watch::Sender<Peers>,
    lines: BTreeMap<NodeName, Line>,
    waiting: BTreeMap<u64, Waiting>,
    next_line: u64,
    /// The term in which this server takes agents.
    term: Option<u64>,
    /// The last event that was followed.
    cursor: u64,
}

impl Hub {
    pub(super) fn new(
        consensus: Consensus,
        leadership: watch::Receiver<Leadership>,
        config: Config,
        clock: SharedClock,
        metrics: Metrics,
        peers: watch::Sender<Peers>,
    ) -> Self {
        Self {
            consensus,
            leadership,
            config,
            clock,
            metrics,
            peers,
            lines: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_line: 0,
            term: None,
            cursor: 0,
        }
    }

    /// Runs until `stop`; then all lines are ended.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<HubEvent>,
        stop: CancellationToken,
    ) {
        let mut views = self.consensus.views();
        let mut leadership = self.leadership.clone();
        leadership.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = leadership.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = leadership.borrow_and_update().clone();
                    let view = views.borrow_and_update().clone();
                    self.follow_leadership(&now, &view);
                }
                // Before the views, which may change all the time; an event catches up with them.
                event = events.recv() => match event {
                    Some(event) => {
                        let view = views.borrow_and_update().clone();
                        self.follow(&view);
                        self.handle(event, &view);
                    }
                    None => break,
                },
                changed = views.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let view = views.borrow_and_update().clone();
                    self.follow(&view);
                }
            }
        }
        self.end_all(&Status::unavailable("this server is stopping; try another"));
    }

    fn follow_leadership(&mut self, now: &Leadership, view: &View) {
        let term = now.ready.then_some(now.term);
        if term == self.term {
            return;
        }
        self.term = term;
        self.end_all(&redirect(now, self.consensus.me().id));
        self.cursor = view.state.last_event();
    }

    /// Sends each agent what changed for it since the last look.
    fn follow(&mut self, view: &View) {
        let state = &view.state;
        if self.cursor == state.last_event() {
            return;
        }
        if self.term.is_none() {
            self.cursor = state.last_event();
            return;
        }
        let mut touched = BTreeSet::new();
        let mut all = false;
        match state.events_after(self.cursor) {
            Ok(events) => {
                for record in &events {
                    match &record.event {
                        Event::AllocChanged { node, .. } if self.lines.contains_key(node) => {
                            touched.insert(node.clone());
                        }
                        Event::NodeChanged { node, .. } => self.follow_node(view, node),
                        Event::Restored => all = true,
                        Event::AllocChanged { .. }
                        | Event::JobChanged { .. }
                        | Event::DeploymentChanged { .. }
                        | Event::VariableChanged { .. } => {}
                    }
                }
            }
            Err(_) => all = true,
        }
        self.cursor = state.last_event();
        if all {
            let nodes: Vec<_> = self.peers.borrow().keys().cloned().collect();
            for node in nodes {
                self.follow_node(view, &node);
            }
            let nodes: Vec<_> = self.lines.keys().cloned().collect();
            for node in nodes {
                self.sync(view, &node);
            }
            return;
        }
        for node in touched {
            self.send_changes(view, &node);
        }
    }

    /// A line whose node does not count as ready for that agent any more is ended: the agent
    /// registers anew.
    fn follow_node(&mut self, view: &View, name: &NodeName) {
        let node = view.state.node(name);
        let ready = node.filter(|node| node.state == NodeState::Ready);
        if let Some(line) = self.lines.get(name)
            && ready.is_none_or(|node| node.agent_id != line.attach.agent_id)
        {
            let why = match node {
                None => "the node was removed".to_owned(),
                Some(node) if ready.is_some() => {
                    format!("node {} has registered with another agent since", node.name)
                }
                Some(node) => {
                    format!("node {} counts as {}: {}", node.name, node.state.word(), node.reason)
                }
            };
            self.end_line(name, Status::aborted(why));
        }
        if ready.is_none() && self.peers.borrow().contains_key(name) {
            self.peers.send_modify(|peers| {
                peers.remove(name);
            });
        }
    }

    fn sync(&mut self, view: &View, node: &NodeName) {
        let Some(line) = self.lines.get_mut(node) else { return };
        let sent = match line.book.sync(&view.state, node) {
            Ok(pieces) => pieces.into_iter().all(|piece| line.send(Message::Sync(piece))),
            Err(error) => {
                tracing::error!(%node, %error, "what the agent is to run can't be encoded");
                false
            }
        };
        if !sent {
            self.end_line(node, too_slow());
        }
    }

    fn send_changes(&mut self, view: &View, node: &NodeName) {
        let Some(line) = self.lines.get_mut(node) else { return };
        let sent = match line.book.changes(&view.state, node) {
            Ok(pieces) => pieces.into_iter().all(|piece| line.send(Message::Orders(piece))),
            Err(error) => {
                tracing::error!(%node, %error, "orders can't be encoded");
                false
            }
        };
        if !sent {
            self.end_line(node, too_slow());
        }
    }

    fn handle(&mut self, event: HubEvent, view: &View) {
        match event {
            HubEvent::Attach(attach, reply) => {
                let answer = self.attach(*attach, view);
                // Whoever asked may have gone; then the line ends by itself.
                let _ = reply.send(answer);
            }
            HubEvent::Detach { node, line, status } => {
                if self.lines.get(&node).is_some_and(|known| known.id == line) {
                    self.end_line(&node, status);
                }
            }
            HubEvent::Open { node, request, reply } => {
                let answer = self.open(node, *request);
                let _ = reply.send(answer);
            }
            HubEvent::Arrived { session, reply } => {
                let waiting = self.waiting.remove(&session).map(|waiting| waiting.arrival);
                let _ = reply.send(waiting.filter(|arrival| !arrival.is_closed()));
            }
        }
    }

    fn attach(&mut self, attach: Attach, view: &View) -> Result<u64, Status> {
        let leadership = self.leadership.borrow().clone();
        let Some(term) = self.term.filter(|term| leadership.ready && leadership.term == *term)
        else {
            return Err(redirect(&leadership, self.consensus.me().id));
        };
        let node = attach.node.clone();
        let registered = view.state.node(&node).is_some_and(|known| {
            known.agent_id == attach.agent_id && known.state == NodeState::Ready
        });
        if !registered {
            let message = format!("node {node} has changed since; register again");
            return Err(Status::aborted(message));
        }
        self.end_line(&node, Status::aborted("a newer stream of this agent took its place"));
        self.next_line += 1;
        let id = self.next_line;
        let welcome = v1::Welcome {
            cluster_id: view.state.cluster_id(),
            term,
            heartbeat_millis: u32::try_from(self.config.heartbeat.0).unwrap_or(u32::MAX),
            servers: self.consensus.server_addrs(),
        };
        let peer = Peer { heard: attach.heard.clone(), attached: true };
        let line = Line {
            id,
            attach,
            book: Book::default(),
            sessions: Arc::new(Semaphore::new(AGENT_SESSIONS_MAX)),
        };
        // The queue is empty: there is room.
        line.send(Message::Welcome(welcome));
        self.lines.insert(node.clone(), line);
        self.metrics.agents_connected.set(self.lines.len() as i64);
        self.peers.send_modify(|peers| {
            peers.insert(node.clone(), peer);
        });
        tracing::info!(%node, "agent attached");
        self.sync(view, &node);
        Ok(id)
    }

    fn open(
        &mut self,
        node: NodeName,
        request: v1::SessionRequest,
    ) -> Result<Ticket, SessionError> {
        let Some(line) = self.lines.get(&node) else {
            return Err(SessionError::NotConnected { node });
        };
        let Ok(permit) = line.sessions.clone().try_acquire_owned() else {
            return Err(SessionError::TooMany { node, max: AGENT_SESSIONS_MAX });
        };
        // Those whose asker gave up.
        self.waiting.retain(|_, waiting| !waiting.arrival.is_closed());
        let session = self.clock.random();
        let open = v1::OpenSession { session, request: Some(request) };
        if !line.send(Message::OpenSession(open)) {
            self.end_line(&node, too_slow());
            return Err(SessionError::TooSlow { node });
        }
        let (sender, arrival) = oneshot::channel();
        self.waiting.insert(session, Waiting { node, arrival: sender });
        Ok(Ticket { arrival, permit })
    }

    fn end_line(&mut self, node: &NodeName, status: Status) {
        let Some(line) = self.lines.remove(node) else { return };
        tracing::info!(%node, reason = status.message(), "agent's line ended");
        self.metrics.agents_connected.set(self.lines.len() as i64);
        self.waiting.retain(|_, waiting| waiting.node != *node);
        // When it was last heard still counts.
        self.peers.send_modify(|peers| {
            if let Some(peer) = peers.get_mut(node) {
                peer.attached = false;
            }
        });
        line.end(status);
    }

    fn end_all(&mut self, status: &Status) {
        self.waiting.clear();
        self.metrics.agents_connected.set(0);
        self.peers.send_replace(Peers::new());
        for (_, line) in std::mem::take(&mut self.lines) {
            line.end(status.clone());
        }
    }
}

fn too_slow() -> Status {
    Status::resource_exhausted("the agent does not keep up with its orders; attach again")
}
