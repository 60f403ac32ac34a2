//! The servers, their clients, what befalls them, and what must hold all the while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use orch::clock;
use orch::consensus::snapshot_store::SnapshotStore;
use orch::consensus::state_machine::{Checkpoint, StateMachine, Surroundings};
use orch::consensus::types::{Batch, Member};
use orch::consensus::virtual_time::{sleep, timeout};
use orch::consensus::{RaftLog, Tuning, View};
use orch::ground::{Offload, Witness};
use orch::model::time::Timestamp;
use orch::model::variable::VariablePath;
use orch::observe::metrics::Metrics;
use orch::state::codec::{BatchWriter, encode_request};
use orch::state::{Command, State};
use tokio::sync::{mpsc, watch};

use super::disk::Disk;
use super::network::{Exit, Network, Raft};

pub const SERVERS: [u64; 3] = [1, 2, 3];
const CLIENTS: u64 = 4;
/// Of virtual time.
const STORM: Duration = Duration::from_secs(15);
const CALM: Duration = Duration::from_secs(60);

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Crashes.
    pub crashes: usize,
    /// Terms with a leader.
    pub terms: usize,
    /// Index and checksum of all servers' state at the end.
    pub state: (u64, u64),
}

/// What was seen of all servers.
#[derive(Default)]
pub struct Witness {
    /// Who led in which term.
    leaders: BTreeMap<u64, u64>,
    /// The state's checksum after each entry that was looked at.
    checksums: BTreeMap<u64, u64>,
    /// Writes that were acknowledged, with the index of their entry.
    acknowledged: BTreeMap<String, u64>,
}

impl Witness {
    fn leads(&mut self, term: u64, server: u64) {
        let known = *self.leaders.entry(term).or_insert(server);
        assert_eq!(known, server, "term {term} has two leaders");
    }

    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    fn state(&mut self, index: u64, checksum: u64) {
        let known = *self.checksums.entry(index).or_insert(checksum);
        assert_eq!(known, checksum, "states differ after entry {index}");
    }
}

pub struct Server {
    pub disk: Disk,
    views: Option<watch::Receiver<View>>,
}

/// Who sees the state after every entry.
pub trait Observer: Send {
    fn look(&mut self, checkpoint: &Checkpoint);
}

/// Three servers; clones are the same ones.
#[derive(Clone, Default)]
pub struct World {
    pub network: Network,
    pub servers: Arc<Mutex<BTreeMap<u64, Server>>>,
    pub witness: Arc<Mutex<Witness>>,
    pub observer: Option<Arc<Mutex<dyn Observer>>>,
}

/// Indexes between two looks at the checksum.
const CHECKSUM_EVERY: u64 = 8;
/// The same of a large state.
const CHECKSUM_SELDOM: u64 = 64;

/// One storm, and the calm after it.
pub async fn run(seed: u64) -> Outcome {
    let world = World::default();
    world.found().await;
    let watching = tokio::spawn(world.clone().watch());
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(world.clone().write(client))).collect();
    let crashes = world.storm().await;
    world.heal().await;
    let state = timeout(CALM, world.settle()).await.unwrap_or_else(|_| {
        panic!("seed {seed}: the servers don't come to one state again: {}", world.describe())
    });
    clients.iter().for_each(|client| client.abort());
    for failed in clients.into_iter().chain([watching]) {
        failed.abort();
        if let Err(error) = failed.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    world.nothing_is_lost();
    let witness = world.witness.lock().unwrap();
    Outcome { acknowledged: witness.acknowledged.len(), crashes, terms: witness.terms(), state }
}

impl World {
    /// Starts all servers for the first time.
    pub async fn found(&self) {
        for id in SERVERS {
            let server = Server { disk: Disk::default(), views: None };
            self.servers.lock().unwrap().insert(id, server);
            self.start(id).await;
        }
        let members: BTreeMap<u64, Member> = SERVERS.map(|id| (id, Member::default())).into();
        self.raft(SERVERS[0]).unwrap().initialize(members).await.unwrap();
    }

    pub fn raft(&self, id: u64) -> Option<Raft> {
        self.network.0.lock().unwrap().up.get(&id).cloned()
    }

