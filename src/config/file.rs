//! The settings file: its entries become flags that the command line may override.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::model::problem::nearest;

/// A settings file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It can't be read.
    #[error("settings file {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is larger than any settings file.
    #[error("settings file {0} has more than {CONFIG_FILE_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// It is no TOML.
    #[error("settings file {path}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What, with line and column.
        message: String,
    },
    /// An entry that means nothing.
    #[error("settings file {path}: {message}")]
    Entry {
        /// Which.
        path: PathBuf,
        /// What, and what was probably meant.
        message: String,
    },
    /// The settings as a whole are refused; the message is clap's.
    #[error(transparent)]
    Flags(#[from] clap::Error),
}

/// Tables of a settings file, each for the command of that name.
const TABLES: [&str; 3] = ["server", "agent", "dev"];

/// Parses `args` with `command`, and where the subcommand `name` was given, fills in from the
/// file's table of that name what neither a flag nor the environment says.
///
/// # Errors
/// If the file can't be read or used, or the settings are refused.
pub fn with_file(
    command: &Command,
    args: &[OsString],
    name: &str,
    path: &Path,
) -> Result<ArgMatches, ConfigFileError> {
    let text = read(path)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigFileError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    let entry_error = |message: String| ConfigFileError::Entry { path: path.to_owned(), message };
    if let Some(key) = table.keys().find(|key| !TABLES.contains(&key.as_str())) {
        let hint = nearest(key, TABLES).map(|near| format!("; did you mean [{near}]?"));
        let hint = hint.unwrap_or_else(|| format!("; there are [{}]", TABLES.join("], [")));
        return Err(entry_error(format!("[{key}] is no table of it{hint}")));
    }
    // What the command line and the environment say; a required setting may be in the file.
    let given = lenient(command, name).try_get_matches_from(args)?;
    let given = given.subcommand_matches(name);
    let sub = command.find_subcommand(name);
    let mut from_file = Vec::new();
    if let (Some(section), Some(sub)) = (table.get(name), sub) {
        let section = section
            .as_table()
            .ok_or_else(|| entry_error(format!("{name} must be a table: [{name}]")))?;
        for (key, value) in section {
            let known = sub.get_arguments().find(|arg| arg.get_id() == key.as_str());
            let Some(arg) = known.filter(|arg| arg.get_long().is_some() && key != "config") else {
                let keys = sub.get_arguments().map(|arg| arg.get_id().as_str());
                let hint = nearest(key, keys).map(|near| format!("; did you mean {near}?"));
                let hint = hint.unwrap_or_default();
                return Err(entry_error(format!("[{name}] has no setting {key}{hint}")));
            };
            let source = given.and_then(|given| given.value_source(key));
            let said = matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable));
            let long = arg.get_long().unwrap_or_default();
            for text in words(value).map_err(|what| {
                entry_error(format!(
                    "[{name}] {key} is {what}; write a text, a number, true, false, or a list"
                ))
            })? {
                // Checked even if something else wins, so that a wrong file is found at once.
                from_file.push((said, OsString::from(format!("--{long}={text}"))));
            }
        }
    }
    check(command, name, &from_file, &entry_error)?;
    let mut all = args.to_vec();
    all.extend(from_file.into_iter().filter(|(said, _)| !said).map(|(_, flag)| flag));
    Ok(command.clone().try_get_matches_from(all)?)
}

/// `command`, but nothing of its subcommand `name` is required.
pub fn lenient(command: &Command, name: &str) -> Command {
    command.clone().mut_subcommand(name, |sub| sub.mut_args(|arg| arg.required(false)))
}

/// Parses each entry by itself, for an error that says the file is at fault.
fn check(
    command: &Command,
    name: &str,
    entries: &[(bool, OsString)],
    entry_error: &dyn Fn(String) -> ConfigFileError,
) -> Result<(), ConfigFileError> {
    let lenient = lenient(command, name);
    for (_, entry) in entries {
        let args = [OsString::from("orch"), OsString::from(name), entry.clone()];
        if let Err(error) = lenient.clone().try_get_matches_from(args) {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return Err(entry_error(first.trim_start_matches("error: ").to_owned()));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, ConfigFileError> {
    use std::io::Read;
    let failed = |source| ConfigFileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let most = CONFIG_FILE_BYTES_MAX as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(failed)?;
    if text.len() > CONFIG_FILE_BYTES_MAX {
        return Err(ConfigFileError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

/// A value as the words of a flag; what it is instead if it can't be one.
fn words(value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::String(text) => Ok(vec![text.clone()]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Float(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(truth) => Ok(vec![truth.to_string()]),
        toml::Value::Array(items) => {
            items.iter().map(words).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
        }
        // A table is a list of KEY=VALUE: [agent.attr] zone = "a".
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, value)| match words(value)?.as_slice() {
                [one] => Ok(format!("{key}={one}")),
                _ => Err("a list within a table"),
            })
            .collect(),
        toml::Value::Datetime(_) => Err("a date"),
    }
}
