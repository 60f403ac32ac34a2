//! Who was heard when: the leader ends sessions that were not heard in their time, and removes
//! containers that are empty and nodes whose time is up. Nothing of this is in the log but the end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::consensus::{Consensus, Leadership};
use crate::jute::Field;
use crate::jute::op::{Op, Owner};
use crate::jute::request::PathRequest;
use crate::limits::{ZK_EXPIRED_PER_COMMAND_MAX, ZK_REAPED_PER_COMMAND_MAX, ZK_TOUCHED_MAX};
use crate::model::time::{Millis, Timestamp};
use crate::net;
use crate::rpc::v1::zoo_keeper_client::ZooKeeperClient;
use crate::rpc::v1::zoo_keeper_server::{ZooKeeper, ZooKeeperServer};
use crate::rpc::v1::{TouchSessionsReply, TouchSessionsRequest};
use crate::state::znodes::{Tree, ZkBatch, ZkCaller, ZkRequest};
use crate::state::{Command, Request as StateRequest};

/// More than a session's own time-out, for clients that were brought from elsewhere and have to
/// find out where their servers are now.
const GRACE_FOR_IMPORTED: Duration = Duration::from_secs(60);
/// Between looks at containers and times to live.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// For the leader's answer.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Ticks without an answer of the leader after which clients are sent elsewhere.
const SILENT_TICKS: u32 = 2;

/// The door for other servers: they tell which sessions they heard.
#[derive(Debug, Clone)]
pub struct Door {
    leadership: watch::Receiver<Leadership>,
    heard: mpsc::Sender<Vec<i64>>,
}

#[tonic::async_trait]
impl ZooKeeper for Door {
    async fn touch_sessions(
        &self,
        request: Request<TouchSessionsRequest>,
    ) -> Result<Response<TouchSessionsReply>, Status> {
        let sessions = request.into_inner().sessions;
        if sessions.len() > ZK_TOUCHED_MAX {
            let message = format!("more than {ZK_TOUCHED_MAX} sessions at once");
            return Err(Status::invalid_argument(message));
        }
        let leads = self.leadership.borrow().ready;
        if !leads {
            return Err(Status::failed_precondition("this server does not lead"));
        }
        let gone = |_| Status::unavailable("this server is stopping");
        self.heard.send(sessions).await.map_err(gone)?;
        Ok(Response::new(TouchSessionsReply {}))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Expiry {
    consensus: Consensus,
    /// Without leaders that have no majority.
    leadership: watch::Receiver<Leadership>,
    tick: Duration,
    /// From this server's own hub.
    here: mpsc::Receiver<Vec<i64>>,
    /// From other servers.
    there: mpsc::Receiver<Vec<i64>>,
    /// Told whether the leader hears of this server's sessions.
    contact: watch::Sender<bool>,
    known: Option<(String, ZooKeeperClient<Channel>)>,
    answered: Instant,
}

/// What a leader knows of sessions.
#[derive(Debug, Default)]
struct Heard {
    /// When each session ends unless it is heard before, and the connection that it was on.
    until: BTreeMap<i64, (u64, Instant)>,
}

impl Heard {
    /// Notes that a session was heard, and how long that is good for.
    fn touch(&mut self, id: i64, tree: &Tree, now: Instant) {
        let Some(session) = tree.session(id) else { return };
        let time = Duration::from_millis(session.timeout.unsigned_abs().into());
        self.until.insert(id, (session.attachment, now + time));
    }

    /// Sessions whose time is over, each with its connection. A session that was never heard has
    /// its whole time from now on.
    fn over(&mut self, tree: &Tree, now: Instant) -> Vec<(i64, u64)> {
        self.until.retain(|id, _| tree.session(*id).is_some());
        let mut over = Vec::new();
        for (id, session) in tree.sessions() {
            let timeout = Duration::from_millis(session.timeout.unsigned_abs().into());
            let grace = if session.attachment == 0 { GRACE_FOR_IMPORTED } else { Duration::ZERO };
            let whole = (session.attachment, now + timeout + grace);
            let known = self.until.entry(id).or_insert(whole);
            if known.0 != session.attachment {
                // It has just come back on another connection.
                *known = whole;
            }
            if known.1 <= now && over.len() < ZK_EXPIRED_PER_COMMAND_MAX {
                over.push((id, session.attachment));
            }
        }
        over
    }

    /// Time passed in which nobody could be heard: it does not count.
    fn excuse(&mut self, missed: Duration) {
        for (_, until) in self.until.values_mut() {
            *until += missed;
        }
    }
}

impl Expiry {
    pub(super) fn new(
        consensus: Consensus,
        leadership: watch::Receiver<Leadership>,
        tick: Millis,
        here: mpsc::Receiver<Vec<i64>>,
        contact: watch::Sender<bool>,
    ) -> (Self, ZooKeeperServer<Door>) {
        let (heard, there) = mpsc::channel(64);
        let door = ZooKeeperServer::new(Door { leadership: leadership.clone(), heard });
        let (known, answered) = (None, Instant::now());
        let tick = tick.as_duration();
        (Self { consensus, leadership, tick, here, there, contact, known, answered }, door)
    }

    /// Works until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let tick = self.tick / 2;
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut term = 0;
        let mut heard = Heard::default();
        let mut last = Instant::now();
        let mut reaped = Instant::now();
        loop {
            let touched = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // A server without an endpoint hears nobody, but may lead those that have one.
                Some(touched) = self.here.recv() => {
                    self.pass_on(&touched).await;
                    touched
                }
                touched = heard_of(&mut self.there) => touched,
                _ = ticks.tick() => Vec::new(),
            };
            let now = Instant::now();
            let leadership = self.leadership.borrow().clone();
            if !leadership.ready {
                term = 0;
                continue;
            }
            if term != leadership.term {
                // Whoever led before knew when they were heard: all of them get their whole time.
                (term, heard, reaped) = (leadership.term, Heard::default(), now);
                last = now;
            }
            // This process was held up: so were those who wanted to be heard.
            let missed = now.duration_since(last).saturating_sub(tick * 2);
            if missed > Duration::ZERO {
                heard.excuse(missed);
            }
            last = now;
            let state = self.consensus.views().borrow().state.clone();
            for id in touched {
                heard.touch(id, state.zk(), now);
            }
            let sessions = heard.over(state.zk(), now);
            if !sessions.is_empty() {
                tracing::info!(sessions = sessions.len(), "sessions have expired");
                let _ = self.consensus.propose(Command::ExpireZkSessions { sessions }.into()).await;
            }
            if now.duration_since(reaped) >= REAP_EVERY.min(tick * 60) {
                reaped = now;
                self.reap(state.zk()).await;
            }
        }
    }

