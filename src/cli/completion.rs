//! `orch completion`: scripts that complete commands in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::command::Cli;
use super::failure::{Exit, Outcome};
use super::output::print_bytes;

/// Flags of `orch completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(orch completion bash)                                          for this shell
  orch completion bash > /usr/share/bash-completion/completions/orch      for all
  orch completion zsh > \"${fpath[1]}/_orch\"")]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn print(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "orch", &mut script);
    print_bytes(&script)?;
    Ok(Exit::DONE)
}
