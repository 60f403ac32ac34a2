//! A task's output in rotated files: `NANOSECONDS 1|2 TEXT` lines, oldest in the file with the
//! highest number.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::agent::log_files::{LogFiles, Piece};
use crate::limits::LOG_LINE_BYTES_MAX;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files beside the current one.
const OLD_FILES: usize = 2;

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

/// The log of a task as its readers see it.
pub(super) fn files(dir: &Path) -> LogFiles {
    LogFiles::new(file(dir, 0), OLD_FILES, parse)
}

fn parse(line: &[u8]) -> Option<Piece> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let space = line.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(line.get(..space)?).ok()?.parse().ok()?;
    let stderr = *line.get(space + 1)? == b'2';
    let text = Bytes::copy_from_slice(line.get(space + 3..)?);
    Some(Piece { at, stderr, text, complete: true })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::agent::runtime::{After, LogQuery};

    fn texts(dir: &Path, query: LogQuery) -> Vec<String> {
        let (sink, mut lines) = mpsc::channel(10_000);
        files(dir).read(&query, &sink, || true);
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
        let after = LogQuery { after: After::both(8), ..LogQuery::default() };
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
