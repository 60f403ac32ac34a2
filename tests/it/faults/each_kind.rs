//! A test for each kind of fault, and one for all of them together.

use std::sync::Arc;

use super::clients::{Clients, Plan};
use super::history::History;
use super::nemesis::{Fault, Nemesis};
use super::servers::{Servers, Setup};
use crate::support::{LONG, wait_until};

/// Rounds of a usual run.
const ROUNDS: usize = 5;

/// A number from the environment.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs clients and faults of some kinds, and judges what the clients saw.
fn run(setup: Setup, kinds: &[Fault]) {
    let seed = number("ORCH_FAULTS_SEED", orch::clock::random());
    let rounds = number("ORCH_FAULTS_ROUNDS", ROUNDS as u64);
    println!("ORCH_FAULTS_SEED={seed}");
    let mut servers = Servers::start(setup);
    let history = Arc::new(History::new(&servers.path().join("history.jsonl")));
    let clients = Clients::start(servers.doors(), history.clone(), Plan::default(), seed);
    let mut nemesis = Nemesis::new(seed, kinds);
    for _ in 0..rounds {
        let _ = nemesis.round(&mut servers, &history);
    }
    wait_until("enough to judge", LONG, || {
        let counts = history.counts();
        let enough = counts.written >= 200 && counts.read >= 200 && counts.refused >= 50;
        if enough { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    clients.finish();
    println!("{:?}", history.counts());
    servers.assert_same_everywhere();
    history.assert_fine();
}

fn three() -> Setup {
    Setup { count: 3, ..Setup::default() }
}

fn five() -> Setup {
    Setup { count: 5, ..Setup::default() }
}

#[test]
fn kills() {
    run(three(), &[Fault::Kill, Fault::Kill, Fault::KillAll]);
}

#[test]
fn pauses() {
    run(three(), &[Fault::Pause]);
}

#[test]
fn partitions() {
    run(five(), &[Fault::Split, Fault::Deaf, Fault::Alone]);
}

#[test]
fn full_disks() {
    run(Setup { disk: Some("200m"), ..three() }, &[Fault::FullDisk]);
}

#[test]
fn slow_disks() {
    run(Setup { preload: true, ..three() }, &[Fault::SlowDisk]);
}

#[test]
fn power_cuts() {
    run(Setup { preload: true, ..three() }, &[Fault::Power, Fault::PowerOfAll]);
}

#[test]
fn wrong_clocks() {
    run(Setup { preload: true, ..three() }, &[Fault::Clock, Fault::Transfer]);
}

#[test]
fn everything_at_five_servers() {
    run(Setup { preload: true, disk: Some("200m"), ..five() }, &Fault::OF_ONE);
}
