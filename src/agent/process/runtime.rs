//! The agent's side: starts shims, and reads what they left.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::{broadcast, mpsc};

use super::cgroup::{self, Limits};
use super::copy::Copier;
use super::files::{self, Ended, Job, Running, Surroundings, TaskDir, TaskJob, Word};
use super::{exec, log, pid, signal, user};
use crate::agent::meter::Sample;
use crate::agent::order::{Owner, TaskKey, TaskOrder};
use crate::agent::runtime::{
    Answer, Condition, ExecInput, ExecOrder, ExecOutput, Exit, Found, Line, LogQuery, Notice,
    Runtime, RuntimeError, tail_text,
};
use crate::limits::{AGENT_QUEUE_MAX, COMMAND_WORDS_MAX};
use crate::model::time::Timestamp;
use crate::rpc::v1::{FileInfo, FoundContainer};

/// For a shim to say that the task runs.
const START_LIMIT: Duration = Duration::from_secs(20);
/// For a task that was killed to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of what a shim says.
const WORD_BYTES_MAX: u64 = 64 << 10;
/// This very binary, even if the file was replaced since.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";
/// The hidden subcommand that is a shim.
pub(super) const SHIM_COMMAND: &str = "process-shim";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Processes of this host.
#[derive(Debug)]
pub(in crate::agent) struct Process {
    dir: PathBuf,
    program: PathBuf,
    /// Tasks that were started, for whoever watches.
    started: broadcast::Sender<(TaskKey, Running)>,
}

impl Process {
    /// Keeps the tasks' directories in `dir`; `program` is this binary.
    ///
    /// # Errors
    /// If the directory can't be made.
    pub(in crate::agent) fn new(dir: PathBuf, program: Option<PathBuf>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let dir = fs::canonicalize(dir)?;
        let program = program.unwrap_or_else(|| OWN_PROGRAM.into());
        Ok(Self { dir, program, started: broadcast::channel(AGENT_QUEUE_MAX).0 })
    }

    fn task_dir(&self, key: &TaskKey) -> TaskDir {
        TaskDir(self.dir.join(key.to_string()))
    }

