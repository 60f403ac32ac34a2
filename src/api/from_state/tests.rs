//! What is shown of states that the planner and obedient agents bring about.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{allocation, event, job, node};
use crate::api::view::job_file;
use crate::model::allocation::{AllocReport, AllocStatus, Health, TaskState};
use crate::model::job::JobSpec;
use crate::model::job_file::{Format, read};
use crate::model::name::{JobId, NodeName};
use crate::model::node::{Node, NodeState};
use crate::model::time::{Millis, Timestamp};
use crate::planner::{Inputs, Scope, plan};
use crate::state::{Command, Stamp, State};

struct Cluster {
    state: State,
    now: Timestamp,
}

impl Cluster {
    fn new(nodes: u32) -> Self {
        let mut cluster = Self { state: State::default(), now: Timestamp(1_000_000) };
        for i in 0..nodes {
            cluster.apply(Command::RegisterNode { spec: Node::example(&format!("n{i}")).spec });
        }
        cluster
    }

    fn apply(&mut self, command: Command) {
        let stamp = Stamp { index: self.state.stamp().index + 1, at: self.now };
        self.state.apply(stamp, &command.into()).reply.expect("carried out");
    }

    fn submit(&mut self, file: &str) -> JobId {
        let spec = one(file, Format::Yaml);
        let id = spec.id();
        self.apply(Command::SubmitJob { spec: Arc::new(spec), if_version: None });
        id
    }

    fn plan(&mut self) {
        let last_heard = BTreeMap::new();
        let inputs = Inputs { now: self.now, last_heard, node_timeout: Millis(10_000) };
        let scope = Scope { all: true, ..Scope::default() };
        for command in plan(&self.state, &inputs, &scope).commands {
            self.apply(command);
        }
    }

    fn report(&mut self, status: AllocStatus, health: Health, error: &str) {
        let mut reports: BTreeMap<NodeName, Vec<AllocReport>> = BTreeMap::new();
        for alloc in self.state.allocs().filter(|alloc| !alloc.ended()) {
            let spec = self.state.job(&alloc.job).expect("a job").spec_of(alloc.version).clone();
            let task = TaskState {
                container_id: Some(format!("c{}", alloc.id.0)),
                started_at: Some(self.now),
                error: error.to_owned(),
                exit_code: (!error.is_empty()).then_some(3),
                output_tail: error.to_owned(),
                ..TaskState::default()
            };
            reports.entry(alloc.node.clone()).or_default().push(AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status,
                health,
                ready: health == Health::Healthy,
                tasks: spec.tasks.iter().map(|t| (t.name.clone(), task.clone())).collect(),
                message: error.to_owned(),
            });
        }
        for (node, reports) in reports {
            let agent_id = self.state.node(&node).expect("a node").agent_id;
            self.apply(Command::ReportAllocs { node, agent_id, reports });
        }
    }

    fn word(&self, id: &JobId) -> String {
        job::row(&self.state, id, self.state.job(id).expect("a job")).state
    }

    fn rows(&self, id: &JobId) -> Vec<crate::api::view::allocation::AllocationRow> {
        let known = self.state.job(id).expect("a job");
        let mut rows = allocation::Rows::new(&self.state);
        let entries = allocation::entries(&self.state, id, known, false);
        entries.iter().map(|entry| rows.row(entry).expect("a row")).collect()
    }
}

