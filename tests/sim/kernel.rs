//! Hosts in one thread: each has a runtime of its own whose time stands still, and is given a
//! millisecond at a time. So a host can be killed (its runtime is dropped), paused, or have a
//! clock that drifts or jumps, and one seed decides everything.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use orch::clock::{self, Clock};
use orch::ground::{Ground, Offload, Witness};
use orch::model::time::Timestamp;
use tokio::runtime::{Builder, Runtime};

use super::wires::Wires;

/// A runtime whose time stands still.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Without it a seed does not decide everything; `scripts/simulate` sets it.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&clock::random().to_le_bytes()));
    builder.build().unwrap()
}

/// What a host is given at a time.
pub const TICK: Duration = Duration::from_millis(1);
/// Where virtual time begins in the calendar, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::default();
}

/// Who runs just now, for the trace.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// Since the beginning.
    pub now: Duration,
    /// The host whose turn it is; empty: none.
    pub host: String,
    /// A task of a host panicked.
    pub panicked: Option<String>,
}

/// Looks at, or changes, what this thread is at.
pub fn scene<T>(look: impl FnOnce(&mut Scene) -> T) -> T {
    SCENE.with_borrow_mut(look)
}

/// A host's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

/// Time of day as a host's clock tells it.
#[derive(Debug, Default)]
pub struct HostClock {
    /// Milliseconds that the host has lived through.
    lived: AtomicU64,
    /// Milliseconds by which it is wrong.
    wrong: AtomicI64,
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let right = EPOCH + self.lived.load(Ordering::Relaxed);
        Timestamp(right.saturating_add_signed(self.wrong.load(Ordering::Relaxed)))
    }

    fn random(&self) -> u64 {
        clock::random().max(1)
    }
}

struct Host {
    name: String,
    ip: IpAddr,
    clock: Arc<HostClock>,
    runtime: Option<Runtime>,
    paused: Duration,
    is_paused: bool,
    /// Millionths by which its clock is too fast.
    drift: i64,
    /// Nanoseconds it has not been given yet.
    owed: i64,
}

/// All hosts and what is between them.
#[derive(Default)]
pub struct Kernel {
    /// Since the beginning.
    pub now: Duration,
    /// The network.
    pub wires: Wires,
    hosts: Vec<Host>,
}

impl Kernel {
    /// A host that is not running yet.
    pub fn host(&mut self, name: &str, ip: [u8; 4]) -> HostId {
        self.hosts.push(Host {
            name: name.to_owned(),
            ip: Ipv4Addr::from(ip).into(),
            clock: Arc::default(),
            runtime: None,
            paused: Duration::ZERO,
            is_paused: false,
            drift: 0,
            owed: 0,
        });
        HostId(self.hosts.len() - 1)
    }

    /// Its name.
    pub fn name(&self, id: HostId) -> &str {
        &self.hosts[id.0].name
    }

    /// Its address.
    pub fn ip(&self, id: HostId) -> IpAddr {
        self.hosts[id.0].ip
    }

    /// Whether something runs on it.
    pub fn is_up(&self, id: HostId) -> bool {
        self.hosts[id.0].runtime.is_some()
    }

    /// What a process on it stands on.
    pub fn ground(&self, id: HostId, witness: Witness) -> Ground {
        let host = &self.hosts[id.0];
        let net = self.wires.of(host.ip);
        Ground { clock: host.clock.clone(), net, offload: Offload::Inline, witness }
    }

    /// Starts a process on a host that is down.
    pub fn start(&mut self, id: HostId, main: impl Future<Output = ()> + Send + 'static) {
        let host = &mut self.hosts[id.0];
        assert!(host.runtime.is_none(), "{} runs already", host.name);
        self.wires.darken(host.ip, false);
        let runtime = runtime();
        runtime.spawn(main);
        (host.owed, host.is_paused, host.paused) = (0, false, Duration::ZERO);
        host.runtime = Some(runtime);
    }

    /// Starts one more task on a host that is up.
    pub fn run_on(&self, id: HostId, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.hosts[id.0].runtime {
            drop(runtime.spawn(task));
        }
    }

    /// Ends a host's process: `kill -9`, after which its connections are closed, or the power
    /// goes, after which it says nothing.
    pub fn end(&mut self, id: HostId, power: bool) {
        let host = &mut self.hosts[id.0];
        if power {
            self.wires.darken(host.ip, true);
        }
        scene(|scene| scene.host.clone_from(&host.name));
        drop(host.runtime.take());
        scene(|scene| scene.host.clear());
    }

    /// Stops giving a host time, or goes on: then all the time that has passed passes at once.
    pub fn pause(&mut self, id: HostId, is_paused: bool) {
        let host = &mut self.hosts[id.0];
        host.is_paused = is_paused;
        if is_paused {
            return;
        }
        let missed = std::mem::take(&mut host.paused);
        if let Some(runtime) = &host.runtime {
            host.clock.lived.fetch_add(missed.as_millis() as u64, Ordering::Relaxed);
            scene(|scene| scene.host.clone_from(&host.name));
            runtime.block_on(async { tokio::time::advance(missed).await });
            scene(|scene| scene.host.clear());
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self, id: HostId) -> bool {
        self.hosts[id.0].is_paused
    }

    /// Makes a host's clock too fast by so many millionths (too slow, if negative).
    pub fn drift(&mut self, id: HostId, millionths: i64) {
        self.hosts[id.0].drift = millionths;
    }

    /// Makes a host's time of day wrong by so many milliseconds.
    pub fn set_wrong(&mut self, id: HostId, millis: i64) {
        self.hosts[id.0].clock.wrong.store(millis, Ordering::Relaxed);
    }

    /// Gives everything one tick.
    pub fn tick(&mut self) {
        self.now += TICK;
        scene(|scene| scene.now = self.now);
        self.wires.deliver(self.now);
        let count = self.hosts.len();
        // Nobody is always first.
        let first = clock::random() as usize % count.max(1);
        for turn in 0..count {
            let host = &mut self.hosts[(first + turn) % count];
            let Some(runtime) = &host.runtime else {
                // A host's time of day goes on without it.
                host.clock.lived.fetch_add(TICK.as_millis() as u64, Ordering::Relaxed);
                continue;
            };
            if host.is_paused {
                host.paused += TICK;
                continue;
            }
            let nanos = TICK.as_nanos() as i64;
            host.owed += nanos + nanos / 1_000_000 * host.drift;
            let millis = host.owed / 1_000_000;
            if millis <= 0 {
                continue;
            }
            host.owed -= millis * 1_000_000;
            host.clock.lived.fetch_add(millis as u64, Ordering::Relaxed);
            scene(|scene| scene.host.clone_from(&host.name));
            let length = Duration::from_millis(millis as u64);
            runtime.block_on(async { tokio::time::sleep(length).await });
        }
        scene(|scene| scene.host.clear());
        if let Some(panicked) = scene(|scene| scene.panicked.take()) {
            panic!("a task panicked: {panicked}");
        }
    }
}
