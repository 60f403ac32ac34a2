//! `orch zk migrate cutover`: the clients come here, with the sessions that they have.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::feed::Feed;
use super::migrate::{LAG_MAX, read};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::note;
use crate::migrate::zookeeper::link::LiveSource;
use crate::model::time::Millis;
use crate::zookeeper::client::Ensemble;

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A port that does not answer for so long is closed.
const PORT_WAIT: Duration = Duration::from_millis(300);
/// Signs of life of the source, all at the same transaction as the copy, that must come once the
/// ports are closed: one may have been on its way before.
const HEARD_AFTER: u64 = 2;
/// A source that was silent for longer is not followed, whatever the state says.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Flags of `orch zk migrate cutover`.
#[derive(Debug, Args)]
pub(super) struct CutOverArgs {
    /// Name of the migration
    #[arg(value_name = "NAME")]
    name: String,
    /// The client ports to watch, as HOST:2181,… [default: those named at the start]
    #[arg(long, value_name = "HOST:PORT,…")]
    client_ports: Option<Ensemble>,
    /// How long to wait for the ports to be closed
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: Millis,
}

/// What it came to, for programs.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    /// The source's last transaction.
    zxid: String,
    digest: String,
    /// Transactions proven by digest.
    proven: u64,
    sessions: u64,
    ephemerals: u64,
    /// How long clients had no server, in milliseconds: from when the last port was found closed.
    without_server_ms: u64,
}

pub(super) async fn run(args: CutOverArgs, context: &Context) -> Outcome {
    let name = args.name.clone();
    let cut_over = tokio::select! {
        outcome = cut_over(args, context) => outcome,
        _ = tokio::signal::ctrl_c() => {
            note(&format!(
                "interrupted. Before you open any client port of the ensemble again, see that \
                 orch zk migrate status {name} does not say: cut over"
            ));
            return Ok(Exit::INTERRUPTED);
        }
    };
    let report = cut_over?;
    context.output.value(&report, || {
        format!(
            "clients are here: {} sessions, {} ephemeral nodes, transaction {}, digest {}\n\
             they were without a server for {:.1} s\n\
             next: leave the ensemble's client ports closed and stop its servers, keep their data \
             until orch zk migrate finish {name}",
            report.sessions,
            report.ephemerals,
            report.zxid,
            report.digest,
            report.without_server_ms as f64 / 1000.0,
        )
    })?;
    Ok(Exit::DONE)
}

