//! `orch zk`: ZooKeeper's nodes, and how they come here.

mod abort;
mod cutover;
mod endpoints;
mod ensemble;
mod feed;
mod files;
mod import;
mod inspect;
mod migrate;
mod nodes;
mod observe;
mod ports;
mod rollback;
mod tree;
mod wait;
mod watch;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Failure, Outcome};

/// Verbs of `orch zk`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch zk ls /app
  orch zk get /app/config
  orch zk set /app/config @file.json --create    from a file; - is standard input
  orch zk set /app/config new --version 3        only if nobody has written since
  orch zk tree / --depth 2                       what there is, with counts
  orch zk watch /app -r                          changes as they happen
  orch zk dump /app > app.jsonl                  a line of JSON for each node

Who asks here is an operator: access lists do not hold.")]
pub(super) struct ZkArgs {
    #[command(subcommand)]
    verb: ZkVerb,
}

#[derive(Debug, Subcommand)]
enum ZkVerb {
    /// List a node's children
    Ls(nodes::LsArgs),
    /// Print a node's data
    Get(nodes::GetArgs),
    /// Write a node's data
    Set(nodes::SetArgs),
    /// Remove nodes
    Rm(nodes::RmArgs),
    /// Tell what is known of a node, or of all nodes
    Stat(nodes::StatArgs),
    /// Show the upper part of the tree, with counts of what is below
    Tree(tree::TreeArgs),
    /// Show changes as they happen
    Watch(watch::WatchArgs),
    /// Print all nodes at and below one, a line of JSON each
    Dump(tree::DumpArgs),
    /// Tell what a ZooKeeper holds, and what would stand in the way; changes nothing
    Inspect(inspect::InspectArgs),
    /// Copy the nodes of a ZooKeeper here, once
    Import(import::ImportArgs),
    /// Move an ensemble here while it is in use
    Migrate(migrate::MigrateArgs),
}

pub(super) async fn run(args: ZkArgs, context: &Context) -> Outcome {
    match args.verb {
        ZkVerb::Ls(args) => nodes::list(args, context).await,
        ZkVerb::Get(args) => nodes::get(args, context).await,
        ZkVerb::Set(args) => nodes::set(args, context).await,
        ZkVerb::Rm(args) => nodes::remove(args, context).await,
        ZkVerb::Stat(args) => nodes::stat(args, context).await,
        ZkVerb::Tree(args) => tree::tree(args, context).await,
        ZkVerb::Watch(args) => watch::run(args, context).await,
        ZkVerb::Dump(args) => tree::dump(args, context).await,
        ZkVerb::Inspect(args) => inspect::run(args, context).await,
        ZkVerb::Import(args) => import::run(args, context).await,
        ZkVerb::Migrate(args) => migrate::run(args, context).await,
    }
}

/// A node's path on the command line.
fn node_path(text: &str) -> Result<String, String> {
    crate::jute::path::check(text).map(|()| text.to_owned()).map_err(|why| why.to_string())
}

/// The number of a transaction, as the API writes it.
fn number(text: &str) -> Result<i64, Failure> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map(u64::cast_signed)
        .map_err(|_| Failure::failed(format!("the server sent {text:?} for a transaction")))
}

const HINT: &str = "orch zk tree shows what there is";
