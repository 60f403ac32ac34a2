//! Whoever brings the faults: everything from one seed, one fault after the other, with calm
//! between them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::history::History;
use super::servers::Servers;
use crate::support::{LONG, wait_until};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of one server.
    Kill,
    /// `kill -9` of all.
    KillAll,
    /// One server's time stops.
    Pause,
    /// Two groups of servers don't hear each other; clients reach both.
    Split,
    /// One server is not heard by the others, but hears them; or the other way round.
    Deaf,
    /// One server is cut off from everybody, clients too.
    Alone,
    /// One server's disk is slow.
    SlowDisk,
    /// One server's disk is full until it is started again.
    FullDisk,
    /// The power of one server is cut.
    Power,
    /// The power of all is cut at once.
    PowerOfAll,
    /// One server's clock is an hour ahead or behind.
    Clock,
    /// Another server is to lead.
    Transfer,
}

impl Fault {
    /// Those that leave a majority alone.
    pub const OF_ONE: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Split,
        Self::Deaf,
        Self::Alone,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Power,
        Self::Clock,
        Self::Transfer,
    ];
}

/// Brings faults to servers.
#[derive(Debug)]
pub struct Nemesis {
    rng: StdRng,
    kinds: Vec<Fault>,
    spared: Option<usize>,
}

impl Nemesis {
    /// With faults of these kinds.
    pub fn new(seed: u64, kinds: &[Fault]) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), spared: None }
    }

    /// The same, but one server's process is never ended.
    pub fn sparing(self, spared: usize) -> Self {
        Self { spared: Some(spared), ..self }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..to))
    }

    /// A server; every other time the leader.
    fn target(&mut self, servers: &Servers) -> usize {
        let any = self.below(servers.count());
        match self.below(2) {
            0 => servers.leader().unwrap_or(any),
            _ => any,
        }
    }

    /// One fault, and its end, until writes go on; which it was.
    #[track_caller]
    pub fn round(&mut self, servers: &mut Servers, history: &History) -> Fault {
        let kind = self.kinds[self.rng.random_range(0..self.kinds.len())];
        let mut target = self.target(servers);
        let ends = [Fault::Kill, Fault::FullDisk, Fault::Power].contains(&kind);
        if ends && Some(target) == self.spared {
            target = (target + 1) % servers.count();
        }
        let lasts = self.millis(200, 2500);
        println!("{kind:?} of {} for {lasts:?}", servers.name(target));
        self.begin(kind, target, lasts, servers);
        if kind == Fault::FullDisk {
            // It is noticed when the next entry comes.
            let written = history.written();
            wait_until("writes to go on beside a full disk", LONG, || {
                let now = history.written();
                if now > written + 20 { Ok(()) } else { Err(format!("{now}")) }
            });
            servers.kill(target);
        }
        servers.calm();
        let written = history.written();
        wait_until("writes to go on", LONG, || {
            let now = history.written();
            if now > written + 20 { Ok(()) } else { Err(format!("{now}")) }
        });
        kind
    }

    /// Brings a fault about, and lets it last.
    fn begin(&mut self, kind: Fault, target: usize, lasts: Duration, servers: &mut Servers) {
        let others: Vec<usize> = (0..servers.count()).filter(|at| *at != target).collect();
        match kind {
            Fault::Kill => servers.kill(target),
            Fault::KillAll => {
                for at in 0..servers.count() {
                    servers.kill(at);
                }
                return;
            }
            Fault::Pause => servers.pause(target, true),
            Fault::Split => {
                // The smaller part is with the target; now and then it is the larger.
                let with = self.below(others.len());
                for other in others.iter().skip(with) {
                    for at in std::iter::once(&target).chain(&others[..with]) {
                        servers.cut(*at, *other);
                        servers.cut(*other, *at);
                    }
                }
            }
            Fault::Deaf => {
                let mute = self.below(2) == 0;
                for other in others {
                    match mute {
                        true => servers.cut(target, other),
                        false => servers.cut(other, target),
                    }
                }
            }
            Fault::Alone => {
                servers.cut_clients(target);
                for other in others {
                    servers.cut(other, target);
                    servers.cut(target, other);
                }
            }
            Fault::SlowDisk => {
                let delay = self.millis(20, 400);
                servers.slow_disk(target, delay);
            }
            Fault::FullDisk => return servers.fill_disk(target, true),
            Fault::Power => {
                let seed = self.rng.random();
                servers.lose_power(target, seed);
            }
            Fault::PowerOfAll => {
                let seed = self.rng.random();
                let all: Vec<usize> = (0..servers.count()).collect();
                servers.cut_power(&all, seed);
                return;
            }
            Fault::Clock => {
                let hour = if self.below(2) == 0 { 3600 } else { -3600 };
                servers.shift_clock(target, hour);
            }
            Fault::Transfer => {
                // It may be refused: there may be no leader just now.
                let _ = servers.lead(target);
            }
        }
        std::thread::sleep(lasts);
    }
}
