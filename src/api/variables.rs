//! `/v1/variables`: small pieces of configuration, with compare-and-set.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::context::{Context, INDEX_HEADER, Indexed, project};
use super::error::Problem;
use super::extract::{IdempotencyKey, Params, Segment, WholeBody};
use super::page;
use super::view::Page;
use super::view::problem::ProblemDetails;
use super::view::query::{ListVariables, ProjectRead, WriteHeaders, WriteVariable};
use super::view::variable::{VariableRow, VariableWritten};
use crate::limits::VARIABLE_VALUE_BYTES_MAX;
use crate::model::variable::VariablePath;
use crate::state::{Command, Reply};

/// A project's variables, by path; without their values.
#[utoipa::path(
    get, path = "/v1/variables", tag = "variables", params(ListVariables),
    responses((status = 200, body = Page<VariableRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_variables(
    State(context): State<Context>,
    Params(query): Params<ListVariables>,
) -> Result<Indexed<Page<VariableRow>>, Problem> {
    let project = project(query.project.as_deref())?;
    let ask: page::Ask<VariablePath> = page::ask(query.limit, query.cursor.as_deref())?;
    let prefix = query.prefix.unwrap_or_default();
    let view = context.view(query.consistency).await?;
    let rows = view
        .state
        .variables()
        .filter(|((owner, path), _)| *owner == project && path.as_str().starts_with(&prefix))
        .filter(|((_, path), _)| ask.after.as_ref().is_none_or(|after| path > after))
        .map(|((owner, path), variable)| {
            let row = VariableRow {
                project: owner.to_string(),
                path: path.to_string(),
                size: variable.value.len() as u64,
                modified_index: variable.modified_index,
                modified_at: variable.modified_at.into(),
            };
            (path.clone(), row)
        });
    Ok(Indexed(view.applied_index, page::page(ask.limit, rows)))
}

/// A variable's value, with its index as ETag.
#[utoipa::path(
    get, path = "/v1/variables/{*path}", tag = "variables",
    params(("path" = String, Path, description = "As db/host"), ProjectRead),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_variable(
    State(context): State<Context>,
    Segment(Named(path)): Segment<Named>,
    Params(query): Params<ProjectRead>,
) -> Result<Response, Problem> {
    let project = project(query.project.as_deref())?;
    let view = context.view(query.consistency).await?;
    let known = view
        .state
        .variable(&project, &path)
        .ok_or_else(|| Problem::not_found("variable", &path))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        // What a project stores is never to be run by a browser.
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (INDEX_HEADER, HeaderValue::from(view.applied_index)),
    ];
    Ok((headers, etag(known.modified_index), known.value.clone()).into_response())
}

fn etag(index: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{index}\"")) {
        headers.insert(header::ETAG, value);
    }
    headers
}

/// Writes a variable.
#[utoipa::path(
    put, path = "/v1/variables/{*path}", tag = "variables",
    params(("path" = String, Path, description = "As db/host"), WriteVariable, WriteHeaders),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = VariableWritten), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn write_variable(
    State(context): State<Context>,
    Segment(Named(path)): Segment<Named>,
    Params(query): Params<WriteVariable>,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    WholeBody(value): WholeBody,
) -> Result<Response, Problem> {
    let project = project(query.project.as_deref())?;
    if value.len() > VARIABLE_VALUE_BYTES_MAX {
        let got = value.len();
        return Err(Problem::too_large(format!(
            "variable {path} has {got} bytes; the most is {VARIABLE_VALUE_BYTES_MAX}"
        )));
    }
    let expected = expected(query.if_index, &headers)?;
    let command =
        Command::PutVariable { project, path, value: value.to_vec(), if_index: expected.index };
    match expected.check(context.propose(key, command).await)?.reply {
        Reply::Variable { index } => {
            Ok((etag(index), Json(VariableWritten { index })).into_response())
        }
        _ => Err(Problem::internal("the state answered something else than asked")),
    }
}

/// Deletes a variable.
#[utoipa::path(
    delete, path = "/v1/variables/{*path}", tag = "variables",
    params(("path" = String, Path, description = "As db/host"), WriteVariable, WriteHeaders),
    responses((status = 204), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn delete_variable(
    State(context): State<Context>,
    Segment(Named(path)): Segment<Named>,
    Params(query): Params<WriteVariable>,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let project = project(query.project.as_deref())?;
    let expected = expected(query.if_index, &headers)?;
    let command = Command::DeleteVariable { project, path, if_index: expected.index };
    expected.check(context.propose(key, command).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A path in a URL.
#[derive(Debug)]
pub(super) struct Named(VariablePath);

impl std::str::FromStr for Named {
    type Err = crate::model::variable::VariablePathError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        VariablePath::try_from(text.to_owned()).map(Self)
    }
}

/// The index that the variable must be at.
struct Expected {
    index: Option<u64>,
    by_header: bool,
}

impl Expected {
    /// A condition in a header has a status of its own.
    fn check<T>(&self, outcome: Result<T, Problem>) -> Result<T, Problem> {
        outcome.map_err(|problem| match problem.code {
            "conflict" if self.by_header => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", problem.detail)
            }
            _ => problem,
        })
    }
}

fn expected(if_index: Option<u64>, headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name| {
        headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim())
    };
    let by_header = match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => None,
        (None, Some("*")) => Some(0),
        (Some(tag), None) => tag
            .strip_prefix('"')
            .and_then(|tag| tag.strip_suffix('"'))
            .and_then(|tag| tag.parse::<u64>().ok())
            .ok_or_else(|| {
                Problem::bad_request("If-Match must be one ETag as read, such as \"17\"")
            })
            .map(Some)?,
        _ => return Err(Problem::bad_request("only If-Match: ETAG or If-None-Match: * is taken")),
    };
    if by_header.is_some() && if_index.is_some() {
        return Err(Problem::bad_request(
            "?if_index= and a condition in a header exclude each other",
        ));
    }
    Ok(Expected { index: if_index.or(by_header), by_header: by_header.is_some() })
}
