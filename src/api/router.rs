//! All routes, and what each request passes on its way to its handler.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::context::Context;
use super::error::Problem;
use super::view::allocation::{ExecControl, TerminalSize};
use super::view::query::ConsistencyChoice;
use super::{
    adopt, allocations, deployments, endpoints, events, exec, files, forward, guard, jobs, logs,
    nodes, plan, rebalance, servers, snapshot,
};
use super::{submit, system, usage, variables, zk};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orch",
        description = "Jobs, deployments, allocations, nodes, servers, variables, ZooKeeper's tree and events of an orch cluster. \
        Reads are linearizable unless ?consistency=stale; errors are problem details (RFC 9457); \
        writes take an Idempotency-Key; reads answer with the header Orch-Index.",
        license(name = "Apache-2.0")
    ),
    components(schemas(ConsistencyChoice, ExecControl, TerminalSize))
)]
struct Document;

/// Every route is registered here and nowhere else, so that the document knows them all.
fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(jobs::list_jobs, submit::submit_jobs))
        .routes(routes!(jobs::read_job, jobs::stop_job))
        .routes(routes!(jobs::read_job_spec))
        .routes(routes!(jobs::list_job_versions))
        .routes(routes!(jobs::scale_job))
        .routes(routes!(adopt::adopt_job))
        .routes(routes!(deployments::rollback_job))
        .routes(routes!(deployments::restart_job))
        .routes(routes!(endpoints::read_endpoints))
        .routes(routes!(deployments::list_deployments))
        .routes(routes!(deployments::read_deployment))
        .routes(routes!(deployments::promote_deployment))
        .routes(routes!(deployments::pause_deployment))
        .routes(routes!(deployments::resume_deployment))
        .routes(routes!(deployments::abort_deployment))
        .routes(routes!(logs::job_logs))
        .routes(routes!(plan::plan_jobs))
        .routes(routes!(allocations::list_allocations))
        .routes(routes!(allocations::read_allocation))
        .routes(routes!(logs::allocation_logs))
        .routes(routes!(exec::exec))
        .routes(routes!(files::read_files, files::write_files))
        .routes(routes!(forward::forward))
        .routes(routes!(nodes::list_nodes))
        .routes(routes!(nodes::read_node, nodes::remove_node))
        .routes(routes!(nodes::set_eligibility))
        .routes(routes!(nodes::drain_node))
        .routes(routes!(rebalance::rebalance))
        .routes(routes!(usage::read_usage))
        .routes(routes!(servers::list_servers))
        .routes(routes!(servers::remove_server))
        .routes(routes!(servers::transfer_leadership))
        .routes(routes!(servers::read_checksum))
        .routes(routes!(variables::list_variables))
        .routes(routes!(
            variables::read_variable,
            variables::write_variable,
            variables::delete_variable
        ))
        .routes(routes!(zk::read_zk_node, zk::write_zk_node, zk::remove_zk_node))
        .routes(routes!(zk::list_zk_children))
        .routes(routes!(zk::read_zk_tree))
        .routes(routes!(zk::read_zk_summary))
        .routes(routes!(zk::dump_zk))
        .routes(routes!(zk::watch_zk))
        .routes(routes!(zk::list_zk_imports))
        .routes(routes!(zk::read_zk_import))
        .routes(routes!(zk::step_zk_import))
        .routes(routes!(zk::add_zk_rows))
        .routes(routes!(zk::add_zk_transactions))
        .routes(routes!(zk::read_zk_import_snapshot))
        .routes(routes!(events::events))
        .routes(routes!(snapshot::save_snapshot, snapshot::restore_snapshot))
        .routes(routes!(system::read_openapi))
        .routes(routes!(system::read_metrics))
        .routes(routes!(system::read_health))
        .routes(routes!(system::read_readiness))
        .routes(routes!(system::read_home))
}

/// The description of all routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    // A parameter that takes the rest of the path is written otherwise in a document.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// The API's service.
pub fn router(context: Context) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(guard::after_panic))
        .layer(from_fn(guard::same_origin))
        .layer(from_fn_with_state(context.clone(), guard::measure))
        .with_state(context)
}

async fn unknown_route(method: Method, uri: Uri) -> impl IntoResponse {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        format!(
            "there is nothing at {method} {}; /v1/openapi.json lists what there is",
            uri.path()
        ),
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> impl IntoResponse {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} has no method {method}; /v1/openapi.json lists what it has", uri.path()),
    )
}
