//! Finds the best node for one more replica, or says why there is none.
//!
//! `refusal` holds what keeps a replica off a node, `score` what draws it to one. Start at
//! `fleet` for how a node is chosen, at `explain` for why none is.

mod explain;
mod fleet;
mod ports;
mod refusal;
mod score;

pub use self::explain::{Explanation, explain};
pub(super) use self::fleet::Fleet;
pub use self::refusal::{Refusal, Refusals, refusal_when_empty};
use crate::model::allocation::Allocation;
use crate::model::job::JobSpec;
use crate::model::name::{JobId, NodeName};

/// A replica that wants a node.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'s> {
    pub(crate) id: &'s JobId,
    pub(crate) version: u64,
    pub(crate) spec: &'s JobSpec,
    pub(crate) index: u32,
    /// A system job's replica belongs to one node.
    pub(crate) node: Option<&'s NodeName>,
    /// The one before it in this place.
    pub(crate) previous: Option<&'s Allocation>,
}
