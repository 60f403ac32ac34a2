//! Two servers side by side: random operations of several sessions, good ones and bad ones, with
//! watches, closes and reconnects. All that comes back must be equal, but for times and for the
//! numbers of transactions, which must stand in the same order.
//!
//! `generate` makes steps from a seed, `asks` are the requests in them, `side` carries them out at
//! one server, `compare` judges. For a long run:
//!
//!     ORCH_DIFFERENTIAL_STEPS=100000 ORCH_DIFFERENTIAL_SEED=7 cargo test differential
//!
//! and against any two servers that are fresh and alike in their settings:
//!
//!     ORCH_DIFFERENTIAL_SERVERS=127.0.0.1:2181,127.0.0.1:2182 cargo test orch_answers_as

mod asks;
mod compare;
mod generate;
mod side;

use asks::Ask;
use compare::Order;
use generate::{Generator, Step};
use side::{Entry, Side};

use orch::jute::{Acl, Op};

use crate::support::zookeeper::{CLIENT_PORT, Options, ZooKeeper};
use crate::support::{Cluster, LoopbackAddress};

/// Steps of each seed in a usual run.
const STEPS: usize = 500;
const SEEDS: u64 = 4;

/// The super user's password is `test`.
const SUPER: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// What was done, for whoever has to find out why two servers differ.
struct Difference {
    seed: u64,
    history: Vec<String>,
    what: String,
}

impl Difference {
    fn show(&self) -> ! {
        for line in &self.history {
            eprintln!("{line}");
        }
        panic!("seed {}, step {}: {}", self.seed, self.history.len(), self.what);
    }
}

/// Carries out `steps` steps of `seed` at both servers, below a node of its own.
async fn run(one: &str, other: &str, seed: u64, steps: usize) -> Result<(), Difference> {
    let top = format!("/seed-{seed}");
    let mut run = Run {
        sides: [Side::new(one), Side::new(other)],
        generator: Generator::new(seed, &top),
        order: Order::default(),
        history: Vec::new(),
        xid: 0,
    };
    match run.all(&top, steps).await {
        Ok(()) => Ok(()),
        Err(what) => Err(Difference { seed, history: run.history, what }),
    }
}

struct Run {
    sides: [Side; 2],
    generator: Generator,
    order: Order,
    history: Vec<String>,
    xid: i32,
}