fn one(file: &str, format: Format) -> JobSpec {
    let mut jobs = read(file, format).unwrap_or_else(|problems| panic!("{problems:?} in {file}"));
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

const WEB: &str = "job: web\nreplicas: 2\nimage: nginx:1\nports: { http: 80 }\n";

#[test]
fn a_service_goes_from_pending_to_running_to_stopped() {
    let mut cluster = Cluster::new(2);
    let web = cluster.submit(WEB);
    assert_eq!(cluster.word(&web), "pending");
    cluster.plan();
    assert_eq!(cluster.word(&web), "starting");
    cluster.report(AllocStatus::Running, Health::Unknown, "");
    assert_eq!(cluster.word(&web), "starting");
    cluster.report(AllocStatus::Running, Health::Healthy, "");
    assert_eq!(cluster.word(&web), "running");
    let row = job::row(&cluster.state, &web, cluster.state.job(&web).unwrap());
    assert_eq!((row.desired, row.running, row.healthy, row.up_to_date), (2, 2, 2, 2));
    cluster.apply(Command::StopJob { job: web.clone(), purge: false });
    assert_eq!(cluster.word(&web), "stopping");
    assert!(cluster.rows(&web).iter().all(|row| row.state == "stopping"));
    cluster.report(AllocStatus::Stopped, Health::Unknown, "");
    assert_eq!(cluster.word(&web), "stopped");
    assert_eq!(cluster.rows(&web), []);
}

#[test]
fn an_update_shows_until_every_copy_is_new() {
    let mut cluster = Cluster::new(2);
    let web = cluster.submit(WEB);
    cluster.plan();
    cluster.report(AllocStatus::Running, Health::Healthy, "");
    cluster.submit(&WEB.replace("nginx:1", "nginx:2"));
    assert_eq!(cluster.word(&web), "updating");
    let known = cluster.state.job(&web).unwrap();
    let versions = job::versions(&cluster.state, known);
    assert_eq!(versions[0].version, 2);
    assert!(versions[0].current && !versions[1].current);
    assert_eq!(versions[0].changes.len(), 1);
    assert_eq!(versions[0].changes[0].field, "image");
    assert_eq!(versions[0].changes[0].before, Some("nginx:1".into()));
}

#[test]
fn a_service_that_fails_says_why_with_its_output() {
    let mut cluster = Cluster::new(1);
    let web = cluster.submit(WEB);
    cluster.plan();
    cluster.report(AllocStatus::Failed, Health::Unknown, "no such file");
    assert_eq!(cluster.word(&web), "failed");
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!(status.failures.len(), 2);
    assert_eq!(status.failures[0].error, "no such file");
    assert_eq!(status.failures[0].exit_code, Some(3));
    assert_eq!(status.failures[0].output_tail, "no such file");
    assert!(status.row.message.contains("no such file"), "{}", status.row.message);
    // The wait before the next try: the last one is what there is to show.
    assert!(cluster.rows(&web).iter().all(|row| row.state == "failed" && row.id.is_some()));
    // The next try has nothing to tell yet, so the last one is told about.
    cluster.now = cluster.now + Millis::from_secs(3600);
    cluster.plan();
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!(status.failures.len(), 2);
    assert_eq!(status.failures[0].error, "no such file");
}

#[test]
fn some_copies_up_and_some_failing_is_degraded() {
    let mut cluster = Cluster::new(1);
    let web = cluster.submit(WEB);
    cluster.plan();
    cluster.report(AllocStatus::Running, Health::Healthy, "");
    let known = cluster.state.allocs().next().unwrap().clone();
    let node = known.node.clone();
    let agent_id = cluster.state.node(&node).unwrap().agent_id;
    let report = AllocReport {
        id: known.id,
        generation: known.grant.generation,
        status: AllocStatus::Failed,
        health: Health::Unknown,
        ready: false,
        tasks: BTreeMap::new(),
        message: "gone".into(),
    };
    cluster.apply(Command::ReportAllocs { node, agent_id, reports: vec![report] });
    assert_eq!(cluster.word(&web), "degraded");
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!(status.failures[0].error, "gone");
}

#[test]
fn what_does_not_pass_its_checks_or_restarts_says_why() {
    let mut cluster = Cluster::new(1);
    let web = cluster.submit(WEB);
    cluster.plan();
    cluster.report(AllocStatus::Starting, Health::Unknown, "pull access denied");
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!(status.row.state, "starting");
    assert!(status.row.message.contains("web.0: pull access denied"), "{}", status.row.message);
    assert_eq!(status.failures.len(), 2);
    cluster.report(AllocStatus::Running, Health::Unhealthy, "");
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!(status.row.state, "failed");
    assert_eq!((status.failures.len(), status.failures[0].task.as_str()), (2, ""));
    cluster.report(AllocStatus::Running, Health::Healthy, "");
    let status = job::status(&cluster.state, cluster.now, &web, cluster.state.job(&web).unwrap());
    assert_eq!((status.failures.len(), status.row.message.as_str()), (0, ""));
}

#[test]
fn what_fits_nowhere_has_rows_and_reasons() {
    let mut cluster = Cluster::new(3);
    let file = "job: big\nreplicas: 2\nimage: a:1\nresources: { memory: 1Ti }\n";
    let spec = one(file, Format::Yaml);
    let warnings = job::warnings(&cluster.state, &spec);
    assert!(warnings[0].contains("n0: too small (memory)"), "{warnings:?}");
    let big = cluster.submit(file);
    cluster.plan();
    assert_eq!(cluster.word(&big), "pending");
    let rows = cluster.rows(&big);
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.id.is_none() && row.node.is_none()));
    assert!(rows[0].message.contains("too small (memory): 3"), "{}", rows[0].message);
    let status = job::status(&cluster.state, cluster.now, &big, cluster.state.job(&big).unwrap());
    let unplaced = status.unplaced.expect("said why");
    assert!(unplaced.never_fits);
    assert_eq!((unplaced.replicas, unplaced.nodes), (2, 3));
    assert_eq!(unplaced.refusals[0].nodes, 3);
}

