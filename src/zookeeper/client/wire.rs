//! One connection, frame by frame: four bytes of length, then the body. Nothing is read or sent
//! behind the caller's back.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::error::WireError;
use crate::jute::Field;
use crate::jute::reply::{ConnectReply, ReplyHeader};
use crate::jute::request::{ConnectRequest, RequestHeader};
use crate::limits::ZK_REPLY_BYTES_MAX;

const LENGTH_BYTES: usize = 4;
const READ_BYTES: usize = 64 << 10;

/// Takes frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    most: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of at most `most` bytes.
    pub fn new(stream: R, most: usize) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(READ_BYTES), most }
    }

    /// The body of the next frame. Nothing is lost if this is dropped while it waits.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end, or [`WireError::Length`], or what the stream says.
    pub async fn next(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// The body of the next frame, if all of it is here.
    ///
    /// # Errors
    /// [`WireError::Length`].
    pub fn try_next(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*head);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= self.most);
        let Some(bytes) = bytes else { return Err(WireError::Length { length, most: self.most }) };
        if self.buffer.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }
}

/// Puts frames on a stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Nothing is on it yet.
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Adds a frame to those that [`Self::flush`] sends.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(&[0; LENGTH_BYTES]);
        write(&mut self.buffer);
        let length = self.buffer.len() - begin - LENGTH_BYTES;
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        self.buffer[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    /// Adds a request with its header.
    pub fn add_request<'a>(&mut self, xid: i32, op: i32, record: &impl Field<'a>) {
        self.add(|out| {
            RequestHeader { xid, op }.write(out);
            record.write(out);
        });
    }

    /// Adds bytes as they are, without a length before them.
    pub fn add_raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Sends what was added.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        // One long request is no reason to keep as much memory from then on.
        self.buffer.shrink_to(READ_BYTES);
        self.stream.flush().await?;
        Ok(())
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn end(&mut self) -> Result<(), WireError> {
        Ok(self.stream.shutdown().await?)
    }
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Wire {
    /// What the server says.
    pub from: FrameReader<OwnedReadHalf>,
    /// What it is told.
    pub to: FrameWriter<OwnedWriteHalf>,
}

impl Wire {
    /// Connects to `addr` (`host:port`) within `wait`; says nothing yet.
    ///
    /// # Errors
    /// If it can't be reached.
    pub async fn connect(addr: &str, wait: Duration) -> Result<Self, WireError> {
        let stream = match tokio::time::timeout(wait, TcpStream::connect(addr)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(WireError::Silence(wait.as_millis())),
        };
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        Ok(Self { from: FrameReader::new(from, ZK_REPLY_BYTES_MAX), to: FrameWriter::new(to) })
    }

    /// Says who is there, and waits for the answer.
    ///
    /// # Errors
    /// See [`WireError`]; a session that has expired is none, but a reply that says so.
    pub async fn handshake(
        &mut self,
        request: &ConnectRequest,
        wait: Duration,
    ) -> Result<ConnectReply, WireError> {
        self.to.add(|out| request.write(out));
        let talk = async {
            self.to.flush().await?;
            let frame = self.from.next().await?;
            Ok(ConnectReply::from_bytes(&frame)?)
        };
        match tokio::time::timeout(wait, talk).await {
            Ok(reply) => reply,
            Err(_) => Err(WireError::Silence(wait.as_millis())),
        }
    }

    /// Sends one request and waits for the next frame: its header, and the bytes behind it.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn ask<'a>(
        &mut self,
        xid: i32,
        op: i32,
        record: &impl Field<'a>,
    ) -> Result<(ReplyHeader, Bytes), WireError> {
        self.to.add_request(xid, op, record);
        self.to.flush().await?;
        split(self.from.next().await?)
    }
}

/// A frame's header, and the bytes behind it.
///
/// # Errors
/// If the frame is shorter than a header.
pub(super) fn split(mut frame: Bytes) -> Result<(ReplyHeader, Bytes), WireError> {
    let mut reader = crate::jute::Reader::new(&frame);
    let header: ReplyHeader = reader.field()?;
    let length = frame.len() - reader.rest().len();
    frame.advance(length);
    Ok((header, frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let (near, far) = tokio::io::duplex(7);
        let mut to = FrameWriter::new(near);
        let mut from = FrameReader::new(far, 100);
        let send = async {
            to.add(|out| out.extend_from_slice(b"first"));
            to.add(|_| ());
            to.add(|out| out.extend_from_slice(&[9; 100]));
            to.flush().await.unwrap();
            to.end().await.unwrap();
        };
        let receive = async {
            assert_eq!(&from.next().await.unwrap()[..], b"first");
            assert_eq!(&from.next().await.unwrap()[..], b"");
            assert_eq!(&from.next().await.unwrap()[..], [9; 100]);
            assert!(matches!(from.next().await, Err(WireError::Closed)));
        };
        tokio::join!(send, receive);
    }

    #[tokio::test]
    async fn a_length_that_is_too_much_is_refused_before_the_bytes_come() {
        for length in [101, -1, i32::MAX, i32::MIN] {
            let (near, far) = tokio::io::duplex(64);
            let mut to = FrameWriter::new(near);
            to.add_raw(&i32::to_be_bytes(length));
            to.flush().await.unwrap();
            let mut from = FrameReader::new(far, 100);
            let error = from.next().await.unwrap_err();
            assert!(matches!(error, WireError::Length { length: l, most: 100 } if l == length));
        }
    }
}
