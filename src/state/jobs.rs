//! Jobs and their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Change, Event, JobChange, Rejected, RejectedCode, Reply, State};
use crate::limits::{JOB_VERSIONS_KEPT, REPLICAS_MAX};
use crate::model::allocation::StopReason;
use crate::model::deployment::DeploymentId;
use crate::model::job::{JobKind, JobSpec, UpdateOrder, UpdateStrategy};
use crate::model::name::{JobId, NodeName};
use crate::model::time::Timestamp;

/// A job with its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Oldest first; the last one is current. Never empty.
    pub versions: Vec<JobVersion>,
    /// The user stopped it.
    pub stopped: bool,
    /// It is forgotten once its allocations have ended.
    pub purged: bool,
    /// The last version all of whose replicas were ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<u64>,
    /// Its deployments that are kept, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<DeploymentId>,
    /// Where the data of each replica is, of a job with named volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<u32, NodeName>,
    /// How a batch job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// First submission.
    pub created_at: Timestamp,
    /// Last change by a user.
    pub changed_at: Timestamp,
}

/// One version of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobVersion {
    /// Counts from 1.
    pub version: u64,
    /// The first version that runs the same: its allocations need no replacement.
    pub runs_as: u64,
    /// All its replicas were ready once.
    #[serde(default)]
    pub was_healthy: bool,
    /// The job.
    pub spec: Arc<JobSpec>,
    /// Submission.
    pub at: Timestamp,
    /// What made it.
    pub change: JobChange,
}

/// How a batch job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobOutcome {
    /// Its tasks ended with 0.
    Complete,
    /// They did not, and restarts are used up.
    Failed,
}

impl Job {
    /// The current version.
    pub fn current(&self) -> &JobVersion {
        // `versions` is never empty: it is made with one, and pruning keeps the last.
        &self.versions[self.versions.len() - 1]
    }

    /// The current spec.
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.current().spec
    }

    /// What an allocation of `version` runs.
    pub fn spec_of(&self, version: u64) -> &Arc<JobSpec> {
        self.versions
            .iter()
            .find(|known| known.version == version)
            .map_or_else(|| self.spec(), |known| &known.spec)
    }

    /// A version that is kept.
    pub fn version(&self, version: u64) -> Option<&JobVersion> {
        self.versions.iter().find(|known| known.version == version)
    }

    /// The rules for an allocation of `version`: those of the current version, if it runs the
    /// same, since rules change without a restart.
    pub fn policies_of(&self, version: u64) -> &Arc<JobSpec> {
        if self.runs_current(version) { self.spec() } else { self.spec_of(version) }
    }

    /// Whether an allocation of `version` runs what the current version asks for.
    pub fn runs_current(&self, version: u64) -> bool {
        // Versions in use are kept.
        self.version(version).is_some_and(|known| known.runs_as == self.current().runs_as)
    }

    /// Whether a successor may run beside what it replaces.
    pub fn lets_overlap(&self) -> bool {
        matches!(self.spec().kind, JobKind::Service { .. })
            && (self.spec().order() == UpdateOrder::StartFirst
                || self.spec().update.strategy != UpdateStrategy::Rolling)
    }

    /// Whether somebody else decides how many replicas there are.
    pub fn replicas_owned(&self) -> bool {
        self.spec().replicas_owner.is_some()
    }

    /// Whether it is to run at all.
    pub fn active(&self) -> bool {
        !self.stopped && self.outcome.is_none()
    }

    /// Copies wanted of a service or batch job now; a system job has as many as there are nodes.
    pub fn replicas(&self) -> u32 {
        match self.spec().kind {
            _ if !self.active() => 0,
            JobKind::Service { replicas } => replicas,
            JobKind::Batch { completions, .. } => completions,
            JobKind::System => 0,
        }
    }
}

/// A return to an earlier version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Back {
    /// Which: what still runs of it needs no replacement.
    pub(super) to: u64,
    /// The deployment that this takes back.
    pub(super) reverts: Option<DeploymentId>,
}

impl State {
    pub(super) fn prune_versions(&self, id: &JobId, job: &mut Job) {
        let stable = job.stable;
        let in_use = |version: u64| {
            stable == Some(version)
                || self.allocs_of(id).any(|alloc| !alloc.ended() && alloc.version == version)
        };
        while job.versions.len() > JOB_VERSIONS_KEPT {
            let last = job.versions.len() - 1;
            let Some(oldest_free) =
                job.versions[..last].iter().position(|known| !in_use(known.version))
            else {
                break;
            };
            job.versions.remove(oldest_free);
        }
    }
}

