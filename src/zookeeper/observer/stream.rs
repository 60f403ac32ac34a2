//! Messages and rows out of a stream of bytes. Nothing in it tells a message's length before its
//! fields do; memory grows with what has come, never by what a length claims.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::{During, ObserverError};
use crate::jute::Field;
use crate::jute::quorum::{QuorumPacket, packet_bytes};
use crate::limits::ZK_READ_BYTES;

/// Bytes that were read and not used, and where they come from.
pub(super) struct Stream<R> {
    input: R,
    pub(super) address: String,
    pub(super) during: During,
    pub(super) wait: Duration,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    pub(super) fn new(input: R, address: &str, wait: Duration) -> Self {
        let (address, during) = (address.to_owned(), During::Joining);
        Self { input, address, during, wait, bytes: Vec::new(), start: 0, end: 0 }
    }

    /// What is there and not used.
    pub(super) fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Uses `count` bytes, which are there.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.start = self.end.min(from + count);
        &self.bytes[from..self.start]
    }

    /// Reads until `need` unused bytes are there.
    pub(super) async fn fill(&mut self, need: usize) -> Result<(), ObserverError> {
        while self.unused().len() < need {
            self.make_room(need);
            let read = self.input.read(&mut self.bytes[self.end..]);
            let (address, during) = (&self.address, self.during);
            match tokio::time::timeout(self.wait, read).await {
                Ok(Ok(0)) => {
                    return Err(ObserverError::Closed { address: address.clone(), during });
                }
                Ok(Ok(count)) => self.end += count,
                Ok(Err(source)) => {
                    let address = address.clone();
                    return Err(ObserverError::Broken { address, during, source });
                }
                Err(_) => {
                    let (address, wait) = (address.clone(), self.wait);
                    return Err(ObserverError::Silent { address, during, wait });
                }
            }
        }
        Ok(())
    }

    fn make_room(&mut self, need: usize) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            let size = (self.bytes.len() * 2).clamp(ZK_READ_BYTES, need.max(ZK_READ_BYTES));
            self.bytes.resize(size, 0);
        } else if self.end == 0 && self.bytes.len() > 8 * ZK_READ_BYTES && need < ZK_READ_BYTES {
            // Something large was here.
            self.bytes = vec![0; ZK_READ_BYTES];
        }
    }

    /// The next message.
    pub(super) async fn packet(&mut self) -> Result<QuorumPacket<'_>, ObserverError> {
        let size = loop {
            match packet_bytes(self.unused()) {
                Ok(size) if size <= self.unused().len() => break size,
                Ok(size) => self.fill(size).await?,
                Err(error) => return Err(self.unreadable(error)),
            }
        };
        let (address, during) = (self.address.clone(), self.during);
        QuorumPacket::from_bytes(self.take(size)).map_err(|error| ObserverError::Message {
            address,
            during,
            error,
        })
    }

    pub(super) fn unreadable(&self, error: crate::jute::Error) -> ObserverError {
        ObserverError::Message { address: self.address.clone(), during: self.during, error }
    }
}
