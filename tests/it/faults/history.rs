//! What clients saw, written down as it happened, and judged at the end.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::linearizability::{Model, Timed, Verdict, check, shortest_violation};
use super::models::{Node, NodeOp, Variable, VariableOp};
use super::order;

/// Far more than a history of a minute takes.
const STEPS_MAX: usize = 50_000_000;
/// Operations that are told of a violation.
const TOLD: usize = 24;

/// Something that one client saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who asked.
    pub client: String,
    /// Whom; a ZooKeeper client that was sent elsewhere meanwhile says where it was before.
    pub server: String,
    /// The variable's or the node's path.
    pub path: String,
    /// Microseconds since the history began, before it was sent.
    pub begin: u64,
    /// The same after the answer; none: no answer came that says what became of it.
    pub end: Option<u64>,
    /// What was asked, and answered.
    pub seen: Seen,
}

/// What was asked, and answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Of a variable.
    Variable(VariableOp),
    /// Of a node, by who can expect the newest.
    Node(NodeOp, order::Reply),
    /// Of a node that was read where the client was, however old.
    Local(order::Reply),
    /// A node was made with a number behind its name.
    Number(i64, order::Reply),
}

/// Rows in a file and in memory.
#[derive(Debug)]
pub struct History {
    began: Instant,
    path: PathBuf,
    noted: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    file: std::fs::File,
    rows: Vec<Row>,
    counts: Counts,
}

/// What is counted of a history, so that a test knows that something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All operations.
    pub operations: usize,
    /// Writes that were acknowledged.
    pub written: usize,
    /// Writes that were refused, since it was not as they expected.
    pub refused: usize,
    /// Reads.
    pub read: usize,
    /// Operations of which nobody knows what became of them.
    pub unknown: usize,
}

impl History {
    /// A new one, in a file.
    pub fn new(path: &Path) -> Self {
        let file = std::fs::File::create(path).unwrap();
        let noted = Noted { file, rows: Vec::new(), counts: Counts::default() };
        Self { began: Instant::now(), path: path.to_owned(), noted: Mutex::new(noted) }
    }

    /// The time now, for [`Row::begin`] and [`Row::end`].
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Notes a row.
    pub fn note(&self, row: Row) {
        let mut line = serde_json::to_vec(&row).unwrap();
        line.push(b'\n');
        let mut noted = self.noted.lock().unwrap();
        noted.file.write_all(&line).unwrap();
        noted.counts.add(&row);
        noted.rows.push(row);
    }

    /// Rows so far.
    pub fn rows(&self) -> Vec<Row> {
        self.noted.lock().unwrap().rows.clone()
    }

    /// How many writes were acknowledged so far.
    pub fn written(&self) -> usize {
        self.counts().written
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.noted.lock().unwrap().counts
    }

    /// What is wrong with it, in words.
    pub fn judge(&self) -> Result<(), String> {
        judge(&self.rows())
            .map_err(|what| format!("{what}\nthe whole history is in {}", self.path.display()))
    }

    /// Fails the test if what clients saw can't be.
    #[track_caller]
    pub fn assert_fine(&self) {
        if let Err(what) = self.judge() {
            panic!("{what}");
        }
    }
}

impl Counts {
    fn add(&mut self, row: &Row) {
        use super::models::{Changed, Outcome};
        self.operations += 1;
        let count = match &row.seen {
            _ if row.end.is_none() => &mut self.unknown,
            Seen::Variable(VariableOp::Read { .. })
            | Seen::Node(NodeOp::Read { .. }, _)
            | Seen::Local(_) => &mut self.read,
            Seen::Variable(
                VariableOp::Put { outcome: Some(Outcome::Done(_)), .. }
                | VariableOp::Delete { outcome: Some(Outcome::Done(_)), .. },
            )
            | Seen::Node(
                NodeOp::Create { done: Some(true), .. }
                | NodeOp::Set { outcome: Some(Changed::Done(_)), .. }
                | NodeOp::Delete { outcome: Some(Changed::Done(_)), .. },
                _,
            )
            | Seen::Number(..) => &mut self.written,
            Seen::Variable(_) | Seen::Node(..) => &mut self.refused,
        };
        *count += 1;
    }
}

fn judge(rows: &[Row]) -> Result<(), String> {
    let variables = by_path(rows, |seen| match seen {
        Seen::Variable(op) => Some(op.clone()),
        _ => None,
    });
    let nodes = by_path(rows, |seen| match seen {
        Seen::Node(op, _) => Some(op.clone()),
        _ => None,
    });
    judge_each::<Variable>("variable", &variables)?;
    judge_each::<Node>("node", &nodes)?;
    order::judge(rows)
}

