//! `orch deploy`: how jobs get from one version to the next.

use std::str::FromStr;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output};
use super::progress::{self, Goal};
use super::target::{JobRef, JobRefError, ProjectFlag};
use super::words::{age, first_line, job_name, or_dash, printable, until};
use crate::api::view::Page;
use crate::api::view::deployment::{AbortRequest, DeploymentRow};
use crate::api::view::query::{ListDeployments, Read};
use crate::model::deployment::DeploymentId;
use crate::model::name::JobId;

/// Verbs of `orch deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch deploy ls                  deployments that are under way
  orch deploy status web -w       what web's deployment waits for, until it is over
  orch deploy promote web         the canary is good: let the rest follow
  orch deploy abort web           it is not: go back to the version before
  orch deploy pause d17           hold a deployment by its number; resume lets it go on
A job names its newest deployment; d17 names one by its number.")]
pub(super) struct DeployArgs {
    #[command(subcommand)]
    verb: DeployVerb,
}

#[derive(Debug, Subcommand)]
enum DeployVerb {
    /// List deployments: those under way, or all of one job
    #[command(after_help = "Examples:
  orch deploy ls          those under way
  orch deploy ls web      all of web that are kept, the newest first
  orch deploy ls --all    all of every job")]
    Ls {
        /// All of this job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
        #[command(flatten)]
        project: ProjectFlag,
        /// Those that are over as well
        #[arg(long, short)]
        all: bool,
    },
    /// Tell how far a deployment is and what it waits for
    #[command(after_help = "Examples:
  orch deploy status web        now
  orch deploy status web -w     until it is over
With --wait, the exit code is 0 if it was successful and 1 if it was not.")]
    Status {
        #[command(flatten)]
        which: Which,
        /// Wait until it is over
        #[arg(long, short)]
        wait: bool,
    },
    /// Let the rest follow the canaries, or the second set take over
    #[command(after_help = "Example:
  orch deploy promote web")]
    Promote(Which),
    /// Hold a deployment: no further replica is replaced
    #[command(after_help = "Example:
  orch deploy pause web     orch deploy resume web lets it go on")]
    Pause(Which),
    /// Let a deployment go on that was held
    #[command(after_help = "Example:
  orch deploy resume web")]
    Resume(Which),
    /// Give a deployment up and go back to the version before
    #[command(after_help = "Examples:
  orch deploy abort web                go back to the last healthy version
  orch deploy abort web --no-revert    stay as it is now, half-way")]
    Abort {
        #[command(flatten)]
        which: Which,
        /// Don't go back: what runs stays
        #[arg(long)]
        no_revert: bool,
    },
}

/// Which deployment.
#[derive(Debug, Args)]
struct Which {
    /// The job whose newest deployment it is, or the deployment's number
    #[arg(value_name = "JOB|dN")]
    of: DeployRef,
    #[command(flatten)]
    project: ProjectFlag,
}

/// `d17`, or the newest of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeployRef {
    Id(DeploymentId),
    Newest(JobRef),
}

impl FromStr for DeployRef {
    type Err = JobRefError;
    fn from_str(text: &str) -> Result<Self, JobRefError> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            // A job of such a name is meant by `default/d17`.
            Err(_) => Ok(Self::Newest(text.parse()?)),
        }
    }
}

const HINT: &str = "orch deploy ls --all lists the deployments that are kept";

pub(super) async fn run(args: DeployArgs, context: &Context) -> Outcome {
    match args.verb {
        DeployVerb::Ls { job, project, all } => list(job.as_ref(), &project, all, context).await,
        DeployVerb::Status { which, wait } => status(&which, wait, context).await,
        DeployVerb::Promote(which) => {
            write(&which, "promote", None, context, |row| {
                let name = job_name(&row.project, &row.job);
                format!("version {} of {name} is promoted ({})", row.version, row.id)
            })
            .await
        }
        DeployVerb::Pause(which) => {
            write(&which, "pause", None, context, |row| {
                let name = job_name(&row.project, &row.job);
                format!("{} of {name} is held; orch deploy resume {name} lets it go on", row.id)
            })
            .await
        }
        DeployVerb::Resume(which) => {
            write(&which, "resume", None, context, |row| {
                format!("{} of {} goes on", row.id, job_name(&row.project, &row.job))
            })
            .await
        }
        DeployVerb::Abort { which, no_revert } => {
            let ask = AbortRequest { revert: !no_revert };
            write(&which, "abort", Some(&ask), context, |row| {
                let name = job_name(&row.project, &row.job);
                format!("{} of {name} is given up: {}", row.id, printable(&row.reason))
            })
            .await
        }
    }
}

