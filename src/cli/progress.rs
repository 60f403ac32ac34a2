//! Waits until jobs are up, and shows how far they are.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::client::Call;
use super::context::Context;
use super::failure::Failure;
use super::lines::Lines;
use super::output::note;
use super::status::{fetch, why_failed, why_unplaced};
use super::words::{copy_name, first_line, printable};
use crate::api::view::allocation::AllocationRow;
use crate::api::view::job::JobStatus;
use crate::api::view::query::EventsQuery;
use crate::model::name::JobId;
use crate::model::time::Millis;

/// How often a job is looked at when no event tells of a change.
const LOOK_EVERY: Duration = Duration::from_millis(1000);
/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(25);

/// A job and the version of it that is to be up.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) id: JobId,
    pub(super) version: u64,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as wanted, and how that is called.
    Up(String),
    /// It will not be, or not without help, and why.
    Failed(String),
    /// It may be yet, and what is happening.
    Waiting(String),
}

impl Verdict {
    fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }
}

/// Waits until each job is up or has failed, the time is over, or the user has had enough.
pub(super) async fn wait(
    goals: &[Goal],
    timeout: Option<Millis>,
    context: &Context,
) -> Result<Vec<Verdict>, Failure> {
    let mut board = Board::new(goals);
    let mut verdicts: Vec<Verdict> =
        goals.iter().map(|_| Verdict::Waiting(String::new())).collect();
    let mut changes = watch(goals, context);
    let ended = async {
        loop {
            for (i, (goal, verdict)) in goals.iter().zip(&mut verdicts).enumerate() {
                if !verdict.is_final() {
                    let status = fetch(&goal.id, context).await?;
                    *verdict = judge(goal, &status, context);
                    board.show(i, goal, verdict);
                }
            }
            if verdicts.iter().all(Verdict::is_final) {
                return Ok::<(), Failure>(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
        }
    };
    let limit = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout.as_duration()).await,
            None => std::future::pending().await,
        }
    };
    let interrupted = tokio::select! {
        ended = ended => {
            ended?;
            None
        }
        () = limit => Some("the time to wait is over"),
        _ = tokio::signal::ctrl_c() => Some("interrupted"),
    };
    board.clear();
    if let Some(why) = interrupted {
        for (goal, verdict) in goals.iter().zip(&verdicts) {
            if let Verdict::Waiting(how) = verdict {
                note(&format!("{why}; {} goes on ({how})", goal.id));
                note(&format!("  try: orch status {}", goal.id));
            }
        }
        if timeout.is_some() && why != "interrupted" {
            for verdict in verdicts.iter_mut().filter(|verdict| !verdict.is_final()) {
                *verdict = Verdict::Failed(why.to_owned());
            }
        }
    }
    Ok(verdicts)
}

/// Tells that something has changed; many changes may come as one.
fn watch(goals: &[Goal], context: &Context) -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel(1);
    let client = context.client.clone();
    let only = match goals {
        [goal] => Some(format!("{}/{}", goal.id.project, goal.id.name)),
        _ => None,
    };
    tokio::spawn(async move {
        let query = EventsQuery { job: only, ..EventsQuery::default() };
        let call = Call::get(["events"]).query(&query).streaming("text/event-stream");
        while !tell.is_closed() {
            if let Ok(response) = client.send(call.clone()).await {
                let mut lines = Lines::of(response);
                while let Ok(Some(_)) = lines.next_event().await {
                    if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                        return;
                    }
                }
            }
            // Without events a look now and then has to do.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    told
}

fn judge(goal: &Goal, status: &JobStatus, context: &Context) -> Verdict {
    let row = &status.row;
    if row.version > goal.version {
        return Verdict::Failed(format!("version {} has taken its place", row.version));
    }
    match row.state.as_str() {
        "stopped" | "stopping" => return Verdict::Failed("it was stopped".to_owned()),
        "failed" => return Verdict::Failed(reasons(status, context)),
        "complete" => return Verdict::Up("complete".to_owned()),
        _ => {}
    }
    if let Some(unplaced) = &status.unplaced
        && unplaced.never_fits
    {
        return Verdict::Failed(why_unplaced(unplaced));
    }
    let service = row.r#type != "batch";
    if service && row.failing > 0 && row.state == "degraded" {
        return Verdict::Failed(reasons(status, context));
    }
    if row.r#type == "system" && row.desired == 0 {
        return Verdict::Up("up: no node fits it now".to_owned());
    }
    if service && row.state == "running" {
        return Verdict::Up(match row.desired {
            0 => "up: no copies are wanted".to_owned(),
            desired => format!("up: {} of {desired} healthy", row.up_to_date),
        });
    }
    let mut how = match service {
        true => format!("{} of {} up to date and healthy", row.up_to_date, row.desired),
        false => row.state.clone(),
    };
    if let Some(news) = news(status) {
        how.push_str(&format!("; {}", printable(&news)));
    }
    Verdict::Waiting(how)
}

