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

fn line(event: &EventRow) -> String {
    let mut text = format!("{:>6}  {}  {} ", event.index, event.at, event.kind);
    let project = event.project.as_deref().unwrap_or("default");
    match (&event.job, event.replica, &event.path, &event.node) {
        (Some(job), Some(index), ..) => text.push_str(&copy_name(project, job, index)),
        (Some(job), ..) => text.push_str(&job_name(project, job)),
        (.., Some(path), _) => text.push_str(&job_name(project, path)),
        (.., Some(node)) => text.push_str(node),
        _ => {}
    }
    text.push_str(&format!(" {}", event.change));
    let mut more = Vec::new();
    if let Some(version) = event.version {
        more.push(format!("version {version}"));
    }
    more.extend(event.state.clone());
    more.extend(event.health.clone().filter(|health| health != "unknown"));
    if let (Some(_), Some(node)) = (&event.job, &event.node) {
        more.push(format!("on {node}"));
    }
    if let Some(id) = &event.allocation {
        more.push(id.clone());
    }
    if !more.is_empty() {
        text.push_str(&format!(" ({})", more.join(", ")));
    }
    if !event.message.is_empty() {
        text.push_str(&format!(": {}", event.message));
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let line_of = |value: serde_json::Value| line(&serde_json::from_value(value).unwrap());
        assert_eq!(
            line_of(serde_json::json!({
                "index": 7, "at": "2026-11-20T09:00:00Z", "kind": "allocation", "change": "status",
                "project": "shop", "job": "web", "allocation": "a3", "replica": 0, "node": "n1",
                "state": "running", "health": "unknown", "message": "up\n"
            })),
            "     7  2026-11-20T09:00:00.000Z  allocation shop/web.0 status (running, on n1, a3): up\u{fffd}"
        );
        assert_eq!(
            line_of(serde_json::json!({
                "index": 8, "at": "2026-11-20T09:00:00Z", "kind": "node", "change": "joined",
                "node": "n1", "state": "ready"
            })),
            "     8  2026-11-20T09:00:00.000Z  node n1 joined (ready)"
        );
    }
}
