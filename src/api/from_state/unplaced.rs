//! Why a replica has no place, with the amounts and values that a person asks for next.

use std::collections::BTreeSet;

use crate::model::constraint::{Constraint, Subject};
use crate::model::job::{JobSpec, VolumeSource};
use crate::model::node::{Node, NodeState};
use crate::model::resources::{Bytes, ResourceKind, Resources};
use crate::planner::scheduler::{Refusal, explain};
use crate::state::State;

/// Nodes or values that a sentence names.
const NAMED: usize = 3;

/// Why no node takes one more replica: `no node has 6Gi of memory left; the most is 2Gi, on n1`.
pub(super) fn because(state: &State, spec: &JobSpec) -> String {
    let nodes = state.nodes().count();
    if nodes == 0 {
        return "the cluster has no nodes yet; an agent makes a host one".to_owned();
    }
    let refusals = explain(state, spec).refusals;
    let counts = refusals.counts();
    // What all nodes say alike is told with its particulars.
    let reasons: BTreeSet<_> = counts.iter().map(|(refusal, _)| refusal.label()).collect();
    if reasons.len() == 1
        && let Some((refusal, _)) = counts.first()
        && let Some(text) = in_detail(state, spec, refusal)
    {
        return text;
    }
    let each: Vec<_> = counts
        .iter()
        .map(|(refusal, count)| match *count {
            1 => format!("1 node: {refusal}"),
            count => format!("{count} nodes: {refusal}"),
        })
        .collect();
    format!("no node takes it ({})", each.join(", "))
}

fn in_detail(state: &State, spec: &JobSpec, refusal: &Refusal) -> Option<String> {
    let needs = spec.reserved();
    match refusal {
        Refusal::Constraint { .. } => Some(rules(state, spec)),
        Refusal::TooSmall { resource } => {
            let most = |node: &Node| part(node.resources, *resource);
            let node = state.nodes().max_by_key(|node| most(node))?;
            let (needs, has) = (amount(*resource, part(needs, *resource)), most(node));
            let has = bare(*resource, has);
            Some(format!("it asks for {needs}, and the largest node, {}, has {has}", node.name))
        }
        Refusal::Lacks { resource } => {
            let left = |node: &Node| {
                part(node.resources.minus(state.node_use(&node.name).resources), *resource)
            };
            let node = state.nodes().max_by_key(|node| left(node))?;
            let needs = amount(*resource, part(needs, *resource));
            let has = bare(*resource, left(node));
            Some(format!("no node has {needs} left; the most is {has}, on {}", node.name))
        }
        Refusal::NotReady { .. }
        | Refusal::Draining
        | Refusal::NotEligible
        | Refusal::Probation { .. } => {
            let each = state.nodes().filter_map(|node| Some((node, away(node)?)));
            let each: Vec<_> =
                each.map(|(node, how)| format!("{} {how}", node.name)).take(NAMED).collect();
            Some(format!("no node takes new work ({})", each.join(", ")))
        }
        Refusal::BeingFreed { .. } | Refusal::Data { .. } => Some(refusal.to_string()),
        _ => None,
    }
}

/// Why a node takes no new work at all.
fn away(node: &Node) -> Option<String> {
    let how = match (node.state, node.probation_until) {
        (NodeState::Lost, _) => "is lost",
        (NodeState::Left, _) => "has left",
        (NodeState::Ready, _) if node.drain.is_some() => "is being drained",
        (NodeState::Ready, _) if !node.eligible => "is not eligible",
        (NodeState::Ready, Some(until)) => {
            return Some(format!("is on probation until {}", until.time_of_day()));
        }
        (NodeState::Ready, None) => return None,
    };
    Some(how.to_owned())
}

/// The rules that no node keeps, each with the values that nodes have instead.
fn rules(state: &State, spec: &JobSpec) -> String {
    let broken = |rule: &&Constraint| !state.nodes().any(|node| rule.holds(node));
    let rules: Vec<_> = spec.placement.require.iter().filter(broken).collect();
    if rules.is_empty() {
        let all: Vec<_> = spec.placement.require.iter().map(|rule| format!("\"{rule}\"")).collect();
        return format!("no node keeps all of its rules: {}", all.join(", "));
    }
    let each: Vec<_> =
        rules.iter().map(|rule| format!("\"{rule}\" ({})", values(state, &rule.subject))).collect();
    match each.as_slice() {
        [only] => format!("no node keeps its rule {only}"),
        _ => format!("no node keeps its rules {}", each.join(" and ")),
    }
}

fn values(state: &State, subject: &Subject) -> String {
    let values: BTreeSet<&str> = state.nodes().filter_map(|node| subject.of(node)).collect();
    let shown: Vec<&str> = values.iter().copied().take(NAMED).collect();
    let more = if values.len() > NAMED { ", …" } else { "" };
    match shown.is_empty() {
        true => format!("no node has {subject}"),
        false => format!("the nodes have {}{more}", shown.join(", ")),
    }
}

fn part(all: Resources, kind: ResourceKind) -> u64 {
    match kind {
        ResourceKind::Cpu => all.cpu_milli,
        ResourceKind::Memory => all.memory,
        ResourceKind::Disk => all.disk,
        ResourceKind::Gpu => u64::from(all.gpu),
    }
}

/// `256Mi of memory`, `0.5 cpu`.
fn amount(kind: ResourceKind, of: u64) -> String {
    let of = bare(kind, of);
    match kind {
        ResourceKind::Cpu | ResourceKind::Gpu => format!("{of} {kind}"),
        ResourceKind::Memory | ResourceKind::Disk => format!("{of} of {kind}"),
    }
}

fn bare(kind: ResourceKind, of: u64) -> String {
    match kind {
        ResourceKind::Cpu => {
            let cores = format!("{:.3}", of as f64 / 1000.0);
            cores.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        ResourceKind::Memory | ResourceKind::Disk => Bytes(of).to_string(),
        ResourceKind::Gpu => of.to_string(),
    }
}

/// The named volumes of a job: `volume pg`, `volumes a, b`.
pub(super) fn volumes(spec: &JobSpec) -> String {
    let mounts = spec.tasks.iter().flat_map(|task| &task.volumes);
    let names: BTreeSet<&str> = mounts
        .filter_map(|mount| match &mount.source {
            VolumeSource::Named(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    match names.as_slice() {
        [only] => format!("volume {only}"),
        _ => format!("volumes {}", names.join(", ")),
    }
}
