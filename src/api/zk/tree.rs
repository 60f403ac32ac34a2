//! `/v1/zk/tree`, `/v1/zk/dump` and `/v1/zk/summary`: many nodes at once.

use std::io::{self, BufWriter, Write};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use super::view::{self, checked};
use crate::api::context::{Context, INDEX_HEADER, Indexed, blocking};
use crate::api::error::Problem;
use crate::api::extract::Params;
use crate::api::view::problem::ProblemDetails;
use crate::api::view::query::{DumpZk, Read, ReadZkTree};
use crate::api::view::zk::{ZkNode, ZkSummary, ZkTree, ZkTreeRow};
use crate::limits::{ZK_TREE_ROWS, ZK_TREE_ROWS_MAX};
use crate::state::znodes::Tree;

/// Blocks waiting for a slow reader.
const BLOCKS: usize = 4;
/// Bytes of such a block.
const BLOCK_BYTES: usize = 64 << 10;

/// The nodes as a whole: how many, how large, their digest.
#[utoipa::path(
    get, path = "/v1/zk/summary", tag = "zookeeper", params(Read),
    responses((status = 200, body = ZkSummary), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn read_zk_summary(
    State(context): State<Context>,
    Params(query): Params<Read>,
) -> Result<Indexed<ZkSummary>, Problem> {
    let view = context.view(query.consistency).await?;
    Ok(Indexed(view.applied_index, view::summary(view.state.zk())))
}

/// The upper part of the tree, with counts of what is below each node.
#[utoipa::path(
    get, path = "/v1/zk/tree", tag = "zookeeper", params(ReadZkTree),
    responses((status = 200, body = ZkTree), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn read_zk_tree(
    State(context): State<Context>,
    Params(query): Params<ReadZkTree>,
) -> Result<Indexed<ZkTree>, Problem> {
    let top = checked(query.path)?;
    let limit = query.limit.unwrap_or(ZK_TREE_ROWS);
    if !(1..=ZK_TREE_ROWS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "?limit={limit} is out of bounds; ask for 1 to {ZK_TREE_ROWS_MAX} rows"
        )));
    }
    let depth = query.depth.unwrap_or(u32::MAX);
    let view = context.view(query.consistency).await?;
    if view.state.zk().get(&top).is_none() {
        return Err(Problem::not_found("node", &top));
    }
    let index = view.applied_index;
    let tree = blocking(&context, move || upper_part(view.state.zk(), &top, depth, limit)).await?;
    Ok(Indexed(index, tree))
}

/// Counts in one walk: a node's figures are added to all rows above it that are still open.
fn upper_part(tree: &Tree, top: &str, depth: u32, limit: usize) -> ZkTree {
    let mut rows: Vec<ZkTreeRow> = Vec::new();
    // The rows on the way to the node, by depth.
    let mut open: Vec<usize> = Vec::new();
    let mut cut = false;
    let slashes = |path: &str| if path == "/" { 0 } else { path.matches('/').count() };
    let top_depth = slashes(top);
    for (path, node) in tree.walk(top) {
        let below = u32::try_from(slashes(path) - top_depth).unwrap_or(u32::MAX);
        open.truncate(below as usize);
        let bytes = node.data_len() as u64;
        for above in &open {
            if let Some(row) = rows.get_mut(*above) {
                row.nodes += 1;
                row.bytes_below += bytes;
            }
        }
        if below > depth {
            continue;
        }
        if rows.len() == limit {
            cut = true;
            continue;
        }
        if open.len() == below as usize {
            open.push(rows.len());
        }
        rows.push(ZkTreeRow {
            path: path.to_owned(),
            depth: below,
            kind: view::kind(node).to_owned(),
            children: node.children(),
            bytes,
            nodes: 1,
            bytes_below: bytes,
        });
    }
    ZkTree { rows, cut }
}

/// All nodes at and below a path, each before those below it, a line of JSON each: all of one
/// moment.
#[utoipa::path(
    get, path = "/v1/zk/dump", tag = "zookeeper", params(DumpZk),
    responses((status = 200, body = ZkNode, content_type = "application/x-ndjson"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn dump_zk(
    State(context): State<Context>,
    Params(query): Params<DumpZk>,
) -> Result<Response, Problem> {
    let top = checked(query.path)?;
    let view = context.view(query.consistency).await?;
    if view.state.zk().get(&top).is_none() {
        return Err(Problem::not_found("node", &top));
    }
    let slot = context.stream_slot()?;
    let index = view.applied_index;
    let body = in_blocks(move |out| {
        let _slot = slot;
        let tree = view.state.zk();
        for (path, node) in tree.walk(&top) {
            serde_json::to_writer(&mut *out, &view::node(tree, path, node))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (INDEX_HEADER, HeaderValue::from(index)),
    ];
    Ok((headers, body).into_response())
}

/// An answer that is written on a thread of its own while it is sent. One that fails is cut off, so
/// that nobody takes it for whole.
pub(super) fn in_blocks(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Body {
    let (blocks, body) = mpsc::channel::<io::Result<Bytes>>(BLOCKS);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(BLOCK_BYTES, ToChannel(blocks.clone()));
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            let _ = blocks.blocking_send(Err(error));
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body))
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
