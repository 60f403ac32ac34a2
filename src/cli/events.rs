//! `orch events`: what changes in the cluster.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::lines::Lines;
use super::output::note;
use super::target::{JobRef, ProjectFlag};
use super::words::{copy_name, job_name, printable};
use crate::api::view::event::{EventPage, EventRow};
use crate::api::view::query::EventsQuery;
use crate::limits::API_PAGE_ROWS_MAX;
use crate::model::name::NodeName;

/// Flags of `orch events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch events                        those that are kept, the oldest first
  orch events -f                     from now on, until Ctrl-C
  orch events -f --since 1200        all after number 1200, then those to come
  orch events -f --job web -o json   one line of JSON each")]
pub(super) struct EventsArgs {
    /// Go on as things happen
    #[arg(long, short)]
    follow: bool,
    /// After the event of this number
    #[arg(long, value_name = "INDEX")]
    since: Option<u64>,
    /// Only of this job
    #[arg(long, value_name = "JOB")]
    job: Option<JobRef>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Only of this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
}

pub(super) async fn run(args: EventsArgs, context: &Context) -> Outcome {
    let job = args.job.as_ref().map(|job| job.id(&args.project)).transpose()?;
    let query = EventsQuery {
        since: args.since,
        job: job.map(|id| format!("{}/{}", id.project, id.name)),
        node: args.node.as_ref().map(ToString::to_string),
        ..EventsQuery::default()
    };
    if !args.follow {
        return kept(query, context).await;
    }
    tokio::select! {
        outcome = follow(query, context) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Exit::DONE),
    }
}

async fn kept(query: EventsQuery, context: &Context) -> Outcome {
    let mut since = query.since;
    loop {
        let query = EventsQuery { since, limit: Some(API_PAGE_ROWS_MAX), ..query.clone() };
        // `false` is what this parameter is not by default: it has to be said.
        let call = Call::get(["events"]).query(&query).parameter("follow", "false");
        let page: EventPage = context.client.json(call).await?;
        for event in &page.items {
            print(event, context)?;
        }
        if page.items.is_empty() || since == Some(page.next_since) {
            return Ok(Exit::DONE);
        }
        since = Some(page.next_since);
    }
}

