//! `orch zk migrate`: an ensemble moves here while it is in use.

use clap::{Args, Subcommand};

use super::abort::{self, AbortArgs};
use super::cutover::{self, CutOverArgs};
use super::feed::Feed;
use super::nodes::lines;
use super::ports::Ports;
use super::rollback::{self, RollbackArgs};
use super::wait::join;
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{Cell, note};
use crate::cli::words::{age, bytes, count, or_dash};
use crate::config::host_name;
use crate::migrate::zookeeper::link::{LinkError, LiveSource};

/// Verbs of `orch zk migrate`.
#[derive(Debug, Args)]
#[command(after_help = "The way:
  orch zk migrate start NAME observer://zk1:2888,zk2:2888,zk3:2888 zk://zk1:2181,zk2:2181,zk3:2181
  orch zk migrate status NAME             until it is following and proven; the ensemble serves on
  orch zk migrate cutover NAME            close the ensemble's client ports when it says so
  orch zk migrate finish NAME             when all is well: no way back from here
  orch zk migrate rollback NAME --to DIR  or back, with everything written since

An ensemble is followed through its leader's quorum port (2888). Where that can't be reached, orch zk
import copies once, from files or as a client; start says with which commands.")]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    verb: MigrateVerb,
}

#[derive(Debug, Subcommand)]
enum MigrateVerb {
    /// Begin to follow an ensemble; nothing changes for its clients
    Start {
        /// Name of the migration
        #[arg(value_name = "NAME")]
        name: String,
        /// observer://HOST:2888,… (its learners' ports), zk://HOST:2181,… (its clients'), or both
        #[arg(value_name = "SOURCE", required = true, num_args = 1..=2)]
        source: Vec<String>,
        /// Throw away what was copied under this name, and begin anew
        #[arg(long)]
        again: bool,
        /// Don't try from here first: only the servers here reach the ensemble's quorum port
        #[arg(long)]
        no_probe: bool,
    },
    /// Tell how far migrations are, and what to do next
    Status {
        /// Name of the migration; all of them unless given
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Let the clients come here: waits until the ensemble's client ports are closed
    Cutover(CutOverArgs),
    /// Let the clients go back, with everything written since
    Rollback(RollbackArgs),
    /// Give a migration up; nothing has changed for the ensemble's clients, and the endpoint here
    /// stays closed to them
    Abort(AbortArgs),
    /// End a migration: no way back from here
    Finish {
        /// Name of the migration
        #[arg(value_name = "NAME")]
        name: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(args: MigrateArgs, context: &Context) -> Outcome {
    match args.verb {
        MigrateVerb::Start { name, source, again, no_probe } => {
            start(&name, &source.join(" "), again, no_probe, context).await?;
        }
        MigrateVerb::Status { name: None } => list(context).await?,
        MigrateVerb::Status { name: Some(name) } => {
            let row = read(&Feed::new(&name, context)).await?;
            context.output.value(&Status::of(row.clone(), context), || describe(&row, context))?;
            return Ok(if row.phase == "stopped" { Exit::FAILED } else { Exit::DONE });
        }
        MigrateVerb::Cutover(args) => return cutover::run(args, context).await,
        MigrateVerb::Rollback(args) => return rollback::run(args, context).await,
        MigrateVerb::Abort(args) => abort::run(args, context).await?,
        MigrateVerb::Finish { name, yes } => finish(&name, yes, context).await?,
    }
    Ok(Exit::DONE)
}

/// An import for programs, with what to do next.
#[derive(Debug, serde::Serialize)]
struct Status {
    #[serde(flatten)]
    row: ZkImportRow,
    /// Milliseconds since the source last gave something.
    heard_ms_ago: u64,
    /// What the operator should do next.
    next: String,
}

impl Status {
    fn of(row: ZkImportRow, context: &Context) -> Self {
        let heard_ms_ago = context.clock.now().since(row.heard_at.0).0;
        let next = next(&row);
        Self { row, heard_ms_ago, next }
    }
}

/// The import; an error if there is none.
pub(super) async fn read(feed: &Feed<'_>) -> Result<ZkImportRow, Failure> {
    feed.find().await?.ok_or_else(|| {
        Failure::new(Exit::NOT_FOUND, "there is no migration of that name")
            .hint("orch zk migrate status lists them")
    })
}

async fn start(
    name: &str,
    source: &str,
    again: bool,
    no_probe: bool,
    context: &Context,
) -> Result<(), Failure> {
    let source: LiveSource = source.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    if !no_probe && let Err(error) = join(&source, PROBE_ID, 0).await {
        return Err(no_way_in(name, &source, &error));
    }
    let feed = Feed::new(name, context);
    let step = ZkStep::Start { source: source.to_string(), live: true, again };
    let mut row = feed.step(&step).await?;
    if let Some(clients) = &source.clients {
        let ports = Ports::new(&clients.servers).await;
        let (open, closed) = (ports.open(), ports.not_open());
        if !open.is_empty() {
            row = feed.step(&ZkStep::PortsOpen { ports: open, from: host_name() }).await?;
        }
        if !closed.is_empty() {
            note(&format!(
                "note: not open from here: {}. A cut-over wants to have seen each client port of \
                 the ensemble open once, from the machine where it is asked for",
                closed.join(", ")
            ));
        }
    }
    context.output.value(&row, || {
        format!("{name} follows {}\n  orch zk migrate status {name}    how far it is", row.source)
    })
}

/// An ensemble can be followed as its observer only: what its clients see has no order of
/// transactions, no sessions, and nothing that proves it.
fn no_way_in(name: &str, source: &LiveSource, error: &LinkError) -> Failure {
    let clients = match &source.clients {
        Some(clients) => clients.to_string(),
        None => "zk://HOST:2181,…".to_owned(),
    };
    Failure::new(Exit::REFUSED, format!("from here nobody lets an observer in: {error}")).details(
        format!(
            "Nothing was begun. What can be done:\n  \
             open the leader's quorum port, and run this again; or, if the servers of orch reach it \
             and only this host does not:\n    \
             orch zk migrate start {name} {source} --no-probe\n  \
             or copy once, while the ensemble's clients are stopped; from a stopped server's files, \
             which have all:\n    \
             orch zk import /var/lib/zookeeper\n  \
             or as a client, without times to live, containers, sessions and ephemeral nodes:\n    \
             orch zk import {clients}"
        ),
    )
}

/// A number for the observer that only looks whether it gets in.
const PROBE_ID: i64 = 248;

async fn list(context: &Context) -> Result<(), Failure> {
    let rows: Vec<ZkImportRow> = context.client.list(Call::get(["zk", "imports"])).await?;
    let now = context.output.now;
    let headers = ["NAME", "PHASE", "LAG", "PROVEN", "NODES", "HEARD", "SOURCE"];
    context.output.rows(&rows, &headers, "no migrations and no imports", |row| {
        vec![
            row.name.as_str().into(),
            Cell::state(&row.phase.replace('_', " ")),
            or_dash(row.lag_transactions.map_or(String::new(), |lag| lag.to_string())).into(),
            Cell::number(row.proven),
            Cell::number(row.nodes),
            age(now, row.heard_at).into(),
            row.source.as_str().into(),
        ]
    })
}

fn describe(row: &ZkImportRow, context: &Context) -> String {
    let now = context.clock.now();
    let proof = match (&row.unverified_since, row.proven, &row.compared_at) {
        (Some(since), ..) => format!(
            "unverified since {since}: it is compared whole unless it heals ({} mismatches in all)",
            row.mismatches
        ),
        (None, 0, None) => "none yet".to_owned(),
        (None, proven, compared) => {
            let compared = compared.as_ref().map_or_else(
                || "not yet compared whole".to_owned(),
                |zxid| format!("compared whole at {zxid}"),
            );
            format!(
                "{} by digest, {} mismatches; {compared}",
                count(proven, "transaction", "transactions"),
                row.mismatches
            )
        }
    };
    let lag = match row.lag_transactions {
        _ if row.heard == 0 => "not known yet".to_owned(),
        Some(lag) => format!("{} ({} ms)", count(lag, "transaction", "transactions"), row.lag_ms),
        None => "the source is in another epoch".to_owned(),
    };
    let seconds = (row.heard_at.0.since(row.started_at.0).0 / 1000).max(1);
    let mut facts = vec![
        ("migration", row.name.clone()),
        ("source", row.source.clone()),
        ("phase", row.phase.replace('_', " ")),
        (
            "copy",
            format!(
                "{} nodes ({}), {} sessions, {} ephemeral",
                row.nodes,
                bytes(row.bytes),
                row.sessions,
                row.ephemerals
            ),
        ),
        ("transaction", format!("{} (the source: {})", row.zxid, row.source_zxid)),
        ("lag", lag),
        (
            "followed",
            format!(
                "{} ({} a second)",
                count(row.transactions, "transaction", "transactions"),
                row.transactions / seconds
            ),
        ),
        ("proof", proof),
        ("digest", row.digest.clone()),
        ("last heard", format!("{} ago", age(now, row.heard_at))),
    ];
    if !row.reason.is_empty() {
        facts.push(("reason", row.reason.clone()));
    }
    facts.push(("next", next(row)));
    lines(&facts)
}

/// What the operator should do.
fn next(row: &ZkImportRow) -> String {
    let name = &row.name;
    match row.phase.as_str() {
        "copying" if row.live && row.next_chunk == 0 => "wait: the servers join the ensemble; if \
             that lasts, their logs say why it does not let them in"
            .to_owned(),
        "copying" if row.live => "wait: the nodes are being copied".to_owned(),
        "copying" => "run the orch zk import again that began it: it goes on".to_owned(),
        "catching_up" | "following" if !row.live => format!(
            "run the orch zk import again that began it: it goes on; or orch zk migrate abort {name}"
        ),
        "catching_up" => "wait: what was written during the copy comes".to_owned(),
        "following" if row.unverified_since.is_some() => {
            "wait: the copy proves itself, or is compared".to_owned()
        }
        "following" if row.lag_transactions.is_none_or(|lag| lag > LAG_MAX) => {
            "wait: the copy is behind".to_owned()
        }
        "following" => format!("orch zk migrate cutover {name}, when it suits"),
        "stopped" => {
            format!("see the reason; then orch zk migrate start {name} … --again, or abort {name}")
        }
        "cut_over" => format!(
            "watch the clients; then orch zk migrate finish {name}, or rollback {name} --to DIR"
        ),
        "rolled_back" => format!(
            "start the ensemble on what rollback wrote; then orch zk migrate abort {name} frees \
             what is kept here (the endpoint stays closed to clients)"
        ),
        "aborted" | "finished" if row.keeps_closed => format!(
            "nothing: it is over. The endpoint stays closed to clients until another migration is \
             cut over, or until orch zk migrate abort {name} --open"
        ),
        _ => "nothing: it is over".to_owned(),
    }
}

/// Transactions that a copy may be behind for a cut-over to begin.
pub(super) const LAG_MAX: u64 = 10_000;

async fn finish(name: &str, yes: bool, context: &Context) -> Result<(), Failure> {
    let feed = Feed::new(name, context);
    let row = read(&feed).await?;
    if row.phase != "cut_over" {
        let phase = row.phase.replace('_', " ");
        return Err(Failure::new(Exit::REFUSED, format!("the migration {name} is {phase}"))
            .hint(next(&row)));
    }
    confirm(
        yes,
        "This is the point of no return: afterwards orch zk migrate rollback can't take the \
         clients back to the ensemble.",
    )?;
    let row = feed.step(&ZkStep::Finish).await?;
    context.output.value(&row, || {
        format!("the migration {name} is finished; the old ensemble can be taken away")
    })
}

/// Asks on a terminal.
pub(super) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Failure::usage(what).hint("say --yes where nobody can be asked"));
    }
    note(&format!("{what} Write yes to go on:"));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("can't read the answer: {error}")))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::REFUSED, "nothing was changed")),
    }
}
