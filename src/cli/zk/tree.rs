//! `orch zk tree` and `dump`: many nodes.

use clap::Args;
use futures::StreamExt;

use super::{HINT, node_path};
use crate::api::view::query::{DumpZk, ReadZkTree};
use crate::api::view::zk::ZkTree;
use crate::cli::client::{Call, byte_stream};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::{Cell, note, print_bytes};
use crate::cli::words::bytes;

/// Flags of `orch zk tree`.
#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// The top
    #[arg(value_name = "PATH", value_parser = node_path, default_value = "/")]
    path: String,
    /// Steps below the top that are shown
    #[arg(long, short, value_name = "N")]
    depth: Option<u32>,
    /// Nodes at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Flags of `orch zk dump`.
#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    /// The top
    #[arg(value_name = "PATH", value_parser = node_path, default_value = "/")]
    path: String,
}

pub(super) async fn tree(args: TreeArgs, context: &Context) -> Outcome {
    let query = ReadZkTree {
        path: Some(args.path),
        depth: args.depth,
        limit: args.limit,
        consistency: context.consistency,
    };
    let call = Call::get(["zk", "tree"]).query(&query).hint(HINT);
    let tree: ZkTree = context.client.json(call).await?;
    if !context.output.for_people() {
        context.output.value(&tree, String::new)?;
        return Ok(Exit::DONE);
    }
    let headers = ["NODE", "KIND", "CHILDREN", "SIZE", "NODES", "SIZE BELOW"];
    context.output.rows(&tree.rows, &headers, "no nodes", |row| {
        let name = match row.depth {
            0 => row.path.as_str(),
            _ => row.path.rsplit('/').next().unwrap_or_default(),
        };
        vec![
            format!("{}{name}", "  ".repeat(row.depth as usize)).into(),
            row.kind.as_str().into(),
            Cell::number(row.children),
            bytes(row.bytes).into(),
            Cell::number(row.nodes),
            bytes(row.bytes_below).into(),
        ]
    })?;
    if tree.cut {
        note("there are more; --depth shows less of each, --limit more of all");
    }
    Ok(Exit::DONE)
}

/// As it comes: lines of JSON are what everybody wants of this.
pub(super) async fn dump(args: DumpArgs, context: &Context) -> Outcome {
    let query = DumpZk { path: Some(args.path), consistency: context.consistency };
    let call = Call::get(["zk", "dump"]).query(&query).streaming("application/x-ndjson").hint(HINT);
    let mut stream = byte_stream(context.client.send(call).await?);
    while let Some(block) = stream.next().await {
        print_bytes(&block?)?;
    }
    Ok(Exit::DONE)
}
