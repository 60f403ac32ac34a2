//! How a job is and why, in one sentence that needs no manual.

use super::allocation::newest;
use super::job::Counts;
use super::unplaced;
use crate::model::allocation::{AllocStatus, Allocation};
use crate::model::deployment::{Deployment, DeploymentStatus};
use crate::model::job::{JobKind, Promotion, UpdateStrategy};
use crate::model::name::JobId;
use crate::model::time::Timestamp;
use crate::planner::progress::progress;
use crate::planner::scheduler::{Refusal, explain_replica};
use crate::state::{Job, JobOutcome, State};

/// What a job's sentence is made of.
pub(super) struct Subject<'s> {
    pub(super) state: &'s State,
    pub(super) now: Timestamp,
    pub(super) id: &'s JobId,
    pub(super) job: &'s Job,
    pub(super) counts: &'s Counts,
    /// Replicas that should be placed and are not.
    pub(super) missing: &'s [u32],
}

/// What keeps a replica from being as it should, the worst last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// It is on its way.
    Starting(String),
    /// It runs, and a check says that it can't take traffic.
    NotReady(String),
    /// Its node is not heard, and it keeps its place for now.
    Unheard(String),
    /// Nothing takes it now.
    NoPlace(String),
    /// Only one node has its data, and does not take it now.
    FarFromData(String),
    /// Nothing would take it even if nothing else ran.
    Never(String),
    /// It never came up.
    CannotStart(String),
    /// It came up, and ended again and again.
    Crashes(String),
    /// It failed, and nothing takes its place any more.
    GaveUp(String),
}

impl Trouble {
    fn clause(&self) -> &str {
        match self {
            Self::Starting(text)
            | Self::NotReady(text)
            | Self::Unheard(text)
            | Self::NoPlace(text)
            | Self::FarFromData(text)
            | Self::Never(text)
            | Self::CannotStart(text)
            | Self::Crashes(text)
            | Self::GaveUp(text) => text,
        }
    }

    /// What it makes of the job, after `is` or `has`.
    fn head(&self, some_ready: bool) -> &'static str {
        match self {
            Self::Starting(_) => "is starting",
            Self::NotReady(_) if some_ready => "is partly ready",
            Self::NotReady(_) => "is not ready",
            Self::Unheard(_) => "is partly out of reach",
            Self::NoPlace(_) => "waits for room",
            Self::FarFromData(_) => "waits for its data",
            Self::Never(_) => "can't run on these nodes",
            Self::CannotStart(_) => "doesn't start",
            Self::Crashes(_) => "is in a crash loop",
            Self::GaveUp(_) if some_ready => "has given up in part",
            Self::GaveUp(_) => "has failed",
        }
    }
}

/// `1 replica`, `3 replicas`.
pub(super) fn replicas(count: u32) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}

