//! `orch node`: the hosts that run work.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output, note};
use super::ps;
use super::words::{age, bytes, cores, or_dash, printable, resources, share};
use crate::api::view::allocation::AllocationRow;
use crate::api::view::node::{DrainRequest, EligibilityRequest, NodeRow, NodeStatus};
use crate::api::view::query::{List, Read};
use crate::model::name::NodeName;
use crate::model::time::Millis;

/// Verbs of `orch node`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch node ls                            all nodes with their room
  orch node status n1                     one node with what is on it
  orch node drain n1 --deadline 10m       move its work away, whatever is left in 10 minutes stops
  orch node eligible n1                   let it take work again
  orch node eligible n1 off               keep new work away; what runs there goes on")]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    verb: NodeVerb,
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// List nodes
    Ls,
    /// Tell everything about a node, and what is on it
    Status {
        /// The node
        #[arg(value_name = "NODE")]
        node: NodeName,
    },
    /// Let new work on a node, or keep it away
    Eligible {
        /// The node
        #[arg(value_name = "NODE")]
        node: NodeName,
        /// on lets work on it, and ends a drain
        #[arg(value_name = "on|off", hide_possible_values = true, default_value = "on")]
        switch: Switch,
        /// The same as off
        #[arg(long, conflicts_with = "switch")]
        off: bool,
    },
    /// Move work away from a node
    Drain {
        /// The node
        #[arg(value_name = "NODE")]
        node: NodeName,
        /// Stop all that is left after this time, as 10m
        #[arg(long, value_name = "DURATION")]
        deadline: Option<Millis>,
        /// Wait until nothing is left on it
        #[arg(long)]
        wait: bool,
    },
    /// Forget a node that is gone for good
    Remove {
        /// The node
        #[arg(value_name = "NODE")]
        node: NodeName,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

const HINT: &str = "orch node ls lists the nodes there are";

pub(super) async fn run(args: NodeArgs, context: &Context) -> Outcome {
    match args.verb {
        NodeVerb::Ls => list(context).await?,
        NodeVerb::Status { node } => {
            let status = fetch(&node, context).await?;
            context.output.value(&status, || describe(&status, &context.output))?;
        }
        NodeVerb::Eligible { node, switch, off } => {
            let eligible = switch == Switch::On && !off;
            let call = Call::new(Method::POST, ["nodes", node.as_str(), "eligibility"])
                .json(&EligibilityRequest { eligible })?
                .hint(HINT);
            let row: NodeRow = context.client.json(call).await?;
            context.output.value(&row, || match row.eligible {
                true => format!("{node} takes new work"),
                false => format!("{node} takes no new work; what runs there goes on"),
            })?;
        }
        NodeVerb::Drain { node, deadline, wait } => drain(&node, deadline, wait, context).await?,
        NodeVerb::Remove { node } => {
            let call = Call::new(Method::DELETE, ["nodes", node.as_str()]).hint(HINT);
            context.client.send(call).await?;
            note(&format!("{node} is forgotten"));
        }
    }
    Ok(Exit::DONE)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let output = &context.output;
    let query = List { consistency: context.consistency, ..List::default() };
    let rows: Vec<NodeRow> = context.client.list(Call::get(["nodes"]).query(&query)).await?;
    let all = [
        "NODE",
        "STATE",
        "ELIGIBLE",
        "CLASS",
        "CPU",
        "MEMORY",
        "COPIES",
        "ADDRESS",
        "SINCE",
        "REASON",
        "DISK",
        "GPU",
        "RUNTIMES",
        "VERSION",
        "ID",
        "ATTRIBUTES",
    ];
    let headers = if output.is_wide() { &all[..] } else { all.split_at(10).0 };
    output.rows(&rows, headers, "no nodes; orch agent makes this host one", |row| {
        let (used, has) = (&row.allocated, &row.resources);
        let mut cells: Vec<Cell> = vec![
            row.name.clone().into(),
            Cell::state(&row.state),
            Cell::state(if row.eligible { "yes" } else { "no" }),
            or_dash(row.class.clone()).into(),
            share(cores(used.cpu_milli), cores(has.cpu_milli)).into(),
            share(bytes(used.memory), bytes(has.memory)).into(),
            Cell::number(row.allocations),
            row.address.clone().into(),
            age(output.now, row.state_since).into(),
            or_dash(row.reason.clone()).into(),
        ];
        if output.is_wide() {
            cells.extend([
                share(bytes(used.disk), bytes(has.disk)).into(),
                share(used.gpu.to_string(), has.gpu.to_string()).into(),
                row.runtimes.join(",").into(),
                row.version.clone().into(),
                row.id.clone().into(),
                or_dash(attributes(row)).into(),
            ]);
        }
        cells
    })
}

fn attributes(row: &NodeRow) -> String {
    let each: Vec<_> = row.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    each.join(",")
}

async fn fetch(node: &NodeName, context: &Context) -> Result<NodeStatus, Failure> {
    let query = Read { consistency: context.consistency };
    let call = Call::get(["nodes", node.as_str()]).query(&query).hint(HINT);
    context.client.json(call).await
}

fn describe(status: &NodeStatus, output: &Output) -> String {
    let row = &status.row;
    let mut text = format!("{} is {}", row.name, output.state(&row.state));
    if !row.reason.is_empty() {
        text.push_str(&format!(": {}", printable(&row.reason)));
    }
    text.push_str(match row.eligible {
        true => ", takes new work\n",
        false => ", takes no new work\n",
    });
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("{name:<12}{}\n", printable(&or_dash(value))));
    };
    line("class", row.class.clone());
    line("address", row.address.clone());
    line("id", row.id.clone());
    line("version", row.version.clone());
    line("runtimes", row.runtimes.join(", "));
    line("resources", resources(&row.resources));
    line("allocated", resources(&row.allocated));
    if let Some(usage) = &status.usage {
        let cpu = cores((usage.cpu_used * 1000.0).max(0.0) as u64);
        let (memory, disk) = (bytes(usage.memory_used), bytes(usage.disk_used));
        line("in use", format!("cpu {cpu}, memory {memory}, disk {disk}"));
    }
    line("ports", format!("{} to {}", status.port_range.0, status.port_range.1));
    line("volumes", status.volume_roots.join(", "));
    line("attributes", attributes(row));
    line("registered", format!("{} ago", age(output.now, row.registered_at)));
    line("state since", format!("{} ago", age(output.now, row.state_since)));
    if let Some(drain) = &status.drain {
        let until = drain.deadline.map_or_else(
            || "without a deadline".to_owned(),
            |deadline| format!("until {deadline}"),
        );
        line("draining", format!("since {} ago, {until}", age(output.now, drain.since)));
    }
    if !status.placed.is_empty() {
        text.push('\n');
        let rows = status.placed.iter().map(|row| ps::cells(row, output));
        text.push_str(&output.table(ps::headers(output), rows));
        text.push('\n');
    }
    text
}

