//! `orch top`: what nodes and copies of jobs use, now and on.

use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output};
use super::target::{JobRef, ProjectFlag};
use super::words::{age_or_dash, bytes, copy_name, cores, count, share};
use crate::api::view::query::UsageQuery;
use crate::api::view::usage::{AllocationUse, NodeUse, UsageReply};

/// Agents measure as often.
const PERIOD: Duration = Duration::from_secs(2);
/// What clears a terminal below a table that was drawn over the last one.
const HOME: &str = "\u{1b}[H";
const CLEAR_BELOW: &str = "\u{1b}[J";
const CLEAR_LINE: &str = "\u{1b}[K";

/// Flags of `orch top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch top                 nodes, and copies of jobs that use the most cores first
  orch top nodes           nodes alone
  orch top web             the copies of one job
  orch top --once -o json  once, for programs
On a terminal it goes on until Ctrl-C. Cores are those since the last measurement, memory is without
what the kernel could drop at once; behind the slash: what is there, is reserved, or is the limit.")]
pub(super) struct TopArgs {
    /// Only this job's copies; or nodes for nodes alone
    #[arg(value_name = "nodes|JOB")]
    what: Option<What>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Print once, also on a terminal
    #[arg(long)]
    once: bool,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Nodes,
    Job(JobRef),
}

impl FromStr for What {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nodes" | "node" => Ok(Self::Nodes),
            job => job
                .parse()
                .map(Self::Job)
                .map_err(|error: super::target::JobRefError| error.to_string()),
        }
    }
}

pub(super) async fn run(args: TopArgs, context: &Context) -> Outcome {
    let job = match &args.what {
        Some(What::Job(job)) => Some(job.id(&args.project)?),
        _ => None,
    };
    let query = UsageQuery {
        project: job.as_ref().map(|id| id.project.to_string()).or_else(|| args.project.name()),
        job: job.as_ref().map(|id| id.name.to_string()),
        consistency: context.consistency,
    };
    let call = Call::get(["usage"]).query(&query).hint("orch status lists jobs");
    let stays = context.output.for_people() && !args.once && std::io::stdout().is_terminal();
    if !stays {
        let reply: UsageReply = context.client.json(call).await?;
        context.output.value(&reply, || describe(&reply, args.what.as_ref(), &context.output))?;
        return Ok(Exit::DONE);
    }
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::DONE),
            _ = tick.tick() => {}
        }
        let output = context.output.at(context.clock.now());
        let shown = match context.client.json::<UsageReply>(call.clone()).await {
            Ok(reply) => describe(&reply, args.what.as_ref(), &output),
            // It may be back soon; the first time it is said like any other mistake.
            Err(failure) if failure.passing && !first => format!("{failure}; going on"),
            Err(failure) => return Err(failure),
        };
        draw(&shown, first, &output)?;
        first = false;
    }
}

/// Over what was drawn before, as far as the terminal has lines.
fn draw(shown: &str, first: bool, output: &Output) -> Result<(), Failure> {
    let rows = crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows));
    let mut text = String::new();
    text.push_str(HOME);
    if first {
        text.push_str(CLEAR_BELOW);
    }
    for line in shown.lines().take(rows.saturating_sub(1)) {
        text.push_str(&format!("{line}{CLEAR_LINE}\n"));
    }
    text.push_str(CLEAR_BELOW);
    output.bytes(text.as_bytes())
}

fn describe(reply: &UsageReply, what: Option<&What>, output: &Output) -> String {
    let mut parts = Vec::new();
    if !matches!(what, Some(What::Job(_))) {
        let headers = ["NODE", "STATE", "CPU", "MEMORY", "DISK", "RUNNING", "HEARD"];
        parts.push(match reply.nodes.as_slice() {
            [] => "no nodes".to_owned(),
            nodes => output.table(&headers, nodes.iter().map(|node| node_cells(node, output))),
        });
    }
    if what != Some(&What::Nodes) {
        let headers = ["COPY", "ID", "NODE", "STATE", "CPU", "MEMORY"];
        parts.push(match reply.allocations.as_slice() {
            [] => "nothing runs that is measured".to_owned(),
            rows => output.table(&headers, rows.iter().map(allocation_cells)),
        });
        if reply.more > 0 {
            parts.push(format!("{} more that use less", count(reply.more, "copy", "copies")));
        }
    }
    parts.join("\n\n")
}

