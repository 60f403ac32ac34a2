//! How a cluster with a Docker agent looks after services, beside Docker Swarm on the same engine,
//! in the same run, turn by turn.
//!
//! `sides.rs` has what both are asked for, `orch.rs` and `swarm.rs` how each is asked,
//! `measure.rs` what is measured. Both have their defaults but where a row names another.

mod drain;
mod measure;
mod orch;
mod report;
mod sides;
mod swarm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tokio::signal::unix::{SignalKind, signal};

use super::engine::docker;
use super::error::BenchError;
use super::facts::Facts;
use orch::Orch;
use report::{Runs, row};
use sides::Side;
use swarm::{Membership, Swarm};

pub use measure::Part;
pub use report::{Report, Row};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// A server's REST address, as `http://127.0.0.1:7400`.
    pub addr: String,
    /// An image that the engine has, with `sleep`, `true` and `false`, as busybox.
    pub image: String,
    /// Replicas that start at once; the other measurements have fewer.
    pub replicas: u32,
    /// Times each measurement is taken.
    pub runs: u32,
    /// What is measured; everything if empty.
    pub only: Vec<Part>,
}

/// Takes the measurements; what it started is gone afterwards, also after SIGINT and SIGTERM.
/// `say` hears what is being measured.
///
/// # Errors
/// See [`BenchError`]. What only one side can't do is a note in its row.
pub async fn run(options: &Options, say: &dyn Fn(&str)) -> Result<Report, BenchError> {
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]).await?;
    let facts = Facts::read(engine);
    let orch = Orch::new(&options.addr, &options.image)?;
    let swarm = Swarm::new(&options.image)?;
    let membership = Membership::take().await;
    let outcome = tokio::select! {
        rows = rows(options, &orch, &swarm, &membership, say) => rows,
        () = interrupted() => Err(BenchError::Interrupted),
    };
    let mut gone = vec![orch.end_drain().await, orch.remove().await];
    if membership.refused().is_none() {
        gone.push(swarm.remove().await);
    }
    gone.push(membership.give_back().await);
    let rows = outcome?;
    gone.into_iter().collect::<Result<(), _>>()?;
    Ok(Report { facts, rows })
}

async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(interrupt.await),
    }
}

async fn rows(
    options: &Options,
    orch: &Orch,
    swarm: &Swarm,
    membership: &Membership,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>, BenchError> {
    let parts: Vec<Part> = Part::ALL
        .into_iter()
        .filter(|part| options.only.is_empty() || options.only.contains(part))
        .collect();
    let mut runs: BTreeMap<Part, (Runs, Runs)> = BTreeMap::new();
    for round in 1..=options.runs.max(1) {
        for &part in &parts {
            let (of_swarm, of_orch) = runs.entry(part).or_default();
            if let Some(why) = part.not_with_swarm().or(membership.refused()) {
                of_swarm.stopped.get_or_insert_with(|| why.to_owned());
            }
            if of_swarm.stopped.is_none() {
                say(&format!("run {round}: {}, Swarm", part.what(options.replicas)));
                of_swarm.take(measure::measure(part, swarm, options.replicas).await)?;
            }
            if of_orch.stopped.is_none() {
                say(&format!("run {round}: {}, orch", part.what(options.replicas)));
                let measured = match part {
                    Part::Drain => drain::measure(orch).await,
                    _ => measure::measure(part, orch, options.replicas).await,
                };
                of_orch.take(measured)?;
            }
        }
    }
    Ok(runs
        .iter()
        .map(|(part, (swarm, orch))| row(part.what(options.replicas), swarm, orch))
        .collect())
}
