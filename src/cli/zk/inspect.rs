//! `orch zk inspect`: what a source holds, and what would stand in the way. Changes nothing.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::nodes::lines;
use super::wait::patiently;
use super::{ensemble, observe};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::words::{bytes, count};
use crate::migrate::zookeeper::files::Files;
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::link::LiveSource;
use crate::migrate::zookeeper::servers::{self, ServerStatus, has_digests};
use crate::migrate::zookeeper::source::Source;
use crate::migrate::zookeeper::walk::{losses, walk};
use crate::zookeeper::client::Ensemble;

/// Flags of `orch zk inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch zk inspect zk://zk1:2181,zk2:2181,zk3:2181
  orch zk inspect observer://zk1:2888,zk2:2888,zk3:2888
  orch zk inspect /var/lib/zookeeper

Exit code 4: something stands in the way.")]
pub(super) struct InspectArgs {
    /// zk://HOST:2181,… (an ensemble), observer://HOST:2888,… (its learners' port), or a directory
    #[arg(value_name = "SOURCE")]
    source: Source,
    /// Directory of the logs, where zoo.cfg names one as dataLogDir
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Who reads an ensemble's nodes there; digest:USER:PASSWORD
    #[arg(long, value_name = "SCHEME:PROOF", value_parser = ensemble::identity)]
    auth: Vec<(String, String)>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Inspection {
    source: String,
    /// `clients`, `observer` or `files`.
    way: &'static str,
    /// The release, if a server said it.
    version: Option<String>,
    /// `ensemble` or `standalone`, if a server said it.
    mode: Option<String>,
    servers: Vec<ServerStatus>,
    /// The newest transaction.
    zxid: Option<String>,
    /// Transactions behind the snapshot.
    transactions: u64,
    inventory: Inventory,
    /// What stands in the way.
    blockers: Vec<String>,
    /// What does not come along by this way.
    losses: Vec<String>,
    /// What is worth knowing.
    remarks: Vec<String>,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

pub(super) async fn run(args: InspectArgs, context: &Context) -> Outcome {
    let mut found = match &args.source {
        Source::Directory(path) => files(path, args.log_dir.as_deref()).await?,
        Source::Ensemble(from) => clients(from, &args.auth).await?,
        Source::Observer(quorum) => {
            let source = LiveSource { quorum: quorum.clone(), clients: None };
            observer(&source).await?
        }
    };
    found.source = args.source.to_string();
    found.blockers.extend(found.inventory.blockers());
    found.remarks.extend(found.inventory.remarks());
    context.output.value(&found, || describe(&found))?;
    Ok(if found.blockers.is_empty() { Exit::DONE } else { Exit::REFUSED })
}

async fn files(path: &Path, logs: Option<&Path>) -> Result<Inspection, Failure> {
    let (path, logs) = (path.to_owned(), logs.map(Path::to_owned));
    let read = tokio::task::spawn_blocking(move || {
        let files = Files::open(&path, logs.as_deref())?;
        let mut copied = files.read_snapshot(|_| true)?;
        files.read_transactions(&mut copied, i64::MAX, |_| true)?;
        Ok::<_, crate::migrate::zookeeper::files::FilesError>((files, copied))
    });
    let (files, copied) = read.await.map_err(failed)?.map_err(failed)?;
    let mut remarks = files.refused();
    for torn in &copied.torn {
        remarks.push(format!("{} ends within a transaction", torn.display()));
    }
    if copied.transactions > 0 {
        remarks.push(format!(
            "the figures are those of the snapshot; {} come behind it",
            count(copied.transactions, "transaction", "transactions")
        ));
    }
    Ok(Inspection {
        way: "files",
        zxid: Some(format!("{:#x}", copied.zxid)),
        transactions: copied.transactions,
        inventory: copied.inventory,
        remarks,
        losses: vec!["what a server that runs has written since".to_owned()],
        ..Inspection::default()
    })
}

async fn clients(from: &Ensemble, auth: &[(String, String)]) -> Result<Inspection, Failure> {
    let asking = servers::ask_all(&from.servers);
    let servers = patiently(&format!("the servers of {from}"), servers::WAIT, asking).await;
    let client = ensemble::connect(from, auth).await?;
    let mut inventory = Inventory::default();
    let walked = walk(&client, "/", async |row| {
        inventory.add(row);
        Ok(())
    });
    let walked = walked.await.map_err(failed)?;
    let _ = client.close().await;
    let leads = servers.iter().any(|server| server.mode.as_deref() == Some("leader"));
    let alone = servers.iter().any(|server| server.mode.as_deref() == Some("standalone"));
    let mut remarks = Vec::new();
    match (leads, alone) {
        (true, _) => remarks.push(
            "orch zk migrate start carries all of it while clients go on, if the servers here \
             reach the leader's quorum port (2888 unless zoo.cfg says otherwise)"
                .to_owned(),
        ),
        (_, true) => remarks.push(
            "a standalone server has no quorum port: orch zk import of its data directory carries \
             all, once it has stopped"
                .to_owned(),
        ),
        _ => {}
    }
    let version = servers.iter().find_map(|server| server.version.clone());
    if version.as_deref().is_some_and(|version| !has_digests(version)) {
        remarks.push(
            "this release writes no digests (3.6 and later do): a copy is proven by comparing it \
             whole with a second one"
                .to_owned(),
        );
    }
    Ok(Inspection {
        way: "clients",
        version,
        mode: match (leads, alone) {
            (true, _) => Some("ensemble".to_owned()),
            (_, true) => Some("standalone".to_owned()),
            _ => None,
        },
        zxid: Some(format!("{:#x}", walked.zxids.1)),
        inventory,
        losses: losses(&walked),
        remarks,
        servers,
        ..Inspection::default()
    })
}

async fn observer(source: &LiveSource) -> Result<Inspection, Failure> {
    let seen = observe::look(source).await?;
    Ok(Inspection {
        way: "observer",
        mode: Some("ensemble".to_owned()),
        zxid: Some(format!("{:#x}", seen.zxid)),
        transactions: seen.count,
        inventory: seen.inventory,
        ..Inspection::default()
    })
}

fn describe(found: &Inspection) -> String {
    let has = &found.inventory;
    let mut facts = vec![("source", found.source.clone())];
    facts.extend(found.version.clone().map(|version| ("version", version)));
    facts.extend(found.mode.clone().map(|mode| ("mode", mode)));
    for server in &found.servers {
        let how = match (&server.mode, &server.problem) {
            (Some(mode), _) => format!(
                "{mode}, {} connections, {:#x}",
                server.connections.unwrap_or(0),
                server.zxid.unwrap_or(0)
            ),
            (None, problem) => problem.clone().unwrap_or_default(),
        };
        facts.push(("server", format!("{}: {how}", server.address)));
    }
    facts.extend(found.zxid.clone().map(|zxid| ("transaction", zxid)));
    let of = |number: u64, what: &str| format!("{number} {what}");
    facts.push(("nodes", format!("{} ({} of data)", has.nodes, bytes(has.data_bytes))));
    if let Some((path, size)) = &has.largest {
        facts.push(("largest", format!("{path} ({})", bytes(*size))));
    }
    facts.push((
        "sessions",
        match has.shortest_timeout_ms {
            Some(ms) => format!("{}, the shortest time-out {ms} ms", has.sessions),
            None => of(has.sessions, ""),
        },
    ));
    facts.push((
        "in use",
        [
            of(has.ephemerals, "ephemeral"),
            of(has.containers, "containers"),
            of(has.ttl, "with a time to live"),
            of(has.counters, "with numbered or other children made"),
            of(has.quotas, "quotas"),
            of(has.restricted, "with access lists"),
        ]
        .join(", "),
    ));
    if !has.schemes.is_empty() {
        let schemes: Vec<&str> = has.schemes.iter().map(String::as_str).collect();
        facts.push(("schemes", schemes.join(", ")));
    }
    for (name, texts) in
        [("BLOCKS", &found.blockers), ("is lost", &found.losses), ("note", &found.remarks)]
    {
        facts.extend(texts.iter().map(|text| (name, text.clone())));
    }
    lines(&facts)
}
