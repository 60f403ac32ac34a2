//! The line to the leader: orders and heartbeats one way, reports the other. When it breaks the
//! agent looks for the leader among all servers it has heard of; work does not notice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::config::Config;
use super::converge;
use super::keeper::Event;
use super::order::Owner;
use super::outbox::Outbox;
use super::store::{Identity, Store};
use super::{facts, sessions};
use crate::clock::SharedClock;
use crate::ground::Ground;
use crate::limits::{
    AGENT_QUEUE_MAX, AGENT_SERVERS_MAX, AGENT_SESSIONS_MAX, RPC_MESSAGE_BYTES_MAX,
};
use crate::model::allocation::{AllocReport, Assignment};
use crate::model::name::{AllocId, NodeName};
use crate::model::node::NodeSpec;
use crate::model::time::Millis;
use crate::net::{self, SharedNet};
use crate::rpc;
use crate::rpc::v1::agents_client::AgentsClient;
use crate::rpc::v1::{
    AllocUsage, FromAgent, Goodbye, Heartbeat, Hello, NodeStats, OpenSession, Orders, Reports,
    StopOrder, Sync, ToAgent, Welcome, from_agent, to_agent,
};

/// For a server to take a connection and answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For a leader to say welcome: it has to write the registration to the log first.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// Without an answer for so many heartbeats the leader counts as gone.
const HEARTBEATS_MISSED: u32 = 4;
/// But not sooner than that.
const SILENCE_MIN: Duration = Duration::from_secs(3);
/// Between two looks at reports that wait for their pace.
const PACE_MIN: Duration = Duration::from_millis(20);
/// Reports that are not acknowledged by then are sent again.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// Servers that point to another one as the leader are believed so many times in a row.
const HINTS_FOLLOWED: usize = 3;
/// What held that long was no false start.
pub(super) const STEADY: Duration = Duration::from_secs(10);
/// gRPC metadata: the leader's address, from a server that is not it.
const LEADER_KEY: &str = "orch-leader";

/// What the keeper has for the leader.
#[derive(Debug)]
pub(super) enum ToLink {
    Report(Box<AllocReport>),
    /// So many tasks run.
    Running(u32),
    /// A start took that long, in milliseconds.
    StartTook(u32),
    /// What allocations use.
    Usage(Vec<AllocUsage>),
    /// Nothing is left: send what waits, say so, and end.
    Goodbye,
}

/// Waits that grow, with jitter: what failed together does not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    clock: SharedClock,
    next: Duration,
}

impl Backoff {
    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(3);

    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, next: Self::MIN }
    }

    pub(super) fn reset(&mut self) {
        self.next = Self::MIN;
    }

    /// From half the length to all of it.
    fn pause(&mut self) -> Duration {
        let length = self.next;
        self.next = (length * 2).min(Self::MAX);
        length / 2 + (length / 2).mul_f64((self.clock.random() % 1000) as f64 / 1000.0)
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.pause()).await;
    }
}

/// Why a line ended.
#[derive(Debug)]
enum End {
    /// A server knows who leads.
    Leader(String),
    /// Something else: try the next one.
    Broken(String),
    /// The node's properties are not what was said: at once again, to say the new ones.
    SayAgain,
    /// Goodbye was said.
    Goodbye,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let hint = status.metadata().get(LEADER_KEY).and_then(|value| value.to_str().ok());
        match hint {
            Some(leader) if status.code() == Code::FailedPrecondition && !leader.is_empty() => {
                Self::Leader(leader.to_owned())
            }
            _ => Self::Broken(format!("{}: {}", status.code(), status.message())),
        }
    }
}

/// The line, connected or not.
#[derive(Debug)]
pub(super) struct Link {
    name: NodeName,
    clock: SharedClock,
    net: SharedNet,
    store: Arc<Store>,
    identity: Identity,
    /// Those of the settings; they are tried for ever, whatever servers say.
    configured: Vec<String>,
    spec: watch::Receiver<NodeSpec>,
    events: mpsc::Sender<Event>,
    from_keeper: mpsc::Receiver<ToLink>,
    outbox: Outbox,
    /// The pace of reports is counted from then.
    born: Instant,
    /// When the leader was last heard on a line that is down since.
    heard: Option<Instant>,
    goodbye: bool,
    running: u32,
    starts: Vec<u32>,
    allocs: Vec<AllocUsage>,
    /// None: nothing is measured.
    usage: Option<facts::Usage>,
    sessions: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new(
        config: &Config,
        identity: Identity,
        store: Arc<Store>,
        ground: Ground,
        spec: watch::Receiver<NodeSpec>,
        (events, from_keeper): (mpsc::Sender<Event>, mpsc::Receiver<ToLink>),
        usage: Option<facts::Usage>,
    ) -> Self {
        Self {
            name: config.name.clone(),
            clock: ground.clock,
            net: ground.net,
            usage,
            store,
            identity,
            configured: config.servers.clone(),
            spec,
            events,
            from_keeper,
            outbox: Outbox::default(),
            born: Instant::now(),
            heard: None,
            goodbye: false,
            running: 0,
            starts: Vec::new(),
            allocs: Vec::new(),
            sessions: Arc::new(Semaphore::new(AGENT_SESSIONS_MAX)),
        }
    }

