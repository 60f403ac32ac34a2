//! What the results of operations mean for a task: it runs, it is gone, or it failed and is
//! started again after a while, until its allocation has failed.

use super::Event;
use super::machine::Converge;
use super::task::{Op, Seen, Task};
use crate::agent::order::TaskKey;
use crate::agent::runtime::{Condition, Exit, RuntimeError};
use crate::model::allocation::TaskPhase;
use crate::model::job::RestartPolicy;
use crate::model::resources::Bytes;
use crate::model::time::{Millis, Timestamp};

/// Restarts that are remembered, whatever a policy allows.
const RESTARTS_COUNTED_MAX: usize = 1000;

impl Converge {
    pub(super) fn task_event(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Pulling { key } => {
                self.with(&key, |task, _| {
                    if task.op == Some(Op::Start) {
                        task.state.phase = TaskPhase::Pulling;
                    }
                });
            }
            Event::Started { key, result } => self.started(now, &key, result),
            Event::Stopped { key, result } => self.stopped(now, &key, result),
            Event::Inspected { key, result } => self.inspected(now, &key, result),
            Event::Removed { key, result } => self.removed(now, &key, result),
            Event::Changed { key } => {
                self.with(&key, |task, _| {
                    // Of what is known to have ended only a start makes news.
                    task.recheck |= task.op.is_some() || task.seen != Seen::Absent;
                });
            }
            Event::ContainerChanged { handle } => {
                let mut tasks = self.allocs.iter().flat_map(|(id, alloc)| {
                    alloc.tasks.iter().map(|(name, task)| (*id, name, task))
                });
                let key = tasks
                    .find(|(.., task)| task.adopted.as_ref() == Some(&handle))
                    .map(|(alloc, name, _)| TaskKey { alloc, task: name.clone() });
                if let Some(key) = key {
                    self.with(&key, |task, _| task.recheck = true);
                }
            }
            Event::Checked { key, run, kind, finding } => {
                self.checked(now, &key, run, kind, finding);
            }
            Event::OverDisk { key, used, limit } => {
                let (used, limit) = (Bytes(used), Bytes(limit));
                self.with(&key, |task, _| {
                    if task.seen == Seen::Running && task.kill.is_none() {
                        task.kill = Some(format!(
                            "wrote {used} to its own file system, over its limit of {limit}"
                        ));
                        task.fresh = true;
                    }
                });
            }
            Event::Sync(_)
            | Event::Orders { .. }
            | Event::Listed { .. }
            | Event::Down { .. }
            | Event::LineDown { .. }
            | Event::Tick
            | Event::EndAll => {}
        }
    }

    /// Runs `change` on a task and marks its allocation; the second argument is a fresh number.
    pub(super) fn with<T>(
        &mut self,
        key: &TaskKey,
        change: impl FnOnce(&mut Task, u64) -> T,
    ) -> Option<T> {
        let sequence = self.sequence + 1;
        let alloc = self.allocs.get_mut(&key.alloc)?;
        let task = alloc.tasks.get_mut(&key.task)?;
        self.sequence = sequence;
        self.touched.insert(key.alloc);
        Some(change(task, sequence))
    }

    /// The operation is no longer on its way; whether it was.
    fn op_ended(&mut self, key: &TaskKey, op: Op) -> bool {
        let ended = self.with(key, |task, sequence| {
            let was = task.op == Some(op);
            if was {
                task.op = None;
                task.sequence = sequence;
                task.retry_at = Timestamp(0);
            }
            was
        });
        ended.unwrap_or(false)
    }

    fn started(&mut self, now: Timestamp, key: &TaskKey, result: Result<String, RuntimeError>) {
        if !self.op_ended(key, Op::Start) {
            return;
        }
        self.dirty.insert(key.alloc);
        match result {
            Ok(handle) => {
                self.with(key, |task, _| {
                    task.left = task.adopted.take().filter(|before| *before != handle);
                    task.handle = Some(handle);
                    task.new_run();
                    task.fresh = false;
                    task.kill = None;
                    task.runs(now);
                });
            }
            Err(RuntimeError::Unavailable(message)) => self.unavailable(now, key, message),
            Err(RuntimeError::Cancelled) => {
                self.with(key, |task, _| {
                    task.state.phase = TaskPhase::Pending;
                    if task.seen == Seen::Unknown {
                        task.seen = Seen::Absent;
                    }
                });
            }
            Err(error) => {
                self.with(key, |task, _| {
                    task.handle = None;
                    task.live = false;
                    task.seen = Seen::Absent;
                    task.state.container_id = None;
                    task.state.finished_at = Some(now);
                });
                self.failed(now, key, format!("could not be started: {error}"));
            }
        }
    }

    fn stopped(&mut self, now: Timestamp, key: &TaskKey, result: Result<(), RuntimeError>) {
        if !self.op_ended(key, Op::Stop) {
            return;
        }
        match result {
            Ok(()) | Err(RuntimeError::NotFound(_)) => {
                self.with(key, |task, _| task.seen = Seen::Unknown);
            }
            Err(RuntimeError::Unavailable(message)) => self.unavailable(now, key, message),
            Err(error) => {
                self.with(key, |task, _| {
                    task.try_later(now);
                    task.trouble = format!("could not be stopped: {error}");
                });
            }
        }
    }

    fn removed(&mut self, now: Timestamp, key: &TaskKey, result: Result<(), RuntimeError>) {
        if !self.op_ended(key, Op::Remove) {
            return;
        }
        match result {
            Ok(()) | Err(RuntimeError::NotFound(_)) => {
                self.with(key, |task, _| {
                    task.handle = None;
                    task.live = false;
                    task.seen = Seen::Absent;
                });
            }
            Err(RuntimeError::Unavailable(message)) => self.unavailable(now, key, message),
            Err(_) => {
                self.with(key, |task, _| task.try_later(now));
            }
        }
    }

    fn inspected(
        &mut self,
        now: Timestamp,
        key: &TaskKey,
        result: Result<Condition, RuntimeError>,
    ) {
        if !self.op_ended(key, Op::Inspect) {
            return;
        }
        self.dirty.insert(key.alloc);
        match result {
            Ok(Condition::Running { started_at }) => {
                self.with(key, |task, _| {
                    let known = task.state.started_at;
                    let at = started_at.or(known).unwrap_or(now);
                    // Started once more by somebody else, since we did: a run of its own.
                    let anew = known.is_none_or(|known| at.since(known) > Millis(1000));
                    if !task.live || (anew && task.state.phase == TaskPhase::Running) {
                        task.new_run();
                    }
                    task.asked = false;
                    task.trouble.clear();
                    task.runs(if anew { at } else { known.unwrap_or(at) });
                });
            }
            Ok(Condition::Ended(exit)) => {
                self.with(key, |task, _| task.seen = Seen::Ended);
                self.ended(now, key, exit);
            }
            Ok(Condition::Absent) | Err(RuntimeError::NotFound(_)) => {
                self.with(key, |task, _| {
                    task.seen = Seen::Absent;
                    task.handle = None;
                });
                let error = "its container was removed from outside".to_owned();
                self.ended(now, key, Exit { code: 137, error, ..Exit::default() });
            }
            Err(RuntimeError::Unavailable(message)) => self.unavailable(now, key, message),
            Err(error) => {
                self.with(key, |task, _| {
                    task.try_later(now);
                    task.trouble = format!("could not be inspected: {error}");
                });
            }
        }
    }

    /// A run is over: how it is judged depends on what was wanted.
    fn ended(&mut self, now: Timestamp, key: &TaskKey, exit: Exit) {
        let Some(alloc) = self.allocs.get(&key.alloc) else { return };
        let (wanted, batch) = (alloc.wanted(), alloc.is_batch());
        let limit = alloc
            .assignment
            .spec
            .tasks
            .iter()
            .find(|spec| spec.name == key.task)
            .and_then(|spec| spec.resources.memory);
        let verdict = self.with(key, |task, _| {
            if !std::mem::take(&mut task.live) {
                return None;
            }
            let asked = std::mem::take(&mut task.asked);
            let reason = match task.kill.take() {
                Some(reason) if exit.oom_killed => format!("{reason}; {}", out_of_memory(limit)),
                Some(reason) => reason,
                None => describe(&exit, limit),
            };
            task.forget_checks();
            task.state.phase = TaskPhase::Ended;
            task.state.exit_code = Some(exit.code);
            task.state.oom_killed = exit.oom_killed;
            task.state.finished_at = Some(exit.finished_at.unwrap_or(now));
            if !wanted {
                return None;
            }
            if asked {
                // Wanted once more while it was on its way down.
                task.state.phase = TaskPhase::Pending;
                task.next_start = Timestamp(0);
                return None;
            }
            if batch && exit.code == 0 {
                task.done = true;
                task.state.error.clear();
                return None;
            }
            task.state.output_tail = exit.tail;
            Some(reason)
        });
        if let Some(reason) = verdict.flatten() {
            self.failed(now, key, reason);
        }
    }

    /// Counts a failure: the task is started again, or its allocation has failed.
    fn failed(&mut self, now: Timestamp, key: &TaskKey, reason: String) {
        let jitter = self.random();
        let Some(alloc) = self.allocs.get_mut(&key.alloc) else { return };
        let policy = alloc.assignment.spec.restart.clone();
        let alone = alloc.tasks.len() == 1;
        let Some(task) = alloc.tasks.get_mut(&key.task) else { return };
        task.state.error.clone_from(&reason);
        task.state.phase = TaskPhase::Waiting;
        while task.recent.front().is_some_and(|at| now.since(*at) >= policy.within) {
            task.recent.pop_front();
        }
        if task.recent.len() >= policy.attempts as usize && task.recent.len() < RESTARTS_COUNTED_MAX
        {
            task.state.phase = TaskPhase::Ended;
            if alloc.failing.is_none() && !alloc.stop && !alloc.gone {
                let who = if alone { String::new() } else { format!("{}: ", key.task) };
                let after = match policy.attempts {
                    0 => String::new(),
                    n => {
                        format!("gave up after {n} restart{} within {}: ", plural(n), policy.within)
                    }
                };
                alloc.failing = Some(format!("{who}{after}{reason}"));
            }
            return;
        }
        if task.recent.len() >= RESTARTS_COUNTED_MAX {
            task.recent.pop_front();
        }
        task.recent.push_back(now);
        task.state.restarts = task.state.restarts.saturating_add(1);
        task.next_start = now + delay(&policy, task.recent.len(), jitter);
    }

    /// What is true of the task is known when the runtime answers again.
    fn unavailable(&mut self, now: Timestamp, key: &TaskKey, message: String) {
        let runtime = self.with(key, |task, _| {
            task.try_later(now);
            task.seen = Seen::Unknown;
            task.state.error = message;
            task.runtime
        });
        if let Some(runtime) = runtime {
            self.up.remove(runtime);
        }
    }
}

