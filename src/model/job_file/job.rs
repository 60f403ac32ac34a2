//! One job: a document of the file.

use std::collections::BTreeMap;

use super::keys;
use super::reader::{Elsewhere, Fields, Item, Report, word};
use super::task::{self, Texts, text_map};
use super::tree::{Node, Value};
use crate::limits::{PLACEMENT_RULES_MAX, REPLICAS_MAX, TASKS_MAX};
use crate::model::constraint::{Constraint, ConstraintError, Subject};
use crate::model::job::{
    JobKind, JobSpec, Placement, Preference, Protocol, RestartPolicy, TaskSpec, UpdatePolicy,
};
use crate::model::name::{JobName, PortName, ProjectName, TaskName};
use crate::model::time::Millis;

const ATTEMPTS_MOST: u32 = 10_000;
const LONG: Millis = Millis::from_secs(365 * 24 * 60 * 60);
const DAY: Millis = Millis::from_secs(24 * 60 * 60);

/// The job, as far as it could be read. What is wrong with it is in the report, and then the job
/// is not to be used.
pub(super) fn read(
    document: &Node,
    default_project: &ProjectName,
    report: &mut Report,
) -> Option<JobSpec> {
    let item = Item { node: document, path: String::new() };
    let fields = item.fields(report, "a map that begins with job: NAME")?;
    let tasks = fields.get("tasks");
    check_keys(&fields, tasks.is_some(), report);

    let name = fields.get("job").map(|item| item.parsed::<JobName>(report, "a name"));
    if name.is_none() {
        fields.missing(report, "job", "every job needs a name, as job: web");
    }
    let name = name.flatten();
    let project = fields
        .get("project")
        .map(|item| item.parsed::<ProjectName>(report, "a name"))
        .unwrap_or_else(|| Some(default_project.clone()));
    let kind = kind(&fields, report);
    let labels = fields.get("labels").map(|item| text_map(&item, Texts::Labels, report));
    let placement = fields.get("placement").map(|item| placement(&item, kind, report));
    let restart = fields.get("restart").map(|item| restart(&item, kind, report));
    let update = fields.get("update").map(|item| update(&item, kind, report));
    let priority = fields.get("priority").and_then(|item| item.number_u32(report, 1..=100));
    let tasks = match tasks {
        Some(item) => named_tasks(&item, report),
        None => {
            // Without a good name of its own the rest is still worth checking.
            let task_name =
                name.as_ref().map_or("task", JobName::as_str).parse::<TaskName>().ok()?;
            let task = task::read(task_name, &fields, report);
            let tasks: Vec<TaskSpec> = task.into_iter().collect();
            check_ports(&tasks, &item, report);
            tasks
        }
    };
    Some(JobSpec {
        project: project?,
        name: name?,
        kind: kind?,
        priority: priority
            .and_then(|priority| u8::try_from(priority).ok())
            .unwrap_or(JobSpec::priority_default()),
        labels: labels.unwrap_or_default(),
        tasks,
        placement: placement.unwrap_or_default(),
        restart: restart.unwrap_or_default(),
        update: update.unwrap_or_default(),
    })
}

fn check_keys(fields: &Fields<'_>, several: bool, report: &mut Report) {
    if several {
        let remedy = "belongs to a task; move it to the task it is meant for under tasks";
        fields.check_keys(report, keys::JOB, &[Elsewhere { keys: keys::TASK, remedy }]);
    } else {
        let all: Vec<keys::Key> = keys::JOB.iter().chain(keys::TASK).copied().collect();
        fields.check_keys(report, &all, &[]);
    }
}

fn kind(fields: &Fields<'_>, report: &mut Report) -> Option<JobKind> {
    let replicas = fields.get("replicas");
    let per = fields.get("per");
    let timeout = fields.get("timeout");
    if let (Some(_), Some(per)) = (&replicas, &per) {
        per.wrong(
            report,
            "contradicts replicas; keep per for one on every node, replicas for a number",
        );
    }
    if let Some(timeout) = &timeout
        && (replicas.is_some() || per.is_some())
    {
        let message = "is for batch jobs, and with replicas or per this runs on; remove it";
        timeout.wrong(report, message);
    }
    if let Some(item) = per {
        let text = item.text(report, "node")?;
        if text != "node" {
            word(&item, report, &text, &["node"]);
            return None;
        }
        return Some(JobKind::System);
    }
    if let Some(item) = replicas {
        return Some(JobKind::Service { replicas: item.number_u32(report, 0..=REPLICAS_MAX)? });
    }
    match timeout {
        Some(item) => {
            let timeout = item.duration(report, Millis(1)..=LONG)?;
            Some(JobKind::Batch { timeout: Some(timeout) })
        }
        None => Some(JobKind::Batch { timeout: None }),
    }
}

fn named_tasks(item: &Item<'_>, report: &mut Report) -> Vec<TaskSpec> {
    let wanted = "a map from name to task, as { app: { image: nginx:1.27 } }";
    let Some(fields) = item.fields(report, wanted) else { return Vec::new() };
    if fields.len() == 0 {
        item.wrong(report, "is empty; a job has at least one task");
    }
    if fields.len() > TASKS_MAX {
        item.wrong(report, format!("{} tasks are too many; the most is {TASKS_MAX}", fields.len()));
        return Vec::new();
    }
    let mut tasks = Vec::new();
    for (key, at, item) in fields.each() {
        let name = key.parse::<TaskName>().or_else(|error| {
            report.add(at, &item.path, error.to_string());
            // What it holds is still worth checking.
            "task".parse()
        });
        let Ok(name) = name else { continue };
        tasks.extend(task::read_named(name, &item, report));
    }
    check_ports(&tasks, item, report);
    tasks
}

