//! `orch zk import`: another tree is copied here, once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::ensemble::{PROBE_ID, Ways};
use super::feed::Feed;
use super::{ensemble, files, node_path, observe, wait};
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
  orch zk import /var/lib/zookeeper --only /app --at /old    /app comes to /old/app

Ways, and what they carry:
  DIRECTORY    all that the files have, sessions and times to live too
  observer://  all of it, at one moment, while the ensemble serves on
  zk://        the same, if the leader's quorum port can be reached from here and lets an observer
               in; else what a client sees: no times to live, containers, sessions and ephemeral
               nodes, and no single moment. What is lost is listed

A copy is proven by the source's own digest of its tree, or (observer) by a second copy where it says
none; files from before 3.6 say none, and have their checksums only. ZooKeeper writes wrong digests at
times; where that is the last word, see --accept-unproven.

Nothing is seen by clients before all of it is there. Interrupted, the same command goes on: from files
where it was; as an observer once the tree is here whole, and from its beginning before that; as a
client always from the beginning. Exit code 4: refused; it says what to do.")]
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
    /// With zk://, copy as a client even where the quorum port lets an observer in
    #[arg(long)]
    as_client: bool,
    /// Put it under this node, with its paths as they are
    #[arg(long, value_name = "PATH", value_parser = node_path, default_value = "/")]
    at: String,
    /// Take only what is at and below this node: /a comes to AT/a. The root and the nodes above are
    /// left as they are
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
    /// Put it in even if nothing says that the copy is right
    #[arg(long)]
    accept_unproven: bool,
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
    /// What is known of its being right.
    pub(super) proof: Proof,
    /// What does not come along by this way.
    pub(super) losses: Vec<String>,
}

/// What is known of a copy's being right.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The source says that its tree has this digest, and so has the copy.
    Digest(u64),
    /// It was held against a second copy, and is the same.
    Compared,
    /// The source says nothing of its tree.
    Silent,
    /// What the source says does not fit, or can't be had; why, and where.
    Open(String),
}

impl Proof {
    fn word(&self) -> &'static str {
        match self {
            Self::Digest(_) => "digest",
            Self::Compared => "comparison",
            Self::Silent => "none",
            Self::Open(_) => "accepted",
        }
    }
}

/// Whether a copy has that digest, in one of the character sets that a server may have.
pub(super) fn is_digest_of(row: &ZkImportRow, digest: u64) -> bool {
    let digest = hex(digest);
    digest == row.digest || digest == row.digest_ascii
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
    /// Whether the copy is known to be right.
    proven: bool,
    /// By what: `digest`, `comparison`, `none` (the source says nothing), `accepted` (it is not, and
    /// the operator knows).
    proof: &'static str,
    /// Why it is not, and where, as far as that is known.
    unproven: Option<&'r str>,
    seconds: f64,
    losses: &'r [String],
}

pub(super) async fn run(args: ImportArgs, context: &Context) -> Outcome {
    let began = tokio::time::Instant::now();
    let feed = Feed::new(&args.name, context);
    let below = |top: &str, path: &str| match path {
        "/" if top.is_empty() => "/".to_owned(),
        "/" => top.to_owned(),
        path if top == "/" => path.to_owned(),
        path => format!("{top}{path}"),
    };
    // Paths of the source are under its chroot, which its clients don't see.
    let only = match &args.source {
        Source::Ensemble(from) => below(&from.chroot, &args.only),
        _ => args.only.clone(),
    };
    let copy = match &args.source {
        Source::Directory(path) => {
            files::copy(path, args.log_dir.as_deref(), args.again, &feed).await?
        }
        Source::Ensemble(from) => {
            let ways = Ways { auth: &args.auth, as_client: args.as_client, top: &only };
            ensemble::copy(from, ways, args.again, &feed).await?
        }
        Source::Observer(quorum) => {
            let from = LiveSource { quorum: quorum.clone(), clients: None };
            // A wrong name is told before any server is asked.
            wait::join(&from, PROBE_ID, 0).await.map_err(|error| {
                Failure::failed(error.to_string()).hint(
                    "observer:// names quorum ports (2888), of which the leader's must be open to \
                     this host; zk:// names the clients' ports",
                )
            })?;
            observe::copy(&from, &from.to_string(), args.again, &feed).await?
        }
    };
    let (row, losses) = (&copy.row, &copy.losses);
    for remark in copy.inventory.remarks() {
        note(&format!("note: {remark}"));
    }
    if row.mismatches > 0 && row.unverified_since.is_none() {
        note(&format!(
            "note: {} told another digest than the copy's, and later ones were equal again, as when \
             / is written beside its children",
            count(row.mismatches, "transaction", "transactions")
        ));
    }
    for loss in losses {
        note(&format!("lost: {loss}"));
    }
    if let Proof::Open(why) = &copy.proof {
        if !args.accept_unproven {
            return Err(unproven(why, row));
        }
        note(&format!("note: the copy is not proven, and goes in: {why}"));
    }
    let merge = ZkStep::Merge {
        // Somebody else may have begun another one under this name meanwhile.
        generation: Some(row.generation),
        at: below(&args.at, &args.only),
        only,
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
        source_digest: match copy.proof {
            Proof::Digest(digest) => Some(hex(digest)),
            _ => None,
        },
        proven: matches!(copy.proof, Proof::Digest(_) | Proof::Compared),
        proof: copy.proof.word(),
        unproven: match &copy.proof {
            Proof::Open(why) => Some(why),
            _ => None,
        },
        seconds,
        losses,
    };
    context.output.value(&report, || {
        let digest = match (&copy.proof, &report.source_digest) {
            (_, Some(digest)) => format!("digest {} here and {digest} there: equal", row.digest),
            (Proof::Compared, _) => format!(
                "digest {}; a second copy of the source is the same, with access lists and sessions",
                row.digest
            ),
            (Proof::Open(_), _) => format!("digest {}; not proven", row.digest),
            _ => format!("digest {} (the source says none)", row.digest),
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

/// The copy is here, and nothing says that it is right.
fn unproven(why: &str, row: &ZkImportRow) -> Failure {
    let name = &row.name;
    Failure::new(Exit::REFUSED, format!("the copy is not proven: {why}")).hint(format!(
        "nothing was changed for clients. ZooKeeper itself tells wrong digests while / is written \
         beside its children, so the copy may be right: have the source write something more and \
         run the same command again, or take what is here with --accept-unproven, or give up by \
         orch zk migrate abort {name}"
    ))
}
