//! `orch run`: submits job files and waits until what they describe is up.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::job_file::{JobFile, read_all};
use super::output::note;
use super::progress::{self, Goal};
use super::target::ProjectFlag;
use super::verdict::Verdict;
use super::words::job_name;
use crate::api::view::job::{SubmitReply, SubmittedJob};
use crate::api::view::query::Submit;
use crate::model::name::JobId;
use crate::model::time::Millis;

/// Flags of `orch run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch run web.yaml                start or change it, and wait until it is up
  orch run web.yaml db.yaml        several files; all are checked before any is sent
  generate | orch run - --detach   from standard input, without waiting
Ctrl-C ends the waiting, not the job. A service is waited for until all its replicas are new and
ready, or its canaries are and somebody has to promote them; if its deployment fails, the exit code
is 1 and the reason is told. A batch job is waited for until it is complete.")]
pub(super) struct RunArgs {
    /// Job files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Don't wait until the jobs are up
    #[arg(long, short)]
    detach: bool,
    /// Wait no longer than this, as 5m; the jobs go on
    #[arg(long, value_name = "DURATION", conflicts_with = "detach")]
    timeout: Option<Millis>,
    /// Only if this is the job's version now; 0: only if there is no such job
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

/// What became of a job, for programs.
#[derive(Debug, Serialize)]
struct RunRow {
    #[serde(flatten)]
    submitted: SubmittedJob,
    /// `submitted`, or how the waiting ended: `up`, `needs_promotion`, `failed`, `waiting`.
    outcome: &'static str,
}

pub(super) async fn run(args: RunArgs, context: &Context) -> Outcome {
    let files = read_all(&args.files, &args.project.project.clone().unwrap_or_default())?;
    let mut submitted = Vec::new();
    let mut goals = Vec::new();
    for file in &files {
        for job in submit(file, &args, context).await? {
            for warning in &job.warnings {
                note(&format!("warning: {warning}"));
            }
            goals.push(Goal::new(id_of(&job)?, job.version));
            submitted.push(job);
        }
    }
    if args.detach {
        return print(submitted.into_iter().map(|job| (job, "submitted")), context);
    }
    let verdicts = progress::wait(&goals, args.timeout, context).await?;
    let outcome = progress::report(&goals, &verdicts, context)?;
    if !context.output.for_people() {
        print(submitted.into_iter().zip(verdicts.iter().map(Verdict::word)), context)?;
    }
    Ok(outcome)
}

fn print(jobs: impl Iterator<Item = (SubmittedJob, &'static str)>, context: &Context) -> Outcome {
    let rows: Vec<RunRow> =
        jobs.map(|(submitted, outcome)| RunRow { submitted, outcome }).collect();
    context.output.value(&rows, || {
        let lines: Vec<_> = rows
            .iter()
            .map(|RunRow { submitted: job, .. }| {
                let news = if job.changed { "is submitted" } else { "is unchanged" };
                format!("{} version {} {news}", job_name(&job.project, &job.job), job.version)
            })
            .collect();
        lines.join("\n")
    })?;
    Ok(Exit::DONE)
}

fn id_of(job: &SubmittedJob) -> Result<JobId, Failure> {
    let wrong =
        |_| Failure::failed(format!("the server knows a job {:?} by no good name", job.job));
    Ok(JobId {
        project: job.project.parse().map_err(wrong)?,
        name: job.job.parse().map_err(wrong)?,
    })
}

async fn submit(
    file: &JobFile,
    args: &RunArgs,
    context: &Context,
) -> Result<Vec<SubmittedJob>, Failure> {
    let query = Submit { if_version: args.if_version, project: args.project.name() };
    let call = Call::new(reqwest::Method::POST, ["jobs"])
        .query(&query)
        .body(file.text.clone(), file.format.content_type());
    let reply: SubmitReply = context.client.json(call).await.map_err(|mut failure| {
        failure.what = format!("{}: {}", file.name, failure.what);
        failure
    })?;
    Ok(reply.jobs)
}
