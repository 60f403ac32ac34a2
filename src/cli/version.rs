//! `orch version`.

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Outcome};

/// This binary, for programs.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    /// `x86_64-linux`.
    platform: String,
}

pub(super) fn print(context: &Context) -> Outcome {
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let version = Version { version: env!("CARGO_PKG_VERSION"), platform };
    context.output.value(&version, || format!("orch {} {}", version.version, version.platform))?;
    Ok(Exit::DONE)
}
