//! `orch history`: a job's versions.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::plan::change_line;
use super::target::{JobRef, ProjectFlag};
use super::words::age;
use crate::api::view::job::JobVersionRow;
use crate::api::view::query::ListVersions;

/// Flags of `orch history`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  orch history web    each version with what it changed, the newest first")]
pub(super) struct HistoryArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
}

pub(super) async fn run(args: HistoryArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let query = ListVersions {
        project: Some(id.project.to_string()),
        consistency: context.consistency,
        ..ListVersions::default()
    };
    let call = Call::get(["jobs", id.name.as_str(), "versions"])
        .query(&query)
        .hint("orch status lists the jobs there are");
    let versions: Vec<JobVersionRow> = context.client.list(call).await?;
    let output = &context.output;
    output.value(&versions, || {
        let mut text = String::new();
        for version in &versions {
            let current = if version.current { ", wanted now" } else { "" };
            text.push_str(&format!(
                "version {}, {} {} ago{current}\n",
                version.version,
                version.change,
                age(output.now, version.at)
            ));
            for change in &version.changes {
                text.push_str(&format!("  {}\n", change_line(change)));
            }
        }
        text
    })?;
    Ok(Exit::DONE)
}
