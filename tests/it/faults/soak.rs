//! Hours of everything at a low rate: `scripts/soak` runs it.
//!
//! Three servers, two agents with work on them, clients of both kinds, all faults one after the
//! other. What clients saw is judged every few minutes, in epochs with paths of their own. The last
//! server and the agents are never killed: what leaks slowly shows in them.
//!
//! ORCH_SOAK_MINUTES says how long, ORCH_SOAK_DIR where the samples go (`soak.csv`), and a file
//! named `stop` there ends it early.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::{Clients, Plan, make_parents};
use super::curves::{Curves, Quantity};
use super::each_kind::number;
use super::fill::fill;
use super::history::{Counts, History};
use super::nemesis::{Fault, Nemesis};
use super::servers::{Servers, Setup};
use crate::support::{LONG, wait_until};

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// The longest time between two judgements.
const EPOCH: Duration = Duration::from_secs(10 * 60);
/// Between two faults, at most, in seconds.
const CALM_SECONDS: u64 = 60;
const JOB: &str = "job: web\ncommand: [sleep, \"100000\"]\nstop_grace: 1s\n\
                   resources: { cpu: 0.1, memory: 16Mi }\n";

/// Samples of all processes, in a file and as curves.
struct Sampler {
    began: Instant,
    next: Instant,
    file: fs::File,
    curves: Curves,
}

impl Sampler {
    fn new(path: &Path) -> Self {
        let mut file = fs::File::create(path).unwrap();
        let names: Vec<_> = Quantity::ALL.iter().map(|quantity| quantity.name()).collect();
        writeln!(file, "seconds,process,pid,{}", names.join(",")).unwrap();
        let began = Instant::now();
        Self { began, next: began, file, curves: Curves::default() }
    }

    /// Takes a sample if it is time.
    fn look(&mut self, servers: &Servers) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + SAMPLE_EVERY;
        for at in 0..servers.count() {
            if let Some(pid) = servers.id(at).filter(|_| servers.runs(at)) {
                let log_index = log_index(servers, at);
                self.note(servers.name(at), pid, servers.data(at), log_index);
            }
        }
        for (at, pid) in servers.agent_ids().into_iter().enumerate() {
            let name = format!("n{}", at + 1);
            self.note(&name, pid, &servers.path().join(&name), None);
        }
    }

    fn note(&mut self, process: &str, pid: u32, data: &Path, log_index: Option<f64>) {
        // It may end at any time.
        let Some(memory) = memory(pid) else { return };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let values = [Some(memory), Some(descriptors as f64), Some(disk(data) as f64), log_index];
        let seconds = self.began.elapsed().as_secs_f64();
        let shown: Vec<_> =
            values.iter().map(|value| value.map_or(String::new(), |v| v.to_string())).collect();
        writeln!(self.file, "{seconds:.1},{process},{pid},{}", shown.join(",")).unwrap();
        for (quantity, value) in Quantity::ALL.into_iter().zip(values) {
            if let Some(value) = value {
                self.curves.note(process, quantity, seconds, value);
            }
        }
    }
}

