//! The log on a real disk: what comes back, and what damage is noticed.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use tempfile::TempDir;

use super::open::FORMAT;
use super::*;
use crate::consensus::RaftLog;
use crate::consensus::log_disk::Identity;
use crate::consensus::types::{Batch, Entry, LogId, Membership, Payload, Vote};
use crate::limits::LOG_FRAME_BYTES;
use crate::observe::metrics::Metrics;

fn log_id(index: u64) -> LogId {
    LogId::new_term_index(1 + index / 100, index)
}

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = match index {
        0 => Payload::Membership(Membership::new_with_defaults(vec![[1].into()], [])),
        index if index.is_multiple_of(7) => Payload::Blank,
        index => Payload::Normal(Batch(vec![index as u8; bytes].into())),
    };
    Entry { log_id: log_id(index), payload }
}

fn entries(range: std::ops::Range<u64>, bytes: usize) -> Vec<Entry> {
    range.map(|index| entry(index, bytes)).collect()
}

fn open(dir: &Path) -> Result<(RaftLog, Identity), LogOpenError> {
    let opened = LogStore::open(dir, 7, Metrics::new().unwrap())?;
    Ok((RaftLog::new(Box::new(opened.store), opened.loaded), opened.identity))
}

/// All there is, read anew from the disk.
async fn reopened(dir: &Path, log: RaftLog) -> (RaftLog, Vec<Entry>) {
    log.close().await.unwrap();
    let (mut log, _) = open(dir).unwrap();
    let found = log.try_get_log_entries(..).await.unwrap();
    (log, found)
}

/// The records of a closed log, to be tampered with.
fn records(dir: &Path, tamper: impl FnOnce(&sled::Tree)) {
    let db = super::open::open_db(dir).unwrap();
    tamper(&db.open_tree(LOG).unwrap());
    db.flush().unwrap();
}

fn damage(dir: &Path) -> String {
    match open(dir) {
        Err(LogOpenError::Damaged { what, .. }) => what,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it opens"),
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (mut log, identity) = open(dir.path()).unwrap();
    assert!(log.is_pristine());
    assert_eq!(identity, Identity { format: FORMAT, server_id: 7, cluster_id: 0, joining: false });
    let vote = Vote::new(3, 9);
    log.save_vote(&vote).await.unwrap();
    // Small ones that share a frame, and one that is cut into several records.
    for range in [0..3, 3..4, 4..200] {
        log.blocking_append(entries(range, 100)).await.unwrap();
    }
    log.blocking_append([entry(200, 3 * PART_BYTES)]).await.unwrap();
    log.save_committed(Some(log_id(150))).await.unwrap();
    let joined = Identity { cluster_id: 5, joining: true, ..identity };
    log.save_identity(joined).await.unwrap();

    let (mut log, found) = reopened(dir.path(), log).await;
    assert_eq!(found[..200], entries(0..200, 100));
    assert_eq!(found[200..], [entry(200, 3 * PART_BYTES)]);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(150)));
    log.close().await.unwrap();
    assert_eq!(open(dir.path()).unwrap().1, joined);
}

#[tokio::test]
async fn the_end_is_cut_across_frames() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    for range in [0..10, 10..20, 20..30] {
        log.blocking_append(entries(range, LOG_FRAME_BYTES / 4)).await.unwrap();
    }
    for last in [24, 13, 9] {
        log.truncate_after(Some(log_id(last))).await.unwrap();
        let found;
        (log, found) = reopened(dir.path(), log).await;
        assert_eq!(found, entries(0..last + 1, LOG_FRAME_BYTES / 4));
    }
    // Another leader's entries take their place.
    log.blocking_append(entries(10..12, 5)).await.unwrap();
    let (mut log, found) = reopened(dir.path(), log).await;
    assert_eq!(found[10..], entries(10..12, 5));
    log.truncate_after(None).await.unwrap();
    assert_eq!(reopened(dir.path(), log).await.1, []);
}