    fn job(&self, order: &TaskOrder, dir: &TaskDir) -> Result<TaskJob, String> {
        let spec = &order.spec;
        if !spec.volumes.is_empty() {
            return Err("a process sees the host's paths as they are; volumes need an image".into());
        }
        if spec.read_only || !spec.cap_add.is_empty() || !spec.cap_drop.is_empty() {
            return Err("read_only, cap_add and cap_drop need an image".into());
        }
        let words: Vec<_> =
            spec.entrypoint.iter().flatten().chain(&spec.command).cloned().collect();
        if words.is_empty() || words.len() > COMMAND_WORDS_MAX {
            return Err(format!("a process needs a command of 1 to {COMMAND_WORDS_MAX} words"));
        }
        let stop_signal = match &spec.stop_signal {
            Some(name) => signal::by_name(name).ok_or(format!("{name:?} is no signal"))?,
            None => Signal::TERM,
        };
        let ids = spec.user.as_deref().map(user::ids).transpose()?;
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), dir.sandbox().display().to_string()),
        ]);
        environment.extend(order.environment.clone());
        let last_run = read_job(dir).map_or(0, |job| job.run);
        let limits = Limits { memory: spec.resources.memory, cpu_milli: spec.resources.cpu_milli };
        // A host without control groups runs the task all the same; its attributes say so.
        let cgroups = cgroup::prepare(&self.group(&order.key), limits).unwrap_or_else(|why| {
            tracing::debug!(task = %order.key, why, "runs without limits");
            Vec::new()
        });
        Ok(TaskJob {
            key: order.key.clone(),
            owner: order.owner.clone(),
            run: last_run + 1,
            command: Surroundings {
                words,
                environment,
                working_dir: spec.working_dir.clone().map_or_else(|| dir.sandbox(), PathBuf::from),
                ids: ids.map(|ids| (ids.uid, ids.gid)),
            },
            stop_signal: stop_signal.as_raw(),
            cgroups,
        })
    }

    /// Agents of one host have groups of their own.
    fn group(&self, key: &TaskKey) -> String {
        let own = xxhash_rust::xxh3::xxh3_64(self.dir.as_os_str().as_encoded_bytes());
        format!("{own:016x}-{key}")
    }

    async fn start_task(&self, order: &TaskOrder) -> Result<String, RuntimeError> {
        let dir = self.task_dir(&order.key);
        // What an earlier start left, if its shim was killed.
        self.end_leftovers(&dir).await;
        let job = self.job(order, &dir).map_err(RuntimeError::Failed)?;
        make_dirs(&dir, &job).map_err(|error| {
            RuntimeError::Failed(format!("{} can't be made: {error}", dir.0.display()))
        })?;
        files::write(&dir.job(), &Job::Task(Box::new(job))).map_err(failed)?;
        let running = match self.run_shim(&dir).await {
            Ok(running) => running,
            Err(error) => {
                if !dir.running().exists() {
                    // It never ran: there is nothing to keep.
                    cgroup::remove(&self.group(&order.key));
                    let _ = fs::remove_dir_all(&dir.0);
                }
                return Err(error);
            }
        };
        let handle = format!("pid:{}", running.child.pid);
        let _ = self.started.send((order.key.clone(), running));
        Ok(handle)
    }

    async fn run_shim(&self, dir: &TaskDir) -> Result<Running, RuntimeError> {
        let mut shim = tokio::process::Command::new(&self.program)
            .arg(SHIM_COMMAND)
            .arg(&dir.0)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let out = shim.stdout.take();
        let word = async {
            let mut line = Vec::new();
            if let Some(out) = out {
                let mut out = BufReader::new(out.take(WORD_BYTES_MAX));
                out.read_until(b'\n', &mut line).await?;
            }
            serde_json::from_slice::<Word>(&line).map_err(io::Error::other)
        };
        let word = tokio::time::timeout(START_LIMIT, word).await;
        // Waited for so that it leaves no zombie; a shim outlives the agent.
        tokio::spawn(async move { shim.wait().await });
        match word {
            Ok(Ok(Word::Running(running))) => Ok(running),
            Ok(Ok(Word::Failed(text))) => Err(RuntimeError::Failed(text)),
            Ok(Err(error)) => Err(RuntimeError::Failed(format!("its shim did not start: {error}"))),
            Err(_) => Err(RuntimeError::Failed(format!(
                "its shim did not start within {}s",
                START_LIMIT.as_secs()
            ))),
        }
    }

    async fn end_leftovers(&self, dir: &TaskDir) {
        let Ok(Some(running)) = files::read::<Running>(&dir.running()) else { return };
        kill(&running, Signal::KILL);
        let _ = tokio::time::timeout(KILL_LIMIT, gone(&running)).await;
    }

    fn found(&self, owner: &Owner) -> io::Result<Vec<(Found, Option<Running>)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let dir = TaskDir(entry?.path());
            let Some(job) = read_job(&dir).filter(|job| job.owner == *owner) else { continue };
            let Ok(Some(running)) = files::read::<Running>(&dir.running()) else { continue };
            let runs = running.shim.alive().is_some();
            let handle = format!("pid:{}", running.child.pid);
            all.push((Found { key: job.key, handle, running: runs }, runs.then_some(running)));
        }
        Ok(all)
    }

    async fn condition(&self, key: &TaskKey) -> Result<Condition, RuntimeError> {
        let dir = self.task_dir(key);
        let Some(running) = files::read::<Running>(&dir.running()).map_err(failed)? else {
            return Ok(Condition::Absent);
        };
        if running.shim.alive().is_some() {
            let started_at = Some(Timestamp(running.started_at));
            return Ok(Condition::Running { started_at });
        }
        let ended = files::read::<Ended>(&dir.ended()).map_err(failed)?;
        let exit = match ended.filter(|ended| ended.run == running.run) {
            Some(ended) => ended.exit,
            None => {
                // Nobody looks after it any more, or it ended with the host.
                kill(&running, Signal::KILL);
                let error = "the process that looked after it was killed".to_owned();
                Exit { code: 137, error, ..Exit::default() }
            }
        };
        let tail = tail(dir.log()).await;
        Ok(Condition::Ended(Exit { tail, ..exit }))
    }

    /// Copies files of the task, with its own rights.
    fn copier(&self, key: &TaskKey) -> Result<Copier<'_>, RuntimeError> {
        let dir = self.task_dir(key);
        let job = read_job(&dir).ok_or_else(|| RuntimeError::NotFound(key.to_string()))?;
        Ok(Copier { program: &self.program, dir, command: job.command })
    }

    async fn stop_task(&self, key: &TaskKey, grace: Duration) -> Result<(), RuntimeError> {
        let dir = self.task_dir(key);
        let running = files::read::<Running>(&dir.running()).map_err(failed)?;
        let running =
            running.ok_or_else(|| RuntimeError::NotFound(format!("no process of {key}")))?;
        let stop = read_job(&dir).and_then(|job| Signal::from_named_raw(job.stop_signal));
        kill(&running, stop.unwrap_or(Signal::TERM));
        if tokio::time::timeout(grace, gone(&running)).await.is_ok() {
            return Ok(());
        }
        kill(&running, Signal::KILL);
        match tokio::time::timeout(KILL_LIMIT, gone(&running)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(RuntimeError::Failed(format!(
                "process {} was killed and is still there",
                running.child.pid
            ))),
        }
    }
}

