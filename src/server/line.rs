//! One agent's stream: heartbeats, and reports on their way into the state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::Stream;
use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::agents::from_propose;
use super::checks;
use super::handle::Inner;
use super::hub::{Attach, Heard, HubEvent};
use crate::consensus::{Committed, ProposeError};
use crate::limits::{
    HEARTBEAT_ALLOCS_MAX, HEARTBEAT_STARTS_MAX, REPORTS_PER_PROPOSAL_BYTES,
    REPORTS_WAITING_BYTES_MAX,
};
use crate::model::allocation::AllocReport;
use crate::model::name::{AllocId, NodeName};
use crate::model::node::NodeState;
use crate::rpc::v1;
use crate::rpc::v1::from_agent;
use crate::rpc::v1::to_agent::Message;
use crate::state::Command;

/// What goes to the agent: its queue, until the line is ended with a status.
pub(super) fn answers(
    queue: mpsc::Receiver<v1::ToAgent>,
    ended: oneshot::Receiver<Status>,
) -> impl Stream<Item = Result<v1::ToAgent, Status>> + Send {
    futures::stream::unfold(Some((queue, ended)), |open| async {
        let (mut queue, mut ended) = open?;
        tokio::select! {
            biased;
            status = &mut ended => {
                let status = status.unwrap_or_else(|_| Status::unavailable("the line was closed"));
                Some((Err(status), None))
            }
            message = queue.recv() => message.map(|message| (Ok(message), Some((queue, ended)))),
        }
    })
}

/// A report that waits for its turn.
#[derive(Debug)]
struct Waiting {
    report: AllocReport,
    bytes: usize,
    /// Set on the last of a message: acknowledges all up to it.
    ack: Option<u64>,
}

/// Reports in the order they came, cut into proposals.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// What is proposed together, and the sequence that may be acknowledged after it.
#[derive(Debug, PartialEq, Eq)]
struct Proposal {
    reports: Vec<AllocReport>,
    ack: Option<u64>,
}

impl Backlog {
    fn push(&mut self, sequence: u64, reports: Vec<(AllocReport, usize)>) {
        let count = reports.len();
        for (number, (report, bytes)) in reports.into_iter().enumerate() {
            let ack = (number + 1 == count).then_some(sequence);
            self.bytes += bytes;
            self.waiting.push_back(Waiting { report, bytes, ack });
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= REPORTS_WAITING_BYTES_MAX
    }

    /// The next proposal: of several reports on one allocation the last, since each is the whole
    /// truth about it.
    fn next(&mut self) -> Option<Proposal> {
        let mut latest: BTreeMap<AllocId, AllocReport> = BTreeMap::new();
        let (mut bytes, mut ack) = (0, None);
        while let Some(first) = self.waiting.front() {
            if bytes > 0 && bytes + first.bytes > REPORTS_PER_PROPOSAL_BYTES {
                break;
            }
            bytes += first.bytes;
            ack = first.ack.or(ack);
            if let Some(first) = self.waiting.pop_front() {
                latest.insert(first.report.id, first.report);
            }
        }
        self.bytes -= bytes;
        (bytes > 0).then(|| Proposal { reports: latest.into_values().collect(), ack })
    }
}

type InFlight = BoxFuture<'static, (Option<u64>, Result<Committed, ProposeError>)>;

/// Reads what one agent says.
pub(super) struct Reader {
    inner: Arc<Inner>,
    node: NodeName,
    agent_id: u64,
    heard: watch::Sender<Heard>,
    out: mpsc::Sender<v1::ToAgent>,
    over: CancellationToken,
    backlog: Backlog,
    leaving: bool,
}

impl Reader {
    pub(super) fn new(
        inner: Arc<Inner>,
        node: NodeName,
        agent_id: u64,
        heard: watch::Sender<Heard>,
        out: mpsc::Sender<v1::ToAgent>,
        over: CancellationToken,
    ) -> Self {
        let backlog = Backlog::default();
        Self { inner, node, agent_id, heard, out, over, backlog, leaving: false }
    }

    /// Attaches, tells `attached` how that went, and reads until either side ends the stream.
    pub(super) async fn run(
        mut self,
        attach: Attach,
        attached: oneshot::Sender<Result<(), Status>>,
        inbound: Streaming<v1::FromAgent>,
    ) {
        let (over, out) = (self.over.clone(), self.out.clone());
        let answer = self.inner.ask_hub(|reply| HubEvent::Attach(Box::new(attach), reply)).await;
        let line = match answer {
            Some(Ok(line)) => line,
            Some(Err(status)) => {
                let _ = attached.send(Err(status));
                return;
            }
            None => return,
        };
        // If nobody waits for it any more, the queue's other end is gone as well.
        let _ = attached.send(Ok(()));
        let status = tokio::select! {
            biased;
            () = over.cancelled() => return,
            () = out.closed() => Status::cancelled("the agent went away"),
            status = self.read(inbound) => status,
        };
        let event = HubEvent::Detach { node: self.node, line, status };
        // Without a hub there are no lines.
        let _ = self.inner.hub.send(event).await;
    }