/// None before the first restart; then from `delay_min`, doubling to `delay_max`, and up to a
/// fifth more so that what failed together does not start together.
pub(super) fn delay(policy: &RestartPolicy, restart: usize, jitter: u64) -> Millis {
    if restart <= 1 {
        return Millis(0);
    }
    let doublings = u32::try_from(restart - 2).unwrap_or(u32::MAX).min(40);
    let base = policy.delay_min.0.saturating_mul(1 << doublings).min(policy.delay_max.0);
    Millis(base.saturating_add(jitter % (base / 5 + 1)))
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn describe(exit: &Exit, memory: Option<u64>) -> String {
    let text = match exit.code {
        137 if exit.oom_killed => out_of_memory(memory),
        // Another of its processes was killed, and it took that badly.
        code if exit.oom_killed => format!("{}; exit code {code}", out_of_memory(memory)),
        code @ 129..=192 => format!("killed by signal {}{}", code - 128, signal_name(code - 128)),
        0 => "ended with exit code 0, but is to run on".to_owned(),
        code => format!("exit code {code}"),
    };
    if exit.error.is_empty() { text } else { format!("{text}: {}", exit.error) }
}

fn out_of_memory(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!("out of memory: killed at its limit of {}", Bytes(limit)),
        None => "out of memory: killed by the kernel".to_owned(),
    }
}

fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        6 => " (SIGABRT)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
