//! `orch zk import`: another tree is copied here, once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::feed::Feed;
use super::{ensemble, files, node_path, observe};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::note;
use crate::cli::words::{bytes, count};
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::link::LiveSource;
use crate::migrate::zookeeper::source::Source;

/// Flags of `orch zk import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch zk import /var/lib/zookeeper                 all of it; nothing may be here yet
  orch zk import zk://zk1:2181,zk2:2181/app --at /app
  orch zk import observer://zk1:2888,zk2:2888 --only /app --existing keep

Interrupted, the same command goes on. Nothing is seen by clients before all of it is there.")]
pub(super) struct ImportArgs {
    /// zk://HOST:2181,… (an ensemble), observer://HOST:2888,… (its learners' port), or a directory
    #[arg(value_name = "SOURCE")]
    source: Source,
    /// Directory of the logs, where zoo.cfg names one as dataLogDir
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Who reads an ensemble's nodes there; digest:USER:PASSWORD
    #[arg(long, value_name = "SCHEME:PROOF", value_parser = ensemble::identity)]
    auth: Vec<(String, String)>,
    /// Put it under this node
    #[arg(long, value_name = "PATH", value_parser = node_path, default_value = "/")]
    at: String,
    /// Take only what is at and below this node
    #[arg(long, value_name = "PATH", value_parser = node_path, default_value = "/")]
    only: String,
    /// What becomes of nodes that are here already
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    existing: Existing,
    /// Name of the import, to tell several apart
    #[arg(long, value_name = "NAME", default_value = "import")]
    name: String,
    /// Begin anew, even if a part of it is here already
    #[arg(long)]
    again: bool,
}

/// What becomes of nodes that are here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Existing {
    /// Nothing may be here
    #[default]
    Refuse,
    /// They stay as they are
    Keep,
    /// Their data and access lists are replaced
    Overwrite,
    /// Everything there is removed before
    Replace,
}

impl Existing {
    fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Keep => "keep",
            Self::Overwrite => "overwrite",
            Self::Replace => "replace",
        }
    }
}

/// A copy that has come whole, before anything is done with it.
#[derive(Debug)]
pub(super) struct Copy {
    /// How the import is.
    pub(super) row: ZkImportRow,
    /// What the source holds, if it was read now and not before.
    pub(super) inventory: Inventory,
    /// The digest that the source says its tree has, if it says one.
    pub(super) source_digest: Option<u64>,
    /// What does not come along by this way.
    pub(super) losses: Vec<String>,
}

/// What an import came to, for programs.
#[derive(Debug, Serialize)]
struct Report<'r> {
    name: &'r str,
    source: &'r str,
    at: &'r str,
    only: &'r str,
    nodes: u64,
    bytes: u64,
    sessions: u64,
    transactions: u64,
    zxid: &'r str,
    digest: &'r str,
    source_digest: Option<String>,
    /// Whether the source's digest was known and is the same.
    proven: bool,
    seconds: f64,
    losses: &'r [String],
}

pub(super) async fn run(args: ImportArgs, context: &Context) -> Outcome {
    let began = tokio::time::Instant::now();
    let feed = Feed::new(&args.name, context);
    let copy = match &args.source {
        Source::Directory(path) => {
            files::copy(path, args.log_dir.as_deref(), args.again, &feed).await?
        }
        Source::Ensemble(from) => ensemble::copy(from, &args.auth, args.again, &feed).await?,
        Source::Observer(quorum) => {
            let from = LiveSource { quorum: quorum.clone(), clients: None };
            observe::copy(&from, args.again, &feed).await?
        }
    };
    let proven = check(&copy)?;
    let (row, losses) = (&copy.row, &copy.losses);
    for remark in copy.inventory.remarks() {
        note(&format!("note: {remark}"));
    }
    for loss in losses {
        note(&format!("note: {loss}"));
    }
    let merge = ZkStep::Merge {
        at: args.at.clone(),
        only: args.only.clone(),
        existing: args.existing.word().to_owned(),
    };
    feed.step(&merge).await?;
    let seconds = began.elapsed().as_secs_f64();
    let report = Report {
        name: &args.name,
        source: &row.source,
        at: &args.at,
        only: &args.only,
        nodes: row.nodes,
        bytes: row.bytes,
        sessions: row.sessions,
        transactions: row.transactions,
        zxid: &row.zxid,
        digest: &row.digest,
        source_digest: copy.source_digest.map(hex),
        proven,
        seconds,
        losses,
    };
    context.output.value(&report, || {
        let digest = match (&report.source_digest, proven) {
            (Some(digest), _) => format!("digest {} here and {digest} there: equal", row.digest),
            (None, _) => format!("digest {} (the source says none)", row.digest),
        };
        format!(
            "{} ({}), {} of sessions, {} behind the snapshot, up to {}\n{digest}\ndone in {seconds:.1} s",
            count(row.nodes, "node", "nodes"),
            bytes(row.bytes),
            row.sessions,
            count(row.transactions, "transaction", "transactions"),
            row.zxid,
        )
    })?;
    Ok(Exit::DONE)
}

pub(super) fn hex(digest: u64) -> String {
    format!("{digest:#018x}")
}

/// Compares the copy with what the source says of its tree. Whether it said anything.
fn check(copy: &Copy) -> Result<bool, Failure> {
    let Some(digest) = copy.source_digest.map(hex) else { return Ok(false) };
    let row = &copy.row;
    if digest == row.digest || digest == row.digest_ascii {
        return Ok(true);
    }
    Err(Failure::failed(format!(
        "the copy is not what the source says: its digest is {}, the source's {digest}",
        row.digest
    ))
    .hint(format!(
        "nothing was changed for clients; look at the source, then try again with --again, or \
         give up by `orch zk migrate abort {}`",
        row.name
    )))
}