    /// Keeps a line to the leader until `down`, or until goodbye is said.
    pub(super) async fn run(mut self, down: CancellationToken) {
        let mut pause = Backoff::new(self.clock.clone());
        let mut next: Option<String> = None;
        let mut hints = 0;
        let mut turn = usize::try_from(self.clock.random() % 1024).unwrap_or(0);
        loop {
            let address = match next.take() {
                Some(address) => address,
                None => {
                    let servers = self.servers();
                    turn += 1;
                    match servers.get(turn % servers.len().max(1)) {
                        Some(address) => address.clone(),
                        None => return tracing::error!("no server is known; name one with --join"),
                    }
                }
            };
            let began = Instant::now();
            let end = tokio::select! {
                end = self.line(&address) => end,
                () = down.cancelled() => return,
            };
            self.outbox.lost();
            tokio::select! {
                () = self.tell_down() => {}
                () = down.cancelled() => return,
            }
            if began.elapsed() > STEADY {
                pause.reset();
                hints = 0;
            }
            match end {
                End::Goodbye => return,
                End::SayAgain => next = Some(address),
                End::Leader(leader) if hints < HINTS_FOLLOWED => {
                    hints += 1;
                    next = Some(leader);
                }
                End::Leader(_) | End::Broken(_) => {
                    if let End::Broken(why) = &end {
                        tracing::info!(server = address, why, "no line to this server");
                    }
                    hints = 0;
                    if self.goodbye {
                        return;
                    }
                    tokio::select! {
                        () = self.idle(pause.pause()) => {}
                        () = down.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Those of the settings and those that were learnt, each once.
    fn servers(&self) -> Vec<String> {
        let all = self.configured.iter().chain(&self.identity.servers).cloned();
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Tells the keeper that a line that was up is down.
    async fn tell_down(&mut self) {
        let Some(heard) = self.heard.take() else { return };
        let events = self.events.clone();
        let permit = loop {
            tokio::select! {
                permit = events.reserve() => break permit,
                Some(message) = self.from_keeper.recv() => self.take(message),
            }
        };
        if let Ok(permit) = permit {
            let silent_for = Millis(u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX));
            permit.send(Event::Work(converge::Event::LineDown { silent_for }));
        }
    }

    /// Waits, and goes on taking in what the keeper has.
    async fn idle(&mut self, length: Duration) {
        let end = Instant::now() + length;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                Some(message) = self.from_keeper.recv() => self.take(message),
            }
        }
    }

    fn take(&mut self, message: ToLink) {
        match message {
            ToLink::Report(report) => self.outbox.put(*report),
            ToLink::Running(running) => self.running = running,
            ToLink::StartTook(millis) if self.starts.len() < AGENT_QUEUE_MAX => {
                self.starts.push(millis);
            }
            ToLink::StartTook(_) => {}
            ToLink::Usage(allocs) => self.allocs = allocs,
            ToLink::Goodbye => self.goodbye = true,
        }
    }

    /// One line to one server, from connecting to its end.
    async fn line(&mut self, address: &str) -> End {
        let net = self.net.clone();
        let channel = match self.meanwhile(CONNECT_LIMIT, connect(&net, address)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(why)) | Err(why) => return End::Broken(why),
        };
        let client = AgentsClient::new(channel)
            .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX);
        let (to_leader, messages) = mpsc::channel(AGENT_QUEUE_MAX);
        let node = match rpc::pack(&*self.spec.borrow_and_update()) {
            Ok(node) => node.into(),
            Err(error) => return End::Broken(error.to_string()),
        };
        let (cluster_id, term) = (self.identity.cluster_id, self.identity.term);
        let hello = from_agent::Message::Hello(Hello { node, cluster_id, term });
        // The channel is new and empty.
        let _ = to_leader.try_send(FromAgent { message: Some(hello) });
        let mut attached = client.clone();
        let attach = async move { attached.attach(ReceiverStream::new(messages)).await };
        let mut stream = match self.meanwhile(WELCOME_LIMIT, attach).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return status.into(),
            Err(why) => return End::Broken(why),
        };
        let first = match self.meanwhile(WELCOME_LIMIT, first(&mut stream)).await {
            Ok(Ok(first)) => first,
            Ok(Err(end)) => return end,
            Err(why) => return End::Broken(why),
        };
        let heartbeat = match self.welcome(&first) {
            Ok(heartbeat) => heartbeat,
            Err(why) => return End::Broken(why),
        };
        let owner = Owner { cluster_id: first.cluster_id, node: self.name.clone() };
        tracing::info!(server = address, term = first.term, "the leader took this node in");
        let mut line = Line {
            client,
            to_leader,
            heartbeat,
            sequence: 0,
            answered: Instant::now(),
            sent_at: Instant::now(),
            incoming: VecDeque::from([Event::Welcome(owner)]),
            everything: converge::Everything::default(),
        };
        let end = line.run(self, &mut stream).await;
        self.heard = Some(line.answered);
        end
    }

