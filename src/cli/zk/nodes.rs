//! `orch zk ls`, `get`, `set`, `rm`, `stat`: single nodes.

use std::io::{IsTerminal, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use reqwest::Method;
use serde::Serialize;

use super::{HINT, node_path};
use crate::api::view::query::{
    ListZkChildren, Read as ReadQuery, ReadZkNode, RemoveZkNode, WriteZkNode,
};
use crate::api::view::zk::{ZkAcl, ZkChild, ZkNode, ZkRemoved, ZkStat, ZkSummary, ZkWritten};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::Cell;
use crate::cli::words::{age, bytes, count, printable};
use crate::limits::API_BODY_BYTES_MAX;

/// Flags of `orch zk ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// The node
    #[arg(value_name = "PATH", value_parser = node_path, default_value = "/")]
    path: String,
}

/// Flags of `orch zk get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The node
    #[arg(value_name = "PATH", value_parser = node_path)]
    path: String,
}

/// Flags of `orch zk set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The node
    #[arg(value_name = "PATH", value_parser = node_path)]
    path: String,
    /// The data; @FILE for a file's bytes, - for standard input
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: String,
    /// Make the node if there is none
    #[arg(long, conflicts_with = "version")]
    create: bool,
    /// Only in this version
    #[arg(long, value_name = "N")]
    version: Option<i32>,
}

/// Flags of `orch zk rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The node
    #[arg(value_name = "PATH", value_parser = node_path)]
    path: String,
    /// All nodes below it as well
    #[arg(long, short)]
    recursive: bool,
    /// Only in this version
    #[arg(long, value_name = "N")]
    version: Option<i32>,
}

/// Flags of `orch zk stat`.
#[derive(Debug, Args)]
pub(super) struct StatArgs {
    /// The node; all nodes together unless given
    #[arg(value_name = "PATH", value_parser = node_path)]
    path: Option<String>,
}

pub(super) async fn list(args: LsArgs, context: &Context) -> Outcome {
    let query = ListZkChildren {
        path: Some(args.path),
        consistency: context.consistency,
        ..ListZkChildren::default()
    };
    let call = Call::get(["zk", "children"]).query(&query).hint(HINT);
    let rows: Vec<ZkChild> = context.client.list(call).await?;
    let output = &context.output;
    output.rows(
        &rows,
        &["NAME", "KIND", "CHILDREN", "SIZE", "VERSION", "WRITTEN"],
        "no children",
        |row| {
            vec![
                row.name.as_str().into(),
                row.stat.kind.as_str().into(),
                Cell::number(row.stat.children),
                bytes(row.stat.bytes).into(),
                Cell::number(row.stat.version),
                age(output.now, row.stat.modified_at).into(),
            ]
        },
    )?;
    Ok(Exit::DONE)
}

async fn read(path: &str, context: &Context) -> Result<ZkNode, Failure> {
    let query =
        ReadZkNode { path: Some(path.to_owned()), raw: false, consistency: context.consistency };
    context.client.json(Call::get(["zk", "node"]).query(&query).hint(HINT)).await
}

/// A node for programs; exactly one of the data is there, or neither if the node has none.
#[derive(Debug, Serialize)]
struct Shown<'n> {
    path: &'n str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// Of bytes that are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    stat: &'n ZkStat,
    acl: &'n [ZkAcl],
}

pub(super) async fn get(args: GetArgs, context: &Context) -> Outcome {
    let node = read(&args.path, context).await?;
    let data = match &node.data {
        None => None,
        Some(text) => Some(STANDARD.decode(text).map_err(|error| {
            Failure::failed(format!("the server sent data that can't be read: {error}"))
        })?),
    };
    if context.output.for_people() {
        let data = data.unwrap_or_default();
        context.output.bytes(&data)?;
        if std::io::stdout().is_terminal() && !data.is_empty() && !data.ends_with(b"\n") {
            context.output.bytes(b"\n")?;
        }
        return Ok(Exit::DONE);
    }
    let text = data.map(String::from_utf8);
    let (data, data_base64) = match text {
        Some(Ok(text)) => (Some(text), None),
        Some(Err(_)) => (None, node.data.clone()),
        None => (None, None),
    };
    let shown = Shown { path: &node.path, data, data_base64, stat: &node.stat, acl: &node.acl };
    context.output.value(&shown, String::new)?;
    Ok(Exit::DONE)
}

