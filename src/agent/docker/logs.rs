//! What containers print: out of the engine's own files where they can be read, otherwise from
//! the engine.
//!
//! The engine follows only the file that it writes now: a reader that is two rotations behind
//! misses what lies between. So its files are the first choice.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::Docker as Engine;
use bollard::container::LogOutput;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{LogsOptionsBuilder, WaitContainerOptionsBuilder};
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::engine::error;
use crate::agent::log_files::{Joiner, LogFiles, Piece};
use crate::agent::runtime::{Line, LogQuery, RuntimeError};

/// Bytes of lines that are held while the last ones are looked for.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// Sends the lines of a container's log on `sink`.
pub(super) async fn lines(
    engine: &Engine,
    handle: &str,
    query: LogQuery,
    sink: mpsc::Sender<Line>,
) -> Result<(), RuntimeError> {
    let container = engine.inspect_container(handle, None).await.map_err(not_found)?;
    match files(&container) {
        Some(files) => from_files(engine, handle, files, query, sink).await,
        None => from_engine(engine, handle, query, &sink).await,
    }
}

/// The container's log files, if they can be read from here.
fn files(container: &ContainerInspectResponse) -> Option<LogFiles> {
    let config = container.host_config.as_ref()?.log_config.as_ref()?;
    if config.typ.as_deref() != Some("json-file") {
        return None;
    }
    let options = config.config.as_ref();
    let option = |name: &str| options.and_then(|options| options.get(name)).map(String::as_str);
    if option("compress") == Some("true") {
        return None;
    }
    let count = option("max-file").and_then(|count| count.parse().ok()).unwrap_or(1_usize);
    let path = container.log_path.as_deref().filter(|path| !path.is_empty())?;
    File::open(path).ok()?;
    Some(LogFiles::new(path.into(), count.saturating_sub(1), parse))
}

/// A line of one of them.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: jiff::Timestamp,
}

fn parse(line: &[u8]) -> Option<Piece> {
    let Entry { mut log, stream, time } = serde_json::from_slice(line).ok()?;
    let complete = log.ends_with('\n');
    if complete {
        log.truncate(log.len() - 1);
    }
    let at = u64::try_from(time.as_nanosecond()).ok()?;
    Some(Piece { at, stderr: stream == "stderr", text: log.into(), complete })
}

async fn from_files(
    engine: &Engine,
    handle: &str,
    files: LogFiles,
    query: LogQuery,
    sink: mpsc::Sender<Line>,
) -> Result<(), RuntimeError> {
    let ended = Arc::new(AtomicBool::new(false));
    let (follow, seen) = (query.follow, ended.clone());
    let read = move || files.read(&query, &sink, || seen.load(Ordering::Acquire));
    // Left alone it ends when nobody takes its lines any more.
    let mut read = tokio::task::spawn_blocking(read);
    let end = async {
        // The engine says that a container has ended once all that it printed is in the file.
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut wait = std::pin::pin!(engine.wait_container(handle, Some(options)));
        // An exit code other than 0 is an error to the client; so is that it is gone.
        while let Some(Ok(_)) = wait.next().await {}
    };
    let done = tokio::select! {
        done = &mut read => done,
        () = end, if follow => {
            ended.store(true, Ordering::Release);
            read.await
        }
    };
    done.map_err(|error| RuntimeError::Failed(error.to_string()))
}

async fn from_engine(
    engine: &Engine,
    handle: &str,
    mut query: LogQuery,
    sink: &mpsc::Sender<Line>,
) -> Result<(), RuntimeError> {
    if let (Some(count), true) = (query.tail, query.grep.is_some()) {
        // The engine would count lines that are not wanted.
        query.tail = None;
        let follow = std::mem::replace(&mut query.follow, false);
        let mut last = Last { most: count as usize, bytes: 0, lines: VecDeque::new() };
        let (pass, mut lines) = mpsc::channel(64);
        let read = async {
            let read = stream(engine, handle, &query, &pass).await;
            drop(pass);
            read
        };
        let keep = async {
            while let Some(line) = lines.recv().await {
                last.push(line);
            }
        };
        let (read, ()) = futures::future::join(read, keep).await;
        read?;
        for line in last.lines {
            query.after.saw(&line);
            if sink.send(line).await.is_err() {
                return Ok(());
            }
        }
        if !follow {
            return Ok(());
        }
        query.follow = true;
    }
    stream(engine, handle, &query, sink).await
}

/// The last lines, within bounds.
struct Last {
    most: usize,
    bytes: usize,
    lines: VecDeque<Line>,
}

