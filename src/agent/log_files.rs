//! Reads a log that its writer rotates into numbered files: FILE, FILE.1, FILE.2 …, the oldest
//! with the highest number. Follows it without gaps or repeats as long as a file is still there
//! when its turn comes, however far behind the reader is.
//!
//! The writer never waits for a reader: all they share are files. For threads that may block.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::runtime::{Line, LogQuery};
use crate::limits::{LOG_FILE_LINE_BYTES_MAX, LOG_FILES_MAX, LOG_LINE_BYTES_MAX};

/// Between two looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a list of files is taken anew if the writer changes them meanwhile.
const SNAPSHOTS: usize = 5;

/// What a line of a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    /// Whether it came on standard error.
    pub(super) stderr: bool,
    /// Without its line end.
    pub(super) text: Bytes,
    /// Whether the line ends with it.
    pub(super) complete: bool,
}

/// Puts pieces of lines together, each stream for itself.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    streams: [Joined; 2],
}

#[derive(Debug, Default)]
struct Joined {
    at: u64,
    begun: bool,
    bytes: BytesMut,
}

impl Joiner {
    /// The lines that are complete with this piece. A line has the time of its first piece.
    pub(super) fn take(&mut self, piece: Piece) -> Vec<Line> {
        let Piece { at, stderr, text, complete } = piece;
        let joined = &mut self.streams[usize::from(stderr)];
        if !joined.begun && complete && text.len() <= LOG_LINE_BYTES_MAX {
            return vec![Line { at, stderr, text }];
        }
        if !joined.begun {
            joined.at = at;
            joined.begun = true;
        }
        joined.bytes.extend_from_slice(&text);
        let mut lines = Vec::new();
        while joined.bytes.len() > LOG_LINE_BYTES_MAX {
            let text = joined.bytes.split_to(LOG_LINE_BYTES_MAX).freeze();
            lines.push(Line { at: joined.at, stderr, text });
        }
        if complete {
            lines.push(Line { at: joined.at, stderr, text: joined.bytes.split().freeze() });
            joined.begun = false;
        }
        lines
    }

    /// What came without a line end.
    pub(super) fn rest(self) -> impl Iterator<Item = Line> {
        let [out, err] = self.streams;
        [(out, false), (err, true)]
            .into_iter()
            .filter(|(joined, _)| joined.begun)
            .map(|(joined, stderr)| Line { at: joined.at, stderr, text: joined.bytes.freeze() })
    }
}

/// A log in files.
#[derive(Debug, Clone)]
pub(super) struct LogFiles {
    /// The one that is written now.
    path: PathBuf,
    /// How many older ones are kept.
    olds: usize,
    /// Reads a line of a file; none if it makes no sense.
    parse: fn(&[u8]) -> Option<Piece>,
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    file: BufReader<File>,
    inode: u64,
    at: u64,
}

impl Reading {
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let inode = file.metadata().ok()?.ino();
        Some(Self { file: BufReader::with_capacity(32 << 10, file), inode, at: 0 })
    }

    fn seek(&mut self, to: u64) {
        if self.file.seek(SeekFrom::Start(to)).is_ok() {
            self.at = to;
        }
    }

    /// The next whole line with its end.
    fn next(&mut self, line: &mut Vec<u8>) -> bool {
        line.clear();
        let most = LOG_FILE_LINE_BYTES_MAX as u64;
        let read = (&mut self.file).take(most).read_until(b'\n', line).unwrap_or_default();
        if read == 0 {
            // Somebody may have emptied the file in its place.
            if self.file.get_ref().metadata().is_ok_and(|data| data.len() < self.at) {
                self.seek(0);
            }
            return false;
        }
        if line.last() != Some(&b'\n') && (read as u64) < most {
            // Half written: once more later.
            self.seek(self.at);
            return false;
        }
        self.at += read as u64;
        true
    }
}

impl LogFiles {
    pub(super) fn new(path: PathBuf, olds: usize, parse: fn(&[u8]) -> Option<Piece>) -> Self {
        Self { path, olds: olds.min(LOG_FILES_MAX), parse }
    }

