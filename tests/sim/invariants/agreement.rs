//! What one server has applied at an index, every server applies at that index, whatever happens
//! to either (Raft, section 5.4: state machine safety); and the same entries make the same state,
//! to the byte, or a change of leaders would change what everybody was told.

use std::collections::BTreeMap;

use orch::state::State;

/// Entries between two comparisons of the whole state.
const WHOLE_EVERY: u64 = 64;

/// What each entry made of the state.
#[derive(Default)]
pub struct Agreement {
    /// What is cheap to compute, after each entry.
    marks: BTreeMap<u64, Mark>,
    /// The checksum of everything, now and then.
    checksums: BTreeMap<u64, u64>,
    /// How far each server is in its present life.
    applied: BTreeMap<usize, u64>,
}

/// What a state shows of its history without a look at all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    at: u64,
    events: u64,
    digest: u64,
}

impl Agreement {
    pub fn starts(&mut self, server: usize) {
        self.applied.remove(&server);
    }

    /// Whether this server is the first at that entry.
    pub fn applied(&mut self, server: usize, index: u64, state: &State) -> bool {
        let last = self.applied.insert(server, index);
        assert!(
            last.is_none_or(|last| last < index),
            "s{} went back from {last:?} to {index}",
            server + 1
        );
        let mark = Mark {
            at: state.stamp().at.0,
            events: state.last_event(),
            digest: state.zk().digest(),
        };
        let is_first = !self.marks.contains_key(&index);
        let known = *self.marks.entry(index).or_insert(mark);
        assert_eq!(known, mark, "s{} differs after entry {index}", server + 1);
        if index.is_multiple_of(WHOLE_EVERY) {
            let checksum = state.checksum();
            let known = *self.checksums.entry(index).or_insert(checksum);
            assert_eq!(known, checksum, "the state of s{} differs after entry {index}", server + 1);
        }
        is_first
    }
}
