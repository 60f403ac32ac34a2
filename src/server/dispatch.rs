//! What an agent has been told, and what it is to be told next. Pure.

use std::collections::BTreeMap;

use crate::limits::ORDERS_BYTES;
use crate::model::allocation::{Allocation, Desired};
use crate::model::name::{AllocId, NodeName};
use crate::rpc::v1;
use crate::state::State;
use crate::state::codec::{self, CodecError};

/// What an agent knows of one allocation, with the order's generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is to run.
    Run(u64),
    /// It is to end.
    Stop(u64),
    /// It has ended; the agent keeps its output until it is to forget it.
    Ended,
}

impl Told {
    fn of(alloc: &Allocation) -> Told {
        match alloc.desired {
            _ if alloc.ended() => Told::Ended,
            Desired::Run => Told::Run(alloc.grant.generation),
            Desired::Stop(_) => Told::Stop(alloc.grant.generation),
        }
    }
}

/// What one agent has been told since its stream began.
#[derive(Debug, Default)]
pub(super) struct Book {
    told: BTreeMap<AllocId, Told>,
}

impl Book {
    /// Begins the book: everything the state has for the node, in pieces of bounded size.
    ///
    /// # Errors
    /// If an assignment can't be encoded; the book is of no use then.
    pub(super) fn sync(
        &mut self,
        state: &State,
        node: &NodeName,
    ) -> Result<Vec<v1::Sync>, CodecError> {
        self.told.clear();
        let mut pieces = Pieces::default();
        self.note_changes(state, node, &mut pieces)?;
        let ended = self.told.iter().filter(|(_, told)| **told == Told::Ended);
        let ended: Vec<u64> = ended.map(|(id, _)| id.0).collect();
        let pieces = pieces.finish();
        let count = pieces.len().max(1);
        let mut pieces = pieces.into_iter();
        let syncs = (1..=count).map(|number| {
            let piece = pieces.next().unwrap_or_default();
            let last = number == count;
            v1::Sync {
                run: piece.run,
                stop: piece.stop,
                ended: if last { ended.clone() } else { Vec::new() },
                more: !last,
            }
        });
        Ok(syncs.collect())
    }

    /// What changed for the node since the book was last looked at, in pieces of bounded size;
    /// none if nothing did.
    ///
    /// # Errors
    /// As [`Book::sync`].
    pub(super) fn changes(
        &mut self,
        state: &State,
        node: &NodeName,
    ) -> Result<Vec<v1::Orders>, CodecError> {
        let mut pieces = Pieces::default();
        self.note_changes(state, node, &mut pieces)?;
        Ok(pieces.finish())
    }

    fn note_changes(
        &mut self,
        state: &State,
        node: &NodeName,
        pieces: &mut Pieces,
    ) -> Result<(), CodecError> {
        let now: BTreeMap<AllocId, Told> =
            state.allocs_on(node).map(|alloc| (alloc.id, Told::of(alloc))).collect();
        let differs = |id: &AllocId, told: &Told| self.told.get(id) != Some(told);
        if now.iter().any(|(id, told)| matches!(told, Told::Run(_)) && differs(id, told)) {
            for assignment in state.assignments(node) {
                let told = Told::Run(assignment.grant.generation);
                if differs(&assignment.id, &told) {
                    pieces.run(codec::to_bytes(&assignment)?);
                }
            }
        }
        for (id, told) in &now {
            if let Told::Stop(generation) = *told
                && differs(id, told)
            {
                pieces.stop(*id, generation);
            }
        }
        for id in self.told.keys().filter(|id| !now.contains_key(id)) {
            pieces.forget(*id);
        }
        self.told = now;
        Ok(())
    }
}

/// Orders cut into messages of bounded size.
#[derive(Debug, Default)]
struct Pieces {
    full: Vec<v1::Orders>,
    open: v1::Orders,
    open_bytes: usize,
}

impl Pieces {
    /// Bytes that an order without an assignment takes, roughly.
    const SMALL: usize = 24;

    fn open(&mut self, bytes: usize) -> &mut v1::Orders {
        if self.open_bytes > 0 && self.open_bytes + bytes > ORDERS_BYTES {
            self.full.push(std::mem::take(&mut self.open));
            self.open_bytes = 0;
        }
        self.open_bytes += bytes;
        &mut self.open
    }

    fn run(&mut self, assignment: Vec<u8>) {
        self.open(assignment.len() + Self::SMALL).run.push(assignment.into());
    }

    fn stop(&mut self, id: AllocId, generation: u64) {
        self.open(Self::SMALL).stop.push(v1::StopOrder { alloc: id.0, generation });
    }

    fn forget(&mut self, id: AllocId) {
        self.open(Self::SMALL).forget.push(id.0);
    }

    fn finish(mut self) -> Vec<v1::Orders> {
        if self.open_bytes > 0 {
            self.full.push(self.open);
        }
        self.full
    }
}

#[cfg(test)]
mod tests;
