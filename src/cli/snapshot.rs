//! `orch snapshot`: the cluster's whole state in a file.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures::StreamExt;
use reqwest::Method;

use super::client::{Call, byte_stream};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::note;
use super::words::{age, bytes};
use crate::api::snapshot_file::{self, SnapshotSummary};
use crate::api::view::query::Read;
use crate::api::view::server::RestoreReply;

/// Verbs of `orch snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch snapshot save cluster.snap
  orch snapshot inspect cluster.snap          needs no server
  orch snapshot restore cluster.snap --yes    everything becomes as it was then")]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Save the cluster's state to a file
    Save {
        /// Where to; a file of that name is replaced once all has arrived
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put a saved state in the place of the cluster's
    Restore {
        /// The saved state
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Check a file, and tell what is in it
    Inspect {
        /// The saved state
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) async fn run(args: SnapshotArgs, context: &Context) -> Outcome {
    match args.verb {
        SnapshotVerb::Save { file } => {
            let summary = save(&file, context).await?;
            context.output.value(&summary, || {
                let size = bytes(summary.bytes);
                format!("saved {} ({size}, checksum {})", file.display(), summary.checksum)
            })?;
        }
        SnapshotVerb::Restore { file, yes } => restore(file, yes, context).await?,
        SnapshotVerb::Inspect { file } => {
            let summary = inspect(&file)?;
            context.output.value(&summary, || describe(&summary, context))?;
        }
    }
    Ok(Exit::DONE)
}

fn describe(summary: &SnapshotSummary, context: &Context) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("cluster", summary.cluster_id.clone()),
        ("index", summary.index.to_string()),
        ("saved at", format!("{} ({} ago)", summary.at, age(context.output.now, summary.at))),
        ("jobs", summary.jobs.to_string()),
        ("nodes", summary.nodes.to_string()),
        ("allocations", summary.allocations.to_string()),
        ("variables", summary.variables.to_string()),
        ("last event", summary.last_event.to_string()),
        ("size", bytes(summary.bytes)),
        ("checksum", format!("{}, right", summary.checksum)),
    ] {
        text.push_str(&format!("{name:<13}{value}\n"));
    }
    text
}

fn inspect(file: &Path) -> Result<SnapshotSummary, Failure> {
    let input = File::open(file)
        .map_err(|error| Failure::failed(format!("can't read {}: {error}", file.display())))?;
    snapshot_file::inspect(BufReader::new(input))
        .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))
}

/// Under another name until it is whole and checked.
async fn save(file: &Path, context: &Context) -> Result<SnapshotSummary, Failure> {
    let query = Read { consistency: context.consistency };
    let call = Call::get(["snapshot"]).query(&query).streaming("application/octet-stream");
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let outcome = match context.client.send(call).await {
        Ok(response) => receive(response, &partial).await,
        Err(failure) => return Err(failure),
    };
    let summary = outcome.and_then(|()| inspect(&partial)).and_then(|summary| {
        std::fs::rename(&partial, file).map_err(|error| writing(file, &error))?;
        Ok(summary)
    });
    if summary.is_err() {
        // What is not whole is of no use to anybody.
        let _ = std::fs::remove_file(&partial);
    }
    summary
}

fn writing(file: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("can't write {}: {error}", file.display()))
}

async fn receive(response: reqwest::Response, partial: &Path) -> Result<(), Failure> {
    let mut out = File::create(partial).map_err(|error| writing(partial, &error))?;
    let mut stream = byte_stream(response);
    while let Some(chunk) = stream.next().await {
        out.write_all(&chunk?).map_err(|error| writing(partial, &error))?;
    }
    out.sync_all().map_err(|error| writing(partial, &error))
}

async fn restore(file: PathBuf, yes: bool, context: &Context) -> Result<(), Failure> {
    let summary = inspect(&file)?;
    if !yes {
        confirm(&summary, context)?;
    }
    let call = Call::new(Method::PUT, ["snapshot"]).file(file.clone()).without_key();
    let reply: RestoreReply = context.client.json(call).await?;
    context.output.value(&reply, || {
        format!("the cluster is as {} has it, from index {} on", file.display(), reply.index)
    })
}

fn confirm(summary: &SnapshotSummary, context: &Context) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("restoring replaces the cluster's whole state")
            .hint("say --yes where nobody can be asked"));
    }
    note(&format!(
        "This replaces the cluster's whole state by one of {} ago with {} jobs. Write yes to go on:",
        age(context.output.now, summary.at),
        summary.jobs
    ));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("can't read the answer: {error}")))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::REFUSED, "nothing was changed")),
    }
}
