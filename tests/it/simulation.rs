//! Three servers on a simulated network and simulated disks, all from one seed: messages are lost
//! and late, servers are cut off and crash, disks forget what was not synced. Nothing that was
//! acknowledged may be lost, a term has one leader, and equal logs make equal states. `world` is the
//! servers alone; `rollouts` adds planners, hosts with agents, and a user.

mod disk;
mod hosts;
mod invariants;
mod network;
mod planning;
mod rollouts;
mod user;
mod world;

use orch::consensus::virtual_time;

/// Seeds of an ordinary run.
const SEEDS: std::ops::Range<u64> = 1..25;
/// Those of the whole cluster, which take longer.
const ROLLOUT_SEEDS: std::ops::Range<u64> = 1..13;

/// Runs a world on this thread, in virtual time.
fn simulate<T>(seed: u64, world: impl AsyncFnOnce(u64) -> T) -> T {
    orch::clock::seed_thread(seed);
    virtual_time::begin();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(virtual_time::advance)
        .build()
        .unwrap();
    let outcome = runtime.block_on(world(seed));
    // What still runs is dropped by the same clock.
    drop(runtime);
    virtual_time::end();
    outcome
}

/// Runs `seed` on a thread of its own, and says how to see a failure again.
fn check<T: Send + 'static>(seed: u64, world: impl AsyncFnOnce(u64) -> T + Send + 'static) -> T {
    let running = std::thread::spawn(move || simulate(seed, world));
    running.join().unwrap_or_else(|_| {
        panic!(
            "seed {seed} failed; to see it again: \
             ORCH_SIM_TELL=1 ORCH_SIM_SEED={seed} cargo test --test it simulation:: -- --nocapture"
        )
    })
}

/// The seed that was asked for, or an ordinary run's.
fn seeds(ordinary: std::ops::Range<u64>) -> (std::ops::Range<u64>, bool) {
    let only = std::env::var("ORCH_SIM_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    only.map_or((ordinary, true), |seed| (seed..seed + 1, false))
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let (seeds, whole) = seeds(SEEDS);
    let (mut acknowledged, mut crashes, mut leaders) = (0, 0, 0);
    for seed in seeds {
        let outcome = check(seed, world::run);
        acknowledged += outcome.acknowledged;
        crashes += outcome.crashes;
        leaders += outcome.terms;
        println!("seed {seed}: {outcome:?}");
    }
    // A simulation in which nothing happens proves nothing.
    assert!(!whole || acknowledged > 1000 && crashes > 50 && leaders > 50);
}

#[test]
fn no_rollout_breaks_its_promise_whatever_happens() {
    let (seeds, whole) = seeds(ROLLOUT_SEEDS);
    let (mut leaders_lost, mut deployments) = (0, 0);
    let mut stops = std::collections::BTreeMap::<String, usize>::new();
    for seed in seeds {
        let outcome = check(seed, rollouts::run);
        leaders_lost += outcome.leaders_lost;
        deployments += outcome.deployments;
        println!("seed {seed}: {outcome:?}");
        for (reason, count) in outcome.stops {
            *stops.entry(reason).or_default() += count;
        }
    }
    // Leaders must have crashed within rollouts, and all that a promise is about must have happened.
    if whole {
        assert!(leaders_lost > 30 && deployments > 100, "{leaders_lost} {deployments}");
        for reason in ["Updated", "Reverted", "Drained", "Moved", "Rebalanced", "Reconnected"] {
            assert!(stops.contains_key(reason), "nothing was stopped as {reason}: {stops:?}");
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    assert_eq!(check(7, world::run), check(7, world::run));
    assert_ne!(check(7, world::run), check(8, world::run));
    assert_eq!(check(7, rollouts::run), check(7, rollouts::run));
}
