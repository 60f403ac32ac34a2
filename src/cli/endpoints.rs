//! `orch endpoints`: where a job's replicas take traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::lines::Lines;
use super::output::{Cell, note};
use super::target::{JobRef, ProjectFlag};
use super::words::{age, job_name};
use crate::api::view::endpoint::{Endpoint, Endpoints};
use crate::api::view::query::ReadEndpoints;

/// From the end of a stream to the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Flags of `orch endpoints`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch endpoints web                   the addresses of web that take traffic now
  orch endpoints web --port http -f    those of one port, and each change until Ctrl-C
  orch endpoints web -f -o json        the whole list as a line of JSON, whenever it changes
A replica is on the list while it is ready, and leaves it before it is told to stop.")]
pub(super) struct EndpointsArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// Only this port
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Go on as they change
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(args: EndpointsArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let query = ReadEndpoints {
        project: Some(id.project.to_string()),
        port: args.port.clone(),
        follow: args.follow,
        consistency: context.consistency,
    };
    let call = Call::get(["jobs", id.name.as_str(), "endpoints"])
        .query(&query)
        .hint("orch status lists the jobs there are, orch inspect JOB the ports of one");
    if args.follow {
        return tokio::select! {
            outcome = follow(&call, context) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(Exit::DONE),
        };
    }
    let list: Endpoints = context.client.json(call).await?;
    context.output.value(&list, || table(&list, context))?;
    if context.output.for_people() && list.endpoints.is_empty() {
        note(&nothing(&list));
    }
    Ok(Exit::DONE)
}

fn nothing(list: &Endpoints) -> String {
    let name = job_name(&list.project, &list.job);
    format!("no endpoint: no replica of {name} with a port is ready; orch status {name} says why")
}

fn table(list: &Endpoints, context: &Context) -> String {
    if list.endpoints.is_empty() {
        return String::new();
    }
    let output = &context.output;
    let headers = ["PORT", "ADDRESS", "REPLICA", "VERSION", "NODE", "READY FOR", "ID"];
    let headers = if output.is_wide() { &headers[..] } else { headers.split_at(6).0 };
    let rows = list.endpoints.iter().map(|endpoint| {
        let mut cells: Vec<Cell> = vec![
            endpoint.port.clone().into(),
            endpoint.address.clone().into(),
            replica(list, endpoint).into(),
            Cell::number(endpoint.version),
            endpoint.node.clone().into(),
            age(output.now, endpoint.ready_since).into(),
        ];
        if output.is_wide() {
            cells.push(endpoint.allocation.clone().into());
        }
        cells
    });
    output.table(headers, rows)
}

fn replica(list: &Endpoints, endpoint: &Endpoint) -> String {
    format!("{}.{}", job_name(&list.project, &list.job), endpoint.replica)
}

/// Goes on at another server where one breaks off.
async fn follow(call: &Call, context: &Context) -> Outcome {
    let mut shown: Option<Endpoints> = None;
    loop {
        let stream = call.clone().streaming("text/event-stream");
        let mut lines = Lines::of(context.client.send(stream).await?);
        while let Ok(Some(data)) = lines.next_event().await {
            let Ok(list) = serde_json::from_str::<Endpoints>(&data) else {
                // The stream says why it ends; the next one fails for good if need be.
                break;
            };
            // A new stream begins with the list as it is, which may be the one that is known.
            if shown.as_ref().is_none_or(|shown| shown.endpoints != list.endpoints) {
                print(shown.as_ref(), &list, context)?;
                shown = Some(list);
            }
        }
        note("the stream ended; going on");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The whole list for programs; for people the first one, then what changes.
fn print(before: Option<&Endpoints>, list: &Endpoints, context: &Context) -> Result<(), Failure> {
    context.output.item(list, || match before {
        None if list.endpoints.is_empty() => nothing(list),
        None => table(list, context),
        Some(before) => changes(before, list).join("\n"),
    })
}

/// `- http 10.0.0.1:25001 web.0`, then `+ …`.
fn changes(before: &Endpoints, after: &Endpoints) -> Vec<String> {
    let keyed = |list: &Endpoints| -> BTreeMap<(u32, String, String), String> {
        list.endpoints
            .iter()
            .map(|endpoint| {
                let key = (endpoint.replica, endpoint.allocation.clone(), endpoint.port.clone());
                let text = format!(
                    "{} {} {} version {} on {}",
                    endpoint.port,
                    endpoint.address,
                    replica(list, endpoint),
                    endpoint.version,
                    endpoint.node
                );
                (key, text)
            })
            .collect()
    };
    let (old, new) = (keyed(before), keyed(after));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let come = new.iter().filter(|(key, _)| !old.contains_key(*key));
    let mut lines: Vec<String> = gone.map(|(_, text)| format!("- {text}")).collect();
    lines.extend(come.map(|(_, text)| format!("+ {text}")));
    if lines.is_empty() {
        // Ready again within the time that changes are gathered.
        lines.push("= the same replicas, some of them ready anew".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_what_left_and_what_came() {
        let list = |replicas: &[(u32, u64)]| Endpoints {
            project: "default".into(),
            job: "web".into(),
            index: 1,
            endpoints: replicas
                .iter()
                .map(|(replica, version)| Endpoint {
                    port: "http".into(),
                    address: format!("10.0.0.1:{}", 25000 + replica),
                    host: "10.0.0.1".into(),
                    host_port: 25000,
                    protocol: "tcp".into(),
                    replica: *replica,
                    version: *version,
                    allocation: format!("a{replica}{version}"),
                    node: "n1".into(),
                    ready_since: Default::default(),
                })
                .collect(),
        };
        let (before, after) = (list(&[(0, 1), (1, 1)]), list(&[(0, 1), (1, 2)]));
        assert_eq!(
            changes(&before, &after),
            [
                "- http 10.0.0.1:25001 web.1 version 1 on n1",
                "+ http 10.0.0.1:25001 web.1 version 2 on n1"
            ]
        );
    }
}
