//! `/v1/zk/node` and `/v1/zk/children`: single nodes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::view::{self, checked, hex};
use crate::api::context::{Context, INDEX_HEADER, Indexed};
use crate::api::error::Problem;
use crate::api::extract::{IdempotencyKey, Params, WholeBody};
use crate::api::page;
use crate::api::view::Page;
use crate::api::view::problem::ProblemDetails;
use crate::api::view::query::{
    ConsistencyChoice, ListZkChildren, ReadZkNode, RemoveZkNode, WriteHeaders, WriteZkNode,
};
use crate::api::view::zk::{ZkChild, ZkNode, ZkRemoved, ZkWritten};
use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::{CreateReply, StatReply};
use crate::jute::request::{CreateRequest, SetDataRequest, VersionRequest};
use crate::jute::{Acl, Field, path};
use crate::limits::ZK_REMOVED_TOGETHER_MAX;
use crate::state::znodes::{ZkBatch, ZkCaller, ZkReply, ZkRequest};
use crate::state::{Command, Reply};

const BYTES: &str = "application/octet-stream";

/// A node with its data, stat and access list; or its data alone, as they are, with `?raw=true` or
/// `Accept: application/octet-stream`.
#[utoipa::path(
    get, path = "/v1/zk/node", tag = "zookeeper", params(ReadZkNode),
    responses((status = 200, body = ZkNode), (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn read_zk_node(
    State(context): State<Context>,
    Params(query): Params<ReadZkNode>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = checked(query.path)?;
    let view = context.view(query.consistency).await?;
    let tree = view.state.zk();
    let node = tree.get(&path).ok_or_else(|| Problem::not_found("node", &path))?;
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !query.raw && accepted.is_none_or(|accept| !accept.contains(BYTES)) {
        return Ok(Indexed(view.applied_index, view::node(tree, &path, node)).into_response());
    }
    let version = format!("\"{}\"", node.stat().version);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(BYTES)),
        // What clients store is never to be run by a browser.
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::ETAG, HeaderValue::try_from(version).unwrap_or(HeaderValue::from_static("\"\""))),
        (INDEX_HEADER, HeaderValue::from(view.applied_index)),
    ];
    Ok((headers, node.data().unwrap_or_default().to_vec()).into_response())
}

