//! Places what the other planners asked for.

use std::collections::BTreeSet;

use super::scheduler::{Ask, Fleet, Refusals};
use super::{Plan, Unplaced};
use crate::limits::PLACEMENTS_PER_COMMAND_MAX;
use crate::model::name::JobId;
use crate::state::{Command, Placements, State};

/// Finds a node for each ask, the most important first.
pub(super) fn place(state: &State, mut asks: Vec<Ask<'_>>, plan: &mut Plan) {
    if asks.is_empty() {
        return;
    }
    asks.sort_by(|left, right| {
        let key = |ask: &Ask<'_>| (std::cmp::Reverse(ask.spec.priority), ask.id.clone(), ask.index);
        key(left).cmp(&key(right))
    });
    let mut fleet = Fleet::new(state);
    let mut placements = Placements::default();
    let mut full: BTreeSet<JobId> = BTreeSet::new();
    for ask in asks {
        // Where one replica found no room, its equals find none either.
        let equal = ask.node.is_none();
        if equal && full.contains(ask.id) {
            if let Some(unplaced) = plan.unplaced.get_mut(ask.id) {
                unplaced.count += 1;
            }
            continue;
        }
        match fleet.place(&ask) {
            Ok(row) => placements.push(row),
            Err(refusals) => {
                let known = plan
                    .unplaced
                    .entry(ask.id.clone())
                    .or_insert_with(|| Unplaced { count: 0, refusals: Refusals::default() });
                known.count += 1;
                known.refusals = refusals;
                if equal {
                    full.insert(ask.id.clone());
                }
            }
        }
        if placements.len() == PLACEMENTS_PER_COMMAND_MAX {
            plan.commands.push(Command::Place(Box::new(std::mem::take(&mut placements))));
        }
    }
    if !placements.is_empty() {
        plan.commands.push(Command::Place(Box::new(placements)));
    }
}
