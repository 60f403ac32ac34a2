//! openraft's own suite against our log and state machine, and the bytes of a snapshot file.

use std::io::Read;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::directory::{Directory, OsDirectory};
use super::log_store::LogStore;
use super::snapshot_store::SnapshotStore;
use super::state_machine::{StateMachine, Surroundings};
use super::types::{LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig};
use super::{RaftLog, View};
use crate::ground::{Offload, Witness};
use crate::model::time::Timestamp;
use crate::observe::metrics::Metrics;
use crate::state::{Command, Stamp, State, snapshot};

/// The pinned bytes of a format; `ORCH_UPDATE_GOLDEN` writes them anew.
pub(super) fn golden(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("ORCH_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let pinned = std::fs::read(&path).unwrap_or_default();
    assert!(pinned == bytes, "{name} differs from the released format");
}

struct Builder;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let opened = LogStore::open(&dir.path().join("raft"), 1, Metrics::new().unwrap()).unwrap();
        let directory = OsDirectory::open(&dir.path().join("snapshots")).unwrap();
        let empty = View { state: Arc::new(State::default()), applied_index: 0 };
        let machine = StateMachine::new(Surroundings {
            snapshots: SnapshotStore::open(Arc::new(directory)).unwrap(),
            offload: Offload::Threads,
            views: watch::Sender::new(empty),
            checkpoints: mpsc::channel(1).0,
            checkpoint_every: 4,
            witness: Witness::default(),
            metrics: Metrics::new().unwrap(),
        });
        Ok((dir, RaftLog::new(Box::new(opened.store), opened.loaded), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

fn meta(index: u64) -> SnapshotMeta {
    let membership = Membership::new_with_defaults(vec![[1].into()], []);
    let at = |index| Some(LogId::new_term_index(2, index));
    SnapshotMeta {
        last_log_id: at(index),
        last_membership: StoredMembership::new(at(1), membership),
    }
}

fn state(values: u64) -> State {
    let mut state = State::default();
    for i in 0..values {
        let command = Command::PutVariable {
            project: "default".parse().unwrap(),
            path: format!("k/{i}").try_into().unwrap(),
            value: vec![i as u8; 1000],
            if_index: None,
        };
        state.apply(Stamp { index: i, at: Timestamp(i) }, &command.into()).reply.unwrap();
    }
    state
}

fn body(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(state, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_newest_snapshot_is_kept_and_found_again() {
    let dir = TempDir::new().unwrap();
    let directory: Arc<dyn Directory> = Arc::new(OsDirectory::open(dir.path()).unwrap());
    let store = SnapshotStore::open(directory.clone()).unwrap();
    assert!(store.current().is_none());
    for index in [5, 9, 7] {
        store.save(&meta(index), &state(index * 20)).unwrap();
    }
    // One that never got to its end.
    drop(store.begin(&meta(11)).unwrap());
    let store = SnapshotStore::open(directory.clone()).unwrap();
    let (found, data) = store.current().unwrap();
    assert_eq!(found, meta(9));
    assert_eq!(body(&data.state().unwrap()), body(&state(180)));
    let mut read = Vec::new();
    data.body().unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, body(&state(180)));
    assert_eq!(directory.list().unwrap().len(), 1, "nothing else is left");
}

#[test]
fn a_damaged_snapshot_is_named() {
    let dir = TempDir::new().unwrap();
    let directory: Arc<dyn Directory> = Arc::new(OsDirectory::open(dir.path()).unwrap());
    let store = SnapshotStore::open(directory.clone()).unwrap();
    store.save(&meta(5), &state(200)).unwrap();
    let file = dir.path().join(&directory.list().unwrap()[0]);
    let whole = std::fs::read(&file).unwrap();
    let check = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let opened = SnapshotStore::open(directory.clone());
        let read = opened.and_then(|store| store.current().unwrap().1.state());
        let error = read.expect_err("it is damaged").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert!(error.contains("orch server remove"), "{error}");
    };
    for place in [3, 10, 30, 5_000, 100_000, whole.len() - 2] {
        let mut bad = whole.clone();
        bad[place] ^= 4;
        check(&bad);
    }
    for length in [0, 20, 5_000, whole.len() - 1] {
        check(&whole[..length]);
    }
}

#[test]
fn the_bytes_of_a_snapshot_file_are_pinned() {
    let dir = TempDir::new().unwrap();
    let directory: Arc<dyn Directory> = Arc::new(OsDirectory::open(dir.path()).unwrap());
    let store = SnapshotStore::open(directory.clone()).unwrap();
    let mut writer = store.begin(&meta(5)).unwrap();
    std::io::Write::write_all(&mut writer, b"the state's own bytes are pinned elsewhere").unwrap();
    store.promote(&meta(5), writer.finish().unwrap()).unwrap();
    let file = dir.path().join(&directory.list().unwrap()[0]);
    golden("snapshot-file-v1.bin", &std::fs::read(file).unwrap());
}
