//! Driven with made-up events, and by a world that behaves as a runtime does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::account::delay;
use super::*;

mod adopted;
mod away;
mod checks;
mod unknown;

use crate::agent::order::TaskKey;
use crate::agent::runtime::{Condition, Exit, Found, RuntimeError};
use crate::model::allocation::{AllocReport, AllocStatus, Assignment, Grant, Health, TaskPhase};
use crate::model::job::{
    HealthCheck, JobKind, JobSpec, Probe, RestartPolicy, TaskRuntime, TaskSpec,
};
use crate::model::name::AllocId;
use crate::model::time::{Millis, Timestamp};

const RUNTIME: &str = "process";

fn task(name: &str) -> TaskSpec {
    TaskSpec {
        command: vec!["run".to_owned()],
        stop_grace: Millis(1000),
        ..TaskSpec::new(name.parse().unwrap(), TaskRuntime::Process)
    }
}

fn assignment(id: u64, generation: u64, kind: JobKind, tasks: &[&str]) -> Assignment {
    let spec =
        JobSpec::new("job".parse().unwrap(), kind, tasks.iter().map(|name| task(name)).collect());
    Assignment {
        id: AllocId(id),
        version: 1,
        index: 0,
        grant: Grant { generation, ..Grant::default() },
        spec: Arc::new(spec),
    }
}

fn service(id: u64, generation: u64) -> Assignment {
    assignment(id, generation, JobKind::Service { replicas: 1 }, &["web"])
}

fn key(id: u64, name: &str) -> TaskKey {
    TaskKey { alloc: AllocId(id), task: name.parse().unwrap() }
}

fn check() -> HealthCheck {
    HealthCheck::new(Probe::Command { command: vec!["check".to_owned()] })
}

fn checked_event(run: u64, kind: CheckKind, finding: Finding) -> Event {
    Event::Checked { key: key(1, "web"), run, kind, finding }
}

fn exit(code: i32) -> Exit {
    Exit { code, tail: "its last words".to_owned(), ..Exit::default() }
}

/// A runtime: what it has, and how each task ended.
#[derive(Default)]
struct World {
    now: u64,
    /// Handle, and how it ended.
    tasks: BTreeMap<TaskKey, (String, Option<Exit>)>,
    probed: BTreeSet<(TaskKey, CheckKind)>,
    reports: BTreeMap<AllocId, AllocReport>,
    started: u64,
    /// Starts that fail from now on, with that text.
    refuses: Option<String>,
    away: bool,
    dropped: BTreeSet<AllocId>,
    /// When a task was last asked to end.
    stopped_at: Option<u64>,
    /// Reports so far.
    said: usize,
}

