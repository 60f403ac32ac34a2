//! One client's socket: frames in, bytes out. What they mean is the hub's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::four_letter;
use super::hub::HubEvent;
use super::watches::ConnId;
use crate::jute::Id;
use crate::limits::{
    ZK_CONNECT_BYTES_MAX, ZK_FIRST_FRAME_WAIT_MS, ZK_IN_BYTES_PER_CONNECTION, ZK_OUT_BYTES_HIGH,
    ZK_OUT_BYTES_MAX, ZK_OUT_CHUNKS_MAX,
};

/// Bytes for a client that wait to be written.
#[derive(Debug, Clone)]
pub(super) struct Out {
    chunks: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    /// The hub waits until there is room again.
    waited_for: AtomicBool,
}

/// The client reads too slowly, or is gone.
#[derive(Debug)]
pub(super) struct TooSlow;

impl Out {
    /// Hands bytes to the socket.
    pub(super) fn send(&self, bytes: Bytes) -> Result<(), TooSlow> {
        let before = self.shared.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        if before > ZK_OUT_BYTES_MAX {
            return Err(TooSlow);
        }
        self.chunks.try_send(bytes).map_err(|_| TooSlow)
    }

    /// Whether so much waits that nothing more should be answered now; the hub is told when that
    /// is over.
    pub(super) fn is_full(&self) -> bool {
        if self.shared.bytes.load(Ordering::Acquire) < ZK_OUT_BYTES_HIGH {
            return false;
        }
        self.shared.waited_for.store(true, Ordering::Release);
        // It may have been written between the two.
        self.shared.bytes.load(Ordering::Acquire) >= ZK_OUT_BYTES_HIGH
    }
}

/// What a connection is told by its socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    /// Whom the connection itself proves the client to be, as with a certificate.
    pub(super) ids: Vec<Id>,
    pub(super) config: Arc<Config>,
    pub(super) hub: mpsc::Sender<HubEvent>,
    /// Bytes of requests that may wait on this server.
    pub(super) room: Arc<Semaphore>,
    /// Ends the listener and all connections.
    pub(super) stop: CancellationToken,
}

impl Socket {
    /// Serves a client to its end.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(self, stream: S) {
        let (mut read, mut write) = tokio::io::split(stream);
        let wait = Duration::from_millis(ZK_FIRST_FRAME_WAIT_MS);
        let Ok(Ok(first)) = tokio::time::timeout(wait, read.read_u32()).await else { return };
        if let Ok(word) = std::str::from_utf8(&first.to_be_bytes())
            && four_letter::is_known(word)
        {
            self.four_letter(word, &mut write).await;
            return;
        }
        if !(1..=ZK_CONNECT_BYTES_MAX).contains(&(first as usize)) {
            tracing::debug!(peer = %self.peer, "a first frame of {first} bytes: closed");
            return;
        }
        let mut connect = vec![0; first as usize];
        let got = tokio::time::timeout(wait, read.read_exact(&mut connect)).await;
        if !matches!(got, Ok(Ok(_))) {
            return;
        }
        self.talk(read, write, connect.into()).await;
    }

    async fn four_letter<W: AsyncWrite + Unpin>(&self, word: &str, write: &mut W) {
        let text = if self.config.four_letter.has(word) {
            let (answer, text) = oneshot::channel();
            let asked = HubEvent::FourLetter { word: word.to_owned(), answer };
            if self.hub.send(asked).await.is_err() {
                return;
            }
            text.await.unwrap_or_default()
        } else {
            format!("{word} is not executed because it is not in the whitelist.\n")
        };
        let _ = write.write_all(text.as_bytes()).await;
        let _ = write.shutdown().await;
    }

    async fn talk<S: AsyncRead + AsyncWrite + Send + 'static>(
        self,
        read: ReadHalf<S>,
        write: WriteHalf<S>,
        connect: Bytes,
    ) {
        let (chunks, queue) = mpsc::channel(ZK_OUT_CHUNKS_MAX);
        let out = Out { chunks, shared: Arc::default() };
        let shared = out.shared.clone();
        let permits = Arc::new(Semaphore::new(self.config.max_outstanding));
        let over = self.stop.child_token();
        let hello = HubEvent::Connect {
            id: self.id,
            peer: self.peer,
            ids: self.ids.clone(),
            request: connect,
            out,
            permits: permits.clone(),
        };
        if self.hub.send(hello).await.is_err() {
            return;
        }
        let writer = Writer { write, queue, shared, id: self.id, hub: self.hub.clone() };
        let writer = tokio::spawn(writer.run(over.clone()));
        tokio::select! {
            () = self.read_frames(read, &permits) => {}
            () = over.cancelled() => {}
        }
        let _ = self.hub.send(HubEvent::Gone { id: self.id }).await;
        // The hub lets go of its end: what it still has to say is written, and no more.
        let _ = writer.await;
    }

    /// Reads frames until the client goes or says something impossible.
    async fn read_frames<S: AsyncRead>(&self, mut read: ReadHalf<S>, permits: &Semaphore) {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        let own_room = ZK_IN_BYTES_PER_CONNECTION.max(self.config.max_request);
        loop {
            let mut frames = Vec::new();
            while let Some(length) = buffer.first_chunk::<4>() {
                let length = i32::from_be_bytes(*length);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > self.config.max_request {
                    tracing::info!(
                        peer = %self.peer,
                        "closed: a request of {length} bytes, and --zk-max-request is {}",
                        self.config.max_request
                    );
                    return;
                }
                if buffer.len() < 4 + length {
                    buffer.reserve(4 + length - buffer.len());
                    break;
                }
                buffer.advance(4);
                frames.push(buffer.split_to(length).freeze());
            }
            for frames in lots(frames, self.config.max_outstanding.max(1), own_room) {
                let Ok(permit) = permits.acquire_many(frames.len() as u32).await else { return };
                // The hub gives them back with the answers.
                permit.forget();
                let bytes = frames.iter().map(Bytes::len).sum::<usize>() as u32;
                let Ok(room) = self.room.clone().acquire_many_owned(bytes).await else { return };
                let lot = HubEvent::Frames { id: self.id, frames, room };
                if self.hub.send(lot).await.is_err() {
                    return;
                }
            }
            match read.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// Frames in lots of so many, and so many bytes, at most.
fn lots(frames: Vec<Bytes>, count: usize, bytes: usize) -> Vec<Vec<Bytes>> {
    let mut lots: Vec<Vec<Bytes>> = Vec::new();
    let mut size = 0;
    for frame in frames {
        size += frame.len();
        match lots.last_mut() {
            Some(lot) if lot.len() < count && size <= bytes => lot.push(frame),
            _ => {
                size = frame.len();
                lots.push(vec![frame]);
            }
        }
    }
    lots
}

struct Writer<W> {
    write: W,
    queue: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    id: ConnId,
    hub: mpsc::Sender<HubEvent>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the hub lets go, or the client does.
    async fn run(mut self, over: CancellationToken) {
        while let Some(chunk) = self.queue.recv().await {
            let length = chunk.len();
            let written = tokio::select! {
                written = self.write.write_all(&chunk) => written.is_ok(),
                () = over.cancelled() => false,
            };
            if !written {
                break;
            }
            let before = self.shared.bytes.fetch_sub(length, Ordering::AcqRel);
            if before - length < ZK_OUT_BYTES_HIGH
                && self.shared.waited_for.swap(false, Ordering::AcqRel)
                && self.hub.send(HubEvent::Room { id: self.id }).await.is_err()
            {
                break;
            }
        }
        let _ = self.write.shutdown().await;
        over.cancel();
    }
}
