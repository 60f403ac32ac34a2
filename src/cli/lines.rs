//! Lines and server-sent events out of an answer's bytes.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use reqwest::Response;

use super::client::byte_stream;
use super::failure::Failure;

/// Bytes of a line; longer ones end the stream.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Reads an answer line by line.
pub(super) struct Lines {
    stream: Box<dyn Stream<Item = Result<Bytes, Failure>> + Send + Unpin>,
    pending: BytesMut,
    ended: bool,
}

impl Lines {
    pub(super) fn of(response: Response) -> Self {
        Self::from_stream(byte_stream(response))
    }

    fn from_stream(
        stream: impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin + 'static,
    ) -> Self {
        Self { stream: Box::new(stream), pending: BytesMut::new(), ended: false }
    }

    /// The next line without its end; none at the end. Dropping the wait loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end);
                self.pending.advance(1);
                return Ok(Some(text(&line)));
            }
            if self.ended {
                let rest = self.pending.split();
                return Ok((!rest.is_empty()).then(|| text(&rest)));
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(Failure::failed("the server sent a line that is too long"));
            }
            match self.stream.next().await {
                Some(chunk) => self.pending.extend_from_slice(&chunk?),
                None => self.ended = true,
            }
        }
    }

    /// The data of the next server-sent event; comments, names and ids are left out.
    pub(super) async fn next_event(&mut self) -> Result<Option<String>, Failure> {
        let mut data: Option<String> = None;
        while let Some(line) = self.next().await? {
            if line.is_empty() {
                if data.is_some() {
                    return Ok(data);
                }
            } else if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                }
            }
        }
        // An event that is cut off is none.
        Ok(None)
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&'static str]) -> Lines {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Lines::from_stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let mut lines = lines(&["a", "b\r\nc\n\n", "d"]);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push(line);
        }
        assert_eq!(seen, ["ab", "c", "", "d"]);
    }

    #[tokio::test]
    async fn events_are_their_data() {
        let mut lines = lines(&[
            ": hello\n\nid: 1\nevent: x\nda",
            "ta: {\"a\":1}\n\ndata:b\ndata: c\n\ndata: cut",
        ]);
        let mut seen = Vec::new();
        while let Some(event) = lines.next_event().await.unwrap() {
            seen.push(event);
        }
        assert_eq!(seen, ["{\"a\":1}", "b\nc"]);
    }
}
