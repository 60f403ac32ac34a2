//! Allocations that have to leave their place: moved, preempted, disconnected for too long, or
//! given up.

use super::allocations::note;
use super::{AllocChange, AllocMove, Change, Rejected, Reply};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::model::allocation::{AllocStatus, Move, StopReason};
use crate::model::name::{AllocId, JobId, NodeName};

impl Change<'_> {
    pub(super) fn move_allocs(&mut self, moves: &[AllocMove]) -> Result<Reply, Rejected> {
        for wish in moves {
            let Some(known) = self.state.allocs.get(&wish.alloc) else { continue };
            let same_place = wish.to.as_ref() == Some(&known.node);
            let at = self.stamp.at;
            let moving = known.moving.as_ref().is_some_and(|moving| !moving.is_over(at));
            if !known.wanted() || moving || same_place {
                continue;
            }
            let mut alloc = (**known).clone();
            alloc.moving = Some(Move { reason: wish.reason, since: at, to: wish.to.clone() });
            let text = match &wish.to {
                Some(to) => format!("moving to {to}: {}", wish.reason.sentence()),
                None => format!("moving: {}", wish.reason.sentence()),
            };
            note(&mut alloc, at, text.clone());
            self.state.put_alloc(alloc);
            self.emit_alloc(wish.alloc, AllocChange::Moving, &text);
        }
        Ok(Reply::Done)
    }

    pub(super) fn preempt_allocs(
        &mut self,
        victims: &[AllocId],
        by: &JobId,
    ) -> Result<Reply, Rejected> {
        let Some(job) = self.state.jobs.get(by) else { return Err(Rejected::not_found("job", by)) };
        let priority = job.spec().priority;
        for id in victims {
            let Some(victim) = self.state.allocs.get(id) else { continue };
            let Some(theirs) = self.state.jobs.get(&victim.job) else { continue };
            let lower = theirs.spec().priority;
            // Checked again: the plan may be older than a change of priority.
            if !victim.wanted() || lower >= priority {
                continue;
            }
            let why =
                format!("preempted by {by}, whose priority is {priority} and this one's {lower}");
            self.ask_to_stop_because(*id, StopReason::Preempted, &why);
        }
        Ok(Reply::Done)
    }

    pub(super) fn lose_disconnected(&mut self, allocs: &[AllocId]) -> Result<Reply, Rejected> {
        for id in allocs {
            let gone = self
                .state
                .allocs
                .get(id)
                .filter(|alloc| !alloc.ended() && alloc.disconnected_at.is_some());
            if let Some(alloc) = gone {
                let reason = format!("{} was not heard for as long as the job waits", alloc.node);
                self.set_alloc_status(*id, AllocStatus::Lost, &reason);
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn give_up_allocs(
        &mut self,
        allocs: &[(AllocId, String)],
    ) -> Result<Reply, Rejected> {
        for (id, reason) in allocs {
            let Some(known) = self.state.allocs.get(id) else { continue };
            if known.status != AllocStatus::Failed || known.gave_up {
                continue;
            }
            let mut alloc = (**known).clone();
            alloc.gave_up = true;
            let reason = &reason[..reason.floor_char_boundary(MESSAGE_BYTES_MAX)];
            note(&mut alloc, self.stamp.at, reason.to_owned());
            self.state.put_alloc(alloc);
            self.emit_alloc(*id, AllocChange::GaveUp, reason);
        }
        Ok(Reply::Done)
    }

    /// A node's allocations when it is lost: those of jobs that wait keep their places.
    pub(super) fn disconnect_allocs(&mut self, node: &NodeName, reason: &str) {
        let live: Vec<_> =
            self.state.allocs_on(node).filter(|alloc| !alloc.ended()).cloned().collect();
        for known in live {
            let waits = self.state.jobs.get(&known.job).is_some_and(|job| {
                job.policies_of(known.version).disconnect.replace_after.0 > 0 && known.wanted()
            });
            if !waits {
                self.set_alloc_status(known.id, AllocStatus::Lost, reason);
                continue;
            }
            let mut alloc = (*known).clone();
            alloc.disconnected_at = Some(self.stamp.at);
            note(&mut alloc, self.stamp.at, format!("disconnected: {reason}"));
            self.state.put_alloc(alloc);
            self.emit_alloc(known.id, AllocChange::Message, &format!("disconnected: {reason}"));
        }
    }

    /// Their node is heard again before they were replaced.
    pub(super) fn reconnect_allocs(&mut self, node: &NodeName) {
        let waiting: Vec<_> = self
            .state
            .allocs_on(node)
            .filter(|alloc| alloc.disconnected_at.is_some())
            .cloned()
            .collect();
        for known in waiting {
            let mut alloc = (*known).clone();
            alloc.disconnected_at = None;
            note(&mut alloc, self.stamp.at, "connected again".to_owned());
            self.state.put_alloc(alloc);
            self.emit_alloc(known.id, AllocChange::Message, "connected again");
        }
    }
}
