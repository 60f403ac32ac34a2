//! Reads typed values out of a tree and notes each problem instead of stopping at it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::keys;
use super::tree::{Entry, Node, Place, Value};
use crate::limits::JOB_FILE_PROBLEMS_MAX;
use crate::model::problem::{Problem, nearest};
use crate::model::resources::Bytes;
use crate::model::time::Millis;

/// The problems found so far.
#[derive(Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    left_out: usize,
}

impl Report {
    pub(super) fn add(&mut self, at: Place, field: &str, message: impl Into<String>) {
        if self.problems.len() == JOB_FILE_PROBLEMS_MAX {
            self.left_out += 1;
            return;
        }
        self.problems.push(Problem {
            line: at.line,
            column: at.column,
            field: field.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All of them in the file's order; nothing if there are none.
    pub(super) fn finish(mut self) -> Option<Vec<Problem>> {
        if self.problems.is_empty() {
            return None;
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        // An alias repeats what is wrong in what it stands for.
        self.problems.dedup();
        if self.left_out > 0 {
            self.problems.push(Problem {
                line: 0,
                column: 0,
                field: String::new(),
                message: format!("and {} more problems", self.left_out),
            });
        }
        Some(self.problems)
    }
}

/// A value with its path.
#[derive(Clone)]
pub(super) struct Item<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl<'n> Item<'n> {
    pub(super) fn at(&self) -> Place {
        self.node.at
    }

    pub(super) fn wrong(&self, report: &mut Report, message: impl Into<String>) {
        report.add(self.node.at, &self.path, message);
    }

    fn wrong_kind(&self, report: &mut Report, wanted: &str) {
        self.wrong(report, format!("is {}; write {wanted}", self.node.value.kind()));
    }

    /// Any scalar as a text; `wanted` says what to write instead of a list or a map.
    pub(super) fn text(&self, report: &mut Report, wanted: &str) -> Option<String> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => {
                if text.contains('\0') {
                    self.wrong(report, "has a zero byte in it; remove it");
                    return None;
                }
                Some(text.clone())
            }
            Value::Bool(is) => Some(is.to_string()),
            _ => {
                self.wrong_kind(report, wanted);
                None
            }
        }
    }

    /// What `T` reads from a text, with `T`'s own message.
    pub(super) fn parsed<T>(&self, report: &mut Report, wanted: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(report, wanted)?;
        text.parse().map_err(|error: T::Err| self.wrong(report, error.to_string())).ok()
    }

    /// A whole number.
    pub(super) fn number(&self, report: &mut Report, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (range.start(), range.end());
        let wanted = format!("a whole number from {least} to {most}");
        let text = match &self.node.value {
            Value::Number(text) | Value::Text(text) => text,
            _ => {
                self.wrong_kind(report, &wanted);
                return None;
            }
        };
        let value = text.parse::<u64>().ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.wrong(report, format!("{text:?} does not do; write {wanted}"));
        }
        value
    }

    /// As [`Item::number`], for numbers that fit.
    pub(super) fn number_u32(
        &self,
        report: &mut Report,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.number(report, wide).and_then(|value| u32::try_from(value).ok())
    }

    pub(super) fn truth(&self, report: &mut Report) -> Option<bool> {
        match &self.node.value {
            Value::Bool(is) => Some(*is),
            Value::Text(text) if text == "true" || text == "false" => Some(text == "true"),
            other => {
                self.wrong(report, format!("is {}; write true or false", other.kind()));
                None
            }
        }
    }

    pub(super) fn duration(
        &self,
        report: &mut Report,
        range: RangeInclusive<Millis>,
    ) -> Option<Millis> {
        let value: Millis = self.parsed(report, "a duration, as 500ms, 30s or 1h30m")?;
        if range.contains(&value) {
            return Some(value);
        }
        let message = format!("{value} does not do; write {} to {}", range.start(), range.end());
        self.wrong(report, message);
        None
    }

    pub(super) fn bytes(&self, report: &mut Report, least: u64) -> Option<u64> {
        let Bytes(value) = self.parsed(report, "a size, as 256Mi")?;
        if value >= least {
            return Some(value);
        }
        let mut message = format!("{} is too little; the least is {}", Bytes(value), Bytes(least));
        if value > 0 && matches!(&self.node.value, Value::Number(text) if !text.contains('.')) {
            message.push_str(&format!("; did you mean {value}Mi?"));
        }
        self.wrong(report, message);
        None
    }

    /// The items of a list of at most `most`; `wanted` says what to write instead.
    pub(super) fn list(
        &self,
        report: &mut Report,
        most: usize,
        wanted: &str,
    ) -> Option<Vec<Item<'n>>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_kind(report, wanted);
            return None;
        };
        if items.len() > most {
            self.wrong(report, format!("{} items are too many; the most is {most}", items.len()));
            return None;
        }
        let item =
            |(i, node): (usize, &'n Node)| Item { node, path: format!("{}[{i}]", self.path) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list, or the one scalar that stands for a list of one.
    pub(super) fn list_or_one(
        &self,
        report: &mut Report,
        most: usize,
        wanted: &str,
    ) -> Option<Vec<Item<'n>>> {
        match &self.node.value {
            Value::Text(_) | Value::Number(_) => Some(vec![self.clone()]),
            _ => self.list(report, most, wanted),
        }
    }

