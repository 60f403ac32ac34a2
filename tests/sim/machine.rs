//! A machine on which an agent's tasks run, as an engine keeps them: they go on without the agent,
//! start after a while, become well, end when they are told to, and some fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orch::agent::runtime::{
    Answer, Condition, ExecInput, ExecOrder, ExecOutput, Exit, Found, Line, LogQuery, Notice,
    Runtime, RuntimeError,
};
use orch::agent::{Owner, Sample, TaskKey, TaskOrder};
use orch::clock::{self, SharedClock};
use orch::model::name::JobId;
use orch::model::time::Timestamp;
use orch::rpc::v1::{FileInfo, FoundContainer};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::kernel::scene;

/// A command with this word fails before it is well.
pub const FAILS: &str = "fail";
/// Between two looks for what has changed.
const LOOK: Duration = Duration::from_millis(20);

fn up_to(millis: u64) -> Duration {
    Duration::from_millis(clock::random() % millis)
}

/// What runs on a machine, whether an agent looks after it or not. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    known: BTreeMap<TaskKey, Task>,
    handles: u64,
    /// Nothing fails by chance any more.
    is_calm: bool,
    failed: u64,
}

/// Something that was started.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose replica it is.
    pub job: JobId,
    /// Which one.
    pub index: u32,
    owner: Owner,
    handle: String,
    /// As the host's clock told it.
    started_at: Timestamp,
    well_at: Duration,
    fails_at: Option<Duration>,
    /// Told to end: when it will have.
    ends_at: Option<Duration>,
}

impl Task {
    fn exit(&self, now: Duration) -> Option<i32> {
        let failed = self.fails_at.filter(|at| *at <= now);
        let ended = self.ends_at.filter(|at| *at <= now);
        match (failed, ended) {
            (Some(failed), Some(ended)) if ended < failed => Some(143),
            (Some(_), _) => Some(1),
            (None, Some(_)) => Some(143),
            (None, None) => None,
        }
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap()
    }

    /// What an agent on it is given.
    pub fn runtime(&self, clock: SharedClock) -> Arc<dyn Runtime> {
        Arc::new(Engine { machine: self.clone(), clock })
    }

    /// From here on nothing fails by chance.
    pub fn calm_down(&self) {
        let mut tasks = self.lock();
        tasks.is_calm = true;
        let now = scene(|scene| scene.now);
        for task in tasks.known.values_mut() {
            task.fails_at = task.fails_at.filter(|at| *at <= now.max(task.well_at));
        }
    }

    /// The power was gone: nothing runs any more; if its disk is gone too, nothing is left.
    pub fn lose(&self, disk: bool) {
        let mut tasks = self.lock();
        if disk {
            tasks.known.clear();
        }
        let now = scene(|scene| scene.now);
        for task in tasks.known.values_mut() {
            task.ends_at = Some(task.ends_at.map_or(now, |at| at.min(now)));
        }
    }

    /// All that runs now.
    pub fn running(&self) -> Vec<(TaskKey, Task)> {
        let now = scene(|scene| scene.now);
        let tasks = self.lock();
        let runs = tasks.known.iter().filter(|(_, task)| task.exit(now).is_none());
        runs.map(|(key, task)| (key.clone(), task.clone())).collect()
    }

    /// How many tasks were made to fail.
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }
}

impl Tasks {
    fn begin(&mut self, order: &TaskOrder, started_at: Timestamp) -> String {
        let now = scene(|scene| scene.now);
        self.handles += 1;
        let handle = format!("m{}", self.handles);
        let well_at = now + Duration::from_millis(1) + up_to(1500);
        let is_bad = order.spec.command.iter().any(|word| word == FAILS);
        let fails_at = match clock::random() % 20 {
            // Before it is well: otherwise chance could make its version one to go back to.
            _ if is_bad => Some(now + (well_at - now) / 2),
            // As soon as its predecessor is about to go, or much later.
            0 if !self.is_calm => Some(well_at + up_to(400)),
            1 if !self.is_calm => Some(now + up_to(40_000)),
            _ => None,
        };
        self.failed += u64::from(fails_at.is_some());
        let task = Task {
            job: order.job.clone(),
            index: order.index,
            owner: order.owner.clone(),
            handle: handle.clone(),
            started_at,
            well_at,
            fails_at,
            ends_at: None,
        };
        self.known.insert(order.key.clone(), task);
        handle
    }

    fn get(&mut self, key: &TaskKey, handle: &str) -> Result<&mut Task, RuntimeError> {
        let task = self.known.get_mut(key).filter(|task| task.handle == handle);
        task.ok_or_else(|| RuntimeError::NotFound(format!("there is no {handle}")))
    }
}

/// The engine of a machine.
#[derive(Debug)]
struct Engine {
    machine: Machine,
    clock: SharedClock,
}

impl Engine {
    fn exit(&self, key: &TaskKey, handle: &str) -> Result<Option<i32>, RuntimeError> {
        let now = scene(|scene| scene.now);
        Ok(self.machine.lock().get(key, handle)?.exit(now))
    }
}

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(RuntimeError::Refused("nobody asks for that here".to_owned())) })
}

