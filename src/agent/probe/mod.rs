//! Checks: asks a task again and again whether it is alive or ready, and tells what becomes
//! different. One check of a kind is in flight at a time; a slow one delays the next, and never
//! piles up.
//!
//! Never decides what follows from a result; that is `converge`. Start at [`watch`]; `schedule`
//! counts, `ask` asks.

mod ask;
mod schedule;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::schedule::Schedule;
use super::converge::{self, CheckKind};
use super::keeper::Event;
use super::order::TaskKey;
use super::runtime::Runtime;
use crate::model::job::HealthCheck;
use crate::model::name::PortName;
use crate::model::time::Millis;

/// What is checked.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: TaskKey,
    /// Its run: what is said of an earlier one is void.
    pub(super) run: u64,
    pub(super) handle: String,
    /// Host ports by name.
    pub(super) ports: BTreeMap<PortName, u16>,
    /// Where they are published.
    pub(super) bind_address: IpAddr,
    pub(super) runtime: Option<Arc<dyn Runtime>>,
    /// How long it has run already.
    pub(super) running_for: Millis,
}

/// Checks until it is dropped; one check at a time, the pause counted from the end of one to the
/// start of the next.
pub(super) async fn watch(
    target: Target,
    kind: CheckKind,
    check: HealthCheck,
    events: mpsc::Sender<Event>,
) {
    let mut schedule = Schedule::new(check.clone(), target.running_for);
    loop {
        let began = tokio::time::Instant::now();
        let outcome = ask::ask(&target, &check).await;
        let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let (news, pause) = schedule.result(took, outcome);
        if let Some(finding) = news {
            let (key, run) = (target.key.clone(), target.run);
            let event = converge::Event::Checked { key, run, kind, finding };
            if events.send(Event::Work(event)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause.as_duration()).await;
    }
}
