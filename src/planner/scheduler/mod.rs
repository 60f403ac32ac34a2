//! Finds the best node for one more replica, or says why there is none.
//!
//! `refusal` holds what keeps a replica off a node, `score` what draws it to one. Start at
//! `fleet`, which weighs them.

mod explain;
mod fleet;
mod refusal;
mod score;

pub use self::explain::{Explanation, explain, refusal_when_empty};
pub(crate) use self::fleet::{Ask, Fleet};
pub(super) use self::refusal::static_refusal;
pub use self::refusal::{Refusal, Refusals};