/// Names and fixed host ports are the whole job's: its tasks share a node.
fn check_ports(tasks: &[TaskSpec], item: &Item<'_>, report: &mut Report) {
    let mut names: BTreeMap<&PortName, String> = BTreeMap::new();
    let mut hosts: BTreeMap<(u16, Protocol), String> = BTreeMap::new();
    for task in tasks {
        let in_tasks = item.path == "tasks";
        for port in &task.ports {
            let path = if in_tasks {
                format!("tasks.{}.ports.{}", task.name, port.name)
            } else {
                format!("ports.{}", port.name)
            };
            if let Some(other) = names.insert(&port.name, path.clone()) {
                let message = format!("the name is taken by {other}; name them differently");
                report.add(place_of(item, &path), &path, message);
            }
            if let Some(host) = port.host
                && let Some(other) = hosts.insert((host, port.protocol), path.clone())
            {
                let message = format!(
                    "{host}/{} on the host is taken by {other}; write another, or leave it to be chosen",
                    port.protocol
                );
                report.add(place_of(item, &path), &path, message);
            }
        }
    }
}

/// Where the entry of a port stands; in the list form, where the list does.
fn place_of(item: &Item<'_>, path: &str) -> super::tree::Place {
    let mut node = item.node;
    let mut at = item.at();
    let rest = path.strip_prefix("tasks.").unwrap_or(path);
    for part in rest.split('.') {
        let Value::Map(entries) = &node.value else { break };
        let Some(entry) = entries.iter().find(|entry| entry.key == part) else { break };
        node = &entry.value;
        at = node.at;
    }
    at
}

fn placement(item: &Item<'_>, kind: Option<JobKind>, report: &mut Report) -> Placement {
    let wanted = "a map of require, prefer, spread, max_per_node";
    let Some(fields) = item.fields(report, wanted) else { return Placement::default() };
    fields.check_keys(report, keys::PLACEMENT, &[]);
    if kind == Some(JobKind::System) {
        for key in ["spread", "max_per_node"] {
            if let Some(item) = fields.get(key) {
                item.wrong(
                    report,
                    "has no meaning with per: node, which puts one on every node; remove it",
                );
            }
        }
    }
    let rule = "a rule, as \"node.class == web\"";
    let mut list = |key: &str, wanted: &str| {
        let item = fields.get(key);
        let items = item.and_then(|item| item.list_or_one(report, PLACEMENT_RULES_MAX, wanted));
        items.unwrap_or_default()
    };
    let require = list("require", "a list of rules, as [ \"node.class == web\" ]");
    let prefer = list("prefer", "a list of { rule: weight }, as [ { \"attr.disk == ssd\": 50 } ]");
    let spread = list("spread", "a list, as [ attr.zone ]");
    Placement {
        require: require
            .iter()
            .filter_map(|item| {
                let text = item.text(report, rule)?;
                constraint(&text).map_err(|message| item.wrong(report, message)).ok()
            })
            .collect(),
        prefer: prefer.iter().filter_map(|item| preference(item, report)).collect(),
        spread: spread
            .iter()
            .filter_map(|item| item.parsed::<Subject>(report, "what to spread over, as attr.zone"))
            .collect(),
        max_per_node: fields
            .get("max_per_node")
            .and_then(|item| item.number_u32(report, 1..=REPLICAS_MAX)),
    }
}

/// The rule, or what is wrong with it, the rule itself named.
fn constraint(text: &str) -> Result<Constraint, String> {
    text.parse().map_err(|error: ConstraintError| match error {
        ConstraintError::Subject(_) => format!("in {text:?}, {error}"),
        _ => error.to_string(),
    })
}

fn preference(item: &Item<'_>, report: &mut Report) -> Option<Preference> {
    let wanted = "a rule with its weight, as { \"attr.disk == ssd\": 50 }";
    let fields = item.fields(report, wanted)?;
    let mut entries = fields.each();
    let (Some((key, at, weight)), None) = (entries.next(), entries.next()) else {
        item.wrong(report, format!("has {} rules; write {wanted}", fields.len()));
        return None;
    };
    let rule = constraint(key);
    if let Err(message) = &rule {
        report.add(at, &item.path, message);
    }
    let text = weight.text(report, "a weight from -100 to 100")?;
    let number = text.parse::<i8>().ok().filter(|number| (-100..=100).contains(number));
    if number.is_none() {
        weight
            .wrong(report, format!("{text:?} does not do; write a whole number from -100 to 100"));
    }
    Some(Preference { rule: rule.ok()?, weight: number? })
}

fn restart(item: &Item<'_>, kind: Option<JobKind>, report: &mut Report) -> RestartPolicy {
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

fn update(item: &Item<'_>, kind: Option<JobKind>, report: &mut Report) -> UpdatePolicy {
    let mut policy = UpdatePolicy::default();
    let wanted = "a map of max_parallel, min_healthy";
    let Some(fields) = item.fields(report, wanted) else { return policy };
    fields.check_keys(report, keys::UPDATE, &[]);
    if matches!(kind, Some(JobKind::Batch { .. })) {
        item.wrong(
            report,
            "is for jobs that run on, and this is a batch job; remove it, or add replicas",
        );
    }
    if let Some(parallel) =
        fields.get("max_parallel").and_then(|item| item.number_u32(report, 1..=REPLICAS_MAX))
    {
        policy.max_parallel = parallel;
    }
    if let Some(healthy) =
        fields.get("min_healthy").and_then(|item| item.duration(report, Millis(0)..=DAY))
    {
        policy.min_healthy = healthy;
    }
    policy
}
