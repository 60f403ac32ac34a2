//! What happens when things change or go wrong: restart, reschedule, update, disconnect.

use super::job::{ATTEMPTS_MOST, DAY, LONG};
use super::keys;
use super::reader::{Fields, Item, Report, word};
use super::tree::Value;
use crate::limits::REPLICAS_MAX;
use crate::model::job::{
    DisconnectPolicy, JobKind, Promotion, ReschedulePolicy, RestartPolicy, UpdateOrder,
    UpdatePolicy, UpdateStrategy,
};
use crate::model::time::Millis;

/// How long the old set is kept after blue-green, unless the file says.
const KEEP_OLD: Millis = Millis::from_secs(300);

/// What happens when a task ends.
pub(super) fn restart(
    item: &Item<'_>,
    kind: Option<JobKind>,
    report: &mut Report,
) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    if !matches!(item.node.value, Value::Map(_)) {
        restart_word(item, kind, &mut policy, report);
        return policy;
    }
    let Some(fields) = item.fields(report, "a map") else { return policy };
    fields.check_keys(report, keys::RESTART, &[]);
    if let Some(attempts) =
        fields.get("attempts").and_then(|item| item.number_u32(report, 0..=ATTEMPTS_MOST))
    {
        policy.attempts = attempts;
    }
    if let Some(within) =
        fields.get("within").and_then(|item| item.duration(report, Millis::from_secs(1)..=LONG))
    {
        policy.within = within;
    }
    if let Some((least, most)) = fields.get("delay").and_then(|item| delay(&item, report)) {
        policy.delay_min = least;
        policy.delay_max = most;
    }
    policy
}

/// `1s..30s`, or `5s` for always the same.
fn delay(item: &Item<'_>, report: &mut Report) -> Option<(Millis, Millis)> {
    let text = item.text(report, "a duration, or a range as 1s..30s")?;
    let (least, most) = text.split_once("..").unwrap_or((&text, &text));
    let mut part = |text: &str| match text.trim().parse::<Millis>() {
        Ok(value) if value <= DAY => Some(value),
        Ok(value) => {
            item.wrong(report, format!("{value} does not do; the most is {DAY}"));
            None
        }
        Err(error) => {
            item.wrong(report, error.to_string());
            None
        }
    };
    let least_value = part(least);
    let most_value = if most == least { least_value } else { part(most) };
    let (least, most) = (least_value?, most_value?);
    if least > most {
        item.wrong(report, format!("{least} is more than {most}; write the shorter one first"));
        return None;
    }
    Some((least, most))
}

/// Compose's words.
fn restart_word(
    item: &Item<'_>,
    kind: Option<JobKind>,
    policy: &mut RestartPolicy,
    report: &mut Report,
) {
    let wanted = "a map of attempts, within, delay, or one of no, always, on-failure:N";
    let text = match &item.node.value {
        // What YAML 1.1 makes of `restart: no`.
        Value::Bool(false) => "no".to_owned(),
        _ => match item.text(report, wanted) {
            Some(text) => text,
            None => return,
        },
    };
    match text.as_str() {
        "no" => policy.attempts = 0,
        "always" | "unless-stopped" if matches!(kind, Some(JobKind::Batch { .. })) => {
            item.wrong(
                report,
                format!(
                    "{text} contradicts a batch job, which ends; add replicas, or write on-failure"
                ),
            );
        }
        "always" | "unless-stopped" | "on-failure" => {}
        _ => match text.strip_prefix("on-failure:").map(str::parse::<u32>) {
            Some(Ok(attempts)) if attempts <= ATTEMPTS_MOST => policy.attempts = attempts,
            Some(_) => item.wrong(report, format!("{text:?} does not do; write on-failure:3")),
            None => word(item, report, &text, &["no", "always", "on-failure", "unless-stopped"]),
        },
    }
}

