//! `/v1/jobs`: read, scaled, stopped. Submitting is in `submit`.

use axum::extract::State;

use super::context::{Context, Indexed, blocking, project};
use super::error::Problem;
use super::extract::{IdempotencyKey, JsonBody, Params, Segment};
use super::from_state::job;
use super::page;
use super::view::Page;
use super::view::job::{JobChanged, JobRow, JobStatus, JobVersionRow, ScaleRequest};
use super::view::job_file;
use super::view::problem::ProblemDetails;
use super::view::query::{
    ListJobs, ListVersions, ProjectRead, ProjectWrite, ReadSpec, StopJob, WriteHeaders,
};
use crate::model::name::{JobId, JobName};
use crate::state::{Command, Reply};

/// Jobs, by project and name.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(ListJobs),
    responses((status = 200, body = Page<JobRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_jobs(
    State(context): State<Context>,
    Params(query): Params<ListJobs>,
) -> Result<Indexed<Page<JobRow>>, Problem> {
    let only = query.project.as_deref().map(|text| project(Some(text))).transpose()?;
    let ask: page::Ask<JobId> = page::ask(query.limit, query.cursor.as_deref())?;
    let view = context.view(query.consistency).await?;
    blocking(&context, move || {
        let rows = view
            .state
            .jobs_after(ask.after.as_ref())
            .filter(|(id, _)| only.as_ref().is_none_or(|only| id.project == *only))
            .map(|(id, known)| (id.clone(), job::row(&view.state, id, known)));
        Indexed(view.applied_index, page::page(ask.limit, rows))
    })
    .await
}

/// Everything about a job.
#[utoipa::path(
    get, path = "/v1/jobs/{name}", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ProjectRead),
    responses((status = 200, body = JobStatus), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_job(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ProjectRead>,
) -> Result<Indexed<JobStatus>, Problem> {
    let id = JobId { project: project(query.project.as_deref())?, name };
    let view = context.view(query.consistency).await?;
    let now = context.clock.now();
    blocking(&context, move || {
        let known = view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
        Ok(Indexed(view.applied_index, job::status(&view.state, now, &id, known)))
    })
    .await?
}

/// A version of a job as the job file that makes it; passwords are left out.
#[utoipa::path(
    get, path = "/v1/jobs/{name}/spec", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ReadSpec),
    responses((status = 200, body = Object, description = "A job file"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_job_spec(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ReadSpec>,
) -> Result<Indexed<serde_json::Value>, Problem> {
    let id = JobId { project: project(query.project.as_deref())?, name };
    let view = context.view(query.consistency).await?;
    let known = view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
    let spec = match query.version {
        None => known.spec(),
        Some(wanted) => known
            .versions
            .iter()
            .find(|version| version.version == wanted)
            .map(|version| &version.spec)
            .ok_or_else(|| Problem::not_found("version of this job kept, with number", wanted))?,
    };
    Ok(Indexed(view.applied_index, job_file::shown(spec)))
}

/// The versions of a job that are kept, newest first, each with what it changed.
#[utoipa::path(
    get, path = "/v1/jobs/{name}/versions", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ListVersions),
    responses((status = 200, body = Page<JobVersionRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_job_versions(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ListVersions>,
) -> Result<Indexed<Page<JobVersionRow>>, Problem> {
    let id = JobId { project: project(query.project.as_deref())?, name };
    let ask: page::Ask<u64> = page::ask(query.limit, query.cursor.as_deref())?;
    let view = context.view(query.consistency).await?;
    let known = view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
    let rows = job::versions(&view.state, known)
        .into_iter()
        .filter(|row| ask.after.is_none_or(|after| row.version < after))
        .map(|row| (row.version, row));
    Ok(Indexed(view.applied_index, page::page(ask.limit, rows)))
}

/// Changes how many copies a service has.
#[utoipa::path(
    put, path = "/v1/jobs/{name}/scale", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ProjectWrite, WriteHeaders),
    request_body = ScaleRequest,
    responses((status = 200, body = JobChanged), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn scale_job(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ProjectWrite>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(ask): JsonBody<ScaleRequest>,
) -> Result<axum::Json<JobChanged>, Problem> {
    let job = JobId { project: project(query.project.as_deref())?, name };
    let command = Command::ScaleJob { job: job.clone(), replicas: ask.replicas };
    changed(job, context.propose(key, command).await?.reply)
}

/// Stops a job, and with `purge` forgets it.
#[utoipa::path(
    delete, path = "/v1/jobs/{name}", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), StopJob, WriteHeaders),
    responses((status = 200, body = JobChanged), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn stop_job(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<StopJob>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<axum::Json<JobChanged>, Problem> {
    let job = JobId { project: project(query.project.as_deref())?, name };
    let command = Command::StopJob { job: job.clone(), purge: query.purge };
    changed(job, context.propose(key, command).await?.reply)
}

/// The answer to what makes a version of a job.
pub(super) fn changed(job: JobId, reply: Reply) -> Result<axum::Json<JobChanged>, Problem> {
    let Reply::Job { version, changed } = reply else {
        return Err(Problem::internal("the state answered something else than asked"));
    };
    let JobId { project, name } = job;
    let (project, job) = (project.to_string(), name.to_string());
    Ok(axum::Json(JobChanged { project, job, version, changed }))
}
