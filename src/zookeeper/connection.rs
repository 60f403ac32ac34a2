//! One client's socket: frames in, bytes out. What they mean is the hub's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::four_letter;
use super::hub::HubEvent;
use super::watches::ConnId;
use crate::jute::Id;
use crate::limits::{
    ZK_CONNECT_BYTES_MAX, ZK_FIRST_FRAME_WAIT_MS, ZK_IN_BYTES_PER_CONNECTION, ZK_LAST_WRITE_MS,
    ZK_OUT_BYTES_HIGH, ZK_OUT_BYTES_MAX, ZK_OUT_CHUNKS_MAX,
};

/// For what is said last on a connection.
const LAST_WRITE: Duration = Duration::from_millis(ZK_LAST_WRITE_MS);

/// Bytes for a client that wait to be written. The connection ends with it.
#[derive(Debug)]
pub(super) struct Out {
    chunks: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
}

impl Drop for Out {
    fn drop(&mut self) {
        self.shared.let_go.cancel();
    }
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    /// The hub waits until there is room again.
    waited_for: AtomicBool,
    /// The hub has said all that it will.
    let_go: CancellationToken,
}

/// Shares of the bytes of requests that may wait, of the connection's own and of all there are;
/// given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
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
        tokio::select! {
            () = say_last(write, text.as_bytes(), LAST_WRITE) => {}
            () = self.stop.cancelled() => {}
        }
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
        let (id, hub) = (self.id, self.hub.clone());
        let writer = Writer { write, queue, shared, id, hub, last_write: LAST_WRITE };
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
        let most = ZK_IN_BYTES_PER_CONNECTION.max(self.config.max_request);
        let own_room = Arc::new(Semaphore::new(most));
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
            for frames in lots(frames, self.config.max_outstanding.max(1), most) {
                let Ok(permit) = permits.acquire_many(frames.len() as u32).await else { return };
                // The hub gives them back with the answers.
                permit.forget();
                let bytes = frames.iter().map(Bytes::len).sum::<usize>() as u32;
                let Ok(own) = own_room.clone().acquire_many_owned(bytes).await else { return };
                let Ok(all) = self.room.clone().acquire_many_owned(bytes).await else { return };
                let room = Room { _own: own, _all: all };
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

/// Writes what is said last, unless that takes too long.
async fn say_last<W: AsyncWrite + Unpin>(write: &mut W, bytes: &[u8], most: Duration) {
    let said = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    if !matches!(tokio::time::timeout(most, said).await, Ok(Ok(()))) {
        tracing::debug!("an answer to a four-letter word was not taken");
    }
}

struct Writer<W> {
    write: W,
    queue: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    id: ConnId,
    hub: mpsc::Sender<HubEvent>,
    /// For what is left when the hub lets go.
    last_write: Duration,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the hub lets go and all is said, or the client goes, or takes too long over
    /// what is said last.
    async fn run(mut self, over: CancellationToken) {
        let (let_go, last_write) = (self.shared.let_go.clone(), self.last_write);
        let too_late = async {
            let_go.cancelled().await;
            tokio::time::sleep(last_write).await;
        };
        tokio::select! {
            () = self.write_all() => {}
            () = too_late => tracing::debug!("what was said last was not taken"),
            () = over.cancelled() => {}
        }
        over.cancel();
    }

    async fn write_all(&mut self) {
        while let Some(chunk) = self.queue.recv().await {
            if self.write.write_all(&chunk).await.is_err() {
                return;
            }
            let before = self.shared.bytes.fetch_sub(chunk.len(), Ordering::AcqRel);
            if before - chunk.len() < ZK_OUT_BYTES_HIGH
                && self.shared.waited_for.swap(false, Ordering::AcqRel)
                && self.hub.send(HubEvent::Room { id: self.id }).await.is_err()
            {
                break;
            }
        }
        let _ = self.write.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn who_does_not_take_the_answer_to_a_word_is_not_waited_for() {
        let (mut here, _there) = tokio::io::duplex(16);
        say_last(&mut here, &[0; 64], SOON).await;
    }

    #[tokio::test]
    async fn who_does_not_take_what_is_said_last_is_not_waited_for() {
        let (write, mut there) = tokio::io::duplex(16);
        let (chunks, queue) = mpsc::channel(4);
        let (hub, _events) = mpsc::channel(1);
        let out = Out { chunks, shared: Arc::default() };
        let shared = out.shared.clone();
        let writer = Writer { write, queue, shared, id: 1, hub, last_write: SOON };
        let over = CancellationToken::new();
        let writer = tokio::spawn(writer.run(over.clone()));
        out.send(Bytes::from_static(&[7; 32])).unwrap();
        // As long as the hub wants to say something, the client may take its time.
        let mut taken = [0; 32];
        there.read_exact(&mut taken).await.unwrap();
        assert!(taken == [7; 32] && !over.is_cancelled());
        out.send(Bytes::from_static(&[8; 32])).unwrap();
        drop(out);
        writer.await.unwrap();
        assert!(over.is_cancelled());
    }

    #[tokio::test]
    async fn what_is_said_last_is_written_to_its_end() {
        let (write, mut there) = tokio::io::duplex(16);
        let (chunks, queue) = mpsc::channel(4);
        let (hub, _events) = mpsc::channel(1);
        let out = Out { chunks, shared: Arc::default() };
        let shared = out.shared.clone();
        let last_write = Duration::from_secs(60);
        let writer = Writer { write, queue, shared, id: 1, hub, last_write };
        out.send(Bytes::from_static(&[9; 100])).unwrap();
        drop(out);
        let writer = tokio::spawn(writer.run(CancellationToken::new()));
        let mut taken = Vec::new();
        there.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken, [9; 100]);
        writer.await.unwrap();
    }

    #[test]
    fn lots_hold_no_more_than_they_may() {
        let frame = |size| Bytes::from(vec![0; size]);
        let sizes = |lots: Vec<Vec<Bytes>>| -> Vec<Vec<usize>> {
            lots.iter().map(|lot| lot.iter().map(Bytes::len).collect()).collect()
        };
        let frames = [4, 4, 4, 9, 1, 1, 1, 1].map(frame).to_vec();
        assert_eq!(sizes(lots(frames, 3, 10)), [vec![4, 4], vec![4], vec![9, 1], vec![1, 1, 1]]);
    }
}