    /// Starts a server on what its disk holds.
    pub async fn start(&self, id: u64) {
        let disk = self.servers.lock().unwrap()[&id].disk.clone();
        let (views, viewed) =
            watch::channel(View { state: Arc::new(State::default()), applied_index: 0 });
        let (checkpoints, mut checked) = mpsc::channel(4096);
        let machine = StateMachine::new(Surroundings {
            snapshots: SnapshotStore::open(Arc::new(disk.mount())).unwrap(),
            offload: Offload::Inline,
            views,
            checkpoints,
            checkpoint_every: if self.observer.is_some() { 1 } else { CHECKSUM_EVERY },
            witness: Witness::default(),
            metrics: Metrics::new().unwrap(),
        });
        let log = RaftLog::new(Box::new(disk.mount()), disk.load());
        let config = Arc::new(Tuning::default().raft(&"sim".parse().unwrap()).unwrap());
        let exit = Exit { from: id, network: self.network.clone() };
        let raft = Raft::new(id, config, exit, log, machine).await.unwrap();
        let (witness, observer) = (self.witness.clone(), self.observer.clone());
        tokio::spawn(async move {
            while let Some(checkpoint) = checked.recv().await {
                if let Some(observer) = &observer {
                    observer.lock().unwrap().look(&checkpoint);
                }
                let every = if observer.is_some() { CHECKSUM_SELDOM } else { CHECKSUM_EVERY };
                if checkpoint.index.is_multiple_of(every) {
                    let checksum = checkpoint.state.checksum();
                    witness.lock().unwrap().state(checkpoint.index, checksum);
                }
            }
        });
        self.servers.lock().unwrap().get_mut(&id).unwrap().views = Some(viewed);
        self.network.0.lock().unwrap().up.insert(id, raft);
    }

    /// The power goes.
    pub async fn crash(&self, id: u64) {
        let raft = self.network.0.lock().unwrap().up.remove(&id);
        let disk = self.servers.lock().unwrap()[&id].disk.clone();
        disk.crash();
        if let Some(raft) = raft {
            // Whatever it does on its way out reaches neither disk nor network.
            let _ = raft.shutdown().await;
        }
        // A write that was under way leaves what it leaves.
        sleep(Duration::from_millis(400)).await;
    }

