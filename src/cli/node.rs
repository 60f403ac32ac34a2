//! `orch node`: the hosts that run work.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::drain::{self, limit};
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output, note};
use super::ps;
use super::words::{age, bytes, cores, or_dash, printable, resources, share};
use crate::api::view::node::{EligibilityRequest, NodeRow, NodeStatus};
use crate::api::view::query::{List, Read};
use crate::model::name::NodeName;
use crate::model::time::Millis;

/// Verbs of `orch node`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch node ls                            all nodes with their room
  orch node status n1                     one node with what is on it
  orch node drain n1 --deadline 10m       move its work away, whatever is left in 10 minutes stops
  orch node drain n1 --wait               and tell what is left, and why, until nothing is
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
    #[command(after_help = "Examples:
  orch node drain n1                          what can move moves; the rest stays
  orch node drain n1 --deadline 10m --wait    in 10 minutes the rest is stopped
Services move one replica at a time, as their update rules say; batch work is left to end until
the deadline; system jobs go last. orch node eligible n1 takes it back. With --wait, the exit code
is 1 if the deadline passed before everything had moved.")]
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

pub(super) const HINT: &str = "orch node ls lists the nodes there are";

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
        NodeVerb::Drain { node, deadline, wait } => {
            return drain::run(&node, deadline, wait, context).await;
        }
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

pub(super) async fn fetch(node: &NodeName, context: &Context) -> Result<NodeStatus, Failure> {
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
        true if row.probation_until.is_some() => {
            ", takes no new work until then (orch node eligible lets it at once)\n"
        }
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
        line(
            "draining",
            format!("since {} ago, {}", age(output.now, drain.since), limit(drain, output)),
        );
        for left in &drain.left {
            text.push_str(&format!("  {}\n", printable(&left.message)));
        }
    }
    if !status.placed.is_empty() {
        text.push('\n');
        let rows = status.placed.iter().map(|row| ps::cells(row, output));
        text.push_str(&output.table(ps::headers(output), rows));
        text.push('\n');
    }
    text
}