impl Last {
    fn push(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.most || self.bytes > TAIL_BYTES_MAX {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.text.len();
        }
    }
}

async fn stream(
    engine: &Engine,
    handle: &str,
    query: &LogQuery,
    sink: &mpsc::Sender<Line>,
) -> Result<(), RuntimeError> {
    // The engine counts in whole seconds: what is from the same second but older is left out here.
    let first = query.after.stdout.min(query.after.stderr);
    let seconds = i32::try_from(first / 1_000_000_000).unwrap_or(i32::MAX);
    let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(query.follow)
        .since(seconds)
        .tail(&tail)
        .build();
    let mut stream = std::pin::pin!(engine.logs(handle, Some(options)));
    let mut joiner = Joiner::default();
    loop {
        let output = tokio::select! {
            output = stream.next() => output,
            () = sink.closed() => return Ok(()),
        };
        let (stderr, message) = match output {
            None => break,
            Some(Ok(LogOutput::StdErr { message })) => (true, message),
            Some(Ok(
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            )) => (false, message),
            Some(Err(e)) => return Err(not_found(e)),
        };
        for line in joiner.take(piece(message, stderr)) {
            if query.wants(&line) && sink.send(line).await.is_err() {
                return Ok(());
            }
        }
    }
    for line in joiner.rest().filter(|line| query.wants(line)) {
        let _ = sink.send(line).await;
    }
    Ok(())
}

fn not_found(e: bollard::errors::Error) -> RuntimeError {
    match error(e) {
        RuntimeError::ImageMissing(text) => RuntimeError::NotFound(text),
        other => other,
    }
}

/// `2026-11-20T08:51:00.123456789Z text`, with its line end unless the engine cut the line.
fn piece(message: Bytes, stderr: bool) -> Piece {
    let (at, mut text) = timestamp(message);
    let complete = text.last() == Some(&b'\n');
    if complete {
        text.truncate(text.len() - 1);
    }
    Piece { at, stderr, text, complete }
}

fn timestamp(mut piece: Bytes) -> (u64, Bytes) {
    let parsed = piece.iter().take(40).position(|b| *b == b' ').and_then(|end| {
        let at: jiff::Timestamp = std::str::from_utf8(&piece[..end]).ok()?.parse().ok()?;
        Some((end, u64::try_from(at.as_nanosecond()).ok()?))
    });
    match parsed {
        Some((end, at)) => {
            piece.advance(end + 1);
            (at, piece)
        }
        None => (0, piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOG_LINE_BYTES_MAX;

    #[test]
    fn pieces_of_a_long_line_are_joined() {
        let mut joiner = Joiner::default();
        let mut take = |text: &str| joiner.take(piece(Bytes::from(text.to_owned()), false));
        assert!(take("1970-01-01T00:00:01.000000005Z one ").is_empty());
        let lines = take("1970-01-01T00:00:02Z two\n");
        assert_eq!((lines[0].at, &lines[0].text[..]), (1_000_000_005, &b"one two"[..]));
        let long = format!("1970-01-01T00:00:03Z {}\n", "x".repeat(LOG_LINE_BYTES_MAX + 1));
        let lengths: Vec<_> = take(&long).iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LOG_LINE_BYTES_MAX, 1]);
        assert_eq!(joiner.rest().count(), 0);
    }

    #[test]
    fn an_entry_of_the_engine_s_file_is_a_piece() {
        let line =
            br#"{"log":"caf\u00e9\n","stream":"stderr","time":"1970-01-01T00:00:01.000000005Z"}"#;
        let text = Bytes::from("caf\u{e9}");
        assert_eq!(
            parse(line),
            Some(Piece { at: 1_000_000_005, stderr: true, text, complete: true })
        );
        let cut = br#"{"log":"half","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#;
        assert!(parse(cut).is_some_and(|piece| !piece.complete && !piece.stderr));
        assert_eq!(parse(b"{\"log\":\"x\"}"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_last_lines_are_kept_within_bounds() {
        let line = |at, length| Line { at, stderr: false, text: vec![b'x'; length].into() };
        let mut last = Last { most: 2, bytes: 0, lines: VecDeque::new() };
        for at in 1..=3 {
            last.push(line(at, 5));
        }
        assert_eq!((last.lines.len(), last.lines[0].at, last.bytes), (2, 2, 10));
        last.push(line(4, TAIL_BYTES_MAX));
        assert_eq!((last.lines.len(), last.bytes), (1, TAIL_BYTES_MAX));
    }
}
