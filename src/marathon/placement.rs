//! Constraints: which nodes.

use serde_json::{Map, Value, json};

use super::fields::{Fields, misread, said};
use super::finding::Notes;
use crate::limits::PLACEMENT_RULES_MAX;
use crate::model::constraint::{Constraint, Operator, Subject};

/// The most words that a pattern is written out as.
const WORDS_MOST: usize = 64;

/// `placement` of a job.
#[derive(Debug, Default)]
pub(super) struct Placement {
    require: Vec<String>,
    spread: Vec<String>,
    max_per_node: Option<u64>,
}

/// One constraint in either form.
#[derive(Debug)]
struct Rule {
    path: String,
    field: String,
    operator: String,
    value: Option<String>,
}

impl Placement {
    /// At most so many replicas on a node.
    pub(super) fn at_most(&mut self, count: u64) {
        self.max_per_node = Some(self.max_per_node.map_or(count, |known| known.min(count)));
    }

    /// As the job file has it; none if it asks for nothing.
    pub(super) fn entry(self) -> Option<Value> {
        let mut map = Map::new();
        if !self.require.is_empty() {
            map.insert("require".into(), json!(self.require));
        }
        if !self.spread.is_empty() {
            map.insert("spread".into(), json!(self.spread));
        }
        if let Some(most) = self.max_per_node {
            map.insert("max_per_node".into(), json!(most));
        }
        (!map.is_empty()).then_some(Value::Object(map))
    }

    /// Takes constraints in: `[field, operator, value]`, or a pod's objects.
    pub(super) fn constraints(&mut self, list: Vec<(String, Value)>, notes: &mut Notes) {
        for (path, value) in list {
            let rule = match value {
                Value::Array(items) => from_list(path, &items, notes),
                Value::Object(map) => from_object(path, map, notes),
                other => {
                    misread(&path, &other, "a list of field, operator and value", notes);
                    None
                }
            };
            let Some(rule) = rule else { continue };
            if self.require.len() + self.spread.len() >= PLACEMENT_RULES_MAX {
                let why = "a job has no more rules than that";
                notes.essential(&rule.path, rule.said(), why, "join rules into one");
                continue;
            }
            self.constraint(rule, notes);
        }
    }

    fn constraint(&mut self, rule: Rule, notes: &mut Notes) {
        let host = matches!(rule.field.as_str(), "hostname" | "@hostname");
        let subject = match rule.field.as_str() {
            "hostname" | "@hostname" => Subject::Attribute("hostname".to_owned()),
            field => Subject::Attribute(field.trim_start_matches('@').to_owned()),
        };
        if rule.field.starts_with('@') && !host {
            notes.adapted(
                &rule.path,
                rule.said(),
                "Mesos knew the node's region and zone by itself",
                &format!("give the agents the attribute {subject}"),
            );
        }
        let value = rule.value.clone().filter(|value| !value.is_empty());
        match (rule.operator.as_str(), value) {
            ("UNIQUE", _) if host => self.at_most(1),
            ("MAX_PER", Some(most)) if host && most.parse::<u64>().is_ok_and(|most| most > 0) => {
                self.at_most(most.parse().unwrap_or(1));
            }
            ("UNIQUE" | "MAX_PER", _) => {
                let why =
                    "replicas are spread evenly over the values, but there is no most for each";
                notes.lost(&rule.path, rule.said(), why, "have as many values as replicas");
                self.spread(&rule, &subject, notes);
            }
            ("GROUP_BY", value) => {
                if let Some(value) = value {
                    let why = "replicas are spread evenly over the values that there are";
                    notes.adapted(&rule.path, value, why, "nothing");
                }
                // Every replica counts for the node it is on anyway.
                self.spread(&rule, &subject, notes);
            }
            ("CLUSTER", Some(value)) => self.rule(&rule, &subject, Operator::Equal, value, notes),
            ("IS", Some(value)) => self.rule(&rule, &subject, Operator::Equal, value, notes),
            ("LIKE", Some(pattern)) => self.pattern(&rule, &subject, &pattern, true, notes),
            ("UNLIKE", Some(pattern)) => self.pattern(&rule, &subject, &pattern, false, notes),
            ("CLUSTER", None) => notes.essential(
                &rule.path,
                rule.said(),
                "the first placement decided where all the others go",
                &format!("choose the place yourself: placement.require: [\"{subject} == VALUE\"]"),
            ),
            _ => notes.essential(
                &rule.path,
                rule.said(),
                "there is no such constraint, or it lacks a value",
                "write what it means under placement",
            ),
        }
    }