/// What happens when its node has given up.
pub(super) fn reschedule(
    item: &Item<'_>,
    kind: Option<JobKind>,
    report: &mut Report,
) -> ReschedulePolicy {
    let mut policy = ReschedulePolicy::default();
    if matches!(kind, Some(JobKind::Batch { .. })) {
        let message = "is for jobs that run on, and this is a batch job; write retries: N beside \
                       job instead";
        item.wrong(report, message);
    }
    let wanted = "a map of attempts, within, delay";
    let Some(fields) = item.fields(report, wanted) else { return policy };
    fields.check_keys(report, keys::RESCHEDULE, &[]);
    if let Some(item) = fields.get("attempts") {
        if matches!(&item.node.value, Value::Text(text) if text == "unlimited") {
            policy.attempts = None;
        } else if let Value::Text(text) = &item.node.value
            && text.parse::<u32>().is_err()
        {
            let message = format!(
                "{text:?} does not do; write a whole number from 0 to {ATTEMPTS_MOST}, or unlimited"
            );
            item.wrong(report, message);
        } else if let Some(attempts) = item.number_u32(report, 0..=ATTEMPTS_MOST) {
            policy.attempts = Some(attempts);
        }
    }
    if let Some(within) =
        fields.get("within").and_then(|item| item.duration(report, Millis::from_secs(1)..=LONG))
    {
        policy.within = within;
    }
    if let Some((least, most)) = fields.get("delay").and_then(|item| delay(&item, report)) {
        policy.delay_min = least;
        policy.delay_max = most;
    }
    policy
}

/// What happens while its node and the servers don't hear each other.
pub(super) fn disconnect(item: &Item<'_>, report: &mut Report) -> DisconnectPolicy {
    let mut policy = DisconnectPolicy::default();
    let wanted = "a map of replace_after, stop_after";
    let Some(fields) = item.fields(report, wanted) else { return policy };
    fields.check_keys(report, keys::DISCONNECT, &[]);
    if let Some(after) =
        fields.get("replace_after").and_then(|item| item.duration(report, Millis(0)..=LONG))
    {
        policy.replace_after = after;
    }
    policy.stop_after = fields
        .get("stop_after")
        .and_then(|item| item.duration(report, Millis::from_secs(1)..=LONG));
    policy
}

/// How a new version replaces the old one, and whether it says `min_healthy`: what that is
/// otherwise depends on more than this.
pub(super) fn update(
    item: &Item<'_>,
    kind: Option<JobKind>,
    report: &mut Report,
) -> (UpdatePolicy, bool) {
    let mut policy = UpdatePolicy::default();
    let wanted = "a map of strategy, max_parallel, min_healthy, order, deadline, auto_revert";
    let Some(fields) = item.fields(report, wanted) else { return (policy, false) };
    fields.check_keys(report, keys::UPDATE, &[]);
    if matches!(kind, Some(JobKind::Batch { .. })) {
        item.wrong(
            report,
            "is for jobs that run on, and this is a batch job; remove it, or add replicas",
        );
    }
    policy.strategy = strategy(&fields, kind, report);
    if let Some(parallel) = fields
        .one_of(report, &["max_parallel", "parallelism"])
        .and_then(|item| item.number_u32(report, 1..=REPLICAS_MAX))
    {
        policy.max_parallel = parallel;
    }
    let healthy = fields.get("min_healthy");
    let says_min_healthy = healthy.is_some();
    if let Some(healthy) = healthy.as_ref().and_then(|item| item.duration(report, Millis(0)..=DAY))
    {
        policy.min_healthy = healthy;
    }
    policy.order = order(&fields, kind, policy.strategy, report);
    let deadline = fields.get("deadline");
    if let Some(deadline) =
        deadline.as_ref().and_then(|item| item.duration(report, Millis::from_secs(1)..=DAY))
    {
        policy.deadline = deadline;
    }
    if policy.min_healthy >= policy.deadline
        && let Some(item) = deadline.or(healthy)
    {
        let UpdatePolicy { min_healthy, deadline, .. } = policy;
        let message = format!(
            "no replica can have been ready for min_healthy ({min_healthy}) before the deadline \
             ({deadline}) is over; write a longer deadline"
        );
        item.wrong(report, message);
    }
    if let Some(revert) = fields.get("auto_revert").and_then(|item| item.truth(report)) {
        policy.auto_revert = revert;
    }
    (policy, says_min_healthy)
}

