//! The live path: while this server leads, it follows the ensemble whose nodes are to come here. All
//! that must outlive it is in the state; whoever leads next goes on from there.

use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chunks::{Chunks, TransactionLots, first_rows};
use super::link::LiveSource;
use super::pipe::Pipe;
use super::verify::{Compared, compare};
use crate::consensus::{Consensus, Consistency, ProposeError};
use crate::limits::ZK_UNVERIFIED_MS;
use crate::model::time::Millis;
use crate::state::znodes::{ZkImportPhase, ZkImportStatus, ZkImportStep};
use crate::state::{Command, Rejected, RejectedCode, Request, State};
use crate::zookeeper::observer::{Event, Observer};

/// The observer's number; ensembles number their servers from 1 on.
const SERVER_ID: i64 = 250;
/// Waits before the source is asked again: doubling from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// What the source says is taken together up to so many pieces.
const EVENTS_TOGETHER_MAX: usize = 4096;
/// The least time between two notes of how far the source is.
const HEARD_EVERY: Duration = Duration::from_millis(200);
/// The least time between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// Follows whatever is to be followed while this server leads, until `stop`.
pub async fn run(consensus: Consensus, stop: CancellationToken) {
    let mut leadership = consensus.leadership();
    loop {
        let term = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            now = leadership.wait_for(|now| now.ready) => match now {
                Ok(now) => now.term,
                Err(_) => return,
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            over = leadership.wait_for(|now| !now.ready || now.term != term) => {
                if over.is_err() {
                    return;
                }
            }
            () = lead(&consensus, term) => return,
        }
    }
}

/// The import that is followed: its name, and from where.
fn followed(state: &State) -> Option<(String, String)> {
    use ZkImportPhase::{CatchingUp, Copying, Following};
    state.zk_imports().find_map(|(name, import)| {
        let status = &import.status;
        let going = matches!(status.phase, Copying | CatchingUp | Following);
        (status.live && going).then(|| (name.to_owned(), status.source.clone()))
    })
}

async fn lead(consensus: &Consensus, term: u64) {
    let mut views = consensus.views();
    loop {
        let found = match views.wait_for(|view| followed(&view.state).is_some()).await {
            Ok(view) => followed(&view.state),
            Err(_) => return,
        };
        let Some((name, source)) = found else { continue };
        tracing::info!(name, source, "following an ensemble of ZooKeeper");
        let same = Some((name.clone(), source.clone()));
        tokio::select! {
            over = views.wait_for(|view| followed(&view.state) != same) => {
                if over.is_err() {
                    return;
                }
                tracing::info!(name, "the ensemble is no longer followed");
            }
            () = follow(consensus, term, &name, &source) => {}
        }
    }
}

