//! `POST /v1/plan`: the planner on a copy of the state, with agents that do at once as told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;

use super::context::{Context, Indexed, blocking, project};
use super::error::Problem;
use super::extract::Params;
use super::from_state::job::{changes, unplaced, warnings};
use super::submit::JobFile;
use super::view::job_file;
use super::view::plan::{JobPlan, PlanReply, PlannedPlacement, PlannedStop};
use super::view::problem::ProblemDetails;
use super::view::query::PlanQuery;
use crate::limits::PLAN_ROUNDS_MAX;
use crate::model::allocation::{AllocReport, AllocStatus, Allocation, Health, TaskState};
use crate::model::job::JobSpec;
use crate::model::name::JobId;
use crate::model::time::{Millis, Timestamp};
use crate::planner::{Inputs, Scope, plan};
use crate::state::{Command, Reply, Stamp, State as ClusterState};

/// What submitting a job file would change; changes nothing.
#[utoipa::path(
    post, path = "/v1/plan", tag = "jobs", params(PlanQuery),
    request_body(content = String, content_type = "application/yaml", description = "A job file; JSON and TOML too"),
    responses((status = 200, body = PlanReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn plan_jobs(
    State(context): State<Context>,
    Params(query): Params<PlanQuery>,
    file: JobFile,
) -> Result<Indexed<PlanReply>, Problem> {
    let specs = file.jobs(&project(query.project.as_deref())?)?;
    let view = context.view(query.consistency).await?;
    let now = context.clock.now();
    blocking(&context, move || {
        let mut copy = Copy { state: (*view.state).clone(), now };
        let jobs = specs.into_iter().map(|spec| copy.plan_job(spec)).collect::<Result<_, _>>()?;
        Ok(Indexed(view.applied_index, PlanReply { jobs }))
    })
    .await?
}

/// The cluster as it would be.
struct Copy {
    state: ClusterState,
    now: Timestamp,
}

impl Copy {
    fn apply(&mut self, command: Command) -> Result<Reply, Problem> {
        let stamp = Stamp { index: self.state.stamp().index + 1, at: self.now };
        Ok(self.state.apply(stamp, &command.into()).reply?)
    }

    fn plan_job(&mut self, spec: JobSpec) -> Result<JobPlan, Problem> {
        let id = spec.id();
        let before = self.state.job(&id).cloned();
        let spec = Arc::new(spec);
        let mut said = warnings(&self.state, &spec);
        let reply = self.apply(Command::SubmitJob { spec: spec.clone(), if_version: None })?;
        let Reply::Job { version, changed } = reply else {
            return Err(Problem::internal("the state answered something else than asked"));
        };
        let action = match &before {
            None => "create",
            Some(_) if !changed => "none",
            Some(job) if !job.active() => "start",
            Some(_) => "update",
        };
        let in_place = self.state.job(&id).is_some_and(|job| job.current().runs_as < version);
        let outcome = self.run(&spec)?;
        if outcome.cut_short {
            said.push(format!(
                "the plan was cut short after {PLAN_ROUNDS_MAX} rounds; more copies follow"
            ));
        }
        let nothing = serde_json::Value::Object(serde_json::Map::new());
        Ok(JobPlan {
            project: id.project.to_string(),
            job: id.name.to_string(),
            r#type: spec.kind.word().to_owned(),
            action: action.to_owned(),
            version_now: before.as_ref().map_or(0, |job| job.current().version),
            version_then: version,
            in_place,
            changes: match &before {
                Some(job) => changes(job.spec(), &spec),
                None => super::from_state::diff::changes(&nothing, &job_file::whole(&spec)),
            },
            placements: outcome.placements,
            stops: outcome.stops,
            unplaced: match outcome.unplaced {
                0 => None,
                replicas => unplaced(&self.state, &spec, replicas),
            },
            warnings: said,
        })
    }

    /// Lets the planner and the obedient agents take turns until nothing is left to do.
    fn run(&mut self, spec: &JobSpec) -> Result<Outcome, Problem> {
        let mut outcome = Outcome::default();
        let id = spec.id();
        let scope = Scope { all: false, jobs: BTreeSet::from([id.clone()]) };
        for _ in 0..PLAN_ROUNDS_MAX {
            let plan = plan(&self.state, &self.inputs(), &scope);
            outcome.unplaced = plan.unplaced.get(&id).map_or(0, |unplaced| unplaced.count);
            let mut busy = false;
            for command in plan.commands {
                busy |= self.carry_out(command, &id, &mut outcome)?;
            }
            busy |= self.agents_obey()?;
            // Waits between the steps of an update are passed over.
            self.now = self.now + spec.update.min_healthy + Millis(1);
            if !busy {
                return Ok(outcome);
            }
        }
        outcome.cut_short = true;
        Ok(outcome)
    }

    fn inputs(&self) -> Inputs {
        Inputs { now: self.now, last_heard: BTreeMap::new(), node_timeout: Millis(u64::MAX) }
    }

    /// Whether the command places or stops anything; others are not for a plan. What is on its
    /// way for other jobs (from a node that is being drained, say) happens, and is not told.
    fn carry_out(
        &mut self,
        command: Command,
        job: &JobId,
        outcome: &mut Outcome,
    ) -> Result<bool, Problem> {
        match &command {
            Command::StopAllocs { stops } => {
                for (id, reason) in stops {
                    let Some(alloc) = self.state.alloc(*id) else { continue };
                    if alloc.job != *job {
                        continue;
                    }
                    outcome.stops.push(PlannedStop {
                        job: alloc.job.to_string(),
                        id: id.to_string(),
                        index: alloc.index,
                        node: alloc.node.to_string(),
                        reason: reason.sentence().to_owned(),
                    });
                }
            }
            Command::PreemptAllocs { victims, by } if by == job => {
                let priority = self.state.job(by).map_or(0, |job| job.spec().priority);
                for alloc in victims.iter().filter_map(|id| self.state.alloc(*id)) {
                    outcome.stops.push(PlannedStop {
                        job: alloc.job.to_string(),
                        id: alloc.id.to_string(),
                        index: alloc.index,
                        node: alloc.node.to_string(),
                        reason: format!("preempted by {by}, whose priority is {priority}"),
                    });
                }
            }
            Command::Place(placements) => {
                for row in placements.rows().filter(|row| row.job == *job) {
                    let known = self.state.job(job);
                    let ports = known.into_iter().flat_map(|job| job.spec().ports());
                    let ports = ports.zip(&row.ports);
                    outcome.placements.push(PlannedPlacement {
                        job: row.job.to_string(),
                        index: row.index,
                        node: row.node.to_string(),
                        ports: ports.map(|(port, n)| (port.name.to_string(), *n)).collect(),
                        replaces: row.previous.map(|previous| previous.to_string()),
                    });
                }
            }
            _ => return Ok(false),
        }
        self.apply(command)?;
        Ok(true)
    }

    /// Agents run what they are to run, and end what they are to end; whether any had to.
    fn agents_obey(&mut self) -> Result<bool, Problem> {
        let mut reports: BTreeMap<_, Vec<AllocReport>> = BTreeMap::new();
        for alloc in self.state.allocs().filter(|alloc| !alloc.ended()) {
            let status = match (alloc.wanted(), alloc.status) {
                (true, AllocStatus::Running) => continue,
                (true, _) => AllocStatus::Running,
                (false, _) => AllocStatus::Stopped,
            };
            // What fails now is not made well by planning.
            if alloc.wanted() && alloc.status != AllocStatus::Pending {
                continue;
            }
            reports.entry(alloc.node.clone()).or_default().push(self.report(alloc, status));
        }
        let busy = !reports.is_empty();
        for (node, reports) in reports {
            let Some(agent_id) = self.state.node(&node).map(|known| known.agent_id) else {
                continue;
            };
            self.apply(Command::ReportAllocs { node, agent_id, reports })?;
        }
        Ok(busy)
    }

    fn report(&self, alloc: &Allocation, status: AllocStatus) -> AllocReport {
        let started = TaskState { started_at: Some(self.now), ..TaskState::default() };
        let job = self.state.job(&alloc.job);
        let tasks = job.into_iter().flat_map(|job| &job.spec_of(alloc.version).tasks);
        AllocReport {
            id: alloc.id,
            generation: alloc.grant.generation,
            status,
            health: Health::Healthy,
            ready: true,
            tasks: tasks.map(|task| (task.name.clone(), started.clone())).collect(),
            message: String::new(),
        }
    }
}

/// What a plan comes to.
#[derive(Default)]
struct Outcome {
    placements: Vec<PlannedPlacement>,
    stops: Vec<PlannedStop>,
    unplaced: u32,
    cut_short: bool,
}
