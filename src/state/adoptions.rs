//! Containers that ran before their job did, under another scheduler: its first copies.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::allocations::note;
use super::command::Adoption;
use super::{Change, Placement, Rejected, RejectedCode, Reply, State};
use crate::limits::ADOPT_TASKS_MAX;
use crate::model::job::{JobKind, JobSpec, TaskRuntime};
use crate::model::resources::Resources;

impl State {
    /// Why these containers can't be the copies of a new job: the place of the first that can't
    /// be, and the reason in words.
    pub fn adoption_problem(
        &self,
        spec: &JobSpec,
        adoptions: &[Adoption],
    ) -> Option<(usize, String)> {
        let mut seen = Seen::default();
        adoptions
            .iter()
            .enumerate()
            .find_map(|(i, one)| self.adoption_fault(spec, one, &mut seen).map(|why| (i, why)))
    }

    fn adoption_fault(&self, spec: &JobSpec, one: &Adoption, seen: &mut Seen) -> Option<String> {
        let Adoption { index, node: name, .. } = one;
        let JobKind::Service { replicas } = spec.kind else {
            return Some("only services have copies to begin with".to_owned());
        };
        if *index >= replicas || !seen.indices.insert(*index) {
            return Some(format!("the job has no copy {index} to spare"));
        }
        let Some(node) = self.nodes.get(name) else {
            return Some(format!("there is no node {name}"));
        };
        if !node.takes_work() || !node.runtimes.contains("docker") {
            return Some(format!("node {name} takes no containers now"));
        }
        if let Some(rule) = spec.placement.require.iter().find(|rule| !rule.holds(node)) {
            return Some(format!("node {name} does not keep the rule {rule}"));
        }
        let here = seen.nodes.iter().filter(|(known, ..)| known == name).count();
        if spec.placement.max_per_node.is_some_and(|most| here >= most as usize) {
            return Some(format!("node {name} would have more copies than max_per_node"));
        }
        let mut names: Vec<_> = spec.tasks.iter().map(|task| &task.name).collect();
        names.sort();
        if !names.into_iter().eq(one.containers.keys()) {
            return Some("there must be a container for each of the job's tasks".to_owned());
        }
        if spec.tasks.iter().any(|task| task.runtime == TaskRuntime::Process) {
            return Some("one of the job's tasks is a process, and no container".to_owned());
        }
        let reserved = spec.reserved();
        if reserved.gpu > 0 {
            return Some("which GPUs a container has can't be known".to_owned());
        }
        let used = self.node_use(name);
        let others = seen.nodes.iter().filter(|(known, ..)| known == name);
        let taken = others.fold(used.resources, |sum, (_, reserved)| sum.plus(*reserved));
        if let Some(lacks) = node.resources.minus(taken).lacks(reserved) {
            return Some(format!("node {name} has not enough {lacks} free for it"));
        }
        seen.nodes.push((name.clone(), reserved));
        if spec.ports().count() != one.ports.len() {
            return Some(format!(
                "the job has {} ports, and {} are known of the container",
                spec.ports().count(),
                one.ports.len()
            ));
        }
        for (port, number) in spec.ports().zip(&one.ports) {
            if port.host.is_some_and(|fixed| fixed != *number) {
                return Some(format!("port {} is {number} on the host, not as fixed", port.name));
            }
            let fresh = seen.ports.insert((name.clone(), *number, port.protocol));
            if !fresh || used.ports.contains(&(*number, port.protocol)) {
                return Some(format!("port {number}/{} of {name} is taken", port.protocol));
            }
        }
        let known = |container: &String| {
            let live = self.allocs_on(name).filter(|alloc| !alloc.ended());
            live.flat_map(|alloc| alloc.grant.adopted.values()).any(|known| known == container)
        };
        let mut containers = one.containers.values();
        containers
            .any(|container| known(container) || !seen.containers.insert(container.clone()))
            .then(|| "the container is a copy of a job already".to_owned())
    }
}

/// What the adoptions before hold.
#[derive(Default)]
struct Seen {
    indices: BTreeSet<u32>,
    nodes: Vec<(crate::model::name::NodeName, Resources)>,
    ports: BTreeSet<(crate::model::name::NodeName, u16, crate::model::job::Protocol)>,
    containers: BTreeSet<String>,
}

impl Change<'_> {
    /// A new job, and at the same moment its first copies: the planner never finds them missing.
    pub(super) fn adopt_job(
        &mut self,
        spec: &Arc<JobSpec>,
        adoptions: &[Adoption],
    ) -> Result<Reply, Rejected> {
        if adoptions.len() > ADOPT_TASKS_MAX {
            let message = format!("at most {ADOPT_TASKS_MAX} containers are taken over at once");
            return Err(Rejected::new(RejectedCode::Invalid, message));
        }
        if let Some((_, why)) = self.state.adoption_problem(spec, adoptions) {
            return Err(Rejected::new(RejectedCode::Conflict, why));
        }
        let reply = self.submit_job(spec, Some(0))?;
        for one in adoptions {
            let row = Placement {
                job: spec.id(),
                version: 1,
                index: one.index,
                node: one.node.clone(),
                ports: one.ports.clone(),
                gpus: Vec::new(),
                previous: None,
            };
            // All that is checked there was checked above.
            let Some(id) = self.place_one(row) else { continue };
            let Some(placed) = self.state.allocs.get(&id) else { continue };
            let mut alloc = (**placed).clone();
            alloc.grant.adopted.clone_from(&one.containers);
            let at = self.stamp.at;
            note(&mut alloc, at, format!("taken over where it runs: {}", one.origin));
            self.state.put_alloc(alloc);
        }
        Ok(reply)
    }
}