/// Follows until it can't go on by itself, or is dropped.
async fn follow(consensus: &Consensus, term: u64, name: &str, source: &str) {
    let driver = match source.parse() {
        Ok(source) => Driver { consensus, term, name, source },
        Err(error) => {
            let unfit = Driver { consensus, term, name, source: LiveSource::default() };
            if let Err(why) = unfit.stop(format!("the source can't be followed: {error}")).await {
                tracing::warn!(name, why, "can't stop a migration");
                tokio::time::sleep(BACKOFF_LAST).await;
            }
            return;
        }
    };
    let mut backoff = BACKOFF_FIRST;
    loop {
        let began = Instant::now();
        match driver.follow_once().await {
            End::Fatal(reason) => {
                tracing::error!(name, reason, "the migration stops");
                match driver.stop(reason).await {
                    Ok(()) => return,
                    Err(why) => tracing::warn!(name, why, "can't stop a migration"),
                }
            }
            End::Passing(why) => tracing::warn!(name, why, "the source is lost; joining again"),
        }
        if began.elapsed() > BACKOFF_LAST {
            backoff = BACKOFF_FIRST;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

async fn take_step(
    consensus: &Consensus,
    term: u64,
    name: &str,
    step: ZkImportStep,
) -> Result<(), ProposeError> {
    let command = Command::ImportZk { name: name.to_owned(), step: Box::new(step) };
    let decided = consensus.propose_in_term(term, &[Request::from(command)]).await?;
    match decided.replies.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(rejected)) => Err(rejected.into()),
        None => Err(ProposeError::Unknown("the state did not answer".to_owned())),
    }
}

/// Why following ended.
enum End {
    /// It is tried again.
    Passing(String),
    /// A person must decide.
    Fatal(String),
}

fn passing(error: impl std::fmt::Display) -> End {
    End::Passing(error.to_string())
}

/// What could not be proposed, or was refused. Between leaders it may work the next time, and where
/// the copy is not as it was taken for, it is looked at anew; but what makes no sense, or is too
/// much, will be so whenever it comes again.
fn refused(error: ProposeError) -> End {
    let why = error.to_string();
    match error {
        ProposeError::Rejected(Rejected {
            code: RejectedCode::Conflict | RejectedCode::NotFound,
            ..
        })
        | ProposeError::NoLeader(_)
        | ProposeError::Unknown(_)
        | ProposeError::Stopping(_) => End::Passing(why),
        ProposeError::Rejected(_) | ProposeError::TooLarge(_) => End::Fatal(format!(
            "the source has something that can't be here: {why}; see to it there, then start the \
             migration again with --again"
        )),
    }
}

/// The source has less than is here.
fn lost(source: i64, copy: i64) -> End {
    End::Fatal(format!(
        "the source has no transactions behind {source:#x}, and the copy has {copy:#x}: the source \
         lost what it had committed, or is another ensemble; look at it, then abort this migration \
         and begin another one"
    ))
}

struct Driver<'d> {
    consensus: &'d Consensus,
    term: u64,
    name: &'d str,
    source: LiveSource,
}

/// What one connection has brought, and is not in the state yet.
struct Flow {
    /// The copy; see `ZkImportStatus::generation`.
    generation: u64,
    /// The newest transaction that the state has.
    after: i64,
    /// The newest one that has come.
    last: i64,
    lots: TransactionLots,
    heard: Option<i64>,
    heard_at: Option<Instant>,
    verifying: Option<AbortOnDropHandle<Result<Compared, String>>>,
    compare_at: Instant,
}