fn strategy(fields: &Fields<'_>, kind: Option<JobKind>, report: &mut Report) -> UpdateStrategy {
    const WORDS: [&str; 3] = ["rolling", "canary", "blue-green"];
    let named = fields.get("strategy").and_then(|item| {
        let text = item.text(report, "rolling, canary or blue-green")?;
        let known = WORDS.into_iter().find(|word| *word == text);
        if known.is_none() {
            word(&item, report, &text, &WORDS);
        }
        known
    });
    let canary = fields.get("canary");
    if let (Some(item), Some(named)) = (&canary, named.filter(|named| *named != "canary")) {
        item.wrong(report, format!("contradicts strategy: {named}; keep one of the two"));
    }
    let chosen = named.unwrap_or(if canary.is_some() { "canary" } else { "rolling" });
    if chosen == "blue-green"
        && kind == Some(JobKind::System)
        && let Some(item) = fields.get("strategy")
    {
        let message = "blue-green contradicts per: node, where a node has no room for a second \
                       one; write rolling or canary";
        item.wrong(report, message);
    }
    let promote = fields.get("promote");
    if chosen == "rolling"
        && let Some(item) = &promote
    {
        let message = "has no meaning here: a rolling update waits for nobody; write canary: 1 \
                       or strategy: blue-green too, or remove it";
        item.wrong(report, message);
    }
    let promote = promote.and_then(|item| promotion(&item, report));
    let keep_old = fields.get("keep_old");
    if chosen != "blue-green"
        && let Some(item) = &keep_old
    {
        let message = "goes with strategy: blue-green, which has an old set to keep; remove it";
        item.wrong(report, message);
    }
    let keep_old = keep_old.and_then(|item| item.duration(report, Millis(0)..=LONG));
    match chosen {
        "canary" => {
            let count = canary.and_then(|item| item.number_u32(report, 1..=REPLICAS_MAX));
            let promote = promote.unwrap_or(Promotion::Manual);
            UpdateStrategy::Canary { count: count.unwrap_or(1), promote }
        }
        "blue-green" => UpdateStrategy::BlueGreen {
            promote: promote.unwrap_or(Promotion::After(Millis(0))),
            keep_old: keep_old.unwrap_or(KEEP_OLD),
        },
        _ => UpdateStrategy::Rolling,
    }
}

/// `manual`, `auto`, or how long after it is ready.
fn promotion(item: &Item<'_>, report: &mut Report) -> Option<Promotion> {
    let text = item.text(report, "manual, auto, or a duration as 10m")?;
    match text.as_str() {
        "manual" => Some(Promotion::Manual),
        "auto" => Some(Promotion::After(Millis(0))),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
            item.duration(report, Millis(0)..=LONG).map(Promotion::After)
        }
        _ => {
            let message = format!("{text:?} does not do; write manual, auto, or a duration as 10m");
            item.wrong(report, message);
            None
        }
    }
}

fn order(
    fields: &Fields<'_>,
    kind: Option<JobKind>,
    strategy: UpdateStrategy,
    report: &mut Report,
) -> Option<UpdateOrder> {
    let item = fields.get("order")?;
    let text = item.text(report, "start-first or stop-first")?;
    let known = [UpdateOrder::StartFirst, UpdateOrder::StopFirst];
    let order = known.into_iter().find(|order| order.word() == text);
    match order {
        None => word(&item, report, &text, &known.map(UpdateOrder::word)),
        Some(UpdateOrder::StartFirst) if kind == Some(JobKind::System) => {
            let message = "start-first contradicts per: node, which has one on each node; write \
                           stop-first, or remove it";
            item.wrong(report, message);
        }
        Some(UpdateOrder::StopFirst) if matches!(strategy, UpdateStrategy::BlueGreen { .. }) => {
            let message = "stop-first contradicts blue-green, which starts a full second set \
                           first; remove it";
            item.wrong(report, message);
        }
        Some(_) => {}
    }
    order
}
