//! A task's output in rotated files: `NANOSECONDS 1|2 TEXT` lines, oldest in the file with the
//! highest number.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::agent::runtime::{Line, LogQuery};
use crate::limits::LOG_LINE_BYTES_MAX;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files beside the current one.
const OLD_FILES: usize = 2;
/// Between two looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn file(dir: &Path, number: usize) -> PathBuf {
    match number {
        0 => dir.join("log"),
        n => dir.join(format!("log.{n}")),
    }
}

/// Writes lines; the shim's side.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    file: File,
    bytes: u64,
}

impl Writer {
    /// Goes on where the files end.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let file = File::options().create(true).append(true).open(file(dir, 0))?;
        let bytes = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), file, bytes })
    }

    /// Writes one line. What can't be written is lost: the task must not stand still for it.
    pub(super) fn line(&mut self, at: u64, stderr: bool, text: &[u8]) {
        let mut line = format!("{at} {} ", if stderr { 2 } else { 1 }).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        if self.bytes + line.len() as u64 > FILE_BYTES_MAX && self.bytes > 0 {
            let _ = self.rotate();
        }
        if self.file.write_all(&line).is_ok() {
            self.bytes += line.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..OLD_FILES).rev() {
            let from = file(&self.dir, number);
            if from.exists() {
                fs::rename(from, file(&self.dir, number + 1))?;
            }
        }
        self.file = File::options().create(true).append(true).open(file(&self.dir, 0))?;
        self.bytes = 0;
        Ok(())
    }
}

/// Copies a stream into the log line by line until it ends.
pub(super) fn copy(from: impl io::Read, stderr: bool, mut write: impl FnMut(bool, &[u8])) {
    let mut from = BufReader::with_capacity(8 << 10, from);
    let mut line = Vec::new();
    loop {
        let (used, ended) = match from.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                let room = LOG_LINE_BYTES_MAX - line.len();
                let piece = &bytes[..bytes.len().min(room)];
                match piece.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        line.extend_from_slice(&piece[..end]);
                        (end + 1, true)
                    }
                    None => {
                        line.extend_from_slice(piece);
                        (piece.len(), line.len() >= LOG_LINE_BYTES_MAX)
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        from.consume(used);
        if ended {
            write(stderr, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        write(stderr, &line);
    }
}

fn parse(mut line: Vec<u8>) -> Option<Line> {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    let space = line.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let stderr = *line.get(space + 1)? == b'2';
    let text = Bytes::from(line);
    (space + 3 <= text.len()).then(|| Line { at, stderr, text: text.slice(space + 3..) })
}

/// One file that is being read.
#[derive(Debug)]
struct Reading {
    file: BufReader<File>,
    inode: u64,
}

impl Reading {
    fn open(path: &Path, from: u64) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let inode = file.metadata().ok()?.ino();
        file.seek(SeekFrom::Start(from)).ok()?;
        Some(Self { file: BufReader::with_capacity(32 << 10, file), inode })
    }

    /// The next whole line, with its length in the file.
    fn next(&mut self) -> Option<(Vec<u8>, u64)> {
        let mut line = Vec::new();
        let read = self.file.read_until(b'\n', &mut line).ok()?;
        if line.last() != Some(&b'\n') {
            // Half written: once more later.
            let back = i64::try_from(read).ok()?;
            self.file.seek_relative(-back).ok()?;
            return None;
        }
        Some((line, read as u64))
    }
}

/// Sends the lines asked for; `ended` says that no more will come. For a thread that may block.
pub(super) fn read(
    dir: &Path,
    query: LogQuery,
    sink: &mpsc::Sender<Line>,
    ended: impl Fn() -> bool,
) {
    let mut files: VecDeque<Reading> = match query.tail {
        None => (0..=OLD_FILES).rev().filter_map(|n| Reading::open(&file(dir, n), 0)).collect(),
        Some(lines) => tail(dir, lines as usize),
    };
    let mut last_look = false;
    loop {
        while let Some(reading) = files.front_mut() {
            while let Some((line, _)) = reading.next() {
                let Some(line) = parse(line).filter(|line| line.at > query.after) else { continue };
                if sink.blocking_send(line).is_err() {
                    return;
                }
            }
            if files.len() == 1 {
                break;
            }
            files.pop_front();
        }
        if !query.follow || last_look || sink.is_closed() {
            return;
        }
        // What was written before the end was seen is read once more.
        last_look = ended();
        if !last_look {
            std::thread::sleep(LOOK_AGAIN);
        }
        let current = fs::metadata(file(dir, 0)).map(|data| data.ino()).ok();
        if current.is_some() && files.back().map(|reading| reading.inode) != current {
            files.extend(Reading::open(&file(dir, 0), 0));
        }
    }
}

/// The files from the place where the last `lines` lines begin.
fn tail(dir: &Path, lines: usize) -> VecDeque<Reading> {
    let mut starts: VecDeque<(usize, u64)> = VecDeque::new();
    let mut ends = [0; OLD_FILES + 1];
    for number in (0..=OLD_FILES).rev() {
        let Some(mut reading) = Reading::open(&file(dir, number), 0) else { continue };
        let mut at = 0;
        while let Some((_, length)) = reading.next() {
            starts.push_back((number, at));
            at += length;
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        ends[number] = at;
    }
    let (first, from) = starts.front().copied().unwrap_or((0, ends[0]));
    (0..=first)
        .rev()
        .filter_map(|n| Reading::open(&file(dir, n), if n == first { from } else { 0 }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(dir: &Path, query: LogQuery) -> Vec<String> {
        let (sink, mut lines) = mpsc::channel(10_000);
        read(dir, query, &sink, || true);
        drop(sink);
        std::iter::from_fn(|| lines.blocking_recv())
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect()
    }

    #[test]
    fn lines_come_back_in_order_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path()).unwrap();
        for number in 0..10 {
            writer.line(number + 1, number % 2 == 1, format!("line {number}").as_bytes());
            if number == 3 || number == 6 {
                writer.rotate().unwrap();
            }
        }
        let all = texts(dir.path(), LogQuery::default());
        assert_eq!(all.len(), 10);
        assert_eq!((all[0].as_str(), all[9].as_str()), ("line 0", "line 9"));
        let tail = LogQuery { tail: Some(5), ..LogQuery::default() };
        assert_eq!(texts(dir.path(), tail), all[5..]);
        let after = LogQuery { after: 8, ..LogQuery::default() };
        assert_eq!(texts(dir.path(), after), all[8..]);
        let none = LogQuery { tail: Some(0), ..LogQuery::default() };
        assert!(texts(dir.path(), none).is_empty());
    }

    #[test]
    fn long_lines_are_split_and_the_last_one_needs_no_end() {
        let mut input = vec![b'x'; LOG_LINE_BYTES_MAX + 10];
        input.extend_from_slice(b"\nlast");
        let mut lines = Vec::new();
        copy(&input[..], false, |_, line| lines.push(line.len()));
        assert_eq!(lines, [LOG_LINE_BYTES_MAX, 10, 4]);
    }
}
