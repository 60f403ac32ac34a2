//! Snapshots of the state.

use orch::state::snapshot;

/// A snapshot.
pub fn feed(data: &[u8]) {
    let mut rest = data;
    let Ok(state) = snapshot::read(&mut rest) else { return };
    let mut bytes = Vec::new();
    snapshot::write(&state, &mut bytes).expect("memory takes it");
    let again = snapshot::read(&mut bytes.as_slice()).expect("what was written reads");
    let mut twice = Vec::new();
    snapshot::write(&again, &mut twice).expect("memory takes it");
    assert!(bytes == twice, "a snapshot of a snapshot differs");
}