async fn list(
    job: Option<&JobRef>,
    project: &ProjectFlag,
    all: bool,
    context: &Context,
) -> Outcome {
    let output = &context.output;
    let id = job.map(|job| job.id(project)).transpose()?;
    let query = ListDeployments {
        project: id.as_ref().map_or_else(|| project.name(), |id| Some(id.project.to_string())),
        job: id.as_ref().map(|id| id.name.to_string()),
        active: id.is_none() && !all,
        consistency: context.consistency,
        ..ListDeployments::default()
    };
    let call =
        Call::get(["deployments"]).query(&query).hint("orch status lists the jobs there are");
    let rows: Vec<DeploymentRow> = context.client.list(call).await?;
    let nothing = match (all, &id) {
        (false, None) => "no deployment is under way; --all lists those that are over",
        _ => "no deployments",
    };
    let headers =
        ["DEPLOYMENT", "JOB", "FROM", "TO", "STRATEGY", "STATUS", "NEW", "STARTED", "MESSAGE"];
    output.rows(&rows, &headers, nothing, |row| {
        vec![
            row.id.clone().into(),
            job_name(&row.project, &row.job).into(),
            or_dash(row.from.map(|from| from.to_string()).unwrap_or_default()).into(),
            Cell::number(row.version),
            row.strategy.clone().into(),
            Cell::state(&row.status),
            or_dash(
                row.progress
                    .as_ref()
                    .map(|progress| format!("{}/{}", progress.ready, progress.wanted))
                    .unwrap_or_default(),
            )
            .into(),
            format!("{} ago", age(output.now, row.started_at)).into(),
            or_dash(first_line(&message(row))).into(),
        ]
    })?;
    Ok(Exit::DONE)
}

/// What it waits for, or why it is over.
fn message(row: &DeploymentRow) -> String {
    match &row.waits {
        Some(waits) => format!("waits for {}", waits.what),
        None => row.reason.clone(),
    }
}

async fn read(id: &str, context: &Context) -> Result<DeploymentRow, Failure> {
    let query = Read { consistency: context.consistency };
    let call = Call::get(["deployments", id]).query(&query).hint(HINT);
    context.client.json(call).await
}

async fn resolve(which: &Which, context: &Context) -> Result<DeploymentRow, Failure> {
    match &which.of {
        DeployRef::Id(id) => read(&id.to_string(), context).await,
        DeployRef::Newest(job) => {
            let id = job.id(&which.project)?;
            let query = ListDeployments {
                project: Some(id.project.to_string()),
                job: Some(id.name.to_string()),
                consistency: context.consistency,
                limit: Some(1),
                ..ListDeployments::default()
            };
            let call = Call::get(["deployments"])
                .query(&query)
                .hint("orch status lists the jobs there are");
            let page: Page<DeploymentRow> = context.client.json(call).await?;
            page.items.into_iter().next().ok_or_else(|| {
                Failure::new(Exit::NOT_FOUND, format!("{id} has no deployment"))
                    .hint("batch jobs have none; orch status tells how a job is")
            })
        }
    }
}

async fn write(
    which: &Which,
    verb: &str,
    body: Option<&AbortRequest>,
    context: &Context,
    said: impl FnOnce(&DeploymentRow) -> String,
) -> Outcome {
    let known = resolve(which, context).await?;
    let mut call = Call::new(Method::POST, ["deployments", known.id.as_str(), verb]).hint(HINT);
    if let Some(body) = body {
        call = call.json(body)?;
    }
    let row: DeploymentRow = context.client.json(call).await?;
    context.output.value(&row, || said(&row))?;
    Ok(Exit::DONE)
}

