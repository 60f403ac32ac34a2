//! What the settings come to, and where each came from.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Serialize;

/// One setting in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Name in the file; with dashes, the flag.
    pub name: String,
    /// Value; lists joined with commas; absent if it is not set and has no default.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// The environment variable that sets it.
    pub variable: String,
}

/// Where a setting came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// Nobody said anything.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// The settings of one command. `before` is what was said without the file, `after` with it:
/// what only the second has came from the file.
pub fn effective(command: &Command, before: &ArgMatches, after: &ArgMatches) -> Vec<Setting> {
    command
        .get_arguments()
        .filter(|arg| arg.get_env().is_some())
        .map(|arg| {
            let id = arg.get_id().as_str();
            let source = match (before.value_source(id), after.value_source(id)) {
                (Some(ValueSource::CommandLine), _) => Source::Flag,
                (Some(ValueSource::EnvVariable), _) => Source::Environment,
                (_, Some(ValueSource::CommandLine)) => Source::File,
                _ => Source::Default,
            };
            let values: Vec<String> = after
                .get_raw(id)
                .into_iter()
                .flatten()
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            Setting {
                name: id.to_owned(),
                value: (!values.is_empty()).then(|| values.join(",")),
                source,
                variable: variable.unwrap_or_default(),
            }
        })
        .collect()
}
