//! Nothing of a node is given twice: what is reserved fits into it, each port and device has one
//! owner. Otherwise a placement that was acknowledged could not start.

use orch::state::{NodeUse, State};

pub fn check(index: u64, state: &State) {
    for node in state.nodes() {
        let mut used = NodeUse::default();
        let (mut ports, mut gpus) = (0, 0);
        for alloc in state.allocs_on(&node.name).filter(|alloc| !alloc.ended()) {
            used.take(alloc);
            ports += alloc.reserved_ports.len();
            gpus += alloc.grant.gpus.len();
        }
        let name = &node.name;
        assert_eq!(used, state.node_use(name), "entry {index}: what {name} counts is the sum");
        assert_eq!(used.ports.len(), ports, "entry {index}: a port of {name} is given twice");
        assert_eq!(used.gpus.len(), gpus, "entry {index}: a device of {name} is given twice");
        let lacks = node.resources.lacks(used.resources);
        assert_eq!(lacks, None, "entry {index}: {name} is overfull");
    }
}
