//! Jobs and their versions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Change, Event, JobChange, Rejected, RejectedCode, Reply, State};
use crate::limits::{JOB_VERSIONS_KEPT, REPLICAS_MAX};
use crate::model::allocation::StopReason;
use crate::model::job::{JobKind, JobSpec};
use crate::model::name::JobId;
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
    /// The version from which on what runs is the same: its allocations need no replacement.
    pub runs_as: u64,
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

    /// Whether an allocation of `version` runs what the current version asks for.
    pub fn runs_current(&self, version: u64) -> bool {
        version >= self.current().runs_as
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
            JobKind::Batch { .. } => 1,
            JobKind::System => 0,
        }
    }
}

impl State {
    pub(super) fn prune_versions(&self, id: &JobId, job: &mut Job) {
        let in_use = |version: u64| {
            self.allocs_of(id).any(|alloc| !alloc.ended() && alloc.version == version)
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
                spec: spec.clone(),
                at,
                change: JobChange::Created,
            };
            let job = Job {
                versions: vec![first],
                stopped: false,
                purged: false,
                outcome: None,
                created_at: at,
                changed_at: at,
            };
            self.state.jobs.insert(id.clone(), Arc::new(job));
            self.emit(Event::JobChanged { job: id, version: 1, change: JobChange::Created });
            return Ok(Reply::Job { version: 1, changed: true });
        };
        if known.active() && known.spec() == spec {
            return Ok(Reply::Job { version: version_now, changed: false });
        }
        let mut job = (*known).clone();
        // A batch job that is submitted again runs again; a stopped one starts anew.
        let again = !known.active();
        self.push_version(&id, &mut job, spec.clone(), JobChange::Updated, again);
        Ok(Reply::Job { version: version_now + 1, changed: true })
    }

    fn push_version(
        &mut self,
        id: &JobId,
        job: &mut Job,
        spec: Arc<JobSpec>,
        change: JobChange,
        anew: bool,
    ) {
        let current = job.current();
        let version = current.version + 1;
        let same = !anew && current.spec.runs_the_same_as(&spec);
        let runs_as = if same { current.runs_as } else { version };
        job.versions.push(JobVersion { version, runs_as, spec, at: self.stamp.at, change });
        job.stopped = false;
        job.purged = false;
        job.outcome = None;
        job.changed_at = self.stamp.at;
        self.state.prune_versions(id, job);
        self.state.jobs.insert(id.clone(), Arc::new(job.clone()));
        self.emit(Event::JobChanged { job: id.clone(), version, change });
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
        self.push_version(id, &mut job, Arc::new(spec), JobChange::Scaled, false);
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
        self.state.jobs.insert(id.clone(), Arc::new(job));
        let change = JobChange::Stopped;
        self.emit(Event::JobChanged { job: id.clone(), version, change });
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
        let Some(job) = self.state.jobs.get(id) else { return };
        let version = job.current().version;
        if !job.purged || self.state.allocs_of(id).any(|alloc| !alloc.ended()) {
            return;
        }
        let allocs: Vec<_> = self.state.allocs_of(id).map(|alloc| alloc.id).collect();
        for alloc in allocs {
            self.forget_alloc(alloc);
        }
        self.state.jobs.remove(id);
        let change = JobChange::Purged;
        self.emit(Event::JobChanged { job: id.clone(), version, change });
    }
}
