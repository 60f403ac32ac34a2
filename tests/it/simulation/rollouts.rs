//! A whole cluster of servers with planners, hosts with agents, and a user, in a storm that hits
//! leaders above all; and the calm after it, in which everything must come to what was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orch::clock;
use orch::consensus::virtual_time::{now, sleep};
use orch::model::deployment::DeploymentStatus;
use orch::model::name::NodeName;
use orch::state::{Command, State};

use super::hosts::{HOSTS, host_name};
use super::invariants::Invariants;
use super::planning::seen_by_leader;
use super::user::{JOBS, job_id, version};
use super::world::{SERVERS, World};

/// The word in a command that makes a version fail.
pub const BAD: &str = "fail";
/// Of virtual time.
const STORM: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(600);

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Entries after which the invariants were looked at.
    pub entries: u64,
    /// Crashes of a server that led while a deployment was under way.
    pub leaders_lost: usize,
    /// Terms with a leader.
    pub terms: usize,
    /// Deployments that there were.
    pub deployments: u64,
    /// What was asked to stop, by reason.
    pub stops: BTreeMap<String, usize>,
    /// Index and checksum of all servers' state at the end.
    pub state: (u64, u64),
}

/// All of it; clones are the same one.
/// By server, term and node.
type Heard = BTreeMap<(u64, u64, NodeName), Duration>;

#[derive(Clone)]
pub struct Cluster {
    pub world: World,
    /// When each leader last heard of each node in its term.
    pub heard: Arc<Mutex<Heard>>,
    calm: Arc<AtomicBool>,
}

/// One storm, and the calm after it.
pub async fn run(seed: u64) -> Outcome {
    let tells = std::env::var_os("ORCH_SIM_TELL").is_some();
    let invariants = Arc::new(Mutex::new(Invariants::new(tells)));
    let world = World { observer: Some(invariants.clone()), ..World::default() };
    let cluster = Cluster { world, heard: Arc::default(), calm: Arc::default() };
    cluster.world.found().await;
    let mut tasks =
        vec![tokio::spawn(cluster.world.clone().watch()), tokio::spawn(cluster.clone().user())];
    tasks.extend(SERVERS.map(|id| tokio::spawn(cluster.clone().plan(id))));
    tasks.extend((0..HOSTS).map(|host| tokio::spawn(cluster.clone().host(host))));
    let leaders_lost = cluster.storm(&mut tasks).await;
    cluster.calm.store(true, Ordering::Relaxed);
    cluster.world.mend().await;
    for host in 0..HOSTS {
        cluster.ask(Command::SetEligibility { node: host_name(host), eligible: true }).await;
    }
    let deadline = now() + CALM;
    while let Err(why) = cluster.converged().await {
        assert!(now() < deadline, "seed {seed}: it never comes to what was asked: {why}");
        sleep(Duration::from_millis(500)).await;
    }
    let deployments = seen_by_leader(&cluster)
        .and_then(|state| state.deployments().map(|deployment| deployment.id.0).max());
    for task in tasks {
        task.abort();
        if let Err(error) = task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let state = cluster.world.settle().await;
    let invariants = invariants.lock().unwrap();
    let terms = cluster.world.witness.lock().unwrap().terms();
    Outcome {
        entries: invariants.entries,
        leaders_lost,
        terms,
        deployments: deployments.unwrap_or_default(),
        stops: invariants.stops.clone(),
        state,
    }
}

impl Cluster {
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Counts up with each crash of a server.
    pub fn life(&self, id: u64) -> u64 {
        self.world.servers.lock().unwrap()[&id].disk.0.lock().unwrap().life
    }

    /// What befalls the servers; how many leaders crashed while a deployment was under way.
    async fn storm(&self, tasks: &mut Vec<tokio::task::JoinHandle<()>>) -> usize {
        let begun = now();
        let mut leaders_lost = 0;
        while now() - begun < STORM {
            sleep(Duration::from_millis(500 + clock::random() % 3500)).await;
            let any = SERVERS[(clock::random() % 3) as usize];
            let leader = self.leader().map_or(any, |leader| leader.id);
            match clock::random() % 8 {
                0..4 => {
                    let busy = seen_by_leader(self).is_some_and(|state| {
                        state.deployments().any(|deployment| deployment.active())
                    });
                    leaders_lost += usize::from(busy);
                    self.restart(leader, tasks).await;
                }
                4 => self.restart(any, tasks).await,
                5 => self.world.cut(leader, clock::random().is_multiple_of(3)).await,
                6 => self.world.network.0.lock().unwrap().loss = clock::random() % 100,
                _ => {
                    // All at once.
                    for id in SERVERS {
                        self.world.crash(id).await;
                    }
                    for id in SERVERS {
                        self.begin(id, tasks).await;
                    }
                }
            }
        }
        leaders_lost
    }

    async fn restart(&self, id: u64, tasks: &mut Vec<tokio::task::JoinHandle<()>>) {
        self.world.crash(id).await;
        sleep(Duration::from_millis(clock::random() % 3000)).await;
        self.begin(id, tasks).await;
    }

    async fn begin(&self, id: u64, tasks: &mut Vec<tokio::task::JoinHandle<()>>) {
        self.world.start(id).await;
        tasks.push(tokio::spawn(self.clone().plan(id)));
    }

    /// Whether every job is what was asked for; what is missing, if not.
    async fn converged(&self) -> Result<(), String> {
        let state = seen_by_leader(self).ok_or("nobody leads")?;
        for number in 0..JOBS {
            if let Some(help) = help(&state, number) {
                // Nothing but a person gets it out of there.
                self.ask(help).await;
                return Err(format!("web{number} had to be helped"));
            }
            missing(&state, number)?;
        }
        Ok(())
    }
}

/// What a person would do about a job that waits for one.
fn help(state: &State, number: u64) -> Option<Command> {
    let job = state.job(&job_id(number))?;
    let latest = state.latest_deployment(job)?;
    let reverts = job.spec().update.auto_revert;
    let has_way_back = latest.from.is_some_and(|from| !job.runs_current(from));
    match latest.status {
        DeploymentStatus::Paused => {
            Some(Command::PauseDeployment { deployment: latest.id, paused: false })
        }
        // Somebody gave it up for good, or there is nothing to go back to.
        DeploymentStatus::Failed => {
            let aborted = latest.reason.starts_with("aborted");
            assert!(
                aborted || !reverts || !has_way_back,
                "web{number} should have gone back: {latest:#?}"
            );
            Some(version(number, true))
        }
        _ => None,
    }
}

fn missing(state: &State, number: u64) -> Result<(), String> {
    let id = job_id(number);
    let job = state.job(&id).ok_or("it was never submitted")?;
    let latest = state.latest_deployment(job).ok_or("it has no deployment")?;
    if latest.status != DeploymentStatus::Successful {
        return Err(format!("{latest:#?}"));
    }
    let live: Vec<_> = state.allocs_of(&id).filter(|alloc| !alloc.ended()).collect();
    let right = |alloc: &&&Arc<orch::model::allocation::Allocation>| {
        alloc.available() && job.runs_current(alloc.version) && alloc.index < job.replicas()
    };
    let (all, well) = (live.len(), live.iter().filter(right).count());
    if all == well && all as u32 == job.replicas() {
        return Ok(());
    }
    Err(format!("{well} of {} are well: {live:#?}", job.replicas()))
}