#[tokio::test]
async fn the_beginning_is_purged_and_stays_so() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    for first in (0..1000).step_by(10) {
        log.blocking_append(entries(first..first + 10, 50)).await.unwrap();
    }
    log.purge(log_id(605)).await.unwrap();
    let (mut log, found) = reopened(dir.path(), log).await;
    assert_eq!(found, entries(606..1000, 50));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(605)));
    assert_eq!(state.last_log_id, Some(log_id(999)));
    // A snapshot that is further than the log, and what comes behind it.
    log.purge(log_id(2000)).await.unwrap();
    log.blocking_append(entries(2001..2003, 50)).await.unwrap();
    let (log, found) = reopened(dir.path(), log).await;
    assert_eq!(found, entries(2001..2003, 50));
    log.close().await.unwrap();
    records(dir.path(), |log| assert!(log.len() < 3, "what was purged is gone"));
}

#[tokio::test]
async fn a_torn_last_frame_is_dropped() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.blocking_append(entries(0..5, 50)).await.unwrap();
    log.blocking_append(entries(5..9, 50)).await.unwrap();
    log.close().await.unwrap();
    records(dir.path(), |log| {
        let whole = log.get(key(5, 0)).unwrap().unwrap();
        log.insert(key(5, 0), &whole[..whole.len() - 3]).unwrap();
    });
    let (mut log, _) = open(dir.path()).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(0..5, 50));
    log.blocking_append(entries(5..6, 60)).await.unwrap();
    assert_eq!(reopened(dir.path(), log).await.1[5..], entries(5..6, 60));
}

#[tokio::test]
async fn what_was_acknowledged_is_never_dropped() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    for first in [0, 5, 10] {
        log.blocking_append(entries(first..first + 5, 50)).await.unwrap();
    }
    log.save_committed(Some(log_id(12))).await.unwrap();
    log.close().await.unwrap();
    let mut frames = BTreeMap::new();
    records(dir.path(), |log| {
        for first in [0, 5, 10] {
            frames.insert(first, log.get(key(first, 0)).unwrap().unwrap());
        }
    });
    // A bit flipped within, whole frames gone, and the last one torn though it was committed.
    for (first, message) in [
        (0, "the frame at index 0 is bad: its checksum does not fit"),
        (5, "the frame at index 5 is bad: its checksum does not fit"),
        (10, "the frame at index 10 is bad: its checksum does not fit"),
    ] {
        records(dir.path(), |log| {
            let mut bad = frames[&first].to_vec();
            bad[40] ^= 1;
            log.insert(key(first, 0), bad).unwrap();
        });
        assert_eq!(damage(dir.path()), message);
        records(dir.path(), |log| {
            log.remove(key(first, 0)).unwrap();
        });
        let lost = format!("entries {first} to {} are missing", first + 4);
        let message = damage(dir.path());
        assert!(message == lost || message == "entries 10 to 12 are missing at its end");
        records(dir.path(), |log| {
            log.insert(key(first, 0), &frames[&first]).unwrap();
        });
    }
    open(dir.path()).unwrap().0.close().await.unwrap();
}

#[tokio::test]
async fn a_second_process_and_a_stray_blob_are_refused() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(LogOpenError::Locked { .. })));
    log.close().await.unwrap();
    std::fs::write(dir.path().join("blobs/1"), b"x").unwrap();
    assert_eq!(damage(dir.path()), "its directory `blobs` is not empty");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = TempDir::new().unwrap();
    let (log, identity) = open(dir.path()).unwrap();
    log.save_identity(Identity { format: FORMAT + 1, ..identity }).await.unwrap();
    log.close().await.unwrap();
    let error = open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
    let says = format!("has format {}, and this release knows formats up to {FORMAT}", FORMAT + 1);
    assert!(error.contains(&says) && error.contains("start the server with"), "{error}");
}

