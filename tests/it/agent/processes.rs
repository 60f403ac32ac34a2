//! The agent with processes of the host.

use std::path::Path;
use std::sync::Arc;

use orch::agent::RuntimeChoice;
use orch::model::allocation::{AllocReport, AllocStatus};
use orch::model::job::TaskRuntime::Process;
use orch::rpc::v1::session_frame::Frame;
use orch::rpc::v1::session_request::Kind;
use orch::rpc::v1::{ExecRequest, LogsRequest, Resize, SessionFrame, SessionRequest};
use rustix::process::{Pid, Signal};

use super::leader::Leader;
use super::{Agent, batch, log_of, next, service, shell, task};
use crate::support::{SHORT, wait_until};

fn running(report: &AllocReport) -> bool {
    report.status == AllocStatus::Running
}

fn pid_of(report: &AllocReport) -> i32 {
    let handle = report.tasks.values().next().unwrap().container_id.clone().unwrap();
    handle.strip_prefix("pid:").unwrap().parse().unwrap()
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn kill(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim().starts_with('Z'))
}

/// Ends the shims below a directory, and so what they look after.
pub fn end_all(tasks: &Path) {
    let tasks = tasks.canonicalize().unwrap_or_else(|_| tasks.to_owned());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        if words.contains("process-shim") && words.contains(&*tasks.to_string_lossy()) {
            for child in children_of(pid) {
                kill_group(child);
            }
        }
    }
}

fn children_of(parent: i32) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1)
                    == Some(&parent.to_string())
            })
        })
        .collect()
}

