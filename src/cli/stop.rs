//! `orch stop`: ends jobs.

use clap::Args;
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::target::{JobRef, ProjectFlag};
use super::words::job_name;
use crate::api::view::job::JobChanged;
use crate::api::view::query::StopJob;

/// Flags of `orch stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch stop web            end its copies; orch run starts it again
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
}

pub(super) async fn run(args: StopArgs, context: &Context) -> Outcome {
    let mut changed = Vec::new();
    for job in &args.jobs {
        let id = job.id(&args.project)?;
        let query = StopJob { project: Some(id.project.to_string()), purge: args.purge };
        let call = Call::new(Method::DELETE, ["jobs", id.name.as_str()])
            .query(&query)
            .hint("orch status lists the jobs there are");
        changed.push(context.client.json::<JobChanged>(call).await?);
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
    Ok(Exit::DONE)
}