impl Subject<'_> {
    /// How the job is and why.
    pub(super) fn sentence(&self) -> String {
        let (id, job) = (self.id, self.job);
        let text = match (job.outcome, job.stopped, job.spec().kind) {
            (Some(outcome), _, _) => self.ended(outcome),
            (None, true, _) => match self.counts.stopping {
                0 => "is stopped".to_owned(),
                left => format!("is stopping: {} not ended yet", count_have(left)),
            },
            (None, false, JobKind::Batch { completions, .. }) => self.batch(completions),
            (None, false, _) => self.of_deployment().unwrap_or_else(|| self.of_replicas()),
        };
        format!("{id} {text}")
    }

    fn ended(&self, outcome: JobOutcome) -> String {
        match outcome {
            JobOutcome::Complete => match self.job.spec().kind {
                JobKind::Batch { completions: 2.., .. } => "is complete: all runs ended well",
                _ => "is complete: it ended well",
            }
            .to_owned(),
            JobOutcome::Failed => match self.worst() {
                Some(trouble) => format!("has failed: {}", trouble.clause()),
                None => "has failed".to_owned(),
            },
        }
    }

    fn batch(&self, completions: u32) -> String {
        let Counts { complete, running, .. } = *self.counts;
        let trouble = self.worst();
        let mut text = match running {
            0 => match &trouble {
                Some(trouble) => trouble.head(false).to_owned(),
                None => "is about to start".to_owned(),
            },
            _ => "is running".to_owned(),
        };
        if completions > 1 {
            text.push_str(&format!(": {complete} of {completions} runs are complete"));
        }
        if let Some(trouble) = trouble {
            let link = if completions > 1 { "; " } else { ": " };
            text.push_str(&format!("{link}{}", trouble.clause()));
        }
        text
    }

    /// What a deployment makes of it; none if it says no more than the replicas do.
    fn of_deployment(&self) -> Option<String> {
        let (state, job) = (self.state, self.job);
        let latest = state.latest_deployment(job)?;
        let from = latest.from.filter(|from| !job.runs_current(*from));
        let version = latest.version;
        if latest.status == DeploymentStatus::Paused {
            let way = match from {
                Some(from) => format!("between version {from} and {version}"),
                None => format!("on the way to version {version}"),
            };
            return Some(format!(
                "is held {way}: deployment {} is paused, {}",
                latest.id,
                self.how_many_new()
            ));
        }
        if let Some(failed) = latest.reverts.and_then(|id| state.deployment(id)) {
            return self.reverted(latest, failed);
        }
        match (latest.status, from) {
            // Without an earlier version, what the replicas do says more.
            (DeploymentStatus::Failed, Some(_)) => {
                let why = &latest.reason;
                Some(format!("did not get to version {version}: {why}; {}", self.how_many()))
            }
            (DeploymentStatus::Running, Some(from)) => Some(self.under_way(latest, from)),
            _ => None,
        }
    }

    /// An earlier version is taken again because a later one failed.
    fn reverted(&self, latest: &Deployment, failed: &Deployment) -> Option<String> {
        let back = latest.from?;
        let why = failed.reason.split("; going back to version").next().unwrap_or_default();
        let end = format!("version {} failed: {why}", failed.version);
        match latest.status {
            DeploymentStatus::Running => {
                Some(format!("goes back to version {back}, {}; {end}", self.how_many()))
            }
            DeploymentStatus::Successful => {
                let now = match self.worst() {
                    Some(trouble) => format!(", but {}", trouble.clause()),
                    None => format!(", {}", self.how_many()),
                };
                Some(format!("went back to version {back}{now}; {end}"))
            }
            _ => None,
        }
    }

    fn under_way(&self, latest: &Deployment, from: u64) -> String {
        let (state, job) = (self.state, self.job);
        let progress = progress(state, self.now, job, latest);
        let set = state.set_size(job);
        let strategy = job.spec().update.strategy;
        let tried = strategy != UpdateStrategy::Rolling && latest.promoted_at.is_none();
        let version = latest.version;
        let trouble = match self.worst() {
            Some(trouble) => format!("; {}", trouble.clause()),
            None => String::new(),
        };
        if !tried {
            return format!(
                "goes from version {from} to {version}: {}{trouble}",
                self.how_many_new()
            );
        }
        let (what, ready) = match (strategy, progress.ready >= set) {
            (UpdateStrategy::Canary { .. }, ready) => (canaries(set), ready),
            (_, ready) => (format!("a second set of {}", replicas(set)), ready),
        };
        let then = match (ready, strategy.promotion()) {
            (false, _) => format!("{} of {set} ready", progress.ready),
            (true, Some(Promotion::After(_))) => {
                "ready, and promoted by itself after a time".to_owned()
            }
            (true, _) => "ready, and waiting for someone to promote it".to_owned(),
        };
        format!(
            "runs version {from} and tries version {version} beside it in {what}: {then}{trouble}"
        )
    }

    fn of_replicas(&self) -> String {
        let Counts { desired, healthy, .. } = *self.counts;
        if desired == 0 {
            return match self.job.spec().kind {
                JobKind::System => {
                    let why = unplaced::because(self.state, self.job.spec());
                    format!("has no node to run on: {why}")
                }
                _ => "is up: no replicas are wanted".to_owned(),
            };
        }
        match self.worst() {
            None if healthy >= desired => format!("is running: {}", self.how_many()),
            None => format!("is starting: {}", self.how_many()),
            Some(trouble) => {
                let head = trouble.head(healthy > 0);
                format!("{head}: {}; {}", self.how_many(), trouble.clause())
            }
        }
    }

    /// `2 of 3 replicas are ready`.
    fn how_many(&self) -> String {
        // While old and new overlap there are more than are wanted.
        let (desired, ready) = (self.counts.desired, self.counts.healthy.min(self.counts.desired));
        match (desired, ready) {
            (1, 1) => "its replica is ready".to_owned(),
            (1, _) => "its replica is not ready".to_owned(),
            (2, 2) => "both replicas are ready".to_owned(),
            (all, ready) if ready == all => format!("all {all} replicas are ready"),
            (all, 0) => format!("none of its {all} replicas is ready"),
            (all, ready) => format!("{ready} of {all} replicas {} ready", is(ready)),
        }
    }

    /// `1 of 3 replicas is new and ready`.
    fn how_many_new(&self) -> String {
        let (desired, new) = (self.counts.desired, self.counts.up_to_date);
        if desired == 1 {
            let word = if new == 0 { "not new and ready yet" } else { "new and ready" };
            return format!("its replica is {word}");
        }
        match new {
            0 => format!("none of its {} is new and ready", replicas(desired)),
            new => format!("{new} of {} {} new and ready", replicas(desired), is(new)),
        }
    }

    /// The worst that any replica has to tell.
    fn worst(&self) -> Option<Trouble> {
        let newest = newest(self.state, self.id);
        let placed = newest.into_values().filter_map(|alloc| self.trouble(alloc));
        // The first of the worst.
        let mut worst = self.no_place();
        for trouble in placed {
            let known = worst.as_ref().map(std::mem::discriminant);
            let same = known == Some(std::mem::discriminant(&trouble));
            if !same && worst.as_ref().is_none_or(|worst| trouble > *worst) {
                worst = Some(trouble);
            }
        }
        worst
    }

    fn no_place(&self) -> Option<Trouble> {
        let first = *self.missing.first()?;
        let (state, spec) = (self.state, self.job.spec());
        let name = &self.id.name;
        let explanation = explain_replica(state, spec, first, None);
        match explanation.refusals.main() {
            Some(refusal @ Refusal::Data { .. }) => {
                let data = format!("its data ({}) is on", unplaced::volumes(spec));
                let why = refusal.to_string().replacen("its data is on", &data, 1);
                return Some(Trouble::FarFromData(format!("{name}.{first}: {why}")));
            }
            Some(refusal) if refusal.is_whole_story() => {
                return Some(Trouble::NoPlace(format!("{name}.{first}: {refusal}")));
            }
            _ => {}
        }
        if !explanation.fits.is_empty() {
            return Some(Trouble::Starting(format!("{name}.{first} is about to be placed")));
        }
        let which = match self.missing.len() {
            1 => format!("{name}.{first} has no place"),
            many => format!("{many} replicas have no place"),
        };
        let text = format!("{which}: {}", unplaced::because(state, spec));
        let never = explanation.never && state.nodes().next().is_some();
        Some(if never { Trouble::Never(text) } else { Trouble::NoPlace(text) })
    }

    fn trouble(&self, alloc: &Allocation) -> Option<Trouble> {
        let failed_now = alloc.status == AllocStatus::Failed
            && (self.job.runs_current(alloc.version) || self.job.outcome.is_some());
        if (!alloc.wanted() && !failed_now) || alloc.available() {
            return None;
        }
        // A new try may have nothing to tell yet: the one before has.
        let silent = text_of(alloc).is_none() && alloc.restarts() == 0;
        let before = alloc.previous.and_then(|id| self.state.alloc(id));
        let told = match before {
            Some(before) if silent && alloc.failures > 0 => before,
            _ => alloc,
        };
        let who = format!("{}.{} on {}", self.id.name, alloc.index, told.node);
        let text = text_of(told);
        if alloc.gave_up {
            let why = alloc.notes.last().map(|note| note.text.clone()).unwrap_or_default();
            let why = if why.is_empty() { text.unwrap_or_default() } else { why };
            return Some(Trouble::GaveUp(format!(
                "{who}: {why}; nothing takes its place until the job is changed or restarted"
            )));
        }
        if alloc.disconnected_at.is_some() {
            return Some(Trouble::Unheard(format!(
                "{who} keeps its place though its node is not heard"
            )));
        }
        let ran = told.tasks.values().any(|task| task.exit_code.is_some() || task.oom_killed);
        let text = text.or_else(|| last_end(told)).unwrap_or_default();
        let restarts = if text.contains("restart") { 0 } else { told.restarts() };
        let tries = tries(restarts, alloc.failures);
        match (ran, failed_now || alloc.failures > 0 || told.restarts() > 0) {
            (true, true) if self.job.outcome.is_some() => {
                Some(Trouble::Crashes(format!("{who}: {text}")))
            }
            (true, true) => Some(Trouble::Crashes(format!("{who} keeps ending: {text}{tries}"))),
            (false, true) => Some(Trouble::CannotStart(format!("{who}: {text}{tries}"))),
            (false, false) if told.tasks.values().any(|task| !task.error.is_empty()) => {
                Some(Trouble::CannotStart(format!("{who}: {text}")))
            }
            _ => Some(self.not_yet(alloc, &who, &text)),
        }
    }

    fn not_yet(&self, alloc: &Allocation, who: &str, text: &str) -> Trouble {
        let failing = alloc.tasks.values().find_map(|task| {
            let liveness = task.liveness.as_ref().map(|check| ("health", check));
            let readiness = task.readiness.as_ref().map(|check| ("readiness", check));
            [liveness, readiness].into_iter().flatten().find(|(_, check)| !check.passing)
        });
        match failing {
            Some((kind, check)) if alloc.status == AllocStatus::Running => Trouble::NotReady(
                format!("{who} fails its {kind} check: {}", first_line(&check.message)),
            ),
            _ if text.is_empty() => {
                let how = match alloc.status {
                    AllocStatus::Pending => "waits for its agent",
                    AllocStatus::Running => "runs and is not ready yet",
                    _ => "is starting",
                };
                Trouble::Starting(format!("{who} {how}"))
            }
            _ => Trouble::Starting(format!("{who}: {text}")),
        }
    }
}

