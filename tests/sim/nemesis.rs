//! What befalls the servers of a simulation while the storm lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::chance::{below, between};
use super::cluster::{Cluster, server_ip};

/// Milliseconds by which a clock is wrong at most. Clocks an hour off are in tests/it/faults.
const CLOCK_WRONG: u64 = 2000;

/// What can be undone later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    Start(usize),
    Resume(usize),
    Join(usize, usize),
    Calm,
    SetRight(usize),
    Clear(usize),
}

/// Who decides what happens next, and undoes it in time.
#[derive(Default)]
pub struct Nemesis {
    next: Duration,
    later: Vec<(Duration, Later)>,
    /// What was done, and how often.
    pub done: BTreeMap<&'static str, u64>,
}

impl Nemesis {
    /// Does what is due.
    pub fn act(&mut self, cluster: &mut Cluster) {
        let now = cluster.kernel.now;
        let (due, later) = self.later.drain(..).partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Duration, Later)> = due;
        for (_, what) in due {
            undo(cluster, what);
        }
        if now >= self.next {
            self.next = now + between(200, 2500);
            self.strike(cluster);
        }
    }

    /// Undoes everything: from here on the cluster is left in peace.
    pub fn rest(&mut self, cluster: &mut Cluster) {
        self.later.clear();
        cluster.kernel.wires.mend();
        for number in 0..cluster.servers.len() {
            let host = cluster.servers[number].host;
            cluster.servers[number].disk.clear();
            cluster.kernel.drift(host, 0);
            cluster.kernel.set_wrong(host, 0);
            if cluster.kernel.is_paused(host) {
                cluster.kernel.pause(host, false);
            }
            if !cluster.kernel.is_up(host) {
                cluster.start(number);
            }
        }
    }

    fn at(&mut self, cluster: &Cluster, after: Duration, what: Later) {
        self.later.push((cluster.kernel.now + after, what));
    }

    fn did(&mut self, cluster: &Cluster, what: &'static str, whom: impl std::fmt::Display) {
        *self.done.entry(what).or_default() += 1;
        cluster.trace.say(format_args!("-- {what}: {whom}"));
    }

    fn strike(&mut self, cluster: &mut Cluster) {
        let count = cluster.servers.len();
        let any = below(count as u64) as usize;
        // Leaders are hit more often: there is more to lose.
        let victim = cluster.leader().filter(|_| below(2) == 0).unwrap_or(any);
        let host = cluster.servers[victim].host;
        let name = format!("s{}", victim + 1);
        let is_up = cluster.kernel.is_up(host);
        match below(20) {
            0..4 if is_up => {
                self.did(cluster, "kill", &name);
                cluster.crash(victim, false);
                self.at(cluster, between(0, 3000), Later::Start(victim));
            }
            4..7 if is_up => {
                self.did(cluster, "power", &name);
                cluster.crash(victim, true);
                self.at(cluster, between(500, 6000), Later::Start(victim));
            }
            7 => {
                self.did(cluster, "power of all", "all");
                for number in 0..count {
                    if cluster.kernel.is_up(cluster.servers[number].host) {
                        cluster.crash(number, true);
                        self.at(cluster, between(500, 4000), Later::Start(number));
                    }
                }
            }
            8..10 if is_up && !cluster.kernel.is_paused(host) => {
                self.did(cluster, "pause", &name);
                cluster.kernel.pause(host, true);
                self.at(cluster, between(100, 5000), Later::Resume(victim));
            }
            10..13 => {
                let one_way = below(2) == 0;
                self.did(cluster, if one_way { "cut one way" } else { "cut" }, &name);
                for other in (0..count).filter(|other| *other != victim) {
                    self.cut(cluster, victim, other);
                    if !one_way {
                        self.cut(cluster, other, victim);
                    }
                }
            }
            13 => {
                let other = (victim + 1) % count;
                self.did(cluster, "cut between two", format_args!("{name} and s{}", other + 1));
                self.cut(cluster, victim, other);
                self.cut(cluster, other, victim);
            }
            14 => {
                self.did(cluster, "slow network", "all");
                let (loss, latency) = (below(100), between(5, 150));
                cluster.kernel.wires.change_usual(|way| {
                    way.loss = loss;
                    way.latency.1 = latency;
                    way.bytes_per_milli = 2000;
                });
                self.at(cluster, between(1000, 6000), Later::Calm);
            }
            15 => {
                let other = (victim + 1) % count;
                self.did(cluster, "connections lost", format_args!("{name} and s{}", other + 1));
                let (a, b) = (cluster.kernel.ip(host), server_ip(other).into());
                cluster.kernel.wires.forget(a, b);
            }
            16 => {
                let length = between(100, 2500);
                self.did(cluster, "disk stalls", &name);
                cluster.servers[victim].disk.stall(length);
            }
            17 if is_up => {
                self.did(cluster, "disk full", &name);
                cluster.servers[victim].disk.fill();
                self.at(cluster, between(1000, 5000), Later::Clear(victim));
            }
            18 => {
                self.did(cluster, "clock", &name);
                cluster.kernel.drift(host, below(200_000) as i64 - 100_000);
                cluster.kernel.set_wrong(host, below(CLOCK_WRONG * 2) as i64 - CLOCK_WRONG as i64);
                self.at(cluster, between(2000, 10_000), Later::SetRight(victim));
            }
            _ => {
                if let Some(consensus) = cluster.consensus(victim).cloned() {
                    self.did(cluster, "leadership handed over", &name);
                    cluster.kernel.run_on(host, async move {
                        let _ = consensus.transfer_leadership(None).await;
                    });
                }
            }
        }
    }

    fn cut(&mut self, cluster: &Cluster, from: usize, to: usize) {
        let (a, b) = (server_ip(from).into(), server_ip(to).into());
        cluster.kernel.wires.change(a, b, |way| way.cut = true);
        self.at(cluster, between(200, 5000), Later::Join(from, to));
    }
}

fn undo(cluster: &mut Cluster, what: Later) {
    match what {
        Later::Start(number) => {
            if !cluster.kernel.is_up(cluster.servers[number].host) {
                cluster.start(number);
            }
        }
        Later::Resume(number) => {
            let host = cluster.servers[number].host;
            if cluster.kernel.is_paused(host) {
                cluster.trace.say(format_args!("s{} goes on", number + 1));
                cluster.kernel.pause(host, false);
            }
        }
        Later::Join(from, to) => {
            let (a, b) = (server_ip(from).into(), server_ip(to).into());
            cluster.kernel.wires.change(a, b, |way| way.cut = false);
        }
        Later::Clear(number) => cluster.servers[number].disk.clear(),
        Later::Calm => cluster.kernel.wires.change_usual(|way| *way = Default::default()),
        Later::SetRight(number) => {
            let host = cluster.servers[number].host;
            cluster.kernel.drift(host, 0);
            cluster.kernel.set_wrong(host, 0);
        }
    }
}
