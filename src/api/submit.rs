//! `POST /v1/jobs`: job files.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};

use super::context::{Context, blocking, project};
use super::error::Problem;
use super::extract::{IdempotencyKey, Params, WholeBody, media_type, unsupported};
use super::from_state::job::warnings;
use super::view::job::{SubmitReply, SubmittedJob};
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, Submit, WriteHeaders};
use crate::limits::IDEMPOTENCY_KEY_CHARS_MAX;
use crate::model::job::JobSpec;
use crate::model::job_file::{self, Format};
use crate::model::name::ProjectName;
use crate::state::{Command, Reply};

/// Found out from the text: for clients that don't know what they have read.
const ANY_FORMAT: &str = "application/x-orch-job";
const FORMATS: &str =
    "application/yaml, application/json, application/toml or application/x-orch-job";

/// A job file that has arrived. Its content-type must be one that a web page of another origin
/// can't send without asking first, as it can `text/plain`.
#[derive(Debug)]
pub(super) struct JobFile {
    text: String,
    format: Format,
}

impl JobFile {
    /// The jobs; those that name no project get this one.
    pub(super) fn jobs(&self, project: &ProjectName) -> Result<Vec<JobSpec>, Problem> {
        job_file::read_in(&self.text, self.format, project).map_err(|problems| {
            let count = problems.len();
            let detail = match problems.as_slice() {
                [only] => format!("the job file is wrong: {only}"),
                _ => format!("the job file has {count} mistakes; nothing was changed"),
            };
            Problem::of_input(detail, problems.into_iter().map(Into::into).collect())
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for JobFile {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        let format = match media_type.as_deref() {
            Some(ANY_FORMAT) => None,
            Some(other) => match Format::of_content_type(other) {
                Some(format) => Some(format),
                None => return Err(unsupported(Some(other), FORMATS)),
            },
            None => return Err(unsupported(None, FORMATS)),
        };
        let WholeBody(body) = WholeBody::from_request(request, state).await?;
        let text = String::from_utf8(body.into()).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            Problem::invalid(format!("the job file is no UTF-8 text: byte {place} can't be read"))
        })?;
        let format = format.unwrap_or_else(|| Format::of_text(&text));
        Ok(Self { text, format })
    }
}

/// Creates jobs, or makes new versions of them. All documents are checked before the first is
/// submitted; they are submitted in their order.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", params(Submit, WriteHeaders),
    request_body(content = String, content_type = "application/yaml", description = "A job file; JSON and TOML too"),
    responses((status = 200, body = SubmitReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn submit_jobs(
    State(context): State<Context>,
    Params(query): Params<Submit>,
    IdempotencyKey(key): IdempotencyKey,
    file: JobFile,
) -> Result<Json<SubmitReply>, Problem> {
    let jobs = file.jobs(&project(query.project.as_deref())?)?;
    if query.if_version.is_some() && jobs.len() > 1 {
        return Err(Problem::bad_request(
            "?if_version= is for a file with one job; this one has several",
        ));
    }
    let several = jobs.len() > 1;
    let mut submitted = Vec::with_capacity(jobs.len());
    for (i, spec) in jobs.into_iter().enumerate() {
        let spec = Arc::new(spec);
        let key = key.as_ref().map(|key| if several { key_of_part(key, i) } else { key.clone() });
        let command = Command::SubmitJob { spec: spec.clone(), if_version: query.if_version };
        let outcome = context.propose(key, command).await.map_err(|mut problem| {
            let done: Vec<&str> =
                submitted.iter().map(|job: &SubmittedJob| job.job.as_str()).collect();
            if !done.is_empty() {
                let done = done.join(", ");
                problem.detail = format!("{}; submitted before: {done}", problem.detail);
            }
            problem
        })?;
        let Reply::Job { version, changed } = outcome.reply else {
            return Err(Problem::internal("the state answered something else than asked"));
        };
        submitted.push(SubmittedJob {
            project: spec.project.to_string(),
            job: spec.name.to_string(),
            version,
            changed,
            warnings: warn(&context, spec).await?,
        });
    }
    Ok(Json(SubmitReply { jobs: submitted }))
}

/// What is said at once need not be of this very moment: nodes come and go.
async fn warn(context: &Context, spec: Arc<JobSpec>) -> Result<Vec<String>, Problem> {
    let view = context.view(ConsistencyChoice::Stale).await?;
    blocking(context, move || warnings(&view.state, &spec)).await
}

/// The state bounds no keys, so what is added here need not fit the caller's bound.
fn key_of_part(key: &str, part: usize) -> String {
    debug_assert!(key.len() <= IDEMPOTENCY_KEY_CHARS_MAX);
    format!("{key} {part}")
}
