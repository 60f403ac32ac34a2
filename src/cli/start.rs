//! `orch server`, `orch agent`, `orch dev` and `orch config`: what runs until it is stopped.

use clap::Args;

use super::command::Globals;
use super::failure::{Failure, Outcome};

/// Flags of `orch server` without a verb.
#[derive(Debug, Args)]
pub(super) struct ServerFlags {}

/// Flags of `orch agent`.
#[derive(Debug, Args)]
pub(super) struct AgentFlags {}

/// Flags of `orch dev`.
#[derive(Debug, Args)]
pub(super) struct DevFlags {}

/// Verbs of `orch config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {}

fn not_here() -> Failure {
    Failure::failed("this build runs no servers")
}

pub(super) fn server(_: ServerFlags, _: &Globals) -> Outcome {
    Err(not_here())
}

pub(super) fn agent(_: AgentFlags, _: &Globals) -> Outcome {
    Err(not_here())
}

pub(super) fn dev(_: DevFlags, _: &Globals) -> Outcome {
    Err(not_here())
}

pub(super) fn config(_: ConfigArgs, _: &Globals) -> Outcome {
    Err(not_here())
}
