//! How a command ends: its exit code, and what is said when it did not work.

use std::fmt;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit(pub(super) u8);

impl Exit {
    pub(super) const DONE: Self = Self(0);
    pub(super) const FAILED: Self = Self(1);
    pub(super) const USAGE: Self = Self(2);
    pub(super) const NOT_FOUND: Self = Self(3);
    pub(super) const REFUSED: Self = Self(4);
    /// As shells have it for SIGINT.
    pub(super) const INTERRUPTED: Self = Self(130);
}

/// A command's end.
pub(super) type Outcome = Result<Exit, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// What went wrong, and where.
    pub(super) what: String,
    /// Lines that go with it, already laid out.
    pub(super) details: String,
    /// What to try; may be empty.
    pub(super) hint: String,
    /// A later attempt may work.
    pub(super) passing: bool,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            details: String::new(),
            hint: String::new(),
            passing: false,
        }
    }

    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::FAILED, what)
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::USAGE, what)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    pub(super) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    /// For what is printed: a reader that has gone away is no reason to complain.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Exit::DONE, "");
        }
        Self::failed(format!("can't write the output: {error}"))
    }
}

/// The cause behind all causes, in its own words.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
