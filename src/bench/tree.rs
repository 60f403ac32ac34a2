//! What ZooKeeper's tree takes: memory of a node beside its path and data, and the time to bring it
//! and to write it as a snapshot. Pure computation on one core, in a process that does nothing else.

use std::time::Instant;

use super::figures::{Row, figure, resident_mib};
use super::migrate::nodes::Nodes;
use crate::clock::SharedClock;
use crate::migrate::zookeeper::chunks::RowTooLarge;
use crate::state::znodes::ZkImportStep;
use crate::state::{Command, Rejected, Request, Stamp, State, snapshot};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Nodes with data; there is one more above each thousand.
    pub nodes: usize,
    /// Bytes of each one's data.
    pub value_bytes: usize,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A value is too large.
    #[error(transparent)]
    TooLarge(#[from] RowTooLarge),
    /// The tree was not taken.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The snapshot can't be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
}

/// Takes the measurements.
///
/// # Errors
/// See [`TreeError`].
pub fn run(options: Options, clock: &SharedClock) -> Result<Vec<Row>, TreeError> {
    let mut state = State::default();
    let mut index = 0;
    let mut apply = |state: &mut State, step: ZkImportStep| {
        index += 1;
        let stamp = Stamp { index, at: clock.now() };
        let command = Command::ImportZk { name: "bench".to_owned(), step: Box::new(step) };
        state.apply(stamp, &Request::from(command)).reply.map(drop)
    };
    let source = "bench".to_owned();
    apply(&mut state, ZkImportStep::Start { source, live: false, again: false })?;
    // The index of the command that began it.
    let generation = 1;
    let nodes = Nodes::new("/orch-bench".to_owned(), options.nodes, options.value_bytes);
    let (memory, began) = (resident_mib(), Instant::now());
    let mut chunk = 0;
    let brought = nodes.lots::<TreeError>(1 << 32, |bytes| {
        // As a server has it, where a view of the state before is still looked at.
        let before = state.clone();
        apply(&mut state, ZkImportStep::Rows { generation, chunk, bytes })?;
        chunk += 1;
        drop(before);
        Ok(())
    })?;
    let (seconds, count) = (began.elapsed().as_secs_f64(), nodes.total() as f64);
    let taken = (resident_mib() - memory) * f64::from(1 << 20);
    let began = Instant::now();
    snapshot::write(&state, &mut std::io::sink())?;
    let written = began.elapsed().as_secs_f64();
    Ok(vec![
        figure("nodes", "", count),
        figure("path and data of a node", "B", brought as f64 / count),
        figure("memory of a node beside them", "B", (taken - brought as f64) / count),
        figure("memory of them all", "MiB", taken / f64::from(1 << 20)),
        figure("bringing them", "s", seconds),
        figure("writing a snapshot of them", "s", written),
    ])
}