/// Cores to two digits: more would only flicker.
fn two_digits(number: f64) -> String {
    format!("{number:.2}")
}

fn node_cells(row: &NodeUse, output: &Output) -> Vec<Cell> {
    let has = &row.resources;
    let mut cells: Vec<Cell> = vec![row.node.clone().into(), Cell::state(&row.state)];
    match &row.usage {
        Some(usage) => cells.extend([
            share(two_digits(usage.cpu_used), cores(has.cpu_milli)).into(),
            share(rounded(usage.memory_used), bytes(has.memory)).into(),
            share(rounded(usage.disk_used), rounded(has.disk)).into(),
            Cell::number(usage.containers_running),
        ]),
        None => cells.extend(["-", "-", "-", "-"].map(Cell::from)),
    }
    let heard = age_or_dash(output.now, row.last_heard);
    cells.push(if heard == "-" { heard } else { format!("{heard} ago") }.into());
    cells
}

fn allocation_cells(row: &AllocationUse) -> Vec<Cell> {
    let limit = if row.memory_limit == 0 { "-".to_owned() } else { bytes(row.memory_limit) };
    let reserved = cores((row.cpu_reserved * 1000.0).max(0.0) as u64);
    vec![
        copy_name(&row.project, &row.job, row.index).into(),
        row.id.clone().into(),
        row.node.clone().into(),
        Cell::state(&row.state),
        share(two_digits(row.cpu), if reserved == "0" { "-".to_owned() } else { reserved }).into(),
        share(rounded(row.memory), limit).into(),
    ]
}

/// Bytes in the largest unit that leaves a digit before the point.
fn rounded(number: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    match units.iter().find(|(_, shift)| number >> shift > 0) {
        Some((unit, shift)) => {
            let value = number as f64 / (1_u64 << shift) as f64;
            if value < 10.0 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
        }
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> UsageReply {
        serde_json::from_value(serde_json::json!({
            "nodes": [
                { "node": "n1", "state": "suspect",
                  "resources": { "cpu_milli": 2000, "memory": 4_294_967_296_u64, "disk": 0, "gpu": 0 },
                  "allocated": { "cpu_milli": 0, "memory": 0, "disk": 0, "gpu": 0 },
                  "usage": { "cpu_used": 0.256, "memory_used": 1_610_612_736, "disk_used": 5,
                             "containers_running": 3 } }
            ],
            "allocations": [
                { "project": "shop", "job": "web", "index": 0, "id": "a1", "node": "n1",
                  "state": "running", "cpu": 0.5, "cpu_reserved": 0.25, "memory": 20_971_520,
                  "memory_limit": 0 }
            ],
            "more": 2
        }))
        .unwrap()
    }

    #[test]
    fn nodes_and_copies_are_tables() {
        let output = Context::for_tests().output;
        let all = describe(&reply(), None, &output);
        assert!(all.contains("n1    suspect  0.26/2  1.5Gi/4Gi"), "{all}");
        assert!(all.contains("shop/web.0  a1  n1    running  0.50/0.25  20Mi/-"), "{all}");
        assert!(all.ends_with("2 copies more that use less"), "{all}");
        assert!(!describe(&reply(), Some(&What::Nodes), &output).contains("COPY"));
        let job = Some("shop/web".parse().unwrap());
        assert!(!describe(&reply(), job.as_ref(), &output).contains("HEARD"));
        assert_eq!(rounded(999), "999");
    }
}
