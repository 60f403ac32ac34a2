//! The whole cluster in one thread, from one seed: servers as they are, with simulated clocks,
//! disks and network. First a storm, in which every invariant is checked at every step; then
//! calm, in which the cluster must elect, serve, and still have all that it ever acknowledged.
//!
//! `scripts/simulate` builds and runs it.
#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on must fail where it stands")]
#![allow(unreachable_pub, reason = "pub here says: for all files of the simulation")]
#![allow(clippy::print_stdout, reason = "the trace, when it is asked for")]

mod agents;
mod chance;
mod cluster;
mod disk;
mod http;
mod invariants;
mod kernel;
mod machine;
mod nemesis;
mod registers;
mod rollouts;
mod run;
mod sessions;
mod trace;
mod user;
mod wires;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;

use self::run::{Failure, Outcome, Plan};

/// Simulates a cluster under faults.
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Stop beginning new seeds after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// Simulated seconds of the storm
    #[arg(long, default_value_t = 60)]
    storm: u64,
    /// Only this seed, and once more in another process
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: not once more
    #[arg(long)]
    once: bool,
    /// Print every line of the trace as it comes
    #[arg(long)]
    aloud: bool,
    /// Threads; one seed runs on one
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    run::catch_panics();
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

fn plan(options: &Options) -> Plan {
    Plan { storm: Duration::from_secs(options.storm), aloud: options.aloud }
}

/// A seed that is looked at: once here, and once more in a process of its own, since both runs must
/// be the same.
fn one(seed: u64, options: &Options) -> ExitCode {
    let outcome = match run::seed(seed, &plan(options)) {
        Ok(outcome) => outcome.to_string(),
        Err(failure) => {
            report(&failure);
            return ExitCode::FAILURE;
        }
    };
    say(&format!("seed {seed}: {outcome}"));
    if options.once {
        return ExitCode::SUCCESS;
    }
    let (seed, storm) = (seed.to_string(), options.storm.to_string());
    let program = std::env::current_exe().unwrap();
    let again = ["--once", "--seed", &seed, "--storm", &storm];
    let again = std::process::Command::new(program).args(again).output().unwrap();
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    if again.trim() == format!("seed {seed}: {outcome}").trim() {
        return ExitCode::SUCCESS;
    }
    say(&format!("it is not the same in another process:\n{again}"));
    ExitCode::FAILURE
}

/// On a thread of its own: what libraries keep for a thread is not left from an earlier seed.
fn alone(seed: u64, plan: &Plan) -> Result<Outcome, Failure> {
    std::thread::scope(|scope| scope.spawn(|| run::seed(seed, plan)).join().unwrap())
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let seeds: Range<u64> = options.from..options.from + options.seeds;
    let next = AtomicU64::new(seeds.start);
    let threads = options.threads.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    });
    let limit = options.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let (results, arrived) = mpsc::channel();
    let (mut total, mut done, mut failures) = (Total::default(), 0_u64, Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (results, next, seeds) = (results.clone(), &next, seeds.clone());
            scope.spawn(move || {
                while limit.is_none_or(|limit| began.elapsed() < limit) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = seed >= seeds.end;
                    if stop || results.send(alone(seed, &plan(options))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for result in arrived {
            done += 1;
            match result {
                Ok(outcome) => total.add(&outcome),
                Err(failure) => {
                    report(&failure);
                    failures.push(failure.seed);
                    // The others would most likely fail in the same way.
                    if failures.len() == 3 {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            }
            if done.is_multiple_of(10) {
                say(&format!("{done} seeds in {:.0} s", began.elapsed().as_secs_f64()));
            }
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{done} seeds in {seconds:.1} s, {} failed {failures:?}\n{total}",
        failures.len()
    ));
    // A simulation in which nothing happens proves nothing.
    let idle = total.idle(done);
    if let Some(idle) = idle {
        say(&format!("but too little happened: {idle}"));
        return ExitCode::FAILURE;
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What happened in all seeds together.
#[derive(Debug, Default)]
struct Total(BTreeMap<&'static str, u64>);

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        for (what, count) in &outcome.counts {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What has not happened that should have, in so many seeds.
    fn idle(&self, seeds: u64) -> Option<&'static str> {
        if seeds < 20 {
            return None;
        }
        let mut expected = run::EXPECTED.into_iter().chain(agents::EXPECTED);
        expected.find(|what| self.0.get(what).is_none_or(|count| *count == 0))
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>12}  {what}")?;
        }
        Ok(())
    }
}

fn report(failure: &Failure) {
    let Failure { seed, why, trace } = failure;
    let path = std::env::temp_dir().join(format!("orch-sim-{}-{seed}.txt", std::process::id()));
    let kept = std::fs::write(&path, trace);
    let last: Vec<&str> = trace.lines().rev().take(40).collect();
    let last: String = last.into_iter().rev().map(|line| format!("    {line}\n")).collect();
    let place = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
    say(&format!(
        "seed {seed} failed: {why}\n{last}\n  the whole trace: {place}\n  again: scripts/simulate \
         --seed {seed}\n"
    ));
}

fn say(what: &str) {
    // Whoever reads may have gone.
    let _ = writeln!(std::io::stdout().lock(), "{what}");
}
