//! Reads job files: YAML, JSON or TOML into checked jobs, or all that is wrong with them.
//!
//! A typed deserializer would stop at the first mistake, so a file first becomes a tree in which
//! each value knows its place (`yaml`, `toml`, `tree`); then `job` and `task` pick it apart with
//! `reader`, which notes problems and goes on. Never reads a file or a variable of the
//! environment. Start at [`read`]; what may be written is in `keys`.

mod format;
mod health;
mod job;
mod keys;
mod policy;
mod ports;
mod reader;
mod task;
mod toml;
mod tree;
mod volumes;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use format::Format;
pub use keys::{KNOWN as KNOWN_KEYS, Key};

use self::reader::Report;
use self::tree::{Node, Place, Value};
use super::job::JobSpec;
use super::name::ProjectName;
use super::problem::Problem;
use crate::limits::{JOB_FILE_BYTES_MAX, JOB_FILE_DOCUMENTS_MAX};

/// The jobs of a file, in its order; at least one.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines.
pub fn read(text: &str, format: Format) -> Result<Vec<JobSpec>, Vec<Problem>> {
    read_in(text, format, &ProjectName::default())
}

/// As [`read`]; jobs that name no project are `project`'s.
///
/// # Errors
/// As [`read`].
pub fn read_in(
    text: &str,
    format: Format,
    project: &ProjectName,
) -> Result<Vec<JobSpec>, Vec<Problem>> {
    let mut report = Report::default();
    let jobs = jobs(text, format, project, &mut report);
    match report.finish() {
        Some(problems) => Err(problems),
        None => Ok(jobs),
    }
}

fn jobs(text: &str, format: Format, project: &ProjectName, report: &mut Report) -> Vec<JobSpec> {
    let start = Place { line: 1, column: 1 };
    if text.len() > JOB_FILE_BYTES_MAX {
        let size = text.len();
        let message = format!("{size} bytes are too many; the most is {JOB_FILE_BYTES_MAX}");
        report.add(start, "", message);
        return Vec::new();
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = match format {
        Format::Yaml => yaml::documents(text, report),
        Format::Json => json(text, report),
        Format::Toml => toml::document(text, report).into_iter().collect(),
    };
    let mut nodes: Vec<&Node> = Vec::new();
    for document in &documents {
        match &document.value {
            Value::List(items) => nodes.extend(items),
            _ => nodes.push(document),
        }
    }
    if let Some(node) = nodes.get(JOB_FILE_DOCUMENTS_MAX) {
        let message = format!("more than {JOB_FILE_DOCUMENTS_MAX} jobs; split the file");
        report.add(node.at, "", message);
        return Vec::new();
    }
    if nodes.is_empty() && report.is_empty() {
        report.add(start, "", "the file holds no job; write at least job: NAME and image: IMAGE");
    }
    let mut first_places = BTreeMap::new();
    let mut jobs = Vec::new();
    for node in nodes {
        let Some(job) = job::read(node, project, report) else { continue };
        if let Some(line) = first_places.insert(job.id(), node.at.line) {
            let message = format!("{} is in line {line} already; name them differently", job.id());
            report.add(node.at, "job", message);
        }
        jobs.push(job);
    }
    jobs
}

/// JSON's own syntax is checked by a JSON reader; the places come from reading it as YAML, of
/// which JSON is a part.
fn json(text: &str, report: &mut Report) -> Vec<Node> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = Place { line: count(error.line()), column: count(error.column()) };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        report.add(at, "", format!("not valid JSON: {message}"));
        return Vec::new();
    }
    yaml::documents(text, report)
}
