//! `/v1/allocations`.

use axum::extract::State;

use super::context::{Context, Indexed, blocking, project};
use super::error::Problem;
use super::extract::{Params, Segment};
use super::from_state::allocation::{Entry, Key, Rows, entries, status};
use super::page;
use super::view::Page;
use super::view::allocation::{AllocationRow, AllocationStatus};
use super::view::problem::ProblemDetails;
use super::view::query::{ListAllocations, Read};
use crate::model::name::{AllocId, JobId, JobName, NodeName, ProjectName};
use crate::state::State as ClusterState;

/// Which allocations a list is of.
struct Filter {
    project: Option<ProjectName>,
    job: Option<JobName>,
    node: Option<NodeName>,
    all: bool,
}

/// Copies of jobs, by job and number; wanted ones that are not placed too.
#[utoipa::path(
    get, path = "/v1/allocations", tag = "allocations", params(ListAllocations),
    responses((status = 200, body = Page<AllocationRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_allocations(
    State(context): State<Context>,
    Params(query): Params<ListAllocations>,
) -> Result<Indexed<Page<AllocationRow>>, Problem> {
    let ask: page::Ask<Key> = page::ask(query.limit, query.cursor.as_deref())?;
    let parsed =
        |what: &str, error: &dyn std::fmt::Display| Problem::invalid(format!("?{what}=: {error}"));
    let job = query.job.as_deref().map(str::parse::<JobName>).transpose();
    let node = query.node.as_deref().map(str::parse::<NodeName>).transpose();
    let filter = Filter {
        // A job is named within a project.
        project: match (&query.project, &query.job) {
            (None, None) => None,
            (text, _) => Some(project(text.as_deref())?),
        },
        job: job.map_err(|error| parsed("job", &error))?,
        node: node.map_err(|error| parsed("node", &error))?,
        all: query.all,
    };
    let view = context.view(query.consistency).await?;
    blocking(&context, move || {
        let state = &view.state;
        if let (Some(project), Some(name)) = (&filter.project, &filter.job) {
            let id = JobId { project: project.clone(), name: name.clone() };
            state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
        }
        if let Some(node) = &filter.node {
            state.node(node).ok_or_else(|| Problem::not_found("node", node))?;
        }
        // One more than the page tells whether there is another.
        let found = find(state, &filter, ask.after.as_ref(), ask.limit + 1);
        let mut rows = Rows::new(state);
        let keyed = found.iter().filter_map(|entry| Some((entry.key.clone(), rows.row(entry)?)));
        Ok(Indexed(view.applied_index, page::page(ask.limit, keyed)))
    })
    .await?
}

/// At most `most` entries behind `after`.
fn find(state: &ClusterState, filter: &Filter, after: Option<&Key>, most: usize) -> Vec<Entry> {
    let wanted = |id: &JobId| {
        filter.project.as_ref().is_none_or(|project| id.project == *project)
            && filter.job.as_ref().is_none_or(|job| id.name == *job)
    };
    let mut found = Vec::new();
    if let Some(node) = &filter.node {
        let mut entries: Vec<Entry> = state
            .allocs_on(node)
            .filter(|alloc| wanted(&alloc.job) && (filter.all || !alloc.ended()))
            .map(|alloc| Entry::placed(alloc))
            .filter(|entry| after.is_none_or(|after| entry.key > *after))
            .collect();
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        entries.truncate(most);
        return entries;
    }
    let first = after.map(|after| &after.job);
    let jobs = state.jobs().skip_while(|(id, _)| first.is_some_and(|first| *id < first));
    for (id, job) in jobs.filter(|(id, _)| wanted(id)) {
        let behind = entries(state, id, job, filter.all)
            .into_iter()
            .filter(|entry| after.is_none_or(|after| entry.key > *after));
        found.extend(behind.take(most - found.len()));
        if found.len() >= most {
            break;
        }
    }
    found
}

/// Everything about an allocation, with its story.
#[utoipa::path(
    get, path = "/v1/allocations/{id}", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), Read),
    responses((status = 200, body = AllocationStatus), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_allocation(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    Params(query): Params<Read>,
) -> Result<Indexed<AllocationStatus>, Problem> {
    let view = context.view(query.consistency).await?;
    let known = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    Ok(Indexed(view.applied_index, status(&view.state, known)))
}
