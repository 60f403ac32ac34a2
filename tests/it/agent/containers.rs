//! The agent with the real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use orch::agent::RuntimeChoice;
use orch::model::allocation::{AllocStatus, Health};
use orch::model::job::{HealthCheck, PortSpec, Probe, Protocol, VolumeMount, VolumeSource};
use orch::model::time::Millis;
use orch::rpc::v1::session_frame::Frame;
use orch::rpc::v1::session_request::Kind;
use orch::rpc::v1::{ExecRequest, LogsRequest, SessionFrame, SessionRequest, StdinEnd};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::leader::Leader;
use super::{Agent, batch, free_port, image, log_of, next, service, shell, task};
use crate::support::docker::{docker, inspect, need_image, runs};

fn running(report: &orch::model::allocation::AllocReport) -> bool {
    report.status == AllocStatus::Running
}

fn id_of(report: &orch::model::allocation::AllocReport) -> String {
    report.tasks.values().next().unwrap().container_id.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_all_that_its_task_asks_for() {
    let name = need_image();
    let leader = Leader::start().await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    std::fs::write(root.join("page"), "hello").unwrap();
    let _agent = Agent::start_with(&leader, RuntimeChoice::Docker, |config| {
        config.volume_roots = vec![root.clone()];
    });
    let mut web = task("web", image(name), shell("httpd -f -p 80 -h /data"));
    web.ports = vec![PortSpec {
        name: "http".parse().unwrap(),
        container: Some(80),
        host: None,
        protocol: Protocol::Tcp,
    }];
    let mount = |source, target: &str, read_only| VolumeMount {
        source,
        target: target.to_owned(),
        read_only,
    };
    web.volumes = vec![
        mount(VolumeSource::Path(root.display().to_string()), "/data", true),
        mount(VolumeSource::Tmpfs, "/scratch", false),
    ];
    web.environment.insert("MODE".to_owned(), "prod".to_owned());
    web.labels.insert("team".to_owned(), "a".to_owned());
    web.resources.memory = Some(64 << 20);
    web.resources.cpu_milli = Some(500);
    web.read_only = true;
    web.cap_drop = vec!["NET_RAW".to_owned()];
    web.stop_signal = Some("SIGINT".to_owned());
    web.healthcheck = Some(HealthCheck {
        probe: Probe::Http { path: "/page".to_owned(), port: "http".parse().unwrap() },
        interval: HealthCheck::interval_default(),
        timeout: HealthCheck::timeout_default(),
        retries: 3,
        successes: 1,
        start_period: Millis(0),
    });
    let mut order = service(1, vec![web]);
    let port = free_port();
    order.grant.ports.insert("http".parse().unwrap(), port);
    leader.order(&[order], &[], &[]).await;

    let report = leader
        .report_that(1, "healthy", |report| running(report) && report.health == Health::Healthy)
        .await;
    let container = inspect(&id_of(&report));
    let container_name = container["Name"].as_str().unwrap();
    assert!(container_name.starts_with("/orch-web-0-web-a1-"), "{container_name}");
    let host = &container["HostConfig"];
    assert_eq!(
        (host["Memory"].as_i64(), host["NanoCpus"].as_i64()),
        (Some(64 << 20), Some(500_000_000))
    );
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"][0], "NET_RAW");
    assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], port.to_string());
    assert_eq!(host["LogConfig"]["Type"], "json-file");
    let config = &container["Config"];
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Labels"]["team"], "a");
    assert_eq!(config["Labels"]["orch.alloc"], "a1");
    let environment: Vec<_> =
        config["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let host_port = format!("HOST_PORT_HTTP={port}");
    for wanted in ["MODE=prod", "ORCH_JOB=web", "PORT_HTTP=80", "PORT=80", &host_port] {
        assert!(environment.contains(&wanted), "{wanted} in {environment:?}");
    }

    leader.order(&[], &[(1, 2)], &[]).await;
    leader.report_that(1, "stopped", |report| report.status == AllocStatus::Stopped).await;
    assert!(!runs(&id_of(&report)));
    // Its logs are kept until it is forgotten.
    leader.order(&[], &[], &[1]).await;
    let id = id_of(&report);
    crate::support::wait_until("its container's removal", crate::support::SHORT, || {
        match docker(&["container", "inspect", &id]) {
            Ok(_) => Err("it is there".to_owned()),
            Err(_) => Ok(()),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_back_and_its_log_goes_on() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let script = "echo begun; while :; do sleep 0.1; done";
    leader.order(&[service(1, vec![task("web", image(name), shell(script))])], &[], &[]).await;
    let before = leader.report_that(1, "running", running).await;
    docker(&["kill", &id_of(&before)]).unwrap();
    let after = leader
        .report_that(1, "running again", |report| {
            running(report) && report.tasks.values().any(|task| task.restarts == 1)
        })
        .await;
    let state = after.tasks.values().next().unwrap();
    assert_eq!(state.exit_code, Some(137));
    assert!(runs(&id_of(&after)));
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    assert!(lines.iter().filter(|line| *line == "begun").count() >= 1, "{lines:?}");

    // Removed altogether: made anew.
    docker(&["rm", "--force", &id_of(&after)]).unwrap();
    leader
        .report_that(1, "running a third time", |report| {
            running(report) && report.tasks.values().any(|task| task.restarts == 2)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_takes_over_what_runs() {
    let name = need_image();
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Docker);
    let order = service(1, vec![task("web", image(name), shell("while :; do sleep 1; done"))]);
    leader.assign(std::slice::from_ref(&order));
    leader.order(&[order], &[], &[]).await;
    let before = leader.report_that(1, "running", running).await;
    leader.forget_reports();
    let agent = agent.again(&leader, RuntimeChoice::Docker).await;
    let after = leader.report_that(1, "running", running).await;
    let restarts = after.tasks.values().map(|task| task.restarts).sum::<u32>();
    assert_eq!((id_of(&before), 0), (id_of(&after), restarts));

    // Unknown to the leader that it comes to next: ended and removed.
    leader.assign(&[]);
    leader.hang_up();
    crate::support::wait_until("its end", crate::support::SHORT, || {
        match docker(&["container", "inspect", &id_of(&after)]) {
            Ok(_) => Err("it is there".to_owned()),
            Err(_) => Ok(()),
        }
    });
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_fails_with_the_engines_words() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let mut missing = service(1, vec![task("web", image("orch-test-none:1"), Vec::new())]);
    std::sync::Arc::make_mut(&mut missing.spec).restart.attempts = 0;
    let mut outside = service(2, vec![task("web", image(name), shell("sleep 60"))]);
    {
        let spec = std::sync::Arc::make_mut(&mut outside.spec);
        spec.restart.attempts = 0;
        spec.tasks[0].volumes = vec![VolumeMount {
            source: VolumeSource::Path("/etc".to_owned()),
            target: "/etc".to_owned(),
            read_only: true,
        }];
    }
    let mut taken = service(3, vec![task("web", image(name), shell("sleep 60"))]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    {
        let spec = std::sync::Arc::make_mut(&mut taken.spec);
        spec.restart.attempts = 0;
        spec.tasks[0].ports = vec![PortSpec {
            name: "http".parse().unwrap(),
            container: Some(80),
            host: Some(port),
            protocol: Protocol::Tcp,
        }];
    }
    taken.grant.ports.insert("http".parse().unwrap(), port);
    let mut program =
        service(4, vec![task("web", image(name), vec!["/no/such/program".to_owned()])]);
    std::sync::Arc::make_mut(&mut program.spec).restart.attempts = 0;
    leader.order(&[missing, outside, taken, program], &[], &[]).await;
    for (alloc, words) in [
        (1, "orch-test-none"),
        (2, "allows no host paths"),
        (3, "address already in use"),
        (4, "no such file"),
    ] {
        let report = leader
            .report_that(alloc, "failed", |report| report.status == AllocStatus::Failed)
            .await;
        assert!(report.message.contains(words), "{words:?} in {:?}", report.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_job_ends_with_its_tasks() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let good = batch(1, vec![task("good", image(name), shell("echo done"))]);
    let mut bad = batch(2, vec![task("bad", image(name), shell("echo oh no >&2; exit 7"))]);
    std::sync::Arc::make_mut(&mut bad.spec).restart.attempts = 1;
    leader.order(&[good, bad], &[], &[]).await;
    leader.report_that(1, "complete", |report| report.status == AllocStatus::Complete).await;
    let report =
        leader.report_that(2, "failed", |report| report.status == AllocStatus::Failed).await;
    let state = report.tasks.values().next().unwrap();
    assert_eq!((state.exit_code, state.restarts), (Some(7), 1));
    assert_eq!(state.output_tail, "oh no\noh no");
    assert!(report.message.contains("exit code 7"), "{}", report.message);
    assert_eq!(log_of(&leader, 1, LogsRequest::default()).await, ["done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_held_to_its_limit() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let mut order = service(1, vec![task("web", image(name), shell("tail /dev/zero"))]);
    {
        let spec = std::sync::Arc::make_mut(&mut order.spec);
        spec.restart.attempts = 0;
        spec.tasks[0].resources.memory = Some(16 << 20);
    }
    leader.order(&[order], &[], &[]).await;
    let report =
        leader.report_that(1, "failed", |report| report.status == AllocStatus::Failed).await;
    assert!(report.message.contains("out of memory"), "{}", report.message);
    assert!(report.tasks.values().all(|task| task.oom_killed));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_and_commands_run_inside() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let script = "i=0; while :; do i=$((i+1)); echo line $i; echo err $i >&2; sleep 0.05; done";
    leader.order(&[service(1, vec![task("web", image(name), shell(script))])], &[], &[]).await;
    let report = leader.report_that(1, "running", running).await;

    let logs = LogsRequest { follow: true, ..LogsRequest::default() };
    let request = SessionRequest { alloc: 1, kind: Some(Kind::Logs(logs)), ..Default::default() };
    let mut ends = leader.open(1, request).await;
    let mut lines: Vec<String> = Vec::new();
    let mut killed = false;
    // Followed across a restart, without a gap and without repetition.
    while !(killed && lines.iter().filter(|line| *line == "line 3").count() == 2) {
        let Frame::Logs(logs) = next(&mut ends).await else { panic!("no lines") };
        lines.extend(
            logs.lines
                .iter()
                .filter(|line| !line.stderr)
                .map(|line| String::from_utf8_lossy(&line.text).into_owned()),
        );
        if !killed && lines.len() >= 5 {
            docker(&["kill", &id_of(&report)]).unwrap();
            killed = true;
        }
    }
    let again = lines.iter().rposition(|line| line == "line 1").unwrap();
    let counted: Vec<_> = (1..=again).map(|i| format!("line {i}")).collect();
    assert_eq!(lines[..again], counted);
    drop(ends);
    leader
        .report_that(1, "running", |r| running(r) && r.tasks.values().all(|t| t.restarts == 1))
        .await;

    let exec = ExecRequest {
        command: shell("cat; echo to stderr >&2; exit 3"),
        stdin: true,
        ..ExecRequest::default()
    };
    let request = SessionRequest { alloc: 1, kind: Some(Kind::Exec(exec)), ..Default::default() };
    let mut ends = leader.open(2, request).await;
    let frame = |frame| Ok(SessionFrame { frame: Some(frame) });
    ends.to.send(frame(Frame::Stdin("typed\n".into()))).await.unwrap();
    ends.to.send(frame(Frame::StdinEnd(StdinEnd {}))).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = loop {
        match next(&mut ends).await {
            Frame::Stdout(bytes) => out.extend_from_slice(&bytes),
            Frame::Stderr(bytes) => err.extend_from_slice(&bytes),
            Frame::Exit(exit) => break exit.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((out.as_slice(), err.as_slice(), code), (&b"typed\n"[..], &b"to stderr\n"[..], 3));

    // A command whose caller leaves is ended.
    let exec = ExecRequest { command: shell("exec sleep 4321"), ..ExecRequest::default() };
    let request = SessionRequest { alloc: 1, kind: Some(Kind::Exec(exec)), ..Default::default() };
    let ends = leader.open(3, request).await;
    let processes = || docker(&["top", &id_of(&report), "-o", "pid,args"]);
    crate::support::wait_until("the command", crate::support::SHORT, || {
        let processes = processes()?;
        if processes.contains("sleep 4321") { Ok(()) } else { Err(processes) }
    });
    drop(ends);
    crate::support::wait_until("the command's end", crate::support::SHORT, || {
        let processes = processes()?;
        if processes.contains("sleep 4321") { Err(processes) } else { Ok(()) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_its_checks_is_started_again() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let mut order =
        service(1, vec![task("web", image(name), shell("touch /ok; while :; do sleep 1; done"))]);
    {
        let spec = std::sync::Arc::make_mut(&mut order.spec);
        spec.tasks[0].stop_grace = Millis(0);
        spec.tasks[0].healthcheck = Some(HealthCheck {
            probe: Probe::Command { command: shell("test -e /ok") },
            interval: Millis(200),
            timeout: Millis(5000),
            retries: 2,
            successes: 1,
            start_period: Millis(0),
        });
    }
    leader.order(&[order], &[], &[]).await;
    let report = leader.report_that(1, "healthy", |r| r.health == Health::Healthy).await;
    docker(&["exec", &id_of(&report), "rm", "/ok"]).unwrap();
    let report = leader
        .report_that(1, "healthy again", |report| {
            report.health == Health::Healthy && report.tasks.values().all(|t| t.restarts == 1)
        })
        .await;
    assert!(running(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throw_away_agent_leaves_nothing_behind() {
    let name = need_image();
    let leader = Leader::start().await;
    let agent = Agent::start_with(&leader, RuntimeChoice::Auto, |config| {
        config.stop_work_on_exit = true;
    });
    let orders = [
        service(1, vec![task("web", image(name), shell("while :; do sleep 0.1; done"))]),
        service(2, vec![task("host", orch::model::job::TaskRuntime::Process, shell("sleep 3210"))]),
    ];
    leader.order(&orders, &[], &[]).await;
    let first = leader.report_that(1, "running", running).await;
    leader.report_that(2, "running", running).await;
    let dir = agent.dir.clone();
    tokio::time::timeout(Duration::from_secs(60), agent.stop()).await.unwrap().unwrap();
    leader.goodbye().await;
    assert!(docker(&["container", "inspect", &id_of(&first)]).is_err());
    assert_eq!(std::fs::read_dir(dir.path().join("agent/tasks")).unwrap().count(), 0);
}

/// The engine behind a socket of the test's own, which comes and goes.
struct Door {
    socket: std::path::PathBuf,
    open: Option<tokio::task::JoinHandle<()>>,
    /// Who asks finds the line cut; who listens to events goes on.
    cuts: Arc<AtomicBool>,
    cut: Arc<AtomicUsize>,
}

impl Door {
    fn at(dir: &std::path::Path) -> Self {
        Self { socket: dir.join("socket"), open: None, cuts: Arc::default(), cut: Arc::default() }
    }

    fn open(&mut self) {
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        let (cuts, cut) = (self.cuts.clone(), self.cut.clone());
        self.open = Some(tokio::spawn(async move {
            let mut lines = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (cuts, cut) = (cuts.clone(), cut.clone());
                lines.spawn(async move {
                    let far =
                        tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let (mut ask, mut answer) = near.into_split();
                    let (mut answers, mut asked) = far.into_split();
                    let back = tokio::io::copy(&mut answers, &mut answer);
                    let forth = async {
                        let mut piece = vec![0; 64 << 10];
                        while let Ok(read @ 1..) = ask.read(&mut piece).await {
                            let listens = piece[..read].starts_with(b"GET /events");
                            if !listens && cuts.load(Ordering::SeqCst) {
                                cut.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                            if asked.write_all(&piece[..read]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        _ = back => {}
                        () = forth => {}
                    }
                });
            }
        }));
    }

    async fn close(&mut self) {
        let open = self.open.take().unwrap();
        open.abort();
        let _ = open.await;
        std::fs::remove_file(&self.socket).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_may_come_late_and_go_for_a_while() {
    let name = need_image();
    let leader = Leader::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut door = Door::at(dir.path());
    let _agent = Agent::start_with(&leader, RuntimeChoice::Auto, |config| {
        config.docker_socket = Some(door.socket.display().to_string());
    });
    let (_, spec) = leader.hello_number(1).await;
    assert_eq!(spec.runtimes, ["process".to_owned()].into());
    let order = service(1, vec![task("web", image(name), shell("while :; do sleep 0.1; done"))]);
    leader.assign(std::slice::from_ref(&order));
    door.open();
    let (_, spec) = leader.hello_number(2).await;
    assert!(spec.runtimes.contains("docker") && spec.attributes.contains_key("docker.version"));
    let before = leader.report_that(1, "running", running).await;

    door.close().await;
    docker(&["kill", &id_of(&before)]).unwrap();
    leader.heartbeats(3).await;
    assert!(!runs(&id_of(&before)), "nobody can start it");
    door.open();
    leader
        .report_that(1, "running again", |report| {
            running(report) && report.tasks.values().all(|task| task.restarts == 1)
        })
        .await;
    assert_eq!(leader.hellos().len(), 2, "a short absence is no news");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_no_answer_once_is_asked_again_soon() {
    let name = need_image();
    let leader = Leader::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut door = Door::at(dir.path());
    door.open();
    let _agent = Agent::start_with(&leader, RuntimeChoice::Docker, |config| {
        config.docker_socket = Some(door.socket.display().to_string());
    });
    let order = service(1, vec![task("web", image(name), shell("while :; do sleep 0.1; done"))]);
    leader.order(&[order], &[], &[]).await;
    let before = leader.report_that(1, "running", running).await;
    door.cuts.store(true, Ordering::SeqCst);
    docker(&["kill", &id_of(&before)]).unwrap();
    crate::support::wait_until("a question that is not answered", crate::support::SHORT, || {
        if door.cut.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("none yet".to_owned()) }
    });
    door.cuts.store(false, Ordering::SeqCst);
    // Long before the next look at everything.
    let again = leader.report_that(1, "running again", |report| {
        running(report) && report.tasks.values().all(|task| task.restarts == 1)
    });
    tokio::time::timeout(Duration::from_secs(12), again).await.unwrap();
    assert_eq!(leader.hellos().len(), 1, "the node has an engine all the time");
}
