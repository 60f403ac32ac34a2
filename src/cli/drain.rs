//! `orch node drain`: moves work away from a node, and tells what is left and why.

use std::time::Duration;

use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::node::{HINT, fetch};
use super::output::{Output, note};
use super::words::{printable, until};
use crate::api::view::node::{DrainLeft, DrainRequest, DrainRow, NodeRow, NodeStatus};
use crate::model::name::NodeName;
use crate::model::time::Millis;

/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Lines about what is left.
const LINES_MAX: usize = 20;

pub(super) async fn run(
    node: &NodeName,
    deadline: Option<Millis>,
    wait: bool,
    context: &Context,
) -> Outcome {
    let request = DrainRequest { deadline: deadline.map(|deadline| format!("{}ms", deadline.0)) };
    let call =
        Call::new(Method::POST, ["nodes", node.as_str(), "drain"]).json(&request)?.hint(HINT);
    let row: NodeRow = context.client.json(call).await?;
    if wait {
        return tokio::select! {
            outcome = until_empty(node, context) => outcome,
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::new(Exit::INTERRUPTED, "interrupted; the drain goes on"))
            }
        };
    }
    let status = fetch(node, context).await?;
    context.output.value(&row, || begun(node, &status))?;
    Ok(Exit::DONE)
}

/// What is said of a drain that has just begun: above all, what will not move.
fn begun(node: &NodeName, status: &NodeStatus) -> String {
    let left = status.drain.as_ref().map_or(&[][..], |drain| &drain.left);
    if left.is_empty() {
        return format!("{node} is empty, and takes no new work");
    }
    let stay: Vec<&DrainLeft> = left.iter().filter(|left| !left.moves).collect();
    let mut text = format!("{node} is being drained; orch node status {node} tells what is left\n");
    text.push_str(&lines(&stay));
    text
}

fn lines(left: &[&DrainLeft]) -> String {
    let mut text: String = left
        .iter()
        .take(LINES_MAX)
        .map(|left| format!("  {}\n", printable(&left.message)))
        .collect();
    if left.len() > LINES_MAX {
        text.push_str(&format!("  and {} more\n", left.len() - LINES_MAX));
    }
    text
}

/// Until when a drain is patient.
pub(super) fn limit(drain: &DrainRow, output: &Output) -> String {
    match drain.deadline {
        None => "without a deadline".to_owned(),
        Some(_) if drain.overdue => "the deadline is over".to_owned(),
        Some(deadline) => format!("what is left is stopped {}", until(output.now, deadline)),
    }
}

async fn until_empty(node: &NodeName, context: &Context) -> Outcome {
    let mut said = String::new();
    // What had not moved when it was last looked at, and what the deadline stopped.
    let mut unmoved: Vec<String> = Vec::new();
    let mut stopped: Vec<String> = Vec::new();
    loop {
        let status = fetch(node, context).await?;
        let Some(drain) = &status.drain else {
            return Err(Failure::failed(format!("the drain of {node} was ended by someone else")));
        };
        if drain.overdue && stopped.is_empty() {
            stopped.append(&mut unmoved);
        }
        let left: Vec<&DrainLeft> = drain.left.iter().collect();
        if left.is_empty() {
            return ended(node, &status, &stopped, context);
        }
        let now = format!("{} left on {node}:\n{}", left.len(), lines(&left));
        if now != said {
            note(now.trim_end());
            said = now;
        }
        if !drain.overdue {
            unmoved = left.iter().filter(|left| !left.moves).map(|left| name(left)).collect();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `db.0` of `db.0 stays: …`.
fn name(left: &DrainLeft) -> String {
    let text = left.message.strip_prefix("batch job ").unwrap_or(&left.message);
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn ended(node: &NodeName, status: &NodeStatus, stopped: &[String], context: &Context) -> Outcome {
    context.output.value(&status.row, || format!("{node} is empty"))?;
    if stopped.is_empty() {
        return Ok(Exit::DONE);
    }
    let names = stopped.join(", ");
    Err(Failure::failed(format!(
        "the deadline passed before everything had moved; it stopped {names}"
    ))
    .hint("orch status tells where they are now"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::Format;
    use crate::model::time::Timestamp;

    #[test]
    fn it_says_what_can_not_move_and_why() {
        let left = |message: &str, moves: bool| DrainLeft {
            allocation: "a1".into(),
            message: message.into(),
            moves,
        };
        let all = [
            left("db.0 stays: its data (volume pg) is on n1", false),
            left("batch job report.0 is left to end until the deadline", false),
            left("web.0 waits for its turn: one moves at a time", true),
        ];
        assert_eq!(name(&all[0]), "db.0");
        assert_eq!(name(&all[1]), "report.0");
        assert_eq!(
            lines(&all.iter().collect::<Vec<_>>()).lines().next(),
            Some("  db.0 stays: its data (volume pg) is on n1")
        );
        let drain = |more: serde_json::Value| -> String {
            let mut row = json!({"since": "2026-11-20T08:59:00Z", "left": []});
            for (key, value) in more.as_object().unwrap() {
                row[key] = value.clone();
            }
            let now: crate::api::view::time::Time = "2026-11-20T09:00:00Z".parse().unwrap();
            let output = Output::new(Format::Table, Timestamp(now.0.0));
            limit(&serde_json::from_value(row).unwrap(), &output)
        };
        assert_eq!(drain(json!({})), "without a deadline");
        assert_eq!(
            drain(json!({"deadline": "2026-11-20T09:05:00Z"})),
            "what is left is stopped in 5m"
        );
        assert_eq!(
            drain(json!({"deadline": "2026-11-20T08:59:30Z", "overdue": true})),
            "the deadline is over"
        );
    }
}
