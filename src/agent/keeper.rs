//! The loop that owns everything the agent knows: events come in, `converge` decides, jobs carry
//! it out and come back as events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::{AgentError, Config};
use super::converge::{self, Action, CheckKind, Converge};
use super::docker::EngineFacts;
use super::facts;
use super::link::{self, ToLink};
use super::meter::{Meter, Sample};
use super::order::{Owner, TaskKey, TaskOrder, published};
use super::probe;
use super::runtime::{Found, Runtime, RuntimeError};
use super::runtimes::Runtimes;
use super::start::Start;
use super::store::{self, Store};
use super::view::View;
use super::warden::Warden;
use crate::clock::SharedClock;
use crate::ground::{Ground, Offload};
use crate::limits::{AGENT_QUEUE_MAX, AGENT_STARTS_AT_ONCE};
use crate::model::allocation::Assignment;
use crate::model::job::TaskSpec;
use crate::model::name::{AllocId, TaskName};
use crate::model::node::NodeSpec;
use crate::model::time::Millis;
use crate::rpc;

/// Between two full looks at what runs: what no notice told of is found then.
const LIST_PERIOD: Duration = Duration::from_secs(30);
/// Between two measurements of what tasks with a limit have written.
const DISK_PERIOD: Duration = Duration::from_secs(30);
/// Between two measurements of what tasks use.
const USAGE_PERIOD: Duration = Duration::from_secs(2);
/// What has changed is kept on disk so soon; what comes together is written together.
const SAVE_DELAY: Duration = Duration::from_millis(200);
/// What could not be written is written again so much later.
const SAVE_RETRY: Duration = Duration::from_secs(2);
/// A runtime that did not answer, or is waited for, is listed again so much later.
const LIST_RETRY: Duration = Duration::from_secs(1);
/// An engine that is away longer is no longer offered.
const ENGINE_AWAY: Duration = Duration::from_secs(10);
/// Added to the longest grace when everything has to end.
const END_MARGIN: Duration = Duration::from_secs(20);

/// What the keeper hears.
#[derive(Debug)]
pub(super) enum Event {
    /// For `converge`.
    Work(converge::Event),
    /// A leader took the agent in: whose work it does from now on.
    Welcome(Owner),
    /// A runtime answers.
    Up { runtime: Arc<dyn Runtime>, engine: Option<EngineFacts> },
    /// A runtime does not.
    Down { runtime: &'static str, message: String },
    /// What tasks have used, at that moment.
    Sampled(Instant, Vec<(TaskKey, Sample)>),
    /// What tasks have written.
    DiskUsed(BTreeMap<TaskKey, u64>),
    /// A session asks for an allocation's tasks; all of them without a name.
    Lookup { alloc: AllocId, task: Option<TaskName>, reply: oneshot::Sender<Vec<View>> },
    /// A session asks for the runtime of containers; none if it does not answer.
    Containers { reply: oneshot::Sender<Option<Arc<dyn Runtime>>> },
    /// A start took that long, in milliseconds.
    StartTook(u32),
    /// Allocations were written, but for these.
    Saved(Vec<store::Unsaved>),
    /// A stray container was dealt with.
    StrayDone(String),
}

/// Runs an agent until `stop` is cancelled.
///
/// What it started goes on running, and the next agent on the same data directory takes it over;
/// with [`Config::stop_work_on_exit`] everything is ended and removed first.
///
/// # Errors
/// If the data directory can't be used, or the engine was asked for and does not answer.
pub async fn run(
    config: Config,
    ground: Ground,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let runtimes = Runtimes::first(&config).await?;
    run_with(config, ground, stop, runtimes).await
}

/// [`run`] with given runtimes.
///
/// # Errors
/// If the data directory can't be used.
pub async fn run_with(
    config: Config,
    ground: Ground,
    stop: CancellationToken,
    runtimes: Runtimes,
) -> Result<(), AgentError> {
    let clock = ground.clock.clone();
    facts::check(&config)?;
    let store = Arc::new(Store::open(&config.data_dir)?);
    let identity = store.identity(|| clock.random())?;
    let known = store.allocs()?;
    let offered = runtimes.offered();
    let converge = Converge::new(known, offered, clock.now(), clock.random());
    let mut spec = facts::node_spec(&config, identity.agent_id);
    spec.runtimes.extend(runtimes.fixed.iter().map(|runtime| runtime.word().to_owned()));
    if let Some(Some((_, engine))) = &runtimes.docker {
        offer_engine(&mut spec, engine);
    }
    let (spec, spec_watch) = watch::channel(spec);
    let (events, inbox) = mpsc::channel(AGENT_QUEUE_MAX);
    let (to_link, from_keeper) = mpsc::channel(AGENT_QUEUE_MAX);
    let (owner, owner_watch) = watch::channel(None);
    // Cancelled at the latest when this future is dropped: no task of an agent outlives it.
    let down = CancellationToken::new();
    let _down = down.clone().drop_guard();
    let tracker = TaskTracker::new();

    if identity.cluster_id != 0 {
        let known = Owner { cluster_id: identity.cluster_id, node: config.name.clone() };
        let _ = owner.send(Some(known));
    }
    for runtime in runtimes.fixed {
        let warden = Warden::new(&events, &owner_watch, &clock);
        tracker.spawn(until(down.clone(), async move { warden.keep(runtime).await }));
    }
    if let Some(first) = runtimes.docker {
        let warden = Warden::new(&events, &owner_watch, &clock);
        let (socket, roots) = (config.docker_socket.clone(), config.volume_roots.clone());
        let keep = async move { warden.keep_docker(first, socket, roots).await };
        tracker.spawn(until(down.clone(), keep));
    }
    let usage = runtimes.here.then(|| facts::Usage::new(store.dir()));
    let line = link::Link::new(
        &config,
        identity,
        store.clone(),
        ground.clone(),
        spec_watch,
        (events.clone(), from_keeper),
        usage,
    );
    let line = tracker.spawn(line.run(down.clone()));

    let keeper = Keeper {
        clock,
        offload: ground.offload,
        converge,
        store,
        owner,
        spec,
        events,
        to_link,
        runtimes: BTreeMap::new(),
        calls: BTreeMap::new(),
        probes: BTreeMap::new(),
        strays: BTreeSet::new(),
        list_at: None,
        starts: Arc::new(Semaphore::new(AGENT_STARTS_AT_ONCE)),
        jobs: TaskTracker::new(),
        jobs_end: down.child_token(),
        engine_away: None,
        running: 0,
        meter: Meter::default(),
        sampling: false,
        unsaved: BTreeSet::new(),
        saving: false,
        unwritable: false,
        save_at: None,
        ending: None,
        config,
    };
    keeper.run(inbox, stop, line).await;
    down.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}

async fn until(down: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = down.cancelled() => {}
    }
}