struct Bench {
    converge: Converge,
    world: World,
    waiting: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            converge: Converge::new(BTreeMap::new(), [RUNTIME].into(), Timestamp(0), 7),
            world: World::default(),
            waiting: Vec::new(),
        };
        bench.list();
        bench
    }

    fn hear(&mut self, event: Event) {
        for action in self.converge.handle(Timestamp(self.world.now), event) {
            match action {
                Action::Report(report) => {
                    self.world.said += 1;
                    self.world.reports.insert(report.id, report);
                }
                Action::Probe { key, kind, .. } => {
                    self.world.probed.insert((key, kind));
                }
                Action::EndProbes { key } => {
                    self.world.probed.retain(|(of, _)| *of != key);
                }
                Action::Drop(id) => {
                    self.world.dropped.insert(id);
                }
                action => self.waiting.push(action),
            }
        }
    }

    /// Another agent takes over, with what this one has written.
    fn restart(&mut self) {
        let known = self.converge.allocs().iter().map(|(id, alloc)| {
            let bytes = crate::rpc::pack(alloc).unwrap();
            (*id, crate::rpc::unpack::<Alloc>(&bytes).unwrap())
        });
        let now = Timestamp(self.world.now);
        self.converge = Converge::new(known.collect(), [RUNTIME].into(), now, 7);
        self.world.probed.clear();
        self.waiting.clear();
    }

    fn list(&mut self) {
        let since = self.converge.listing();
        // No label says whose a container is that was taken over.
        let own = self.world.tasks.iter().filter(|(_, (handle, _))| !handle.starts_with("mesos"));
        let found = own.map(|(key, (handle, exit))| Found {
            key: key.clone(),
            handle: handle.clone(),
            running: exit.is_none(),
        });
        let found = found.collect();
        self.hear(Event::Listed { runtime: RUNTIME, since, found });
    }

    /// Carries out one action that waits, as a runtime would.
    fn carry_out(&mut self, at: usize) {
        let action = self.waiting.remove(at);
        let gone = || RuntimeError::Unavailable("away".to_owned());
        let world = &mut self.world;
        let event = match action {
            Action::Start { key, reuse, .. } => {
                let result = match &world.refuses {
                    _ if world.away => Err(gone()),
                    Some(text) => {
                        world.tasks.remove(&key);
                        Err(RuntimeError::Failed(text.clone()))
                    }
                    None => {
                        world.started += 1;
                        let handle = reuse.unwrap_or_else(|| format!("h{}", world.started));
                        world.tasks.insert(key.clone(), (handle.clone(), None));
                        Ok(handle)
                    }
                };
                Event::Started { key, result }
            }
            Action::Stop { key, .. } => {
                let result = match world.tasks.get_mut(&key) {
                    _ if world.away => Err(gone()),
                    Some((_, end)) => {
                        end.get_or_insert_with(|| exit(143));
                        world.stopped_at = Some(world.now);
                        Ok(())
                    }
                    None => Err(RuntimeError::NotFound("none".to_owned())),
                };
                Event::Stopped { key, result }
            }
            Action::Inspect { key, handle, .. } => {
                let known = world.tasks.get(&key).filter(|(known, _)| *known == handle);
                let result = match known {
                    _ if world.away => Err(gone()),
                    Some((_, None)) => Ok(Condition::Running { started_at: None }),
                    Some((_, Some(exit))) => Ok(Condition::Ended(exit.clone())),
                    None => Ok(Condition::Absent),
                };
                Event::Inspected { key, result }
            }
            Action::Remove { key, .. } => {
                let result = if world.away { Err(gone()) } else { Ok(()) };
                if result.is_ok() {
                    world.tasks.remove(&key);
                }
                Event::Removed { key, result }
            }
            Action::RemoveStray { found, .. } => {
                let same = |(handle, _): &&(String, Option<Exit>)| *handle == found.handle;
                if !world.away && world.tasks.get(&found.key).filter(same).is_some() {
                    world.tasks.remove(&found.key);
                }
                return;
            }
            Action::CancelStart { .. } => return,
            Action::List { .. } if world.away => {
                Event::Down { runtime: RUNTIME, message: "away".to_owned() }
            }
            Action::List { .. } => return self.list(),
            other => panic!("{other:?} is no operation"),
        };
        self.hear(event);
    }

    /// Lets everything happen that can happen now.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.waiting.is_empty() {
                return;
            }
            self.carry_out(0);
        }
        panic!("it never comes to rest: {:?}", self.waiting);
    }

    /// Lets time pass until nothing is due within the next minute of it.
    fn pass(&mut self, millis: u64) {
        let end = self.world.now + millis;
        loop {
            self.settle();
            let next = self.converge.next_deadline(Timestamp(self.world.now));
            match next {
                Some(next) if next.0 <= end => {
                    self.world.now = next.0.max(self.world.now + 1);
                    self.hear(Event::Tick);
                }
                _ => break,
            }
            if self.world.now > end {
                break;
            }
        }
        self.world.now = self.world.now.max(end);
    }

    fn order(&mut self, run: Vec<Assignment>, stop: Vec<(u64, u64)>) {
        let stop = stop.into_iter().map(|(id, generation)| (AllocId(id), generation)).collect();
        self.hear(Event::Orders { run, stop, forget: Vec::new() });
    }

    fn sync(&mut self, run: Vec<Assignment>) {
        self.hear(Event::Sync(Everything { run, ..Everything::default() }));
    }

    fn die(&mut self, key: TaskKey, exit: Exit) {
        if let Some((_, end)) = self.world.tasks.get_mut(&key) {
            *end = Some(exit);
        }
        self.hear(Event::Changed { key });
        self.settle();
    }

    fn report(&self, id: u64) -> &AllocReport {
        &self.world.reports[&AllocId(id)]
    }

    fn runs(&self, key: &TaskKey) -> bool {
        self.world.tasks.get(key).is_some_and(|(_, exit)| exit.is_none())
    }
}

/// An agent that the leader has spoken to.
fn synced() -> Bench {
    let mut bench = Bench::new();
    bench.sync(Vec::new());
    bench
}