    async fn read(&mut self, mut inbound: Streaming<v1::FromAgent>) -> Status {
        let mut in_flight: OptionFuture<InFlight> = None.into();
        let mut busy = false;
        loop {
            if !busy && let Some(proposal) = self.backlog.next() {
                in_flight = Some(self.propose(proposal)).into();
                busy = true;
            }
            if self.leaving && !busy {
                return self.leave().await;
            }
            tokio::select! {
                biased;
                Some((ack, outcome)) = &mut in_flight, if busy => {
                    busy = false;
                    in_flight = None.into();
                    if let Err(error) = outcome {
                        return from_propose(error);
                    }
                    if let Some(sequence) = ack {
                        let ack = Message::ReportsAck(v1::ReportsAck { sequence });
                        if let Err(status) = self.send(ack) {
                            return status;
                        }
                    }
                }
                message = inbound.message(), if !self.leaving && !self.backlog.is_full() => {
                    let message = match message {
                        Ok(Some(v1::FromAgent { message: Some(message) })) => message,
                        Ok(Some(_)) => {
                            return Status::invalid_argument("a message of an unknown kind");
                        }
                        Ok(None) => return Status::cancelled("the agent ended its stream"),
                        Err(status) => return status,
                    };
                    if let Err(status) = self.handle(message) {
                        return status;
                    }
                }
            }
        }
    }

    fn handle(&mut self, message: from_agent::Message) -> Result<(), Status> {
        match message {
            from_agent::Message::Hello(_) => {
                Err(Status::invalid_argument("a stream has one hello, at its beginning"))
            }
            from_agent::Message::Heartbeat(heartbeat) => {
                let stats = heartbeat.stats;
                for millis in stats.iter().flat_map(|s| &s.start_millis).take(HEARTBEAT_STARTS_MAX)
                {
                    let seconds = f64::from(*millis) / 1000.0;
                    self.inner.metrics.agent_start_seconds.observe(seconds);
                }
                self.heard.send_modify(|heard| {
                    heard.at = Instant::now();
                    if let Some(mut stats) = stats {
                        stats.allocs.truncate(HEARTBEAT_ALLOCS_MAX);
                        heard.stats = Some(v1::NodeStats { start_millis: Vec::new(), ..stats });
                    }
                });
                let sequence = heartbeat.sequence;
                self.send(Message::Heartbeat(v1::HeartbeatReply { sequence }))
            }
            from_agent::Message::Reports(message) => {
                self.heard.send_modify(|heard| heard.at = Instant::now());
                let reports = checks::reports(&message)?;
                if reports.is_empty() {
                    return Err(Status::invalid_argument("a message of reports without any"));
                }
                self.backlog.push(message.sequence, reports);
                Ok(())
            }
            from_agent::Message::Goodbye(_) => {
                self.leaving = true;
                Ok(())
            }
        }
    }

    fn propose(&self, proposal: Proposal) -> InFlight {
        let consensus = self.inner.consensus.clone();
        let command = Command::ReportAllocs {
            node: self.node.clone(),
            agent_id: self.agent_id,
            reports: proposal.reports,
        };
        Box::pin(async move { (proposal.ack, consensus.propose(command.into()).await) })
    }

    async fn leave(&self) -> Status {
        let command = Command::SetNodeState {
            node: self.node.clone(),
            agent_id: self.agent_id,
            state: NodeState::Left,
            reason: "its agent was stopped".into(),
        };
        match self.inner.consensus.propose(command.into()).await {
            Ok(_) => Status::ok("goodbye"),
            Err(error) => from_propose(error),
        }
    }

    fn send(&self, message: Message) -> Result<(), Status> {
        self.out
            .try_send(v1::ToAgent { message: Some(message) })
            .map_err(|_| Status::resource_exhausted("the agent does not read; attach again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allocation::{AllocStatus, Health};

    fn report(id: u64, message: &str) -> AllocReport {
        AllocReport {
            id: AllocId(id),
            generation: 1,
            status: AllocStatus::Running,
            health: Health::Unknown,
            ready: false,
            tasks: BTreeMap::new(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_waited_goes_out_together_and_the_last_word_counts() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.next(), None);
        backlog.push(1, vec![(report(1, "first"), 10), (report(2, "first"), 10)]);
        backlog.push(2, vec![(report(1, "second"), 10)]);
        let reports = vec![report(1, "second"), report(2, "first")];
        assert_eq!(backlog.next(), Some(Proposal { reports, ack: Some(2) }));
        assert_eq!((backlog.next(), backlog.bytes), (None, 0));
    }

    #[test]
    fn a_message_is_acknowledged_with_the_last_of_its_reports() {
        let half = REPORTS_PER_PROPOSAL_BYTES / 2;
        let mut backlog = Backlog::default();
        backlog.push(1, vec![(report(1, ""), 1)]);
        backlog.push(2, vec![(report(2, ""), half), (report(3, ""), half), (report(4, ""), half)]);
        let acks: Vec<_> = std::iter::from_fn(|| backlog.next())
            .map(|proposal| (proposal.reports.len(), proposal.ack))
            .collect();
        assert_eq!(acks, [(2, Some(1)), (2, Some(2))]);
    }

    #[test]
    fn too_much_that_waits_stops_the_reading() {
        let mut backlog = Backlog::default();
        backlog.push(1, vec![(report(1, ""), REPORTS_WAITING_BYTES_MAX)]);
        assert!(backlog.is_full());
        assert!(backlog.next().is_some());
        assert!(!backlog.is_full());
    }
}
