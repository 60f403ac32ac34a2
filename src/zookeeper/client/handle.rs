//! A client: a session on an ensemble, and requests on their way. Cheap to clone; when the last
//! clone is dropped the connection closes, while the session lives on until its time-out.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::ensemble::Ensemble;
use super::error::ClientError;
use super::event::Events;
use super::session::{Effect, Request, Task};
use crate::jute::{Field, Op};
use crate::limits::{ZK_REQUEST_BYTES_MAX, ZK_REQUESTS_WAITING_MAX};

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The session time-out to ask for; servers keep it within bounds of their own.
    pub timeout: Duration,
    /// Without any server for so long, at the start or later, the client ends.
    pub give_up: Duration,
    /// The same, while every server refuses the connection: nobody runs there.
    pub give_up_refused: Duration,
    /// Between tries, once all servers were tried.
    pub pause: Duration,
    /// The session to go on with; none: a new one.
    pub session: Option<Session>,
    /// Whether a server that only reads will do.
    pub read_only: bool,
    /// Events that may wait for their reader before replies wait as well.
    pub events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(30),
            give_up_refused: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            session: None,
            read_only: false,
            events: 1024,
        }
    }
}

/// What proves to any server that a client has this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: i64,
    /// Its password.
    pub password: [u8; 16],
    /// The newest transaction seen: a server that is behind refuses the client.
    pub last_zxid: i64,
}

/// What the task behind a client lets it know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Id and password, from the first connection on.
    pub(super) session: OnceLock<(i64, [u8; 16])>,
    pub(super) last_zxid: AtomicI64,
    /// Why it has ended.
    pub(super) end: OnceLock<ClientError>,
}

/// A session on an ensemble.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    pub(super) chroot: Arc<str>,
}

impl Client {
    /// Connects to the first server that answers, and begins a session there or goes on with the
    /// one in `options`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If no server answers in time, or the session to go on with has expired.
    pub async fn connect(
        ensemble: &Ensemble,
        options: Options,
    ) -> Result<(Self, Events), ClientError> {
        let (requests, waiting) = mpsc::channel(ZK_REQUESTS_WAITING_MAX);
        let (events, incoming) = mpsc::channel(options.events.max(1));
        let (attached, first) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let chroot = Arc::from(ensemble.chroot.as_str());
        let task = Task::new(ensemble.clone(), options, waiting, events, shared.clone(), attached);
        tokio::spawn(task.run());
        let client = Self { requests, shared, chroot };
        match first.await {
            Ok(()) => Ok((client, Events(incoming))),
            Err(_) => Err(client.end()),
        }
    }

    /// The session, to go on with it elsewhere.
    pub fn session(&self) -> Session {
        let (id, password) = self.shared.session.get().copied().unwrap_or_default();
        Session { id, password, last_zxid: self.last_zxid() }
    }

    /// The newest transaction that a reply has told of.
    pub fn last_zxid(&self) -> i64 {
        self.shared.last_zxid.load(Ordering::Relaxed)
    }

    /// Sends any operation as it is, without the chroot. The request is on its way, behind all
    /// earlier ones, when this returns; the reply comes with what it returns.
    ///
    /// # Errors
    /// If the request is too long, or the client has ended.
    pub async fn request<'a>(
        &self,
        op: i32,
        record: &impl Field<'a>,
    ) -> Result<Pending, ClientError> {
        self.send(op, record.to_bytes(), Effect::None).await
    }

    /// An operation with what it means for the session.
    pub(super) async fn send(
        &self,
        op: i32,
        body: Vec<u8>,
        effect: Effect,
    ) -> Result<Pending, ClientError> {
        let (bytes, most) = (body.len(), ZK_REQUEST_BYTES_MAX);
        if bytes > most {
            return Err(ClientError::TooLong { bytes, most });
        }
        let (answer, reply) = oneshot::channel();
        let request = Request { op, body, effect, answer };
        self.requests.send(request).await.map_err(|_| self.end())?;
        Ok(Pending { reply, shared: self.shared.clone() })
    }

    /// Ends the session: its ephemeral nodes go. Requests that are on their way are carried out
    /// before.
    ///
    /// # Errors
    /// If the server can't be told; the session ends by its time-out then.
    pub async fn close(self) -> Result<(), ClientError> {
        let pending = self.send(Op::CloseSession.number(), Vec::new(), Effect::Close).await?;
        pending.await.map(|_| ())
    }

    fn end(&self) -> ClientError {
        end(&self.shared)
    }
}

fn end(shared: &Shared) -> ClientError {
    shared.end.get().cloned().unwrap_or(ClientError::Closed)
}

/// A reply that will come.
#[derive(Debug)]
pub struct Pending {
    reply: oneshot::Receiver<Result<Reply, ClientError>>,
    shared: Arc<Shared>,
}

impl Future for Pending {
    type Output = Result<Reply, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply)
            .poll(context)
            .map(|reply| reply.unwrap_or_else(|_| Err(end(&self.shared))))
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The newest transaction that the server had applied.
    pub zxid: i64,
    /// 0, or why not; see [`crate::jute::ErrorCode`].
    pub err: i32,
    /// Its place among all frames that came in this client's life, events too.
    pub position: u64,
    /// The record behind the header; empty if there is an error.
    pub body: Bytes,
}

impl Reply {
    /// Its record.
    ///
    /// # Errors
    /// What the server refused it with, or that the record can't be read.
    pub fn read<'a, T: Field<'a>>(&'a self) -> Result<T, ClientError> {
        match self.err {
            0 => Ok(T::from_bytes(&self.body)?),
            err => Err(ClientError::of_number(err)),
        }
    }

    /// That it was carried out, whatever the record says.
    ///
    /// # Errors
    /// What the server refused it with.
    pub fn done(&self) -> Result<(), ClientError> {
        match self.err {
            0 => Ok(()),
            err => Err(ClientError::of_number(err)),
        }
    }
}
