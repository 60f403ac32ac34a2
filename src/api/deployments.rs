//! `/v1/deployments`, and what begins one: going back to an earlier version, restarting.

use axum::Json;
use axum::extract::State;

use super::context::{Context, Indexed, blocking, project};
use super::error::Problem;
use super::extract::{IdempotencyKey, NoParams, OptionalJsonBody, Params, Segment};
use super::from_state::deployment;
use super::jobs::changed;
use super::page;
use super::view::Page;
use super::view::deployment::{AbortRequest, DeploymentRow, RollbackRequest};
use super::view::job::JobChanged;
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, ListDeployments, ProjectWrite, Read, WriteHeaders};
use crate::model::deployment::DeploymentId;
use crate::model::name::{JobId, JobName};
use crate::state::Command;

/// Why a deployment that a user gave up has failed.
const ABORTED: &str = "aborted by a user";

/// Deployments, the newest first; of each job the last few are kept.
#[utoipa::path(
    get, path = "/v1/deployments", tag = "deployments", params(ListDeployments),
    responses((status = 200, body = Page<DeploymentRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_deployments(
    State(context): State<Context>,
    Params(query): Params<ListDeployments>,
) -> Result<Indexed<Page<DeploymentRow>>, Problem> {
    let ask: page::Ask<DeploymentId> = page::ask(query.limit, query.cursor.as_deref())?;
    let job = query.job.as_deref().map(str::parse::<JobName>).transpose();
    let job = job.map_err(|error| Problem::invalid(format!("?job=: {error}")))?;
    // A job is named within a project.
    let only = match (&query.project, &job) {
        (None, None) => None,
        (text, _) => Some(project(text.as_deref())?),
    };
    let view = context.view(query.consistency).await?;
    let now = context.clock.now();
    blocking(&context, move || {
        let state = &view.state;
        if let (Some(project), Some(name)) = (&only, &job) {
            let id = JobId { project: project.clone(), name: name.clone() };
            state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
        }
        let rows = state
            .deployments()
            .rev()
            .filter(|known| ask.after.is_none_or(|after| known.id < after))
            .filter(|known| only.as_ref().is_none_or(|only| known.job.project == *only))
            .filter(|known| job.as_ref().is_none_or(|job| known.job.name == *job))
            .filter(|known| !query.active || known.active())
            .map(|known| (known.id, deployment::row(state, now, known)));
        Ok(Indexed(view.applied_index, page::page(ask.limit, rows)))
    })
    .await?
}

/// How far a deployment is, and what it waits for: since when, until when, and what happens then.
#[utoipa::path(
    get, path = "/v1/deployments/{id}", tag = "deployments",
    params(("id" = String, Path, description = "As d17"), Read),
    responses((status = 200, body = DeploymentRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_deployment(
    State(context): State<Context>,
    Segment(id): Segment<DeploymentId>,
    Params(query): Params<Read>,
) -> Result<Indexed<DeploymentRow>, Problem> {
    shown(&context, id, query.consistency).await
}

async fn shown(
    context: &Context,
    id: DeploymentId,
    consistency: ConsistencyChoice,
) -> Result<Indexed<DeploymentRow>, Problem> {
    let view = context.view(consistency).await?;
    let now = context.clock.now();
    blocking(context, move || {
        let known =
            view.state.deployment(id).ok_or_else(|| Problem::not_found("deployment", id))?;
        Ok(Indexed(view.applied_index, deployment::row(&view.state, now, known)))
    })
    .await?
}

async fn write(
    context: &Context,
    key: Option<String>,
    deployment: DeploymentId,
    command: Command,
) -> Result<Indexed<DeploymentRow>, Problem> {
    context.propose(key, command).await?;
    shown(context, deployment, ConsistencyChoice::Linearizable).await
}

/// Lets the rest follow the canaries, or the second set take over. All of them must be ready.
#[utoipa::path(
    post, path = "/v1/deployments/{id}/promote", tag = "deployments",
    params(("id" = String, Path, description = "As d17"), WriteHeaders),
    responses((status = 200, body = DeploymentRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn promote_deployment(
    State(context): State<Context>,
    Segment(deployment): Segment<DeploymentId>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Indexed<DeploymentRow>, Problem> {
    write(&context, key, deployment, Command::PromoteDeployment { deployment }).await
}

/// Holds a deployment: what is under way is finished, and no further replica is replaced.
#[utoipa::path(
    post, path = "/v1/deployments/{id}/pause", tag = "deployments",
    params(("id" = String, Path, description = "As d17"), WriteHeaders),
    responses((status = 200, body = DeploymentRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn pause_deployment(
    State(context): State<Context>,
    Segment(deployment): Segment<DeploymentId>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Indexed<DeploymentRow>, Problem> {
    let command = Command::PauseDeployment { deployment, paused: true };
    write(&context, key, deployment, command).await
}

/// Lets a deployment go on that was held; its deadline counts anew.
#[utoipa::path(
    post, path = "/v1/deployments/{id}/resume", tag = "deployments",
    params(("id" = String, Path, description = "As d17"), WriteHeaders),
    responses((status = 200, body = DeploymentRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn resume_deployment(
    State(context): State<Context>,
    Segment(deployment): Segment<DeploymentId>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Indexed<DeploymentRow>, Problem> {
    let command = Command::PauseDeployment { deployment, paused: false };
    write(&context, key, deployment, command).await
}

/// Gives a deployment up. The job goes back to the last version that was healthy, unless the body
/// says `{"revert": false}`: then what runs stays as it is.
#[utoipa::path(
    post, path = "/v1/deployments/{id}/abort", tag = "deployments",
    params(("id" = String, Path, description = "As d17"), WriteHeaders),
    request_body(content = AbortRequest, description = "May be left out"),
    responses((status = 200, body = DeploymentRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn abort_deployment(
    State(context): State<Context>,
    Segment(deployment): Segment<DeploymentId>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJsonBody(ask): OptionalJsonBody<AbortRequest>,
) -> Result<Indexed<DeploymentRow>, Problem> {
    let reason = ABORTED.to_owned();
    let command = Command::FailDeployment { deployment, reason, revert: ask.revert };
    write(&context, key, deployment, command).await
}

/// Submits an earlier version again, as a new version with a deployment of its own. How many
/// replicas there are stays as it is.
#[utoipa::path(
    post, path = "/v1/jobs/{name}/rollback", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ProjectWrite, WriteHeaders),
    request_body(content = RollbackRequest, description = "May be left out"),
    responses((status = 200, body = JobChanged), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn rollback_job(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ProjectWrite>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJsonBody(ask): OptionalJsonBody<RollbackRequest>,
) -> Result<Json<JobChanged>, Problem> {
    let job = JobId { project: project(query.project.as_deref())?, name };
    let command = Command::RollbackJob { job: job.clone(), to: ask.version };
    changed(job, context.propose(key, command).await?.reply)
}

/// Replaces all replicas by new ones of the same version, step by step, as a deployment does. A
/// job that is stopped starts again.
#[utoipa::path(
    post, path = "/v1/jobs/{name}/restart", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ProjectWrite, WriteHeaders),
    responses((status = 200, body = JobChanged), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn restart_job(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ProjectWrite>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Json<JobChanged>, Problem> {
    let job = JobId { project: project(query.project.as_deref())?, name };
    changed(job.clone(), context.propose(key, Command::RestartJob { job }).await?.reply)
}