    /// Waits for `work`, at most `limit`, and goes on taking in what the keeper has.
    async fn meanwhile<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut work = std::pin::pin!(work);
        let end = Instant::now() + limit;
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(end) => {
                    return Err(format!("no answer within {}s", limit.as_secs()));
                }
                Some(message) = self.from_keeper.recv() => self.take(message),
            }
        }
    }

    /// Checks that this is the leader of the right cluster, and keeps what it said.
    fn welcome(&mut self, welcome: &Welcome) -> Result<Duration, String> {
        let known = &self.identity;
        if known.cluster_id != 0 && known.cluster_id != welcome.cluster_id {
            return Err(format!(
                "it is of another cluster ({:016x}) than this agent ({:016x}); to move the node, \
                 start the agent with a new --data-dir",
                welcome.cluster_id, known.cluster_id
            ));
        }
        if welcome.term < known.term {
            return Err(format!(
                "it leads in term {}, but this agent has taken orders from term {}",
                welcome.term, known.term
            ));
        }
        let servers: Vec<_> = welcome.servers.iter().take(AGENT_SERVERS_MAX).cloned().collect();
        let identity = Identity {
            agent_id: known.agent_id,
            cluster_id: welcome.cluster_id,
            term: welcome.term,
            servers: if servers.is_empty() { known.servers.clone() } else { servers },
        };
        if identity != *known {
            self.store.save_identity(&identity).map_err(|error| error.to_string())?;
            self.identity = identity;
        }
        Ok(Duration::from_millis(u64::from(welcome.heartbeat_millis.max(100))))
    }
}

