//! `orch plan`: what running a file would change.

use std::path::PathBuf;

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::job_file::{JobFile, read_all};
use super::output::Output;
use super::status::why_unplaced;
use super::target::ProjectFlag;
use super::words::{copy_name, count, job_name, ports, printable};
use crate::api::view::job::FieldChange;
use crate::api::view::plan::{JobPlan, PlanReply};
use crate::api::view::query::PlanQuery;

/// Flags of `orch plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch plan web.yaml            what would change, and where copies would go
  orch plan web.yaml -o json    the same for programs
Nothing is changed; the exit code is 0 whether there is something to do or not.")]
pub(super) struct PlanArgs {
    /// Job files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    project: ProjectFlag,
}

pub(super) async fn run(args: PlanArgs, context: &Context) -> Outcome {
    let files = read_all(&args.files, &args.project.project.clone().unwrap_or_default())?;
    let mut plans = Vec::new();
    for file in &files {
        plans.extend(ask(file, &args.project, context).await?);
    }
    context.output.value(&plans, || {
        let texts: Vec<_> = plans.iter().map(|plan| describe(plan, &context.output)).collect();
        texts.join("\n")
    })?;
    Ok(Exit::DONE)
}

/// The plan of a file's jobs, in their order.
async fn ask(
    file: &JobFile,
    project: &ProjectFlag,
    context: &Context,
) -> Result<Vec<JobPlan>, Failure> {
    let query = PlanQuery { project: project.name(), consistency: context.consistency };
    let call = Call::new(reqwest::Method::POST, ["plan"])
        .query(&query)
        .body(file.text.clone(), file.format.content_type());
    let reply: PlanReply = context.client.json(call).await?;
    Ok(reply.jobs)
}

fn describe(plan: &JobPlan, output: &Output) -> String {
    let name = job_name(&plan.project, &plan.job);
    let mut text = match plan.action.as_str() {
        "create" => format!("{name}: a new {} job\n", plan.r#type),
        "none" => format!("{name}: nothing changes, version {} stays\n", plan.version_now),
        "start" => format!("{name}: starts again, as version {}\n", plan.version_then),
        _ if plan.in_place => format!(
            "{name}: version {} to {}, in place: what runs goes on\n",
            plan.version_now, plan.version_then
        ),
        _ => format!("{name}: version {} to {}\n", plan.version_now, plan.version_then),
    };
    for change in &plan.changes {
        text.push_str(&format!("  {}\n", change_line(change)));
    }
    if !plan.stops.is_empty() {
        text.push_str(&format!("  stops {}:\n", count(plan.stops.len() as u64, "copy", "copies")));
        let rows = plan.stops.iter().map(|stop| {
            let copy = copy_of(plan, &stop.job, stop.index);
            vec![
                format!("    {copy}").into(),
                stop.id.clone().into(),
                stop.node.clone().into(),
                stop.reason.clone().into(),
            ]
        });
        text.push_str(&output.table(&["    COPY", "ID", "NODE", "WHY"], rows));
        text.push('\n');
    }
    if !plan.placements.is_empty() {
        let copies = count(plan.placements.len() as u64, "copy", "copies");
        text.push_str(&format!("  places {copies}:\n"));
        let rows = plan.placements.iter().map(|placement| {
            let copy = copy_of(plan, &placement.job, placement.index);
            let replaces = placement.replaces.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                format!("    {copy}").into(),
                placement.node.clone().into(),
                ports(&placement.ports, None).into(),
                replaces.into(),
            ]
        });
        text.push_str(&output.table(&["    COPY", "NODE", "PORTS", "REPLACES"], rows));
        text.push('\n');
    }
    if let Some(unplaced) = &plan.unplaced {
        for line in why_unplaced(unplaced).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    for warning in &plan.warnings {
        text.push_str(&format!("  warning: {}\n", printable(warning)));
    }
    text
}

/// Work of other jobs may have to move as well, and then names its own.
fn copy_of(plan: &JobPlan, job: &str, index: u32) -> String {
    if job == plan.job { copy_name(&plan.project, job, index) } else { format!("{job}.{index}") }
}

/// `+ field: value`, `- field: value`, `~ field: before -> after`.
pub(super) fn change_line(change: &FieldChange) -> String {
    let show = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = match (&change.before, &change.after) {
        (None, Some(after)) => format!("+ {}: {}", change.field, show(after)),
        (Some(before), None) => format!("- {}: {}", change.field, show(before)),
        (Some(before), Some(after)) => {
            format!("~ {}: {} -> {}", change.field, show(before), show(after))
        }
        (None, None) => format!("~ {}", change.field),
    };
    printable(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::Format;
    use crate::model::time::Timestamp;

    #[test]
    fn a_plan_tells_fields_stops_and_placements() {
        let plan: JobPlan = serde_json::from_value(json!({
            "project": "default", "job": "web", "type": "service", "action": "update",
            "version_now": 1, "version_then": 2, "in_place": false,
            "changes": [
                {"field": "image", "before": "a:1", "after": "a:2"},
                {"field": "environment.MODE", "after": "prod"},
                {"field": "replicas", "before": 3}
            ],
            "placements": [{"job": "web", "index": 0, "node": "n2", "ports": {"http": 80}, "replaces": "a1"}],
            "stops": [{"job": "web", "id": "a1", "index": 0, "node": "n1", "reason": "a new version"}],
            "warnings": ["careful"]
        }))
        .unwrap();
        assert_eq!(
            describe(&plan, &Output::new(Format::Table, Timestamp(0))),
            "web: version 1 to 2\n\
             \x20 ~ image: a:1 -> a:2\n\
             \x20 + environment.MODE: prod\n\
             \x20 - replicas: 3\n\
             \x20 stops 1 copy:\n\
             \x20   COPY   ID  NODE  WHY\n\
             \x20   web.0  a1  n1    a new version\n\
             \x20 places 1 copy:\n\
             \x20   COPY   NODE  PORTS    REPLACES\n\
             \x20   web.0  n2    http=80  a1\n\
             \x20 warning: careful\n"
        );
    }
}
