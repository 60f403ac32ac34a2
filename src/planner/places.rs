//! The places of a service, and what lives in them.

use std::collections::BTreeMap;

use crate::model::allocation::Allocation;
use crate::model::name::JobId;
use crate::state::{Job, State};

/// One place of a service: `web.2`. At most one allocation of a version is meant to live in it;
/// beside it may stand one of another version, or the successor of one that is to go elsewhere.
#[derive(Debug, Default)]
pub(super) struct Place<'s> {
    /// Meant to run what the current version asks for; oldest first.
    pub(super) new: Vec<&'s Allocation>,
    /// Meant to run something else; oldest first.
    pub(super) old: Vec<&'s Allocation>,
    /// On their way out.
    pub(super) leaving: Vec<&'s Allocation>,
    /// The newest that has ended and ran what the current version asks for.
    pub(super) last_new: Option<&'s Allocation>,
    /// The newest that has ended and ran something else.
    pub(super) last_old: Option<&'s Allocation>,
}

impl<'s> Place<'s> {
    /// All that are meant to run.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &'s Allocation> + '_ {
        self.new.iter().chain(&self.old).copied()
    }

    /// The newest that has ended.
    pub(super) fn last(&self) -> Option<&'s Allocation> {
        self.last_new.into_iter().chain(self.last_old).max_by_key(|alloc| alloc.id)
    }

    /// Notes that one was asked to stop.
    pub(super) fn leaves(&mut self, leaving: &'s Allocation) {
        self.new.retain(|alloc| alloc.id != leaving.id);
        self.old.retain(|alloc| alloc.id != leaving.id);
        self.leaving.push(leaving);
    }
}

/// A job's places that have, or had, something in them.
pub(super) fn places<'s>(state: &'s State, id: &JobId, job: &Job) -> BTreeMap<u32, Place<'s>> {
    let mut places: BTreeMap<u32, Place<'s>> = BTreeMap::new();
    for alloc in state.allocs_of(id) {
        let place = places.entry(alloc.index).or_default();
        let current = job.runs_current(alloc.version);
        match (alloc.ended(), alloc.wanted(), current) {
            // By id, so the last one seen is the newest.
            (true, _, true) => place.last_new = Some(alloc),
            (true, _, false) => place.last_old = Some(alloc),
            (_, true, true) => place.new.push(alloc),
            (_, true, false) => place.old.push(alloc),
            (_, false, _) => place.leaving.push(alloc),
        }
    }
    places
}