#[test]
fn what_is_assigned_runs_and_what_is_not_ends() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.health), (AllocStatus::Running, Health::Healthy));
    bench.order(Vec::new(), vec![(1, 2)]);
    bench.settle();
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
    assert!(!bench.runs(&key(1, "web")));
    // What is left of it stays until it is forgotten.
    assert_eq!(bench.world.tasks.len(), 1);
    bench.hear(Event::Orders { run: Vec::new(), stop: Vec::new(), forget: vec![AllocId(1)] });
    bench.settle();
    assert!(bench.world.tasks.is_empty() && bench.world.dropped.contains(&AllocId(1)));
}

#[test]
fn the_first_restart_is_at_once_and_then_they_slow_down_until_it_fails() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    let mut waits = Vec::new();
    for _ in 0..3 {
        let before = bench.world.now;
        bench.die(key(1, "web"), exit(3));
        while !bench.runs(&key(1, "web")) {
            assert_eq!(bench.report(1).status, AllocStatus::Starting);
            bench.pass(100);
        }
        waits.push(bench.world.now - before);
    }
    assert_eq!(waits[0], 0);
    assert!((1000..=1300).contains(&waits[1]) && (2000..=2500).contains(&waits[2]), "{waits:?}");
    bench.die(key(1, "web"), exit(3));
    let report = bench.report(1);
    assert_eq!(report.status, AllocStatus::Failed);
    assert!(
        report.message == "gave up after 3 restarts within 5m: exit code 3",
        "{}",
        report.message
    );
    let state = report.tasks.values().next().unwrap();
    assert_eq!((state.restarts, state.exit_code), (3, Some(3)));
    assert_eq!(state.output_tail, "its last words");
}

#[test]
fn a_look_at_a_task_is_no_news() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    bench.world.reports.clear();
    bench.hear(Event::Changed { key: key(1, "web") });
    bench.settle();
    assert!(bench.world.reports.is_empty(), "{:?}", bench.world.reports);
}

#[test]
fn restarts_from_long_ago_do_not_count() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    for restarts in 1..10 {
        bench.die(key(1, "web"), exit(1));
        assert!(bench.runs(&key(1, "web")), "the first restart in a while has no delay");
        assert_eq!(bench.report(1).restarts(), restarts);
        bench.pass(400_000);
    }
}

impl AllocReport {
    fn restarts(&self) -> u32 {
        self.tasks.values().map(|task| task.restarts).sum()
    }
}

#[test]
fn a_service_that_ends_well_is_started_again_but_a_batch_job_is_complete() {
    let mut bench = synced();
    let batch = assignment(2, 1, JobKind::once(None), &["first", "second"]);
    bench.order(vec![service(1, 1), batch], Vec::new());
    bench.settle();
    bench.die(key(1, "web"), exit(0));
    assert!(bench.runs(&key(1, "web")));
    bench.die(key(2, "first"), exit(0));
    assert_eq!(bench.report(2).status, AllocStatus::Running);
    bench.die(key(2, "second"), exit(0));
    assert_eq!(bench.report(2).status, AllocStatus::Complete);
    assert_eq!(bench.report(2).restarts(), 0);
}

#[test]
fn what_cannot_be_started_fails_with_the_reason_after_its_attempts() {
    let mut bench = synced();
    bench.world.refuses = Some("No such image: nginx:none".to_owned());
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    assert!(bench.report(1).message.contains("No such image: nginx:none"));
    bench.pass(60_000);
    let report = bench.report(1);
    assert_eq!((report.status, report.restarts()), (AllocStatus::Failed, 3));
    assert!(report.message.contains("No such image: nginx:none"), "{}", report.message);
}

#[test]
fn a_task_that_fails_takes_the_others_with_it() {
    let mut bench = synced();
    let mut two = assignment(1, 1, JobKind::Service { replicas: 1 }, &["good", "bad"]);
    Arc::make_mut(&mut two.spec).restart.attempts = 0;
    bench.order(vec![two], Vec::new());
    bench.settle();
    bench.die(key(1, "bad"), Exit { oom_killed: true, ..exit(137) });
    assert!(!bench.runs(&key(1, "good")));
    let report = bench.report(1);
    assert_eq!(report.status, AllocStatus::Failed);
    assert!(report.message.starts_with("bad: out of memory"), "{}", report.message);
}