fn kill_group(pid: i32) {
    let _ = rustix::process::kill_process_group(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_with_its_environment_and_ends_when_asked() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let script = "trap 'echo asked; exit 0' USR1; echo in $(pwd) as $MODE for $ORCH_JOB; \
                  (setsid sleep 9876 &) ; while :; do sleep 0.05; done";
    let mut web = task("web", Process, shell(script));
    web.environment.insert("MODE".to_owned(), "prod".to_owned());
    web.stop_signal = Some("USR1".to_owned());
    leader.order(&[service(1, vec![web])], &[], &[]).await;
    let report = leader.report_that(1, "running", running).await;
    let (pid, shim) = (pid_of(&report), parent_of(pid_of(&report)));
    wait_until("its first line", SHORT, || {
        let log = std::fs::read_to_string(format!("/proc/{pid}/cwd/../log/log"));
        log.ok().filter(|log| log.contains("prod")).ok_or_else(|| "nothing yet".to_owned())
    });
    leader.order(&[], &[(1, 2)], &[]).await;
    let report =
        leader.report_that(1, "stopped", |report| report.status == AllocStatus::Stopped).await;
    assert_eq!(report.tasks.values().next().unwrap().exit_code, Some(0));
    assert!(!lives(pid) && !lives(shim));
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    assert!(lines[0].ends_with("as prod for web") && lines[0].contains("a1-web"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "asked"), "{lines:?}");
    // What left its group and its session ended with it.
    let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|words| words == b"sleep\x009876\0")
    });
    assert!(!left, "a process was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_survive_the_agent_and_are_taken_over() {
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Process);
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let orders = [
        service(1, vec![task("web", Process, shell(script))]),
        batch(2, vec![task("work", Process, shell("sleep 1; exit 0"))]),
    ];
    leader.assign(&orders);
    leader.order(&orders, &[], &[]).await;
    let before = leader.report_that(1, "running", running).await;
    leader.report_that(2, "running", running).await;
    leader.forget_reports();
    // While there is no agent one of them ends; how is known afterwards.
    let _agent = agent.again(&leader, RuntimeChoice::Process).await;
    let after = leader.report_that(1, "running", running).await;
    assert_eq!(
        (pid_of(&before), 0),
        (pid_of(&after), after.tasks.values().map(|t| t.restarts).sum())
    );
    leader.report_that(2, "complete", |report| report.status == AllocStatus::Complete).await;
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    let counted: Vec<_> = (1..=lines.len()).map(|i| i.to_string()).collect();
    assert_eq!(lines, counted, "no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_is_started_again_and_its_shim_as_well() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let order = service(1, vec![task("web", Process, shell("while :; do sleep 0.05; done"))]);
    leader.order(&[order], &[], &[]).await;
    let first = leader.report_that(1, "running", running).await;
    kill(pid_of(&first), Signal::KILL);
    let restarts = |report: &AllocReport| report.tasks.values().map(|t| t.restarts).sum::<u32>();
    let second = leader.report_that(1, "second run", |r| running(r) && restarts(r) == 1).await;
    assert_eq!(second.tasks.values().next().unwrap().exit_code, Some(137));
    let (pid, shim) = (pid_of(&second), parent_of(pid_of(&second)));
    kill(shim, Signal::KILL);
    leader.report_that(1, "third run", |r| running(r) && restarts(r) == 2).await;
    wait_until("the end of the orphan", SHORT, || {
        if lives(pid) { Err("it lives".to_owned()) } else { Ok(()) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_held_to_its_limits_where_the_host_can() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let (_, spec) = leader.hello_number(1).await;
    assert!(!spec.attributes.contains_key("process.limits"), "{:?}", spec.attributes);
    let mut order = service(1, vec![task("eat", Process, shell("exec tail /dev/zero"))]);
    {
        let spec = Arc::make_mut(&mut order.spec);
        spec.restart.attempts = 0;
        spec.tasks[0].resources.memory = Some(16 << 20);
    }
    leader.order(&[order], &[], &[]).await;
    let report =
        leader.report_that(1, "failed", |report| report.status == AllocStatus::Failed).await;
    assert!(report.message.contains("out of memory"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_named() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let mut program = service(1, vec![task("web", Process, vec!["/no/such/program".to_owned()])]);
    Arc::make_mut(&mut program.spec).restart.attempts = 0;
    let mut user = service(2, vec![task("web", Process, shell("true"))]);
    Arc::make_mut(&mut user.spec).restart.attempts = 0;
    Arc::make_mut(&mut user.spec).tasks[0].user = Some("no-such-user".to_owned());
    leader.order(&[program, user], &[], &[]).await;
    for (alloc, words) in [(1, "/no/such/program: No such file"), (2, "\"no-such-user\"")] {
        let report = leader.report_that(alloc, "failed", |r| r.status == AllocStatus::Failed).await;
        assert!(report.message.contains(words), "{words:?} in {:?}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_a_terminal() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    leader.order(&[service(1, vec![task("web", Process, shell("sleep 600"))])], &[], &[]).await;
    leader.report_that(1, "running", running).await;
    let exec = ExecRequest {
        command: shell("tty; stty size; read word; echo got $word; stty size; exit 5"),
        stdin: true,
        tty: true,
        columns: 80,
        rows: 24,
    };
    let request = SessionRequest { alloc: 1, kind: Some(Kind::Exec(exec)), ..Default::default() };
    let mut ends = leader.open(1, request).await;
    let mut out = Vec::new();
    let mut typed = false;
    let frame = |frame| Ok(SessionFrame { frame: Some(frame) });
    let code = loop {
        match next(&mut ends).await {
            Frame::Stdout(bytes) => out.extend_from_slice(&bytes),
            Frame::Exit(exit) => break exit.code,
            other => panic!("{other:?}"),
        }
        if !typed && String::from_utf8_lossy(&out).contains("24 80") {
            typed = true;
            ends.to.send(frame(Frame::Resize(Resize { columns: 100, rows: 30 }))).await.unwrap();
            ends.to.send(frame(Frame::Stdin("word\n".into()))).await.unwrap();
        }
    };
    let out = String::from_utf8_lossy(&out);
    assert!(
        out.contains("/dev/pts/") && out.contains("got word") && out.contains("30 100"),
        "{out}"
    );
    assert_eq!(code, 5);
}
