//! Upgrades, back-off, and nodes that are not heard.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::finding::Notes;
use super::job::duration;
use crate::limits::REPLICAS_MAX;

const DAY: f64 = 24.0 * 60.0 * 60.0;
const YEAR: f64 = 365.0 * DAY;
/// The longest time without progress that a deployment is given at least, in seconds.
const DEADLINE: f64 = 300.0;

/// What decides how an update goes, beside the strategy itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    pub(super) instances: u64,
    /// Two can't be on a host at the same time: a fixed port, data on the node.
    pub(super) alone: bool,
    /// How long a replica may take to come up, in seconds.
    pub(super) grace: f64,
}

/// `upgradeStrategy` as `update`.
pub(super) fn update(
    strategy: Option<Fields>,
    here: Circumstances,
    notes: &mut Notes,
) -> Option<Value> {
    let (mut least, mut over) = (1.0, 1.0);
    let mut path = String::new();
    if let Some(mut fields) = strategy {
        path = fields.at("minimumHealthCapacity");
        least = fields.number("minimumHealthCapacity", notes).unwrap_or(1.0).min(1.0);
        over = fields.number("maximumOverCapacity", notes).unwrap_or(1.0).min(1.0);
        fields.finish(notes);
    }
    let count = here.instances.max(1) as f64;
    let kept = (count * least).ceil();
    let more = (count * over).floor();
    let mut update = Map::new();
    let stop_first = here.alone || (more < 1.0 && kept < count);
    let parallel = if stop_first { count - kept } else { more };
    let parallel = (parallel.max(1.0) as u64).min(u64::from(REPLICAS_MAX));
    if here.alone && kept >= count && !path.is_empty() {
        notes.adapted(
            &path,
            least.to_string(),
            "with a fixed host port or data on the node a replica is stopped before its successor \
             starts",
            "let the host port be chosen, if no replica may be missing",
        );
    }
    update.insert("max_parallel".into(), json!(parallel));
    update.insert("order".into(), json!(if stop_first { "stop-first" } else { "start-first" }));
    if here.grace > 60.0 {
        // It must be able to come up before the deployment counts as failed.
        update.insert("deadline".into(), duration((2.0 * here.grace + DEADLINE).min(DAY)));
    }
    Some(Value::Object(update))
}

/// Back-off as `reschedule`: Marathon never gave up.
pub(super) fn reschedule(
    backoff: Option<f64>,
    factor: Option<(f64, String)>,
    longest: Option<f64>,
    notes: &mut Notes,
) -> Value {
    if let Some((factor, path)) = factor.filter(|(factor, _)| *factor != 1.15 && *factor != 2.0) {
        let why = "the wait doubles each time";
        notes.adapted(&path, factor.to_string(), why, "nothing");
    }
    let first = backoff.unwrap_or(1.0).clamp(0.001, DAY);
    let longest = longest.unwrap_or(300.0).clamp(first, DAY);
    let text = |seconds: f64| duration(seconds).as_str().unwrap_or_default().to_owned();
    json!({ "attempts": "unlimited", "delay": format!("{}..{}", text(first), text(longest)) })
}

/// `unreachableStrategy` as `disconnect`.
pub(super) fn disconnect(strategy: Option<(String, Value)>, notes: &mut Notes) -> Option<Value> {
    let (path, value) = strategy?;
    let never = |notes: &mut Notes| {
        let why = "replicas of a lost node are waited for, though not without end";
        notes.adapted(&path, "disabled", why, "nothing");
        Some(json!({ "replace_after": duration(YEAR) }))
    };
    if value.as_str() == Some("disabled") {
        return never(notes);
    }
    let mut fields = Fields::of(&path, value, notes)?;
    if fields.truth("disabled", notes) == Some(true) {
        return never(notes);
    }
    let after = fields.number("inactiveAfterSeconds", notes).unwrap_or(0.0).min(YEAR);
    let expunge = fields.number("expungeAfterSeconds", notes).unwrap_or(0.0);
    if expunge > after {
        notes.adapted(
            &fields.at("expungeAfterSeconds"),
            expunge.to_string(),
            "a replaced replica whose node comes back is kept if it is well, whenever that is",
            "nothing",
        );
    }
    fields.finish(notes);
    (after > 0.0).then(|| json!({ "replace_after": duration(after) }))
}

/// Old apps said there what is to happen to those with data.
pub(super) fn residency(fields: Option<Fields>, notes: &mut Notes) {
    let Some(mut fields) = fields else { return };
    let wait = fields.number("relaunchEscalationTimeoutSeconds", notes);
    let lost = fields.text("taskLostBehavior", notes);
    fields.finish(notes);
    if wait.is_some() || lost.is_some() {
        notes.adapted(
            "residency",
            [lost, wait.map(|wait| format!("{wait} s"))]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            "a replica with a named volume waits for its node without end",
            "`orch node remove` gives the data up",
        );
    }
}
