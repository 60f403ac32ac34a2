//! `orch server`, `orch agent`, `orch dev` and `orch config`: settings, signals, and the log on
//! standard error.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, CommandFactory, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::command::{Cli, Globals, install_crypto};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::note;
use crate::config::{self, ConfigFileError, Process, Setting, SettingsError};
pub(super) use crate::config::{AgentFlags, DevFlags, ServerFlags};
use crate::node::{self, NodeError, Stop};

/// The commands that take a settings file.
const STARTERS: [&str; 3] = ["server", "agent", "dev"];

/// What servers and agents log unless `ORCH_LOG` says otherwise.
const LOG: &str = "info,openraft=error,sled=warn,h2=warn,hyper=warn,tonic=warn,tower=warn";
/// What `orch dev` logs: its user looks at the shell beside it.
const LOG_DEV: &str = "warn,openraft=error,sled=error";

/// Verbs of `orch config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Show the settings that a command would start with, and where each came from
    #[command(after_help = "Examples:
  orch config show                                     of orch server, from the environment
  orch config show agent --config /etc/orch/agent.toml
  ORCH_NODE_TIMEOUT=30s orch config show -o json")]
    Show {
        /// Of which command
        #[arg(value_enum, default_value = "server")]
        command: Starter,
        /// Settings file (TOML)
        #[arg(long, env = "ORCH_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Starter {
    Server,
    Agent,
    Dev,
}

/// Parses `args`, with the settings file that they or `ORCH_CONFIG` name.
///
/// # Errors
/// clap's refusals (help and version too), or what is wrong with the file.
pub(super) fn matches(command: &Command, args: &[OsString]) -> Result<ArgMatches, ConfigFileError> {
    match settings_file(command, args) {
        Some((name, path)) => config::with_file(command, args, &name, &path),
        None => Ok(command.clone().try_get_matches_from(args)?),
    }
}

/// Which file goes with which command, if one is named.
fn settings_file(command: &Command, args: &[OsString]) -> Option<(String, PathBuf)> {
    let mut lenient = command.clone();
    for name in STARTERS {
        lenient = config::lenient(&lenient, name);
    }
    let given = lenient.try_get_matches_from(args).ok()?;
    let (name, sub) = given.subcommand()?;
    if !STARTERS.contains(&name) || sub.subcommand().is_some() {
        return None;
    }
    let path = sub.get_one::<PathBuf>("config")?;
    Some((name.to_owned(), path.clone()))
}

pub(super) fn server(flags: &ServerFlags) -> Outcome {
    run(flags.process()?, LOG, || {})
}

pub(super) fn agent(flags: &AgentFlags) -> Outcome {
    run(flags.process()?, LOG, || {})
}

pub(super) fn dev(flags: &DevFlags) -> Outcome {
    // Dropped at the very end, and with it what is in it.
    let throw_away = match &flags.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("orch-dev-").tempdir().map_err(|error| {
            Failure::failed(format!("can't make a directory for throw-away data: {error}"))
                .hint("name a directory with --data-dir, or another TMPDIR")
        })?),
    };
    let data_dir = match (&flags.data_dir, &throw_away) {
        (Some(kept), _) => kept.clone(),
        (None, Some(gone)) => gone.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    let api = flags.api_addr;
    let end = match throw_away {
        Some(_) => "Data and work are thrown away at the end; --data-dir keeps them.",
        None => "Data is kept, and work runs on without it.",
    };
    run(flags.process(data_dir)?, LOG_DEV, move || {
        note(&format!(
            "orch dev is ready: http://{api}\n{end} Ctrl-C ends it.\n\nIn another shell:\n  \
             export ORCH_ADDR=http://{api}\n  orch run FILE"
        ));
    })
}

pub(super) fn config(args: ConfigArgs, globals: &Globals) -> Outcome {
    let ConfigVerb::Show { command, config: file } = args.verb;
    let name = match command {
        Starter::Server => "server",
        Starter::Agent => "agent",
        Starter::Dev => "dev",
    };
    let settings = effective(&Cli::command(), name, file.as_ref())?;
    let context = Context::new(globals)?;
    let headers = ["SETTING", "VALUE", "SOURCE", "VARIABLE"];
    context.output.rows(&settings, &headers, "no settings", |setting: &Setting| {
        vec![
            setting.name.clone().into(),
            setting.value.clone().unwrap_or_else(|| "-".to_owned()).into(),
            setting.source.to_string().into(),
            setting.variable.clone().into(),
        ]
    })?;
    Ok(Exit::DONE)
}

/// The settings that `orch NAME` would start with, from the environment and `file`.
fn effective(
    command: &Command,
    name: &str,
    file: Option<&PathBuf>,
) -> Result<Vec<Setting>, ConfigFileError> {
    let lenient = config::lenient(command, name);
    let args = [OsString::from("orch"), OsString::from(name)];
    let before = lenient.clone().try_get_matches_from(&args)?;
    let after = match file {
        Some(path) => config::with_file(&lenient, &args, name, path)?,
        None => before.clone(),
    };
    let (Some(sub), Some(before), Some(after)) = (
        lenient.find_subcommand(name),
        before.subcommand_matches(name),
        after.subcommand_matches(name),
    ) else {
        return Ok(Vec::new());
    };
    Ok(config::effective(sub, before, after))
}

/// Runs until SIGTERM or SIGINT; a second one ends at once.
fn run(process: Process, log: &str, started: impl FnOnce()) -> Outcome {
    let filter = match std::env::var("ORCH_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter).map_err(|error| {
            Failure::usage(format!("ORCH_LOG={filter:?}: {error}"))
                .hint("write a level, as info, or levels by part, as warn,orch::agent=debug")
        })?,
        Err(_) => EnvFilter::new(log),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        let stop = Stop::default();
        tokio::spawn(follow_signals(stop.clone()).map_err(NodeError::Signals)?);
        node::run(process, stop, started).await
    });
    // Threads that wait for a disk or an engine must not hold the end up.
    runtime.shutdown_timeout(match &ended {
        Err(NodeError::StoppedAtOnce) => std::time::Duration::ZERO,
        _ => std::time::Duration::from_secs(1),
    });
    ended.map(|()| Exit::DONE).map_err(|error| Failure::failed(error.to_string()))
}

/// Threads for tasks. One core is left to the log's thread, on which every write waits: a worker that
/// is woken only to find nothing to do would take it away just then. Whatever takes long has threads
/// of its own. Never one alone: a task that is woken by the one that runs must not wait for it.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).max(2)
}

fn follow_signals(stop: Stop) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for token in [&stop.orderly, &stop.now] {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
            token.cancel();
        }
    })
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConfigFileError> for Failure {
    fn from(error: ConfigFileError) -> Self {
        Self::usage(error.to_string())
    }
}