/// What happens to the first copy that is not healthy, or why one is not placed.
fn news(status: &JobStatus) -> Option<String> {
    let of_copy = |copy: &AllocationRow| {
        let name = copy_name(&copy.project, &copy.job, copy.index);
        format!("{name}: {}", first_line(&copy.message))
    };
    status
        .allocations
        .iter()
        .find(|copy| {
            copy.health != "healthy"
                && !copy.message.is_empty()
                && matches!(copy.state.as_str(), "pending" | "starting" | "running")
        })
        .map(of_copy)
        .or_else(|| status.unplaced.as_ref().map(|unplaced| unplaced.message.clone()))
}

/// Why a job has failed, with what its copies printed.
fn reasons(status: &JobStatus, context: &Context) -> String {
    let row = &status.row;
    let mut text = String::new();
    if !row.message.is_empty() {
        text.push_str(&format!("{}\n", printable(&row.message)));
    }
    for failure in &status.failures {
        text.push_str(&why_failed(&row.project, &row.job, failure, &context.output));
    }
    text
}

/// A line for each job, on a terminal; elsewhere a line for each change.
struct Board {
    bars: Vec<ProgressBar>,
    shown: Vec<String>,
    live: bool,
}

impl Board {
    fn new(goals: &[Goal]) -> Self {
        let all = MultiProgress::new();
        let live = !all.is_hidden();
        let style = ProgressStyle::with_template("{spinner} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bars = goals
            .iter()
            .map(|_| {
                let bar = all.add(ProgressBar::new_spinner().with_style(style.clone()));
                if live {
                    bar.enable_steady_tick(Duration::from_millis(120));
                }
                bar
            })
            .collect();
        Self { bars, shown: goals.iter().map(|_| String::new()).collect(), live }
    }

    fn show(&mut self, i: usize, goal: &Goal, verdict: &Verdict) {
        let text = match verdict {
            Verdict::Waiting(how) => format!("{} version {}: {how}", goal.id, goal.version),
            Verdict::Up(how) => format!("{} version {}: {how}", goal.id, goal.version),
            Verdict::Failed(_) => format!("{} version {}: failed", goal.id, goal.version),
        };
        let Some(shown) = self.shown.get_mut(i).filter(|shown| **shown != text) else { return };
        if self.live {
            if let Some(bar) = self.bars.get(i) {
                bar.set_message(text.clone());
                if verdict.is_final() {
                    bar.finish();
                }
            }
        } else if !verdict.is_final() {
            note(&text);
        }
        *shown = text;
    }

    fn clear(&self) {
        for bar in &self.bars {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::context::Context;

    fn judged(kind: &str, state: &str, more: Value) -> Verdict {
        let mut status = json!({
            "project": "default", "job": "web", "version": 2, "type": kind, "state": state,
            "desired": 2, "running": 0, "healthy": 0, "up_to_date": 2, "failing": 0,
            "priority": 50, "message": "because", "created_at": "2026-11-20T08:00:00Z",
            "changed_at": "2026-11-20T08:59:00Z", "spec": {}, "purged": false, "failures": [],
            "allocations": [{
                "project": "default", "job": "web", "index": 1, "id": "a1", "node": "n1",
                "version": 2, "state": "starting", "health": "unknown", "container_id": null,
                "ports": {}, "address": null, "restarts": 0, "started_at": null,
                "created_at": null, "message": "pulling"
            }]
        });
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        let goal = Goal { id: "web".parse().unwrap(), version: 2 };
        judge(&goal, &serde_json::from_value(status).unwrap(), &Context::for_tests())
    }

    #[test]
    fn a_service_is_up_when_all_copies_of_the_version_are_healthy() {
        let service = |state: &str, more| judged("service", state, more);
        assert_eq!(service("running", json!({})), Verdict::Up("up: 2 of 2 healthy".into()));
        for state in ["updating", "starting", "pending", "degraded"] {
            assert_eq!(
                service(state, json!({"up_to_date": 1})),
                Verdict::Waiting("1 of 2 up to date and healthy; web.1: pulling".into())
            );
        }
        assert!(matches!(service("running", json!({"desired": 0})), Verdict::Up(_)));
        assert!(matches!(judged("system", "pending", json!({"desired": 0})), Verdict::Up(_)));
        for (state, more) in [
            ("failed", json!({})),
            ("stopped", json!({})),
            ("degraded", json!({"failing": 1})),
            ("running", json!({"version": 3})),
        ] {
            assert!(matches!(service(state, more), Verdict::Failed(_)), "{state}");
        }
    }

    #[test]
    fn a_batch_job_is_up_when_it_is_complete() {
        let batch = |state: &str| judged("batch", state, json!({}));
        assert_eq!(batch("complete"), Verdict::Up("complete".into()));
        assert_eq!(batch("starting"), Verdict::Waiting("starting; web.1: pulling".into()));
        assert!(matches!(batch("failed"), Verdict::Failed(why) if why.contains("because")));
        assert!(matches!(batch("stopped"), Verdict::Failed(_)));
    }

    #[test]
    fn a_job_that_can_never_fit_has_failed() {
        let more = json!({"unplaced": {
            "replicas": 2, "nodes": 1, "never_fits": true, "message": "too big",
            "refusals": [{"reason": "no memory", "nodes": 1}]
        }});
        let verdict = judged("service", "pending", more);
        assert!(matches!(verdict, Verdict::Failed(why) if why.contains("1 node: no memory")));
    }
}
