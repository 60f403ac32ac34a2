//! `orch var`: small pieces of configuration, kept in the cluster.

use std::io::Read;
use std::path::Path;

use base64::Engine;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome, root_cause};
use super::output::{Cell, note};
use super::target::ProjectFlag;
use super::words::{age, bytes, job_name};
use crate::api::view::query::{ListVariables, ProjectRead, WriteVariable};
use crate::api::view::variable::{VariableRow, VariableWritten};
use crate::limits::VARIABLE_VALUE_BYTES_MAX;
use crate::model::variable::VariablePath;

/// Verbs of `orch var`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch var put db/host 10.0.0.5
  orch var put db/cert @cert.pem       from a file; - is standard input
  orch var get db/host
  orch var ls db/
  orch var put leader me --if-index 0  only if there is none")]
pub(super) struct VarArgs {
    #[command(subcommand)]
    verb: VarVerb,
}

#[derive(Debug, Subcommand)]
enum VarVerb {
    /// Print a variable's value
    Get {
        /// The variable, as db/host
        #[arg(value_name = "PATH", value_parser = path)]
        path: VariablePath,
        #[command(flatten)]
        project: ProjectFlag,
    },
    /// Write a variable
    Put {
        /// The variable, as db/host
        #[arg(value_name = "PATH", value_parser = path)]
        path: VariablePath,
        /// The value; @FILE for a file's bytes, - for standard input
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
        /// Only if it was last written at this index; 0: only if there is none
        #[arg(long, value_name = "INDEX")]
        if_index: Option<u64>,
        #[command(flatten)]
        project: ProjectFlag,
    },
    /// List variables
    Ls {
        /// Only paths that begin so
        #[arg(value_name = "PREFIX")]
        prefix: Option<String>,
        #[command(flatten)]
        project: ProjectFlag,
    },
    /// Delete a variable
    Rm {
        /// The variable, as db/host
        #[arg(value_name = "PATH", value_parser = path)]
        path: VariablePath,
        /// Only if it was last written at this index
        #[arg(long, value_name = "INDEX")]
        if_index: Option<u64>,
        #[command(flatten)]
        project: ProjectFlag,
    },
}

fn path(text: &str) -> Result<VariablePath, String> {
    text.to_owned()
        .try_into()
        .map_err(|error: crate::model::variable::VariablePathError| error.to_string())
}

/// A variable for programs; exactly one of the values is there.
#[derive(Debug, Serialize)]
struct Value<'v> {
    path: &'v str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'v str>,
    /// Of bytes that are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    modified_index: Option<u64>,
}

const HINT: &str = "orch var ls lists the variables there are";

fn route(path: &VariablePath) -> impl Iterator<Item = &str> {
    std::iter::once("variables").chain(path.as_str().split('/'))
}

pub(super) async fn run(args: VarArgs, context: &Context) -> Outcome {
    match args.verb {
        VarVerb::Get { path, project } => get(&path, &project, context).await?,
        VarVerb::Put { path, value, if_index, project } => {
            let query = WriteVariable { project: project.name(), if_index };
            let call = Call::new(Method::PUT, route(&path))
                .query(&query)
                .body(value_bytes(&value)?, "application/octet-stream")
                .hint(HINT);
            let written: VariableWritten = context.client.json(call).await?;
            context.output.value(&written, || format!("{path} is written at {}", written.index))?;
        }
        VarVerb::Ls { prefix, project } => list(prefix, &project, context).await?,
        VarVerb::Rm { path, if_index, project } => {
            let query = WriteVariable { project: project.name(), if_index };
            let call = Call::new(Method::DELETE, route(&path)).query(&query).hint(HINT);
            context.client.send(call).await?;
            note(&format!("{path} is deleted"));
        }
    }
    Ok(Exit::DONE)
}

async fn get(path: &VariablePath, project: &ProjectFlag, context: &Context) -> Result<(), Failure> {
    let query = ProjectRead { project: project.name(), consistency: context.consistency };
    let call = Call::get(route(path)).query(&query).hint(HINT);
    let response = context.client.send(call).await?;
    let tag = response.headers().get(reqwest::header::ETAG).and_then(|tag| tag.to_str().ok());
    let modified_index = tag.and_then(|tag| tag.trim_matches('"').parse().ok());
    let bytes = response.bytes().await.map_err(|error| Failure::failed(root_cause(&error)))?;
    if context.output.for_people() {
        context.output.bytes(&bytes)?;
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) && !bytes.ends_with(b"\n") {
            context.output.bytes(b"\n")?;
        }
        return Ok(());
    }
    let text = std::str::from_utf8(&bytes).ok();
    let value_base64 = match text {
        Some(_) => None,
        None => Some(base64::engine::general_purpose::STANDARD.encode(&bytes)),
    };
    let value = Value { path: path.as_str(), value: text, value_base64, modified_index };
    context.output.value(&value, String::new)
}

fn value_bytes(value: &str) -> Result<Vec<u8>, Failure> {
    let most = VARIABLE_VALUE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if value == "-" {
        std::io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("can't read standard input: {error}")))?;
    } else if let Some(file) = value.strip_prefix('@') {
        std::fs::File::open(Path::new(file))
            .and_then(|file| file.take(most).read_to_end(&mut bytes))
            .map_err(|error| Failure::failed(format!("can't read {file}: {error}")))?;
    } else {
        bytes.extend_from_slice(value.as_bytes());
    }
    if bytes.len() > VARIABLE_VALUE_BYTES_MAX {
        return Err(Failure::failed(format!(
            "the value is longer than the {VARIABLE_VALUE_BYTES_MAX} bytes that a variable holds"
        )));
    }
    Ok(bytes)
}

async fn list(
    prefix: Option<String>,
    project: &ProjectFlag,
    context: &Context,
) -> Result<(), Failure> {
    let output = &context.output;
    let query = ListVariables {
        project: project.name(),
        prefix,
        consistency: context.consistency,
        ..ListVariables::default()
    };
    let call = Call::get(["variables"]).query(&query);
    let rows: Vec<VariableRow> = context.client.list(call).await?;
    output.rows(&rows, &["PATH", "SIZE", "INDEX", "WRITTEN"], "no variables", |row| {
        vec![
            job_name(&row.project, &row.path).into(),
            bytes(row.size).into(),
            Cell::number(row.modified_index),
            age(output.now, row.modified_at).into(),
        ]
    })
}
