//! `orch zk migrate cutover`: the clients come here, with the sessions that they have.
//!
//! Whatever breaks it off, the state itself says what came of it: an attempt that was sent and not
//! answered is called off, and the answer to that is either that it is off, or that the clients are
//! here already.

use std::cell::Cell;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoints::Endpoints;
use super::feed::Feed;
use super::migrate::{LAG_MAX, read};
use super::ports::{Ports, to_watch, unwatched};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::note;
use crate::config::host_name;
use crate::migrate::zookeeper::link::LiveSource;
use crate::model::time::Millis;
use crate::zookeeper::client::Ensemble;

/// Between looks. Each is a connection to every client port that is still open.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Signs of life of the source, all at the same transaction as the copy, that must come once the
/// ports are closed: one may have been on its way before.
const HEARD_AFTER: u64 = 2;
/// A source that was silent for longer is not followed, whatever the state says.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the source may take to come to rest if it has no sessions.
const REST_WAIT: Duration = Duration::from_secs(30);
/// How long an endpoint may take to open.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long it is tried to learn what came of an attempt.
const SETTLE_WAIT: Duration = Duration::from_secs(60);

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
    /// Go on even if a client port was never seen open from here
    #[arg(long)]
    force: bool,
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
    /// How long clients had no server, in milliseconds: from when nobody could connect to any of
    /// the ensemble's client ports until an endpoint here accepted a session. None: none was seen
    /// to do so from here.
    without_server_ms: Option<u64>,
}

/// What has been asked of people and servers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Looking,
    /// The operator was told to close the ports; the command may have been sent.
    Closing,
}

/// What came of an attempt that broke off.
enum Settled {
    /// Nothing, nor will anything: it is in this phase.
    Off(String),
    /// The clients are here.
    CutOver(Box<ZkImportRow>),
    /// It could not be learnt.
    Unknown(Failure),
}

/// What both ends of an attempt need.
struct Attempt<'a> {
    feed: Feed<'a>,
    name: &'a str,
    stage: Cell<Stage>,
    /// From when on clients have no server.
    closed: Cell<Option<Instant>>,
}

pub(super) async fn run(args: CutOverArgs, context: &Context) -> Outcome {
    let feed = Feed::new(&args.name, context);
    let (stage, closed) = (Cell::new(Stage::Looking), Cell::new(None));
    let attempt = Attempt { feed, name: &args.name, stage, closed };
    let endpoints = Endpoints::find(context).await?;
    let broken = tokio::select! {
        outcome = attempt.cut_over(&args, context) => match outcome {
            Ok(row) => return attempt.report(row, &endpoints, context).await,
            Err(failure) => failure,
        },
        _ = tokio::signal::ctrl_c() => Failure::new(Exit::INTERRUPTED, "interrupted"),
    };
    if attempt.stage.get() == Stage::Looking {
        return Err(match broken.exit {
            Exit::INTERRUPTED => broken.hint("the same command again; nothing was changed"),
            _ => broken,
        });
    }
    let settled = tokio::select! {
        settled = attempt.settle() => settled,
        _ = tokio::signal::ctrl_c() => Settled::Unknown(Failure::failed("interrupted again")),
    };
    let (name, why) = (attempt.name, broken.what.clone());
    match settled {
        Settled::CutOver(row) => {
            note(&format!("{why}; but {name} is cut over: the clients are here"));
            let exit = broken.exit;
            let reported = attempt.report(*row, &endpoints, context).await?;
            Ok(if exit == Exit::INTERRUPTED { exit } else { reported })
        }
        Settled::Off(phase) => Err(Failure {
            what: format!(
                "{why}. Nothing was cut over, nor will this attempt be any more: {name} is {phase}"
            ),
            hint: format!(
                "open the client ports of the ensemble again: its sessions live on; then look at \
                 orch zk migrate status {name}"
            ),
            ..broken
        }),
        Settled::Unknown(unknown) => Err(Failure {
            what: format!("{why}. Whether {name} is cut over could not be learnt: {unknown}"),
            hint: format!(
                "orch zk migrate status {name}. Leave the ensemble's client ports closed until it \
                 says something else than: cut over"
            ),
            ..broken
        }),
    }
}

