//! Orders to stop what is not known here: it may run all the same, as when the agent lost its
//! memory. The answer waits until every runtime has said that it has nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Action;
use super::machine::Converge;
use crate::agent::order::TaskKey;
use crate::agent::runtime::Found;
use crate::model::allocation::{AllocReport, AllocStatus, Health};
use crate::model::name::AllocId;
use crate::model::time::Timestamp;

/// An order to stop that is not answered yet.
#[derive(Debug)]
pub(super) struct Unknown {
    generation: u64,
    /// Runtimes that have nothing of it.
    clean: BTreeSet<&'static str>,
}

impl Converge {
    pub(super) fn stop_unknown(&mut self, id: AllocId, generation: u64) {
        self.unknown.insert(id, Unknown { generation, clean: BTreeSet::new() });
        self.list_wanted = true;
    }

    /// Takes in what a runtime has of allocations that are not known.
    pub(super) fn look_for_unknown(
        &mut self,
        runtime: &'static str,
        found: &BTreeMap<TaskKey, Found>,
    ) {
        for (id, unknown) in &mut self.unknown {
            if found.keys().any(|key| key.alloc == *id) {
                unknown.clean.remove(runtime);
            } else {
                unknown.clean.insert(runtime);
            }
        }
    }

    /// Answers the orders that can be answered, and asks for what the others need.
    pub(super) fn answer_unknown(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.list_wanted) {
            actions.extend(self.up.iter().copied().map(|runtime| Action::List { runtime }));
        }
        let awaited = self.awaited(now);
        self.unknown.retain(|id, unknown| {
            let answered = awaited.is_subset(&unknown.clean);
            if answered {
                actions.push(Action::Report(AllocReport {
                    id: *id,
                    generation: unknown.generation,
                    status: AllocStatus::Stopped,
                    health: Health::Unknown,
                    ready: false,
                    tasks: BTreeMap::new(),
                    message: String::new(),
                }));
            }
            !answered
        });
    }

    /// Runtimes whose word is needed: those that have ever answered. One that has not within the
    /// first seconds is not there, and has nothing.
    fn awaited(&self, now: Timestamp) -> BTreeSet<&'static str> {
        if now < self.held_until { self.offered.clone() } else { self.ever_up.clone() }
    }

    /// Runtimes that should be listed again soon.
    pub(in crate::agent) fn unlisted(&self) -> BTreeSet<&'static str> {
        let unclean =
            |runtime: &&&'static str| self.unknown.values().any(|u| !u.clean.contains(**runtime));
        let down = self.offered.difference(&self.up);
        down.chain(self.up.iter().filter(unclean)).copied().collect()
    }
}
