//! The log on a real disk: what comes back, and what damage is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use tempfile::TempDir;

use super::changes::Changes;
use super::journal::Journal;
use super::open::FORMAT;
use super::*;
use crate::consensus::RaftLog;
use crate::consensus::log_disk::Identity;
use crate::consensus::types::{Batch, Entry, LogId, Membership, Payload, Vote};
use crate::limits::{LOG_FRAME_BYTES, LOG_JOURNAL_BYTES};
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

/// Files of a log's directory: of the journal, or sled's.
fn files(dir: &Path, of_journal: bool) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.ends_with("journal") || path.ends_with("synced");
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.is_file() && ours(path) == of_journal).collect()
}

/// Copies them as they are now. sled's can be copied when its directory is closed, and ours at any
/// time: with sled's of an earlier one, they are what a crash may leave.
fn copied(dir: &Path, of_journal: bool, to: &Path) {
    for file in files(dir, of_journal) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// What is in a directory that a crash left.
async fn found_in(dir: &Path) -> (RaftLog, Vec<Entry>) {
    let (mut log, _) = open(dir).unwrap();
    let found = log.try_get_log_entries(..).await.unwrap();
    (log, found)
}

#[tokio::test]
async fn what_sled_does_not_have_yet_is_in_the_journal() {
    let (dir, early) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut log, identity) = open(dir.path()).unwrap();
    for first in (0..100).step_by(10) {
        log.blocking_append(entries(first..first + 10, 50)).await.unwrap();
    }
    log.close().await.unwrap();
    copied(dir.path(), false, early.path());

    let (mut log, _) = open(dir.path()).unwrap();
    let vote = Vote::new(3, 9);
    log.save_vote(&vote).await.unwrap();
    log.blocking_append(entries(100..105, 50)).await.unwrap();
    // Across the frame that begins at 90, then other entries in its place.
    log.truncate_after(Some(log_id(94))).await.unwrap();
    log.blocking_append(entries(95..110, 60)).await.unwrap();
    log.purge(log_id(30)).await.unwrap();
    log.blocking_append([entry(110, 3 * PART_BYTES)]).await.unwrap();
    let joined = Identity { cluster_id: 5, joining: true, ..identity };
    log.save_identity(joined).await.unwrap();
    let mut expected = log.try_get_log_entries(..).await.unwrap();
    copied(dir.path(), true, early.path());
    drop(log);

    // sled as it was at the beginning; then with all that it was given.
    for crashed in [&early, &dir] {
        for _ in 0..2 {
            let (mut log, found) = found_in(crashed.path()).await;
            assert_eq!(found, expected);
            assert_eq!(log.read_vote().await.unwrap(), Some(vote));
            let state = log.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id, Some(log_id(30)));
            log.close().await.unwrap();
            assert_eq!(open(crashed.path()).unwrap().1, joined);
        }
    }
    // And it goes on from there.
    let (mut log, _) = open(early.path()).unwrap();
    log.blocking_append(entries(111..112, 5)).await.unwrap();
    expected.extend(entries(111..112, 5));
    assert_eq!(reopened(early.path(), log).await.1, expected);
}

#[tokio::test]
async fn what_was_purged_in_sled_alone_is_no_hole() {
    let (dir, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut log, _) = open(dir.path()).unwrap();
    for first in (0..100).step_by(10) {
        log.blocking_append(entries(first..first + 10, 50)).await.unwrap();
    }
    log.purge(log_id(19)).await.unwrap();
    log.blocking_append(entries(100..101, 50)).await.unwrap();
    copied(dir.path(), true, crashed.path());
    // Nothing is written behind it before the end.
    log.purge(log_id(59)).await.unwrap();
    log.close().await.unwrap();
    let db = super::open::open_db(dir.path()).unwrap();
    db.open_tree(META).unwrap().remove(SYNCED).unwrap();
    drop(db);
    copied(dir.path(), false, crashed.path());
    let (mut log, found) = found_in(crashed.path()).await;
    assert_eq!(found, entries(60..101, 50));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(59)));
}

