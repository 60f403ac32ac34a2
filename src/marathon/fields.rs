//! An object that is taken apart: what nobody takes is told at the end.

use serde_json::{Map, Value};

use super::finding::Notes;

/// Characters of a value that a finding shows.
const SAID_CHARS: usize = 120;

/// The fields of an object that are still there.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(path: &str, map: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), map }
    }

    /// An object; what is none is told.
    pub(super) fn of(path: &str, value: Value, notes: &mut Notes) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self::new(path, map)),
            Value::Null => None,
            other => {
                misread(path, &other, "an object", notes);
                None
            }
        }
    }

    /// The path of a field in it.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a field is there and says something.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !says_nothing(value))
    }

    /// A field that stays.
    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// A field as it is; none if it is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str, notes: &mut Notes) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => self.wrong(key, &other, "a text", notes),
        }
    }

    pub(super) fn truth(&mut self, key: &str, notes: &mut Notes) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(truth) => Some(truth),
            other => self.wrong(key, &other, "true or false", notes),
        }
    }

    /// A number that is finite and not below 0.
    pub(super) fn number(&mut self, key: &str, notes: &mut Notes) -> Option<f64> {
        let value = self.take(key)?;
        match value.as_f64().filter(|number| number.is_finite() && *number >= 0.0) {
            Some(number) => Some(number),
            None => self.wrong(key, &value, "a number that is not below 0", notes),
        }
    }

    /// A whole number that is not below 0.
    pub(super) fn whole(&mut self, key: &str, notes: &mut Notes) -> Option<u64> {
        let value = self.take(key)?;
        let exact = |number: f64| {
            (number >= 0.0 && number.fract() == 0.0 && number < 9e15).then_some(number as u64)
        };
        match value.as_u64().or_else(|| value.as_f64().and_then(exact)) {
            Some(number) => Some(number),
            None => self.wrong(key, &value, "a whole number that is not below 0", notes),
        }
    }

    pub(super) fn object(&mut self, key: &str, notes: &mut Notes) -> Option<Fields> {
        let path = self.at(key);
        Self::of(&path, self.take(key)?, notes)
    }

    /// The items of a list, each with its path; nothing if it is absent.
    pub(super) fn list(&mut self, key: &str, notes: &mut Notes) -> Vec<(String, Value)> {
        let path = self.at(key);
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| (format!("{path}[{i}]"), item))
                .collect(),
            Some(other) => {
                misread(&path, &other, "a list", notes);
                Vec::new()
            }
        }
    }

    /// The objects of a list.
    pub(super) fn objects(&mut self, key: &str, notes: &mut Notes) -> Vec<Fields> {
        let items = self.list(key, notes);
        items.into_iter().filter_map(|(path, item)| Self::of(&path, item, notes)).collect()
    }

    /// The texts of a list.
    pub(super) fn texts(&mut self, key: &str, notes: &mut Notes) -> Vec<String> {
        let items = self.list(key, notes);
        let text = |(path, item): (String, Value)| match item {
            Value::String(text) => Some(text),
            other => {
                misread(&path, &other, "a text", notes);
                None
            }
        };
        items.into_iter().filter_map(text).collect()
    }

    /// All entries of a map whose keys the user chose.
    pub(super) fn entries(self) -> impl Iterator<Item = (String, String, Value)> {
        let path = self.path;
        self.map.into_iter().map(move |(key, value)| (format!("{path}.{key}"), key, value))
    }

    /// A field that has no equal, unless it says nothing.
    pub(super) fn lose(&mut self, key: &str, notes: &mut Notes, why: &str, remedy: &str) {
        if let Some(value) = self.take(key).filter(|value| !says_nothing(value)) {
            notes.lost(&self.at(key), said(&value), why, remedy);
        }
    }

    /// A field without which it may not work, unless it says nothing.
    pub(super) fn miss(&mut self, key: &str, notes: &mut Notes, why: &str, remedy: &str) {
        if let Some(value) = self.take(key).filter(|value| !says_nothing(value)) {
            notes.essential(&self.at(key), said(&value), why, remedy);
        }
    }

    /// What is left is told.
    pub(super) fn finish(self, notes: &mut Notes) {
        for (key, value) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            if says_nothing(value) && !matches!(value, Value::Bool(_)) {
                continue;
            }
            let why = "nothing is known of a field of that name";
            notes.lost(
                &self.at(key),
                said(value),
                why,
                "check whether it matters, and set it by hand",
            );
        }
    }

    fn wrong<T>(&self, key: &str, value: &Value, wanted: &str, notes: &mut Notes) -> Option<T> {
        misread(&self.at(key), value, wanted, notes);
        None
    }
}

/// Absent, empty, false: a field that asks for nothing.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    }
}

/// A value that is not what its field holds.
pub(super) fn misread(path: &str, value: &Value, wanted: &str, notes: &mut Notes) {
    let why = format!("it should be {wanted}");
    notes.essential(path, said(value), &why, "correct it at the source, or set it by hand");
}

/// A value as a finding shows it.
pub(super) fn said(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    shortened(&text)
}

/// A text as a finding shows it.
pub(super) fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SAID_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