async fn status(which: &Which, wait: bool, context: &Context) -> Outcome {
    let row = resolve(which, context).await?;
    if !wait || is_over(&row) {
        context.output.value(&row, || describe(&row, &context.output))?;
        return Ok(if wait { exit_of(&row) } else { Exit::DONE });
    }
    let wrong =
        |_| Failure::failed(format!("the server knows a job {:?} by no good name", row.job));
    let id = JobId {
        project: row.project.parse().map_err(wrong)?,
        name: row.job.parse().map_err(wrong)?,
    };
    let goal =
        Goal { deployment: Some(row.id.clone()), patient: true, ..Goal::new(id, row.version) };
    progress::wait(&[goal], None, context).await?;
    let row = read(&row.id, context).await?;
    context.output.value(&row, || describe(&row, &context.output))?;
    Ok(exit_of(&row))
}

fn is_over(row: &DeploymentRow) -> bool {
    !matches!(row.status.as_str(), "running" | "paused")
}

fn exit_of(row: &DeploymentRow) -> Exit {
    match row.status.as_str() {
        "successful" => Exit::DONE,
        "running" | "paused" => Exit::INTERRUPTED,
        _ => Exit::FAILED,
    }
}

/// Everything about a deployment, for people.
pub(super) fn describe(row: &DeploymentRow, output: &Output) -> String {
    let name = job_name(&row.project, &row.job);
    let way = match row.from {
        Some(from) => format!("from version {from} to {}", row.version),
        None => format!("of version {}", row.version),
    };
    let is = match row.status.as_str() {
        "running" | "paused" => "is",
        "failed" => "has",
        _ => "was",
    };
    let status = output.state(&row.status);
    let mut text = format!("{} of {name}, {} {way}, {is} {status}\n", row.id, row.strategy);
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<11}{}\n", printable(value)));
    };
    if let Some(progress) = &row.progress {
        let mut value = format!(
            "{} of {} run version {}, {} ready",
            progress.updated, progress.wanted, row.version, progress.ready
        );
        if progress.old > 0 {
            value.push_str(&format!("; {} of older versions go on", progress.old));
        }
        line("replicas", &value);
    }
    if let Some(waits) = &row.waits {
        line("waits for", &waits.what);
        line("since", &format!("{} ago", age(output.now, waits.since)));
        if let Some(at) = waits.until {
            line("until", &format!("{}; then {}", until(output.now, at), waits.then));
        }
    }
    if !row.reason.is_empty() {
        line("because", &row.reason);
    }
    if let Some(at) = row.promoted_at {
        line("promoted", &format!("{} ago", age(output.now, at)));
    }
    if let Some(other) = &row.reverts {
        line("takes back", other);
    }
    if let Some(other) = &row.reverted_by {
        line("taken back", &format!("by {other}"));
    }
    line("started", &format!("{} ago", age(output.now, row.started_at)));
    if is_over(row) {
        line("ended", &format!("{} ago", age(output.now, row.changed_at)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn a_number_is_a_deployment_and_anything_else_a_job() {
        assert_eq!("d17".parse::<DeployRef>().unwrap(), DeployRef::Id(DeploymentId(17)));
        for job in ["web", "shop/web", "d", "default/d17", "d-1"] {
            assert!(matches!(job.parse(), Ok(DeployRef::Newest(_))), "{job}");
        }
        assert!("Web".parse::<DeployRef>().is_err());
    }

    #[test]
    fn it_tells_what_it_waits_for_since_when_and_until_when() {
        let row: DeploymentRow = serde_json::from_value(json!({
            "id": "d2", "project": "shop", "job": "web", "version": 2, "from": 1,
            "strategy": "rolling", "status": "running", "reason": "",
            "progress": {"wanted": 3, "updated": 2, "ready": 1, "old": 2},
            "waits": {
                "what": "web.1 to become ready", "since": "2026-11-20T08:59:00Z",
                "until": "2026-11-20T09:04:00Z",
                "then": "it has failed, and the job goes back to version 1"
            },
            "needs_promotion": false,
            "started_at": "2026-11-20T08:58:00Z", "changed_at": "2026-11-20T08:58:00Z"
        }))
        .unwrap();
        let now: crate::api::view::time::Time = "2026-11-20T09:00:00Z".parse().unwrap();
        assert_eq!(
            describe(&row, &Output::new(Format::Table, now.0)),
            "d2 of shop/web, rolling from version 1 to 2, is running\n\
             \x20 replicas   2 of 3 run version 2, 1 ready; 2 of older versions go on\n\
             \x20 waits for  web.1 to become ready\n\
             \x20 since      1m ago\n\
             \x20 until      in 4m; then it has failed, and the job goes back to version 1\n\
             \x20 started    2m ago\n"
        );
    }
}
