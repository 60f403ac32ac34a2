//! Services: as many replicas as are wanted, of the version that is wanted, where they may be;
//! and never fewer healthy ones than the job promises while that changes.

use std::collections::BTreeMap;

use super::Pass;
use super::deployments::{Mode, mode};
use super::places::{Place, places};
use super::progress::{settled, unpromoted};
use super::replicas::{Again, again};
use super::scheduler::{Ask, explain};
use crate::model::allocation::{Allocation, Desired, StopReason};
use crate::model::deployment::Deployment;
use crate::model::job::UpdateOrder;
use crate::model::name::JobId;
use crate::model::time::Millis;
use crate::state::Job;

/// How long the older of two replicas for one place may take to become ready before the newer
/// one, which is, is kept.
const RETURN_WAIT: Millis = Millis::from_secs(30);

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    let wanted = job.replicas();
    let mut places = places(pass.state, id, job);
    for (_, place) in places.extract_if(wanted.., |_, _| true) {
        for alloc in place.wanted() {
            pass.stop(alloc.id, StopReason::ScaledDown);
        }
    }
    let deployment = pass.state.latest_deployment(job).map(|latest| &**latest);
    let mut turn = Turn::new(pass, id, job, deployment, wanted);
    for place in places.values_mut() {
        turn.resolve_doubles(place);
    }
    turn.count(&places);
    for index in 0..wanted {
        turn.look_at(index, places.entry(index).or_default());
    }
    turn.go_on(&mut places);
}

/// One look at one service.
struct Turn<'p, 's> {
    pass: &'p mut Pass<'s>,
    id: &'s JobId,
    job: &'s Job,
    deployment: Option<&'s Deployment>,
    mode: Mode,
    wanted: u32,
    /// Places with a replica that takes traffic, less those that this look takes away.
    ready: u32,
    /// Places in which something is under way, with those of this look.
    in_flight: u32,
}

