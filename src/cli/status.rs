//! `orch status`: how jobs are, and in words why one is not as it should be.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output};
use super::ps;
use super::target::{JobRef, ProjectFlag};
use super::words::{age, copy_name, count, first_line, job_name, or_dash, printable};
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

/// Everything about a job, for people.
pub(super) fn describe(status: &JobStatus, output: &Output) -> String {
    let row = &status.row;
    let name = job_name(&row.project, &row.job);
    let mut text = format!("{name} is {}", output.state(&row.state));
    if row.r#type != "batch" {
        let JobRow { running, desired, healthy, .. } = row;
        text.push_str(&format!(": {running} of {desired} running, {healthy} healthy"));
        if row.up_to_date < row.healthy {
            text.push_str(&format!(", {} up to date", row.up_to_date));
        }
    }
    text.push('\n');
    text.push_str(&format!(
        "{} job, version {}, priority {}, created {} ago, changed {} ago\n",
        row.r#type,
        row.version,
        row.priority,
        age(output.now, row.created_at),
        age(output.now, row.changed_at)
    ));
    if status.purged {
        text.push_str("It is forgotten once its copies have ended.\n");
    }
    if !row.message.is_empty() {
        text.push_str(&format!("{}\n", printable(&row.message)));
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
    text
}

/// Which nodes were refused for which reason.
pub(super) fn why_unplaced(unplaced: &Unplaced) -> String {
    // The sentence has the reasons in brackets at its end; here each has a line.
    let sentence = match unplaced.message.split_once(" (") {
        Some((sentence, _)) if !unplaced.refusals.is_empty() => format!("{sentence}:"),
        _ => unplaced.message.clone(),
    };
    let mut text = format!("{}\n", printable(&sentence));
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
            "created_at": "2026-11-20T08:00:00Z", "changed_at": "2026-11-20T08:59:00Z",
            "spec": {}, "purged": false,
            "allocations": [{
                "project": "shop", "job": "web", "index": 0, "id": "a1", "node": "n1", "version": 3,
                "state": "running", "health": "healthy", "container_id": "abc",
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
            "shop/web is degraded: 1 of 3 running, 1 healthy\n\
             service job, version 3, priority 50, created 1h ago, changed 1m ago\n\
             2 of 3 copies are not up\n\
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
             COPY        ID  NODE  VERSION  STATE    HEALTH   RESTARTS  PORTS                UP  MESSAGE\n\
             shop/web.0  a1  n1    3        running  healthy  2         http=10.0.0.1:25000  2m  -\n"
        );
    }
}
