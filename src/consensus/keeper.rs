//! Looks after this server: who leads, when to make a snapshot, whether it still is a member,
//! whether its state is that of the others.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::core::{Checksums, Core};
use super::handle::Leadership;
use super::peers::{Answer, Call, CallError, JoinCall};
use super::state_machine::Checkpoint;
use super::types::Member;
use crate::model::server::Server;
use crate::state::Command;

const COMPACTION_INTERVAL: Duration = Duration::from_millis(200);
/// A log that grows by no more than so many bytes ...
const CALM_BYTES: u64 = 1 << 20;
/// ... while it is looked at so often has come to rest.
const CALM_TICKS: u32 = 25;
/// Of what makes a snapshot due at any time, this part is enough then.
const CALM_SHARE: u64 = 4;
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
const COMPARISON_INTERVAL: Duration = Duration::from_secs(3);
/// Without a leader for so long, a server asks whether it still is a member.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Checksums kept to compare with another server's.
const CHECKSUMS_KEPT: usize = 16;

/// Wakes a loop now and then, until the server stops.
struct Ticks(tokio::time::Interval);

impl Ticks {
    fn every(interval: Duration) -> Self {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }

    /// Whether the loop is to go on.
    async fn go_on(&mut self, core: &Core) -> bool {
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => false,
            _ = self.0.tick() => true,
        }
    }
}

