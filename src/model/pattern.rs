//! What is looked for in output: a regular expression within bounds.

use std::fmt;
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};

use crate::limits::{PATTERN_BYTES_MAX, PATTERN_MEMORY_BYTES_MAX};

/// A regular expression over bytes, matched in time linear in what it is held against.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// A text that is no pattern; says where it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is no regular expression, too long, or too large once it is made ready.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            let got = text.len();
            return Err(PatternError(format!(
                "a pattern has at most {PATTERN_BYTES_MAX} bytes; this one has {got}"
            )));
        }
        RegexBuilder::new(text)
            .case_insensitive(ignore_case)
            .size_limit(PATTERN_MEMORY_BYTES_MAX)
            .dfa_size_limit(PATTERN_MEMORY_BYTES_MAX)
            .build()
            .map(Self)
            .map_err(|error| PatternError(sentence(&error)))
    }

    /// Whether it is found anywhere in `text`.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// The library draws the pattern with a mark under the place; here it becomes one line.
fn sentence(error: &regex::Error) -> String {
    let text = match error {
        regex::Error::CompiledTooBig(_) => {
            return "the pattern is too large once it is made ready; repeat less in it".to_owned();
        }
        other => other.to_string(),
    };
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let reason = last.trim().trim_start_matches("error: ");
    format!("it is no regular expression: {reason}")
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text, false)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_in_any_bytes() {
        let pattern: Pattern = "err(or)?: [0-9]+".parse().unwrap();
        assert!(pattern.is_in(b"\xff an err: 17"));
        assert!(!pattern.is_in(b"ERROR: 17"));
        assert!(Pattern::new(&pattern.to_string(), true).unwrap().is_in(b"ERROR: 17"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_one_line() {
        for bad in ["(", "[z-a]", "a{5,2}", "*", "(?P<n>a)(?P<n>b)", "\\"] {
            let text = Pattern::new(bad, false).unwrap_err().to_string();
            assert!(text.contains("no regular expression: ") && !text.contains('\n'), "{text}");
        }
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        assert!(Pattern::new(&long, false).unwrap_err().to_string().contains("bytes"));
        let large = Pattern::new("(((a{99}){99}){99}){99}", false).unwrap_err().to_string();
        assert!(large.contains("too large"), "{large}");
    }
}