impl<'s> Turn<'_, 's> {
    fn new<'p>(
        pass: &'p mut Pass<'s>,
        id: &'s JobId,
        job: &'s Job,
        deployment: Option<&'s Deployment>,
        wanted: u32,
    ) -> Turn<'p, 's> {
        let mode = mode(pass.state, job, deployment);
        Turn { pass, id, job, deployment, mode, wanted, ready: 0, in_flight: 0 }
    }

    fn stop(&mut self, place: &mut Place<'s>, alloc: &'s Allocation, reason: StopReason) {
        place.leaves(alloc);
        self.pass.stop(alloc.id, reason);
    }

    fn settled(&self, alloc: &Allocation) -> bool {
        settled(self.pass.state, self.pass.inputs.now, self.job, alloc)
    }

    /// Whether an allocation takes traffic.
    fn serves(&self, alloc: &Allocation) -> bool {
        self.pass.state.serves(self.job, alloc)
    }

    fn room_for_more(&self) -> bool {
        self.in_flight < self.job.spec().update.max_parallel
    }

    /// Whether the promise is kept when `alloc` stops; then it counts as stopped.
    fn may_stop(&mut self, place: &Place<'s>, alloc: &Allocation) -> bool {
        let another = place
            .wanted()
            .any(|other| other.id != alloc.id && self.settled(other) && self.serves(other));
        if !self.serves(alloc) || another {
            return true;
        }
        let allowed = self.ready > self.job.promised();
        self.ready -= u32::from(allowed);
        allowed
    }

    /// Two for one place and one version, though nobody asked for a move: the node of the older
    /// one was lost, and is back. The older one stays if it is well.
    fn resolve_doubles(&mut self, place: &mut Place<'s>) {
        for current in [true, false] {
            let mut these = if current { place.new.clone() } else { place.old.clone() };
            these.retain(|alloc| self.why_it_leaves(alloc).is_none());
            let moved = |alloc: &Allocation| {
                let previous = alloc.previous;
                place
                    .wanted()
                    .any(|other| previous == Some(other.id) && self.why_it_leaves(other).is_some())
            };
            these.retain(|alloc| !moved(alloc));
            let versions_differ = these.iter().any(|alloc| !self.runs_alike(alloc, these[0]));
            if these.len() < 2 || versions_differ {
                continue;
            }
            let oldest = these[0];
            let newer_is_well = these[1..].iter().any(|alloc| alloc.available());
            let waited = self.pass.inputs.now.since(oldest.changed_at) >= RETURN_WAIT;
            // Otherwise it ended meanwhile, and was begun anew after its replacement.
            let ran_on = these[1..].iter().filter(|newer| newer.available()).all(|newer| {
                newer.started_at().is_none_or(|began| oldest.started_at() <= Some(began))
            });
            if oldest.available() && ran_on {
                for newer in &these[1..] {
                    self.stop(place, newer, StopReason::Reconnected);
                }
            } else if newer_is_well && (waited || oldest.available()) {
                self.stop(place, oldest, StopReason::NodeLost);
            } else if !waited {
                self.pass.plan.look_at(oldest.changed_at + RETURN_WAIT);
            }
        }
    }

    fn runs_alike(&self, one: &Allocation, other: &Allocation) -> bool {
        let runs_as = |alloc: &Allocation| self.job.version(alloc.version).map(|v| v.runs_as);
        runs_as(one) == runs_as(other)
    }

    /// Why an allocation is to go elsewhere, if it is.
    fn why_it_leaves(&self, alloc: &Allocation) -> Option<StopReason> {
        let node = self.pass.state.node(&alloc.node);
        let drained = node.is_some_and(|node| node.drain.is_some());
        let now = self.pass.inputs.now;
        let moving = alloc.moving.as_ref().filter(|moving| !moving.is_over(now));
        let moved = moving.map(|moving| moving.reason);
        if drained { Some(StopReason::Drained) } else { moved }
    }

    fn count(&mut self, places: &BTreeMap<u32, Place<'s>>) {
        let rolling = matches!(self.mode, Mode::Roll);
        for index in 0..self.wanted {
            let Some(place) = places.get(&index) else {
                self.in_flight += 1;
                continue;
            };
            let unsettled = |alloc: &Allocation| !self.settled(alloc);
            let coming = match self.mode {
                // The second set is expected to come.
                Mode::Beside(_) => {
                    place.old.len() > 1 && place.old.iter().any(|alloc| unsettled(alloc))
                }
                _ => place.wanted().count() > 1 && place.wanted().any(unsettled),
            };
            let fresh = rolling && place.new.iter().any(|alloc| unsettled(alloc));
            let serves = place.wanted().any(|alloc| self.serves(alloc));
            self.ready += u32::from(serves);
            self.in_flight += u32::from(!serves || coming || fresh);
            for alloc in place.wanted().filter(|alloc| alloc.available()) {
                let at = alloc.ready_since + self.job.spec().update.min_healthy;
                if at > self.pass.inputs.now {
                    // Nothing tells us when it has been ready for long enough but the clock.
                    self.pass.plan.look_at(at);
                }
            }
        }
    }

    /// What can be said of a place by itself.
    fn look_at(&mut self, index: u32, place: &mut Place<'s>) {
        self.end_what_is_replaced(index, place);
        let leaving: Vec<_> =
            place.wanted().filter_map(|a| Some((a, self.why_it_leaves(a)?))).collect();
        for (alloc, why) in leaving {
            self.move_away(index, place, alloc, why);
        }
        if place.wanted().next().is_none() {
            self.fill(index, place);
        } else if place.old.is_empty() && self.keeps_old() {
            // The new version stands beside the old one; it is no replacement for it yet.
            self.fill_with_old(index, place);
        }
    }

    /// Stops old ones whose successor is there, or which serve nobody.
    fn end_what_is_replaced(&mut self, index: u32, place: &mut Place<'s>) {
        let why = match self.deployment.and_then(|deployment| deployment.reverts) {
            Some(_) => StopReason::Reverted,
            None => StopReason::Updated,
        };
        let new_is_well = place.new.iter().any(|alloc| self.settled(alloc));
        let over = match self.mode {
            Mode::Roll => true,
            Mode::Switched { old_until } if old_until <= self.pass.inputs.now => true,
            Mode::Switched { old_until } => {
                if !place.old.is_empty() {
                    self.pass.plan.look_at(old_until);
                }
                false
            }
            // Beside a second set, and while nothing moves on, the newest of what was left half
            // way goes: the version that was healthy stays.
            Mode::Beside(_) | Mode::Keep => {
                self.end_leftovers(index, place);
                false
            }
        };
        if !over {
            return;
        }
        for alloc in place.old.clone() {
            // One that serves nobody costs nothing to replace.
            if new_is_well || !alloc.available() {
                self.stop(place, alloc, why);
            }
        }
    }

    /// Of several versions beside the new one, only the one to go back to stays.
    fn end_leftovers(&mut self, index: u32, place: &mut Place<'s>) {
        let Some(from) = self.deployment.and_then(|deployment| deployment.from) else { return };
        let Some(from) = self.job.version(from) else { return };
        if place.old.len() < 2 {
            return;
        }
        let healthy = |alloc: &&Allocation| {
            self.job.version(alloc.version).is_some_and(|version| version.runs_as == from.runs_as)
        };
        if !place.old.iter().any(|alloc| healthy(alloc) && alloc.available()) {
            return;
        }
        let strangers: Vec<_> = place.old.iter().filter(|alloc| !healthy(alloc)).copied().collect();
        tracing::debug!(job = %self.id, index, "what an earlier deployment left is stopped");
        for alloc in strangers {
            self.stop(place, alloc, StopReason::Updated);
        }
    }

    /// Has the replacement of one that is to go elsewhere started, or stops it.
    fn move_away(
        &mut self,
        index: u32,
        place: &mut Place<'s>,
        alloc: &'s Allocation,
        why: StopReason,
    ) {
        let current = self.job.runs_current(alloc.version);
        if why == StopReason::Drained && self.overdue(alloc) {
            self.ready -= u32::from(alloc.available() && self.ready > 0);
            self.stop(place, alloc, why);
            return;
        }
        // Its data is on that node: it stays, or waits for the deadline.
        if self.job.spec().has_local_data() {
            return;
        }
        let others: Vec<_> = place
            .wanted()
            .filter(|other| other.id != alloc.id && self.runs_alike(other, alloc))
            .collect();
        let stays = |other: &&&Allocation| self.why_it_leaves(other).is_none();
        if let Some(other) = others.iter().find(stays) {
            // It takes over when it is well.
            if self.settled(other) || !alloc.available() {
                self.stop(place, alloc, why);
            }
            return;
        }
        // What it was to replace is still there: that gets another successor.
        if others.iter().any(|other| other.id < alloc.id && other.available()) {
            self.stop(place, alloc, why);
            return;
        }
        // The new version takes its place soon, or it only stands by.
        let soon_gone = !current && matches!(self.mode, Mode::Roll | Mode::Switched { .. });
        if soon_gone && alloc.available() {
            return;
        }
        if !alloc.available() {
            self.stop(place, alloc, why);
            return;
        }
        if !self.room_for_more() || self.delayed(index, place, current) {
            return;
        }
        match self.job.spec().order() {
            UpdateOrder::StartFirst => {
                self.in_flight += 1;
                self.ask(index, alloc.version, Some(alloc));
            }
            UpdateOrder::StopFirst => {
                let spec = self.job.spec_of(alloc.version);
                let elsewhere =
                    explain(self.pass.state, spec).fits.iter().any(|node| *node != alloc.node);
                if elsewhere && self.may_stop(place, alloc) {
                    self.in_flight += 1;
                    self.stop(place, alloc, why);
                }
            }
        }
    }

    fn overdue(&mut self, alloc: &Allocation) -> bool {
        let drain = self.pass.state.node(&alloc.node).and_then(|node| node.drain.as_ref());
        let Some(due) = drain.and_then(|drain| Some(drain.since + drain.deadline?)) else {
            return false;
        };
        let overdue = due <= self.pass.inputs.now;
        if !overdue {
            self.pass.plan.look_at(due);
        }
        overdue
    }

    /// Fills an empty place with the version that it is to have now.
    fn fill(&mut self, index: u32, place: &Place<'s>) {
        if !place.leaving.is_empty() && !self.job.lets_overlap() {
            return;
        }
        let version = self.version_for(index, place);
        let current = self.job.runs_current(version);
        if self.delayed(index, place, current) {
            return;
        }
        let same = if current { place.last_new } else { place.last_old };
        self.ask(index, version, same.or(place.last()));
    }

    /// Whether the old version is to be whole while the new one stands beside it.
    fn keeps_old(&self) -> bool {
        let unpromoted = self.deployment.is_some_and(|latest| unpromoted(self.job, latest));
        matches!(self.mode, Mode::Beside(_)) || (self.mode == Mode::Keep && unpromoted)
    }

    fn fill_with_old(&mut self, index: u32, place: &Place<'s>) {
        let back = self.deployment.and_then(|deployment| deployment.from);
        let Some(back) = back.filter(|back| !self.job.runs_current(*back)) else { return };
        if !self.delayed(index, place, false) {
            self.ask(index, back, place.last_old);
        }
    }

    /// The version for an empty place: it keeps what it had until its turn comes.
    fn version_for(&self, index: u32, place: &Place<'s>) -> u64 {
        let current = self.job.current().version;
        let back = self.deployment.and_then(|deployment| deployment.from);
        let Some(back) = back.filter(|back| !self.job.runs_current(*back)) else { return current };
        let gone = place.leaving.iter().copied().chain(place.last()).max_by_key(|a| a.id);
        let goes_on = match self.mode {
            // What is filled with the old version would be replaced at once.
            Mode::Roll | Mode::Switched { .. } => true,
            Mode::Keep => gone.is_some_and(|gone| {
                let made_way = matches!(
                    gone.desired,
                    Desired::Stop(StopReason::Updated | StopReason::Reverted)
                );
                made_way || self.job.runs_current(gone.version)
            }),
            // What comes beside the old version comes in its turn, unless that can't be had.
            Mode::Beside(count) => index < count && place.last_old.is_some_and(|old| old.gave_up),
        };
        if goes_on { current } else { back }
    }

    /// Whether the place has to wait after failures, or is given up.
    fn delayed(&mut self, index: u32, place: &Place<'s>, current: bool) -> bool {
        let last = if current { place.last_new } else { place.last_old };
        let Some(last) = last else { return false };
        // What failed before the deployment began is another story.
        if current && self.deployment.is_some_and(|latest| last.changed_at < latest.started_at) {
            return false;
        }
        match again(self.job, last) {
            Again::Now => false,
            Again::At(at) if at <= self.pass.inputs.now => false,
            Again::At(at) => {
                self.pass.plan.look_at(at);
                true
            }
            Again::Never(why) => {
                if !last.gave_up {
                    tracing::debug!(job = %self.id, index, "given up");
                    self.pass.give_up(last.id, why);
                }
                true
            }
        }
    }

    fn ask(&mut self, index: u32, version: u64, previous: Option<&'s Allocation>) {
        // Of versions that run the same, the newest is what is asked for.
        let current = self.job.current().version;
        let version = if self.job.runs_current(version) { current } else { version };
        self.pass.asks.push(Ask {
            id: self.id,
            version,
            spec: self.job.spec_of(version),
            index,
            node: None,
            previous,
        });
    }

    /// Takes the next step of the deployment, as far as the job's promises allow.
    fn go_on(&mut self, places: &mut BTreeMap<u32, Place<'s>>) {
        let rolling = match self.mode {
            Mode::Keep => return,
            Mode::Beside(_) => false,
            Mode::Roll | Mode::Switched { .. } => true,
        };
        let mut turns: Vec<u32> = places
            .iter()
            .filter(|(_, place)| place.new.is_empty() && !place.old.is_empty())
            .map(|(index, _)| *index)
            .collect();
        if let Mode::Beside(count) = self.mode {
            turns.retain(|index| *index < count);
        }
        // What has to leave its node anyway first.
        turns.sort_by_key(|index| {
            let leaves = |alloc: &Allocation| self.why_it_leaves(alloc).is_some();
            let place = &places[index];
            (!place.old.iter().any(|alloc| leaves(alloc)), *index)
        });
        for index in turns {
            let Some(place) = places.get_mut(&index) else { continue };
            if self.delayed(index, place, true) {
                continue;
            }
            let Some(old) = place.old.iter().copied().max_by_key(|a| (a.available(), a.id)) else {
                continue;
            };
            let version = self.job.current().version;
            if !rolling {
                self.ask(index, version, Some(old));
                continue;
            }
            if !self.room_for_more() {
                break;
            }
            match self.job.spec().order() {
                UpdateOrder::StartFirst => {
                    self.in_flight += 1;
                    self.ask(index, version, Some(old));
                }
                UpdateOrder::StopFirst if self.may_stop(place, old) => {
                    self.in_flight += 1;
                    self.stop(place, old, StopReason::Updated);
                }
                UpdateOrder::StopFirst => {}
            }
        }
    }
}