#[test]
fn what_fails_its_checks_is_started_again() {
    let mut bench = synced();
    let mut checked = service(1, 1);
    Arc::make_mut(&mut checked.spec).tasks[0].healthcheck = Some(check());
    bench.order(vec![checked], Vec::new());
    bench.settle();
    assert_eq!(bench.report(1).health, Health::Unknown);
    assert_eq!(bench.world.probed, [(key(1, "web"), CheckKind::Liveness)].into());
    let alive = |run, finding| checked_event(run, CheckKind::Liveness, finding);
    let fails = || Finding::Fails("GET / answered 500".to_owned());
    bench.hear(alive(1, Finding::Passes));
    assert_eq!(bench.report(1).health, Health::Healthy);
    bench.hear(alive(1, fails()));
    assert_eq!(bench.report(1).health, Health::Unhealthy);
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.health), (AllocStatus::Running, Health::Unknown));
    assert_eq!(report.restarts(), 1);
    // What is heard of the run before is void.
    bench.hear(alive(1, fails()));
    bench.settle();
    assert_eq!(bench.report(1).restarts(), 1);
    let state = bench.report(1).tasks.values().next().unwrap();
    assert_eq!(state.error, "");
    assert_eq!(state.liveness, None, "of this run nothing is known");
}

#[test]
fn want_of_memory_is_named_whatever_else_is_true() {
    for (code, killed_for, said) in [
        (137, None, "out of memory: killed at its limit of 16Mi"),
        (1, None, "out of memory: killed at its limit of 16Mi; exit code 1"),
        (
            137,
            Some("GET / answered 500"),
            "health check failed: GET / answered 500; out of memory: killed at its limit of 16Mi",
        ),
    ] {
        let mut bench = synced();
        let mut order = service(1, 1);
        let spec = Arc::make_mut(&mut order.spec);
        spec.restart.attempts = 0;
        spec.tasks[0].resources.memory = Some(16 << 20);
        spec.tasks[0].healthcheck = Some(check());
        bench.order(vec![order], Vec::new());
        bench.settle();
        if let Some(reason) = killed_for {
            let fails = Finding::Fails(reason.to_owned());
            bench.hear(checked_event(1, CheckKind::Liveness, fails));
        }
        bench.die(key(1, "web"), Exit { oom_killed: true, ..exit(code) });
        let report = bench.report(1);
        assert_eq!((report.status, report.message.as_str()), (AllocStatus::Failed, said));
        assert!(report.tasks.values().all(|task| task.oom_killed));
    }
}

#[test]
fn an_older_order_changes_nothing_and_a_newer_one_wins() {
    let mut bench = synced();
    bench.order(vec![service(1, 5)], Vec::new());
    bench.order(Vec::new(), vec![(1, 4)]);
    bench.settle();
    assert!(bench.runs(&key(1, "web")));
    bench.order(Vec::new(), vec![(1, 6)]);
    bench.order(vec![service(1, 5)], Vec::new());
    bench.settle();
    assert_eq!((bench.report(1).status, bench.report(1).generation), (AllocStatus::Stopped, 6));
    bench.order(vec![service(1, 7)], Vec::new());
    bench.settle();
    assert_eq!((bench.report(1).status, bench.report(1).generation), (AllocStatus::Running, 7));
}

#[test]
fn a_new_agent_takes_over_what_runs_and_counts_what_ended_meanwhile() {
    let mut bench = synced();
    bench.order(vec![service(1, 1), service(2, 1)], Vec::new());
    bench.settle();
    bench.world.tasks.get_mut(&key(2, "web")).unwrap().1 = Some(exit(4));
    bench.restart();
    bench.list();
    bench.settle();
    assert_eq!((bench.report(1).status, bench.report(1).restarts()), (AllocStatus::Running, 0));
    // Its orders may be old: nothing is started before the leader has spoken or time has passed.
    assert!(!bench.runs(&key(2, "web")));
    bench.pass(6_000);
    assert!(bench.runs(&key(2, "web")));
    assert_eq!(bench.report(2).tasks.values().next().unwrap().exit_code, Some(4));
    assert_eq!(bench.world.started, 3);
}

#[test]
fn an_agent_without_memory_adopts_what_is_assigned_and_ends_the_rest() {
    let mut bench = Bench::new();
    for (id, handle) in [(1, "one"), (2, "two")] {
        bench.world.tasks.insert(key(id, "web"), (handle.to_owned(), None));
    }
    bench.list();
    bench.settle();
    assert_eq!(bench.world.tasks.len(), 2, "untouched until the leader has spoken");
    bench.sync(vec![service(1, 1)]);
    bench.settle();
    assert_eq!(bench.world.tasks.keys().collect::<Vec<_>>(), [&key(1, "web")]);
    let state = bench.report(1).tasks.values().next().unwrap();
    assert_eq!(state.container_id.as_deref(), Some("one"));
    assert_eq!((state.phase, bench.world.started), (TaskPhase::Running, 0));
}