async fn drain(
    node: &NodeName,
    deadline: Option<Millis>,
    wait: bool,
    context: &Context,
) -> Result<(), Failure> {
    let request = DrainRequest { deadline: deadline.map(|deadline| format!("{}ms", deadline.0)) };
    let call =
        Call::new(Method::POST, ["nodes", node.as_str(), "drain"]).json(&request)?.hint(HINT);
    let row: NodeRow = context.client.json(call).await?;
    if !wait {
        return context.output.value(&row, || {
            format!("{node} is being drained; orch node status {node} tells what is left")
        });
    }
    let mut left_before = usize::MAX;
    loop {
        let status = fetch(node, context).await?;
        let left: Vec<&AllocationRow> = status.placed.iter().collect();
        if left.is_empty() {
            return context.output.value(&status.row, || format!("{node} is empty"));
        }
        if status.row.eligible {
            return Err(Failure::failed(format!("the drain of {node} was ended by someone else")));
        }
        if left.len() != left_before {
            let names: Vec<_> = left
                .iter()
                .take(5)
                .map(|row| super::words::copy_name(&row.project, &row.job, row.index))
                .collect();
            let more = if left.len() > names.len() { ", …" } else { "" };
            note(&format!("{} left on {node}: {}{more}", left.len(), names.join(", ")));
            left_before = left.len();
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Failure::new(Exit::INTERRUPTED, "interrupted; the drain goes on"));
            }
        }
    }
}
