//! What is measured: the same for both sides, by what each says of its replicas.

use std::time::Instant;

use serde::Serialize;

use super::super::cluster::{POLL, WAIT};
use super::super::engine::docker;
use super::super::error::BenchError;
use super::super::millis;
use super::sides::{Copy, Does, Order, Service, Side};

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// From `docker kill` to as many healthy replicas as before.
    Kill,
    /// The same with a health check.
    KillChecked,
    /// From submission until all replicas run.
    Start,
    /// The same until all are healthy by a check.
    StartChecked,
    /// Replicas replaced one by one, the new one first.
    Update,
    /// The old one first.
    UpdateStopFirst,
    /// A node is emptied.
    Drain,
    /// An update to something that can't run is taken back.
    Rollback,
}

/// Of the kill and of the failed update.
const FEW: u32 = 4;
/// Of an update and of a drain.
pub(super) const SEVERAL: u32 = 10;

impl Part {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::KillChecked,
        Self::Start,
        Self::StartChecked,
        Self::Update,
        Self::UpdateStopFirst,
        Self::Drain,
        Self::Rollback,
    ];

    /// For the table.
    pub fn what(self, replicas: u32) -> String {
        match self {
            Self::Kill => format!("docker kill of one of {FEW} to {FEW} healthy"),
            Self::KillChecked => "the same, with a check every 1 s".to_owned(),
            Self::Start => format!("{replicas} replicas started"),
            Self::StartChecked => format!("{replicas} replicas healthy, check every 1 s"),
            Self::Update => format!("update of {SEVERAL}, 1 at a time, start-first"),
            Self::UpdateStopFirst => format!("update of {SEVERAL}, 1 at a time, stop-first"),
            Self::Drain => format!("drain of a node, {SEVERAL} replicas"),
            Self::Rollback => format!("failed update of {FEW} taken back"),
        }
    }

    /// Why Swarm has nothing to show here.
    pub(super) fn not_with_swarm(self) -> Option<&'static str> {
        (self == Self::Drain).then_some("a drain needs a second engine")
    }

    /// The service that it begins with.
    pub(super) fn service(self, replicas: u32) -> Service {
        let (replicas, checked) = match self {
            Self::Kill | Self::Rollback => (FEW, false),
            Self::KillChecked => (FEW, true),
            Self::Start => (replicas, false),
            Self::StartChecked => (replicas, true),
            Self::Update | Self::UpdateStopFirst | Self::Drain => (SEVERAL, false),
        };
        let order = match self {
            Self::UpdateStopFirst => Order::StopFirst,
            _ => Order::StartFirst,
        };
        Service { replicas, version: 1, does: Does::Run, checked, order }
    }
}

/// What one run came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) millis: f64,
    /// The fewest healthy replicas that were seen meanwhile, where that says something.
    pub(super) least: Option<u32>,
}

/// Takes one measurement of one side; nothing of it is left.
pub(super) async fn measure(
    part: Part,
    side: &impl Side,
    replicas: u32,
) -> Result<Measured, BenchError> {
    side.remove().await?;
    let measured = take(part, side, part.service(replicas)).await;
    side.remove().await.and(measured)
}

async fn take(part: Part, side: &impl Side, service: Service) -> Result<Measured, BenchError> {
    let begin = Instant::now();
    let version = side.submit(service).await?;
    let wanted = service.replicas;
    let copies = started(side, wanted).await?;
    match part {
        Part::Start | Part::StartChecked | Part::Drain => {
            Ok(Measured { millis: millis(begin), least: None })
        }
        Part::Kill | Part::KillChecked => kill(side, wanted, &copies).await,
        Part::Update | Part::UpdateStopFirst => {
            trusted(side, version).await?;
            update(side, service).await
        }
        Part::Rollback => {
            trusted(side, version).await?;
            rollback(side, service).await
        }
    }
}

/// Waits until all replicas are healthy.
pub(super) async fn started(side: &impl Side, wanted: u32) -> Result<Vec<Copy>, BenchError> {
    until(side, "the start of all replicas", |copies| ready(copies) == wanted).await
}

/// Waits until a version is good enough to go back to.
async fn trusted(side: &impl Side, version: u64) -> Result<(), BenchError> {
    let begin = Instant::now();
    while !side.trusts(version).await? {
        pause(begin, "the end of the first deployment").await?;
    }
    Ok(())
}

async fn kill(side: &impl Side, wanted: u32, copies: &[Copy]) -> Result<Measured, BenchError> {
    let victim = copies.iter().find(|copy| copy.ready && copy.container.is_some());
    let Some((victim, container)) = victim.and_then(|it| it.container.as_ref().map(|c| (it, c)))
    else {
        return Err(BenchError::Missing("no replica tells its container".to_owned()));
    };
    let begin = Instant::now();
    docker(&["kill", container]).await?;
    until(side, "the return of a killed replica", |copies| {
        copies.iter().filter(|copy| copy.ready && copy.run != victim.run).count() == wanted as usize
    })
    .await?;
    Ok(Measured { millis: millis(begin), least: None })
}

async fn update(side: &impl Side, old: Service) -> Result<Measured, BenchError> {
    let begin = Instant::now();
    let version = side.submit(Service { version: old.version + 1, ..old }).await?;
    let mut least = old.replicas;
    until(side, "the end of an update", |copies| {
        least = least.min(ready(copies));
        all_of(copies, old.replicas, |of| of == version)
    })
    .await?;
    Ok(Measured { millis: millis(begin), least: Some(least) })
}

async fn rollback(side: &impl Side, good: Service) -> Result<Measured, BenchError> {
    let begin = Instant::now();
    let bad = Service { version: good.version + 1, does: Does::Fail, ..good };
    let bad = side.submit(bad).await?;
    let mut least = good.replicas;
    loop {
        // In this order: what holds after it has begun to go back is its end.
        let back = side.takes_back(bad).await?;
        let copies = side.copies().await?;
        let healthy = copies.iter().filter(|copy| copy.ready && copy.version != bad).count();
        least = least.min(u32::try_from(healthy).unwrap_or(u32::MAX));
        if back && all_of(&copies, good.replicas, |of| of != bad) {
            return Ok(Measured { millis: millis(begin), least: Some(least) });
        }
        pause(begin, "the way back from a failed update").await?;
    }
}

/// Looks until something holds of the replicas.
async fn until(
    side: &impl Side,
    what: &str,
    mut holds: impl FnMut(&[Copy]) -> bool,
) -> Result<Vec<Copy>, BenchError> {
    let begin = Instant::now();
    loop {
        let copies = side.copies().await?;
        if holds(&copies) {
            return Ok(copies);
        }
        pause(begin, what).await?;
    }
}

async fn pause(begin: Instant, what: &str) -> Result<(), BenchError> {
    if begin.elapsed() > WAIT {
        return Err(BenchError::Slow(what.to_owned(), WAIT.as_secs()));
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

/// How many take traffic.
pub(super) fn ready(copies: &[Copy]) -> u32 {
    u32::try_from(copies.iter().filter(|copy| copy.ready).count()).unwrap_or(u32::MAX)
}

/// Whether exactly so many replicas of the wanted versions are ready, and no other still runs.
pub(super) fn all_of(copies: &[Copy], count: u32, wanted: impl Fn(u64) -> bool) -> bool {
    let mut live = copies.iter().filter(|copy| !copy.ended);
    live.clone().count() == count as usize && live.all(|copy| copy.ready && wanted(copy.version))
}