/// Goes on at another server where one breaks off.
async fn follow(query: EventsQuery, context: &Context) -> Outcome {
    let mut since = query.since;
    loop {
        let query = EventsQuery { since, ..query.clone() };
        let call = Call::get(["events"]).query(&query).streaming("text/event-stream");
        let mut lines = Lines::of(context.client.send(call).await?);
        loop {
            match lines.next_event().await {
                Ok(Some(data)) => {
                    let event: EventRow = serde_json::from_str(&data).map_err(|error| {
                        Failure::failed(format!("the server sent no event: {error}"))
                    })?;
                    since = Some(event.index);
                    print(&event, context)?;
                }
                Ok(None) => break,
                Err(failure) if failure.passing => break,
                Err(failure) => return Err(failure),
            }
        }
        note("the stream ended; going on");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

fn print(event: &EventRow, context: &Context) -> Result<(), Failure> {
    context.output.item(event, || line(event))
}

/// Number, time, what it is about, what happened, and why.
fn line(event: &EventRow) -> String {
    let project = event.project.as_deref().unwrap_or("default");
    let object = match (&event.job, event.replica, &event.path, &event.node) {
        (Some(job), Some(index), ..) => copy_name(project, job, index),
        (Some(job), ..) => job_name(project, job),
        (.., Some(path), _) => format!("variable {}", job_name(project, path)),
        (.., Some(node)) => format!("node {node}"),
        _ => "cluster".to_owned(),
    };
    let mut text =
        format!("{:>6}  {}  {object:<16}  {}", event.index, event.at, what_happened(event));
    if !event.message.is_empty() {
        text.push_str(&format!(": {}", event.message));
    }
    printable(&text)
}

fn what_happened(event: &EventRow) -> String {
    let state = event.state.as_deref().unwrap_or_default();
    let version = event.version.map(|version| format!("version {version}")).unwrap_or_default();
    let change = event.change.as_str();
    match event.kind.as_str() {
        "job" => match change {
            "created" => format!("created as {version}"),
            "completed" => "complete".to_owned(),
            "failed" => "failed for good".to_owned(),
            "stopped" | "purged" => change.to_owned(),
            _ => format!("{change}, now {version}"),
        },
        "deployment" => {
            let id = event.deployment.as_deref().unwrap_or_default();
            match change {
                "started" => format!("deployment {id} of {version} began"),
                "successful" => format!("deployment {id} of {version} succeeded"),
                "resumed" => format!("deployment {id} of {version} goes on"),
                "superseded" => format!("deployment {id} of {version} gave way to a newer one"),
                "failed" => format!("deployment {id} of {version} failed"),
                _ => format!("deployment {id} of {version} was {change}"),
            }
        }
        "allocation" => {
            let node = event.node.as_deref().unwrap_or_default();
            let what = match change {
                "placed" => format!("placed on {node}"),
                "stopping" => format!("asked to stop on {node}"),
                "status" => format!("{state} on {node}"),
                "health" => event.health.clone().unwrap_or_default(),
                "restarted" => format!("restarted on {node}"),
                "moving" => format!("to move away from {node}"),
                "gave up" => "given up".to_owned(),
                "removed" => "forgotten".to_owned(),
                _ => state.to_owned(),
            };
            match &event.allocation {
                Some(id) => format!("{what} ({id})"),
                None => what,
            }
        }
        "node" => match change {
            "registered" => "registered anew".to_owned(),
            "state" => state.to_owned(),
            "eligibility" => "changed in whether it takes new work".to_owned(),
            "draining" => "being drained".to_owned(),
            "removed" => "forgotten".to_owned(),
            _ => change.to_owned(),
        },
        "restored" => "the whole state was replaced by a saved snapshot".to_owned(),
        _ => change.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_reads_in_order() {
        let at = "2026-11-20T09:00:00Z";
        let job = |index: u64, change: &str, version: u64| {
            serde_json::json!({ "index": index, "at": at, "kind": "job", "change": change,
                "project": "default", "job": "web", "version": version })
        };
        let copy = |index: u64, change: &str, state: &str, message: &str| {
            serde_json::json!({ "index": index, "at": at, "kind": "allocation", "change": change,
                "project": "shop", "job": "web", "allocation": "a3", "replica": 0, "node": "n1",
                "state": state, "health": "healthy", "message": message })
        };
        let node = |index: u64, change: &str, state: &str, message: &str| {
            serde_json::json!({ "index": index, "at": at, "kind": "node", "change": change,
                "node": "n1", "state": state, "message": message })
        };
        let deployment = serde_json::json!({ "index": 3, "at": at, "kind": "deployment",
            "change": "failed", "project": "default", "job": "web", "version": 2,
            "deployment": "d1", "message": "no replica became healthy within 5m" });
        let lines = [
            (job(1, "created", 1), "web               created as version 1"),
            (job(2, "scaled", 2), "web               scaled, now version 2"),
            (
                deployment,
                "web               deployment d1 of version 2 failed: no replica became healthy within 5m",
            ),
            (copy(4, "placed", "pending", ""), "shop/web.0        placed on n1 (a3)"),
            (
                copy(5, "status", "running", "up\n"),
                "shop/web.0        running on n1 (a3): up\u{fffd}",
            ),
            (copy(6, "health", "running", ""), "shop/web.0        healthy (a3)"),
            (
                copy(7, "stopping", "running", "its node is being drained"),
                "shop/web.0        asked to stop on n1 (a3): its node is being drained",
            ),
            (
                node(8, "state", "lost", "not heard for 10s"),
                "node n1           lost: not heard for 10s",
            ),
            (node(9, "joined", "ready", ""), "node n1           joined"),
        ];
        for (value, told) in lines {
            let event: EventRow = serde_json::from_value(value).unwrap();
            assert_eq!(
                line(&event),
                format!("{:>6}  2026-11-20T09:00:00.000Z  {told}", event.index)
            );
        }
    }
}
