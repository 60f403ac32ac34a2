//! YAML, and JSON as a part of it, to a tree with places.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::reader::Report;
use super::tree::{Entry, Node, Place, Value};
use crate::limits::{JOB_FILE_DEPTH_MAX, JOB_FILE_DOCUMENTS_MAX, JOB_FILE_VALUES_MAX};

/// The documents that could be read; what could not is in the report. A document that holds
/// nothing is left out.
pub(super) fn documents(text: &str, report: &mut Report) -> Vec<Node> {
    let options = granit_parser::options! {
        flow_nesting_limit: JOB_FILE_DEPTH_MAX,
        block_nesting_limit: JOB_FILE_DEPTH_MAX,
        // A JSON file may stand on one line.
        simple_key_max_lookahead: 64 << 10,
        emit_comments: false,
    };
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: BTreeMap::new(),
        values: 0,
        report,
    };
    let mut documents = Vec::new();
    // A mistake in the syntax ends the reading: what follows it can't be told apart.
    while let Ok(Some(document)) = builder.document() {
        if matches!(document.value, Value::Null) {
            continue;
        }
        if documents.len() == JOB_FILE_DOCUMENTS_MAX {
            builder.report.add(
                document.at,
                "",
                format!("more than {JOB_FILE_DOCUMENTS_MAX} documents; split the file"),
            );
            break;
        }
        documents.push(document);
    }
    documents
}

/// The reason is in the report already.
struct Stop;

struct Builder<'t, 'r> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, Node>,
    /// Values made so far, those of aliases counted each time.
    values: usize,
    report: &'r mut Report,
}

fn place(mark: Marker) -> Place {
    Place {
        line: u32::try_from(mark.line()).unwrap_or(u32::MAX),
        column: u32::try_from(mark.col().saturating_add(1)).unwrap_or(u32::MAX),
    }
}

impl<'t> Builder<'t, '_> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let message = format!("not valid: {}", error.info());
                self.report.add(place(*error.marker()), "", message);
                Err(Stop)
            }
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut found = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(..) => self.anchors.clear(),
                Event::DocumentEnd => {
                    let empty = || Node { at: place(span.start), value: Value::Null };
                    return Ok(Some(found.unwrap_or_else(empty)));
                }
                event => {
                    if let Some(node) = self.node(event, span, 0)? {
                        found = Some(node);
                    }
                }
            }
        }
        Ok(None)
    }

    fn count(&mut self, at: Place, values: usize) -> Result<(), Stop> {
        self.values = self.values.saturating_add(values);
        if self.values > JOB_FILE_VALUES_MAX {
            let message = format!(
                "more than {JOB_FILE_VALUES_MAX} values, those of aliases counted each time"
            );
            self.report.add(at, "", message);
            return Err(Stop);
        }
        Ok(())
    }

    /// The node that begins with `event`; none if no node begins with it.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Option<Node>, Stop> {
        let at = place(span.start);
        if depth > JOB_FILE_DEPTH_MAX {
            return self.too_deep(at);
        }
        self.count(at, 1)?;
        let (value, anchor) = match event {
            Event::Alias(id) => return self.alias(id, at, depth).map(Some),
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), at), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                (Value::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                (Value::Map(self.map(depth)?), anchor)
            }
            _ => return Ok(None),
        };
        let node = Node { at, value };
        if anchor > 0 {
            // The copy counts too: an anchor in an anchor in an anchor is a copy of a copy.
            self.count(at, node.size())?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(Some(node))
    }

    fn too_deep<T>(&mut self, at: Place) -> Result<T, Stop> {
        self.report.add(at, "", format!("nested deeper than {JOB_FILE_DEPTH_MAX} levels"));
        Err(Stop)
    }

    fn alias(&mut self, id: usize, at: Place, depth: usize) -> Result<Node, Stop> {
        let Some(target) = self.anchors.get(&id) else {
            self.report.add(
                at,
                "",
                "an alias of what it stands in; an alias can only repeat what ended before it",
            );
            return Ok(Node { at, value: Value::Null });
        };
        let (size, height) = (target.size(), target.height());
        if depth + height > JOB_FILE_DEPTH_MAX {
            return self.too_deep(at);
        }
        self.count(at, size)?;
        let unchanged = Node { at, value: Value::Null };
        Ok(self.anchors.get(&id).cloned().unwrap_or(unchanged))
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.extend(self.node(event, span, depth + 1)?);
        }
        Ok(items)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let Some(key) = self.node(event, span, depth + 1)? else { continue };
            let Some(value) = self.value_of_key(depth)? else { break };
            let text = match key.value {
                Value::Text(text) | Value::Number(text) => text,
                Value::Bool(is) => is.to_string(),
                Value::Null => "null".to_owned(),
                Value::List(_) | Value::Map(_) => {
                    let message = format!("{} can't be a key; write a text", key.value.kind());
                    self.report.add(key.at, "", message);
                    continue;
                }
            };
            if plain && text == "<<" {
                merged.push(value);
            } else {
                entries.push(Entry { key: text, at: key.at, value });
            }
        }
        self.merge(&mut entries, merged)?;
        Ok(entries)
    }

    fn value_of_key(&mut self, depth: usize) -> Result<Option<Node>, Stop> {
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                return Ok(None);
            }
            if let Some(node) = self.node(event, span, depth + 1)? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// `<<: *base` and `<<: [*one, *two]`: what the map itself says wins, then the first named.
    fn merge(&mut self, entries: &mut Vec<Entry>, merged: Vec<Node>) -> Result<(), Stop> {
        if merged.is_empty() {
            return Ok(());
        }
        let mut known: std::collections::BTreeSet<String> =
            entries.iter().map(|entry| entry.key.clone()).collect();
        for node in merged {
            let maps = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for map in maps {
                let Value::Map(more) = map.value else {
                    self.report.add(map.at, "", "\"<<\" takes a map, or a list of maps");
                    continue;
                };
                for entry in more {
                    if known.insert(entry.key.clone()) {
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(())
    }

    fn check_tag(&mut self, tag: Option<&Tag>, at: Place) {
        if let Some(tag) = tag
            && tag.core_suffix().is_none()
        {
            let message = format!("the tag {} has no meaning here; remove it", tag.original());
            self.report.add(at, "", message);
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Value {
        self.check_tag(tag, at);
        if style != ScalarStyle::Plain || tag.and_then(Tag::core_suffix) == Some("str") {
            return Value::Text(text.to_owned());
        }
        plain(text)
    }
}

/// YAML 1.2's core schema, except that numbers are kept as written.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
        && unsigned.parse::<f64>().is_ok()
}
