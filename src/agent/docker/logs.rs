//! What containers print.

use bollard::Docker as Engine;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::engine::error;
use crate::agent::runtime::{Line, LogQuery, RuntimeError};
use crate::limits::LOG_LINE_BYTES_MAX;

/// Sends the lines of a container's log on `sink`.
pub(super) async fn lines(
    engine: &Engine,
    handle: &str,
    query: LogQuery,
    sink: mpsc::Sender<Line>,
) -> Result<(), RuntimeError> {
    // The engine counts in whole seconds: what is from the same second but older is left out here.
    let seconds = i32::try_from(query.after / 1_000_000_000).unwrap_or(i32::MAX);
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
    let (mut out, mut err) = (Joined::default(), Joined::default());
    loop {
        let output = tokio::select! {
            output = stream.next() => output,
            () = sink.closed() => return Ok(()),
        };
        let (joined, stderr, message) = match output {
            None => break,
            Some(Ok(LogOutput::StdErr { message })) => (&mut err, true, message),
            Some(Ok(
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            )) => (&mut out, false, message),
            Some(Err(e)) => {
                return Err(match error(e) {
                    RuntimeError::ImageMissing(text) => RuntimeError::NotFound(text),
                    other => other,
                });
            }
        };
        for (at, text) in joined.take(message) {
            if at > query.after && sink.send(Line { at, stderr, text }).await.is_err() {
                return Ok(());
            }
        }
    }
    for (joined, stderr) in [(out, false), (err, true)] {
        if let Some((at, text)) = joined.rest()
            && at > query.after
        {
            let _ = sink.send(Line { at, stderr, text }).await;
        }
    }
    Ok(())
}

/// Puts the pieces together into which the engine cuts a long line.
#[derive(Debug, Default)]
struct Joined {
    at: u64,
    bytes: BytesMut,
}

impl Joined {
    /// The lines that are complete with this piece: `2026-11-20T08:51:00.123456789Z text`.
    fn take(&mut self, piece: Bytes) -> Vec<(u64, Bytes)> {
        let (at, mut text) = timestamp(piece);
        if self.bytes.is_empty() {
            self.at = at;
        }
        let mut lines = Vec::new();
        let complete = text.last() == Some(&b'\n');
        if complete {
            text.truncate(text.len() - 1);
        }
        self.bytes.extend_from_slice(&text);
        while self.bytes.len() > LOG_LINE_BYTES_MAX {
            lines.push((self.at, self.bytes.split_to(LOG_LINE_BYTES_MAX).freeze()));
        }
        if complete {
            lines.push((self.at, self.bytes.split().freeze()));
        }
        lines
    }

    /// What came without a line end.
    fn rest(self) -> Option<(u64, Bytes)> {
        (!self.bytes.is_empty()).then(|| (self.at, self.bytes.freeze()))
    }
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

    #[test]
    fn pieces_of_a_long_line_are_joined() {
        let mut joined = Joined::default();
        let piece = |text: &str| Bytes::from(text.to_owned());
        assert!(joined.take(piece("1970-01-01T00:00:01.000000005Z one ")).is_empty());
        let lines = joined.take(piece("1970-01-01T00:00:02Z two\n"));
        assert_eq!(lines, [(1_000_000_005, Bytes::from_static(b"one two"))]);
        let long = format!("1970-01-01T00:00:03Z {}\n", "x".repeat(LOG_LINE_BYTES_MAX + 1));
        let lengths: Vec<_> = joined.take(piece(&long)).iter().map(|(_, l)| l.len()).collect();
        assert_eq!(lengths, [LOG_LINE_BYTES_MAX, 1]);
        assert!(joined.rest().is_none());
    }
}
