//! `orch zk watch`: changes as they happen.

use clap::Args;

use super::node_path;
use crate::api::view::problem::ProblemDetails;
use crate::api::view::query::WatchZk;
use crate::api::view::zk::ZkChange;
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::lines::Lines;
use crate::cli::output::note;
use crate::cli::words::printable;

/// Flags of `orch zk watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The node
    #[arg(value_name = "PATH", value_parser = node_path, default_value = "/")]
    path: String,
    /// Nodes below it as well
    #[arg(long, short)]
    recursive: bool,
    /// Changes behind this position, then those to come; orch zk stat tells the position of now
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
}

pub(super) async fn run(args: WatchArgs, context: &Context) -> Outcome {
    tokio::select! {
        outcome = follow(args, context) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Exit::DONE),
    }
}

/// Goes on at another server where one breaks off.
async fn follow(args: WatchArgs, context: &Context) -> Outcome {
    let mut since = args.since;
    loop {
        let query = WatchZk { path: Some(args.path.clone()), recursive: args.recursive, since };
        let call = Call::get(["zk", "watch"]).query(&query).streaming("text/event-stream");
        let mut lines = Lines::of(context.client.send(call).await?);
        loop {
            match lines.next_event().await {
                Ok(Some(data)) => {
                    let change = read(&data)?;
                    let Some(change) = change else { break };
                    since = Some(change.position);
                    context.output.item(&change, || {
                        let ZkChange { position, change, path, zxid } = &change;
                        printable(&format!("{position:>8}  {change:<8}  {path}  ({zxid})"))
                    })?;
                }
                Ok(None) => break,
                Err(failure) if failure.passing => break,
                Err(failure) => return Err(failure),
            }
        }
        note("the stream ended; going on");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// A change; none if the server only stops.
fn read(data: &str) -> Result<Option<ZkChange>, Failure> {
    match serde_json::from_str(data) {
        Ok(change) => Ok(Some(change)),
        Err(error) => match serde_json::from_str::<ProblemDetails>(data) {
            Ok(problem) if problem.status == 503 => Ok(None),
            Ok(problem) => Err(Failure::new(Exit::REFUSED, problem.detail)),
            Err(_) => Err(Failure::failed(format!("the server sent no change: {error}"))),
        },
    }
}