async fn cut_over(args: CutOverArgs, context: &Context) -> Result<Report, Failure> {
    let CutOverArgs { name, client_ports, timeout } = args;
    let feed = Feed::new(&name, context);
    let row = fit(read(&feed).await?, context)?;
    let source: LiveSource =
        row.source.parse().map_err(|error| Failure::failed(format!("{error}")))?;
    let ports = client_ports.or(source.clients).ok_or_else(|| {
        Failure::usage("nobody said where the ensemble's clients connect")
            .hint("name the ports with --client-ports zk1:2181,zk2:2181,zk3:2181")
    })?;
    note("comparing the copy with the source: nodes, access lists, sessions");
    let deadline = Instant::now() + timeout.as_duration();
    let asked = feed.step(&ZkStep::Compare).await?;
    let since = super::number(asked.compare_since.as_deref().unwrap_or(&asked.zxid))?;
    let row = until(deadline, "the comparison", || async {
        let row = going(read(&feed).await?)?;
        let compared = row.compared_at.as_deref().map(super::number).transpose()?;
        Ok(compared.is_some_and(|zxid| zxid >= since).then_some(row))
    })
    .await?;
    let shortest = row.shortest_timeout_ms.filter(|ms| *ms > 0);
    note(&format!(
        "equal at {}. Now close ALL client ports of the ensemble to everybody: {}\n  \
         with a firewall on each of its servers, as\n    \
         iptables -I INPUT -p tcp --dport 2181 -j REJECT --reject-with tcp-reset\n  \
         and leave its servers running: what they still have on its way must come here{}",
        row.compared_at.unwrap_or_default(),
        ports.servers.join(", "),
        shortest.map_or(String::new(), |ms| format!(
            "\n  from then on all must be over within {:.1} s, the shortest session time-out",
            f64::from(ms) / 1000.0
        ))
    ));
    let mut closed_at = None;
    until(deadline, "the client ports to be closed", || async {
        let open = open_ports(&ports.servers).await;
        Ok(open.is_empty().then_some(()))
    })
    .await?;
    let closed = *closed_at.get_or_insert(Instant::now());
    note("all are closed; waiting for the last transactions");
    let at_close = going(read(&feed).await?)?;
    let allowed = shortest.map_or(Duration::from_secs(30), |ms| {
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)) * 2 / 3
    });
    let too_late = closed + allowed;
    let row = until(too_late, "the source to come to rest", || async {
        let row = going(read(&feed).await?)?;
        let heard = row.heard >= at_close.heard + HEARD_AFTER;
        let at_rest = row.lag_transactions == Some(0) && row.unverified_since.is_none();
        Ok((heard && at_rest).then_some(row))
    })
    .await
    .map_err(|failure| {
        failure.hint(
            "open the client ports of the ensemble again: nothing has changed, and its sessions \
             live on; then look at orch zk migrate status",
        )
    })?;
    let open = open_ports(&ports.servers).await;
    if !open.is_empty() {
        return Err(Failure::failed(format!("a client port is open again: {}", open.join(", "))));
    }
    let row = feed.step(&ZkStep::CutOver { at: row.zxid }).await?;
    let without_server_ms = u64::try_from(closed.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Report {
        name,
        zxid: row.cut_over_zxid.unwrap_or_default(),
        digest: row.digest,
        proven: row.proven,
        sessions: row.sessions,
        ephemerals: row.ephemerals,
        without_server_ms,
    })
}

/// Whether a cut-over may begin.
fn fit(row: ZkImportRow, context: &Context) -> Result<ZkImportRow, Failure> {
    let row = going(row)?;
    let refuse = |why: String| {
        let hint = format!("orch zk migrate status {} tells how it is", row.name);
        Err(Failure::new(Exit::REFUSED, why).hint(hint))
    };
    let silent = context.clock.now().since(row.heard_at.0).as_duration();
    if silent > SILENCE_MAX {
        return refuse(format!("the source was not heard for {} s", silent.as_secs()));
    }
    if row.lag_transactions.is_none_or(|lag| lag > LAG_MAX) {
        return refuse("the copy is too far behind the source".to_owned());
    }
    if row.unverified_since.is_some() {
        return refuse("the copy is not proven at the moment".to_owned());
    }
    Ok(row)
}

/// Whether the source is followed.
fn going(row: ZkImportRow) -> Result<ZkImportRow, Failure> {
    if row.phase == "following" {
        return Ok(row);
    }
    let why = match row.reason.as_str() {
        "" => format!("the migration {} is {}", row.name, row.phase.replace('_', " ")),
        reason => {
            format!("the migration {} is {}: {reason}", row.name, row.phase.replace('_', " "))
        }
    };
    Err(Failure::new(Exit::REFUSED, why))
}

/// Those that are not closed: only a refusal, or silence as behind a firewall, says that one is. A name
/// that is not found or a host without a route says nothing.
async fn open_ports(servers: &[String]) -> Vec<String> {
    let tries = servers.iter().map(|server| async move {
        let connect = tokio::time::timeout(PORT_WAIT, TcpStream::connect(server));
        let closed = match connect.await {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => true,
        };
        (!closed).then(|| server.clone())
    });
    futures::future::join_all(tries).await.into_iter().flatten().collect()
}

async fn until<T, F: Future<Output = Result<Option<T>, Failure>>>(
    deadline: Instant,
    what: &str,
    look: impl Fn() -> F,
) -> Result<T, Failure> {
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!("waited for {what} in vain; nothing was changed")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