    fn path(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// All files, the oldest first. Taken again if they were rotated meanwhile: one could be
    /// missing, or there twice.
    fn snapshot(&self) -> VecDeque<Reading> {
        let inodes = || -> Vec<Option<u64>> {
            let inode = |n| fs::metadata(self.path(n)).ok().map(|data| data.ino());
            (0..=self.olds).rev().map(inode).collect()
        };
        let mut files = VecDeque::new();
        for _ in 0..SNAPSHOTS {
            let before = inodes();
            files = (0..=self.olds).rev().filter_map(|n| Reading::open(&self.path(n))).collect();
            let opened: Vec<u64> = files.iter().map(|file: &Reading| file.inode).collect();
            let same = before.iter().flatten().copied().collect::<Vec<_>>() == opened;
            if same && before == inodes() {
                break;
            }
        }
        let mut known = BTreeSet::new();
        files.retain(|file| known.insert(file.inode));
        files
    }

    /// Whether the current file is another than this one.
    fn has_moved_on(&self, from: &Reading) -> bool {
        // While the writer changes files there may be none for a moment.
        fs::metadata(&self.path).is_ok_and(|data| data.ino() != from.inode)
    }

    /// Sends the lines asked for; `ended` says that no more will come.
    pub(super) fn read(
        &self,
        query: &LogQuery,
        sink: &mpsc::Sender<Line>,
        ended: impl Fn() -> bool,
    ) {
        let mut files = match query.tail {
            None => self.snapshot(),
            Some(lines) => self.tail(query, lines as usize),
        };
        let mut joiner = Joiner::default();
        let mut last_look = false;
        let mut text = Vec::new();
        loop {
            while let Some(reading) = files.front_mut() {
                while reading.next(&mut text) {
                    let Some(piece) = (self.parse)(&text) else { continue };
                    for line in joiner.take(piece) {
                        if query.wants(&line) && sink.blocking_send(line).is_err() {
                            return;
                        }
                    }
                }
                if files.len() == 1 {
                    break;
                }
                files.pop_front();
            }
            if !query.follow || last_look {
                break;
            }
            if sink.is_closed() {
                return;
            }
            // What was written before the end was seen is read once more.
            last_look = ended();
            if !last_look {
                std::thread::sleep(LOOK_AGAIN);
            }
            match files.back() {
                None => files = self.snapshot(),
                Some(last) if self.has_moved_on(last) => {
                    // What was written to it before it moved is read first; it is held open, so
                    // that no other file has its number.
                    let inode = last.inode;
                    let mut newer = self.snapshot();
                    if let Some(at) = newer.iter().position(|file| file.inode == inode) {
                        newer.drain(..=at);
                    }
                    files.extend(newer);
                }
                Some(_) => {}
            }
        }
        for line in joiner.rest().filter(|line| query.wants(line)) {
            let _ = sink.blocking_send(line);
        }
    }

    /// The files from the place where the last `lines` of the wanted lines begin.
    fn tail(&self, query: &LogQuery, lines: usize) -> VecDeque<Reading> {
        let mut files = self.snapshot();
        // The file and the place of the first piece of each.
        let mut starts: VecDeque<(usize, u64)> = VecDeque::new();
        let mut joiner = Joiner::default();
        let mut begins: [Option<(usize, u64)>; 2] = [None, None];
        let mut text = Vec::new();
        for (number, file) in files.iter_mut().enumerate() {
            loop {
                let at = file.at;
                if !file.next(&mut text) {
                    break;
                }
                let Some(piece) = (self.parse)(&text) else { continue };
                let (stream, complete) = (usize::from(piece.stderr), piece.complete);
                let begin = *begins[stream].get_or_insert((number, at));
                let wanted = joiner.take(piece).iter().filter(|line| query.wants(line)).count();
                for _ in 0..wanted.min(lines) {
                    starts.push_back(begin);
                    if starts.len() > lines {
                        starts.pop_front();
                    }
                }
                if complete {
                    begins[stream] = None;
                }
            }
        }
        // Behind the last line, if none is wanted.
        let first = starts.iter().min().copied();
        if let Some((number, at)) = first {
            files.drain(..number);
            for (i, file) in files.iter_mut().enumerate() {
                file.seek(if i == 0 { at } else { 0 });
            }
        } else if let Some(last) = files.pop_back() {
            files = VecDeque::from([last]);
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::runtime::After;
    use super::*;

    fn parse(line: &[u8]) -> Option<Piece> {
        let text = std::str::from_utf8(line).ok()?;
        let (at, rest) = text.strip_suffix('\n')?.split_once(' ')?;
        let (stream, text) = rest.split_once(' ')?;
        Some(Piece {
            at: at.parse().ok()?,
            stderr: stream.starts_with('2'),
            text: Bytes::from(text.to_owned()),
            complete: !stream.ends_with('+'),
        })
    }

    struct Log {
        dir: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn files(&self) -> LogFiles {
            LogFiles::new(self.path(), 2, parse)
        }

        fn write(&self, text: &str) {
            let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            let path = |n: usize| self.files().path(n);
            for n in [1, 0] {
                if path(n).exists() {
                    fs::rename(path(n), path(n + 1)).unwrap();
                }
            }
            self.write("");
        }

        fn texts(&self, query: &LogQuery) -> Vec<String> {
            let (sink, mut lines) = mpsc::channel(10_000);
            self.files().read(query, &sink, || true);
            drop(sink);
            std::iter::from_fn(|| lines.blocking_recv())
                .map(|line| String::from_utf8_lossy(&line.text).into_owned())
                .collect()
        }
    }

    fn query() -> LogQuery {
        LogQuery::default()
    }

    #[test]
    fn lines_come_in_order_across_rotations() {
        let log = Log::new();
        for number in 0..10 {
            log.write(&format!("{} {} line {number}\n", number + 1, 1 + number % 2));
            if number == 3 || number == 6 {
                log.rotate();
            }
        }
        let all = log.texts(&query());
        assert_eq!(all.len(), 10);
        assert_eq!((all[0].as_str(), all[9].as_str()), ("line 0", "line 9"));
        assert_eq!(log.texts(&LogQuery { tail: Some(5), ..query() }), all[5..]);
        assert_eq!(log.texts(&LogQuery { after: After::both(8), ..query() }), all[8..]);
        assert!(log.texts(&LogQuery { tail: Some(0), ..query() }).is_empty());
        // Each stream has a place of its own.
        let after = After { stdout: 5, stderr: 10 };
        assert_eq!(log.texts(&LogQuery { after, ..query() }), ["line 6", "line 8"]);
    }

    #[test]
    fn a_pattern_is_looked_for_before_lines_are_counted() {
        let log = Log::new();
        for number in 0..100 {
            log.write(&format!(
                "{number} 1 {} {number}\n",
                if number % 10 == 0 { "ten" } else { "x" }
            ));
            if number == 50 {
                log.rotate();
            }
        }
        let grep = Some("^ten".parse().unwrap());
        let found = log.texts(&LogQuery { tail: Some(3), grep: grep.clone(), ..query() });
        assert_eq!(found, ["ten 70", "ten 80", "ten 90"]);
        assert_eq!(log.texts(&LogQuery { grep, ..query() }).len(), 10 - 1);
    }

    #[test]
    fn pieces_of_a_line_are_joined_and_looked_for_as_one() {
        let log = Log::new();
        log.write("1 1+ one \n2 2 between\n3 1+ two \n");
        log.rotate();
        log.write("4 1 three\n5 1+ cut");
        assert_eq!(log.texts(&query()), ["between", "one two three"]);
        let grep = Some("one.*three".parse().unwrap());
        let found = log.texts(&LogQuery { grep, tail: Some(1), ..query() });
        assert_eq!(found, ["one two three"]);
        let long = "x".repeat(LOG_LINE_BYTES_MAX - 1);
        log.write(&format!("\n6 2+ {long}\n7 2 yyy\n"));
        let lengths: Vec<usize> = log.texts(&query()).iter().map(String::len).collect();
        assert_eq!(lengths[2..], [LOG_LINE_BYTES_MAX, 2, 3]);
    }

    #[test]
    fn a_reader_that_is_behind_misses_no_file_that_is_still_there() {
        let log = Log::new();
        let (sink, mut lines) = mpsc::channel(1);
        let ended = AtomicBool::new(false);
        let files = log.files();
        let query = LogQuery { follow: true, ..query() };
        let next = Cell::new(1);
        let write = |count: u64| {
            let numbers = next.get()..next.get() + count;
            log.write(&numbers.map(|n| format!("{n} 1 {n}\n")).collect::<String>());
            next.set(next.get() + count);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                files.read(&query, &sink, || ended.load(Ordering::Relaxed));
                drop(sink);
            });
            let mut seen = Vec::new();
            write(500);
            for _ in 0..20 {
                // The reader stands still while two files are filled and put aside.
                seen.push(lines.blocking_recv().unwrap().at);
                log.rotate();
                write(50);
                log.rotate();
                write(50);
                // It has the last file in hand before that is moved out of reach.
                while *seen.last().unwrap() < next.get() - 40 {
                    seen.push(lines.blocking_recv().unwrap().at);
                }
            }
            ended.store(true, Ordering::Relaxed);
            seen.extend(std::iter::from_fn(|| lines.blocking_recv()).map(|line| line.at));
            assert_eq!(seen, (1..next.get()).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_file_that_was_emptied_is_read_from_its_beginning() {
        let log = Log::new();
        log.write("1 1 before\n");
        let (sink, mut lines) = mpsc::channel(10);
        let ended = AtomicBool::new(false);
        let files = log.files();
        let query = LogQuery { follow: true, ..query() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                files.read(&query, &sink, || ended.load(Ordering::Relaxed));
                drop(sink);
            });
            assert_eq!(lines.blocking_recv().unwrap().text, "before");
            fs::write(log.path(), "2 1 x\n").unwrap();
            assert_eq!(lines.blocking_recv().unwrap().text, "x");
            ended.store(true, Ordering::Relaxed);
        });
    }
}
