//! Chooses host ports.

use super::fleet::seed;
use super::{Ask, Refusal};
use crate::model::job::Protocol;
use crate::model::node::Node;
use crate::state::NodeUse;

/// A host port for each of the job's ports, in their order.
pub(super) fn choose_ports(
    ask: &Ask<'_>,
    node: &Node,
    used: &NodeUse,
) -> Result<Vec<u16>, Refusal> {
    let mut taken = used.ports.clone();
    let (first, last) = node.port_range;
    let count = u64::from(last.saturating_sub(first)) + 1;
    // Another try begins elsewhere: the port may be held by something that is not ours.
    let mut next = seed(ask) % count;
    let mut ports = Vec::new();
    // Fixed ones first in the books, so that a chosen one never takes a fixed one's number.
    for port in ask.spec.ports() {
        if let Some(fixed) = port.host
            && taken.insert((fixed, port.protocol)).is_some()
        {
            return Err(Refusal::PortTaken { port: fixed });
        }
    }
    for port in ask.spec.ports() {
        if let Some(fixed) = port.host {
            ports.push(fixed);
            continue;
        }
        let free = |number: &u16, protocol: Protocol| !taken.contains(&(*number, protocol));
        let chosen = (0..count)
            .map(|i| first.saturating_add(((next + i) % count) as u16))
            .find(|number| free(number, port.protocol))
            .ok_or(Refusal::NoPortFree)?;
        taken.insert((chosen, port.protocol));
        next = u64::from(chosen - first) + 1;
        ports.push(chosen);
    }
    Ok(ports)
}