    fn spread(&mut self, rule: &Rule, subject: &Subject, notes: &mut Notes) {
        let text = subject.to_string();
        if text.parse::<Subject>().as_ref() != Ok(subject) {
            unwritable(rule, notes);
        } else if !self.spread.contains(&text) {
            self.spread.push(text);
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        subject: &Subject,
        operator: Operator,
        value: String,
        notes: &mut Notes,
    ) {
        let meant = Constraint { subject: subject.clone(), operator, value };
        let text = meant.to_string();
        // What an attribute may be called and hold is wider in Mesos.
        if text.parse::<Constraint>().as_ref() != Ok(&meant) {
            unwritable(rule, notes);
        } else if !self.require.contains(&text) {
            self.require.push(text);
        }
    }

    /// Rules have no patterns: one that stands for a few words is written out.
    fn pattern(
        &mut self,
        rule: &Rule,
        subject: &Subject,
        pattern: &str,
        like: bool,
        notes: &mut Notes,
    ) {
        if matches!(pattern, ".*" | "^.*$" | ".+") && like {
            return self.rule(rule, subject, Operator::Exists, String::new(), notes);
        }
        let Some(Written { words, dots }) = written_out(pattern) else {
            notes.essential(
                &rule.path,
                rule.said(),
                "rules have no patterns, and this one stands for more than a few values",
                &format!(
                    "give the nodes an attribute for it, and write placement.require: \
                     [\"{subject} in a, b\"]"
                ),
            );
            return;
        };
        if dots {
            let why = "a dot stood for any character; now it stands for a dot";
            notes.adapted(&rule.path, rule.said(), why, "nothing, if a dot was meant");
        }
        let value = words.join(",");
        // A comma separates values.
        if words.len() > 1 && words.iter().any(|word| word.contains(',') || word.trim() != word) {
            return unwritable(rule, notes);
        }
        let operator = match (words.len(), like) {
            (1, true) => Operator::Equal,
            (1, false) => Operator::NotEqual,
            (_, true) => Operator::In,
            (_, false) => Operator::NotIn,
        };
        self.rule(rule, subject, operator, value, notes);
    }
}

fn unwritable(rule: &Rule, notes: &mut Notes) {
    let why = "attributes of that name or value can't be written in a rule";
    notes.essential(&rule.path, rule.said(), why, "give the nodes an attribute with a plain name");
}

impl Rule {
    fn said(&self) -> String {
        let value = self.value.as_deref().unwrap_or_default();
        format!("{} {} {value}", self.field, self.operator).trim_end().to_owned()
    }
}

fn from_list(path: String, items: &[Value], notes: &mut Notes) -> Option<Rule> {
    let texts: Vec<String> = items.iter().filter(|item| !item.is_null()).map(text).collect();
    match texts.as_slice() {
        [field, operator] => {
            Some(Rule { path, field: field.clone(), operator: operator.clone(), value: None })
        }
        [field, operator, value] => Some(Rule {
            path,
            field: field.clone(),
            operator: operator.clone(),
            value: Some(value.clone()),
        }),
        _ => {
            let value = Value::Array(items.to_vec());
            misread(&path, &value, "a list of field, operator and value", notes);
            None
        }
    }
}

fn from_object(path: String, map: Map<String, Value>, notes: &mut Notes) -> Option<Rule> {
    let mut fields = Fields::new(&path, map);
    let field = fields.text("fieldName", notes);
    let operator = fields.text("operator", notes);
    let value = fields.take("value").map(|value| text(&value));
    fields.finish(notes);
    let (Some(field), Some(operator)) = (field, operator) else {
        misread(&path, &Value::Null, "an object of fieldName, operator and value", notes);
        return None;
    };
    Some(Rule { path, field, operator, value })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => said(other),
    }
}

