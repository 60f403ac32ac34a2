//! What a migration comes to, in words.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::view::adopt::{AdoptTask, AdoptedTask};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Cell, Output, note};
use crate::cli::words::{count, printable};
use crate::limits::JOB_FILE_DOCUMENTS_MAX;
use crate::marathon::{Finding, Job, Weight};

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    /// Nothing yet.
    Nothing,
    /// It is there, as it is to be.
    Unchanged,
    Submitted,
    /// Submitted, and so many containers taken over.
    Adopted(usize),
}

/// Tasks that are taken over.
#[derive(Debug, Clone, Default)]
pub(super) struct Adoption {
    /// To ask for.
    pub(super) wanted: Vec<AdoptTask>,
    /// As the nodes have them.
    pub(super) adopted: Vec<AdoptedTask>,
}

/// A job with what became of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) job: Job,
    pub(super) adoption: Adoption,
    pub(super) became: Became,
}

/// Everything there is to say.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) origin: String,
    pub(super) rows: Vec<Row>,
    pub(super) findings: Vec<Finding>,
}

/// A job, for programs.
#[derive(Debug, Serialize)]
struct JobView {
    id: String,
    kind: &'static str,
    project: String,
    job: String,
    /// `dry-run`, `unchanged`, `submitted` or `adopted`.
    result: &'static str,
    file: String,
    adopted: Vec<AdoptedTask>,
}

impl Became {
    fn word(self) -> &'static str {
        match self {
            Self::Nothing => "dry-run",
            Self::Unchanged => "unchanged",
            Self::Submitted => "submitted",
            Self::Adopted(_) => "adopted",
        }
    }
}

impl Report {
    /// The job files, each with what is told of it as comments: what is printed is a job file.
    pub(super) fn files(&self, output: &Output) -> Result<(), Failure> {
        if !output.for_people() {
            return output.value(&self.data(), String::new);
        }
        let mut text = String::new();
        for finding in self.findings.iter().filter(|finding| !self.has(&finding.id)) {
            text.push_str(&format!("# {}\n", line(finding)));
        }
        for row in &self.rows {
            if !text.is_empty() {
                text.push_str("---\n");
            }
            for finding in self.findings.iter().filter(|finding| finding.id == row.job.id) {
                text.push_str(&format!("# {}\n", line(finding)));
            }
            for task in &row.adoption.adopted {
                let AdoptedTask { task_id, index, node, container_id, .. } = task;
                let container = &container_id[..container_id.len().min(12)];
                let taken = format!("taken over as copy {index}: {task_id} on {node}, {container}");
                text.push_str(&format!("# {}\n", printable(&taken)));
            }
            text.push_str(&row.job.file);
        }
        output.text(&text)?;
        note(&self.counts());
        if self.rows.len() > JOB_FILE_DOCUMENTS_MAX {
            note(&format!(
                "orch run takes at most {JOB_FILE_DOCUMENTS_MAX} jobs from one file: bring them \
                 over group by group, with --only"
            ));
        }
        Ok(())
    }

    /// What was done, and everything that is told.
    pub(super) fn summary(&self, output: &Output) -> Result<(), Failure> {
        if !output.for_people() {
            return output.value(&self.data(), String::new);
        }
        for finding in &self.findings {
            note(&line(finding));
        }
        let rows = self.rows.iter().map(|row| {
            let of = |weight| Cell::number(self.of(&row.job.id, weight));
            let result = match row.became {
                Became::Nothing => "not done".to_owned(),
                Became::Adopted(count) => format!("submitted, {count} taken over"),
                other => other.word().to_owned(),
            };
            vec![
                row.job.id.clone().into(),
                row.job.kind.word().into(),
                row.job.spec.id().to_string().into(),
                result.into(),
                of(Weight::Adapted),
                of(Weight::Lost),
                of(Weight::Essential),
            ]
        });
        let headers = ["ID", "KIND", "JOB", "RESULT", "ADAPTED", "LOST", "ESSENTIAL"];
        output.text(&output.table(&headers, rows))
    }

    /// Why nothing is submitted.
    pub(super) fn refusal(&self) -> Failure {
        let heavy = self.findings.iter().filter(|finding| finding.weight >= Weight::Essential);
        let lines: Vec<String> = heavy.map(|finding| format!("  {}", line(finding))).collect();
        let number = count(lines.len() as u64, "essential thing has", "essential things have");
        Failure::new(Exit::REFUSED, format!("{number} no equal; nothing was changed"))
            .details(lines.join("\n"))
            .hint("--dry-run shows everything; --accept-losses goes on without these")
    }

    fn has(&self, id: &str) -> bool {
        self.rows.iter().any(|row| row.job.id == id)
    }

    fn of(&self, id: &str, weight: Weight) -> usize {
        self.findings.iter().filter(|f| f.id == id && f.weight == weight).count()
    }

    fn counts(&self) -> String {
        let all = |weight| self.findings.iter().filter(|f| f.weight == weight).count();
        let jobs = count(self.rows.len() as u64, "job", "jobs");
        let weights = [Weight::Adapted, Weight::Lost, Weight::Essential, Weight::Blocked];
        let found: Vec<String> =
            weights.iter().map(|weight| format!("{} {}", all(*weight), weight.word())).collect();
        format!("{}: {jobs}; findings: {}", self.origin, found.join(", "))
    }

    fn data(&self) -> Value {
        let jobs: Vec<JobView> = self
            .rows
            .iter()
            .map(|row| JobView {
                id: row.job.id.clone(),
                kind: row.job.kind.word(),
                project: row.job.spec.project.to_string(),
                job: row.job.spec.name.to_string(),
                result: row.became.word(),
                file: row.job.file.clone(),
                adopted: row.adoption.adopted.clone(),
            })
            .collect();
        json!({ "origin": self.origin, "jobs": jobs, "findings": self.findings })
    }
}

/// A finding in one line.
fn line(finding: &Finding) -> String {
    let Finding { id, field, said, why, remedy, weight } = finding;
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    printable(&format!("{} {id} {field}{said}: {why}; {remedy}", weight.word()))
}