impl Driver<'_> {
    async fn step(&self, step: ZkImportStep) -> Result<(), End> {
        take_step(self.consensus, self.term, self.name, step).await.map_err(refused)
    }

    /// Says that it can't go on.
    async fn stop(&self, reason: String) -> Result<(), String> {
        let Some(ZkImportStatus { generation, .. }) = self.status() else {
            return Err("the import is gone".to_owned());
        };
        let step = ZkImportStep::Stop { generation, reason };
        let taken = take_step(self.consensus, self.term, self.name, step).await;
        taken.map_err(|error| error.to_string())
    }

    fn status(&self) -> Option<ZkImportStatus> {
        let views = self.consensus.views();
        let view = views.borrow();
        view.state.zk_import(self.name).map(|import| import.status.clone())
    }

    /// One connection, from where the state is to its end.
    async fn follow_once(&self) -> End {
        match self.try_follow().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_follow(&self) -> Result<std::convert::Infallible, End> {
        let view = self.consensus.read(Consistency::Linearizable).await.map_err(passing)?;
        let import = view.state.zk_import(self.name);
        let import = import.ok_or_else(|| passing("the import is gone"))?;
        let copying = import.status.phase == ZkImportPhase::Copying;
        let last = if copying { 0 } else { import.tree.zxid() };
        let (generation, begun) = (import.status.generation, import.status.next_chunk > 0);
        drop(view);
        let mut observer = self.source.join(SERVER_ID, last).await.map_err(passing)?;
        tracing::info!(name = self.name, from = observer.address(), last, "learning");
        let mut flow = Flow {
            generation,
            after: last,
            last,
            lots: TransactionLots::default(),
            heard: None,
            heard_at: None,
            verifying: None,
            compare_at: Instant::now(),
        };
        if copying {
            // Rows of an earlier try may still be on their way, even if none has come.
            let why = match begun {
                true => "the copy was interrupted before it was whole",
                false => "",
            };
            self.begin_anew(&mut flow, why.to_owned()).await?;
        }
        let mut fresh = copying;
        loop {
            let mut event = tokio::select! {
                event = observer.next() => Some(event.map_err(passing)?),
                done = finished(&mut flow.verifying) => {
                    self.compared(flow.generation, done).await?;
                    None
                }
            };
            // As much as is there goes together: what comes meanwhile waits. Not without end: a
            // source that never rests is told of, and compared, all the same.
            let mut left = EVENTS_TOGETHER_MAX;
            while let Some(now) = event {
                self.take(now, &mut observer, &mut flow, &mut fresh).await?;
                left -= 1;
                let next = if left > 0 { observer.next().now_or_never() } else { None };
                event = next.transpose().map_err(passing)?;
            }
            self.flush(&mut flow).await?;
            self.tell_heard(&mut flow).await?;
            self.look_at_proof(&mut flow);
        }
    }

    async fn begin_anew(&self, flow: &mut Flow, why: String) -> Result<(), End> {
        self.step(ZkImportStep::Anew { generation: flow.generation, why }).await?;
        let view = self.consensus.read(Consistency::Linearizable).await.map_err(passing)?;
        let import = view.state.zk_import(self.name);
        flow.generation = import.ok_or_else(|| passing("the import is gone"))?.status.generation;
        // A comparison with the copy that there was says nothing of this one.
        flow.verifying = None;
        Ok(())
    }

    fn pipe(&self, flow: &Flow) -> Pipe {
        Pipe::new(self.consensus.clone(), self.name, flow.generation, 0)
    }

    async fn take(
        &self,
        event: Event,
        observer: &mut Observer,
        flow: &mut Flow,
        fresh: &mut bool,
    ) -> Result<(), End> {
        match event {
            Event::Snapshot { zxid } => {
                if zxid < flow.after {
                    return Err(lost(zxid, flow.after));
                }
                if !*fresh {
                    let why = format!(
                        "the source no longer has the transactions behind {:#x}: all of it is \
                         copied anew",
                        flow.after
                    );
                    tracing::warn!(name = self.name, why, "copying anew");
                    self.begin_anew(flow, why).await?;
                }
                self.copy(zxid, observer, flow).await?;
                (flow.after, flow.last, *fresh) = (zxid, zxid, false);
            }
            Event::Diff if *fresh => {
                // An ensemble that still has every transaction since its beginning.
                let mut pipe = self.pipe(flow);
                pipe.send(first_rows().into()).await.map_err(refused)?;
                pipe.finish().await.map_err(refused)?;
                self.copied(flow, 0).await?;
                *fresh = false;
            }
            Event::Truncate { zxid } => {
                return Err(lost(zxid, flow.after));
            }
            Event::Transaction { zxid, bytes } => {
                let full = flow.lots.add(zxid, &bytes).map_err(|error| {
                    End::Fatal(format!("{error}; make such nodes smaller at the source"))
                })?;
                if let Some(lot) = full {
                    self.apply(flow, lot).await?;
                }
                flow.last = zxid;
            }
            Event::NewLeader { epoch } => {
                self.flush(flow).await?;
                self.step(ZkImportStep::Exact { generation: flow.generation }).await?;
                tracing::info!(name = self.name, epoch, zxid = flow.after, "the copy is exact");
            }
            Event::Heard { zxid } => flow.heard = Some(zxid),
            Event::Rows(_) | Event::SnapshotEnd | Event::Diff | Event::UpToDate => {}
        }
        Ok(())
    }

    /// Brings all rows of a snapshot into the log.
    async fn copy(&self, zxid: i64, observer: &mut Observer, flow: &Flow) -> Result<(), End> {
        let mut pipe = self.pipe(flow);
        let mut chunks = Chunks::default();
        loop {
            match observer.next().await.map_err(passing)? {
                Event::Rows(rows) => {
                    for (kind, row) in rows.iter() {
                        let full = chunks.add_bytes(kind, row);
                        let full = full.map_err(|error| {
                            End::Fatal(format!("{error}; make it smaller at the source"))
                        })?;
                        if let Some(lot) = full {
                            pipe.send(lot.into()).await.map_err(refused)?;
                        }
                    }
                }
                Event::SnapshotEnd => break,
                _ => {}
            }
        }
        if let Some(lot) = chunks.finish() {
            pipe.send(lot.into()).await.map_err(refused)?;
        }
        pipe.finish().await.map_err(refused)?;
        self.copied(flow, zxid).await
    }

    async fn copied(&self, flow: &Flow, zxid: i64) -> Result<(), End> {
        self.step(ZkImportStep::Copied { generation: flow.generation, zxid, fuzzy: true }).await
    }

    async fn flush(&self, flow: &mut Flow) -> Result<(), End> {
        match flow.lots.take() {
            Some(lot) => self.apply(flow, lot).await,
            None => Ok(()),
        }
    }

    /// A lot that holds all up to `flow.last`.
    async fn apply(&self, flow: &mut Flow, bytes: Vec<u8>) -> Result<(), End> {
        let (generation, after) = (flow.generation, flow.after);
        self.step(ZkImportStep::Transactions { generation, after, bytes }).await?;
        flow.after = flow.last;
        Ok(())
    }

    async fn tell_heard(&self, flow: &mut Flow) -> Result<(), End> {
        let lately = flow.heard_at.is_some_and(|at| at.elapsed() < HEARD_EVERY);
        let Some(zxid) = flow.heard.filter(|_| !lately) else { return Ok(()) };
        if flow.after == 0 {
            return Ok(());
        }
        self.step(ZkImportStep::Heard { generation: flow.generation, zxid }).await?;
        flow.heard = None;
        flow.heard_at = Some(Instant::now());
        Ok(())
    }

    /// Begins a comparison if one is asked for, or what is not proven has not healed in time:
    /// ZooKeeper itself writes wrong digests for a while, so a mismatch alone says nothing.
    fn look_at_proof(&self, flow: &mut Flow) {
        if flow.verifying.is_some() || Instant::now() < flow.compare_at {
            return;
        }
        let Some(status) = self.status() else { return };
        if status.phase != ZkImportPhase::Following {
            return;
        }
        let unverified = status.unverified_at.is_some_and(|since| {
            self.consensus.state_time().since(since) >= Millis(ZK_UNVERIFIED_MS)
        });
        if !unverified && status.compare_since.is_none() {
            return;
        }
        tracing::info!(name = self.name, unverified, "comparing the copy with a fresh one");
        let views = self.consensus.views();
        let task: JoinHandle<_> =
            tokio::spawn(compare(self.source.clone(), self.name.to_owned(), views));
        flow.verifying = Some(AbortOnDropHandle::new(task));
        flow.compare_at = Instant::now() + COMPARE_EVERY;
    }

    async fn compared(
        &self,
        generation: u64,
        outcome: Result<Compared, String>,
    ) -> Result<(), End> {
        match outcome {
            Ok(Compared { zxid, difference }) => {
                tracing::info!(name = self.name, zxid, ?difference, "compared");
                self.step(ZkImportStep::Compared { generation, zxid, difference }).await
            }
            Err(why) => {
                tracing::warn!(name = self.name, why, "the copy could not be compared; again soon");
                Ok(())
            }
        }
    }
}

/// Waits for the end of a comparison, if one goes on.
async fn finished(
    verifying: &mut Option<AbortOnDropHandle<Result<Compared, String>>>,
) -> Result<Compared, String> {
    let Some(task) = verifying else { return std::future::pending().await };
    let outcome = task.await;
    *verifying = None;
    outcome.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_work_the_next_time_is_tried_again() {
        let rejected =
            |code| refused(ProposeError::Rejected(Rejected::new(code, "0x5 (node \"/a\")")));
        for end in [
            refused(ProposeError::NoLeader(String::new())),
            refused(ProposeError::Unknown(String::new())),
            refused(ProposeError::Stopping(String::new())),
            rejected(RejectedCode::Conflict),
            rejected(RejectedCode::NotFound),
        ] {
            assert!(matches!(end, End::Passing(_)));
        }
        for end in [
            rejected(RejectedCode::Invalid),
            rejected(RejectedCode::TooLarge),
            refused(ProposeError::TooLarge("0x5 (node \"/a\")".to_owned())),
        ] {
            assert!(matches!(end, End::Fatal(why) if why.contains("0x5 (node \"/a\")")));
        }
    }
}
