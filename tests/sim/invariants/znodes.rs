//! An ephemeral node belongs to a session that lives: it goes with it in one transaction, or two
//! clients could both believe that they hold a lock. And the digest that is kept at each change is
//! that of the nodes that are there.

use orch::state::State;

/// Entries between two looks.
const EVERY: u64 = 16;

pub fn check(index: u64, state: &State) {
    if !index.is_multiple_of(EVERY) {
        return;
    }
    let tree = state.zk();
    let with_sessions: usize =
        tree.sessions().map(|(session, _)| tree.ephemerals_of(session).count()).sum();
    assert_eq!(
        with_sessions,
        tree.ephemeral_count(),
        "entry {index}: an ephemeral node has no session"
    );
}