async fn connect(net: &SharedNet, address: &str) -> Result<Channel, String> {
    let text =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(text).map_err(|error| format!("{address}: {error}"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_LIMIT);
    net::connected(net, &endpoint).await.map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

async fn first(stream: &mut Streaming<ToAgent>) -> Result<Welcome, End> {
    match stream.message().await? {
        Some(ToAgent { message: Some(to_agent::Message::Welcome(welcome)) }) => Ok(welcome),
        Some(_) => Err(End::Broken("it did not say welcome first".to_owned())),
        None => Err(End::Broken("it closed the line".to_owned())),
    }
}

/// A line that is up.
struct Line {
    client: AgentsClient<Channel>,
    to_leader: mpsc::Sender<FromAgent>,
    heartbeat: Duration,
    sequence: u64,
    /// Last heard.
    answered: Instant,
    /// Last reports sent.
    sent_at: Instant,
    /// For the keeper; nothing more is read while it has not taken these.
    incoming: VecDeque<Event>,
    /// Pieces of what is assigned, until the last one has come.
    everything: converge::Everything,
}

impl Line {
    async fn run(&mut self, link: &mut Link, stream: &mut Streaming<ToAgent>) -> End {
        let mut beat = tokio::time::interval(self.heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let events = link.events.clone();
        let silence = (self.heartbeat * HEARTBEATS_MISSED).max(SILENCE_MIN);
        loop {
            if let Err(end) = self.send_reports(link) {
                return end;
            }
            let next_report = link.outbox.next_in().map(|wait| wait.as_duration().max(PACE_MIN));
            if link.goodbye && link.outbox.is_empty() {
                let goodbye = from_agent::Message::Goodbye(Goodbye {});
                let _ = self.to_leader.send(FromAgent { message: Some(goodbye) }).await;
                // The leader closes the line once it has noted it.
                while let Ok(Some(_)) = stream.message().await {}
                return End::Goodbye;
            }
            tokio::select! {
                permit = events.reserve(), if !self.incoming.is_empty() => {
                    match (permit, self.incoming.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        _ => return End::Broken("the agent stops".to_owned()),
                    }
                }
                message = stream.message(), if self.incoming.is_empty() => {
                    match message {
                        Ok(Some(message)) => {
                            self.answered = Instant::now();
                            if let Err(why) = self.hear(link, message) {
                                return End::Broken(why);
                            }
                        }
                        Ok(None) => return End::Broken("it closed the line".to_owned()),
                        Err(status) => return status.into(),
                    }
                }
                Some(message) = link.from_keeper.recv() => link.take(message),
                changed = link.spec.changed() => match changed {
                    Ok(()) => return End::SayAgain,
                    Err(_) => return End::Broken("the agent stops".to_owned()),
                },
                () = tokio::time::sleep(next_report.unwrap_or_default()),
                    if next_report.is_some() => {}
                _ = beat.tick() => {
                    // An agent that is itself too slow to listen must not blame the leader.
                    if self.incoming.is_empty() && self.answered.elapsed() > silence {
                        let seconds = self.answered.elapsed().as_secs_f32();
                        return End::Broken(format!("it has not been heard for {seconds:.1}s"));
                    }
                    if link.outbox.is_waiting_for_ack() && self.sent_at.elapsed() > ACK_LIMIT {
                        link.outbox.lost();
                    }
                    self.send_heartbeat(link);
                }
            }
        }
    }

    /// A full queue means that the leader does not read: its silence ends the line soon.
    fn send_heartbeat(&mut self, link: &mut Link) {
        self.sequence += 1;
        let mut stats = match &mut link.usage {
            Some(usage) => usage.stats(link.running),
            None => NodeStats { containers_running: link.running, ..NodeStats::default() },
        };
        stats.start_millis = std::mem::take(&mut link.starts);
        stats.allocs.clone_from(&link.allocs);
        let heartbeat = Heartbeat { sequence: self.sequence, stats: Some(stats) };
        let message = Some(from_agent::Message::Heartbeat(heartbeat));
        let _ = self.to_leader.try_send(FromAgent { message });
    }

    fn send_reports(&mut self, link: &mut Link) -> Result<(), End> {
        // Only what can be sent is taken out.
        let permit = match self.to_leader.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(())) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => {
                return Err(End::Broken("the line is closed".to_owned()));
            }
        };
        let now = Millis(u64::try_from(link.born.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Some((sequence, reports)) = link.outbox.next(now, link.goodbye) {
            let packed = reports.into_iter().filter_map(|report| rpc::pack(report).ok());
            let reports = packed.map(Into::into).collect();
            let message = from_agent::Message::Reports(Reports { sequence, reports });
            permit.send(FromAgent { message: Some(message) });
            self.sent_at = Instant::now();
        }
        Ok(())
    }

    fn hear(&mut self, link: &mut Link, message: ToAgent) -> Result<(), String> {
        match message.message {
            Some(to_agent::Message::Welcome(_)) => {
                return Err("it said welcome twice".to_owned());
            }
            Some(to_agent::Message::Heartbeat(_)) | None => {}
            Some(to_agent::Message::ReportsAck(ack)) => link.outbox.acknowledged(ack.sequence),
            Some(to_agent::Message::Sync(Sync { run, stop, ended, more })) => {
                self.everything.run.extend(assignments(&run)?);
                self.everything.stop.extend(stops(&stop));
                self.everything.ended.extend(ended.into_iter().map(AllocId));
                if !more {
                    let everything = std::mem::take(&mut self.everything);
                    let event = converge::Event::Sync(everything);
                    self.incoming.push_back(Event::Work(event));
                }
            }
            Some(to_agent::Message::Orders(Orders { run, stop, forget })) => {
                let (run, stop) = (assignments(&run)?, stops(&stop));
                let forget = forget.into_iter().map(AllocId).collect();
                let event = converge::Event::Orders { run, stop, forget };
                self.incoming.push_back(Event::Work(event));
            }
            Some(to_agent::Message::OpenSession(open)) => self.open(link, open),
        }
        Ok(())
    }

    fn open(&self, link: &Link, open: OpenSession) {
        let (client, events) = (self.client.clone(), link.events.clone());
        let clock = link.clock.clone();
        let permit = link.sessions.clone().try_acquire_owned().ok();
        tokio::spawn(async move {
            let refused = permit.is_none();
            sessions::run(client, open, events, clock, refused).await;
            drop(permit);
        });
    }
}

fn assignments(run: &[bytes::Bytes]) -> Result<Vec<Assignment>, String> {
    let read = |bytes: &bytes::Bytes| {
        rpc::unpack(bytes).map_err(|error| {
            format!("an order makes no sense ({error}); is this agent older than the leader?")
        })
    };
    run.iter().map(read).collect()
}

fn stops(stop: &[StopOrder]) -> Vec<(AllocId, u64)> {
    stop.iter().map(|order| (AllocId(order.alloc), order.generation)).collect()
}