impl Runtime for Engine {
    fn word(&self) -> &'static str {
        "process"
    }

    fn list<'a>(&'a self, owner: &'a Owner) -> Answer<'a, Vec<Found>> {
        Box::pin(async move {
            sleep(up_to(30)).await;
            let now = scene(|scene| scene.now);
            let tasks = self.machine.lock();
            let own = tasks.known.iter().filter(|(_, task)| task.owner == *owner);
            let found = own.map(|(key, task)| Found {
                key: key.clone(),
                handle: task.handle.clone(),
                running: task.exit(now).is_none(),
            });
            Ok(found.collect())
        })
    }

    fn watch<'a>(
        &'a self,
        owner: &'a Owner,
        _since: Timestamp,
        sink: mpsc::Sender<Notice>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut told = BTreeSet::new();
            loop {
                let now = scene(|scene| scene.now);
                let ended: Vec<(TaskKey, String)> = {
                    let tasks = self.machine.lock();
                    let own = tasks.known.iter().filter(|(_, task)| task.owner == *owner);
                    let ended = own.filter(|(_, task)| task.exit(now).is_some());
                    ended.map(|(key, task)| (key.clone(), task.handle.clone())).collect()
                };
                for (key, handle) in ended {
                    if told.insert(handle) && sink.send(Notice::Task(key)).await.is_err() {
                        return Ok(());
                    }
                }
                sleep(LOOK).await;
            }
        })
    }

    fn find<'a>(&'a self, _mesos_tasks: &'a [String]) -> Answer<'a, Vec<FoundContainer>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn pull<'a>(&'a self, _order: &'a TaskOrder) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// An agent that is killed meanwhile leaves nothing, or something it does not know of.
    fn start<'a>(&'a self, order: &'a TaskOrder, _reuse: Option<&'a str>) -> Answer<'a, String> {
        Box::pin(async move {
            sleep(Duration::from_millis(20) + up_to(1500)).await;
            let started_at = self.clock.now();
            let handle = self.machine.lock().begin(order, started_at);
            sleep(up_to(200)).await;
            Ok(handle)
        })
    }

    fn stop<'a>(&'a self, key: &'a TaskKey, handle: &'a str, grace: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let now = scene(|scene| scene.now);
            {
                let mut tasks = self.machine.lock();
                let task = tasks.get(key, handle)?;
                if task.ends_at.is_none() {
                    // One in five has to be killed.
                    let takes = up_to(grace.as_millis() as u64 * 5 / 4 + 1).min(grace);
                    task.ends_at = Some(now + takes);
                }
            }
            while self.exit(key, handle)?.is_none() {
                sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, key: &'a TaskKey, handle: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            sleep(up_to(20)).await;
            let mut tasks = self.machine.lock();
            if tasks.get(key, handle).is_ok() {
                tasks.known.remove(key);
            }
            Ok(())
        })
    }

    fn inspect<'a>(&'a self, key: &'a TaskKey, handle: &'a str) -> Answer<'a, Condition> {
        Box::pin(async move {
            sleep(up_to(10)).await;
            let now = scene(|scene| scene.now);
            let mut tasks = self.machine.lock();
            let Ok(task) = tasks.get(key, handle) else { return Ok(Condition::Absent) };
            Ok(match task.exit(now) {
                None => Condition::Running { started_at: Some(task.started_at) },
                Some(code) => Condition::Ended(Exit { code, ..Exit::default() }),
            })
        })
    }

    fn logs<'a>(
        &'a self,
        _key: &'a TaskKey,
        _handle: &'a str,
        _query: LogQuery,
        _sink: mpsc::Sender<Line>,
    ) -> Answer<'a, ()> {
        refused()
    }

    /// Every command says whether the task is well.
    fn exec<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        _order: ExecOrder,
        _input: mpsc::Receiver<ExecInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, i32> {
        Box::pin(async move {
            sleep(up_to(10)).await;
            drop(output);
            let now = scene(|scene| scene.now);
            let mut tasks = self.machine.lock();
            let task = tasks.get(key, handle)?;
            match task.exit(now) {
                None => Ok(i32::from(now < task.well_at)),
                Some(_) => Err(RuntimeError::NotFound(format!("{handle} does not run"))),
            }
        })
    }

    fn look_at<'a>(
        &'a self,
        _key: &'a TaskKey,
        _handle: &'a str,
        _path: &'a str,
    ) -> Answer<'a, FileInfo> {
        refused()
    }

    fn read_files<'a>(
        &'a self,
        _key: &'a TaskKey,
        _handle: &'a str,
        _path: &'a str,
        _output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, ()> {
        refused()
    }

    fn write_files<'a>(
        &'a self,
        _key: &'a TaskKey,
        _handle: &'a str,
        _path: &'a str,
        _input: mpsc::Receiver<ExecInput>,
    ) -> Answer<'a, ()> {
        refused()
    }

    fn inside<'a>(&'a self, _key: &'a TaskKey, _handle: &'a str) -> Answer<'a, Option<IpAddr>> {
        Box::pin(async { Ok(None) })
    }

    fn usage<'a>(&'a self, _tasks: &'a [(TaskKey, String)]) -> Answer<'a, Vec<(TaskKey, Sample)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn disk_used<'a>(&'a self, _owner: &'a Owner) -> Answer<'a, BTreeMap<TaskKey, u64>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }
}
