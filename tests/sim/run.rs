//! One seed from its beginning to its end.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use orch::clock;
use orch::ground::Witness;
use tracing::level_filters::LevelFilter;

use super::agents::Fleet;
use super::cluster::Cluster;
use super::kernel::{Scene, scene};
use super::nemesis::Nemesis;
use super::registers::{self, History};
use super::sessions::{self, Ledger};
use super::trace::Trace;

/// Clients of each kind.
const CLIENTS: u64 = 4;
/// Until the cluster must serve again.
const CALM: Duration = Duration::from_secs(90);

/// What must have happened at least once in any larger number of seeds.
pub const EXPECTED: [&str; 7] = [
    "acknowledged writes",
    "kill",
    "locks held",
    "sessions expired",
    "sessions moved",
    "terms with a leader",
    "watch events",
];

/// How a seed is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of virtual time.
    pub storm: Duration,
    /// The trace is printed as it comes.
    pub aloud: bool,
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened, and how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// Index and checksum of all servers' state at the end.
    pub state: (u64, u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "entry {}, checksum {:016x}", self.state.0, self.state.1)?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12}  {what}")?;
        }
        Ok(())
    }
}

/// Why a seed failed.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// The invariant's own words.
    pub why: String,
    /// What led there.
    pub trace: String,
}

/// Panics are told by whoever runs the seed, and those of the hosts' tasks are remembered.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        scene(|scene| {
            scene.panicked.get_or_insert(text);
        });
    }));
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// Runs a seed on this thread.
pub fn seed(seed: u64, plan: &Plan) -> Result<Outcome, Failure> {
    clock::seed_thread(seed);
    scene(|scene| *scene = Scene::default());
    let trace = Trace::new(plan.aloud);
    let subscriber = trace.subscriber(LevelFilter::INFO);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        tracing::subscriber::with_default(subscriber, || storm_and_calm(plan, &trace))
    }));
    ran.map_err(|panic| {
        let place = scene(|scene| scene.panicked.take()).unwrap_or_default();
        let why = words(&*panic);
        let why = if place.contains(&why) { place } else { format!("{why}\n{place}") };
        Failure { seed, why, trace: trace.text() }
    })
}

fn storm_and_calm(plan: &Plan, trace: &Trace) -> Outcome {
    let mut cluster = Cluster::new(3, trace.clone());
    cluster.found();
    let history = History::default();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let host = cluster.kernel.host(&format!("rest{number}"), [10, 0, 2, number as u8 + 1]);
        let net = cluster.kernel.ground(host, Witness::default()).net;
        let client = registers::client(number, cluster.servers.len(), net, history.clone());
        cluster.kernel.start(host, client);
        clients.push(host);
    }
    let ledger = Ledger::default();
    for number in 0..CLIENTS {
        let host = cluster.kernel.host(&format!("zk{number}"), [10, 0, 3, number as u8 + 1]);
        let net = cluster.kernel.ground(host, Witness::default()).net;
        let client = sessions::client(number, cluster.servers.len(), net, ledger.clone());
        cluster.kernel.start(host, client);
        clients.push(host);
    }
    let mut fleet = Fleet::start(&mut cluster);
    let mut nemesis = Nemesis::default();
    let end = cluster.kernel.now + plan.storm;
    while cluster.kernel.now < end {
        nemesis.act(&mut cluster);
        fleet.act(&mut cluster);
        cluster.tick();
    }
    trace.say("-- calm");
    nemesis.rest(&mut cluster);
    let before = history.acknowledged();
    cluster
        .until("writes to be acknowledged again", CALM, |_| history.acknowledged() > before + 20);
    let before = ledger.counted("znodes written");
    cluster.until("znodes to be written again", CALM, |_| {
        ledger.counted("znodes written") > before + 20
    });
    clients.into_iter().for_each(|client| cluster.kernel.end(client, false));
    fleet.rest(&mut cluster);
    let happened = fleet.end(&mut cluster);
    let state = cluster.settle(CALM);
    history.check(|path| cluster.variable(path));
    let mut counts = nemesis.done.clone();
    counts.extend(ledger.counts());
    counts.extend(happened);
    counts.insert("acknowledged writes", history.acknowledged() as u64);
    counts.insert("terms with a leader", cluster.invariants().terms() as u64);
    counts.insert("entries", cluster.invariants().entries);
    counts.insert("servers that stopped themselves", cluster.invariants().stopped.len() as u64);
    Outcome { counts, state }
}
