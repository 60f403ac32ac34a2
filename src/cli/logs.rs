//! `orch logs`: what a job's copies print.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::lines::Lines;
use super::output::note;
use super::status;
use super::target::{CopyRef, ProjectFlag};
use super::words::printable;
use crate::api::view::allocation::LogLine;
use crate::api::view::query::JobLogs;
use crate::api::view::time::Time;
use crate::limits::LOG_TAIL_LINES_MAX;
use crate::model::name::{JobId, TaskName};
use crate::model::pattern::Pattern;
use crate::model::time::{Millis, Timestamp};

/// Flags of `orch logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch logs web                    all that its copies printed, in the order of time
  orch logs web.2 -f --tail 20     one copy, from its last 20 lines on
  orch logs web --since 10m        the last ten minutes
  orch logs web -f --grep 'err|warn' -i
                                   lines with a match alone, then those to come
With several copies each line begins with the copy that printed it. Followed, it goes on over
restarts, moves to other nodes, and new versions.")]
pub(super) struct LogsArgs {
    /// The job, or one copy of it as web.2
    #[arg(value_name = "JOB[.N]")]
    target: CopyRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// Go on as lines are written
    #[arg(long, short)]
    follow: bool,
    /// Begin with so many lines from the end of each copy
    #[arg(long, short = 'n', value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=i64::from(LOG_TAIL_LINES_MAX)))]
    tail: Option<u32>,
    /// Only lines from then on: 10m ago, or 2026-11-20T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only of this task
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
    /// Only lines in which this regular expression is found; --tail counts these alone
    #[arg(long, value_name = "REGEX")]
    grep: Option<Pattern>,
    /// For --grep, capital and small letters are the same
    #[arg(long, short, requires = "grep")]
    ignore_case: bool,
    /// Put the time before each line
    #[arg(long, short)]
    timestamps: bool,
}

/// A point in time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Ago(Millis),
    At(Time),
}

impl FromStr for Since {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = text.parse() {
            return Ok(Self::Ago(ago));
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("{text:?} is no time; write how long ago, as 10m, or 2026-11-20T08:00:00Z")
        })
    }
}

impl Since {
    fn text(self, now: Timestamp) -> String {
        match self {
            Self::Ago(ago) => Time(now - ago).to_string(),
            Self::At(at) => at.to_string(),
        }
    }
}