#[test]
fn a_runtime_that_is_away_is_no_fault_of_the_task() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    bench.world.away = true;
    bench.hear(Event::Down { runtime: RUNTIME, message: "no answer".to_owned() });
    bench.order(vec![service(2, 1)], vec![(1, 2)]);
    bench.pass(600_000);
    assert_eq!(bench.report(1).status, AllocStatus::Running);
    assert_eq!(bench.report(2).restarts(), 0);
    bench.world.away = false;
    bench.list();
    bench.settle();
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
    assert_eq!(bench.report(2).status, AllocStatus::Running);
}

#[test]
fn a_start_that_is_no_longer_wanted_is_called_off() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.hear(Event::Pulling { key: key(1, "web") });
    assert_eq!(bench.report(1).message, "fetching its image");
    bench.order(Vec::new(), vec![(1, 2)]);
    let calls = bench.waiting.iter().filter(|a| matches!(a, Action::CancelStart { .. })).count();
    assert_eq!(calls, 1);
    bench.waiting.clear();
    bench.hear(Event::Started { key: key(1, "web"), result: Err(RuntimeError::Cancelled) });
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
    assert!(bench.waiting.is_empty());
}

#[test]
fn what_writes_too_much_fails_for_that() {
    let mut bench = synced();
    let mut order = service(1, 1);
    Arc::make_mut(&mut order.spec).restart.attempts = 0;
    bench.order(vec![order], Vec::new());
    bench.settle();
    bench.hear(Event::OverDisk { key: key(1, "web"), used: 2 << 20, limit: 1 << 20 });
    bench.settle();
    let report = bench.report(1);
    assert_eq!(report.status, AllocStatus::Failed);
    assert!(report.message.contains("wrote 2Mi") && report.message.contains("limit of 1Mi"));
}

#[test]
fn everything_ends_when_it_has_to() {
    let mut bench = synced();
    bench.order(vec![service(1, 1), service(2, 1)], Vec::new());
    bench.hear(Event::EndAll);
    bench.settle();
    assert!(bench.world.tasks.is_empty() && bench.converge.allocs().is_empty());
}

