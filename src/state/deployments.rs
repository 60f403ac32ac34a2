//! Deployments: how a job gets from one version to the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::jobs::Back;
use super::{
    Change, DeploymentChange, Event, Job, JobChange, Rejected, RejectedCode, Reply, State,
};
use crate::limits::{DEPLOYMENTS_KEPT_PER_JOB, MESSAGE_BYTES_MAX};
use crate::model::deployment::{Deployment, DeploymentId, DeploymentStatus};
use crate::model::job::{JobKind, UpdateStrategy};
use crate::model::name::{JobId, NodeName};

impl State {
    /// A deployment.
    pub fn deployment(&self, id: DeploymentId) -> Option<&Arc<Deployment>> {
        self.deployments.get(&id)
    }

    /// All deployments that are kept, oldest first.
    pub fn deployments(&self) -> impl DoubleEndedIterator<Item = &Arc<Deployment>> {
        self.deployments.values()
    }

    /// A job's deployments that are kept, oldest first.
    pub fn deployments_of(&self, job: &Job) -> impl DoubleEndedIterator<Item = &Arc<Deployment>> {
        job.deployments.iter().filter_map(|id| self.deployments.get(id))
    }

    /// A job's newest deployment; none of a batch job.
    pub fn latest_deployment(&self, job: &Job) -> Option<&Arc<Deployment>> {
        self.deployments.get(job.deployments.last()?)
    }

    /// Replicas that a canary or a second set has before it is promoted.
    pub fn set_size(&self, job: &Job) -> u32 {
        let wanted = match job.spec().kind {
            // Nodes that it does not fit never had a copy.
            JobKind::System => {
                let id = job.spec().id();
                let nodes: BTreeSet<_> = self.allocs_of(&id).map(|alloc| &alloc.node).collect();
                let takes_work = |name: &&NodeName| self.node(name).is_some_and(|n| n.takes_work());
                nodes.into_iter().filter(takes_work).count() as u32
            }
            _ => job.replicas(),
        };
        match job.spec().update.strategy {
            UpdateStrategy::Rolling => 0,
            UpdateStrategy::Canary { count, .. } => count.min(wanted),
            UpdateStrategy::BlueGreen { .. } => wanted,
        }
    }

    /// Places in which a replica of the job's current version can take traffic.
    pub fn available_now(&self, id: &JobId, job: &Job) -> u32 {
        let ready: BTreeSet<u32> = self
            .allocs_of(id)
            .filter(|alloc| alloc.available() && job.runs_current(alloc.version))
            .map(|alloc| alloc.index)
            .collect();
        ready.len() as u32
    }
}