type ByPath<'r, Op> = BTreeMap<&'r str, Vec<(&'r Row, Timed<Op>)>>;

fn by_path<Op>(rows: &[Row], op: impl Fn(&Seen) -> Option<Op>) -> ByPath<'_, Op> {
    let mut by_path: ByPath<'_, Op> = BTreeMap::new();
    for row in rows {
        if let Some(op) = op(&row.seen) {
            let timed = Timed { begin: row.begin, end: row.end, op };
            by_path.entry(&row.path).or_default().push((row, timed));
        }
    }
    by_path
}

fn judge_each<M: Model>(kind: &str, by_path: &ByPath<'_, M::Op>) -> Result<(), String>
where
    M::Op: PartialEq,
{
    let mut violated: Vec<(&str, Vec<Timed<M::Op>>)> = Vec::new();
    for (path, rows) in by_path {
        let history: Vec<_> = rows.iter().map(|(_, timed)| timed.clone()).collect();
        match check::<M>(&history, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::GaveUp(steps) => {
                return Err(format!(
                    "{kind} {path}: {} operations could not be judged in {steps} steps",
                    history.len()
                ));
            }
            Verdict::Violated(_) => {
                violated.extend(shortest_violation::<M>(&history, STEPS_MAX).map(|h| (*path, h)));
            }
        }
    }
    let count = violated.len();
    let Some((path, history)) = violated.into_iter().min_by_key(|(_, history)| history.len())
    else {
        return Ok(());
    };
    let who = |timed: &Timed<M::Op>| {
        let row = by_path[path].iter().find(|(_, other)| other.begin == timed.begin);
        row.map_or_else(String::new, |(row, _)| format!("{} at {}", row.client, row.server))
    };
    Err(format!(
        "{kind} {path} was not linearizable (of {count} that were not, the shortest):\n{}",
        in_words::<M>(&history, who)
    ))
}

/// The end of a history that violates, with how far it went.
fn in_words<M: Model>(history: &[Timed<M::Op>], who: impl Fn(&Timed<M::Op>) -> String) -> String {
    let line = |at: usize| {
        let timed = &history[at];
        let end = timed.end.map_or("never answered".to_owned(), |end| format!("{end}"));
        format!("  {} to {end} µs, {}: {:?}", timed.begin, who(timed), timed.op)
    };
    let Verdict::Violated(violation) = check::<M>(history, STEPS_MAX) else {
        return String::new();
    };
    let mut state = M::initial();
    for at in &violation.order {
        state = M::step(&state, &history[*at].op).unwrap_or(state);
    }
    let left_out = violation.order.len().saturating_sub(TOLD);
    let order: Vec<_> = violation.order[left_out..].iter().map(|at| line(*at)).collect();
    let stuck: Vec<_> = violation.stuck.iter().map(|at| line(*at)).collect();
    format!(
        "one after the other could have happened ({left_out} left out):\n{}\nwhich leads to \
         {state:?}, and of these, which were next, none fits:\n{}",
        order.join("\n"),
        stuck.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::super::models::Outcome;
    use super::*;

    fn row(client: &str, begin: u64, end: u64, op: VariableOp) -> Row {
        let (client, server) = (client.to_owned(), "s1".to_owned());
        let path = "v/1".to_owned();
        Row { client, server, path, begin, end: Some(end), seen: Seen::Variable(op) }
    }

    fn put(value: &str, index: u64) -> VariableOp {
        let outcome = Some(Outcome::Done(index));
        VariableOp::Put { value: value.to_owned(), if_index: None, outcome }
    }

    #[test]
    fn a_lost_write_is_told_in_words() {
        let rows = [
            row("c1", 1, 2, put("a", 3)),
            row("c2", 3, 4, put("b", 4)),
            row("c1", 5, 6, VariableOp::Read { found: Some(("a".to_owned(), 3)) }),
            row("c1", 7, 8, put("c", 5)),
        ];
        assert_eq!(judge(&rows[..2]), Ok(()));
        let what = judge(&rows).unwrap_err();
        for part in ["variable v/1", "5 to 6 µs, c1 at s1", "\"b\"", "Read"] {
            assert!(what.contains(part), "{part} is missing in:\n{what}");
        }
        assert!(!what.contains("\"c\""), "what came later does not matter:\n{what}");
    }

    #[test]
    fn a_history_is_in_its_file_line_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let history = History::new(&path);
        history.note(row("c1", 1, 2, put("a", 3)));
        history.note(Row { end: None, ..row("c1", 3, 4, put("b", 3)) });
        let read: Vec<Row> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, history.rows());
        let expected = Counts { operations: 2, written: 1, unknown: 1, ..Counts::default() };
        assert_eq!(history.counts(), expected);
    }
}