impl Run {
    async fn all(&mut self, top: &str, steps: usize) -> Result<(), String> {
        // The first step of all makes a session.
        self.step().await?;
        let (path, acl) = (top.to_owned(), vec![Acl::open()]);
        let top = Ask::Create { op: Op::Create, path, data: None, acl, flags: 0, ttl: 0 };
        self.carry_out(Step::Ask { session: 0, asks: vec![top] }).await?;
        for _ in 0..steps {
            self.step().await?;
        }
        // What is left of the sessions' nodes and watches is not another run's business.
        for session in self.generator.alive().to_vec() {
            self.carry_out(Step::Close { session }).await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<(), String> {
        let first = &self.sides[0];
        let step = self.generator.step(|session| first.is_connected(session));
        self.carry_out(step).await
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), String> {
        self.history.push(format!("{}: {step:?}", self.history.len()));
        let xid = self.xid + 1;
        let [one, other] = &mut self.sides;
        let (mut seen, mut told) =
            tokio::join!(perform(one, &step, xid), perform(other, &step, xid));
        // A session's nodes go in no order that anybody has promised.
        let ends_session = matches!(step, Step::Close { .. });
        if ends_session {
            sort_events(&mut seen);
            sort_events(&mut told);
        }
        if let Step::Ask { asks, .. } = &step {
            self.xid += i32::try_from(asks.len()).unwrap();
            self.remember(asks, &seen);
        }
        for entry in &seen {
            self.history.push(format!("    {} {:x?}", entry.text, entry.zxids));
        }
        self.order.compare(&seen, &told)?;
        if let Step::Close { session } = step {
            self.xid += 1;
            self.generator.ended(session);
        }
        // Then whatever the step has caused elsewhere.
        for session in self.generator.alive().to_vec() {
            let [one, other] = &mut self.sides;
            let (mut seen, mut told) =
                tokio::join!(one.settle(session, true), other.settle(session, true));
            if ends_session {
                sort_events(&mut seen);
                sort_events(&mut told);
            }
            for entry in &seen {
                self.history.push(format!("    session {session}: {}", entry.text));
            }
            let compared = self.order.compare(&seen, &told);
            compared.map_err(|what| format!("session {session} afterwards, {what}\n{told:?}"))?;
        }
        Ok(())
    }

    /// Numbered names are good for later requests.
    fn remember(&mut self, asks: &[Ask], seen: &[Entry]) {
        if !asks.iter().any(|ask| matches!(ask, Ask::Create { .. })) {
            return;
        }
        for entry in seen {
            let path = entry.text.split(' ').next().unwrap_or_default();
            if path.starts_with('/') && path.ends_with(|last: char| last.is_ascii_digit()) {
                self.generator.made(path);
            }
        }
    }
}

/// Events in the order of their texts, each where one was.
fn sort_events(entries: &mut [Entry]) {
    let mut events: Vec<_> = entries.iter().filter(|entry| entry.is_event).cloned().collect();
    events.sort_by(|one, other| one.text.cmp(&other.text));
    let places = entries.iter_mut().filter(|entry| entry.is_event);
    for (place, event) in places.zip(events) {
        *place = event;
    }
}

async fn perform(side: &mut Side, step: &Step, xid: i32) -> Vec<Entry> {
    match step {
        Step::Connect { session, hello, timeout, old_client } => {
            side.connect(*session, *hello, *timeout, *old_client).await
        }
        Step::Drop { session } => {
            side.drop_connection(*session);
            Vec::new()
        }
        Step::Close { session } => side.close(*session, xid).await,
        Step::Ask { session, asks } => side.ask(*session, asks, xid).await,
    }
}

/// A ZooKeeper whose own clockwork leaves the tree alone.
fn quiet() -> Options {
    Options::default()
        .property("tickTime", "2000")
        .property("znode.container.checkIntervalMs", "3600000")
        .java(&format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER}"))
}

fn number(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Seeds from the environment, or the usual ones.
fn compare_all(one: &str, other: &str) {
    let steps = usize::try_from(number("ORCH_DIFFERENTIAL_STEPS", STEPS as u64)).unwrap();
    let first = number("ORCH_DIFFERENTIAL_SEED", 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for seed in first..first + number("ORCH_DIFFERENTIAL_SEEDS", SEEDS) {
        eprintln!("seed {seed}, {steps} steps");
        if let Err(difference) = runtime.block_on(run(one, other, seed, steps)) {
            difference.show();
        }
    }
}

#[test]
fn orch_answers_as_zookeeper_does() {
    if let Ok(servers) = std::env::var("ORCH_DIFFERENTIAL_SERVERS") {
        let (one, other) = servers.split_once(',').expect("two addresses with a comma");
        return compare_all(one, other);
    }
    let zookeeper = ZooKeeper::standalone(quiet());
    let address = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--zk-addr", &address, "--zk-tick", "2s", "--zk-super-digest", SUPER]);
    compare_all(&zookeeper.connect_string(), &address);
}

#[test]
fn two_zookeepers_do_not_differ() {
    let (one, other) = (ZooKeeper::standalone(quiet()), ZooKeeper::standalone(quiet()));
    compare_all(&one.connect_string(), &other.connect_string());
}

#[test]
fn a_server_that_differs_is_found() {
    let without_ttl = quiet().property("extendedTypesEnabled", "false");
    let (one, other) = (ZooKeeper::standalone(quiet()), ZooKeeper::standalone(without_ttl));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (one, other) = (one.connect_string(), other.connect_string());
    let found = runtime.block_on(run(&one, &other, 1, STEPS));
    let Err(difference) = found else { panic!("one refuses nodes with a time to live") };
    let last = difference.history.iter().rfind(|line| line.contains(": Ask")).unwrap();
    assert!(last.contains("CreateTtl") || last.contains("flags: 5"), "{last}");
    assert!(difference.what.contains("error -6"), "{}", difference.what);
}
