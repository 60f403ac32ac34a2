//! TOML to a tree with places.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::reader::Report;
use super::tree::{Entry, Node, Place, Value};
use crate::limits::{JOB_FILE_DEPTH_MAX, JOB_FILE_VALUES_MAX};

/// The one document; what could not be read is in the report.
pub(super) fn document(text: &str, report: &mut Report) -> Option<Node> {
    let lines = Lines::of(text);
    if let Some(byte) = too_deep(text) {
        let message = format!("nested deeper than {JOB_FILE_DEPTH_MAX} levels");
        report.add(lines.place(byte), "", message);
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(Place::default(), |span| lines.place(span.start));
        report.add(at, "", format!("not valid: {}", error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let mut builder = Builder { lines, values: 0 };
    match builder.table(table.get_ref(), 1) {
        Some(entries) => {
            let at = entries.first().map_or(Place { line: 1, column: 1 }, |entry| entry.at);
            Some(Node { at, value: Value::Map(entries) })
        }
        None => {
            let message = format!(
                "nested deeper than {JOB_FILE_DEPTH_MAX} levels, or more than \
                 {JOB_FILE_VALUES_MAX} values"
            );
            report.add(Place { line: 1, column: 1 }, "", message);
            None
        }
    }
}

/// Where the file nests so deep that the parser's own tree could not be dropped without running
/// out of stack: it bounds brackets and the dots of a key, but not the two multiplied.
///
/// Counts generously, so that no mistake in the syntax hides anything.
fn too_deep(text: &str) -> Option<usize> {
    let mut levels = vec![(TokenKind::Eof, 0)];
    let mut depth = 0;
    for token in Source::new(text).lex() {
        let Some((open, dots)) = levels.last_mut() else { break };
        match token.kind() {
            TokenKind::Dot => {
                *dots += 1;
                depth += 1;
            }
            TokenKind::LeftCurlyBracket | TokenKind::LeftSquareBracket => {
                levels.push((token.kind(), 1));
                depth += 1;
            }
            kind @ (TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket) => {
                let opener = match kind {
                    TokenKind::RightCurlyBracket => TokenKind::LeftCurlyBracket,
                    _ => TokenKind::LeftSquareBracket,
                };
                if *open == opener {
                    depth -= *dots;
                    levels.pop();
                }
            }
            TokenKind::Comma => {
                depth -= *dots;
                *dots = usize::from(*open != TokenKind::Eof);
                depth += *dots;
            }
            TokenKind::Newline if *open == TokenKind::Eof => {
                depth -= *dots;
                *dots = 0;
            }
            _ => {}
        }
        if depth > 8 * JOB_FILE_DEPTH_MAX {
            return Some(token.span().start());
        }
    }
    None
}

/// Where each line begins, in bytes.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn place(&self, byte: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..byte).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { line: count(line), column: count(before.chars().count() + 1) }
    }
}

struct Builder<'t> {
    lines: Lines<'t>,
    values: usize,
}

impl Builder<'_> {
    /// None if there are too many values, or too deep.
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Option<Vec<Entry>> {
        // The table is in the order of its keys; people expect the order written.
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        rows.into_iter()
            .map(|(key, value)| {
                Some(Entry {
                    key: key.get_ref().to_string(),
                    at: self.lines.place(key.span().start),
                    value: self.node(value, depth)?,
                })
            })
            .collect()
    }

    fn list(&mut self, items: &DeArray<'_>, depth: usize) -> Option<Vec<Node>> {
        items.iter().map(|item| self.node(item, depth)).collect()
    }

    fn node(&mut self, node: &Spanned<DeValue<'_>>, depth: usize) -> Option<Node> {
        self.values += 1;
        if self.values > JOB_FILE_VALUES_MAX || depth > JOB_FILE_DEPTH_MAX {
            return None;
        }
        let at = self.lines.place(node.span().start);
        let value = match node.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let decimal = i64::from_str_radix(number.as_str(), number.radix());
                Value::Number(decimal.map_or_else(|_| number.to_string(), |n| n.to_string()))
            }
            DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
            DeValue::Boolean(is) => Value::Bool(*is),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => Value::List(self.list(items, depth + 1)?),
            DeValue::Table(table) => Value::Map(self.table(table, depth + 1)?),
        };
        Some(Node { at, value })
    }
}
