//! Definitions as job files that orch's own reader has read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::finding::{Finding, Notes, Weight};
use super::group::{Definition, Definitions, Kind};
use super::job::Draft;
use super::names::job_name;
use super::{app, pod};
use crate::model::job::JobSpec;
use crate::model::job_file::{self, Format};
use crate::model::name::{JobName, ProjectName};
use crate::model::problem::Problem;

/// Times that a job file is read anew without what was wrong with it.
const REPAIRS: usize = 20;

/// What is asked of a translation.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The project of all jobs.
    pub project: ProjectName,
    /// Only this app or pod, or what is below this group.
    pub only: Option<String>,
    /// Names of jobs that are not to follow from the ids.
    pub names: BTreeMap<String, JobName>,
}

/// A job that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it was made from.
    pub id: String,
    /// App or pod.
    pub kind: Kind,
    /// As `orch run` reads it.
    pub file: String,
    /// As the reader has read it.
    pub spec: JobSpec,
    /// For each port of the job, in its order, its place in Marathon's.
    pub port_order: Vec<usize>,
}

/// Definitions as jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translation {
    /// Sorted by id.
    pub jobs: Vec<Job>,
    /// Sorted by id; within one in the order found.
    pub findings: Vec<Finding>,
}

impl Translation {
    /// The heaviest finding.
    pub fn weight(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).max()
    }
}

/// Makes a job of each definition that is asked for.
pub fn translate(definitions: &Definitions, options: &Options) -> Translation {
    let asked = |id: &str| {
        let Some(only) = &options.only else { return true };
        let only = only.trim_end_matches('/');
        let rest = id.strip_prefix(only);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let wanted: Vec<&Definition> =
        definitions.list.iter().filter(|definition| asked(&definition.id)).collect();
    let mut result = Translation::default();
    let of_groups = definitions.findings.iter().filter(|finding| asked(&finding.id));
    result.findings.extend(of_groups.cloned());
    let names = names(&wanted, options, &mut result.findings);
    let mut roots = BTreeSet::new();
    for definition in wanted {
        let Some(name) = names.get(definition.id.as_str()) else { continue };
        let mut notes = Notes::of(&definition.id);
        let json = definition.json.clone();
        let draft = match definition.kind {
            Kind::App => app::draft(&definition.id, json, name.as_str(), &mut notes),
            Kind::Pod => pod::draft(&definition.id, json, name.as_str(), &mut notes),
        };
        let blocked = notes.findings.iter().any(|finding| finding.weight == Weight::Blocked);
        if !blocked && let Some(job) = finish(definition, &draft, name, options, &mut notes) {
            roots.extend(draft.roots);
            result.jobs.push(job);
        }
        result.findings.extend(notes.findings);
    }
    if !result.jobs.is_empty() {
        result.findings.extend(of_all(&roots));
    }
    // By id, in the order found.
    result.findings.sort_by(|a, b| a.id.cmp(&b.id));
    result
}

/// The name of each job; two that come to the same are told, and neither is made.
fn names<'d>(
    wanted: &[&'d Definition],
    options: &Options,
    findings: &mut Vec<Finding>,
) -> BTreeMap<&'d str, JobName> {
    let mut by_name: BTreeMap<JobName, Vec<&'d str>> = BTreeMap::new();
    for definition in wanted {
        let id = definition.id.as_str();
        let mut notes = Notes::of(id);
        let name = match (options.names.get(id), job_name(id)) {
            (Some(name), _) => Some(name.clone()),
            (None, Some((name, changed))) => {
                if changed {
                    let why = format!("the job is called {name}: names have a-z, 0-9 and -");
                    notes.adapted("id", id, &why, "choose another with --rename ID=NAME");
                }
                Some(name)
            }
            (None, None) => {
                let why = "no name can be made of it";
                notes.blocked("id", id, why, "choose one with --rename ID=NAME");
                None
            }
        };
        findings.extend(notes.findings);
        if let Some(name) = name {
            by_name.entry(name).or_default().push(id);
        }
    }
    let mut names = BTreeMap::new();
    for (name, ids) in by_name {
        if let [id] = ids.as_slice() {
            names.insert(*id, name);
            continue;
        }
        for id in &ids {
            let others: Vec<&str> = ids.iter().filter(|other| *other != id).copied().collect();
            let why = format!("it would be the job {name}, and so would {}", others.join(", "));
            let mut notes = Notes::of(id);
            notes.blocked("id", *id, &why, "choose another name with --rename ID=NAME");
            findings.extend(notes.findings);
        }
    }
    names
}