#[tokio::test]
async fn the_end_of_a_journal_is_only_missing_if_it_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.close().await.unwrap();
    let [whole, torn, lost] = [(); 3].map(|()| TempDir::new().unwrap());
    for to in [&whole, &torn, &lost] {
        copied(dir.path(), false, to.path());
    }
    (log, _) = open(dir.path()).unwrap();
    log.blocking_append(entries(0..5, 50)).await.unwrap();
    let before = std::fs::read(dir.path().join("synced")).unwrap();
    let at = end_of_journal(dir.path());
    log.blocking_append(entries(5..9, 50)).await.unwrap();
    for to in [&whole, &torn, &lost] {
        copied(dir.path(), true, to.path());
    }
    assert_eq!(found_in(whole.path()).await.1, entries(0..9, 50));
    let tear = |dir: &Path| {
        let mut bytes = std::fs::read(dir.join("journal")).unwrap();
        bytes[at + 40] ^= 1;
        std::fs::write(dir.join("journal"), bytes).unwrap();
    };
    tear(torn.path());
    std::fs::write(torn.path().join("synced"), before).unwrap();
    assert_eq!(found_in(torn.path()).await.1, entries(0..5, 50));
    tear(lost.path());
    assert_eq!(damage(lost.path()), "of its writes, the last 1 are missing at its end");
    std::fs::remove_file(lost.path().join("journal")).unwrap();
    assert_eq!(damage(lost.path()), "of its writes, the last 2 are missing at its end");
}

/// Where nothing but zeros follows.
fn end_of_journal(dir: &Path) -> usize {
    let bytes = std::fs::read(dir.join("journal")).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn a_full_journal_begins_anew() {
    let (dir, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut log, _) = open(dir.path()).unwrap();
    let large = 1 << 20;
    let count = 2 * LOG_JOURNAL_BYTES / large as u64;
    for index in 0..count {
        log.blocking_append([entry(index, large)]).await.unwrap();
    }
    let length = std::fs::metadata(dir.path().join("journal")).unwrap().len();
    assert!(length <= LOG_JOURNAL_BYTES);
    let (log, found) = reopened(dir.path(), log).await;
    assert!(found == entries(0..count, large));
    // What stands in it from before is nobody's.
    log.close().await.unwrap();
    copied(dir.path(), false, crashed.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.blocking_append(entries(count..count + 3, 9)).await.unwrap();
    copied(dir.path(), true, crashed.path());
    assert_eq!(found_in(crashed.path()).await.1[count as usize..], entries(count..count + 3, 9));
}

#[test]
fn a_journal_takes_one_group_of_any_size() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), 0).unwrap();
    let (mut large, mut small) = (Changes::default(), Changes::default());
    large.put(key(1, 0), vec![7; LOG_JOURNAL_BYTES as usize].into());
    small.put(key(2, 0), b"x".into());
    journal.append(1, &large).unwrap();
    assert!(!journal.has_room(&small));
    let (mut journal, found) = Journal::open(dir.path(), 0).unwrap();
    assert!(found == [large]);
    journal.begin_anew().unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("journal")).unwrap().len(), LOG_JOURNAL_BYTES);
    assert!(journal.has_room(&small));
    journal.append(2, &small).unwrap();
    assert_eq!(Journal::open(dir.path(), 1).unwrap().1, [small]);
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

#[test]
fn the_bytes_of_a_journal_are_pinned() {
    let dir = TempDir::new().unwrap();
    let (mut journal, found) = Journal::open(dir.path(), 41).unwrap();
    assert!(found.is_empty());
    let mut changes = Changes::default();
    changes.put(key(7, 0), b"frame".into());
    changes.remove(key(9, 1));
    changes.put_meta(VOTE, b"vote".to_vec());
    assert!(journal.has_room(&changes));
    journal.append(42, &changes).unwrap();
    let end = end_of_journal(dir.path());
    let bytes = std::fs::read(dir.path().join("journal")).unwrap();
    crate::consensus::tests::golden("log-journal-v1.bin", &bytes[..end]);
    assert_eq!(Journal::open(dir.path(), 41).unwrap().1, [changes]);
    // Another number begins there.
    assert!(Journal::open(dir.path(), 42).unwrap().1.is_empty());
}

proptest::proptest! {
    #[test]
    fn bytes_that_are_no_changes_are_refused_or_read_whole(
        bytes in proptest::collection::vec(0..4u8, 0..200),
    ) {
        if let Some(changes) = Changes::read(&bytes) {
            let mut again = Vec::new();
            changes.write(&mut again);
            proptest::prop_assert_eq!(again, bytes);
        }
    }

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