fn failed(error: io::Error) -> RuntimeError {
    RuntimeError::Failed(error.to_string())
}

fn read_job(dir: &TaskDir) -> Option<TaskJob> {
    match files::read::<Job>(&dir.job()) {
        Ok(Some(Job::Task(job))) => Some(*job),
        _ => None,
    }
}

fn make_dirs(dir: &TaskDir, job: &TaskJob) -> io::Result<()> {
    // Other users of the host have no business here, but the task's own user has.
    fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir.0)?;
    fs::create_dir_all(dir.log())?;
    if !dir.sandbox().exists() {
        fs::DirBuilder::new().mode(0o700).create(dir.sandbox())?;
        if let Some((uid, gid)) = job.command.ids {
            std::os::unix::fs::chown(dir.sandbox(), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// Sends a signal to all of a task's processes that are in its group.
fn kill(running: &Running, signal: Signal) {
    if let Some(pid) = running.child.alive() {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Returns when the task and its shim are gone.
async fn gone(running: &Running) {
    for ident in [&running.shim, &running.child] {
        if let Some(pid) = ident.alive() {
            exited(pid).await;
        }
    }
}

/// Returns when the process has exited.
async fn exited(pid: Pid) {
    let opened = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK);
    match opened.map_err(io::Error::from).and_then(pid::watched) {
        Ok(fd) => {
            let _ = fd.readable().await;
        }
        // Gone already, or a kernel from before 5.3.
        Err(_) => {
            while rustix::process::test_kill_process(pid).is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn tail(dir: PathBuf) -> String {
    let (sink, mut lines) = mpsc::channel(64);
    let query = LogQuery { tail: Some(50), ..LogQuery::default() };
    let read = tokio::task::spawn_blocking(move || log::files(&dir).read(&query, &sink, || true));
    let mut tail = Vec::new();
    while let Some(line) = lines.recv().await {
        tail.extend_from_slice(&line.text);
        tail.push(b'\n');
    }
    let _ = read.await;
    tail_text(&tail)
}

/// Bytes of the files below a directory; links are not followed.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.blocks().saturating_mul(512),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

impl Runtime for Process {
    fn word(&self) -> &'static str {
        "process"
    }

    fn list<'a>(&'a self, owner: &'a Owner) -> Answer<'a, Vec<Found>> {
        async {
            let found = self.found(owner).map_err(failed)?;
            Ok(found.into_iter().map(|(found, _)| found).collect())
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        owner: &'a Owner,
        _: Timestamp,
        sink: mpsc::Sender<Notice>,
    ) -> Answer<'a, ()> {
        async move {
            let mut started = self.started.subscribe();
            let mut watched = FuturesUnordered::new();
            // A task whose shim is gone has ended, or is to be ended.
            let wait = |key: TaskKey, running: Running| async move {
                if let Some(shim) = running.shim.alive() {
                    exited(shim).await;
                }
                key
            };
            for (found, running) in self.found(owner).map_err(failed)? {
                match running {
                    Some(running) => watched.push(wait(found.key, running)),
                    None => {
                        let _ = sink.send(Notice::Task(found.key)).await;
                    }
                }
            }
            loop {
                tokio::select! {
                    new = started.recv() => match new {
                        Ok((key, running)) => watched.push(wait(key, running)),
                        // Too many at once: whoever watches looks at all of them anew.
                        Err(_) => return Ok(()),
                    },
                    Some(key) = watched.next() => {
                        if sink.send(Notice::Task(key)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
        }
        .boxed()
    }

    fn find<'a>(&'a self, _: &'a [String]) -> Answer<'a, Vec<FoundContainer>> {
        // What Mesos runs as a process is a child of its own executor, and can't change hands.
        async { Ok(Vec::new()) }.boxed()
    }

    fn pull<'a>(&'a self, _: &'a TaskOrder) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }

    fn start<'a>(&'a self, order: &'a TaskOrder, _: Option<&'a str>) -> Answer<'a, String> {
        self.start_task(order).boxed()
    }

    fn stop<'a>(&'a self, key: &'a TaskKey, _: &'a str, grace: Duration) -> Answer<'a, ()> {
        self.stop_task(key, grace).boxed()
    }

    fn remove<'a>(&'a self, key: &'a TaskKey, _: &'a str) -> Answer<'a, ()> {
        async move {
            let dir = self.task_dir(key);
            self.end_leftovers(&dir).await;
            cgroup::remove(&self.group(key));
            let path = dir.0.clone();
            let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(path)).await;
            match removed.unwrap_or_else(|error| Err(error.into())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a TaskKey, _: &'a str) -> Answer<'a, Condition> {
        self.condition(key).boxed()
    }

    fn logs<'a>(
        &'a self,
        key: &'a TaskKey,
        _: &'a str,
        query: LogQuery,
        sink: mpsc::Sender<Line>,
    ) -> Answer<'a, ()> {
        async move {
            let dir = self.task_dir(key);
            let running = files::read::<Running>(&dir.running()).map_err(failed)?;
            let ended = move || running.as_ref().is_none_or(|r| r.shim.alive().is_none());
            let read = move || log::files(&dir.log()).read(&query, &sink, ended);
            tokio::task::spawn_blocking(read).await.map_err(|error| failed(error.into()))
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        key: &'a TaskKey,
        _: &'a str,
        order: ExecOrder,
        input: mpsc::Receiver<ExecInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, i32> {
        async move {
            let dir = self.task_dir(key);
            let job = read_job(&dir).ok_or_else(|| RuntimeError::NotFound(key.to_string()))?;
            let command = Surroundings { words: order.command.clone(), ..job.command };
            exec::run(&self.program, &dir, command, &order, input, output).await
        }
        .boxed()
    }

    fn look_at<'a>(&'a self, key: &'a TaskKey, _: &'a str, path: &'a str) -> Answer<'a, FileInfo> {
        async move { self.copier(key)?.look_at(path).await }.boxed()
    }

    fn read_files<'a>(
        &'a self,
        key: &'a TaskKey,
        _: &'a str,
        path: &'a str,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, ()> {
        async move { self.copier(key)?.read(path, output).await }.boxed()
    }

    fn write_files<'a>(
        &'a self,
        key: &'a TaskKey,
        _: &'a str,
        path: &'a str,
        input: mpsc::Receiver<ExecInput>,
    ) -> Answer<'a, ()> {
        async move { self.copier(key)?.write(path, input).await }.boxed()
    }

    fn inside<'a>(&'a self, _: &'a TaskKey, _: &'a str) -> Answer<'a, Option<IpAddr>> {
        async { Ok(None) }.boxed()
    }

    fn usage<'a>(&'a self, tasks: &'a [(TaskKey, String)]) -> Answer<'a, Vec<(TaskKey, Sample)>> {
        async {
            let groups: Vec<_> =
                tasks.iter().map(|(key, _)| (key.clone(), self.group(key))).collect();
            let read = move || {
                let sample = |(key, group): (TaskKey, String)| Some((key, cgroup::sample(&group)?));
                groups.into_iter().filter_map(sample).collect()
            };
            tokio::task::spawn_blocking(read).await.map_err(|error| failed(error.into()))
        }
        .boxed()
    }

    fn disk_used<'a>(&'a self, owner: &'a Owner) -> Answer<'a, BTreeMap<TaskKey, u64>> {
        async {
            let found = self.found(owner).map_err(failed)?;
            let dirs: Vec<_> = found
                .into_iter()
                .map(|(found, _)| (self.task_dir(&found.key).sandbox(), found.key))
                .collect();
            let measure = move || dirs.into_iter().map(|(dir, key)| (key, size_of(&dir))).collect();
            tokio::task::spawn_blocking(measure).await.map_err(|error| failed(error.into()))
        }
        .boxed()
    }
}