/// The words that a pattern stands for.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    words: Vec<String>,
    /// A dot was read as a dot.
    dots: bool,
}

/// Writes a pattern out: alternatives, small classes as `[1-3]`, escaped signs.
fn written_out(pattern: &str) -> Option<Written> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = match pattern.strip_suffix('$') {
        Some(inner) if !inner.ends_with('\\') => inner,
        _ => pattern,
    };
    let whole = pattern.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let pattern = whole.map_or(pattern, |inner| inner.strip_prefix("?:").unwrap_or(inner));
    let mut found = Written { words: Vec::new(), dots: false };
    let mut words = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let choices: Vec<char> = match c {
            '|' => {
                found.words.append(&mut words);
                words.push(String::new());
                continue;
            }
            '\\' => match chars.next()? {
                sign if sign.is_ascii_alphanumeric() => return None,
                sign => vec![sign],
            },
            '[' => class(&mut chars)?,
            '.' => {
                found.dots = true;
                vec!['.']
            }
            '*' | '+' | '?' | '(' | ')' | '{' | '}' | ']' | '^' | '$' => return None,
            plain => vec![plain],
        };
        if words.len() * choices.len() > WORDS_MOST {
            return None;
        }
        words = words
            .iter()
            .flat_map(|word| choices.iter().map(move |choice| format!("{word}{choice}")))
            .collect();
        // A dot before a repetition is not a dot.
        if matches!(chars.as_str().chars().next(), Some('*' | '+' | '?' | '{')) {
            return None;
        }
    }
    found.words.append(&mut words);
    let good = found.words.len() <= WORDS_MOST && found.words.iter().all(|word| !word.is_empty());
    good.then_some(found)
}

/// The characters of `[a-c]`, whose bracket has been read.
fn class(chars: &mut std::str::Chars<'_>) -> Option<Vec<char>> {
    let mut found: Vec<char> = Vec::new();
    loop {
        let c = chars.next()?;
        match c {
            ']' => return (!found.is_empty()).then_some(found),
            '^' | '\\' | '[' | '&' => return None,
            '-' if !found.is_empty() && !chars.as_str().starts_with(']') => {
                let (first, last) = (*found.last()?, chars.next()?);
                let plain = first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric();
                if !plain || last < first {
                    return None;
                }
                found.extend((first..=last).skip(1));
            }
            other => found.push(other),
        }
        if found.len() > WORDS_MOST {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_patterns_are_written_out() {
        let words = |pattern: &str| written_out(pattern).map(|found| found.words.join(" "));
        for (pattern, written) in [
            ("a", Some("a")),
            ("a|b", Some("a b")),
            ("^(a|bc)$", Some("a bc")),
            ("node-[1-3]", Some("node-1 node-2 node-3")),
            ("n[ab]x[12]", Some("nax1 nax2 nbx1 nbx2")),
            (r"h1\.example\.com", Some("h1.example.com")),
            ("[a-]", Some("a -")),
            ("srv2.*", None),
            ("a+", None),
            ("a.?", None),
            (r"\d", None),
            ("[^a]", None),
            ("[a", None),
            ("[z-a]", None),
            ("(a)(b)", None),
            ("a||b", None),
            ("", None),
            ("[a-z][a-z]", None),
        ] {
            assert_eq!(words(pattern).as_deref(), written, "{pattern}");
        }
        assert!(written_out("h1.example").unwrap().dots);
    }
}