/// Resident memory of a process in bytes.
fn memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Bytes that a directory's files take.
fn disk(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn log_index(servers: &Servers, at: usize) -> Option<f64> {
    let (_, body) = servers.http("GET", at, "/metrics").ok()?;
    let text = String::from_utf8(body).ok()?;
    text.lines().find_map(|line| line.strip_prefix("orch_raft_last_log_index "))?.parse().ok()
}

/// How it went; shown when it is dropped, whatever has ended it.
struct Report {
    seed: u64,
    sampler: Sampler,
    faults: Vec<Fault>,
    epochs: usize,
    counts: Counts,
    problems: Vec<String>,
    /// All of it was judged.
    ended: bool,
}

impl Report {
    fn add(&mut self, counts: Counts) {
        self.epochs += 1;
        self.counts.operations += counts.operations;
        self.counts.written += counts.written;
        self.counts.refused += counts.refused;
        self.counts.read += counts.read;
        self.counts.unknown += counts.unknown;
    }

    fn show(&self) {
        let (seed, curves) = (self.seed, &self.sampler.curves);
        println!("\nsoak of {:?}, ORCH_FAULTS_SEED={seed}\n", self.sampler.began.elapsed());
        println!("{}", curves.table());
        let mut kinds: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        kinds.sort();
        let each: Vec<String> = kinds
            .chunk_by(|one, other| one == other)
            .map(|chunk| format!("{} {}", chunk.len(), chunk[0]))
            .collect();
        println!("faults: {} ({})", kinds.len(), each.join(", "));
        println!("clients, in {} epochs: {:?}", self.epochs, self.counts);
        let verdict = |fine: bool| if fine { "yes" } else { "NO" };
        let fine = self.problems.is_empty() && self.ended;
        println!(
            "linearizable, no acknowledged write lost, same state everywhere: {}",
            verdict(fine)
        );
        let growing = curves.growing();
        println!("curves flat: {}", verdict(growing.is_empty()));
        for problem in self.problems.iter().chain(&growing) {
            println!("problem: {problem}");
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.show();
    }
}

fn goes_on(directory: &Path, until: Instant) -> bool {
    Instant::now() < until && !directory.join("stop").exists()
}

#[test]
#[ignore = "takes as long as it is told: scripts/soak"]
fn soak() {
    let minutes = number("ORCH_SOAK_MINUTES", 30);
    let seed = number("ORCH_FAULTS_SEED", orch::clock::random());
    let directory =
        std::env::var("ORCH_SOAK_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    println!("ORCH_FAULTS_SEED={seed}; samples in {}", directory.join("soak.csv").display());
    let setup = Setup { count: 3, preload: true, disk: Some("600m"), ..Setup::default() };
    let mut servers = Servers::start(setup);
    servers.agent("n1", &["--cpu", "4", "--memory", "4Gi"]);
    servers.agent("n2", &["--cpu", "4", "--memory", "4Gi"]);
    let file = servers.path().join("web.yaml");
    fs::write(&file, format!("{JOB}replicas: 2\n")).unwrap();
    wait_until("the job to run", LONG, || {
        let done = servers.orch(0, &["run", "--detach", &file.display().to_string()]);
        if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
    });
    make_parents(&servers.doors());
    fill(&servers.doors());
    let mut rng = StdRng::seed_from_u64(seed);
    let spared = servers.count() - 1;
    let mut nemesis = Nemesis::new(seed, &Fault::OF_ONE).sparing(spared);
    let mut report = Report {
        seed,
        sampler: Sampler::new(&directory.join("soak.csv")),
        faults: Vec::new(),
        epochs: 0,
        counts: Counts::default(),
        problems: Vec::new(),
        ended: false,
    };
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let plan =
        Plan { rest: 6, zookeeper: 6, paths: 8, pause: Duration::from_millis(400), epoch: 0 };
    for epoch in 1.. {
        if !goes_on(&directory, until) || !report.problems.is_empty() {
            break;
        }
        let plan = Plan { epoch, ..plan };
        let ends = until.min(Instant::now() + EPOCH);
        let history = Arc::new(History::new(&servers.path().join("history.jsonl")));
        let clients = Clients::start(servers.doors(), history.clone(), plan, rng.random());
        while goes_on(&directory, ends) {
            let calm = Duration::from_secs(rng.random_range(1..CALM_SECONDS));
            let next = ends.min(Instant::now() + calm);
            while goes_on(&directory, next) {
                report.sampler.look(&servers);
                std::thread::sleep(Duration::from_millis(200));
            }
            if !goes_on(&directory, ends) {
                break;
            }
            let replicas = rng.random_range(1..4);
            wait_until("the job to be scaled", LONG, || {
                let scaled = servers.orch(0, &["scale", &format!("web={replicas}")]);
                if scaled.code == 0 { Ok(()) } else { Err(scaled.to_string()) }
            });
            report.faults.push(nemesis.round(&mut servers, &history));
            report.sampler.look(&servers);
        }
        clients.finish();
        servers.assert_same_everywhere();
        report.add(history.counts());
        report.problems.extend(history.judge().err());
        Clients::tidy(&servers.doors(), plan);
        println!("epoch {epoch}: {:?}", history.counts());
    }
    report.ended = true;
    let growing = report.sampler.curves.growing();
    assert!(report.problems.is_empty() && growing.is_empty(), "{:?} {growing:?}", report.problems);
    assert!(report.counts.written > 0, "nothing was written");
}
