//! Job files from the disk, checked before anything is sent.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::words::{count, printable};
use crate::api::view::problem::FieldProblem;
use crate::limits::JOB_FILE_BYTES_MAX;
use crate::model::job::JobSpec;
use crate::model::job_file::{self, Format};
use crate::model::name::ProjectName;

/// A job file that has no problem.
#[derive(Debug)]
pub(super) struct JobFile {
    /// For messages.
    pub(super) name: String,
    pub(super) text: String,
    pub(super) format: Format,
    pub(super) jobs: Vec<JobSpec>,
}

/// All files, or what is wrong with any of them.
pub(super) fn read_all(paths: &[PathBuf], project: &ProjectName) -> Result<Vec<JobFile>, Failure> {
    let mut files = Vec::new();
    let mut failures = Vec::new();
    for path in paths {
        match read(path, project) {
            Ok(file) => files.push(file),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.len() {
        0 => return named_once(&files).map(|()| files),
        1 => return Err(failures.remove(0)),
        _ => {}
    }
    let details: Vec<String> =
        failures.iter().map(|failure| format!("{}\n{}", failure.what, failure.details)).collect();
    let what = format!(
        "{} have problems; nothing was changed",
        count(failures.len() as u64, "file", "files")
    );
    Err(Failure::failed(what).details(details.join("\n")))
}

/// The second of two files would undo what the first did.
fn named_once(files: &[JobFile]) -> Result<(), Failure> {
    let mut first = BTreeMap::new();
    for file in files {
        for job in &file.jobs {
            if let Some(other) = first.insert(job.id(), &file.name) {
                let what = format!("job {} is in {other} and in {}", job.id(), file.name);
                return Err(Failure::failed(format!("{what}; nothing was changed")));
            }
        }
    }
    Ok(())
}

/// `-` is stdin, whose format is found out from its text.
fn read(path: &Path, project: &ProjectName) -> Result<JobFile, Failure> {
    let stdin = path == Path::new("-");
    let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
    let bytes = bytes(path, stdin).map_err(|error| {
        let failure = Failure::failed(format!("can't read {name}: {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.hint("the path is taken from where you are"),
            _ => failure,
        }
    })?;
    if bytes.len() > JOB_FILE_BYTES_MAX {
        return Err(Failure::failed(format!(
            "{name} has more than the {JOB_FILE_BYTES_MAX} bytes that a job file may have"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("{name} is no text: byte {at} is not UTF-8"))
    })?;
    let format = if stdin { Format::of_text(&text) } else { Format::of_file_name(&name) };
    match job_file::read_in(&text, format, project) {
        Ok(jobs) => Ok(JobFile { name, text, format, jobs }),
        Err(problems) => {
            let problems: Vec<FieldProblem> = problems.into_iter().map(Into::into).collect();
            let number = count(problems.len() as u64, "problem", "problems");
            Err(Failure::new(Exit::FAILED, format!("{name} has {number}; nothing was changed"))
                .details(problem_lines(&name, Some(&text), &problems)))
        }
    }
}

fn bytes(path: &Path, stdin: bool) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    let most = JOB_FILE_BYTES_MAX as u64 + 1;
    if stdin {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Each problem as a compiler tells it: the place, the message, the line with a mark.
pub(super) fn problem_lines(name: &str, text: Option<&str>, problems: &[FieldProblem]) -> String {
    let lines: Vec<&str> = text.map(|text| text.lines().collect()).unwrap_or_default();
    let mut shown = String::new();
    for problem in problems {
        let FieldProblem { line, column, field, message } = problem;
        let mut place = String::new();
        if !name.is_empty() {
            place.push_str(&format!("{name}:"));
        }
        if *line > 0 {
            place.push_str(&format!("{line}:{column}: "));
        } else if !place.is_empty() {
            place.push(' ');
        }
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        shown.push_str(&printable(&format!("{place}{field}{message}")));
        shown.push('\n');
        let source = (*line as usize).checked_sub(1).and_then(|i| lines.get(i));
        if let Some(source) = source {
            shown.push_str(&excerpt(*line, *column, source));
        }
    }
    shown
}

/// The line, cut to what a screen can show, with a mark under the column.
fn excerpt(line: u32, column: u32, source: &str) -> String {
    const BEFORE: usize = 60;
    const SHOWN: usize = 100;
    let column = (column as usize).saturating_sub(1);
    let skip = column.saturating_sub(BEFORE);
    let source: String = source.chars().skip(skip).take(SHOWN).collect();
    let source = printable(&source.replace('\t', " "));
    let number = format!("{line:>5} | ");
    let indent = " ".repeat(number.len() - 2);
    format!("{number}{source}\n{indent}| {}^\n", " ".repeat(column - skip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn problems_show_their_line() {
        let (_dir, path) = write("job: web\nimag: nginx\nimage: b\nreplicas: x\n", "web.yaml");
        let failure = read_all(&[path], &ProjectName::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::FAILED);
        assert!(failure.what.ends_with("has 2 problems; nothing was changed"), "{failure}");
        let lines: Vec<&str> = failure.details.lines().collect();
        assert!(lines[0].contains("web.yaml:2:1: imag: unknown key"), "{lines:?}");
        assert_eq!(lines[1..3], ["    2 | imag: nginx", "      | ^"]);
        assert_eq!(lines[4..6], ["    4 | replicas: x", "      |           ^"]);
    }

    #[test]
    fn all_files_are_checked_before_any_is_sent() {
        let (_one, bad) = write("job: X\nimage: a\n", "bad.yaml");
        let (_two, worse) = write("{", "worse.json");
        let (_three, good) = write("job: a\nimage: b\n", "good.yaml");
        let failure = read_all(&[bad, good.clone(), worse], &ProjectName::default()).unwrap_err();
        assert!(failure.what.starts_with("2 files"), "{failure}");
        assert!(
            failure.details.contains("bad.yaml:1:6") && failure.details.contains("worse.json:1:1")
        );
        let files = read_all(&[good], &"shop".parse().unwrap()).unwrap();
        assert_eq!(files[0].jobs[0].id().to_string(), "shop/a");
        let (_four, again) = write("job: a\nimage: c\n", "again.yaml");
        let (_five, other) = write("job: a\nimage: b\n", "other.yaml");
        let twice = read_all(&[again, other], &ProjectName::default()).unwrap_err();
        assert!(twice.what.contains("job a is in"), "{twice}");
        let missing = read_all(&["/nowhere/at-all.yaml".into()], &ProjectName::default());
        assert_eq!(missing.unwrap_err().exit, Exit::FAILED);
    }

    #[test]
    fn long_lines_are_cut_around_the_mistake() {
        let shown = excerpt(1, 501, &"x".repeat(1000));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].len() < 120 && lines[1].ends_with('^'), "{shown}");
    }
}
