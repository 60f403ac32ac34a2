//! The task behind an observer: joins, reads what the leader sends, answers it, hands events on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::error::{During, ObserverError};
use super::stream::Stream;
use super::{Event, Options, Waiting};
use crate::jute::quorum::{self, AuthInfo, LearnerInfo, PROTOCOL_VERSION, QuorumPacket, SNAP_END};
use crate::jute::rows::{Decoder, Next, Rows};
use crate::jute::txn::{TxnHeader, follows};
use crate::jute::{Field, Reader};
use crate::limits::{
    ZK_LEADER_SILENCE_MS, ZK_OBSERVED_BYTES_MAX, ZK_PROPOSED_BYTES_MAX, ZK_READ_BYTES,
};

/// Bytes that a permit stands for.
const PERMIT_BYTES: usize = 1 << 10;
/// Permits for what may wait.
pub(super) const ROOM: usize = ZK_OBSERVED_BYTES_MAX / PERMIT_BYTES;
/// Kind and version of a TLS alert, where a message's kind should be.
const TLS_ALERT: i32 = 0x1503;
/// Bytes before the transaction in a message that also changes the members: the new leader.
const ACTIVATE_BYTES: usize = 8;

/// A learner that the leader has accepted.
pub(super) struct Learner {
    stream: Stream<OwnedReadHalf>,
    output: OwnedWriteHalf,
    events: mpsc::Sender<Result<Waiting, ObserverError>>,
    room: Arc<Semaphore>,
    epoch: i64,
    /// The last transaction that was handed on, or is in the snapshot.
    last: i64,
    proposed: VecDeque<(i64, Vec<u8>)>,
    proposed_bytes: usize,
}

/// Whoever took the events has gone.
enum Stop {
    Gone,
    Error(ObserverError),
}

impl From<ObserverError> for Stop {
    fn from(error: ObserverError) -> Self {
        Self::Error(error)
    }
}

fn packet<'a>(kind: i32, zxid: i64, data: Option<&'a [u8]>) -> QuorumPacket<'a> {
    QuorumPacket { kind, zxid, data, auth: AuthInfo(None) }
}

impl Learner {
    /// Says who we are and takes note of the leader's epoch. An epoch of 0 and an answer of -1 keep
    /// us out of the ensemble's elections.
    pub(super) async fn join(
        stream: TcpStream,
        address: &str,
        options: &Options,
        events: mpsc::Sender<Result<Waiting, ObserverError>>,
        room: Arc<Semaphore>,
    ) -> Result<(Self, i64), ObserverError> {
        let broken = |source| {
            let (address, during) = (address.to_owned(), During::Joining);
            ObserverError::Broken { address, during, source }
        };
        stream.set_nodelay(true).map_err(broken)?;
        let (input, output) = stream.into_split();
        let stream = Stream::new(input, address, options.wait);
        let (last, proposed) = (options.last_zxid, VecDeque::new());
        let (epoch, proposed_bytes) = (0, 0);
        let mut learner =
            Self { stream, output, events, room, epoch, last, proposed, proposed_bytes };
        let info = LearnerInfo {
            server_id: options.server_id,
            protocol_version: PROTOCOL_VERSION,
            config_version: 0,
        };
        learner.send(packet(quorum::OBSERVERINFO, 0, Some(&info.to_bytes()))).await?;
        learner.check_for_tls().await?;
        let answer = learner.stream.packet().await?;
        let (kind, epoch) = (answer.kind, answer.zxid >> 32);
        if kind != quorum::LEADERINFO {
            return Err(learner.foreign(format!("a message of kind {kind}")));
        }
        learner.epoch = epoch;
        let acknowledged = (-1_i32).to_be_bytes();
        learner.send(packet(quorum::ACKEPOCH, options.last_zxid, Some(&acknowledged))).await?;
        learner.stream.during = During::Syncing;
        learner.stream.wait = Duration::from_millis(ZK_LEADER_SILENCE_MS);
        Ok((learner, epoch))
    }

    /// Whether the first bytes are those of TLS, or of nothing that a leader says.
    async fn check_for_tls(&mut self) -> Result<(), ObserverError> {
        self.stream.fill(4).await?;
        let head = self.stream.unused().first_chunk().map_or(0, |kind| i32::from_be_bytes(*kind));
        if head >> 16 == TLS_ALERT {
            return Err(ObserverError::Tls { address: self.stream.address.clone() });
        }
        if !(0..=0xff).contains(&head) {
            return Err(self.foreign(format!("bytes {head:#010x}")));
        }
        Ok(())
    }

    fn foreign(&self, what: String) -> ObserverError {
        let (address, during) = (self.stream.address.clone(), self.stream.during);
        ObserverError::Foreign { address, during, what }
    }

    async fn send(&mut self, packet: QuorumPacket<'_>) -> Result<(), ObserverError> {
        self.output.write_all(&packet.to_bytes()).await.map_err(|source| {
            let (address, during) = (self.stream.address.clone(), self.stream.during);
            ObserverError::Broken { address, during, source }
        })
    }

