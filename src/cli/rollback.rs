//! `orch rollback` and `orch restart`: versions that no file describes.

use clap::Args;
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::progress::{self, Goal};
use super::target::{JobRef, ProjectFlag};
use super::words::job_name;
use crate::api::view::deployment::RollbackRequest;
use crate::api::view::job::JobChanged;
use crate::api::view::query::ProjectWrite;
use crate::model::name::JobId;

/// Flags of `orch rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch rollback web            to the last healthy version that runs something else
  orch rollback web --to 3     to version 3; orch history web lists those that are kept
It makes a new version, brought out as any other; how many replicas there are stays as it is.")]
pub(super) struct RollbackArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// The version to go back to
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    /// Don't wait until it is up
    #[arg(long, short)]
    detach: bool,
}

/// Flags of `orch restart`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch restart web             new replicas of the same version, a few at a time
  orch restart web --detach    without waiting
Also tries again what has failed for good, and starts again what was stopped.")]
pub(super) struct RestartArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// Don't wait until it is up
    #[arg(long, short)]
    detach: bool,
}

pub(super) async fn rollback(args: RollbackArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let call = Call::new(Method::POST, ["jobs", id.name.as_str(), "rollback"])
        .query(&ProjectWrite { project: Some(id.project.to_string()) })
        .json(&RollbackRequest { version: args.to })?
        .hint(format!("orch history {id} lists versions, orch status jobs"));
    let changed: JobChanged = context.client.json(call).await?;
    let back = match args.to {
        Some(to) => format!("goes back to version {to}"),
        None => "goes back to its last healthy version".to_owned(),
    };
    follow(id, changed, &back, args.detach, context).await
}

pub(super) async fn restart(args: RestartArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let call = Call::new(Method::POST, ["jobs", id.name.as_str(), "restart"])
        .query(&ProjectWrite { project: Some(id.project.to_string()) })
        .hint("orch status lists the jobs there are");
    let changed: JobChanged = context.client.json(call).await?;
    follow(id, changed, "is being restarted", args.detach, context).await
}

async fn follow(
    id: JobId,
    changed: JobChanged,
    what: &str,
    detach: bool,
    context: &Context,
) -> Outcome {
    let (name, version) = (job_name(&changed.project, &changed.job), changed.version);
    if detach || !changed.changed {
        context.output.value(&changed, || match changed.changed {
            true => format!("{name} {what}, as version {version}"),
            false => format!("{name} runs that already, as version {version}"),
        })?;
        return Ok(Exit::DONE);
    }
    let goals = [Goal::new(id, version)];
    let verdicts = progress::wait(&goals, None, context).await?;
    let exit = progress::report(&goals, &verdicts, context)?;
    if !context.output.for_people() {
        context.output.value(&changed, String::new)?;
    }
    Ok(exit)
}
