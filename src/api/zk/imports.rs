//! `/v1/zk/imports`: trees that are brought from elsewhere.

use std::io::{self, Write};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::rows::send_on;
use super::tree::in_blocks;
use super::view::{self, number};
use crate::api::context::{Context, INDEX_HEADER, Indexed};
use crate::api::error::Problem;
use crate::api::extract::{
    IdempotencyKey, JsonBody, NoIdempotencyKey, NoParams, Params, Segment, media_type, unsupported,
};
use crate::api::page;
use crate::api::view::Page;
use crate::api::view::problem::ProblemDetails;
use crate::api::view::query::{
    ConsistencyChoice, List, Read, WriteHeaders, ZkRowsQuery, ZkTransactionsQuery,
};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::jute::digest;
use crate::jute::file::{AclRow, SessionRow};
use crate::migrate::zookeeper::pipe::Pipe;
use crate::state::Command;
use crate::state::znodes::{Tree, ZkExisting, ZkImportPhase, ZkImportStep};
use crate::zookeeper::snapshot_file::{SnapshotDigest, SnapshotWriter, Tail};

const BYTES: &str = "application/octet-stream";

/// The imports that there are, by name.
#[utoipa::path(
    get, path = "/v1/zk/imports", tag = "zookeeper", params(List),
    responses((status = 200, body = Page<ZkImportRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn list_zk_imports(
    State(context): State<Context>,
    Params(query): Params<List>,
) -> Result<Indexed<Page<ZkImportRow>>, Problem> {
    let ask: page::Ask<String> = page::ask(query.limit, query.cursor.as_deref())?;
    let view = context.view(query.consistency).await?;
    let rows = view
        .state
        .zk_imports()
        .filter(|(name, _)| ask.after.as_deref().is_none_or(|after| *name > after))
        .map(|(name, import)| (name.to_owned(), view::import(name, import, view.state.zk())));
    Ok(Indexed(view.applied_index, page::page(ask.limit, rows)))
}

/// How an import is.
#[utoipa::path(
    get, path = "/v1/zk/imports/{name}", tag = "zookeeper",
    params(("name" = String, Path, description = "The import"), Read),
    responses((status = 200, body = ZkImportRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn read_zk_import(
    State(context): State<Context>,
    Segment(name): Segment<String>,
    Params(query): Params<Read>,
) -> Result<Indexed<ZkImportRow>, Problem> {
    let view = context.view(query.consistency).await?;
    let import = view.state.zk_import(&name).ok_or_else(|| Problem::not_found("import", &name))?;
    Ok(Indexed(view.applied_index, view::import(&name, import, view.state.zk())))
}

/// Takes a step of an import.
#[utoipa::path(
    post, path = "/v1/zk/imports/{name}/steps", tag = "zookeeper",
    params(("name" = String, Path, description = "The import"), WriteHeaders),
    request_body = ZkStep,
    responses((status = 200, body = ZkImportRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn step_zk_import(
    State(context): State<Context>,
    Segment(name): Segment<String>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(step): JsonBody<ZkStep>,
) -> Result<Json<ZkImportRow>, Problem> {
    let step = step_of(step)?;
    take_step(&context, key, &name, step).await
}

fn step_of(step: ZkStep) -> Result<ZkImportStep, Problem> {
    Ok(match step {
        ZkStep::Start { source, live, again } => ZkImportStep::Start { source, live, again },
        ZkStep::Anew { generation, why } => ZkImportStep::Anew { generation, why },
        ZkStep::Copied { generation, zxid, fuzzy } => {
            ZkImportStep::Copied { generation, zxid: number("zxid", &zxid)?, fuzzy }
        }
        ZkStep::Exact { generation } => ZkImportStep::Exact { generation },
        ZkStep::Compare => ZkImportStep::Compare,
        ZkStep::CutOver { at, attempt } => {
            ZkImportStep::CutOver { at: number("at", &at)?, attempt }
        }
        ZkStep::CallOff => ZkImportStep::CallOff,
        ZkStep::PortsOpen { ports, from } => ZkImportStep::PortsOpen { ports, from },
        ZkStep::Merge { generation, at, only, existing } => {
            let existing = match existing.as_str() {
                "refuse" => ZkExisting::Refuse,
                "keep" => ZkExisting::Keep,
                "overwrite" => ZkExisting::Overwrite,
                "replace" => ZkExisting::Replace,
                other => {
                    return Err(Problem::invalid(format!(
                        "existing is {other:?}; it is refuse, keep, overwrite or replace"
                    )));
                }
            };
            ZkImportStep::Merge { generation, at, only, existing }
        }
        ZkStep::Finish => ZkImportStep::Finish,
        ZkStep::RolledBack => ZkImportStep::RolledBack,
        ZkStep::Abort { reason, generation, open } => {
            ZkImportStep::Abort { reason, generation, open }
        }
    })
}

async fn take_step(
    context: &Context,
    key: Option<String>,
    name: &str,
    step: ZkImportStep,
) -> Result<Json<ZkImportRow>, Problem> {
    // A copy that is begun anew has another number than the one that the step names.
    let of = step.generation().filter(|_| !matches!(step, ZkImportStep::Anew { .. }));
    let command = Command::ImportZk { name: name.to_owned(), step: Box::new(step) };
    context.propose(key, command).await?;
    row(context, name, of).await
}

/// How an import is, as long as it is that copy: who goes on by the answer goes on with its own.
async fn row(context: &Context, name: &str, of: Option<u64>) -> Result<Json<ZkImportRow>, Problem> {
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let import = view.state.zk_import(name).ok_or_else(|| Problem::not_found("import", name))?;
    if of.is_some_and(|of| of != import.status.generation) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "conflict",
            format!("the copy {name} was begun anew meanwhile"),
        ));
    }
    Ok(Json(view::import(name, import, view.state.zk())))
}

/// Adds rows to an import. The body is lots of rows, each behind its length in 4 bytes, the first
/// of them with the number `from`; a lot that came before is passed over. The answer comes when all
/// are durable. Rows are those of a snapshot of ZooKeeper, each behind a byte for its kind: `s` a
/// session, `a` an access list, `n` a node.
#[utoipa::path(
    post, path = "/v1/zk/imports/{name}/rows", tag = "zookeeper",
    params(("name" = String, Path, description = "The import"), ZkRowsQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = ZkImportRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn add_zk_rows(
    State(context): State<Context>,
    Path(name): Path<String>,
    Params(query): Params<ZkRowsQuery>,
    NoIdempotencyKey: NoIdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ZkImportRow>, Problem> {
    let media_type = media_type(&headers);
    if media_type.as_deref() != Some(BYTES) {
        return Err(unsupported(media_type.as_deref(), BYTES));
    }
    let pipe = Pipe::new(context.consensus.clone(), &name, query.generation, query.from);
    send_on(body, pipe).await?;
    row(&context, &name, Some(query.generation)).await
}

/// Applies transactions of the source behind the copy, in order: each behind its length in 4 bytes.
/// Those that the copy has already are passed over.
#[utoipa::path(
    post, path = "/v1/zk/imports/{name}/transactions", tag = "zookeeper",
    params(("name" = String, Path, description = "The import"), ZkTransactionsQuery, WriteHeaders),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = ZkImportRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn add_zk_transactions(
    State(context): State<Context>,
    Path(name): Path<String>,
    Params(query): Params<ZkTransactionsQuery>,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ZkImportRow>, Problem> {
    let media_type = media_type(&headers);
    if media_type.as_deref() != Some(BYTES) {
        return Err(unsupported(media_type.as_deref(), BYTES));
    }
    let after = number("?after=", &query.after)?;
    let generation = query.generation;
    let bytes = super::rows::whole(body).await?;
    take_step(&context, key, &name, ZkImportStep::Transactions { generation, after, bytes }).await
}

/// The nodes of an import as a snapshot file of ZooKeeper: of one that was taken back, with all that
/// was written since its clients came here; of one that is copied once, as they have come.
#[utoipa::path(
    get, path = "/v1/zk/imports/{name}/snapshot", tag = "zookeeper",
    params(("name" = String, Path, description = "The import"), Read),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn read_zk_import_snapshot(
    State(context): State<Context>,
    Segment(name): Segment<String>,
    Params(query): Params<Read>,
) -> Result<Response, Problem> {
    let view = context.view(query.consistency).await?;
    let import =
        view.state.zk_import(&name).cloned().ok_or_else(|| Problem::not_found("import", &name))?;
    let came = !import.status.live && import.status.phase == ZkImportPhase::Following;
    if !came && import.status.phase != ZkImportPhase::RolledBack {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "conflict",
            format!("the nodes of the import {name} are not at rest, or clients have them"),
        ));
    }
    let slot = context.stream_slot()?;
    let index = view.applied_index;
    drop(view);
    let body = in_blocks(move |out| {
        let _slot = slot;
        write_snapshot(&import.tree, out)
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(BYTES)),
        (INDEX_HEADER, HeaderValue::from(index)),
    ];
    Ok((headers, body).into_response())
}

fn write_snapshot(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let sessions: Vec<SessionRow> =
        tree.sessions().map(|(id, session)| SessionRow { id, timeout: session.timeout }).collect();
    let acls: Vec<AclRow> = tree.snapshot_acls().collect();
    let mut writer = SnapshotWriter::new(out, sessions.iter(), acls.iter())?;
    for (path, node) in tree.walk("/") {
        writer.node(&tree.snapshot_row(path, node))?;
    }
    let digest = SnapshotDigest {
        zxid: tree.zxid(),
        version: digest::VERSION,
        digest: tree.digest().cast_signed(),
    };
    writer.finish(Tail { digest: Some(digest), last_zxid: None })?;
    Ok(())
}