#[tokio::test]
async fn a_directory_of_an_older_format_gets_this_one() {
    let dir = TempDir::new().unwrap();
    let (log, identity) = open(dir.path()).unwrap();
    log.save_identity(Identity { format: FORMAT - 1, ..identity }).await.unwrap();
    log.close().await.unwrap();
    // Also for whoever opens it after that.
    for _ in 0..2 {
        let (log, again) = open(dir.path()).unwrap();
        assert_eq!(again, identity);
        log.close().await.unwrap();
    }
    let db = super::open::open_db(dir.path()).unwrap();
    let stored = db.open_tree(META).unwrap().get(IDENTITY).unwrap().unwrap();
    assert_eq!(unsealed::<Identity>(&stored), Some(identity));
}

#[tokio::test]
async fn a_failed_write_is_for_good() {
    let dir = TempDir::new().unwrap();
    let opened = LogStore::open(dir.path(), 7, Metrics::new().unwrap()).unwrap();
    let mut store = opened.store;
    store.writer.full = true;
    let mut log = RaftLog::new(Box::new(store), opened.loaded);
    let error = log.blocking_append(entries(0..1, 5)).await.unwrap_err();
    assert!(error.to_string().contains("no storage space"), "{error}");
    let error = log.save_vote(&Vote::new(1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("make room and start the server again"), "{error}");
    let _ = log.close().await;
    // What was not acknowledged may be there or not; nothing else is wrong.
    open(dir.path()).unwrap().0.close().await.unwrap();
}

#[tokio::test]
async fn spacers_are_nobody_s_entries_and_go_with_the_frames() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    let large = LOG_FRAME_BYTES / 4;
    for index in 0..60 {
        log.blocking_append(entries(index..index + 1, large)).await.unwrap();
    }
    // Cut back and gone on, as after an election.
    log.truncate_after(Some(log_id(39))).await.unwrap();
    let (mut log, found) = reopened(dir.path(), log).await;
    assert_eq!(found, entries(0..40, large));
    log.blocking_append(entries(40..50, large)).await.unwrap();
    log.purge(log_id(44)).await.unwrap();
    let (log, found) = reopened(dir.path(), log).await;
    assert_eq!(found, entries(45..50, large));
    log.close().await.unwrap();
    let spaced = |tree: &sled::Tree| -> Vec<u64> {
        let keys = tree.iter().keys().map(|key| parse_key(&key.unwrap()).unwrap());
        keys.filter(|(_, part)| spacers::is_spacer(*part)).map(|(index, _)| index).collect()
    };
    records(dir.path(), |tree| {
        let spaced = spaced(tree);
        assert!(spaced.iter().all(|index| *index > 44), "{spaced:?}");
        assert!(spaced.contains(&49), "{spaced:?}");
    });
}

#[test]
fn the_bytes_of_a_frame_are_pinned() {
    let mut frame = FrameWriter::new(0);
    for entry in entries(0..9, 20) {
        frame.push(&entry).unwrap();
    }
    let bytes = frame.finish();
    assert_eq!(read_frame(&bytes.clone().into()).unwrap(), entries(0..9, 20));
    crate::consensus::tests::golden("log-frame-v1.bin", &bytes);
}

proptest::proptest! {
    #[test]
    fn no_damage_to_a_frame_goes_unseen(place in 0..300usize, bit in 0..8u8, cut in 0..300usize) {
        let mut frame = FrameWriter::new(1);
        for entry in entries(1..12, 20) {
            frame.push(&entry).unwrap();
        }
        let bytes = frame.finish();
        let mut flipped = bytes.clone();
        let at = place % flipped.len();
        flipped[at] ^= 1 << bit;
        proptest::prop_assert!(read_frame(&flipped.into()).is_err());
        let short = bytes[..cut % bytes.len()].to_vec();
        proptest::prop_assert!(read_frame(&short.into()).is_err());
    }
}