    /// Looks at all servers all the time.
    pub async fn watch(self) {
        loop {
            for id in SERVERS {
                let Some(raft) = self.raft(id) else { continue };
                let (state, term) = {
                    let metrics = raft.metrics();
                    let metrics = metrics.borrow_watched();
                    (metrics.state, metrics.current_term)
                };
                if state == ServerState::Leader {
                    self.witness.lock().unwrap().leads(term, id);
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A client: one write after another, to whoever takes it.
    async fn write(self, client: u64) {
        let mut at = client % 3;
        for number in 0_u64.. {
            let key = format!("{client}/{number}");
            let command = Command::PutVariable {
                project: "default".parse().unwrap(),
                path: VariablePath::try_from(key.clone()).unwrap(),
                value: vec![client as u8; 100],
                if_index: None,
            };
            let mut batch = BatchWriter::new(Timestamp(number));
            batch.push(&encode_request(&command.into()).unwrap());
            let batch = Batch(batch.finish().into());
            // Until it is done, or nobody can tell whether it is.
            loop {
                sleep(Duration::from_millis(10 + clock::random() % 30)).await;
                let Some(raft) = self.raft(SERVERS[at as usize]) else {
                    at = (at + 1) % 3;
                    continue;
                };
                let writing = raft.client_write(batch.clone());
                match timeout(Duration::from_secs(2), writing).await {
                    Ok(Ok(done)) => {
                        let index = done.log_id.index;
                        self.witness.lock().unwrap().acknowledged.insert(key, index);
                        break;
                    }
                    Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                        at = to.leader_id.map_or((at + 1) % 3, |leader| leader - 1);
                    }
                    Ok(Err(_)) | Err(_) => {
                        at = (at + 1) % 3;
                        break;
                    }
                }
            }
        }
    }

    /// What befalls the servers; how many crashes there were.
    async fn storm(&self) -> usize {
        let begun = orch::consensus::virtual_time::now();
        let mut crashes = 0;
        while orch::consensus::virtual_time::now() - begun < STORM {
            sleep(Duration::from_millis(100 + clock::random() % 900)).await;
            let victim = SERVERS[(clock::random() % 3) as usize];
            match clock::random() % 8 {
                0..3 => {
                    crashes += 1;
                    self.crash(victim).await;
                    sleep(Duration::from_millis(clock::random() % 1500)).await;
                    self.start(victim).await;
                }
                3 => {
                    // All at once.
                    crashes += 3;
                    for id in SERVERS {
                        self.crash(id).await;
                    }
                    for id in SERVERS {
                        self.start(id).await;
                    }
                }
                4 => self.cut(victim, clock::random().is_multiple_of(3)).await,
                5 => self.network.0.lock().unwrap().loss = clock::random() % 200,
                6 => {
                    if let Some(raft) = self.raft(victim) {
                        let _ = raft.trigger().snapshot().await;
                        sleep(Duration::from_millis(300)).await;
                        let snapshot = raft.metrics().borrow_watched().snapshot;
                        if let Some(upto) = snapshot {
                            let _ = raft.trigger().purge_log(upto.index).await;
                        }
                    }
                }
                _ => {
                    let to = SERVERS[(clock::random() % 3) as usize];
                    if let Some(raft) = self.raft(victim) {
                        let _ = raft.trigger().transfer_leader(to).await;
                        sleep(Duration::from_secs(2)).await;
                        let _ = raft.trigger().elect(false).await;
                    }
                }
            }
        }
        crashes
    }

    /// Cuts a server off for a while, in one direction or both.
    pub async fn cut(&self, victim: u64, one_way: bool) {
        for other in SERVERS {
            let mut weather = self.network.0.lock().unwrap();
            weather.cut.insert((victim, other));
            if !one_way {
                weather.cut.insert((other, victim));
            }
        }
        sleep(Duration::from_millis(300 + clock::random() % 3000)).await;
        self.network.0.lock().unwrap().cut.clear();
    }

    /// The network is whole and all servers run.
    pub async fn mend(&self) {
        {
            let mut weather = self.network.0.lock().unwrap();
            weather.cut.clear();
            weather.loss = 0;
        }
        for id in SERVERS {
            if self.raft(id).is_none() {
                self.start(id).await;
            }
        }
        // Whatever leader a half-done transfer left behind is free again.
        if let Some(raft) = self.raft(SERVERS[0]) {
            let _ = raft.trigger().elect(false).await;
        }
    }

    async fn heal(&self) {
        self.mend().await;
        // The clients must get on again before the end is looked at.
        let before = self.witness.lock().unwrap().acknowledged.len();
        let resumed = timeout(CALM, async {
            while self.witness.lock().unwrap().acknowledged.len() < before + 20 {
                sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(resumed.await.is_ok(), "no write gets through again: {}", self.describe());
    }

    /// What a server has applied.
    pub fn view(&self, id: u64) -> Option<View> {
        Some(self.servers.lock().unwrap()[&id].views.as_ref()?.borrow().clone())
    }

    fn views(&self) -> Vec<View> {
        let servers = self.servers.lock().unwrap();
        servers
            .values()
            .filter_map(|server| Some(server.views.as_ref()?.borrow().clone()))
            .collect()
    }

    /// Waits until all servers have the same state.
    pub async fn settle(&self) -> (u64, u64) {
        loop {
            let views = self.views();
            let index = views[0].applied_index;
            if views.iter().all(|view| view.applied_index == index) {
                let checksum = views[0].state.checksum();
                for view in &views {
                    assert_eq!(view.state.checksum(), checksum, "states differ at entry {index}");
                }
                return (index, checksum);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn nothing_is_lost(&self) {
        let views = self.views();
        let project = "default".parse().unwrap();
        for (key, index) in &self.witness.lock().unwrap().acknowledged {
            let path = VariablePath::try_from(key.clone()).unwrap();
            for view in views.iter().filter(|view| view.applied_index >= *index) {
                let found = view.state.variable(&project, &path).map(|found| found.modified_index);
                assert_eq!(found, Some(*index), "{key} was acknowledged");
            }
        }
    }

    pub fn describe(&self) -> String {
        let rafts = SERVERS.map(|id| self.raft(id));
        let metrics: Vec<_> = rafts.iter().flatten().map(|raft| raft.metrics()).collect();
        let words = metrics.iter().map(|metrics| metrics.borrow_watched().to_string());
        words.collect::<Vec<_>>().join("\n")
    }
}
