//! The shim's side: a small process of its own that sees one task through.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::files::{self, Ended, Job, Running, TaskDir, TaskJob, Word};
use super::pid::{self, Ident};
use super::{cgroup, log, terminal};
use crate::agent::runtime::Exit;
use crate::clock;
use crate::model::time::Timestamp;

/// For output that is still on its way when the task has ended.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);
/// Lines that wait to be written.
const LINES_WAITING: usize = 256;
/// A reader needs no more.
const STACK_BYTES: usize = 128 << 10;

/// Carries out what lies in `dir`; the exit code of the shim, not of the task.
///
/// Called by `main` before anything else is set up: there is one for each task, and it is to stay
/// small.
pub fn shim(dir: &Path) -> i32 {
    let dir = TaskDir(dir.to_owned());
    let outcome = match files::read::<Job>(&dir.job()) {
        Ok(Some(Job::Task(job))) => see_through(&dir, &job),
        Ok(Some(Job::Terminal(job))) => Err(terminal::become_command(&job)),
        Ok(None) => Err(format!("{} holds no job", dir.0.display())),
        Err(error) => Err(format!("{}: {error}", dir.job().display())),
    };
    match outcome {
        Ok(()) => 0,
        Err(text) => {
            say(&Word::Failed(text));
            1
        }
    }
}

/// One line to the agent; one that has gone meanwhile finds it in the files.
fn say(word: &Word) {
    let mut out = io::stdout();
    if let Ok(mut line) = serde_json::to_vec(word) {
        line.push(b'\n');
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn see_through(dir: &TaskDir, job: &TaskJob) -> Result<(), String> {
    // Away from the agent's terminal and its signals.
    let _ = rustix::process::setsid();
    // What the task's processes leave behind comes here, to be ended with it.
    let own = rustix::process::getpid();
    let _ = rustix::process::set_child_subreaper(Some(own));
    let mut writer = log::Writer::open(&dir.log())
        .map_err(|error| format!("its log can't be written: {error}"))?;
    let kills_before = cgroup::oom_kills(&job.cgroups);
    let mut child = start(job)?;
    let child_pid = i32::try_from(child.id()).unwrap_or_default();
    let started_at = clock::wall_nanos();
    let idents = Ident::of(own.as_raw_nonzero().get()).zip(Ident::of(child_pid));
    let Some((shim, child_ident)) = idents else {
        return Err("it can't be found in /proc".to_owned());
    };
    let running =
        Running { run: job.run, shim, child: child_ident, started_at: started_at / 1_000_000 };
    if let Err(error) = files::write(&dir.running(), &running) {
        let _ = child.kill();
        return Err(format!("{} can't be written: {error}", dir.running().display()));
    }

    let (lines, waiting) = mpsc::sync_channel::<(u64, bool, Vec<u8>)>(LINES_WAITING);
    let mut readers = Vec::new();
    if let Some(out) = child.stdout.take() {
        readers.push(reader(out, false, lines.clone()));
    }
    if let Some(err) = child.stderr.take() {
        readers.push(reader(err, true, lines.clone()));
    }
    drop(lines);
    let (finished, finish) = mpsc::channel::<()>();
    let writing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        while let Ok((at, stderr, text)) = waiting.recv() {
            writer.line(at, stderr, &text);
        }
        drop(finished);
    });
    if let Some(error) = readers.into_iter().chain([writing]).find_map(Result::err) {
        let _ = child.kill();
        return Err(format!("a thread could not be started: {error}"));
    }
    say(&Word::Running(running));
    // The agent waits for the end of this pipe as little as the task's processes hold it open.
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }

    let status = wait_for(child_pid);
    let finished_at = clock::wall_nanos() / 1_000_000;
    end_the_rest(own, child_pid);
    // Ends when nobody holds the output any more.
    let _: Result<(), RecvTimeoutError> = finish.recv_timeout(OUTPUT_LIMIT);
    let exit = Exit {
        code: code(status),
        oom_killed: cgroup::oom_kills(&job.cgroups) > kills_before,
        finished_at: Some(Timestamp(finished_at)),
        ..Exit::default()
    };
    let ended = Ended { run: job.run, exit };
    files::write(&dir.ended(), &ended).map_err(|error| error.to_string())
}

fn start(job: &TaskJob) -> Result<std::process::Child, String> {
    let mut command = job.command.command().ok_or("its command is empty")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let program = job.command.words.first().cloned().unwrap_or_default();
    // The child is born into its groups; the shim itself has no part in their limits.
    let home = cgroup::own();
    cgroup::enter(&job.cgroups).map_err(|error| format!("control groups: {error}"))?;
    let child = command.spawn();
    if !job.cgroups.is_empty() {
        let _ = cgroup::enter(&home);
    }
    child.map_err(|error| format!("{program}: {error}"))
}

fn reader(
    from: impl io::Read + Send + 'static,
    stderr: bool,
    lines: mpsc::SyncSender<(u64, bool, Vec<u8>)>,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        log::copy(from, stderr, |stderr, text| {
            let _ = lines.send((clock::wall_nanos(), stderr, text.to_vec()));
        });
    })
}

/// Waits for the task, and for whatever else comes here meanwhile.
fn wait_for(child: i32) -> Option<WaitStatus> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn code(status: Option<WaitStatus>) -> i32 {
    let status = status.map(|status| (status.exit_status(), status.terminating_signal()));
    match status {
        Some((Some(code), _)) => code,
        Some((None, Some(signal))) => 128 + signal,
        Some((None, None)) | None => 137,
    }
}

/// A task that has ended leaves nothing running: its group goes, and what left the group.
fn end_the_rest(own: Pid, child: i32) {
    if let Some(group) = Pid::from_raw(child) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let limit = Instant::now() + OUTPUT_LIMIT;
    while Instant::now() < limit {
        for orphan in pid::children(own.as_raw_nonzero().get()) {
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            // None left.
            Err(_) => return,
        }
    }
}
