//! The one place that prints. Tables are for people; JSON and YAML are for programs and stable.

#![allow(clippy::print_stderr, reason = "this is the place")]

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell as TableCell, Color, Table, TableStyle};
use serde::Serialize;

use super::failure::{Exit, Failure};
use crate::model::time::Timestamp;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// For programs: field names are stable.
    Json,
    /// As JSON, in YAML.
    Yaml,
}

/// What a word means, beside saying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
}

/// A field of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Cell {
    /// A number.
    pub(super) fn number(number: impl ToString) -> Self {
        number.to_string().into()
    }

    /// A state of anything, in the colour that suits it.
    pub(super) fn state(word: &str) -> Self {
        Self { text: word.to_owned(), tone: tone(word) }
    }
}

fn tone(word: &str) -> Tone {
    match word {
        "running" | "healthy" | "complete" | "ready" | "leader" | "yes" | "successful"
        | "passes" => Tone::Good,
        "pending" | "starting" | "stopping" | "pulling" | "waiting" | "degraded" | "updating"
        | "draining" | "learner" | "paused" | "moving" | "probation" | "suspect" => Tone::Busy,
        "failed" | "lost" | "unhealthy" | "no" | "fails" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Prints in the format that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Output {
    format: Format,
    colour: bool,
    /// What ages are counted to.
    pub(super) now: Timestamp,
}

impl Output {
    pub(super) fn new(format: Format, now: Timestamp) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, colour: wanted && std::io::stdout().is_terminal(), now }
    }

    /// The same at another time.
    pub(super) fn at(&self, now: Timestamp) -> Self {
        Self { now, ..self.clone() }
    }

    /// Whether people read it.
    pub(super) fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    pub(super) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// A list: a table with a row for each, or an array. `nothing` is said to people if it is
    /// empty.
    pub(super) fn rows<T: Serialize>(
        &self,
        rows: &[T],
        headers: &[&str],
        nothing: &str,
        cells: impl Fn(&T) -> Vec<Cell>,
    ) -> Result<(), Failure> {
        if !self.for_people() {
            return self.data(&rows);
        }
        if rows.is_empty() {
            note(nothing);
            return Ok(());
        }
        self.text(&self.table(headers, rows.iter().map(cells)))
    }

    /// A thing: a text, or an object.
    pub(super) fn value<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.for_people() { self.text(&text()) } else { self.data(value) }
    }

    fn data<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => serde_saphyr::to_string(value)
                .map_err(|error| Failure::failed(format!("can't write YAML: {error}")))?,
            _ => serde_json::to_string_pretty(value)
                .map_err(|error| Failure::failed(format!("can't write JSON: {error}")))?,
        };
        self.text(&text)
    }

    /// One of a stream of things: a line, or a line of JSON, or a document of YAML.
    pub(super) fn item<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.text(&text()),
            Format::Json => match serde_json::to_string(value) {
                Ok(line) => self.text(&line),
                Err(error) => Err(Failure::failed(format!("can't write JSON: {error}"))),
            },
            Format::Yaml => {
                self.text("---")?;
                self.data(value)
            }
        }
    }

    /// The rows under their headers, columns two spaces apart.
    pub(super) fn table(
        &self,
        headers: &[&str],
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> String {
        let mut table = Table::new();
        table.load_style(TableStyle::new());
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(headers.iter().map(TableCell::new));
        for row in rows {
            table.add_row(row.into_iter().map(|cell| {
                let mut shown = TableCell::new(super::words::printable(&cell.text));
                if let (true, Some(colour)) = (self.colour, colour(cell.tone)) {
                    shown = shown.fg(colour);
                }
                shown
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }

    /// A word in the colour of its meaning.
    pub(super) fn state(&self, word: &str) -> String {
        let code = match tone(word) {
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Plain => return word.to_owned(),
        };
        if self.colour { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
    }

    /// Lines to stdout.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()?;
        Ok(())
    }

    /// Bytes to stdout as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        print_bytes(bytes)
    }
}

/// Bytes to stdout as they are, whatever the format.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Bytes to stderr as they are; who closed it does not want to know.
pub(super) fn error_bytes(bytes: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

fn colour(tone: Tone) -> Option<Color> {
    match tone {
        Tone::Good => Some(Color::Green),
        Tone::Busy => Some(Color::Yellow),
        Tone::Bad => Some(Color::Red),
        Tone::Plain => None,
    }
}

/// A line for people, to stderr.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// What went wrong, where, and what to try, to stderr. The exit code.
pub(super) fn failure(failure: &Failure) -> Exit {
    if !failure.what.is_empty() {
        eprintln!("error: {}", failure.what);
    }
    if !failure.details.is_empty() {
        eprintln!("{}", failure.details.trim_end());
    }
    if !failure.hint.is_empty() {
        eprintln!("  try: {}", failure.hint);
    }
    failure.exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns() {
        let output = Output { format: Format::Table, colour: false, now: Timestamp(0) };
        let rows = vec![vec!["web".into(), Cell::state("running")], vec!["b".into(), "-".into()]];
        assert_eq!(output.table(&["JOB", "STATE"], rows), "JOB  STATE\nweb  running\nb    -");
    }

    #[test]
    fn colour_is_never_the_only_signal() {
        let output = Output { format: Format::Table, colour: true, now: Timestamp(0) };
        let table = output.table(&["STATE"], vec![vec![Cell::state("failed")]]);
        assert!(table.contains("failed") && table.contains('\u{1b}'), "{table:?}");
        assert!(output.state("failed").contains("failed"));
    }
}