#[test]
fn waits_grow_to_their_bound() {
    let policy = RestartPolicy::default();
    let waits: Vec<_> = (1..9).map(|n| delay(&policy, n, 0).0).collect();
    assert_eq!(waits, [0, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    assert!(delay(&policy, usize::MAX, u64::MAX).0 <= 36_000);
}

#[derive(Debug, Clone)]
enum Step {
    Run(u64),
    Stop(u64),
    Forget(u64),
    Sync,
    List,
    CarryOut(usize),
    Die(u64, i32),
    Vanish(u64),
    Changed(u64),
    Away,
    Back,
    Refuse,
    Accept,
    Pass(u64),
    OldOrder(u64),
    LineDown,
    Check(u64, CheckKind, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1u64..5;
    prop_oneof![
        4 => id.clone().prop_map(Step::Run),
        2 => id.clone().prop_map(Step::Stop),
        1 => id.clone().prop_map(Step::Forget),
        1 => Just(Step::Sync),
        1 => Just(Step::List),
        12 => (0usize..8).prop_map(Step::CarryOut),
        3 => (id.clone(), 0i32..3).prop_map(|(id, code)| Step::Die(id, code)),
        1 => id.clone().prop_map(Step::Vanish),
        2 => id.clone().prop_map(Step::Changed),
        1 => Just(Step::Away),
        2 => Just(Step::Back),
        1 => Just(Step::Refuse),
        2 => Just(Step::Accept),
        2 => (0u64..100_000).prop_map(Step::Pass),
        1 => id.prop_map(Step::OldOrder),
        1 => Just(Step::LineDown),
        3 => (1u64..5, any::<bool>(), any::<bool>()).prop_map(|(id, alive, passes)| {
            let kind = if alive { CheckKind::Liveness } else { CheckKind::Readiness };
            Step::Check(id, kind, passes)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whatever order: once things are quiet, what is assigned runs, or its
    /// failure has been told, and nothing else does.
    #[test]
    fn any_order_of_events_ends_in_the_assigned_state(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = synced();
        let mut generation = 1;
        // What the leader wants: the order's generation, and whether it runs.
        let mut wanted: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Run(id) => {
                    generation += 1;
                    wanted.insert(id, (generation, true));
                    bench.order(vec![one_of_many(id, generation)], Vec::new());
                }
                Step::Stop(id) => {
                    generation += 1;
                    if let Some(order) = wanted.get_mut(&id) {
                        *order = (generation, false);
                        bench.order(Vec::new(), vec![(id, generation)]);
                    }
                }
                Step::Forget(id) => {
                    // Only what has ended is forgotten.
                    if wanted.get(&id).is_some_and(|(_, run)| !run)
                        && bench.world.reports.get(&AllocId(id)).is_some_and(|r| r.status.ended())
                    {
                        wanted.remove(&id);
                        let forget = vec![AllocId(id)];
                        bench.hear(Event::Orders { run: Vec::new(), stop: Vec::new(), forget });
                    }
                }
                Step::Sync => sync(&mut bench, &wanted),
                Step::List => if !bench.world.away { bench.list() },
                Step::CarryOut(at) => if !bench.waiting.is_empty() {
                    let at = at % bench.waiting.len();
                    bench.carry_out(at);
                },
                Step::Die(id, code) => {
                    if let Some((_, end)) = bench.world.tasks.get_mut(&key(id, "web")) {
                        end.get_or_insert_with(|| exit(code));
                    }
                }
                Step::Vanish(id) => {
                    bench.world.tasks.remove(&key(id, "web"));
                }
                Step::Changed(id) => bench.hear(Event::Changed { key: key(id, "web") }),
                Step::Away => bench.world.away = true,
                Step::Back => bench.world.away = false,
                Step::Refuse => bench.world.refuses = Some("refused".to_owned()),
                Step::Accept => bench.world.refuses = None,
                Step::Pass(millis) => {
                    bench.world.now += millis;
                    bench.hear(Event::Tick);
                }
                Step::Check(id, kind, passes) => {
                    let finding = match passes {
                        true => Finding::Passes,
                        false => Finding::Fails("no".to_owned()),
                    };
                    let runs = bench.converge.allocs().get(&AllocId(id));
                    if let Some(task) = runs.and_then(|alloc| alloc.tasks.values().next()) {
                        let event = Event::Checked { key: key(id, "web"), run: task.run, kind, finding };
                        bench.hear(event);
                    }
                }
                Step::LineDown => bench.hear(Event::LineDown { silent_for: Millis(0) }),
                Step::OldOrder(id) => if let Some((generation, _)) = wanted.get(&id) {
                    bench.order(vec![one_of_many(id, generation - 1)], vec![(id, generation - 1)]);
                },
            }
        }
        bench.world.away = false;
        bench.world.refuses = None;
        for _ in 0..3 {
            sync(&mut bench, &wanted);
            bench.list();
            bench.pass(120_000);
        }
        for id in 1..5 {
            let runs = bench.runs(&key(id, "web"));
            match wanted.get(&id) {
                Some((_, true)) => {
                    let report = bench.report(id);
                    let failed = report.status == AllocStatus::Failed;
                    prop_assert!(!failed || !report.ready, "{report:?}");
                    prop_assert!(runs != failed, "{id}: runs {runs}, said {report:?}");
                    prop_assert!(failed || report.status == AllocStatus::Running, "{report:?}");
                }
                Some((_, false)) => {
                    let status = bench.report(id).status;
                    let ready = bench.report(id).ready;
                    prop_assert!(!runs && status.ended() && !ready, "{id}: {runs}, said {status:?}");
                }
                None => prop_assert!(!bench.world.tasks.contains_key(&key(id, "web")), "{id} is left"),
            }
        }
    }
}

/// Of all kinds: one is called and leaves slowly, one may not run without a server, one has checks.
fn one_of_many(id: u64, generation: u64) -> Assignment {
    let mut order = service(id, generation);
    let spec = Arc::make_mut(&mut order.spec);
    match id {
        2 => checks::with_port(spec),
        3 => spec.disconnect.stop_after = Some(Millis::from_secs(30)),
        4 => {
            checks::with_port(spec);
            spec.tasks[0].healthcheck = Some(check());
            spec.tasks[0].readiness = Some(check());
        }
        _ => {}
    }
    order
}

fn sync(bench: &mut Bench, wanted: &BTreeMap<u64, (u64, bool)>) {
    let mut everything = Everything::default();
    for (id, (generation, run)) in wanted {
        if *run {
            everything.run.push(one_of_many(*id, *generation));
        } else {
            everything.stop.push((AllocId(*id), *generation));
        }
    }
    bench.hear(Event::Sync(everything));
}
