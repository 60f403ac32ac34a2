//! `GET /v1/usage`: what nodes and copies of jobs use now.

use axum::extract::State;

use super::context::{Context, Indexed, blocking, project};
use super::error::Problem;
use super::extract::Params;
use super::from_state::allocation::word;
use super::from_state::node;
use super::view::problem::ProblemDetails;
use super::view::query::UsageQuery;
use super::view::usage::{AllocationUse, NodeUse, UsageReply};
use crate::limits::USAGE_ROWS_MAX;
use crate::model::name::{AllocId, JobId, JobName};
use crate::model::time::Timestamp;
use crate::server::Usage;
use crate::state::State as ClusterState;

/// What nodes and copies of jobs use, as their agents measured it last.
#[utoipa::path(
    get, path = "/v1/usage", tag = "nodes", params(UsageQuery),
    responses((status = 200, body = UsageReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_usage(
    State(context): State<Context>,
    Params(query): Params<UsageQuery>,
) -> Result<Indexed<UsageReply>, Problem> {
    let job = query.job.as_deref().map(str::parse::<JobName>).transpose();
    let job = job.map_err(|error| Problem::invalid(format!("?job=: {error}")))?;
    let of = match (&query.project, &job) {
        (None, None) => None,
        (text, _) => Some(project(text.as_deref())?),
    };
    let view = context.view(query.consistency).await?;
    if let (Some(project), Some(name)) = (&of, &job) {
        let id = JobId { project: project.clone(), name: name.clone() };
        view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
    }
    let usage = context.agents.usage(None).await.ok_or_else(|| {
        Problem::unavailable("no_leader", "no leader says what is used now; try again")
    })?;
    let now = context.clock.now();
    blocking(&context, move || {
        let wanted = |id: &JobId| {
            of.as_ref().is_none_or(|of| id.project == *of)
                && job.as_ref().is_none_or(|job| id.name == *job)
        };
        Indexed(view.applied_index, reply(&view.state, &usage, now, wanted))
    })
    .await
}

fn reply(
    state: &ClusterState,
    usage: &Usage,
    now: Timestamp,
    wanted: impl Fn(&JobId) -> bool,
) -> UsageReply {
    let nodes = state.nodes().map(|known| {
        let row = node::heard(state, known, usage, now);
        let stats = usage.nodes.get(&known.name).and_then(|info| info.stats.as_ref());
        NodeUse {
            node: row.name,
            state: row.state,
            resources: row.resources,
            allocated: row.allocated,
            usage: stats.map(node::measured),
            last_heard: row.last_heard,
        }
    });
    let measured = usage.nodes.values().filter_map(|info| info.stats.as_ref());
    let mut allocations: Vec<AllocationUse> = measured
        .flat_map(|stats| &stats.allocs)
        .filter_map(|used| {
            let alloc = state.alloc(AllocId(used.alloc)).filter(|alloc| wanted(&alloc.job))?;
            Some(AllocationUse {
                project: alloc.job.project.to_string(),
                job: alloc.job.name.to_string(),
                index: alloc.index,
                id: alloc.id.to_string(),
                node: alloc.node.to_string(),
                state: word(alloc).to_owned(),
                cpu: if used.cpu.is_finite() { used.cpu.max(0.0) } else { 0.0 },
                cpu_reserved: alloc.reserved.cpu_milli as f64 / 1000.0,
                memory: used.memory,
                memory_limit: used.memory_limit,
            })
        })
        .collect();
    allocations
        .sort_by(|left, right| right.cpu.total_cmp(&left.cpu).then(right.memory.cmp(&left.memory)));
    let more = allocations.len().saturating_sub(USAGE_ROWS_MAX) as u64;
    allocations.truncate(USAGE_ROWS_MAX);
    UsageReply { nodes: nodes.collect(), allocations, more }
}