pub(super) async fn stat(args: StatArgs, context: &Context) -> Outcome {
    let Some(path) = args.path else {
        let query = ReadQuery { consistency: context.consistency };
        let summary: ZkSummary =
            context.client.json(Call::get(["zk", "summary"]).query(&query)).await?;
        context.output.value(&summary, || {
            lines(&[
                ("transaction", summary.zxid.clone()),
                ("digest", summary.digest.clone()),
                ("nodes", summary.nodes.to_string()),
                ("size", bytes(summary.bytes)),
                ("access lists", summary.acls.to_string()),
                ("sessions", summary.sessions.to_string()),
                ("ephemeral", summary.ephemerals.to_string()),
                ("ttl, container", summary.mortals.to_string()),
                ("position", summary.position.to_string()),
            ])
        })?;
        return Ok(Exit::DONE);
    };
    let node = read(&path, context).await?;
    context.output.value(&node, || {
        let stat = &node.stat;
        let now = context.output.now;
        let mut facts = vec![
            ("path", printable(&node.path)),
            ("kind", stat.kind.clone()),
            (
                "made",
                format!(
                    "{} ({} ago), in {}",
                    stat.created_at,
                    age(now, stat.created_at),
                    stat.czxid
                ),
            ),
            (
                "written",
                format!(
                    "{} ({} ago), in {}",
                    stat.modified_at,
                    age(now, stat.modified_at),
                    stat.mzxid
                ),
            ),
            ("version", format!("{} (access list {})", stat.version, stat.aversion)),
            (
                "children",
                format!(
                    "{} (cversion {}, last changed in {})",
                    stat.children, stat.cversion, stat.pzxid
                ),
            ),
            ("size", if node.data.is_none() { "no data".to_owned() } else { bytes(stat.bytes) }),
        ];
        if let Some(session) = &stat.session {
            facts.push(("session", session.clone()));
        }
        if let Some(ttl) = stat.ttl_ms {
            facts.push(("time to live", format!("{ttl} ms")));
        }
        for acl in &node.acl {
            facts.push((
                "allows",
                printable(&format!("{} to {}:{}", acl.perms, acl.scheme, acl.id)),
            ));
        }
        lines(&facts)
    })?;
    Ok(Exit::DONE)
}

/// Facts under one another.
pub(super) fn lines(facts: &[(&str, String)]) -> String {
    facts.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
}

pub(super) async fn set(args: SetArgs, context: &Context) -> Outcome {
    let query = WriteZkNode { path: args.path, version: args.version, create: args.create };
    let call = Call::new(Method::PUT, ["zk", "node"])
        .query(&query)
        .body(data_bytes(&args.data)?, "application/octet-stream")
        .hint("--create makes a node; the one above it must be there");
    let written: ZkWritten = context.client.json(call).await?;
    context.output.value(&written, || {
        let what = if written.created { "made" } else { "written" };
        printable(&format!("{} is {what}, version {}", written.path, written.version))
    })?;
    Ok(Exit::DONE)
}

pub(super) async fn remove(args: RmArgs, context: &Context) -> Outcome {
    let query = RemoveZkNode { path: args.path, version: args.version, recursive: args.recursive };
    let mut call = Call::new(Method::DELETE, ["zk", "node"]).query(&query).hint(HINT);
    if args.recursive {
        // Large subtrees take their time.
        call = call.unhurried();
    }
    let removed: ZkRemoved = context.client.json(call).await?;
    context
        .output
        .value(&removed, || format!("{} removed", count(removed.nodes, "node", "nodes")))?;
    Ok(Exit::DONE)
}

fn data_bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let most = API_BODY_BYTES_MAX as u64 + 1;
    let mut data = Vec::new();
    if text == "-" {
        let mut input = std::io::stdin().lock().take(most);
        input
            .read_to_end(&mut data)
            .map_err(|error| Failure::failed(format!("can't read standard input: {error}")))?;
    } else if let Some(file) = text.strip_prefix('@') {
        std::fs::File::open(file)
            .and_then(|file| file.take(most).read_to_end(&mut data))
            .map_err(|error| Failure::failed(format!("can't read {file}: {error}")))?;
    } else {
        data.extend_from_slice(text.as_bytes());
    }
    if data.len() > API_BODY_BYTES_MAX {
        return Err(Failure::failed(format!(
            "the data are longer than the {API_BODY_BYTES_MAX} bytes that a node takes from here"
        )));
    }
    Ok(data)
}
