//! `orch status`: how jobs are, and in words why one is not as it should be.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::deploy;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output};
use super::ps;
use super::target::{JobRef, ProjectFlag};
use super::words::{age, copy_name, count, first_line, job_name, or_dash, printable};
use crate::api::view::allocation::{AllocationRow, CheckRow};
use crate::api::view::deployment::DeploymentRow;
use crate::api::view::job::{Failure as CopyFailure, JobRow, JobStatus, Unplaced};
use crate::api::view::query::{ListJobs, ProjectRead};
use crate::model::name::JobId;

/// Flags of `orch status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch status               all jobs
  orch status web           how web is: copies, failures with their output, why it waits
  orch status web -o json   the same for programs")]
pub(super) struct StatusArgs {
    /// The job; all of them in a list unless given
    #[arg(value_name = "JOB")]
    job: Option<JobRef>,
    #[command(flatten)]
    project: ProjectFlag,
}

pub(super) async fn run(args: StatusArgs, context: &Context) -> Outcome {
    let output = &context.output;
    match &args.job {
        Some(job) => {
            let status = fetch(&job.id(&args.project)?, context).await?;
            output.value(&status, || describe(&status, output))?;
        }
        None => list(&args, context).await?,
    }
    Ok(Exit::DONE)
}

async fn list(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let output = &context.output;
    let query = ListJobs {
        project: args.project.name(),
        consistency: context.consistency,
        ..ListJobs::default()
    };
    let rows: Vec<JobRow> = context.client.list(Call::get(["jobs"]).query(&query)).await?;
    let headers =
        ["JOB", "TYPE", "VERSION", "STATE", "DESIRED", "RUNNING", "HEALTHY", "CHANGED", "MESSAGE"];
    output.rows(&rows, &headers, "no jobs; orch run FILE starts one", |row| {
        vec![
            job_name(&row.project, &row.job).into(),
            row.r#type.clone().into(),
            Cell::number(row.version),
            Cell::state(&row.state),
            Cell::number(row.desired),
            Cell::number(row.running),
            Cell::number(row.healthy),
            age(output.now, row.changed_at).into(),
            or_dash(first_line(&row.message)).into(),
        ]
    })
}

/// A job's status.
pub(super) async fn fetch(job: &JobId, context: &Context) -> Result<JobStatus, Failure> {
    let query =
        ProjectRead { project: Some(job.project.to_string()), consistency: context.consistency };
    let call = Call::get(["jobs", job.name.as_str()])
        .query(&query)
        .hint("orch status lists the jobs there are");
    context.client.json(call).await
}

/// Everything about a job, for people: how it is and why, its deployment, its copies, and what one
/// may want to do next.
pub(super) fn describe(status: &JobStatus, output: &Output) -> String {
    let row = &status.row;
    let name = job_name(&row.project, &row.job);
    let mut text = match status.sentence.as_str() {
        // A server of an older release says none.
        "" => format!("{name} is {}\n", row.state),
        sentence => format!("{}\n", printable(sentence)),
    };
    text.push_str(&format!(
        "{} job, {}, version {}, priority {}, created {} ago, changed {} ago\n",
        row.r#type,
        output.state(&row.state),
        row.version,
        row.priority,
        age(output.now, row.created_at),
        age(output.now, row.changed_at)
    ));
    if status.purged {
        text.push_str("It is forgotten once its copies have ended.\n");
    }
    for deployment in told(&status.deployments) {
        text.push('\n');
        text.push_str(&deploy::describe(deployment, output));
    }
    if let Some(unplaced) = &status.unplaced {
        text.push('\n');
        text.push_str(&why_unplaced(unplaced));
    }
    for failure in &status.failures {
        text.push('\n');
        text.push_str(&why_failed(&row.project, &row.job, failure, output));
    }
    if !status.allocations.is_empty() {
        text.push('\n');
        let rows = status.allocations.iter().map(|row| ps::cells(row, output));
        text.push_str(&output.table(ps::headers(output), rows));
        text.push('\n');
    }
    let checks = checks(&status.allocations);
    if !checks.is_empty() {
        text.push('\n');
        let rows = checks.iter().take(CHECKS_SHOWN).map(|(copy, check)| {
            let says = if check.passing { "passes" } else { "fails" };
            vec![
                copy.clone().into(),
                Cell::from(check.kind.clone()),
                Cell::state(says),
                format!("for {}", age(output.now, check.since)).into(),
                or_dash(first_line(&check.message)).into(),
            ]
        });
        text.push_str(&output.table(&["COPY", "CHECK", "SAYS", "SINCE", "ANSWER"], rows));
        text.push('\n');
        if checks.len() > CHECKS_SHOWN {
            text.push_str(&format!("and {} more; -o json has all\n", checks.len() - CHECKS_SHOWN));
        }
    }
    let steps = next_steps(status, &name);
    if !steps.is_empty() {
        text.push_str("\nWhat to do next:\n");
        let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
        for (command, why) in steps {
            text.push_str(&format!("  {command:<width$}  {why}\n"));
        }
    }
    text
}