    /// Tells the leader which sessions were heard here, if that is another server.
    async fn pass_on(&mut self, touched: &[i64]) {
        let leadership = self.leadership.borrow().clone();
        let ok = match leadership.leader {
            Some(leader) if leader.id == self.consensus.me().id => true,
            Some(leader) => self.touch(&leader.rpc_addr, touched).await,
            None => false,
        };
        let now = Instant::now();
        if ok {
            self.answered = now;
        }
        let most = self.tick * SILENT_TICKS;
        let contact = now.duration_since(self.answered) < most;
        self.contact.send_if_modified(|known| std::mem::replace(known, contact) != contact);
    }

    async fn touch(&mut self, addr: &str, touched: &[i64]) -> bool {
        let known = self.known.take().filter(|(known, _)| known == addr);
        let (addr, mut client) = match known {
            Some(known) => known,
            None => {
                let Ok(endpoint) = Endpoint::from_shared(format!("http://{addr}")) else {
                    return false;
                };
                let endpoint = endpoint.connect_timeout(TOUCH_TIMEOUT);
                let channel = net::channel(&self.consensus.ground().net, &endpoint);
                (addr.to_owned(), ZooKeeperClient::new(channel))
            }
        };
        for sessions in touched.chunks(ZK_TOUCHED_MAX) {
            let request = TouchSessionsRequest { sessions: sessions.to_vec() };
            let answer = tokio::time::timeout(TOUCH_TIMEOUT, client.touch_sessions(request)).await;
            if !matches!(answer, Ok(Ok(_))) {
                return false;
            }
        }
        if touched.is_empty() {
            // Nobody to speak of, but is the leader there?
            let request = TouchSessionsRequest::default();
            let answer = tokio::time::timeout(TOUCH_TIMEOUT, client.touch_sessions(request)).await;
            if !matches!(answer, Ok(Ok(_))) {
                return false;
            }
        }
        self.known = Some((addr, client));
        true
    }

    /// Removes containers whose last child is gone, and nodes whose time is up.
    async fn reap(&self, tree: &Tree) {
        let now = self.consensus.state_time();
        let over = tree.mortals().filter(|path| is_over(tree, path, now));
        let requests: Vec<ZkRequest> = over
            .take(ZK_REAPED_PER_COMMAND_MAX)
            .map(|path| ZkRequest::Op {
                caller: 0,
                op: Op::DeleteContainer.number(),
                body: PathRequest { path }.to_bytes(),
            })
            .collect();
        if requests.is_empty() {
            return;
        }
        tracing::debug!(nodes = requests.len(), "removing what is over");
        let callers = vec![ZkCaller { superuser: true, ..ZkCaller::default() }];
        let batch = ZkBatch { callers, requests, enforce_quota: false };
        let _ = self.consensus.propose(StateRequest::from(Command::Zk(Box::new(batch)))).await;
    }
}

/// Sessions that another server heard; never, once none can tell any more.
async fn heard_of(there: &mut mpsc::Receiver<Vec<i64>>) -> Vec<i64> {
    match there.recv().await {
        Some(touched) => touched,
        None => std::future::pending().await,
    }
}

fn is_over(tree: &Tree, path: &str, now: Timestamp) -> bool {
    tree.get(path).is_some_and(|node| {
        node.children() == 0
            && match node.owner() {
                Owner::Container => node.persisted().cversion > 0,
                Owner::Ttl(ttl) => node.persisted().mtime.saturating_add(ttl) <= now.0 as i64,
                Owner::Persistent | Owner::Session(_) => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn servers_that_tell_nothing_any_more_are_not_asked_again_and_again() {
        let (heard, mut there) = mpsc::channel(1);
        heard.send(vec![7]).await.unwrap();
        assert_eq!(heard_of(&mut there).await, [7]);
        drop(heard);
        assert_eq!(heard_of(&mut there).now_or_never(), None, "there is nothing to wake up for");
    }
}