struct Keeper {
    config: Config,
    clock: SharedClock,
    offload: Offload,
    converge: Converge,
    store: Arc<Store>,
    owner: watch::Sender<Option<Owner>>,
    spec: watch::Sender<NodeSpec>,
    events: mpsc::Sender<Event>,
    to_link: mpsc::Sender<ToLink>,
    runtimes: BTreeMap<&'static str, Arc<dyn Runtime>>,
    /// Calls starts off.
    calls: BTreeMap<TaskKey, CancellationToken>,
    probes: BTreeMap<(TaskKey, CheckKind), AbortOnDropHandle<()>>,
    /// Handles of strays that are being ended.
    strays: BTreeSet<String>,
    /// Runtimes that should be listed again are, then.
    list_at: Option<Instant>,
    starts: Arc<Semaphore>,
    jobs: TaskTracker,
    jobs_end: CancellationToken,
    engine_away: Option<Instant>,
    running: u32,
    meter: Meter,
    /// A measurement is on its way.
    sampling: bool,
    unsaved: BTreeSet<AllocId>,
    saving: bool,
    /// The last time something could not be written.
    unwritable: bool,
    save_at: Option<Instant>,
    /// Everything is to end until then.
    ending: Option<Instant>,
}

impl Keeper {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        stop: CancellationToken,
        line: tokio::task::JoinHandle<()>,
    ) {
        let mut list = tokio::time::interval(LIST_PERIOD);
        let mut usage = tokio::time::interval(USAGE_PERIOD);
        usage.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut disk = tokio::time::interval(DISK_PERIOD);
        list.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        disk.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.work(converge::Event::Tick).await;
        loop {
            let wake = self.next_wake();
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.hear(event).await,
                    None => break,
                },
                () = stop.cancelled(), if self.ending.is_none() => {
                    if !self.config.stop_work_on_exit {
                        break;
                    }
                    self.end_all().await;
                }
                () = tokio::time::sleep_until(wake) => {
                    self.save_if_due();
                    self.drop_engine_if_away();
                    self.list_again_if_due();
                    self.work(converge::Event::Tick).await;
                }
                _ = list.tick() => self.list_all(),
                _ = disk.tick() => self.measure_disk(),
                _ = usage.tick(), if !self.sampling => self.sample(),
            }
            if let Some(until) = self.ending {
                let left = self.converge.allocs().len();
                if left == 0 || Instant::now() >= until {
                    if left > 0 {
                        tracing::warn!(left, "some work could not be ended in time");
                    }
                    self.say_goodbye(line).await;
                    break;
                }
            }
        }
        self.jobs_end.cancel();
        self.probes.clear();
        self.jobs.close();
        // Nobody reads what they have to say any more.
        inbox.close();
        self.jobs.wait().await;
        self.save_now().await;
    }

    async fn end_all(&mut self) {
        let graces = self.converge.allocs().values().flat_map(|alloc| &alloc.assignment.spec.tasks);
        let longest = graces.map(|task| task.stop_grace).max().unwrap_or_default();
        self.ending = Some(Instant::now() + longest.as_duration() + END_MARGIN);
        self.work(converge::Event::EndAll).await;
    }

    async fn say_goodbye(&mut self, line: tokio::task::JoinHandle<()>) {
        let _ = self.to_link.send(ToLink::Goodbye).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), line).await;
    }

    fn next_wake(&self) -> Instant {
        let now = self.clock.now();
        let due = self.converge.next_deadline(now).map_or(LIST_PERIOD, |at| {
            // Never at once: what is due and can't be done must not spin.
            at.since(now).as_duration().clamp(Duration::from_millis(1), LIST_PERIOD)
        });
        let due = Instant::now() + due;
        let away = self.engine_away.map(|since| since + ENGINE_AWAY);
        [self.save_at.filter(|_| !self.saving), away, self.ending, self.list_at]
            .into_iter()
            .flatten()
            .fold(due, Instant::min)
    }

    async fn hear(&mut self, event: Event) {
        match event {
            Event::Work(converge::Event::Sync(_) | converge::Event::Orders { .. })
                if self.ending.is_some() => {}
            Event::Work(event) => {
                if let converge::Event::Started { key, .. } = &event {
                    self.calls.remove(key);
                }
                self.work(event).await;
            }
            Event::Welcome(owner) => {
                let changed = self.owner.send_if_modified(|known| {
                    let changed = known.as_ref() != Some(&owner);
                    *known = Some(owner);
                    changed
                });
                if changed {
                    self.list_all();
                }
            }
            Event::Up { runtime, engine } => self.up(runtime, engine),
            Event::Down { runtime, message } => {
                let was_up = self.runtimes.remove(runtime).is_some();
                if runtime == "docker" && was_up {
                    tracing::warn!(message, "the Docker engine does not answer");
                    self.engine_away = Some(Instant::now());
                }
                self.work(converge::Event::Down { runtime, message }).await;
            }
            Event::Sampled(at, samples) => {
                self.sampling = false;
                let usage = self.meter.take(at, &samples);
                let _ = self.to_link.send(ToLink::Usage(usage)).await;
            }
            Event::DiskUsed(used) => self.judge_disk(&used).await,
            Event::Lookup { alloc, task, reply } => {
                let _ = reply.send(self.views(alloc, task.as_ref()));
            }
            Event::Containers { reply } => {
                let _ = reply.send(self.runtimes.get("docker").cloned());
            }
            Event::StartTook(millis) => {
                let _ = self.to_link.send(ToLink::StartTook(millis)).await;
            }
            Event::Saved(unsaved) => self.saved(unsaved),
            Event::StrayDone(handle) => {
                self.strays.remove(&handle);
            }
        }
    }

    fn up(&mut self, runtime: Arc<dyn Runtime>, engine: Option<EngineFacts>) {
        let word = runtime.word();
        self.runtimes.insert(word, runtime);
        if let Some(engine) = engine {
            self.engine_away = None;
            tracing::info!(version = engine.version, "the Docker engine answers");
            self.spec.send_if_modified(|spec| {
                let before = spec.clone();
                offer_engine(spec, &engine);
                *spec != before
            });
        } else {
            self.spec.send_if_modified(|spec| spec.runtimes.insert(word.to_owned()));
        }
        self.list(word);
    }

    fn drop_engine_if_away(&mut self) {
        if self.engine_away.is_some_and(|since| since.elapsed() >= ENGINE_AWAY) {
            self.engine_away = None;
            self.spec.send_if_modified(|spec| spec.runtimes.remove("docker"));
        }
    }

    fn views(&self, alloc: AllocId, task: Option<&TaskName>) -> Vec<View> {
        let Some(known) = self.converge.allocs().get(&alloc) else { return Vec::new() };
        let ports = |name: &TaskName| {
            let spec = known.assignment.spec.tasks.iter().find(|spec| spec.name == *name);
            spec.map(|spec| published(&known.assignment, spec)).unwrap_or_default()
        };
        let named = known.tasks.iter().filter(|(name, _)| task.is_none_or(|task| task == *name));
        let views = named.map(|(name, task)| View {
            key: TaskKey { alloc, task: name.clone() },
            runtime: self.runtimes.get(task.runtime()).cloned(),
            handle: task.handle().map(str::to_owned),
            running: task.running(),
            over: known.outcome.is_some() || known.gone,
            ports: ports(name),
            bind_address: self.config.bind_address,
        });
        views.collect()
    }

    // --- looking ---

    fn list_all(&mut self) {
        let words: Vec<_> = self.runtimes.keys().copied().collect();
        words.into_iter().for_each(|word| self.list(word));
    }

    /// What did not answer a moment ago, or is waited for, is asked again soon.
    fn list_again_if_due(&mut self) {
        if self.list_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.list_at = None;
        let unlisted = self.converge.unlisted();
        unlisted.into_iter().for_each(|word| self.list(word));
    }

    fn list(&mut self, word: &'static str) {
        let owner = self.owner.borrow().clone();
        let (Some(owner), Some(runtime)) = (owner, self.runtimes.get(word).cloned()) else {
            return;
        };
        let since = self.converge.listing();
        self.spawn(async move {
            match runtime.list(&owner).await {
                Ok(found) => Some(converge::Event::Listed { runtime: word, since, found }),
                Err(error) => {
                    let message = error.to_string();
                    Some(converge::Event::Down { runtime: word, message })
                }
            }
            .map(Event::Work)
        });
    }

    fn sample(&mut self) {
        let mut running: BTreeMap<&'static str, Vec<(TaskKey, String)>> = BTreeMap::new();
        for (alloc, known) in self.converge.allocs() {
            for (name, task) in known.tasks.iter().filter(|(_, task)| task.running()) {
                let Some(handle) = task.handle() else { continue };
                let key = TaskKey { alloc: *alloc, task: name.clone() };
                running.entry(task.runtime()).or_default().push((key, handle.to_owned()));
            }
        }
        self.sampling = true;
        let runtimes = self.runtimes.clone();
        self.spawn(async move {
            let mut samples = Vec::new();
            for (word, tasks) in running {
                let Some(runtime) = runtimes.get(word) else { continue };
                match runtime.usage(&tasks).await {
                    Ok(found) => samples.extend(found),
                    Err(error) => tracing::debug!(%error, "what tasks use is not known"),
                }
            }
            Some(Event::Sampled(Instant::now(), samples))
        });
    }

    fn measure_disk(&mut self) {
        let owner = self.owner.borrow().clone();
        let Some(owner) = owner else { return };
        let limited: BTreeSet<_> = self
            .converge
            .allocs()
            .values()
            .flat_map(|alloc| &alloc.assignment.spec.tasks)
            .filter(|task| task.resources.disk.is_some())
            .map(|task| task.runtime.word())
            .collect();
        for word in limited {
            let Some(runtime) = self.runtimes.get(word).cloned() else { continue };
            let owner = owner.clone();
            self.spawn(async move {
                match runtime.disk_used(&owner).await {
                    Ok(used) => Some(Event::DiskUsed(used)),
                    Err(error) => {
                        tracing::debug!(%error, "disk use is not known");
                        None
                    }
                }
            });
        }
    }

    async fn judge_disk(&mut self, used: &BTreeMap<TaskKey, u64>) {
        for (key, used) in used {
            let Some(alloc) = self.converge.allocs().get(&key.alloc) else { continue };
            let spec = alloc.assignment.spec.tasks.iter().find(|task| task.name == key.task);
            if let Some(limit) = spec.and_then(|task| task.resources.disk)
                && *used > limit
            {
                let (key, used) = (key.clone(), *used);
                self.work(converge::Event::OverDisk { key, used, limit }).await;
            }
        }
    }

    // --- acting ---

    async fn work(&mut self, event: converge::Event) {
        let actions = self.converge.handle(self.clock.now(), event);
        for action in actions {
            self.act(action).await;
        }
        self.unsaved.extend(self.converge.take_dirty());
        if !self.unsaved.is_empty() && self.save_at.is_none() {
            self.save_at = Some(Instant::now() + SAVE_DELAY);
        }
        if self.list_at.is_none() {
            let unlisted = self.converge.unlisted();
            let waits = unlisted.iter().any(|word| self.runtimes.contains_key(word));
            self.list_at = waits.then(|| Instant::now() + LIST_RETRY);
        }
        let tasks = self.converge.allocs().values().flat_map(|alloc| alloc.tasks.values());
        let running =
            u32::try_from(tasks.filter(|task| task.running()).count()).unwrap_or(u32::MAX);
        if running != self.running {
            self.running = running;
            let _ = self.to_link.send(ToLink::Running(running)).await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Report(report) => {
                let _ = self.to_link.send(ToLink::Report(Box::new(report))).await;
            }
            Action::Start { key, assignment, reuse } => self.start(key, &assignment, reuse),
            Action::CancelStart { key } => {
                if let Some(call) = self.calls.remove(&key) {
                    call.cancel();
                }
            }
            Action::Stop { key, runtime, handle, grace } => {
                let runtime = self.runtimes.get(runtime).cloned();
                self.spawn(async move {
                    let result = match &runtime {
                        Some(runtime) => runtime.stop(&key, &handle, grace.as_duration()).await,
                        None => Err(gone()),
                    };
                    Some(Event::Work(converge::Event::Stopped { key, result }))
                });
            }
            Action::Inspect { key, runtime, handle } => {
                let runtime = self.runtimes.get(runtime).cloned();
                self.spawn(async move {
                    let result = match &runtime {
                        Some(runtime) => runtime.inspect(&key, &handle).await,
                        None => Err(gone()),
                    };
                    Some(Event::Work(converge::Event::Inspected { key, result }))
                });
            }
            Action::Remove { key, runtime, handle } => {
                let runtime = self.runtimes.get(runtime).cloned();
                self.spawn(async move {
                    let result = match &runtime {
                        Some(runtime) => runtime.remove(&key, &handle).await,
                        None => Err(gone()),
                    };
                    Some(Event::Work(converge::Event::Removed { key, result }))
                });
            }
            Action::RemoveStray { runtime, found } => self.remove_stray(runtime, found),
            Action::List { runtime } => self.list(runtime),
            Action::Probe { key, run, kind, assignment, handle } => {
                self.probe(key, run, kind, &assignment, handle);
            }
            Action::EndProbes { key } => self.probes.retain(|(of, _), _| *of != key),
            Action::Drop(id) => {
                self.unsaved.insert(id);
                self.probes.retain(|(key, _), _| key.alloc != id);
            }
        }
    }

    fn remove_stray(&mut self, runtime: &'static str, found: Found) {
        let Some(runtime) = self.runtimes.get(runtime).cloned() else { return };
        // A listing from before its end names it once more.
        if !self.strays.insert(found.handle.clone()) {
            return;
        }
        tracing::info!(task = %found.key, handle = found.handle, "ends what nobody wants");
        self.spawn(async move {
            let grace = TaskSpec::stop_grace_default().as_duration();
            if found.running
                && let Err(error) = runtime.stop(&found.key, &found.handle, grace).await
            {
                tracing::warn!(task = %found.key, %error, "can't end a stray task");
            }
            if let Err(error) = runtime.remove(&found.key, &found.handle).await {
                tracing::warn!(task = %found.key, %error, "can't remove a stray task");
            }
            Some(Event::StrayDone(found.handle))
        });
    }

    fn start(&mut self, key: TaskKey, assignment: &Assignment, reuse: Option<String>) {
        let owner = self.owner.borrow().clone();
        let (address, bind) = (&self.config.address, self.config.bind_address);
        let order =
            owner.and_then(|owner| TaskOrder::new(assignment, &key.task, &owner, address, bind));
        let call = CancellationToken::new();
        self.calls.insert(key.clone(), call.clone());
        let runtime =
            order.as_ref().and_then(|order| self.runtimes.get(order.spec.runtime.word())).cloned();
        let (starts, events) = (self.starts.clone(), self.events.clone());
        self.spawn(async move {
            let began = Instant::now();
            let result = match (order, runtime) {
                (Some(order), Some(runtime)) => {
                    let start = Start { runtime, order, starts, call, events: events.clone() };
                    start.carry_out(reuse.as_deref()).await
                }
                _ => Err(gone()),
            };
            if result.is_ok() {
                let took = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
                let _ = events.send(Event::StartTook(took)).await;
            }
            Some(Event::Work(converge::Event::Started { key, result }))
        });
    }

    fn probe(
        &mut self,
        key: TaskKey,
        run: u64,
        kind: CheckKind,
        assignment: &Assignment,
        handle: String,
    ) {
        let Some(spec) = assignment.spec.tasks.iter().find(|task| task.name == key.task) else {
            return;
        };
        let check = match kind {
            CheckKind::Liveness => spec.healthcheck.clone(),
            CheckKind::Readiness => spec.readiness.clone(),
        };
        let Some(check) = check else { return };
        let started_at = self
            .converge
            .allocs()
            .get(&key.alloc)
            .and_then(|alloc| alloc.tasks.get(&key.task))
            .and_then(|task| task.started_at());
        let target = probe::Target {
            key: key.clone(),
            run,
            handle,
            // A job's checks may name the port of another of its tasks.
            ports: assignment.grant.ports.clone(),
            bind_address: self.config.bind_address,
            runtime: self.runtimes.get(spec.runtime.word()).cloned(),
            running_for: started_at.map_or(Millis(0), |at| self.clock.now().since(at)),
        };
        let watching = tokio::spawn(probe::watch(target, kind, check, self.events.clone()));
        self.probes.insert((key, kind), AbortOnDropHandle::new(watching));
    }

    fn spawn(&self, job: impl Future<Output = Option<Event>> + Send + 'static) {
        let (events, end) = (self.events.clone(), self.jobs_end.clone());
        self.jobs.spawn(async move {
            tokio::select! {
                event = job => if let Some(event) = event {
                    let _ = events.send(event).await;
                },
                () = end.cancelled() => {}
            }
        });
    }

    // --- keeping ---

    fn save_if_due(&mut self) {
        if self.saving || self.save_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.save_at = None;
        let changes = self.changes();
        if changes.is_empty() {
            return;
        }
        self.saving = true;
        let (events, offload) = (self.events.clone(), self.offload);
        self.jobs.spawn(async move {
            let _ = events.send(Event::Saved(write(offload, changes).await)).await;
        });
    }

    /// What could not be written is tried again: a full disk may have room later.
    fn saved(&mut self, unsaved: Vec<store::Unsaved>) {
        self.saving = false;
        let troubled = std::mem::replace(&mut self.unwritable, !unsaved.is_empty());
        match unsaved.first() {
            Some(first) if !troubled => {
                tracing::error!(error = %first.error, "the agent's data directory can't be \
                    written; until it can, a restart of the agent may not know what it runs");
            }
            None if troubled => tracing::info!("the agent's data directory can be written again"),
            _ => {}
        }
        if !unsaved.is_empty() {
            self.unsaved.extend(unsaved.into_iter().map(|one| one.id));
            self.save_at = Some(Instant::now() + SAVE_RETRY);
        }
    }

    async fn save_now(&mut self) {
        let changes = self.changes();
        if let Some(first) = write(self.offload, changes).await.first() {
            tracing::error!(error = %first.error, "the agent's data directory can't be written");
        }
    }

    fn changes(&mut self) -> Vec<store::Change> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let change = |id: AllocId| {
            let bytes = match self.converge.allocs().get(&id) {
                Some(alloc) => Some(rpc::pack(alloc).ok()?),
                None => None,
            };
            Some(store::Change { id, path: self.store.alloc_path(id), bytes })
        };
        unsaved.into_iter().filter_map(change).collect()
    }
}

/// Writes, as long as it takes; what could not be written.
async fn write(offload: Offload, changes: Vec<store::Change>) -> Vec<store::Unsaved> {
    let ids: Vec<_> = changes.iter().map(|change| change.id).collect();
    match offload.run(move || store::save_allocs(changes)).await {
        Ok(unsaved) => unsaved,
        Err(error) => {
            let unsaved = |id| store::Unsaved { id, error: error.to_string() };
            ids.into_iter().map(unsaved).collect()
        }
    }
}

fn offer_engine(spec: &mut NodeSpec, engine: &EngineFacts) {
    spec.runtimes.insert("docker".to_owned());
    spec.attributes.insert("docker.version".to_owned(), engine.version.clone());
}

fn gone() -> RuntimeError {
    RuntimeError::Unavailable("its runtime does not answer".to_owned())
}