/// A node's children, by name.
#[utoipa::path(
    get, path = "/v1/zk/children", tag = "zookeeper", params(ListZkChildren),
    responses((status = 200, body = Page<ZkChild>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn list_zk_children(
    State(context): State<Context>,
    Params(query): Params<ListZkChildren>,
) -> Result<Indexed<Page<ZkChild>>, Problem> {
    let path = checked(query.path)?;
    let ask: page::Ask<String> = page::ask(query.limit, query.cursor.as_deref())?;
    let view = context.view(query.consistency).await?;
    let tree = view.state.zk();
    if tree.get(&path).is_none() {
        return Err(Problem::not_found("node", &path));
    }
    let rows = tree.children_after(&path, ask.after.as_deref()).map(|(name, path, node)| {
        let row = ZkChild { name: name.to_owned(), path: path.to_string(), stat: view::stat(node) };
        (name.to_owned(), row)
    });
    Ok(Indexed(view.applied_index, page::page(ask.limit, rows)))
}

/// Replaces a node's data; makes it with `?create=true` if there is none.
#[utoipa::path(
    put, path = "/v1/zk/node", tag = "zookeeper", params(WriteZkNode, WriteHeaders),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = ZkWritten), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn write_zk_node(
    State(context): State<Context>,
    Params(query): Params<WriteZkNode>,
    IdempotencyKey(key): IdempotencyKey,
    WholeBody(data): WholeBody,
) -> Result<Json<ZkWritten>, Problem> {
    let path = checked(Some(query.path))?;
    if query.create && query.version.is_some() {
        return Err(Problem::bad_request("?create= and ?version= exclude each other"));
    }
    if query.create {
        let acl = vec![Acl::open()];
        let create = CreateRequest { path: &path, data: Some(&data), acl, flags: 0 }.to_bytes();
        let key = key.as_ref().map(|key| format!("{key} create"));
        let replies = ask(&context, key, vec![(Op::Create2, create)]).await?;
        let reply = replies.first().ok_or_else(unfitting)?;
        match refusal(reply) {
            Ok(()) => {
                let CreateReply { stat, .. } = record(reply)?;
                let zxid = hex(reply.zxid);
                return Ok(Json(ZkWritten { path, created: true, version: stat.version, zxid }));
            }
            Err(ErrorCode::NodeExists) => {}
            // It is the node above that there is none of.
            Err(code) => return Err(refused(code, path::split(&path).map_or("/", |(up, _)| up))),
        }
    }
    let version = query.version.unwrap_or(-1);
    let set = SetDataRequest { path: &path, data: Some(&data), version }.to_bytes();
    let replies = ask(&context, key, vec![(Op::SetData, set)]).await?;
    let reply = replies.first().ok_or_else(unfitting)?;
    refusal(reply).map_err(|code| refused(code, &path))?;
    let StatReply { stat } = record(reply)?;
    let zxid = hex(reply.zxid);
    Ok(Json(ZkWritten { path, created: false, version: stat.version, zxid }))
}

/// Removes a node; with `?recursive=true` all below it as well, in lots of at most some hundred,
/// those below before those above.
#[utoipa::path(
    delete, path = "/v1/zk/node", tag = "zookeeper", params(RemoveZkNode, WriteHeaders),
    responses((status = 200, body = ZkRemoved), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn remove_zk_node(
    State(context): State<Context>,
    Params(query): Params<RemoveZkNode>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Json<ZkRemoved>, Problem> {
    let top = checked(Some(query.path))?;
    let version = query.version.unwrap_or(-1);
    if !query.recursive {
        let request = VersionRequest { path: &top, version }.to_bytes();
        let replies = ask(&context, key, vec![(Op::Delete, request)]).await?;
        let reply = replies.first().ok_or_else(unfitting)?;
        refusal(reply).map_err(|code| refused(code, &top))?;
        return Ok(Json(ZkRemoved { nodes: 1 }));
    }
    let mut nodes = 0;
    loop {
        let view = context.view(ConsistencyChoice::Linearizable).await?;
        let tree = view.state.zk();
        let Some(node) = tree.get(&top) else {
            return match nodes {
                0 => Err(Problem::not_found("node", &top)),
                nodes => Ok(Json(ZkRemoved { nodes })),
            };
        };
        if query.version.is_some_and(|version| version != node.stat().version) {
            return Err(refused(ErrorCode::BadVersion, &top));
        }
        let of_system = |path: &str| path == "/" || path::is_within(path, "/zookeeper");
        let mut paths: Vec<Arc<str>> = tree
            .walk(&top)
            .map(|(path, _)| Arc::from(path))
            .filter(|path: &Arc<str>| !of_system(path) || top.starts_with("/zookeeper/"))
            .collect();
        if paths.is_empty() {
            return Ok(Json(ZkRemoved { nodes }));
        }
        paths.reverse();
        for lot in paths.chunks(ZK_REMOVED_TOGETHER_MAX) {
            let ops = lot.iter().map(|path| {
                let version = if **path == *top { version } else { -1 };
                (Op::Delete, VersionRequest { path, version }.to_bytes())
            });
            for (reply, path) in ask(&context, None, ops.collect()).await?.iter().zip(lot) {
                match refusal(reply) {
                    Ok(()) => nodes += 1,
                    // Somebody else was faster, or has made a node below: looked at again.
                    Err(ErrorCode::NoNode | ErrorCode::NotEmpty) => {}
                    Err(code) => return Err(refused(code, path)),
                }
            }
        }
        if of_system(&top) {
            return Ok(Json(ZkRemoved { nodes }));
        }
    }
}

/// Has operations carried out, in order, each for itself.
async fn ask(
    context: &Context,
    key: Option<String>,
    ops: Vec<(Op, Vec<u8>)>,
) -> Result<Vec<ZkReply>, Problem> {
    let count = ops.len();
    let requests = ops
        .into_iter()
        .map(|(op, body)| ZkRequest::Op { caller: 0, op: op.number(), body })
        .collect();
    let callers = vec![ZkCaller { superuser: true, ..ZkCaller::default() }];
    let batch = ZkBatch { callers, requests, enforce_quota: false };
    match context.propose(key, Command::Zk(Box::new(batch))).await?.reply {
        Reply::Zk(replies) if replies.len() == count => Ok(replies),
        _ => Err(unfitting()),
    }
}

fn unfitting() -> Problem {
    Problem::internal("the state answered something else than asked")
}

fn refusal(reply: &ZkReply) -> Result<(), ErrorCode> {
    match ErrorCode::of(reply.err) {
        Some(ErrorCode::Ok) => Ok(()),
        code => Err(code.unwrap_or(ErrorCode::SystemError)),
    }
}

fn record<'a, T: Field<'a>>(reply: &'a ZkReply) -> Result<T, Problem> {
    T::from_bytes(&reply.body).map_err(|_| unfitting())
}

fn refused(code: ErrorCode, path: &str) -> Problem {
    let conflict = |why: String| Problem::new(axum::http::StatusCode::CONFLICT, "conflict", why);
    match code {
        ErrorCode::NoNode => Problem::not_found("node", path),
        ErrorCode::BadVersion => conflict(format!("node {path} is in another version")),
        ErrorCode::NodeExists => conflict(format!("there is a node {path} already")),
        ErrorCode::NotEmpty => conflict(format!(
            "node {path} has children; remove them first, or with ?recursive=true"
        )),
        ErrorCode::NoChildrenForEphemerals => {
            conflict(format!("node {path} is ephemeral: it can't have children"))
        }
        ErrorCode::QuotaExceeded => conflict(format!("the quota that holds for {path} is used up")),
        ErrorCode::ThrottledOp => Problem::unavailable(
            "throttled",
            format!("node {path}: too much was counted for quotas lately; try again in a minute"),
        ),
        ErrorCode::BadArguments => {
            Problem::invalid(format!("node {path}: that can't be done to a node of this kind"))
        }
        code => Problem::internal(format!("node {path}: {code:?}")),
    }
}