/// Follows Raft's own figures: leadership, gauges, its end.
pub(super) async fn follow_raft(core: Arc<Core>, leadership: watch::Sender<Leadership>) {
    let mut metrics = core.raft.metrics();
    loop {
        let (now, failed) = {
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader.and_then(|id| {
                let member = metrics.membership_config.get_node(&id)?;
                member.server(id).ok()
            });
            let leads = metrics.state == ServerState::Leader;
            let applied_term = metrics.last_applied.map(|id| id.leader_id.term);
            // Its first entry is blank and of its own term: once applied, so is all before it.
            let ready = leads && applied_term == Some(metrics.current_term);
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            core.metrics.raft_term.set(gauge(metrics.current_term));
            core.metrics.raft_is_leader.set(i64::from(leads));
            core.metrics.raft_last_log_index.set(gauge(metrics.last_log_index.unwrap_or(0)));
            let failed = metrics.running_state.as_ref().err().map(ToString::to_string);
            (Leadership { term: metrics.current_term, leader, ready }, failed)
        };
        leadership.send_if_modified(|known| {
            if *known == now {
                return false;
            }
            if now.ready && !known.ready {
                core.take_over_time();
            }
            let id = |leader: &Option<Server>| leader.as_ref().map(|leader| leader.id);
            if now.leader.is_some() && id(&known.leader) != id(&now.leader) {
                core.metrics.raft_leader_changes.inc();
            }
            *known = now;
            true
        });
        if let Some(error) = failed {
            if !core.stopping.is_cancelled() {
                core.fail(format!("this server can't go on: {error}"));
            }
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the log has come to rest: it is in memory until a snapshot covers it, and what a burst
/// of writes left there is not to stay until the next one.
#[derive(Debug, Default)]
struct Calm {
    /// Bytes when it last grew by more than a little.
    bytes: u64,
    ticks: u32,
}

impl Calm {
    /// Looks once a tick at how much log no snapshot covers.
    fn has_come(&mut self, bytes: u64) -> bool {
        let grown = bytes < self.bytes || bytes - self.bytes > CALM_BYTES;
        (self.bytes, self.ticks) = match grown {
            true => (bytes, 0),
            false => (self.bytes, self.ticks.saturating_add(1)),
        };
        self.ticks >= CALM_TICKS
    }
}

/// Makes snapshots by the log's length, and purges what they cover.
pub(super) async fn compact(core: Arc<Core>) {
    // What was asked for last: entry and bytes, so that nothing is asked for twice.
    let mut asked: Option<u64> = None;
    let mut calm = Calm::default();
    let mut ticks = Ticks::every(COMPACTION_INTERVAL);
    while ticks.go_on(&core).await {
        core.log.tell_committed();
        let tuning = core.tuning();
        let (snapshot, applied, purged, needed) = core.raft_metrics(|metrics| {
            let needed = metrics.replication.as_ref().and_then(|replication| {
                replication.values().map(|matched| matched.map_or(0, |id| id.index)).min()
            });
            (
                metrics.snapshot.map(|id| id.index),
                metrics.last_applied.map(|id| id.index),
                metrics.purged.map(|id| id.index),
                needed,
            )
        });
        let Some(applied) = applied else { continue };
        let size = core.log.size();
        if let Some(snapshot) = snapshot {
            let mut upto = core.log.purge_point(snapshot, tuning.keep_entries, tuning.keep_bytes);
            if size.bytes < tuning.log_bytes_max
                && let Some(needed) = needed
            {
                // A member that is catching up would have to begin with a snapshot again.
                upto = upto.map(|upto| upto.min(needed));
            }
            if let Some(upto) = upto.filter(|upto| purged.is_none_or(|purged| *upto > purged)) {
                let _ = core.raft.trigger().purge_log(upto).await;
            }
        }
        let base = snapshot.or(purged).map_or(0, |index| index + 1);
        let since = core.log.bytes_from(base);
        let due = applied.saturating_sub(base) >= tuning.snapshot_entries
            || since >= tuning.snapshot_bytes
            || (calm.has_come(since) && since >= tuning.snapshot_bytes / CALM_SHARE);
        let pending = asked.is_some_and(|asked| snapshot.is_none_or(|done| done < asked));
        if due && !pending {
            asked = Some(applied);
            let _ = core.raft.trigger().snapshot().await;
        }
    }
}

/// Sees to it that this server is where its cluster believes it to be, and stops it if it was
/// removed.
pub(super) async fn stay_member(core: Arc<Core>) {
    let mut ticks = Ticks::every(PRESENCE_INTERVAL);
    while ticks.go_on(&core).await {
        let view = core.view();
        let cluster_id = view.state.cluster_id();
        if cluster_id != 0 {
            core.change_identity(|identity| {
                identity.cluster_id = cluster_id;
                identity.joining = false;
            })
            .await;
        }
        let leadership = core.leadership.borrow().clone();
        // Raft goes on naming a leader that is no longer heard.
        if !core.leads() && core.heard().elapsed() >= LEADERLESS_MAX {
            ask_whether_member(&core).await;
            continue;
        }
        let Some(leader) = leadership.leader else { continue };
        let membership = core.membership();
        let known = membership.get_node(&core.me.id);
        if leader.id == core.me.id {
            if cluster_id == 0 && leadership.ready {
                let _ = core.found_cluster().await;
            }
            if known.is_some_and(|known| *known != Member::from(&core.me)) {
                // The leader is a voter and caught up: this only tells its addresses.
                let _ = core.admit(core.join_call()).await;
            }
        } else if known.is_none_or(|known| *known != Member::from(&core.me)) || !core.votes() {
            let asked = core.ask(&leader, Call::Join(core.join_call()), true, ASK_TIMEOUT).await;
            heed(&core, asked);
        }
    }
}

fn heed(core: &Core, answer: Result<Answer, CallError>) {
    if let Err(CallError::Retired(message)) = answer {
        core.fail(message);
    }
}

async fn ask_whether_member(core: &Arc<Core>) {
    for server in core.members() {
        if server.id != core.me.id {
            let asked = core.ask(&server, Call::Join(core.join_call()), false, ASK_TIMEOUT).await;
            heed(core, asked);
        }
    }
}

impl Core {
    /// How this server asks to be a member.
    pub(super) fn join_call(&self) -> JoinCall {
        JoinCall {
            server: self.me.clone(),
            cluster_id: self.identity().cluster_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Gives a new cluster its id.
    pub(super) async fn found_cluster(&self) -> Result<(), CallError> {
        self.write_one(Command::FoundCluster { cluster_id: self.ground.clock.random() }).await?;
        let cluster_id = self.view().state.cluster_id();
        self.change_identity(|identity| identity.cluster_id = cluster_id).await;
        Ok(())
    }
}

/// Computes the checksum of the state at each checkpoint.
pub(super) async fn checksum(
    core: Arc<Core>,
    mut checkpoints: mpsc::Receiver<Checkpoint>,
    checksums: watch::Sender<Checksums>,
) {
    loop {
        let checkpoint = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            checkpoint = checkpoints.recv() => checkpoint,
        };
        let Some(Checkpoint { index, state }) = checkpoint else { return };
        let Ok(checksum) = core.ground.offload.run(move || state.checksum()).await else { return };
        checksums.send_modify(|known| {
            if known.len() >= CHECKSUMS_KEPT {
                known.pop_front();
            }
            known.push_back((index, checksum));
        });
    }
}

/// Compares this server's checksums with the leader's: one that differs must not go on.
pub(super) async fn compare_checksums(core: Arc<Core>) {
    let mut ticks = Ticks::every(COMPARISON_INTERVAL);
    while ticks.go_on(&core).await {
        let Some(leader) = core.other_leader() else { continue };
        let asked = core.ask(&leader, Call::Status, true, ASK_TIMEOUT).await;
        let Ok(Answer::Status(theirs)) = asked else { continue };
        // It has none yet: it has just started. Or another release encodes the state otherwise.
        if theirs.checksum_index == 0 || theirs.version != env!("CARGO_PKG_VERSION") {
            continue;
        }
        let known = core.checksums.borrow().clone();
        let mine = known.iter().find(|(index, _)| *index == theirs.checksum_index);
        if let Some((index, mine)) = mine
            && *mine != theirs.checksum
        {
            core.fail(format!(
                "the state of this server at entry {index} differs from that of the leader, {} \
                 ({mine:016x}, {:016x} there). It must not go on: take it out of the cluster \
                 (`orch server remove {}`), keep its data directory for a report, and start it \
                 with an empty one and --join",
                leader.name, theirs.checksum, core.me.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_calm_when_it_hardly_grows_for_a_while() {
        let mut calm = Calm::default();
        let mut bytes = 0;
        for _ in 0..3 * CALM_TICKS {
            bytes += CALM_BYTES + 1;
            assert!(!calm.has_come(bytes));
        }
        for _ in 1..CALM_TICKS {
            bytes += 1;
            assert!(!calm.has_come(bytes));
        }
        assert!(calm.has_come(bytes) && calm.has_come(bytes + CALM_BYTES / 2));
        assert!(!calm.has_come(bytes + 2 * CALM_BYTES), "it grows again");
        assert!(!calm.has_come(0), "a snapshot covers it");
    }
}