    /// The keys of a map; `wanted` says what to write instead.
    pub(super) fn fields(&self, report: &mut Report, wanted: &str) -> Option<Fields<'n>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_kind(report, wanted);
            return None;
        };
        let fields = Fields { entries, path: self.path.clone(), at: self.node.at };
        let mut seen = BTreeSet::new();
        for entry in entries {
            if !seen.insert(entry.key.as_str()) {
                report.add(entry.at, &fields.path_of(&entry.key), "is given twice; remove one");
            }
        }
        Some(fields)
    }
}

/// The keys of a map with their values.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    path: String,
    /// The map's place.
    pub(super) at: Place,
}

impl<'n> Fields<'n> {
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Each key with its place, and its value; the second of two with the same key left out.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'n str, Place, Item<'n>)> {
        let mut seen = BTreeSet::new();
        self.entries.iter().filter(move |entry| seen.insert(entry.key.as_str())).map(|entry| {
            let path = self.path_of(&entry.key);
            (entry.key.as_str(), entry.at, Item { node: &entry.value, path })
        })
    }

    /// The value of a key; a value of nothing is as good as no key.
    pub(super) fn get(&self, key: &str) -> Option<Item<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.value.value, Value::Null) {
            return None;
        }
        Some(Item { node: &entry.value, path: self.path_of(key) })
    }

    /// The value of the one of `names` that is there. They mean the same, so that two of them
    /// are a problem.
    pub(super) fn one_of(&self, report: &mut Report, names: &[&str]) -> Option<Item<'n>> {
        let mut found = names.iter().filter_map(|name| self.get(name));
        let first = found.next();
        if let (Some(first), Some(second)) = (&first, found.next()) {
            let message = format!("says the same as {}; keep one of them", first.path);
            second.wrong(report, message);
        }
        first
    }

    /// Notes a key that must be there and is not.
    pub(super) fn missing(&self, report: &mut Report, key: &str, remedy: &str) {
        report.add(self.at, &self.path_of(key), format!("is missing; {remedy}"));
    }

    /// Notes every key that is not among `known`.
    pub(super) fn check_keys(
        &self,
        report: &mut Report,
        known: &[keys::Key],
        elsewhere: &[Elsewhere],
    ) {
        let mut seen = BTreeSet::new();
        for entry in self.entries {
            let key = entry.key.as_str();
            let is_known = known.iter().any(|k| k.name == key || k.also.contains(&key));
            if is_known || key.starts_with("x-") || !seen.insert(key) {
                continue;
            }
            let place = elsewhere.iter().find(|place| place.keys.iter().any(|k| k.name == key));
            let message = match (place, keys::unsupported(key), keys::meant(key, known)) {
                (Some(place), ..) => format!("{key:?} {}", place.remedy),
                (_, Some(why), _) => format!("{key:?} is not supported: {why}"),
                (.., Some(meant)) => format!("unknown key {key:?}; write {meant}"),
                _ => unknown(key, known),
            };
            report.add(entry.at, &self.path_of(key), message);
        }
    }
}

/// Keys that stand somewhere else, and the advice for who writes them here.
pub(super) struct Elsewhere {
    pub(super) keys: &'static [keys::Key],
    pub(super) remedy: &'static str,
}

fn unknown(key: &str, known: &[keys::Key]) -> String {
    match nearest(key, known.iter().map(|k| k.name)) {
        Some(near) => format!("unknown key {key:?}; did you mean {near:?}?"),
        None => {
            let names: Vec<_> = known.iter().map(|k| k.name).collect();
            format!("unknown key {key:?}; known here: {}", names.join(", "))
        }
    }
}

/// The word of `known` that is meant by `text`.
pub(super) fn word(item: &Item<'_>, report: &mut Report, text: &str, known: &[&str]) {
    let message = match nearest(text, known.iter().copied()) {
        Some(near) => format!("{text:?} is not known; did you mean {near:?}?"),
        None => format!("{text:?} is not known; write one of {}", known.join(", ")),
    };
    item.wrong(report, message);
}