    /// Reads and answers until something is wrong or nobody takes events any more.
    pub(super) async fn run(mut self) {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(Stop::Gone) => return,
                Err(Stop::Error(error)) => {
                    // Whoever has gone need not know.
                    let _ = self.events.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        let QuorumPacket { kind, zxid, data, .. } = self.stream.packet().await?;
        match kind {
            quorum::PROPOSAL | quorum::INFORM | quorum::INFORMANDACTIVATE => {
                let skip = if kind == quorum::INFORMANDACTIVATE { ACTIVATE_BYTES } else { 0 };
                let bytes = data.and_then(|data| data.get(skip..)).unwrap_or_default().to_vec();
                self.check_number(zxid, &bytes)?;
                if kind == quorum::PROPOSAL {
                    self.propose(zxid, bytes)?;
                } else {
                    self.transaction(zxid, bytes).await?;
                }
            }
            quorum::COMMIT | quorum::COMMITANDACTIVATE => self.commit(zxid).await?,
            quorum::PING => {
                self.send(packet(quorum::PING, zxid, Some(&[]))).await?;
                self.hand_on(Event::Heard { zxid }, 0).await?;
            }
            quorum::DIFF => {
                self.stream.during = During::Following;
                self.hand_on(Event::Diff, 0).await?;
            }
            quorum::TRUNC => {
                self.stream.during = During::Following;
                self.last = zxid;
                self.hand_on(Event::Truncate { zxid }, 0).await?;
            }
            quorum::SNAP => {
                self.stream.during = During::Snapshot;
                self.snapshot(zxid).await?;
                self.stream.during = During::Following;
            }
            quorum::NEWLEADER => {
                // At once: the leader waits for it, and not for long.
                self.send(packet(quorum::ACK, zxid, None)).await?;
                self.hand_on(Event::NewLeader { epoch: zxid >> 32 }, 0).await?;
            }
            quorum::UPTODATE => {
                self.send(packet(quorum::ACK, self.epoch << 32, None)).await?;
                self.hand_on(Event::UpToDate, 0).await?;
            }
            // Answers to what only servers with clients ask.
            other => tracing::debug!(kind = other, "a message that an observer has no use for"),
        }
        Ok(())
    }

    /// The number in the transaction is the message's.
    fn check_number(&self, zxid: i64, bytes: &[u8]) -> Result<(), ObserverError> {
        let header = TxnHeader::read(&mut Reader::new(bytes));
        match header.map_err(|error| self.stream.unreadable(error))?.zxid {
            own if own == zxid => Ok(()),
            own => Err(self.foreign(format!("transaction {own:#x} in a message about {zxid:#x}"))),
        }
    }

    fn propose(&mut self, zxid: i64, bytes: Vec<u8>) -> Result<(), ObserverError> {
        self.proposed_bytes += bytes.len();
        if self.proposed_bytes > ZK_PROPOSED_BYTES_MAX {
            let (address, max) = (self.stream.address.clone(), ZK_PROPOSED_BYTES_MAX);
            return Err(ObserverError::TooMuchProposed { address, max });
        }
        self.proposed.push_back((zxid, bytes));
        Ok(())
    }

    async fn commit(&mut self, committed: i64) -> Result<(), Stop> {
        match self.proposed.pop_front() {
            Some((zxid, bytes)) if zxid == committed => {
                self.proposed_bytes -= bytes.len();
                self.transaction(zxid, bytes).await
            }
            other => {
                let (address, proposed) =
                    (self.stream.address.clone(), other.map(|(zxid, _)| zxid));
                Err(ObserverError::Commit { address, committed, proposed }.into())
            }
        }
    }

    async fn transaction(&mut self, zxid: i64, bytes: Vec<u8>) -> Result<(), Stop> {
        // Those that the leader was about to apply come again behind a snapshot that has them.
        if zxid <= self.last {
            return Ok(());
        }
        if !follows(self.last, zxid) {
            let (address, after) = (self.stream.address.clone(), self.last);
            return Err(ObserverError::Gap { address, after, found: zxid }.into());
        }
        self.last = zxid;
        let size = bytes.len();
        self.hand_on(Event::Transaction { zxid, bytes }, size).await
    }

    async fn snapshot(&mut self, zxid: i64) -> Result<(), Stop> {
        self.hand_on(Event::Snapshot { zxid }, 0).await?;
        let (mut decoder, mut rows) = (Decoder::default(), Rows::default());
        loop {
            let next = decoder.next(self.stream.unused()).map_err(|error| {
                let address = self.stream.address.clone();
                ObserverError::Row { address, place: decoder.place(), error }
            })?;
            match next {
                Next::Need(size) => self.stream.fill(size).await?,
                Next::Skip(size) => {
                    self.stream.take(size);
                }
                Next::Row(size) => {
                    rows.push(decoder.pass(), self.stream.take(size));
                    if rows.bytes() >= ZK_READ_BYTES {
                        let size = rows.bytes();
                        self.hand_on(Event::Rows(std::mem::take(&mut rows)), size).await?;
                    }
                }
                Next::End(size) => {
                    self.stream.take(size);
                    break;
                }
            }
        }
        let mut end = Vec::new();
        SNAP_END.write(&mut end);
        self.stream.fill(end.len()).await?;
        if self.stream.take(end.len()) != end {
            return Err(ObserverError::SnapshotEnd { address: self.stream.address.clone() }.into());
        }
        if !rows.is_empty() {
            let size = rows.bytes();
            self.hand_on(Event::Rows(rows), size).await?;
        }
        self.last = zxid;
        self.hand_on(Event::SnapshotEnd, 0).await
    }

    /// Waits until there is room for so many bytes.
    async fn hand_on(&mut self, event: Event, size: usize) -> Result<(), Stop> {
        let permits = u32::try_from((size / PERMIT_BYTES).clamp(1, ROOM)).unwrap_or(1);
        let room = self.room.clone().acquire_many_owned(permits).await.map_err(|_| Stop::Gone)?;
        self.events.send(Ok((event, room))).await.map_err(|_| Stop::Gone)
    }
}