#[test]
fn a_system_job_wants_a_copy_on_every_fitting_node() {
    let mut cluster = Cluster::new(3);
    cluster.apply(Command::SetEligibility { node: "n2".parse().unwrap(), eligible: false });
    let logs = cluster.submit("job: logs\nper: node\nimage: a:1\n");
    let missing = cluster.rows(&logs);
    assert_eq!(missing.len(), 2);
    assert_eq!(missing[0].node.as_deref(), Some("n0"));
    cluster.plan();
    cluster.report(AllocStatus::Running, Health::Healthy, "");
    let row = job::row(&cluster.state, &logs, cluster.state.job(&logs).unwrap());
    assert_eq!((row.desired, row.healthy, row.state.as_str()), (2, 2, "running"));
}

#[test]
fn a_batch_job_shows_how_it_ended() {
    for (status, word) in [(AllocStatus::Complete, "complete"), (AllocStatus::Failed, "failed")] {
        let mut cluster = Cluster::new(1);
        let once = cluster.submit("job: once\nimage: a:1\n");
        cluster.plan();
        cluster.report(AllocStatus::Running, Health::Healthy, "");
        assert_eq!(cluster.word(&once), "running");
        let error = if word == "failed" { "exit 3" } else { "" };
        cluster.report(status, Health::Unknown, error);
        assert_eq!(cluster.word(&once), word);
        let rows = cluster.rows(&once);
        assert_eq!((rows.len(), rows[0].state.as_str()), (1, word));
        let shown =
            job::status(&cluster.state, cluster.now, &once, cluster.state.job(&once).unwrap());
        assert_eq!(shown.failures.len(), usize::from(word == "failed"));
    }
}

#[test]
fn a_node_shows_what_is_reserved_and_why_it_is_gone() {
    let mut cluster = Cluster::new(1);
    cluster.submit(WEB);
    cluster.plan();
    let name: NodeName = "n0".parse().unwrap();
    let known = cluster.state.node(&name).unwrap().clone();
    let row = node::row(&cluster.state, &known);
    assert_eq!((row.state.as_str(), row.allocations, row.allocated.cpu_milli), ("ready", 2, 200));
    let lost = Command::SetNodeState {
        node: name.clone(),
        agent_id: known.agent_id,
        state: NodeState::Lost,
        reason: "not heard".into(),
    };
    cluster.apply(lost);
    let row = node::row(&cluster.state, cluster.state.node(&name).unwrap());
    assert_eq!((row.state.as_str(), row.reason.as_str()), ("lost", "not heard"));
}

#[test]
fn a_filter_keeps_a_job_s_or_a_node_s_events() {
    let mut cluster = Cluster::new(2);
    let web = cluster.submit(WEB);
    cluster.plan();
    let events = cluster.state.events_after(0).unwrap();
    let of_job = event::Filter { job: Some(web), node: None };
    let of_node = event::Filter { job: None, node: Some("n0".parse().unwrap()) };
    let kinds = |filter: &event::Filter| -> Vec<String> {
        let wanted = events.iter().filter(|record| filter.wants(&record.event));
        wanted.map(|record| event::row(record).kind).collect()
    };
    assert_eq!(kinds(&of_job), ["job", "deployment", "allocation", "allocation"]);
    assert_eq!(kinds(&of_node), ["node", "allocation"]);
    assert_eq!(kinds(&event::Filter::default()).len(), events.len());
}

const EVERYTHING: &str = r#"
job: app
project: shop
replicas: 3
priority: 70
labels: { team: blue }
placement:
  require: [ "node.class == web", "attr.zone not in c,d" ]
  prefer: [ { "attr.disk == ssd": 50 }, { "attr.old": -20 } ]
  spread: [ attr.zone ]
  max_per_node: 2
restart: { attempts: 5, within: 7m, delay: 1500ms..1m30s }
reschedule: { attempts: 7, within: 1h, delay: 2s..1m1s }
update:
  strategy: blue-green
  promote: 10m
  keep_old: 1h
  max_parallel: 2
  min_healthy: 5s
  order: start-first
  deadline: 1m
  auto_revert: false
