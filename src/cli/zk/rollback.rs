//! `orch zk migrate rollback`: the clients go back to the ensemble, with everything written since.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt;
use serde::Serialize;

use super::feed::Feed;
use super::migrate::{confirm, read};
use crate::api::view::zk::ZkStep;
use crate::cli::client::{Call, byte_stream};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::note;
use crate::zookeeper::data_dir::snapshot_name;
use crate::zookeeper::snapshot_file::verify;

/// Flags of `orch zk migrate rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Name of the migration
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the ensemble's new data directory is written; it may not be there yet
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

/// What it came to, for programs.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    snapshot: String,
    zxid: String,
    epoch: i64,
    digest: String,
    nodes: u64,
    sessions: u64,
}

pub(super) async fn run(args: RollbackArgs, context: &Context) -> Outcome {
    let RollbackArgs { name, to, yes } = args;
    let feed = Feed::new(&name, context);
    let version_2 = to.join("version-2");
    if version_2.exists() {
        let place = version_2.display();
        return Err(Failure::new(Exit::REFUSED, format!("{place} is there already"))
            .hint("name a directory that is not there yet"));
    }
    let row = read(&feed).await?;
    let row = match row.phase.as_str() {
        // Repeated: what was taken back is kept until the migration is aborted.
        "rolled_back" => row,
        "cut_over" => {
            confirm(
                yes,
                "This closes orch to the ensemble's clients until the ensemble is up again.",
            )?;
            feed.step(&ZkStep::RolledBack).await?
        }
        phase => {
            let phase = phase.replace('_', " ");
            return Err(Failure::new(Exit::REFUSED, format!("the migration {name} is {phase}"))
                .hint("orch zk migrate abort gives up what is not cut over yet"));
        }
    };
    note("closed to clients; writing what they wrote");
    let zxid = super::number(&row.zxid)?;
    let epoch = zxid >> 32;
    fs::create_dir_all(&version_2).map_err(|error| writing(&version_2, &error))?;
    let snapshot = version_2.join(snapshot_name(zxid));
    download(&name, &snapshot, context).await?;
    let checked = File::open(&snapshot).map_err(|error| writing(&snapshot, &error))?;
    let contents = verify(checked)
        .map_err(|error| Failure::failed(format!("{}: {error}", snapshot.display())))?;
    for file in ["currentEpoch", "acceptedEpoch"] {
        let path = version_2.join(file);
        write(&path, format!("{epoch}").as_bytes())?;
    }
    let report = Report {
        name: name.clone(),
        snapshot: snapshot.display().to_string(),
        zxid: row.zxid.clone(),
        epoch,
        digest: row.digest.clone(),
        nodes: contents.nodes,
        sessions: contents.sessions,
    };
    let place = version_2.display();
    context.output.value(&report, || {
        format!(
            "{} nodes and {} sessions up to {} are in {}, digest {}\n\
             next, on each server of the ensemble:\n  \
             1. stop it, if it runs\n  \
             2. move its dataDir/version-2 away (and dataLogDir/version-2, if there is one)\n  \
             3. copy {place} to dataDir/version-2; myid stays as it is\n  \
             4. start it\n  \
             5. when a majority is up, open the client ports again\n\
             then: orch zk migrate abort {name}, which frees what is kept here; orch stays closed \
             to their clients all the while",
            report.nodes, report.sessions, report.zxid, report.snapshot, report.digest
        )
    })?;
    Ok(Exit::DONE)
}

async fn download(name: &str, to: &Path, context: &Context) -> Result<(), Failure> {
    let call = Call::get(["zk", "imports", name, "snapshot"]).streaming("application/octet-stream");
    let mut stream = byte_stream(context.client.send(call).await?);
    let mut out = File::create(to).map_err(|error| writing(to, &error))?;
    while let Some(block) = stream.next().await {
        out.write_all(&block?).map_err(|error| writing(to, &error))?;
    }
    out.sync_all().map_err(|error| writing(to, &error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut out = File::create(path).map_err(|error| writing(path, &error))?;
    out.write_all(bytes).and_then(|()| out.sync_all()).map_err(|error| writing(path, &error))
}

fn writing(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("can't write {}: {error}", path.display()))
}