/// What is true of every job, said once.
fn of_all(roots: &BTreeSet<String>) -> Vec<Finding> {
    let mut notes = Notes::of("*");
    notes.adapted(
        "cpus",
        "",
        "in Mesos cpus was a share, and a task could use idle cores; in orch it is also the most \
         that a task gets",
        "raise resources.cpu of jobs that need more at times",
    );
    notes.adapted(
        "upgradeStrategy",
        "",
        "a deployment that fails goes back to the last good version by itself",
        "write update: { auto_revert: false } where it must not",
    );
    if !roots.is_empty() {
        let flags: Vec<String> = roots.iter().map(|root| format!("--volume-root {root}")).collect();
        notes.adapted(
            "container.volumes",
            "",
            "an agent mounts only what is under a path that it was started with",
            &format!("start the agents with {}, or with directories above", flags.join(" ")),
        );
    }
    notes.findings
}

/// The job file as text, read by orch's reader. What the reader does not take is left out and
/// told; None if what is left is no job.
fn finish(
    definition: &Definition,
    draft: &Draft,
    name: &JobName,
    options: &Options,
    notes: &mut Notes,
) -> Option<Job> {
    let mut file = draft.file(name.as_str(), options.project.as_str());
    let mut ports = draft.port_order.clone();
    for _ in 0..REPAIRS {
        let yaml = match serde_saphyr::to_string(&file) {
            Ok(yaml) => yaml,
            Err(error) => {
                notes.blocked("", "", &format!("no text can be made of it: {error}"), BY_HAND);
                return None;
            }
        };
        match job_file::read_in(&yaml, Format::Yaml, &options.project) {
            Ok(mut specs) if specs.len() == 1 => {
                let spec = specs.remove(0);
                ports.truncate(spec.ports().count());
                let kind = definition.kind;
                let said = format!("# Marathon {} {}\n{yaml}", kind.word(), definition.id);
                let file = if definition.id.chars().any(char::is_control) { yaml } else { said };
                let id = definition.id.clone();
                return Some(Job { id, kind, file, spec, port_order: ports });
            }
            Ok(_) => break,
            Err(problems) => {
                if !without(&mut file, &problems, notes) {
                    return None;
                }
            }
        }
    }
    notes.blocked("", "", "no job file can be made of it", BY_HAND);
    None
}

const BY_HAND: &str = "write the job by hand";

/// Takes out what the reader complains of; false if it can't do without.
fn without(file: &mut Map<String, Value>, problems: &[Problem], notes: &mut Notes) -> bool {
    const NEEDED: [&str; 5] = ["", "job", "project", "replicas", "image"];
    let mut removed = false;
    for problem in problems {
        let field = problem.field.as_str();
        let key = field.rsplit('.').next().unwrap_or(field);
        if NEEDED.contains(&key) {
            notes.blocked(field, "", &problem.message, BY_HAND);
            return false;
        }
        // A second problem with the same part finds it gone.
        if remove(file, field) {
            removed = true;
            let remedy = "set it by hand in the job";
            notes.essential(field, "", &problem.message, remedy);
        }
    }
    if !removed && let Some(problem) = problems.first() {
        notes.blocked(&problem.field, "", &problem.message, BY_HAND);
    }
    removed
}

/// Removes what a reader's path leads to, keys with dots in them too.
fn remove(map: &mut Map<String, Value>, path: &str) -> bool {
    let found = map.keys().filter(|key| {
        let rest = path.strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    let Some(key) = found.max_by_key(|key| key.len()).cloned() else { return false };
    let rest = &path[key.len()..];
    let deeper = match (map.get_mut(&key), rest.strip_prefix('.')) {
        (Some(Value::Object(inner)), Some(rest)) => remove(inner, rest),
        (Some(Value::Array(items)), None) if rest.starts_with('[') => remove_item(items, rest),
        _ => false,
    };
    deeper || map.shift_remove(&key).is_some()
}

fn remove_item(items: &mut Vec<Value>, path: &str) -> bool {
    let Some((number, rest)) = path[1..].split_once(']') else { return false };
    let Some(index) = number.parse::<usize>().ok().filter(|index| *index < items.len()) else {
        return false;
    };
    if let (Some(Value::Object(inner)), Some(rest)) = (items.get_mut(index), rest.strip_prefix('.'))
        && remove(inner, rest)
    {
        return true;
    }
    items.remove(index);
    true
}
