//! What happens while no server is heard: what a job allows only for so long is ended, and begins
//! again when the leader still wants it.

use super::alloc::Alloc;
use super::machine::Converge;
use super::task::Seen;
use crate::model::allocation::TaskPhase;
use crate::model::time::{Millis, Timestamp};

impl Converge {
    /// No server is heard since `silent_for` ago; if that is known already, for longer.
    pub(super) fn line_down(&mut self, now: Timestamp, silent_for: Millis) {
        for (id, alloc) in &mut self.allocs {
            if alloc.unheard_since.is_none() {
                alloc.unheard_since = Some(now - silent_for);
                self.touched.insert(*id);
                if alloc.assignment.spec.disconnect.stop_after.is_some() {
                    self.dirty.insert(*id);
                }
            }
        }
    }

    /// The leader has spoken: what was ended for its silence is as wanted as it says.
    pub(super) fn heard(&mut self) {
        for (id, alloc) in &mut self.allocs {
            let unheard = alloc.unheard_since.take().is_some();
            if unheard && alloc.assignment.spec.disconnect.stop_after.is_some() {
                self.dirty.insert(*id);
            }
            if std::mem::take(&mut alloc.cut_off) {
                alloc.begin_where_it_ended();
            }
        }
    }
}

impl Alloc {
    /// When it is to end for want of a server.
    pub(super) fn cut_off_at(&self) -> Option<Timestamp> {
        if self.cut_off || !self.wanted() {
            return None;
        }
        Some(self.unheard_since? + self.assignment.spec.disconnect.stop_after?)
    }

    /// Whether it is to begin again once a server is heard, and not before.
    pub(super) fn only_cut_off(&self) -> bool {
        self.cut_off && !self.gone && !self.stop && self.failing.is_none()
    }

    /// Why it does not run.
    pub(super) fn cut_off_message(&self) -> String {
        let after = self.assignment.spec.disconnect.stop_after.unwrap_or_default();
        format!("stopped: no server was heard for {after}")
    }

    fn begin_where_it_ended(&mut self) {
        for task in self.tasks.values_mut().filter(|task| !task.done) {
            task.next_start = Timestamp(0);
            if task.seen == Seen::Ended || task.seen == Seen::Absent {
                task.state.phase = TaskPhase::Pending;
            }
        }
    }
}