pub(super) async fn run(args: LogsArgs, context: &Context) -> Outcome {
    let id = args.target.job.id(&args.project)?;
    let mut prefix = Prefix::of(&id, &args, context).await?;
    let mut query = JobLogs {
        project: Some(id.project.to_string()),
        index: args.target.index,
        follow: args.follow,
        tail: args.tail,
        since: args.since.map(|since| since.text(context.output.now)),
        task: args.task.as_ref().map(ToString::to_string),
        grep: args.grep.as_ref().map(ToString::to_string),
        ignore_case: args.ignore_case,
    };
    let mut seen = Seen::default();
    loop {
        let call = Call::get(["jobs", id.name.as_str(), "logs"])
            .query(&query)
            .streaming("application/x-ndjson")
            .hint(format!("orch ps {id} lists its copies"));
        let mut lines = Lines::of(context.client.send(call).await?);
        match print(&mut lines, &mut prefix, &mut seen, context).await {
            Err(failure) if failure.passing && args.follow => {
                note("the connection broke; going on");
                // From where it was, at whichever server answers.
                seen.broke();
                if let Some(since) = seen.since() {
                    query.since = Some(since);
                    query.tail = None;
                }
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn print(
    lines: &mut Lines,
    prefix: &mut Prefix,
    seen: &mut Seen,
    context: &Context,
) -> Outcome {
    let mut exit = Exit::DONE;
    while let Some(text) = lines.next().await? {
        if text.is_empty() {
            continue;
        }
        let line: LogLine = serde_json::from_str(&text)
            .map_err(|error| Failure::failed(format!("the server sent no line: {error}")))?;
        prefix.saw(&line);
        if let Some(error) = &line.error {
            note(&format!("error: {error}"));
            exit = Exit::FAILED;
        } else if let Some(text) = &line.note {
            note(&format!("{}{}", prefix.copy(&line), printable(text)));
        } else if seen.is_new(&line) {
            context.output.item(&line, || prefix.apply(&line))?;
        }
    }
    Ok(exit)
}

type Stream = (String, String, String);

/// The last line of each stream, so that nothing is shown twice after a break.
#[derive(Debug, Default)]
struct Seen {
    last: BTreeMap<Stream, String>,
    /// As it was at the last break: what is not later was shown before.
    before: BTreeMap<Stream, String>,
}

impl Seen {
    fn broke(&mut self) {
        self.before.clone_from(&self.last);
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        let key = (line.id.clone(), line.task.clone(), line.stream.clone());
        // RFC 3339 with nanoseconds in UTC sorts as text.
        if self.before.get(&key).is_some_and(|before| line.at <= *before) {
            return false;
        }
        self.last.insert(key, line.at.clone());
        true
    }

    fn since(&self) -> Option<String> {
        self.last.values().filter(|at| !at.is_empty()).min().cloned()
    }
}

/// What stands before a line.
struct Prefix {
    job: JobId,
    copy: bool,
    task: bool,
    time: bool,
    /// One copy is asked for: no other comes.
    one: bool,
    /// The first copy that printed something.
    first: Option<u32>,
}

impl Prefix {
    async fn of(id: &JobId, args: &LogsArgs, context: &Context) -> Result<Self, Failure> {
        let status = status::fetch(id, context).await?;
        let tasks = status.spec.get("tasks").and_then(|tasks| tasks.as_object());
        let several = status.row.desired > 1
            || status.row.r#type == "system"
            || status.allocations.iter().any(|copy| copy.index > 0);
        Ok(Self {
            job: id.clone(),
            copy: args.target.index.is_none() && several,
            task: args.task.is_none() && tasks.is_some_and(|tasks| tasks.len() > 1),
            time: args.timestamps,
            one: args.target.index.is_some(),
            first: None,
        })
    }

    /// A followed job may be given more copies.
    fn saw(&mut self, line: &LogLine) {
        let first = *self.first.get_or_insert(line.index);
        self.copy |= !self.one && first != line.index;
    }

    /// The copy that a note is about.
    fn copy(&self, line: &LogLine) -> String {
        format!("{}.{}: ", self.job, line.index)
    }

    fn apply(&self, line: &LogLine) -> String {
        let mut text = String::new();
        if self.time {
            text.push_str(&format!("{} ", line.at));
        }
        match (self.copy, self.task) {
            (true, true) => {
                text.push_str(&format!("{}.{}/{} | ", self.job, line.index, line.task));
            }
            (true, false) => text.push_str(&format!("{}.{} | ", self.job, line.index)),
            (false, true) => text.push_str(&format!("{} | ", line.task)),
            (false, false) => {}
        }
        text.push_str(&line.line);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = "2026-11-20T09:00:00Z".parse::<Time>().unwrap().0;
        let text = |text: &str| text.parse::<Since>().map(|since| since.text(now));
        assert_eq!(text("10m").unwrap(), "2026-11-20T08:50:00.000Z");
        assert_eq!(text("2026-11-20T08:00:00Z").unwrap(), "2026-11-20T08:00:00.000Z");
        assert!(text("yesterday").unwrap_err().contains("10m"));
    }

    #[test]
    fn nothing_is_shown_twice_after_a_break() {
        let line =
            |at: &str, id: &str| LogLine { at: at.into(), id: id.into(), ..LogLine::default() };
        let mut seen = Seen::default();
        // Two lines of the same moment are two lines.
        assert!(seen.is_new(&line("2", "a1")) && seen.is_new(&line("2", "a1")));
        assert!(seen.is_new(&line("5", "a2")) && seen.is_new(&line("3", "a1")));
        assert_eq!(seen.since().as_deref(), Some("3"));
        seen.broke();
        assert!(!seen.is_new(&line("3", "a1")) && !seen.is_new(&line("4", "a2")));
        assert!(!seen.is_new(&line("5", "a2")));
        assert!(seen.is_new(&line("4", "a1")) && seen.is_new(&line("6", "a2")));
        assert!(seen.is_new(&line("1", "a3")));
    }

    #[test]
    fn a_line_says_who_printed_it_where_that_is_in_question() {
        let line =
            LogLine { index: 2, task: "app".into(), line: "hi".into(), ..LogLine::default() };
        let prefix = |copy, task| Prefix {
            job: "web".parse().unwrap(),
            copy,
            task,
            time: false,
            one: false,
            first: None,
        };
        assert_eq!(prefix(false, false).apply(&line), "hi\n");
        assert_eq!(prefix(true, false).apply(&line), "web.2 | hi\n");
        assert_eq!(prefix(true, true).apply(&line), "web.2/app | hi\n");
        // It becomes a question once another one prints.
        let mut grown = prefix(false, false);
        grown.saw(&line);
        assert_eq!(grown.apply(&line), "hi\n");
        grown.saw(&LogLine { index: 3, ..LogLine::default() });
        assert_eq!(grown.apply(&line), "web.2 | hi\n");
    }
}