impl Attempt<'_> {
    async fn cut_over(
        &self,
        args: &CutOverArgs,
        context: &Context,
    ) -> Result<ZkImportRow, Failure> {
        let row = fit(read(&self.feed).await?, context)?;
        let source: LiveSource =
            row.source.parse().map_err(|error| Failure::failed(format!("{error}")))?;
        let given = args.client_ports.clone().or(source.clients);
        let watched = to_watch(given.map(|ensemble| ensemble.servers), &row.members)?;
        let mut ports = self.see_open(&watched, &row, args.force).await?;
        note("comparing the copy with the source: nodes, access lists, sessions");
        let deadline = Instant::now() + args.timeout.as_duration();
        let asked = self.feed.step(&ZkStep::Compare).await?;
        let since = super::number(asked.compare_since.as_deref().unwrap_or(&asked.zxid))?;
        let compared_copy = loop {
            let row = going(read(&self.feed).await?)?;
            let compared = row.compared_at.as_deref().map(super::number).transpose()?;
            if compared.is_some_and(|zxid| zxid >= since) {
                break row;
            }
            pause(deadline, || "the comparison".to_owned()).await?;
        };
        let shortest = shortest_timeout(&compared_copy);
        self.stage.set(Stage::Closing);
        ask_to_close(&ports, &compared_copy, shortest);
        let closed = loop {
            for remark in ports.look().await {
                note(&remark);
            }
            if let Some(closed) = ports.closed_since(Instant::now()) {
                break closed;
            }
            let still = || ports.not_closed(Instant::now()).join(", ");
            pause(deadline, || format!("the client ports to be closed ({})", still())).await?;
        };
        self.closed.set(Some(closed));
        note("all are closed; waiting for the last transactions");
        // Signs of life are counted while the copy stays at one transaction: one that comes ahead of
        // others still on their way is followed by those.
        let mut rest: Option<(String, u64)> = None;
        let mut compared_again = false;
        let too_late = closed + shortest.map_or(REST_WAIT, |shortest| shortest * 2 / 3);
        let mut refused: Option<(String, Failure)> = None;
        loop {
            let (row, _) = tokio::join!(read(&self.feed), ports.look());
            let row = going(row?)?;
            if ports.closed_since(Instant::now()).is_none() {
                let open = ports.not_closed(Instant::now()).join(", ");
                return Err(Failure::failed(format!("a client port is open again: {open}")));
            }
            if row.generation != compared_copy.generation {
                return Err(Failure::failed(
                    "the source was copied anew since the comparison, perhaps because another of \
                     its servers leads; this copy was not compared yet",
                ));
            }
            let (_, base) = rest
                .take_if(|(zxid, _)| *zxid == row.zxid)
                .unwrap_or_else(|| (row.zxid.clone(), row.heard));
            rest = Some((row.zxid.clone(), base));
            let heard = row.heard >= base + HEARD_AFTER;
            if heard && row.unverified_since.is_some() && !compared_again {
                // Nothing comes any more that could prove it.
                compared_again = true;
                self.feed.step(&ZkStep::Compare).await?;
            }
            let at_rest = row.lag_transactions == Some(0) && row.unverified_since.is_none();
            if let Some((_, why)) = refused.take_if(|(zxid, _)| *zxid == row.zxid) {
                return Err(why);
            }
            if heard && at_rest {
                let (at, attempt) = (row.zxid.clone(), Some(row.attempt));
                let step = ZkStep::CutOver { at, attempt };
                match timeout_at(too_late, self.feed.step(&step)).await {
                    Ok(Ok(row)) => return Ok(row),
                    // Perhaps because one more transaction has come.
                    Ok(Err(why)) if why.exit == Exit::REFUSED => refused = Some((row.zxid, why)),
                    Ok(Err(why)) => return Err(why),
                    Err(_) => {
                        let what = "the servers did not answer to the cut-over in time";
                        return Err(Failure::failed(what));
                    }
                }
            }
            pause(too_late, || "the source to come to rest".to_owned()).await?;
        }
    }

    /// Looks at the ports while they should be open, and remembers those that are.
    async fn see_open(
        &self,
        watched: &[String],
        row: &ZkImportRow,
        force: bool,
    ) -> Result<Ports, Failure> {
        if let Some(warning) = unwatched(watched, &row.members) {
            note(&warning);
        }
        let ports = Ports::new(watched).await;
        let (open, from) = (ports.open(), host_name());
        if !open.is_empty() {
            self.feed.step(&ZkStep::PortsOpen { ports: open, from: from.clone() }).await?;
        }
        match ports.must_have_been_open(&row.ports_seen, &from) {
            Err(failure) if force => {
                note(&format!("note: {failure}; going on, as --force says:\n{}", failure.details));
            }
            Err(failure) => return Err(failure),
            Ok(()) => {}
        }
        Ok(ports)
    }

    /// Calls off what is on its way, and learns from the answer what came of it.
    async fn settle(&self) -> Settled {
        let deadline = Instant::now() + SETTLE_WAIT;
        let call_off = async {
            // An answer is waited for, but not for ever: another server may give one.
            let path = ["zk", "imports", self.name, "steps"];
            let call = Call::new(Method::POST, path).json(&ZkStep::CallOff)?;
            self.feed.context.client.json::<ZkImportRow>(call).await
        };
        match timeout_at(deadline, call_off).await {
            Ok(Ok(row)) => return Settled::Off(row.phase.replace('_', " ")),
            Ok(Err(failure)) if failure.exit == Exit::REFUSED => {}
            Ok(Err(failure)) => return Settled::Unknown(failure),
            Err(_) => return Settled::Unknown(Failure::failed("no server answers")),
        }
        match timeout(SETTLE_WAIT, read(&self.feed)).await {
            Ok(Ok(row)) if matches!(row.phase.as_str(), "cut_over" | "finished") => {
                Settled::CutOver(Box::new(row))
            }
            Ok(Ok(row)) => Settled::Off(row.phase.replace('_', " ")),
            Ok(Err(failure)) => Settled::Unknown(failure),
            Err(_) => Settled::Unknown(Failure::failed("no server answers")),
        }
    }

    /// Waits for the clients to be able to come, and tells how it went.
    async fn report(&self, row: ZkImportRow, endpoints: &Endpoints, context: &Context) -> Outcome {
        let accepted = tokio::select! {
            accepted = endpoints.accept(Instant::now() + OPEN_WAIT) => accepted,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        };
        let outage = |accepted: &Instant| {
            let closed = self.closed.get()?;
            u64::try_from(accepted.saturating_duration_since(closed).as_millis()).ok()
        };
        let without_server_ms = accepted.as_ref().ok().and_then(outage);
        let name = self.name;
        let report = Report {
            name: name.to_owned(),
            zxid: row.cut_over_zxid.unwrap_or_default(),
            digest: row.digest,
            proven: row.proven,
            sessions: row.sessions,
            ephemerals: row.ephemerals,
            without_server_ms,
        };
        context.output.value(&report, || {
            let outage = without_server_ms.map_or_else(String::new, |ms| {
                format!("they were without a server for {:.1} s\n", ms as f64 / 1000.0)
            });
            format!(
                "clients are here: {} sessions, {} ephemeral nodes, transaction {}, digest {}\n\
                 {outage}next: leave the ensemble's client ports closed and stop its servers, keep \
                 their data until orch zk migrate finish {name}",
                report.sessions, report.ephemerals, report.zxid, report.digest,
            )
        })?;
        match accepted {
            Ok(_) => Ok(Exit::DONE),
            Err(why) => Err(Failure::failed(format!(
                "{name} is cut over, but from here no endpoint was seen to accept a session yet \
                 ({}): {why}",
                endpoints.names()
            ))
            .hint(format!(
                "see from a client's machine whether they can be reached, and what the servers' \
                 logs say of --zk-addr; if clients can't come, orch zk migrate rollback {name} \
                 --to DIR takes them back"
            ))),
        }
    }
}

/// Waits for the next look.
async fn pause(deadline: Instant, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if Instant::now() >= deadline {
        return Err(Failure::failed(format!("waited for {} in vain", what())));
    }
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}

fn shortest_timeout(row: &ZkImportRow) -> Option<Duration> {
    let ms = row.shortest_timeout_ms.and_then(|ms| u64::try_from(ms).ok());
    ms.filter(|ms| *ms > 0).map(Duration::from_millis)
}

fn ask_to_close(ports: &Ports, row: &ZkImportRow, shortest: Option<Duration>) {
    note(&format!(
        "equal at {}. Now close ALL client ports of the ensemble to everybody: {}\n  \
         with a firewall on each of its servers, as\n    \
         iptables -I INPUT -p tcp --dport 2181 -j REJECT --reject-with tcp-reset\n  \
         and leave its servers running: what they still have on its way must come here{}",
        row.compared_at.as_deref().unwrap_or_default(),
        ports.names(),
        shortest.map_or(String::new(), |shortest| format!(
            "\n  from then on all must be over within {:.1} s, the shortest session time-out",
            shortest.as_secs_f64()
        ))
    ));
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
