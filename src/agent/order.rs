//! What a runtime is told to run: a task with all that its grant decided.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::allocation::Assignment;
use crate::model::job::{LegacyEnvironment, Protocol, TaskSpec};
use crate::model::name::{AllocId, JobId, NodeName, PortName, TaskName};

/// Whose tasks: an agent touches no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster.
    pub cluster_id: u64,
    /// The node in it.
    pub node: NodeName,
}

impl Owner {
    /// The cluster's id as it stands in labels.
    pub(super) fn cluster_label(&self) -> String {
        format!("{:016x}", self.cluster_id)
    }
}

/// One task of one allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// The allocation.
    pub alloc: AllocId,
    /// Its task.
    pub task: TaskName,
}

impl std::fmt::Display for TaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.alloc, self.task)
    }
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its name in the job.
    pub name: PortName,
    /// Where the task listens.
    pub inside: u16,
    /// Where it is reached.
    pub host: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// A task with all that its grant decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOrder {
    /// Which.
    pub key: TaskKey,
    /// Whose.
    pub owner: Owner,
    /// The order's counter.
    pub generation: u64,
    /// The job.
    pub job: JobId,
    /// The replica.
    pub index: u32,
    /// What to run.
    pub spec: TaskSpec,
    /// Its environment, complete.
    pub environment: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<Published>,
    /// Where they are published.
    pub bind_address: IpAddr,
    /// Its devices.
    pub gpus: Vec<u32>,
}

impl TaskOrder {
    /// The order for the task of that name; none if the assignment has no such task.
    pub(super) fn new(
        assignment: &Assignment,
        task: &TaskName,
        owner: &Owner,
        address: &str,
        bind_address: IpAddr,
    ) -> Option<Self> {
        let spec = assignment.spec.tasks.iter().find(|spec| spec.name == *task)?.clone();
        // Devices are handed out in the order of the tasks.
        let before: u32 = assignment
            .spec
            .tasks
            .iter()
            .take_while(|other| other.name != *task)
            .map(|other| other.resources.gpu)
            .sum();
        let gpus = assignment
            .grant
            .gpus
            .iter()
            .copied()
            .skip(before as usize)
            .take(spec.resources.gpu as usize)
            .collect::<Vec<_>>();
        let ports = published(assignment, &spec);
        let mut order = Self {
            key: TaskKey { alloc: assignment.id, task: task.clone() },
            owner: owner.clone(),
            generation: assignment.grant.generation,
            job: assignment.spec.id(),
            index: assignment.index,
            spec,
            environment: BTreeMap::new(),
            ports,
            bind_address,
            gpus,
        };
        order.environment = environment(&order, assignment, address);
        Some(order)
    }

    /// The name of its container: for people, and with a mark of its own for each cluster and
    /// node, since several may share an engine.
    pub(super) fn container_name(&self) -> String {
        let Self { job, index, key, owner, .. } = self;
        let whose = format!("{:x} {}", owner.cluster_id, owner.node);
        let mark = xxhash_rust::xxh3::xxh3_64(whose.as_bytes()) as u32;
        format!("orch-{}-{index}-{}-{}-{mark:08x}", job.name, key.task, key.alloc)
    }
}

/// The ports of a task with what the grant gave them.
pub(super) fn published(assignment: &Assignment, spec: &TaskSpec) -> Vec<Published> {
    spec.ports
        .iter()
        .filter_map(|port| {
            let host = *assignment.grant.ports.get(&port.name)?;
            Some(Published {
                name: port.name.clone(),
                inside: port.container.unwrap_or(host),
                host,
                protocol: port.protocol,
            })
        })
        .collect()
}