/// How a task of it ended last: what a task that was just started again has to tell.
fn last_end(alloc: &Allocation) -> Option<String> {
    let code = alloc.tasks.values().find_map(|task| task.exit_code)?;
    Some(format!("exit code {code}"))
}

/// The first line of what an allocation says, or of its tasks' errors.
fn text_of(alloc: &Allocation) -> Option<String> {
    let errors = alloc.tasks.values().map(|task| task.error.as_str());
    let mut texts = std::iter::once(alloc.message.as_str()).chain(errors);
    texts.find(|text| !text.is_empty()).map(first_line)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn tries(restarts: u32, failures: u32) -> String {
    let times = |count: u32| match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    match (restarts, failures) {
        (0, 0) => String::new(),
        (restarts, 0) => format!(" (restarted {})", times(restarts)),
        (0, failures) => format!(" (placed anew {})", times(failures)),
        (restarts, failures) => {
            format!(" (restarted {}, placed anew {})", times(restarts), times(failures))
        }
    }
}

fn is(count: u32) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn count_have(count: u32) -> String {
    if count == 1 { "1 replica has".to_owned() } else { format!("{count} replicas have") }
}

fn canaries(count: u32) -> String {
    if count == 1 { "1 canary".to_owned() } else { format!("{count} canaries") }
}
