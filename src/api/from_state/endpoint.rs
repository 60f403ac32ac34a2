//! Endpoints as they are shown.

use crate::api::view::endpoint::{Endpoint, Endpoints};
use crate::model::allocation::Allocation;
use crate::model::job::Protocol;
use crate::model::name::{JobId, PortName};
use crate::state::{Job, State};

/// All endpoints of a job, or those of one port.
pub(in crate::api) fn list(
    state: &State,
    index: u64,
    id: &JobId,
    job: &Job,
    port: Option<&PortName>,
) -> Endpoints {
    let endpoints =
        state.endpoints(id, job).flat_map(|alloc| of_replica(state, job, alloc, port)).collect();
    let (project, job) = (id.project.to_string(), id.name.to_string());
    Endpoints { project, job, index, endpoints }
}

fn of_replica(
    state: &State,
    job: &Job,
    alloc: &Allocation,
    port: Option<&PortName>,
) -> Vec<Endpoint> {
    let host = state.node(&alloc.node).map_or_else(String::new, |node| node.address.clone());
    let protocol = |name: &PortName| {
        let spec = job.spec_of(alloc.version);
        spec.ports().find(|port| port.name == *name).map_or(Protocol::Tcp, |port| port.protocol)
    };
    let ports = alloc.grant.ports.iter();
    ports
        .filter(|(name, _)| port.is_none_or(|wanted| *name == wanted))
        .map(|(name, number)| Endpoint {
            port: name.to_string(),
            address: if host.contains(':') {
                format!("[{host}]:{number}")
            } else {
                format!("{host}:{number}")
            },
            host: host.clone(),
            host_port: *number,
            protocol: protocol(name).to_string(),
            replica: alloc.index,
            version: alloc.version,
            allocation: alloc.id.to_string(),
            node: alloc.node.to_string(),
            ready_since: alloc.ready_since.into(),
        })
        .collect()
}

/// The ports that a job has, in any version that runs.
pub(in crate::api) fn ports(state: &State, id: &JobId, job: &Job) -> Vec<PortName> {
    let running = state.allocs_of(id).filter(|alloc| !alloc.ended());
    let mut ports: Vec<PortName> = job
        .spec()
        .ports()
        .map(|port| port.name.clone())
        .chain(running.flat_map(|alloc| alloc.grant.ports.keys().cloned()))
        .collect();
    ports.sort();
    ports.dedup();
    ports
}