/// Checks that the status of a job tells about.
const CHECKS_SHOWN: usize = 20;

/// What the checks of copies said last, those that fail first.
fn checks(copies: &[AllocationRow]) -> Vec<(String, &CheckRow)> {
    let mut checks: Vec<_> = copies
        .iter()
        .flat_map(|copy| {
            let name = copy_name(&copy.project, &copy.job, copy.index);
            copy.checks.iter().map(move |check| {
                let task = if check.task == copy.job {
                    String::new()
                } else {
                    format!(", {}", check.task)
                };
                (format!("{name}{task}"), check)
            })
        })
        .collect();
    checks.sort_by_key(|(_, check)| check.passing);
    checks
}

/// The deployments worth telling: the newest while it is under way or if it failed, and the one
/// it takes back.
fn told(deployments: &[DeploymentRow]) -> Vec<&DeploymentRow> {
    let Some(newest) = deployments.first() else { return Vec::new() };
    let back = deployments.iter().find(|known| Some(&known.id) == newest.reverts.as_ref());
    match newest.status.as_str() {
        "successful" | "superseded" if back.is_none() => Vec::new(),
        _ => std::iter::once(newest).chain(back).collect(),
    }
}

/// Commands that one may want now, each with what it does.
fn next_steps(status: &JobStatus, name: &str) -> Vec<(String, &'static str)> {
    let row = &status.row;
    let mut steps: Vec<(String, &'static str)> = Vec::new();
    let newest = status.deployments.first();
    let under_way = newest.filter(|known| matches!(known.status.as_str(), "running" | "paused"));
    if newest.is_some_and(|known| known.needs_promotion) {
        steps.push((format!("orch deploy promote {name}"), "it is good: let the rest follow"));
    }
    if under_way.is_some_and(|known| known.status == "paused") {
        steps.push((format!("orch deploy resume {name}"), "let the deployment go on"));
    }
    let crashed = status.failures.iter().find(|failure| failure.exit_code.is_some());
    if let Some(failure) = crashed {
        steps.push((format!("orch logs {name}.{}", failure.index), "what it printed"));
    }
    let failing = |copy: &&AllocationRow| copy.checks.iter().any(|check| !check.passing);
    if let (None, Some(copy)) = (crashed, status.allocations.iter().find(failing)) {
        steps.push((format!("orch logs {name}.{}", copy.index), "what it printed"));
    }
    if let Some(unplaced) = &status.unplaced {
        steps.push(("orch node ls".to_owned(), "which nodes there are, and their room"));
        if unplaced.never_fits {
            steps.push(("orch run FILE".to_owned(), "after changing what the job asks for"));
        }
    }
    if under_way.is_some_and(|known| known.from.is_some() && known.reverts.is_none()) {
        steps.push((format!("orch deploy abort {name}"), "go back to the version before"));
    }
    let failed = newest.is_some_and(|known| known.status == "failed");
    if failed && newest.is_some_and(|known| known.from.is_some()) {
        steps.push((format!("orch rollback {name}"), "go back to the last healthy version"));
    }
    if newest.is_some_and(|known| known.reverts.is_some()) {
        steps.push((format!("orch history {name}"), "what each version changed"));
    }
    let gave_up = status.allocations.iter().any(|copy| copy.gave_up);
    if row.state == "stopped" {
        steps.push((format!("orch restart {name}"), "start it again as it was"));
    } else if gave_up {
        steps.push((format!("orch restart {name}"), "try again with the same version"));
    } else if !status.failures.is_empty() && crashed.is_none() && under_way.is_none() {
        steps.push((format!("orch inspect {name}"), "the job as it was submitted"));
        steps.push(("orch run FILE".to_owned(), "after changing what is wrong"));
    }
    steps
}

/// Which nodes were refused for which reason.
pub(super) fn why_unplaced(unplaced: &Unplaced) -> String {
    // The sentence has the reasons in brackets at its end; here each has a line.
    let Some((sentence, _)) = unplaced.message.split_once(" (") else {
        return format!("{}\n", printable(&unplaced.message));
    };
    let mut text = format!("{}:\n", printable(sentence));
    for refusal in &unplaced.refusals {
        let nodes = count(u64::from(refusal.nodes), "node", "nodes");
        text.push_str(&format!("  {nodes}: {}\n", printable(&refusal.reason)));
    }
    text
}

/// What went wrong with a copy, with the end of what it printed.
pub(super) fn why_failed(
    project: &str,
    job: &str,
    failure: &CopyFailure,
    output: &Output,
) -> String {
    let copy = copy_name(project, job, failure.index);
    let mut text = format!("{copy} ({}) on {} is {}", failure.id, failure.node, failure.state);
    if failure.task != job && !failure.task.is_empty() {
        text.push_str(&format!(", task {}", failure.task));
    }
    if let Some(at) = failure.finished_at {
        text.push_str(&format!(", ended {} ago", age(output.now, at)));
    }
    if failure.restarts > 0 {
        let restarts = count(u64::from(failure.restarts), "restart", "restarts");
        text.push_str(&format!(" after {restarts}"));
    }
    text.push('\n');
    for line in failure.error.lines() {
        text.push_str(&format!("  {}\n", printable(line)));
    }
    if let Some(code) = failure.exit_code.filter(|code| !failure.error.contains(&code.to_string()))
    {
        text.push_str(&format!("  {}\n", ended_with(code)));
    }
    if failure.oom_killed && !failure.error.contains("memory") {
        text.push_str("  it was killed for want of memory\n");
    }
    if !failure.output_tail.is_empty() {
        text.push_str("  the end of its output:\n");
        for line in failure.output_tail.lines() {
            text.push_str(&format!("    | {}\n", printable(line)));
        }
    }
    text
}

fn ended_with(code: i32) -> String {
    match code {
        129..=159 => format!("it was ended by signal {}", code - 128),
        _ => format!("it ended with exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn it_says_in_words_why_a_job_is_not_running() {
        let status: JobStatus = serde_json::from_value(serde_json::json!({
            "project": "shop", "job": "web", "version": 3, "type": "service", "state": "degraded",
            "desired": 3, "running": 1, "healthy": 1, "up_to_date": 1, "failing": 1, "priority": 50,
            "message": "2 of 3 copies are not up",
            "sentence": "shop/web is in a crash loop: 1 of 3 replicas is ready; web.1 ends",
            "created_at": "2026-11-20T08:00:00Z", "changed_at": "2026-11-20T08:59:00Z",
            "spec": {}, "purged": false,
            "allocations": [{
                "project": "shop", "job": "web", "index": 0, "id": "a1", "node": "n1", "version": 3,
                "state": "running", "health": "healthy", "ready": true, "container_id": "abc",
                "checks": [
                    {"task": "web", "kind": "health", "passing": true, "message": "",
                     "since": "2026-11-20T08:58:00Z"},
                    {"task": "side", "kind": "readiness", "passing": false,
                     "message": "GET /ok answered 503", "since": "2026-11-20T08:59:00Z"}
                ],
                "ports": {"http": 25000}, "address": "10.0.0.1", "restarts": 2,
                "started_at": "2026-11-20T08:58:00Z", "created_at": "2026-11-20T08:57:00Z",
                "message": ""
            }],
            "unplaced": {"replicas": 1, "nodes": 4, "never_fits": true, "refusals": [
                {"reason": "no memory", "nodes": 3}, {"reason": "constraint attr.zone != c", "nodes": 1}
            ], "message": "1 copy is not placed: no node takes one more (no memory: 3, …)"},
            "failures": [{
                "id": "a2", "index": 1, "node": "n2", "task": "app", "state": "starting",
                "error": "exited", "exit_code": 137, "oom_killed": true, "restarts": 3,
                "finished_at": "2026-11-20T08:59:30Z", "output_tail": "panic: \u{1b}[31mno\nend"
            }]
        }))
        .unwrap();
        let now: crate::api::view::time::Time = "2026-11-20T09:00:00Z".parse().unwrap();
        let output = Output::new(Format::Table, now.0);
        assert_eq!(
            describe(&status, &output),
            "shop/web is in a crash loop: 1 of 3 replicas is ready; web.1 ends\n\
             service job, degraded, version 3, priority 50, created 1h ago, changed 1m ago\n\
             \n\
             1 copy is not placed: no node takes one more:\n\
             \x20 3 nodes: no memory\n\
             \x20 1 node: constraint attr.zone != c\n\
             \n\
             shop/web.1 (a2) on n2 is starting, task app, ended 30s ago after 3 restarts\n\
             \x20 exited\n\
             \x20 it was ended by signal 9\n\
             \x20 it was killed for want of memory\n\
             \x20 the end of its output:\n\
             \x20   | panic: \u{fffd}[31mno\n\
             \x20   | end\n\
             \n\
             COPY        ID  NODE  VERSION  STATE    HEALTH   READY  RESTARTS  PORTS                UP  MESSAGE\n\
             shop/web.0  a1  n1    3        running  healthy  yes    2         http=10.0.0.1:25000  2m  its readiness check fails: GET /ok answered 503\n\
             \n\
             COPY              CHECK      SAYS    SINCE   ANSWER\n\
             shop/web.0, side  readiness  fails   for 1m  GET /ok answered 503\n\
             shop/web.0        health     passes  for 2m  -\n\
             \n\
             What to do next:\n\
             \x20 orch logs shop/web.1  what it printed\n\
             \x20 orch node ls          which nodes there are, and their room\n\
             \x20 orch run FILE         after changing what the job asks for\n"
        );
    }
}