fn environment(
    order: &TaskOrder,
    assignment: &Assignment,
    address: &str,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let mut set = |key: &str, value: String| environment.insert(key.to_owned(), value);
    set("ORCH_JOB", order.job.name.to_string());
    set("ORCH_PROJECT", order.job.project.to_string());
    set("ORCH_TASK", order.key.task.to_string());
    set("ORCH_ALLOC_ID", order.key.alloc.to_string());
    set("ORCH_INDEX", order.index.to_string());
    set("ORCH_NODE", order.owner.node.to_string());
    set("ORCH_VERSION", assignment.version.to_string());
    set("HOST", address.to_owned());
    // A process listens on the host itself.
    let on_host = order.spec.runtime.word() == "process";
    for (i, port) in order.ports.iter().enumerate() {
        let name = port.name.as_str().to_ascii_uppercase().replace('-', "_");
        let inside = if on_host { port.host } else { port.inside };
        if i == 0 {
            set("PORT", inside.to_string());
        }
        set(&format!("PORT_{name}"), inside.to_string());
        set(&format!("HOST_PORT_{name}"), port.host.to_string());
    }
    if order.spec.legacy_environment == Some(LegacyEnvironment::Marathon) {
        marathon(order, &mut set);
    }
    if !order.gpus.is_empty() {
        let list = order.gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        set("NVIDIA_VISIBLE_DEVICES", list);
    }
    environment.extend(order.spec.environment.clone());
    environment
}

/// What Marathon told its tasks: ports are those of the host, and have a number too.
fn marathon(order: &TaskOrder, set: &mut impl FnMut(&str, String) -> Option<String>) {
    let hosts: Vec<String> = order.ports.iter().map(|port| port.host.to_string()).collect();
    for (i, port) in order.ports.iter().enumerate() {
        let name = port.name.as_str().to_ascii_uppercase().replace('-', "_");
        if i == 0 {
            set("PORT", port.host.to_string());
        }
        set(&format!("PORT{i}"), port.host.to_string());
        set(&format!("PORT_{}", port.inside), port.host.to_string());
        set(&format!("PORT_{name}"), port.host.to_string());
    }
    if !hosts.is_empty() {
        set("PORTS", hosts.join(","));
    }
    set("MESOS_TASK_ID", order.key.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allocation::Grant;
    use crate::model::job_file::{Format, read};

    #[test]
    fn a_task_that_asks_for_it_finds_what_marathon_told() {
        let file = "job: web\nreplicas: 1\nimage: a:1\nenvironment: { PORT1: mine }\n\
                    ports: { http: 80, admin-api: auto }\n";
        let of = |text: &str| {
            let spec = read(text, Format::Yaml).unwrap().remove(0);
            let ports = [("http", 31_000), ("admin-api", 31_001)];
            let ports = ports.map(|(name, port)| (name.parse().unwrap(), port)).into();
            let assignment = Assignment {
                id: AllocId(7),
                version: 1,
                index: 0,
                grant: Grant { ports, ..Grant::default() },
                spec: spec.into(),
            };
            let owner = Owner { cluster_id: 1, node: "n1".parse().unwrap() };
            let (task, address) = ("web".parse().unwrap(), "10.0.0.1");
            let bind = "0.0.0.0".parse().unwrap();
            TaskOrder::new(&assignment, &task, &owner, address, bind).unwrap().environment
        };
        let plain = of(file);
        assert_eq!((plain["PORT"].as_str(), plain["PORT_HTTP"].as_str()), ("80", "80"));
        assert!(!plain.contains_key("PORT0") && !plain.contains_key("MESOS_TASK_ID"));
        let told = of(&format!("{file}legacy_environment: marathon\n"));
        for (key, value) in [
            ("PORT", "31000"),
            ("PORT0", "31000"),
            ("PORT_HTTP", "31000"),
            ("PORT_80", "31000"),
            ("PORT1", "mine"),
            ("PORT_ADMIN_API", "31001"),
            ("PORT_31001", "31001"),
            ("PORTS", "31000,31001"),
            ("HOST", "10.0.0.1"),
            ("HOST_PORT_HTTP", "31000"),
            ("MESOS_TASK_ID", "a7-web"),
        ] {
            assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}");
        }
    }
}
