//! `orch server ls|remove|transfer`: the cluster's servers. Without a verb it starts one; see
//! `start`.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::output::{Cell, note};
use super::start::ServerFlags;
use super::words::or_dash;
use crate::api::view::server::{ServerRow, TransferReply, TransferRequest};
use crate::model::name::ServerName;

/// Verbs and flags of `orch server`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  orch server --name s1 --data-dir /var/lib/orch --insecure    run one
  orch server ls                                               who is in the cluster, who leads
  orch server remove s3                                        take a member out for good"
)]
pub(super) struct ServerArgs {
    #[command(subcommand)]
    pub(super) verb: Option<ServerVerb>,
    #[command(flatten)]
    pub(super) start: ServerFlags,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServerVerb {
    /// List the cluster's servers
    Ls,
    /// Take a server out of the cluster; it can't come back under its identity
    Remove {
        /// The server
        #[arg(value_name = "SERVER")]
        server: ServerName,
    },
    /// Hand leadership over
    Transfer {
        /// To whom; to whoever is furthest unless given
        #[arg(value_name = "SERVER")]
        server: Option<ServerName>,
        /// The same
        #[arg(long, value_name = "SERVER", conflicts_with = "server")]
        to: Option<ServerName>,
    },
}

const HINT: &str = "orch server ls lists the servers there are";

pub(super) async fn run(verb: ServerVerb, context: &Context) -> Outcome {
    let output = &context.output;
    match verb {
        ServerVerb::Ls => {
            let rows: Vec<ServerRow> = context
                .client
                .json::<crate::api::view::Page<_>>(Call::get(["servers"]))
                .await?
                .items;
            let all =
                ["SERVER", "ROLE", "REACHABLE", "LAST", "APPLIED", "API", "RPC", "VERSION", "ID"];
            let headers = if output.is_wide() { &all[..] } else { all.split_at(7).0 };
            output.rows(&rows, headers, "no servers", |row| {
                let index = |index: Option<u64>| {
                    or_dash(index.map(|index| index.to_string()).unwrap_or_default())
                };
                let mut cells: Vec<Cell> = vec![
                    row.name.clone().into(),
                    Cell::state(&row.role),
                    Cell::state(if row.reachable { "yes" } else { "no" }),
                    index(row.last_log_index).into(),
                    index(row.applied_index).into(),
                    row.api_addr.clone().into(),
                    row.rpc_addr.clone().into(),
                ];
                if output.is_wide() {
                    cells.push(or_dash(row.version.clone().unwrap_or_default()).into());
                    cells.push(row.id.clone().into());
                }
                cells
            })?;
        }
        ServerVerb::Remove { server } => {
            let call =
                Call::new(Method::DELETE, ["servers", server.as_str()]).without_key().hint(HINT);
            context.client.send(call).await?;
            note(&format!("{server} is no longer in the cluster"));
        }
        ServerVerb::Transfer { server, to } => {
            let to = server.or(to).map(|server| server.to_string());
            let call = Call::new(Method::POST, ["servers", "transfer"])
                .json(&TransferRequest { to })?
                .without_key()
                .hint(HINT);
            let reply: TransferReply = context.client.json(call).await?;
            output.value(&reply, || format!("{} leads", reply.leader))?;
        }
    }
    Ok(Exit::DONE)
}