disconnect: { replace_after: 90s, stop_after: 30s }
shutdown_delay: 4500ms
replicas_owner: autoscaler
tasks:
  web:
    image: nginx:1.27
    pull_policy: always
    registry: { username: u, password: hush }
    entrypoint: [ /bin/sh, -c ]
    command: [ "nginx -g 'daemon off;'" ]
    environment: { B: "2", A: "1" }
    ports: { http: 80, fixed: "8080:81", dns: "53/udp", both: "9000:9000/udp", both-tcp: 9000 }
    resources: { cpu: 1.5, memory: 1500Ki, disk: 1Gi, gpu: 1 }
    volumes: [ "/srv/data:/data:ro", "cache:/cache" ]
    tmpfs: /run
    user: "1000:1000"
    working_dir: /app
    stop_signal: SIGINT
    stop_grace_period: 65s
    cap_add: [ NET_ADMIN ]
    cap_drop: [ ALL ]
    read_only: true
    healthcheck: { http: "/health?x=1", port: http, interval: 10s, timeout: 500ms, retries: 2, start_period: 1h1s }
    readiness: { grpc: shop.Cart, port: both-tcp, successes: 2 }
    labels: { side: front }
  aside:
    command: [ /usr/bin/aside, "with space" ]
    ports: { admin: auto }
    resources: { cpu: 0.25 }
    healthcheck: { tcp: admin }
"#;

#[test]
fn a_job_read_back_from_what_is_shown_is_the_same_job() {
    for file in [
        EVERYTHING.replace("1500Ki", "15000Ki"),
        WEB.to_owned(),
        "job: once\nimage: a:1\ntimeout: 90s\nhealthcheck: { test: \"true\" }\n".to_owned(),
        "job: some\nimage: a:1\ncompletions: 5\nparallelism: 2\nretries: 3\n".to_owned(),
        "job: all\nimage: a:1\ncompletions: 5\ntimeout: 1h\n".to_owned(),
        "job: c\nper: node\nimage: a:1\nupdate: { canary: 2, promote: auto }\n".to_owned(),
        "job: c\nreplicas: 2\nimage: a:1\nupdate: { strategy: canary, order: stop-first }\n\
         reschedule: { attempts: unlimited }\ndisconnect: { stop_after: 5s }\nports: { p: 1 }\n\
         readiness: { grpc: \"\" }\nshutdown_delay: 0\n"
            .to_owned(),
        "job: logs\nper: node\ncommand: run\nports: { a: \"9100:9100\" }\n".to_owned(),
    ] {
        let spec = one(&file, Format::Yaml);
        let shown = serde_json::to_string_pretty(&job_file::whole(&spec)).unwrap();
        assert_eq!(one(&shown, Format::Json), spec, "{shown}");
    }
}

#[test]
fn the_examples_read_back_the_same_too() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let mut jobs = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let format = Format::of_file_name(path.to_str().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        for spec in read(&text, format).unwrap_or_else(|wrong| panic!("{path:?}: {wrong:?}")) {
            let shown = job_file::whole(&spec).to_string();
            assert_eq!(one(&shown, Format::Json), spec, "{path:?}: {shown}");
            jobs += 1;
        }
    }
    assert!(jobs > 0, "no example in {directory}");
}

#[test]
fn passwords_are_never_shown() {
    let file = EVERYTHING.replace("1500Ki", "15000Ki");
    let spec = one(&file, Format::Yaml);
    assert!(!job_file::shown(&spec).to_string().contains("hush"));
    let other = one(&file.replace("hush", "quiet"), Format::Yaml);
    let changes = job::changes(&spec, &other);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].field, "tasks.web.registry.password");
    let shown = serde_json::to_string(&changes).unwrap();
    assert!(!shown.contains("hush") && !shown.contains("quiet"), "{shown}");
}

proptest! {
    #[test]
    fn amounts_and_durations_read_back_exactly(
        memory in 6u64 << 20..1 << 50, disk in 1u64..1 << 50, cpu in 1u64..1_024_000,
        grace in 0u64..86_400_000, attempts in 0u32..10_000, least in 0u64..1000, more in 0u64..1000,
    ) {
        let mut spec = one(WEB, Format::Yaml);
        spec.tasks[0].resources.memory = Some(memory);
        spec.tasks[0].resources.disk = Some(disk);
        spec.tasks[0].resources.cpu_milli = Some(cpu);
        spec.tasks[0].stop_grace = Millis(grace);
        spec.restart.attempts = attempts;
        spec.restart.delay_min = Millis(least);
        spec.restart.delay_max = Millis(least + more);
        let shown = job_file::whole(&spec).to_string();
        prop_assert_eq!(one(&shown, Format::Json), spec);
    }
}