impl Change<'_> {
    /// Begins the move to the job's current version; the one under way gives way, also a stuck
    /// one. If what runs stays the same, the one under way goes on to the new version.
    pub(super) fn begin_deployment(
        &mut self,
        id: &JobId,
        job: &mut Job,
        reverts: Option<DeploymentId>,
    ) {
        if matches!(job.spec().kind, JobKind::Batch { .. }) {
            return;
        }
        let version = job.current().version;
        if let Some(latest) = self.state.latest_deployment(job).filter(|latest| latest.active()) {
            let mut latest = (**latest).clone();
            if job.runs_current(latest.version) {
                latest.version = version;
                self.state.deployments.insert(latest.id, Arc::new(latest));
                return;
            }
            let why = format!("version {version} took its place");
            self.set_deployment(latest, DeploymentStatus::Superseded, why);
        }
        self.state.next_deployment += 1;
        let at = self.stamp.at;
        let deployment = Deployment {
            id: DeploymentId(self.state.next_deployment),
            job: id.clone(),
            version,
            from: job.stable,
            status: DeploymentStatus::Running,
            promoted_at: None,
            reason: String::new(),
            reverts,
            started_at: at,
            changed_at: at,
            progress_at: at,
        };
        job.deployments.push(deployment.id);
        let surplus = job.deployments.len().saturating_sub(DEPLOYMENTS_KEPT_PER_JOB);
        for old in job.deployments.drain(..surplus) {
            self.state.deployments.remove(&old);
        }
        let message = match (reverts, deployment.from) {
            (Some(failed), _) => format!("takes {failed} back"),
            (None, Some(from)) => format!("from version {from}"),
            (None, None) => String::new(),
        };
        self.emit_deployment(&deployment, DeploymentChange::Started, message);
        self.state.deployments.insert(deployment.id, Arc::new(deployment));
    }

    fn emit_deployment(
        &mut self,
        deployment: &Deployment,
        change: DeploymentChange,
        message: String,
    ) {
        self.emit(Event::DeploymentChanged {
            deployment: deployment.id,
            job: deployment.job.clone(),
            version: deployment.version,
            change,
            message,
        });
    }

    fn set_deployment(
        &mut self,
        mut deployment: Deployment,
        status: DeploymentStatus,
        reason: String,
    ) {
        let change = match status {
            DeploymentStatus::Running => DeploymentChange::Resumed,
            DeploymentStatus::Paused => DeploymentChange::Paused,
            DeploymentStatus::Successful => DeploymentChange::Successful,
            DeploymentStatus::Failed => DeploymentChange::Failed,
            DeploymentStatus::Superseded => DeploymentChange::Superseded,
        };
        deployment.status = status;
        deployment.changed_at = self.stamp.at;
        deployment.reason.clone_from(&reason);
        self.emit_deployment(&deployment, change, reason);
        self.state.deployments.insert(deployment.id, Arc::new(deployment));
    }

    fn known_deployment(&self, id: DeploymentId) -> Result<Deployment, Rejected> {
        match self.state.deployments.get(&id) {
            Some(deployment) => Ok((**deployment).clone()),
            None => Err(Rejected::not_found("deployment", id)),
        }
    }

    fn active_deployment(&self, id: DeploymentId) -> Result<(Deployment, Arc<Job>), Rejected> {
        let deployment = self.known_deployment(id)?;
        let job = self.state.jobs.get(&deployment.job).cloned();
        match job {
            Some(job) if deployment.active() => Ok((deployment, job)),
            _ => {
                let (job, status) = (&deployment.job, deployment.status.word());
                let message = format!("deployment {id} of {job} is {status} already");
                Err(Rejected::new(RejectedCode::Conflict, message))
            }
        }
    }

    pub(super) fn promote_deployment(&mut self, id: DeploymentId) -> Result<Reply, Rejected> {
        let (mut deployment, job) = self.active_deployment(id)?;
        let conflict = |message: String| Err(Rejected::new(RejectedCode::Conflict, message));
        let strategy = job.spec().update.strategy;
        if strategy == UpdateStrategy::Rolling || deployment.from.is_none() {
            return conflict(format!(
                "deployment {id} of {} goes on by itself; there is nothing to promote",
                deployment.job
            ));
        }
        if deployment.promoted_at.is_some() {
            return conflict(format!("deployment {id} of {} is promoted already", deployment.job));
        }
        let wanted = self.state.set_size(&job);
        let ready = self.state.available_now(&deployment.job, &job);
        if ready < wanted {
            return conflict(format!(
                "{ready} of {wanted} new replicas of {} are ready; deployment {id} can be \
                 promoted when all are",
                deployment.job
            ));
        }
        let at = self.stamp.at;
        deployment.promoted_at = Some(at);
        deployment.progress_at = at;
        deployment.status = DeploymentStatus::Running;
        self.emit_deployment(&deployment, DeploymentChange::Promoted, String::new());
        // It takes all traffic now: whatever comes next comes after it.
        if matches!(strategy, UpdateStrategy::BlueGreen { .. }) {
            self.note_healthy(&deployment.job, &job);
        }
        self.state.deployments.insert(id, Arc::new(deployment));
        Ok(Reply::Done)
    }

    /// Notes that the current version does.
    fn note_healthy(&mut self, id: &JobId, job: &Job) {
        let mut job = job.clone();
        job.stable = Some(job.current().version);
        if let Some(current) = job.versions.last_mut() {
            current.was_healthy = true;
        }
        self.state.jobs.insert(id.clone(), Arc::new(job));
    }

    pub(super) fn pause_deployment(
        &mut self,
        id: DeploymentId,
        paused: bool,
    ) -> Result<Reply, Rejected> {
        let (mut deployment, _) = self.active_deployment(id)?;
        let status = if paused { DeploymentStatus::Paused } else { DeploymentStatus::Running };
        if deployment.status != status {
            // The time that it was held does not count.
            deployment.progress_at = self.stamp.at;
            self.set_deployment(deployment, status, String::new());
        }
        Ok(Reply::Done)
    }

    pub(super) fn complete_deployment(&mut self, id: DeploymentId) -> Result<Reply, Rejected> {
        let deployment = self.known_deployment(id)?;
        let Some(job) = self.state.jobs.get(&deployment.job).cloned() else {
            return Err(Rejected::not_found("job", &deployment.job));
        };
        let current = deployment.version == job.current().version;
        let over = matches!(
            deployment.status,
            DeploymentStatus::Successful | DeploymentStatus::Superseded
        );
        if over || !current {
            return Ok(Reply::Done);
        }
        // Of a service without replicas nothing was healthy.
        if job.replicas() > 0 || job.spec().kind == JobKind::System {
            self.note_healthy(&deployment.job, &job);
        }
        let late = deployment.status == DeploymentStatus::Failed;
        let reason = if late { "all replicas became ready after all" } else { "" };
        self.set_deployment(deployment, DeploymentStatus::Successful, reason.to_owned());
        Ok(Reply::Done)
    }

    pub(super) fn fail_deployment(
        &mut self,
        id: DeploymentId,
        reason: &str,
        revert: bool,
    ) -> Result<Reply, Rejected> {
        let (deployment, job) = self.active_deployment(id)?;
        let back = deployment.from.filter(|_| revert).filter(|from| !job.runs_current(*from));
        let mut why = reason[..reason.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned();
        match back {
            Some(from) => why.push_str(&format!("; going back to version {from}")),
            None if revert && deployment.from.is_none() => {
                why.push_str("; there is no earlier version that was healthy to go back to");
            }
            None => {}
        }
        let job_id = deployment.job.clone();
        self.set_deployment(deployment, DeploymentStatus::Failed, why);
        let Some(from) = back else { return Ok(Reply::Done) };
        let mut job = (*job).clone();
        job.stable = Some(from);
        // Replicas that were scaled since stay scaled.
        let scaled = job.replicas_owned()
            || job.versions.iter().any(|v| v.version > from && v.change == JobChange::Scaled);
        let mut spec = (**job.spec_of(from)).clone();
        if let (true, JobKind::Service { replicas: now }, JobKind::Service { replicas }) =
            (scaled, job.spec().kind, &mut spec.kind)
        {
            *replicas = now;
        }
        let back = Some(Back { to: from, reverts: Some(id) });
        self.push_version(&job_id, &mut job, Arc::new(spec), JobChange::Reverted, back);
        Ok(Reply::Done)
    }

    /// A stopped job moves nowhere.
    pub(super) fn end_deployment(&mut self, job: &Job, why: &str) {
        if let Some(latest) = self.state.latest_deployment(job).filter(|latest| latest.active()) {
            let latest = (**latest).clone();
            self.set_deployment(latest, DeploymentStatus::Superseded, why.to_owned());
        }
    }

    /// Notes that an allocation of `version` became ready for the first time.
    pub(super) fn follow_deployment(&mut self, id: &JobId, version: u64) {
        let Some(job) = self.state.jobs.get(id).filter(|job| job.runs_current(version)) else {
            return;
        };
        let Some(latest) = self.state.latest_deployment(job).filter(|latest| latest.active())
        else {
            return;
        };
        let mut latest = (**latest).clone();
        latest.progress_at = self.stamp.at;
        self.state.deployments.insert(latest.id, Arc::new(latest));
    }
}
