//! `orch scale`: how many copies of services are kept up.

use std::str::FromStr;

use clap::Args;
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::progress::{self, Goal};
use super::target::{JobRef, ProjectFlag};
use super::words::job_name;
use crate::api::view::job::{JobChanged, ScaleRequest};
use crate::api::view::query::ProjectWrite;

/// Flags of `orch scale`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch scale web=5
  orch scale web=5 shop/worker=0
  orch scale web=5 --wait          until the new copies are ready")]
pub(super) struct ScaleArgs {
    /// The services with the number wanted of each
    #[arg(required = true, value_name = "JOB=N")]
    targets: Vec<Target>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Wait until as many are ready
    #[arg(long, short)]
    wait: bool,
}

/// A job and a number.
#[derive(Debug, Clone)]
struct Target {
    job: JobRef,
    replicas: u32,
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (job, number) = text.split_once('=').ok_or("write the job and the number, as web=5")?;
        let job = job.parse().map_err(|error: super::target::JobRefError| error.to_string())?;
        let replicas = number
            .parse()
            .map_err(|_| format!("{number:?} is no number of copies; write a job as web=5"))?;
        Ok(Self { job, replicas })
    }
}

pub(super) async fn run(args: ScaleArgs, context: &Context) -> Outcome {
    let mut changed = Vec::new();
    let mut goals = Vec::new();
    for Target { job, replicas } in &args.targets {
        let id = job.id(&args.project)?;
        let query = ProjectWrite { project: Some(id.project.to_string()) };
        let call = Call::new(Method::PUT, ["jobs", id.name.as_str(), "scale"])
            .query(&query)
            .json(&ScaleRequest { replicas: *replicas })?
            .hint("orch status lists the jobs there are");
        let job: JobChanged = context.client.json(call).await?;
        goals.push(Goal::new(id, job.version));
        changed.push(job);
    }
    context.output.value(&changed, || {
        let lines: Vec<_> = changed
            .iter()
            .zip(&args.targets)
            .map(|(job, target)| {
                let name = job_name(&job.project, &job.job);
                let news = if job.changed { "is to have" } else { "has" };
                format!("{name} {news} {} copies, version {}", target.replicas, job.version)
            })
            .collect();
        lines.join("\n")
    })?;
    if !args.wait {
        return Ok(Exit::DONE);
    }
    let verdicts = progress::wait(&goals, None, context).await?;
    progress::report(&goals, &verdicts, context)
}
