//! `/v1/allocations/{id}/files`: files of tasks as tar streams, both ways.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::context::{Context, StreamSlot};
use super::error::Problem;
use super::exec::task_of;
use super::extract::{Params, Segment, media_type, unsupported};
use super::view::files::FileStatus;
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, ReadFiles, WriteFiles};
use super::view::time::Time;
use crate::limits::{API_BODY_DRAIN_BYTES, FILE_PATH_BYTES_MAX, SESSION_PIECE_BYTES};
use crate::model::name::AllocId;
use crate::model::time::Timestamp;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{FileInfo, FilesAction, FilesRequest, SessionFrame, SessionRequest, StdinEnd};
use crate::server::Session;

const TAR: &str = "application/x-tar";

async fn open(
    context: &Context,
    id: AllocId,
    path: String,
    task: Option<&str>,
    action: FilesAction,
) -> Result<Session, Problem> {
    if path.is_empty() || path.len() > FILE_PATH_BYTES_MAX {
        return Err(Problem::bad_request(format!("?path= has 1 to {FILE_PATH_BYTES_MAX} bytes")));
    }
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let alloc = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    let request = SessionRequest {
        node: alloc.node.to_string(),
        alloc: id.0,
        task: task_of(&view.state, alloc, task)?,
        kind: Some(Kind::Files(FilesRequest { action: action.into(), path })),
    };
    Ok(context.agents.open_session(request).await?)
}

/// The next thing an agent says.
async fn next(session: &mut Session) -> Result<Frame, Problem> {
    match session.from.recv().await.and_then(|frame| frame.frame) {
        Some(Frame::Error(error)) => Err(Problem::of_agent(&error.code, error.message)),
        Some(frame) => Ok(frame),
        None => Err(broke_off()),
    }
}

fn broke_off() -> Problem {
    Problem::of_agent("unreachable", "the agent ended the session without a word".to_owned())
}

/// What lies at a path, as a tar stream whose entries begin with the path's last part.
#[utoipa::path(
    get, path = "/v1/allocations/{id}/files", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), ReadFiles),
    responses((status = 200, body = FileStatus), (status = 200, content_type = "application/x-tar"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_files(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    Params(query): Params<ReadFiles>,
) -> Result<Response, Problem> {
    let action = if query.look { FilesAction::Look } else { FilesAction::Read };
    let slot = context.stream_slot()?;
    let mut session = open(&context, id, query.path, query.task.as_deref(), action).await?;
    match next(&mut session).await? {
        Frame::File(info) => Ok(Json(status(info)).into_response()),
        Frame::Stdout(bytes) => Ok(stream(bytes, session, slot)),
        _ => Err(Problem::of_agent("failed", "the agent sent something else than files".into())),
    }
}

fn status(info: FileInfo) -> FileStatus {
    FileStatus {
        name: info.name,
        kind: info.kind,
        directory: info.directory,
        size: info.size,
        mode: format!("{:o}", info.mode),
        modified: Time(Timestamp(info.modified)),
        link_target: info.link_target,
    }
}

/// A body that goes on as the reader takes it; one that breaks off is never whole.
fn stream(first: Bytes, session: Session, slot: StreamSlot) -> Response {
    let rest = futures::stream::unfold(Some((session, slot)), |open| async {
        let (mut session, slot) = open?;
        match next(&mut session).await {
            Ok(Frame::Stdout(bytes)) => Some((Ok(bytes), Some((session, slot)))),
            Ok(Frame::Exit(_)) => None,
            Ok(_) => Some((Err(std::io::Error::other("the agent sent something else")), None)),
            Err(problem) => Some((Err(std::io::Error::other(problem.detail)), None)),
        }
    });
    let first = futures::stream::once(std::future::ready(Ok(first)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(TAR)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, Body::from_stream(first.chain(rest))).into_response()
}

/// Unpacks a tar stream into a directory of a task. What has a name already is replaced. If it
/// fails half-way, what came before stays.
#[utoipa::path(
    put, path = "/v1/allocations/{id}/files", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), WriteFiles),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 204), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn write_files(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    Params(query): Params<WriteFiles>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let media_type = media_type(&headers);
    if media_type.as_deref() != Some(TAR) {
        return Err(unsupported(media_type.as_deref(), TAR));
    }
    let _slot = context.stream_slot()?;
    let task = query.task.as_deref();
    let mut session = open(&context, id, query.path, task, FilesAction::Write).await?;
    let Frame::Opened(_) = next(&mut session).await? else {
        return Err(Problem::of_agent("failed", "the agent did not wait for files".to_owned()));
    };
    let mut body = body.into_data_stream();
    let outcome = tokio::select! {
        sent = send(&mut body, &session.to) => match sent {
            // What it says last is how it went.
            Ok(()) => None,
            Err(problem) => return Err(problem),
        },
        said = session.from.recv() => Some(said),
        () = context.stop.cancelled() => {
            return Err(Problem::unavailable("stopping", "this server is stopping; ask another"));
        }
    };
    let last = match outcome {
        Some(said) => {
            // So that the sender reads the answer.
            let mut left = API_BODY_DRAIN_BYTES;
            while let Some(Ok(bytes)) = body.next().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
            said
        }
        None => session.from.recv().await,
    };
    match last.and_then(|frame| frame.frame) {
        Some(Frame::Exit(_)) => Ok(StatusCode::NO_CONTENT),
        Some(Frame::Error(error)) => Err(Problem::of_agent(&error.code, error.message)),
        _ => Err(broke_off()),
    }
}

async fn send(
    body: &mut axum::body::BodyDataStream,
    to: &tokio::sync::mpsc::Sender<SessionFrame>,
) -> Result<(), Problem> {
    while let Some(bytes) = body.next().await {
        let mut bytes = bytes.map_err(|error| {
            Problem::bad_request(format!("the stream did not arrive whole: {error}"))
        })?;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(SESSION_PIECE_BYTES));
            let frame = SessionFrame { frame: Some(Frame::Stdin(piece)) };
            if to.send(frame).await.is_err() {
                // Why is about to be said.
                return std::future::pending().await;
            }
        }
    }
    let end = SessionFrame { frame: Some(Frame::StdinEnd(StdinEnd {})) };
    let _ = to.send(end).await;
    Ok(())
}