impl Change<'_> {
    pub(super) fn submit_job(
        &mut self,
        spec: &Arc<JobSpec>,
        if_version: Option<u64>,
    ) -> Result<Reply, Rejected> {
        let id = spec.id();
        let at = self.stamp.at;
        let known = self.state.jobs.get(&id).cloned();
        let version_now = known.as_ref().map_or(0, |job| job.current().version);
        if let Some(expected) = if_version
            && expected != version_now
        {
            let message = match version_now {
                0 => format!("there is no job {id}, and version {expected} was expected"),
                now => format!("job {id} is at version {now}, not at {expected} as expected"),
            };
            return Err(Rejected::new(RejectedCode::Conflict, message));
        }
        let Some(known) = known else {
            let first = JobVersion {
                version: 1,
                runs_as: 1,
                was_healthy: false,
                spec: spec.clone(),
                at,
                change: JobChange::Created,
            };
            let mut job = Job {
                versions: vec![first],
                stable: None,
                deployments: Vec::new(),
                homes: BTreeMap::new(),
                stopped: false,
                purged: false,
                outcome: None,
                created_at: at,
                changed_at: at,
            };
            let change = JobChange::Created;
            self.emit(Event::JobChanged { job: id.clone(), version: 1, change });
            self.begin_deployment(&id, &mut job, None);
            self.state.jobs.insert(id, Arc::new(job));
            return Ok(Reply::Job { version: 1, changed: true });
        };
        let mut spec = spec.clone();
        if let (true, true, JobKind::Service { replicas }, JobKind::Service { .. }) =
            (known.active(), spec.replicas_owner.is_some(), known.spec().kind, spec.kind)
        {
            // Its owner has decided since.
            Arc::make_mut(&mut spec).kind = JobKind::Service { replicas };
        }
        if known.active() && *known.spec() == spec {
            return Ok(Reply::Job { version: version_now, changed: false });
        }
        let mut job = (*known).clone();
        self.push_version(&id, &mut job, spec, JobChange::Updated, None);
        Ok(Reply::Job { version: version_now + 1, changed: true })
    }

    /// Makes a version the current one and begins its deployment.
    pub(super) fn push_version(
        &mut self,
        id: &JobId,
        job: &mut Job,
        spec: Arc<JobSpec>,
        change: JobChange,
        back: Option<Back>,
    ) {
        let version = job.current().version + 1;
        // A batch job that is submitted again runs again; a stopped one starts anew.
        let anew = !job.active() || change == JobChange::Restarted;
        // Going back to what still runs in part replaces only the rest.
        let same = job.versions.iter().rev().find(|known| known.spec.runs_the_same_as(&spec));
        let same = match back {
            Some(back) => job.version(back.to),
            None => same,
        };
        let runs_as = same.filter(|_| !anew).map_or(version, |known| known.runs_as);
        let at = self.stamp.at;
        if !job.active() {
            // What was stopped is not what to go back to.
            job.stable = None;
        }
        job.versions.push(JobVersion { version, runs_as, was_healthy: false, spec, at, change });
        job.stopped = false;
        job.purged = false;
        job.outcome = None;
        job.changed_at = at;
        self.state.prune_versions(id, job);
        self.emit(Event::JobChanged { job: id.clone(), version, change });
        self.begin_deployment(id, job, back.and_then(|back| back.reverts));
        self.state.jobs.insert(id.clone(), Arc::new(job.clone()));
    }

    /// Submits an earlier version again; how many replicas there are stays as it is.
    pub(super) fn rollback_job(&mut self, id: &JobId, to: Option<u64>) -> Result<Reply, Rejected> {
        let mut job = self.known_job(id)?;
        let refused = |code, message: String| Err(Rejected::new(code, message));
        let target = match to {
            Some(to) => job.version(to),
            None => job
                .versions
                .iter()
                .rev()
                .find(|known| known.was_healthy && !job.runs_current(known.version)),
        };
        let Some(target) = target else {
            return match to {
                Some(to) => refused(
                    RejectedCode::NotFound,
                    format!(
                        "version {to} of job {id} is not kept; its history lists those that are"
                    ),
                ),
                None => refused(
                    RejectedCode::Conflict,
                    format!(
                        "no earlier version of job {id} that runs something else was ever \
                         healthy; name the version to go back to"
                    ),
                ),
            };
        };
        let mut spec = (*target.spec).clone();
        if let (JobKind::Service { replicas: now }, JobKind::Service { replicas }) =
            (job.spec().kind, &mut spec.kind)
        {
            *replicas = now;
        }
        let spec = Arc::new(spec);
        let back = Back { to: target.version, reverts: None };
        let version = job.current().version;
        if job.active() && *job.spec() == spec && job.runs_current(back.to) {
            return Ok(Reply::Job { version, changed: false });
        }
        self.push_version(id, &mut job, spec, JobChange::RolledBack, Some(back));
        Ok(Reply::Job { version: version + 1, changed: true })
    }

    /// A new version of the same spec, whose deployment replaces all replicas.
    pub(super) fn restart_job(&mut self, id: &JobId) -> Result<Reply, Rejected> {
        let mut job = self.known_job(id)?;
        let version = job.current().version;
        let spec = job.spec().clone();
        self.push_version(id, &mut job, spec, JobChange::Restarted, None);
        Ok(Reply::Job { version: version + 1, changed: true })
    }

    fn known_job(&self, id: &JobId) -> Result<Job, Rejected> {
        match self.state.jobs.get(id) {
            Some(job) => Ok((**job).clone()),
            None => Err(Rejected::not_found("job", id)),
        }
    }

    pub(super) fn scale_job(&mut self, id: &JobId, replicas: u32) -> Result<Reply, Rejected> {
        let mut job = self.known_job(id)?;
        let version = job.current().version;
        let invalid = |message: String| Err(Rejected::new(RejectedCode::Invalid, message));
        let JobKind::Service { replicas: now } = job.spec().kind else {
            let kind = job.spec().kind;
            return invalid(format!("job {id} is a {kind} job; only services have replicas"));
        };
        if replicas > REPLICAS_MAX {
            return invalid(format!(
                "{replicas} replicas are too many; the most is {REPLICAS_MAX}"
            ));
        }
        if job.stopped {
            return invalid(format!("job {id} is stopped; submit it again to start it"));
        }
        if now == replicas {
            return Ok(Reply::Job { version, changed: false });
        }
        let mut spec = (**job.spec()).clone();
        spec.kind = JobKind::Service { replicas };
        self.push_version(id, &mut job, Arc::new(spec), JobChange::Scaled, None);
        Ok(Reply::Job { version: version + 1, changed: true })
    }

    pub(super) fn stop_job(&mut self, id: &JobId, purge: bool) -> Result<Reply, Rejected> {
        let mut job = self.known_job(id)?;
        let version = job.current().version;
        let changed = !job.stopped || (purge && !job.purged);
        if !changed {
            return Ok(Reply::Job { version, changed });
        }
        job.stopped = true;
        job.purged |= purge;
        job.changed_at = self.stamp.at;
        let change = JobChange::Stopped;
        self.emit(Event::JobChanged { job: id.clone(), version, change });
        self.end_deployment(&job, "the job was stopped");
        self.state.jobs.insert(id.clone(), Arc::new(job));
        let stops: Vec<_> =
            self.state.allocs_of(id).filter(|alloc| alloc.wanted()).map(|alloc| alloc.id).collect();
        for alloc in stops {
            self.ask_to_stop(alloc, StopReason::JobStopped);
        }
        Ok(Reply::Job { version, changed })
    }

    /// Notes that a batch job ended.
    pub(super) fn end_job(&mut self, id: &JobId, outcome: JobOutcome) {
        let Some(known) = self.state.jobs.get(id) else { return };
        let mut job = (**known).clone();
        let version = job.current().version;
        job.outcome = Some(outcome);
        self.state.jobs.insert(id.clone(), Arc::new(job));
        let change = match outcome {
            JobOutcome::Complete => JobChange::Completed,
            JobOutcome::Failed => JobChange::Failed,
        };
        self.emit(Event::JobChanged { job: id.clone(), version, change });
    }

    pub(super) fn forget_job(&mut self, id: &JobId) {
        let Some(job) = self.state.jobs.get(id).cloned() else { return };
        let version = job.current().version;
        if !job.purged || self.state.allocs_of(id).any(|alloc| !alloc.ended()) {
            return;
        }
        let allocs: Vec<_> = self.state.allocs_of(id).map(|alloc| alloc.id).collect();
        for alloc in allocs {
            self.forget_alloc(alloc);
        }
        for deployment in &job.deployments {
            self.state.deployments.remove(deployment);
        }
        self.state.jobs.remove(id);
        let change = JobChange::Purged;
        self.emit(Event::JobChanged { job: id.clone(), version, change });
    }
}
