//! `orch ps`: copies of jobs.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, Output};
use super::target::{JobRef, ProjectFlag};
use super::words::{age_or_dash, copy_name, first_line, or_dash, ports};
use crate::api::view::allocation::AllocationRow;
use crate::api::view::query::ListAllocations;
use crate::model::name::NodeName;

/// Flags of `orch ps`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch ps                   every copy of every job
  orch ps web -o wide       those of one job, with container ids
  orch ps --node n1         those on one node")]
pub(super) struct PsArgs {
    /// Only this job
    #[arg(value_name = "JOB")]
    job: Option<JobRef>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Only what is on this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Ended copies that were replaced as well
    #[arg(long, short)]
    all: bool,
}

pub(super) async fn run(args: PsArgs, context: &Context) -> Outcome {
    let id = args.job.as_ref().map(|job| job.id(&args.project)).transpose()?;
    let query = ListAllocations {
        project: id.as_ref().map_or_else(|| args.project.name(), |id| Some(id.project.to_string())),
        job: id.as_ref().map(|id| id.name.to_string()),
        node: args.node.as_ref().map(ToString::to_string),
        all: args.all,
        consistency: context.consistency,
        ..ListAllocations::default()
    };
    let call =
        Call::get(["allocations"]).query(&query).hint("orch status lists the jobs there are");
    let rows: Vec<AllocationRow> = context.client.list(call).await?;
    print(&rows, &context.output)?;
    Ok(Exit::DONE)
}

fn print(rows: &[AllocationRow], output: &Output) -> Result<(), Failure> {
    output.rows(rows, headers(output), "no copies", |row| cells(row, output))
}

/// The columns of copies.
pub(super) fn headers(output: &Output) -> &'static [&'static str] {
    const ALL: [&str; 13] = [
        "COPY",
        "ID",
        "NODE",
        "VERSION",
        "STATE",
        "HEALTH",
        "READY",
        "RESTARTS",
        "PORTS",
        "UP",
        "MESSAGE",
        "CONTAINER",
        "PLACED",
    ];
    if output.is_wide() { &ALL } else { ALL.split_at(11).0 }
}

/// A copy's fields under [`headers`].
pub(super) fn cells(row: &AllocationRow, output: &Output) -> Vec<Cell> {
    let up = match row.state.as_str() {
        "running" | "stopping" => age_or_dash(output.now, row.started_at),
        _ => "-".to_owned(),
    };
    let mut cells = vec![
        copy_name(&row.project, &row.job, row.index).into(),
        or_dash(row.id.clone().unwrap_or_default()).into(),
        or_dash(row.node.clone().unwrap_or_default()).into(),
        Cell::number(row.version),
        Cell::state(&row.state),
        Cell::state(&row.health),
        Cell::state(if row.ready { "yes" } else { "no" }),
        Cell::number(row.restarts),
        ports(&row.ports, row.address.as_deref()).into(),
        up.into(),
        or_dash(message(row)).into(),
    ];
    if output.is_wide() {
        cells.push(or_dash(row.container_id.clone().unwrap_or_default()).into());
        cells.push(age_or_dash(output.now, row.created_at).into());
    }
    cells
}

/// What is happening or went wrong; what a check that fails says; or that it is to go elsewhere.
fn message(row: &AllocationRow) -> String {
    let failing = || {
        let check = row.checks.iter().find(|check| !check.passing)?;
        let answer = first_line(&check.message);
        Some(format!("its {} check fails: {answer}", check.kind))
    };
    let moving = || Some(format!("to go elsewhere: {}", row.moving.as_ref()?));
    let said = Some(first_line(&row.message)).filter(|message| !message.is_empty());
    said.or_else(failing).or_else(moving).unwrap_or_default()
}
