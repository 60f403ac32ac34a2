//! `orch history`: a job's versions.

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::output::Output;
use super::plan::change_line;
use super::target::{JobRef, ProjectFlag};
use super::words::{age, printable};
use crate::api::view::job::JobVersionRow;
use crate::api::view::query::ListVersions;

/// Flags of `orch history`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  orch history web    each version: what it changed, how its deployment went")]
pub(super) struct HistoryArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: JobRef,
    #[command(flatten)]
    project: ProjectFlag,
}

pub(super) async fn run(args: HistoryArgs, context: &Context) -> Outcome {
    let id = args.job.id(&args.project)?;
    let query = ListVersions {
        project: Some(id.project.to_string()),
        consistency: context.consistency,
        ..ListVersions::default()
    };
    let call = Call::get(["jobs", id.name.as_str(), "versions"])
        .query(&query)
        .hint("orch status lists the jobs there are");
    let versions: Vec<JobVersionRow> = context.client.list(call).await?;
    let output = &context.output;
    output.value(&versions, || {
        versions.iter().map(|version| describe(version, output)).collect::<String>()
    })?;
    Ok(Exit::DONE)
}

fn describe(version: &JobVersionRow, output: &Output) -> String {
    let current = if version.current { ", wanted now" } else { "" };
    let same = version.same_as.map_or(String::new(), |same| format!(", runs the same as {same}"));
    let mut text = format!(
        "version {}, {} {} ago{same}{current}\n",
        version.version,
        version.change,
        age(output.now, version.at)
    );
    if let Some(deployment) = &version.deployment {
        let why = match deployment.reason.as_str() {
            "" => String::new(),
            reason => format!(": {}", printable(reason)),
        };
        let status = output.state(&deployment.status);
        text.push_str(&format!("  deployment {} {status}{why}\n", deployment.id));
    } else if version.was_healthy {
        text.push_str("  all its copies were ready once\n");
    }
    for change in &version.changes {
        text.push_str(&format!("  {}\n", change_line(change)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn a_version_tells_what_made_it_and_how_it_went() {
        let now: crate::api::view::time::Time = "2026-11-20T09:00:00Z".parse().unwrap();
        let output = Output::new(Format::Table, now.0);
        let version = |more: serde_json::Value| {
            let mut row = json!({
                "version": 3, "at": "2026-11-20T08:59:00Z", "change": "updated", "current": false,
                "changes": [{"field": "image", "before": "a:1", "after": "a:2"}]
            });
            for (key, value) in more.as_object().unwrap() {
                row[key] = value.clone();
            }
            describe(&serde_json::from_value(row).unwrap(), &output)
        };
        assert_eq!(
            version(json!({"deployment": {"id": "d3", "status": "failed", "reason": "no image"}})),
            "version 3, updated 1m ago\n  deployment d3 failed: no image\n  ~ image: a:1 -> a:2\n"
        );
        assert_eq!(
            version(json!({
                "change": "reverted", "same_as": 1, "current": true, "was_healthy": true,
                "changes": []
            })),
            "version 3, reverted 1m ago, runs the same as 1, wanted now\n  \
             all its copies were ready once\n"
        );
    }
}
