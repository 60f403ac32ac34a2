//! `orch inspect`: a job as the file that makes it.

use clap::Args;
use serde_json::Value;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::target::{JobRef, ProjectFlag};
use crate::api::view::query::ReadSpec;

/// Flags of `orch inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch inspect web > web.yaml                  the file that makes it, as it is now
  orch inspect web --version 2 | orch run -    back to an older version
Passwords are left out.")]
pub(super) struct InspectArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// An older version; orch history lists them
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
}

pub(super) async fn run(args: InspectArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let query = ReadSpec {
        project: Some(id.project.to_string()),
        version: args.version,
        consistency: context.consistency,
    };
    let call = Call::get(["jobs", id.name.as_str(), "spec"])
        .query(&query)
        .hint(format!("orch status lists jobs, orch history {id} lists versions"));
    let spec: Value = context.client.json(call).await?;
    let yaml = serde_saphyr::to_string(&spec)
        .map_err(|error| Failure::failed(format!("can't write YAML: {error}")))?;
    context.output.value(&spec, || yaml)?;
    Ok(Exit::DONE)
}
