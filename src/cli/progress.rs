//! Waits until jobs are up, and shows how far they are.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::lines::Lines;
use super::output::note;
use super::status::fetch;
use super::verdict::{Verdict, judge};
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
    /// The deployment that is watched; that of the version unless given.
    pub(super) deployment: Option<String>,
    /// A promotion by hand is waited for as well.
    pub(super) patient: bool,
}

impl Goal {
    /// A version that is to be up, as far as it gets by itself.
    pub(super) fn new(id: JobId, version: u64) -> Self {
        Self { id, version, deployment: None, patient: false }
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

/// Says how each job ended up, to people; the exit code.
pub(super) fn report(
    goals: &[Goal],
    verdicts: &[Verdict],
    context: &Context,
) -> Result<Exit, Failure> {
    for (goal, verdict) in goals.iter().zip(verdicts) {
        if let Verdict::Failed(why) = verdict {
            note(&format!("{} failed: {}", goal.id, why.trim_end()));
            note(&format!("  try: orch status {0}; orch logs {0}", goal.id));
        }
    }
    if context.output.for_people() {
        for (goal, verdict) in goals.iter().zip(verdicts) {
            if let Verdict::Up(how) | Verdict::NeedsPromotion(how) = verdict {
                context.output.text(&format!("{} version {} is {how}", goal.id, goal.version))?;
            }
            if let Verdict::NeedsPromotion(_) = verdict {
                context.output.text(&format!(
                    "  orch deploy promote {0}    lets the rest follow\n  \
                     orch deploy abort {0}      takes it back",
                    goal.id
                ))?;
            }
        }
    }
    Ok(exit_of(verdicts))
}

fn exit_of(verdicts: &[Verdict]) -> Exit {
    if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed(_))) {
        Exit::FAILED
    } else if verdicts.iter().all(Verdict::is_final) {
        Exit::DONE
    } else {
        Exit::INTERRUPTED
    }
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
            Verdict::Up(how) | Verdict::NeedsPromotion(how) => {
                format!("{} version {}: {how}", goal.id, goal.version)
            }
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
