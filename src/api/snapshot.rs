//! `/v1/snapshot`: saving and restoring the whole state.

use std::io::{self, BufWriter, Write};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use super::context::{Context, INDEX_HEADER};
use super::error::Problem;
use super::extract::{NoIdempotencyKey, NoParams, Params, media_type, unsupported};
use super::snapshot_file::{self, TRAILER_BYTES};
use super::view::problem::ProblemDetails;
use super::view::query::Read;
use super::view::server::RestoreReply;
use crate::limits::{RESTORE_BYTES_MAX, RESTORE_CHUNK_BYTES, SNAPSHOT_BLOCK_BYTES};
use crate::state::Command;

const BYTES: &str = "application/octet-stream";
/// Blocks waiting for a slow reader.
const BLOCKS: usize = 4;

/// The whole state, in a form that can be restored.
#[utoipa::path(
    get, path = "/v1/snapshot", tag = "snapshot", params(Read),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn save_snapshot(
    State(context): State<Context>,
    Params(query): Params<Read>,
) -> Result<Response, Problem> {
    let view = context.view(query.consistency).await?;
    let (blocks, body) = mpsc::channel::<io::Result<Bytes>>(BLOCKS);
    tokio::task::spawn_blocking(move || {
        let out = BufWriter::with_capacity(SNAPSHOT_BLOCK_BYTES, ToChannel(blocks.clone()));
        if let Err(error) = snapshot_file::write(&view.state, out) {
            // Cuts the answer off, so that nobody takes it for whole.
            let _ = blocks.blocking_send(Err(io::Error::other(error)));
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(BYTES)),
        (INDEX_HEADER, HeaderValue::from(view.applied_index)),
    ];
    Ok((headers, body).into_response())
}

/// Hands blocks to an answer that is being sent.
struct ToChannel(mpsc::Sender<io::Result<Bytes>>);

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = Ok(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(block).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts a saved snapshot in the place of the state. Nothing changes until all of it has arrived
/// and is found whole. Takes no Idempotency-Key: what remembers keys is replaced as well.
#[utoipa::path(
    put, path = "/v1/snapshot", tag = "snapshot",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = RestoreReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn restore_snapshot(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
    NoIdempotencyKey: NoIdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RestoreReply>, Problem> {
    let media_type = media_type(&headers);
    if media_type.as_deref() != Some(BYTES) {
        return Err(unsupported(media_type.as_deref(), BYTES));
    }
    let mut upload = Upload { context, held: Vec::new(), sent: 0, sum: Xxh3::new(), done: false };
    let outcome = upload.run(body).await;
    if outcome.is_err() {
        // Before the answer, so that another try finds nothing in its way.
        upload.forget().await;
    }
    outcome.map(Json)
}

/// A snapshot on its way into the log.
struct Upload {
    context: Context,
    /// Arrived and not yet proposed; the last bytes may be the trailer.
    held: Vec<u8>,
    sent: u64,
    sum: Xxh3,
    /// The state has taken it.
    done: bool,
}

/// The client may just go away.
impl Drop for Upload {
    fn drop(&mut self) {
        if !self.done && self.sent > 0 {
            let (context, held, sum) = (self.context.clone(), Vec::new(), Xxh3::new());
            let mut left = Self { context, held, sent: self.sent, sum, done: false };
            tokio::spawn(async move { left.forget().await });
        }
    }
}

impl Upload {
    async fn run(&mut self, body: Body) -> Result<RestoreReply, Problem> {
        let mut stream = body.into_data_stream();
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| {
                Problem::bad_request(format!("the snapshot did not arrive whole: {error}"))
            })?;
            self.take(&bytes).await?;
        }
        self.commit().await
    }

    /// Has the state forget the pieces of a snapshot that never came whole.
    async fn forget(&mut self) {
        self.done = true;
        if self.sent == 0 {
            return;
        }
        // A first piece begins anew. If this fails, the next restore does the same.
        let command = Command::RestoreChunk { offset: 0, bytes: Vec::new() };
        if let Err(problem) = self.context.propose(None, command).await {
            tracing::info!(why = problem.detail, "pieces of a snapshot are left");
        }
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.held.extend_from_slice(bytes);
        if self.sent + self.held.len() as u64 > RESTORE_BYTES_MAX {
            return Err(Problem::too_large(format!(
                "a snapshot over {RESTORE_BYTES_MAX} bytes can't be restored"
            )));
        }
        while self.held.len() >= RESTORE_CHUNK_BYTES + TRAILER_BYTES {
            self.send(RESTORE_CHUNK_BYTES).await?;
        }
        Ok(())
    }

    async fn send(&mut self, length: usize) -> Result<(), Problem> {
        let rest = self.held.split_off(length);
        let bytes = std::mem::replace(&mut self.held, rest);
        self.sum.update(&bytes);
        let command = Command::RestoreChunk { offset: self.sent, bytes };
        let proposed = self.context.propose(None, command).await;
        if let Err(problem) = &proposed
            && problem.status == StatusCode::CONFLICT
        {
            // The pieces that are there now are somebody else's.
            self.done = true;
        }
        proposed?;
        self.sent += length as u64;
        Ok(())
    }

    async fn commit(&mut self) -> Result<RestoreReply, Problem> {
        let end = self.held.len().saturating_sub(TRAILER_BYTES);
        // Checked before the last piece is proposed: a file that is none is refused unseen.
        let mut sum = self.sum.clone();
        sum.update(&self.held[..end]);
        let checksum = sum.digest();
        snapshot_file::check(&self.held[end..], checksum)
            .map_err(|error| Problem::invalid(error.to_string()))?;
        if end > 0 {
            self.send(end).await?;
        }
        let command = Command::RestoreCommit { length: self.sent, checksum };
        let committed = self.context.propose(None, command).await?;
        self.done = true;
        Ok(RestoreReply { bytes: self.sent + TRAILER_BYTES as u64, index: committed.index })
    }
}
