//! `orch stop`: ends jobs.

use std::time::Duration;

use clap::Args;
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::note;
use super::status::fetch;
use super::target::{JobRef, ProjectFlag};
use super::words::{count, job_name};
use crate::api::view::job::JobChanged;
use crate::api::view::query::StopJob;
use crate::model::name::JobId;

/// Flags of `orch stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch stop web            end its copies; orch run starts it again
  orch stop web --wait     and wait until they have ended
  orch stop web --purge    and forget it, with its history")]
pub(super) struct StopArgs {
    /// The jobs
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<JobRef>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Forget it as well, once its copies have ended
    #[arg(long)]
    purge: bool,
    /// Wait until its copies have ended
    #[arg(long, short)]
    wait: bool,
}

/// How often a job that ends is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(args: StopArgs, context: &Context) -> Outcome {
    let mut changed = Vec::new();
    let mut ids = Vec::new();
    for job in &args.jobs {
        let id = job.id(&args.project)?;
        let query = StopJob { project: Some(id.project.to_string()), purge: args.purge };
        let call = Call::new(Method::DELETE, ["jobs", id.name.as_str()])
            .query(&query)
            .hint("orch status lists the jobs there are");
        changed.push(context.client.json::<JobChanged>(call).await?);
        ids.push(id);
    }
    context.output.value(&changed, || {
        let lines: Vec<_> = changed
            .iter()
            .map(|job| {
                let name = job_name(&job.project, &job.job);
                match (job.changed, args.purge) {
                    (true, true) => format!("{name} is stopping, and will be forgotten"),
                    (true, false) => format!("{name} is stopping"),
                    (false, _) => format!("{name} was stopped already"),
                }
            })
            .collect();
        lines.join("\n")
    })?;
    if !args.wait {
        return Ok(Exit::DONE);
    }
    tokio::select! {
        outcome = all_ended(&ids, context) => outcome,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::new(Exit::INTERRUPTED, "interrupted; the jobs go on ending"))
        }
    }
}

async fn all_ended(ids: &[JobId], context: &Context) -> Outcome {
    for id in ids {
        let mut said = None;
        loop {
            let status = match fetch(id, context).await {
                // Forgotten, as was asked for.
                Err(failure) if failure.exit == Exit::NOT_FOUND => break,
                status => status?,
            };
            match status.row.state.as_str() {
                // A batch job that had ended before shows how.
                "stopped" | "complete" | "failed" => break,
                "stopping" => {}
                _ => return Err(Failure::failed(format!("{id} was started again by someone"))),
            }
            let left = status.allocations.len();
            if said != Some(left) {
                note(&format!("{id}: {} to end", count(left as u64, "copy", "copies")));
                said = Some(left);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if context.output.for_people() {
            note(&format!("{id} has ended"));
        }
    }
    Ok(Exit::DONE)
}
