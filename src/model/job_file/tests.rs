//! Job files with their problems, as users see them.

use proptest::prelude::*;

use super::*;
use crate::model::job::{
    HealthCheck, JobKind, LegacyEnvironment, Probe, Promotion, Protocol, PullPolicy, TaskRuntime,
    UpdateOrder, UpdateStrategy, VolumeSource,
};
use crate::model::name::PortName;
use crate::model::time::Millis;

/// The problems of a text as `line:column: field: message`.
mod policies;

fn problems(text: &str, format: Format) -> Vec<String> {
    match read(text, format) {
        Ok(jobs) => panic!("no problem in {text}\n{jobs:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn one(text: &str) -> JobSpec {
    let mut jobs = match read(text, Format::Yaml) {
        Ok(jobs) => jobs,
        Err(problems) => panic!("{problems:#?}"),
    };
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

const DESIGN: &str = r#"
job: web
project: shop                 # default: default
replicas: 3
image: nginx:1.27             # one task; several go under `tasks:`
ports: { http: 80 }           # a host port is chosen unless given: { http: "8080:80" }
environment: { MODE: prod }
resources: { cpu: 0.5, memory: 256Mi, gpu: 0 }
healthcheck: { http: /health, port: http, interval: 5s, timeout: 2s, retries: 3 }
placement:
  require: [ "node.class == web", "attr.zone != c" ]
  prefer:  [ { "attr.disk == ssd": 50 } ]
  spread:  [ attr.zone ]
  max_per_node: 1
restart:  { attempts: 3, within: 5m, delay: 1s..30s }
update:   { max_parallel: 1, canary: 1, min_healthy: 5s, deadline: 5m, auto_revert: true }
"#;

#[test]
fn the_example_of_the_documentation_reads() {
    let job = one(DESIGN);
    assert_eq!(job.id().to_string(), "shop/web");
    assert_eq!(job.kind, JobKind::Service { replicas: 3 });
    let [task] = job.tasks.as_slice() else { panic!("{:?}", job.tasks) };
    assert_eq!(task.name.as_str(), "web");
    assert_eq!(task.environment["MODE"], "prod");
    assert_eq!((task.resources.cpu_milli, task.resources.memory), (Some(500), Some(256 << 20)));
    assert_eq!((task.ports[0].container, task.ports[0].host), (Some(80), None));
    assert_eq!(job.placement.prefer[0].weight, 50);
    assert_eq!(job.placement.max_per_node, Some(1));
    assert_eq!(job.restart.delay_max, Millis::from_secs(30));
    assert_eq!(job.update.min_healthy, Millis::from_secs(5));
    let canary = UpdateStrategy::Canary { count: 1, promote: Promotion::Manual };
    assert_eq!((job.update.strategy, job.update.auto_revert), (canary, true));
    let check = task.healthcheck.as_ref().unwrap();
    assert!(matches!(&check.probe, Probe::Http { path, .. } if path == "/health"));
}

#[test]
fn a_file_with_ten_mistakes_names_all_ten() {
    let text = r#"job: Web
replicas: many
imag: nginx
image: "ngi nx"
ports: { http: 99999 }
resources: { memory: 256X }
stop_signal: SIGTREM
cap_add: [NET_ADMINN]
healthcheck: { http: health, interval: 5 }
placement:
  require: ["zone == a"]
priority: 101
"#;
    assert_eq!(
        problems(text, Format::Yaml),
        [
            "1:6: job: 'W' can't stand at place 1 of a name; names have a-z, 0-9 and -, and begin \
             and end with a letter or digit",
            "2:11: replicas: \"many\" does not do; write a whole number from 0 to 100000",
            "3:1: imag: unknown key \"imag\"; did you mean \"image\"?",
            "4:8: image: \"ngi nx\" is no image reference: write it as name:tag or \
             registry/name:tag",
            "5:16: ports.http: \"99999\" is no port; write a number from 1 to 65535",
            "6:22: resources.memory: \"256X\" is no size; write a number with Ki, Mi, Gi, Ti (or \
             K, M, G, T), as in 256Mi",
            "7:14: stop_signal: \"SIGTREM\" is not known; did you mean \"SIGTERM\"?",
            "8:11: cap_add[0]: \"NET_ADMINN\" is not known; did you mean \"NET_ADMIN\"?",
            "9:22: healthcheck.http: \"health\" is no path; begin it with / and escape what is \
             not ASCII",
            "9:22: healthcheck.http: the task has no port to ask; name one under ports",
            "9:40: healthcheck.interval: \"5\" is no duration; write a number with ms, s, m, h or \
             d, as in 500ms, 30s or 1h30m",
            "11:13: placement.require[0]: in \"zone == a\", \"zone\" is nothing a node has; use node.name, \
             node.class or attr.KEY",
            "12:11: priority: \"101\" does not do; write a whole number from 1 to 100",
        ]
    );
}

#[test]
fn each_mistake_is_told_at_its_place() {
    let mut missed = Vec::new();
    // What stands after `job: a` and `image: b`, and what is said of it.
    for (text, said) in [
        ("x y: 1", "3:1: x y: unknown key \"x y\"; known here: job, project"),
        ("replicas: 1\nper: node", "4:6: per: contradicts replicas"),
        ("replicas: 1\ntimeout: 5s", "4:10: timeout: is for batch jobs"),
        ("per: host", "3:6: per: \"host\" is not known; write one of node"),
        (
            "per: node\nplacement: { max_per_node: 1 }",
            "4:28: placement.max_per_node: has no meaning",
        ),
        ("update: { max_parallel: 1 }", "3:9: update: is for jobs that run on"),
        ("replicas: -1", "3:11: replicas: \"-1\" does not do"),
        ("replicas: 100001", "3:11: replicas: \"100001\" does not do"),
        ("replicas: 1.5", "3:11: replicas: \"1.5\" does not do"),
        ("replicas: [1]", "3:11: replicas: is a list; write a whole number"),
        ("depends_on: [db]", "3:1: depends_on: \"depends_on\" is not supported: put what"),
        ("build: .", "3:1: build: \"build\" is not supported: build the image first"),
        ("networks: [a]", "3:1: networks: \"networks\" is not supported"),
        ("env: { A: b }", "3:1: env: unknown key \"env\"; write environment"),
        ("memory: 5Mi", "3:1: memory: unknown key \"memory\"; write resources.memory"),
        ("count: 5", "3:1: count: unknown key \"count\"; write replicas"),
        ("image: c", "3:1: image: is given twice; remove one"),
        (
            "environment: [A]",
            "3:15: environment[0]: \"A\" has no value; write \"\" for an empty one, as A=",
        ),
        ("environment: { A: }", "3:16: environment.A: has no value"),
        ("environment: { 'A B': c }", "3:23: environment.A B: \"A B\" is no variable"),
        ("environment: { A: [b] }", "3:19: environment.A: is a list; write a text"),
        ("environment: [A=1, A=2]", "3:20: environment[1]: A is given twice"),
        ("environment: 5", "3:14: environment: is a number; write a map, or a list of KEY=VALUE"),
        ("ports: { http: 80, web: '1:2:3' }", "3:25: ports.web: an address before the port"),
        ("ports: { Http: 80 }", "3:10: ports.Http: 'H' can't stand"),
        ("ports: ['8000-8010']", "3:9: ports[0]: \"8000-8010\": ranges are not supported"),
        ("ports: ['80/sctp']", "3:9: ports[0]: \"sctp\" is not known; write one of tcp, udp"),
        ("ports: [80, 80]", "3:8: ports.port-80: the name is taken by ports.port-80"),
        (
            "ports: { a: '80:1', b: '80:2' }",
            "3:24: ports.b: 80/tcp on the host is taken by ports.a",
        ),
        (
            "ports: { a: { contaner: 80 } }",
            "3:15: ports.a.contaner: unknown key \"contaner\"; did you mean \"container\"?",
        ),
        (
            "ports: { a: { container: 0, target: 5 } }",
            "3:37: ports.a.target: says the same as ports.a.container",
        ),
        ("ports: [{ target: 80, mode: ingress }]", "3:29: ports[0].mode: is not supported"),
        ("resources: { cpu: 0 }", "3:19: resources.cpu: \"0\" does not do; write cores"),
        ("resources: { cpu: many }", "3:19: resources.cpu: \"many\" does not do"),
        (
            "resources: { memory: 256 }",
            "3:22: resources.memory: 256B is too little; the least is 6Mi; did you mean 256Mi?",
        ),
        (
            "resources: { memory: 64Mi }\nmem_limit: 64m",
            "4:12: mem_limit: says the same as resources.memory",
        ),
        (
            "resources: { limits: { cpus: 1 } }",
            "3:14: resources.limits: \"limits\" is not supported",
        ),
        ("resources: { gpu: 65 }", "3:19: resources.gpu: \"65\" does not do"),
        ("volumes: [./data:/data]", "3:11: volumes[0]: \"./data\" depends on who reads it"),
        ("volumes: [/data]", "3:11: volumes[0]: \"/data\" has no source; write NAME:/data"),
        ("volumes: [a:data]", "3:11: volumes[0]: \"data\" is not absolute; begin it with /"),
        ("volumes: [/a/../b:/c]", "3:11: volumes[0]: \"/a/../b\" has a part . or .."),
        ("volumes: [a:/]", "3:11: volumes[0]: the root of the task"),
        ("volumes: [a:/b:z]", "3:11: volumes[0]: the option \"z\" is not supported"),
        ("volumes: [a:/b, c:/b]", "3:17: volumes[1]: /b is the target of volumes[0] too"),
        (
            "volumes: [{ type: bind, source: a, target: /b }]",
            "3:33: volumes[0].source: type: bind takes",
        ),
        (
            "volumes: [{ type: nfs, source: a, target: /b }]",
            "3:19: volumes[0].type: \"nfs\" is not known",
        ),
        ("volumes: [{ source: a }]", "3:11: volumes[0].target: is missing; write the path"),
        ("tmpfs: '/run:size=5m'", "3:8: tmpfs: options after the path"),
        ("user: 'a b'", "3:7: user: \"a b\" is no user"),
        ("working_dir: here", "3:14: working_dir: \"here\" is not absolute"),
        ("stop_grace_period: 2d", "3:20: stop_grace_period: 2d does not do; write 0s to 1d"),
        ("cap_add: [ALL]\ncap_drop: [CAP_ALL]", "4:12: cap_drop[0]: ALL is in cap_add too"),
        ("read_only: yes", "3:12: read_only: is a text; write true or false"),
        ("pull_policy: daily", "3:14: pull_policy: \"daily\" is not known"),
        ("registry: { username: a }", "3:11: registry.password: is missing"),
        ("command: 'a \"b'", "3:10: command: has a quote that is not closed"),
        ("args: b", "3:7: args: is a text; write a list of words"),
        (
            "healthcheck: { tcp: htp }\nports: { http: 80 }",
            "3:21: healthcheck.tcp: the task has no port \"htp\"; did you mean \"http\"?",
        ),
        (
            "healthcheck: { tcp: dns }\nports: { dns: 53/udp }",
            "3:21: healthcheck.tcp: dns is a UDP port",
        ),
        (
            "healthcheck: { http: / }\nports: { a: 1, b: 2 }",
            "3:14: healthcheck.port: is missing; the task has several",
        ),
        ("healthcheck: { interval: 5s }", "3:14: healthcheck: asks nothing"),
        (
            "healthcheck: { tcp: a, command: b }\nports: { a: 1 }",
            "3:33: healthcheck.command: there is tcp already; keep tcp or command",
        ),
        ("healthcheck: { test: [a] }", "3:22: healthcheck.test: begins with none of CMD"),
        (
            "healthcheck: { command: a, interval: 1ms }",
            "3:38: healthcheck.interval: 1ms does not do; write 100ms to 1d",
        ),
        ("healthcheck: { command: a, retries: 0 }", "3:37: healthcheck.retries: \"0\" does not do"),
        ("healthcheck: { command: a, successes: 0 }", "3:39: healthcheck.successes: \"0\" does"),
        ("readiness: { interval: 5s }", "3:12: readiness: asks nothing; write one of http, tcp,"),
        (
            "readiness: { grpc: 'a b' }\nports: { a: 1 }",
            "3:20: readiness.grpc: \"a b\" is no service; write its full name, as shop.Cart",
        ),
        (
            "readiness: { grpc: '' }\nports: { a: 1, b: 2 }",
            "3:12: readiness.port: is missing; the task has several",
        ),
        (
            "healthcheck: { command: a, port: b }\nports: { b: 1 }",
            "3:34: healthcheck.port: has no meaning here: it goes with http and grpc",
        ),
        ("restart: { delay: 30s..1s }", "3:19: restart.delay: 30s is more than 1s"),
        ("restart: { delay: 1s..5 }", "3:19: restart.delay: \"5\" is no duration"),
        (
            "restart: { max_attempts: 5 }",
            "3:12: restart.max_attempts: unknown key \"max_attempts\"; write attempts",
        ),
        ("restart: sometimes", "3:10: restart: \"sometimes\" is not known"),
        ("restart: always", "3:10: restart: always contradicts a batch job"),
        ("reschedule: { attempts: 1 }", "3:13: reschedule: is for jobs that run on, and this is"),
        (
            "replicas: 1\nreschedule: { attempts: some }",
            "4:25: reschedule.attempts: \"some\" does not do; write a whole number from 0 to 10000, \
             or unlimited",
        ),
        (
            "replicas: 1\nreschedule: { delay: 2m..1m }",
            "4:22: reschedule.delay: 2m is more than 1m",
        ),
        ("disconnect: { stop_after: 0 }", "3:27: disconnect.stop_after: 0s does not do"),
        ("disconnect: 5s", "3:13: disconnect: is a text; write a map of replace_after, stop_after"),
        ("shutdown_delay: 1s", "3:17: shutdown_delay: is for jobs that others call"),
        ("replicas_owner: me", "3:17: replicas_owner: goes with replicas"),
        ("replicas: 1\nreplicas_owner: Me", "4:17: replicas_owner: 'M' can't stand"),
        ("replicas: 1\nretries: 5", "4:10: retries: is for batch jobs"),
        ("per: node\ncompletions: 5", "4:14: completions: is for batch jobs"),
        ("replicas: 1\nparallelism: 5", "4:14: parallelism: is for batch jobs"),
        ("completions: 0", "3:14: completions: \"0\" does not do"),
        (
            "completions: 2\nparallelism: 3",
            "4:14: parallelism: 3 at the same time are more than completions: 2",
        ),
        ("parallelism: 3", "3:14: parallelism: one run is at most one at a time"),
        (
            "replicas: 2\nupdate: { canary: 0 }",
            "4:19: update.canary: \"0\" does not do; write a whole number from 1",
        ),
        (
            "replicas: 2\nupdate: { strategy: rolling, canary: 1 }",
            "4:38: update.canary: contradicts strategy: rolling; keep one of the two",
        ),
        (
            "replicas: 2\nupdate: { strategy: blue-green, canary: 1 }",
            "4:41: update.canary: contradicts strategy: blue-green",
        ),
        (
            "replicas: 2\nupdate: { strategy: bluegreen }",
            "4:21: update.strategy: \"bluegreen\" is not known; did you mean \"blue-green\"?",
        ),
        ("replicas: 2\nupdate: { promote: auto }", "4:20: update.promote: has no meaning here"),
        (
            "replicas: 2\nupdate: { canary: 1, promote: later }",
            "4:31: update.promote: \"later\" does not do; write manual, auto, or a duration",
        ),
        (
            "replicas: 2\nupdate: { canary: 1, promote: 5 }",
            "4:31: update.promote: \"5\" is no duration",
        ),
        (
            "replicas: 2\nupdate: { canary: 1, keep_old: 5m }",
            "4:32: update.keep_old: goes with strategy: blue-green",
        ),
        (
            "replicas: 2\nupdate: { strategy: blue-green, order: stop-first }",
            "4:40: update.order: stop-first contradicts blue-green",
        ),
        (
            "replicas: 2\nupdate: { order: first }",
            "4:18: update.order: \"first\" is not known; write one of start-first, stop-first",
        ),
        (
            "per: node\nupdate: { order: start-first }",
            "4:18: update.order: start-first contradicts per: node",
        ),
        (
            "per: node\nupdate: { strategy: blue-green }",
            "4:21: update.strategy: blue-green contradicts per: node",
        ),
        (
            "replicas: 2\nupdate: { min_healthy: 6m }",
            "4:24: update.min_healthy: no replica can have been ready for min_healthy (6m) before \
             the deadline (5m) is over",
        ),
        (
            "replicas: 2\nupdate: { max_parallel: 2, parallelism: 2 }",
            "4:41: update.parallelism: says the same as update.max_parallel",
        ),
        ("placement: { prefer: [{ a: 1, b: 2 }] }", "3:23: placement.prefer[0]: has 2 rules"),
        (
            "placement: { prefer: [{ attr.a: 101 }] }",
            "3:33: placement.prefer[0].attr.a: \"101\" does not do",
        ),
        (
            "placement: { spread: [zone] }",
            "3:23: placement.spread[0]: \"zone\" is nothing a node has",
        ),
        (
            "placement: { requires: [] }",
            "3:14: placement.requires: unknown key \"requires\"; did you mean \"require\"?",
        ),
        ("labels: { '': a }", "3:15: labels.: \"\" is no key"),
        ("tasks: {}", "3:8: tasks: is empty"),
        ("tasks: { t: { image: a } }", "2:1: image: \"image\" belongs to a task"),
        (
            "tasks: { t: { image: a, replicas: 5 } }",
            "3:25: tasks.t.replicas: \"replicas\" belongs to the whole job",
        ),
        (
            "tasks: { t: { image: a, imag: b } }",
            "3:25: tasks.t.imag: unknown key \"imag\"; did you mean \"image\"?",
        ),
        (
            "tasks: { t: { image: a, ports: [80] }, u: { image: b, ports: [80] } }",
            "3:62: tasks.u.ports.port-80: the name is taken by tasks.t.ports.port-80",
        ),
        ("tasks: { t: }", "3:11: tasks.t: is nothing; write a map"),
        ("tasks: { T: { image: a } }", "3:10: tasks.T: 'T' can't stand"),
        ("tasks: [a]", "3:8: tasks: is a list; write a map from name to task"),
    ] {
        let found = problems(&format!("job: a\nimage: b\n{text}\n"), Format::Yaml);
        if !found.iter().any(|problem| problem.starts_with(said)) {
            missed.push(format!("{text}\n{said}\n{found:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn keys_for_containers_are_not_for_processes() {
    let found = problems(
        "job: a\ncommand: sleep 5\nvolumes: [a:/b]\ncap_add: [KILL]\nports: { http: 80 }\n",
        Format::Yaml,
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("3:10: volumes: is for containers"), "{found:#?}");
    assert!(found[2].contains("write auto to have a port chosen, or \"80:80\""), "{found:#?}");
    let job = one("job: a\ncommand: sleep 5\nports: { http: auto, admin: '80:80' }\n");
    let ports = &job.tasks[0].ports;
    assert_eq!((ports[0].container, ports[0].host), (None, None));
    assert_eq!((ports[1].container, ports[1].host), (None, Some(80)));
}

#[test]
fn what_is_missing_is_said() {
    assert_eq!(
        problems("replicas: 1\n", Format::Yaml),
        [
            "1:1: job: is missing; every job needs a name, as job: web",
            "1:1: image: there is neither image nor command; write image for a container, or \
             command for a process of the host"
        ]
    );
    for empty in ["", "---\n---\n", "# nothing\n", "~", "[]"] {
        let found = problems(empty, Format::Yaml);
        assert!(found[0].contains("holds no job"), "{found:?}");
    }
    assert!(problems("hello", Format::Yaml)[0].starts_with("1:1: is a text; write a map"));
    assert!(problems("", Format::Json)[0].contains("not valid JSON"));
    assert!(problems("", Format::Toml)[0].contains("is missing"));
}

#[test]
fn compose_forms_are_taken() {
    let job = one(r#"
job: web
replicas: 1
image: localhost:5000/web:1
entrypoint: /entry --fast
command: ["serve", "--port", 80]
args: [ -v ]
environment: [ "A=1", "B=x=y" ]
ports:
  - "8080:80"
  - 53/udp
  - { target: 443, published: "8443", protocol: tcp, name: tls }
volumes:
  - /srv/data:/data:ro
  - cache:/cache
  - { type: tmpfs, target: /scratch }
tmpfs: /run
labels: [ a=b, c ]
user: 1000:1000
working_dir: /app
stop_signal: int
stop_grace_period: 1m30s
cap_add: [ CAP_NET_ADMIN ]
cap_drop: [ all ]
read_only: true
pull_policy: if_not_present
mem_limit: 64m
cpus: 1.5
restart: on-failure:5
healthcheck:
  test: [ CMD-SHELL, "wget -q localhost || exit 1" ]
  interval: 10s
"#);
    let task = &job.tasks[0];
    assert_eq!(task.entrypoint.as_deref(), Some(&["/entry".to_owned(), "--fast".to_owned()][..]));
    assert_eq!(task.command, ["serve", "--port", "80", "-v"]);
    assert_eq!(task.environment["B"], "x=y");
    let ports: Vec<_> =
        task.ports.iter().map(|p| (p.name.as_str(), p.container, p.host, p.protocol)).collect();
    assert_eq!(
        ports,
        [
            ("port-80", Some(80), Some(8080), Protocol::Tcp),
            ("port-53-udp", Some(53), None, Protocol::Udp),
            ("tls", Some(443), Some(8443), Protocol::Tcp),
        ]
    );
    assert_eq!(task.volumes.len(), 4);
    assert_eq!(task.volumes[0].source, VolumeSource::Path("/srv/data".into()));
    assert!(task.volumes[0].read_only);
    assert_eq!(task.volumes[1].source, VolumeSource::Named("cache".into()));
    assert_eq!(task.volumes[3].source, VolumeSource::Tmpfs);
    assert_eq!(job.labels["c"], "");
    assert_eq!(task.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(task.stop_grace, Millis::from_secs(90));
    assert_eq!(
        (task.cap_add.as_slice(), task.cap_drop.as_slice()),
        (&["NET_ADMIN".to_owned()][..], &["ALL".to_owned()][..])
    );
    assert!(task.read_only);
    assert!(matches!(task.runtime, TaskRuntime::Docker { pull: PullPolicy::Missing, .. }));
    assert_eq!((task.resources.cpu_milli, task.resources.memory), (Some(1500), Some(64 << 20)));
    assert_eq!(job.restart.attempts, 5);
    let Some(HealthCheck { probe: Probe::Command { command }, .. }) = &task.healthcheck else {
        panic!("{:?}", task.healthcheck)
    };
    assert_eq!(command, &["/bin/sh", "-c", "wget -q localhost || exit 1"]);
}

#[test]
fn shapes_follow_from_their_keys() {
    for (keys, kind) in [
        ("replicas: 0", JobKind::Service { replicas: 0 }),
        ("per: node", JobKind::System),
        ("timeout: 1h", JobKind::once(Some(Millis(3_600_000)))),
        ("labels: {}", JobKind::once(None)),
    ] {
        assert_eq!(one(&format!("job: a\nimage: b\n{keys}\n")).kind, kind);
    }
}

#[test]
fn the_only_tcp_port_is_the_one_that_is_asked() {
    let job = one("job: a\nimage: b\nports: { dns: 53/udp, web: 80 }\nhealthcheck: { http: / }\n");
    let Some(HealthCheck { probe: Probe::Http { port, .. }, .. }) = &job.tasks[0].healthcheck
    else {
        panic!("{job:?}")
    };
    assert_eq!(port, &"web".parse::<PortName>().unwrap());
}

#[test]
fn numbers_stay_as_they_were_written() {
    let job = one("job: a\nimage: b\nenvironment: { V: 1.10, N: 007, B: True, E: '', M: 1e3 }\n");
    let values: Vec<_> = job.tasks[0].environment.values().map(String::as_str).collect();
    assert_eq!(values, ["true", "", "1e3", "007", "1.10"]);
}

#[test]
fn anchors_and_merges_work() {
    let jobs = read(
        "x-base: &base { image: b, user: root }\njob: a\n<<: *base\nuser: me\n---\njob: c\nimage: d\n",
        Format::Yaml,
    )
    .unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].tasks[0].user.as_deref(), Some("me"));
}

#[test]
fn json_and_toml_say_the_same_as_yaml() {
    let json = r#"[{"job": "web", "project": "shop", "replicas": 3, "image": "nginx:1.27",
	"ports": {"http": 80}, "environment": {"MODE": "prod"}, "command": null,
        "resources": {"cpu": 0.5, "memory": "256Mi", "gpu": 0},
        "healthcheck": {"http": "\/health", "port": "http", "interval": "5s", "timeout": "2s", "retries": 3},
        "placement": {"require": ["node.class == web", "attr.zone != c"],
            "prefer": [{"attr.disk == ssd": 50}], "spread": ["attr.zone"], "max_per_node": 1},
        "restart": {"attempts": 3, "within": "5m", "delay": "1s..30s"},
        "update": {"max_parallel": 1, "canary": 1, "min_healthy": "5s", "deadline": "5m", "auto_revert": true}}]"#;
    let toml = r#"
job = "web"
project = "shop"
replicas = 3
image = "nginx:1.27"
restart = { attempts = 3, within = "5m", delay = "1s..30s" }
[ports]
http = 80
[environment]
MODE = "prod"
[resources]
cpu = 0.5
memory = "256Mi"
[healthcheck]
http = "/health"
port = "http"
[placement]
require = ["node.class == web", "attr.zone != c"]
prefer = [{ "attr.disk == ssd" = 50 }]
spread = ["attr.zone"]
max_per_node = 1
[update]
canary = 1
min_healthy = "5s"
"#;
    let yaml = read(DESIGN, Format::Yaml).unwrap();
    assert_eq!(read(json, Format::Json).unwrap(), yaml);
    assert_eq!(read(toml, Format::Toml).unwrap(), yaml);
}

#[test]
fn problems_have_places_in_json_and_toml_too() {
    assert_eq!(
        problems("{\"job\": \"a\",\n  \"imag\": \"b\", \"image\": \"c\"}", Format::Json),
        ["2:3: imag: unknown key \"imag\"; did you mean \"image\"?"]
    );
    assert_eq!(
        problems("job = \"a\"\nimage = \"c\"\n[resources]\ncpu = \"many\"\n", Format::Toml),
        [
            "4:7: resources.cpu: \"many\" does not do; write cores from 0.001 to 1024, as 0.5 or 500m"
        ]
    );
    let broken = problems("{\"job\": \"a\",\n \"image\": }", Format::Json);
    assert!(broken[0].starts_with("2:11: not valid JSON: expected value"), "{broken:?}");
    let broken = problems("job = \"a\"\nimage = \n", Format::Toml);
    assert!(broken[0].starts_with("2:"), "{broken:?}");
    let broken = problems("job: a\nimage: [b\n", Format::Yaml);
    assert!(broken[0].contains("not valid"), "{broken:?}");
    let text = "{\"job\": \"a\", \"image\": \"b\", \"labels\": {\"x\": \"\\ud83d\\ude00\"}}";
    assert_eq!(read(text, Format::Json).unwrap()[0].labels["x"], "😀");
}

#[test]
fn a_name_is_taken_once_in_a_file() {
    let found = problems("job: a\nimage: b\n---\njob: a\nimage: c\n", Format::Yaml);
    assert_eq!(found, ["4:1: job: a is in line 1 already; name them differently"]);
}

#[test]
fn what_would_eat_memory_is_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let alias = format!("*a{}, ", i - 1).repeat(9);
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", alias.trim_end_matches(", ")));
    }
    assert!(problems(&laughs, Format::Yaml)[0].contains("values"));
    let deep = format!("{}1{}", "[".repeat(400), "]".repeat(400));
    problems(&deep, Format::Yaml);
    problems(&deep, Format::Json);
    problems(&format!("a = {deep}"), Format::Toml);
    problems(&format!("{} = 1", vec!["a"; 100_000].join(".")), Format::Toml);
    let dotted = vec!["a"; 70].join(".");
    for trick in ["", "]", "[", "\n", "}"] {
        let open = format!("{{{dotted} = {trick}").repeat(70);
        problems(&format!("a = {open}1{}", "}".repeat(70)), Format::Toml);
        problems(&format!("a = {open}"), Format::Toml);
    }
    let mut chain = String::from("a0: &a0 [[[[[[[[[[x]]]]]]]]]]\n");
    for i in 1..2000 {
        chain.push_str(&format!("a{i}: &a{i} [[[[[[[[[[*a{}]]]]]]]]]]\n", i - 1));
    }
    assert!(problems(&chain, Format::Yaml)[0].contains("nested deeper"));
    problems(&" ".repeat(JOB_FILE_BYTES_MAX + 1), Format::Yaml);
    let many: String = (0..1000).map(|i| format!("unknown{i}: 1\n")).collect();
    let found = problems(&many, Format::Yaml);
    assert!(found.last().unwrap().contains("more problems"), "{found:?}");
    let found = problems(&"job: a\nimage: b\n---\n".repeat(300), Format::Yaml);
    assert!(found.iter().any(|problem| problem.contains("more than 256 documents")), "{found:?}");
}

#[test]
fn every_key_is_known_once() {
    for (place, keys) in KNOWN_KEYS {
        let mut names: Vec<_> = keys.iter().flat_map(|k| k.also.iter().chain([&k.name])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{place}");
        assert!(keys.iter().all(|key| keys::unsupported(key.name).is_none()), "{place}");
    }
}

#[test]
fn the_caller_names_the_project_of_jobs_that_name_none() {
    let shop = "shop".parse().unwrap();
    let jobs =
        read_in("job: a\nimage: b\n---\njob: c\nproject: x\nimage: d\n", Format::Yaml, &shop)
            .unwrap();
    assert_eq!(jobs.iter().map(|j| j.id().to_string()).collect::<Vec<_>>(), ["shop/a", "x/c"]);
}

const PIECES: &[&str] = &[
    "job",
    "image",
    "tasks",
    "ports",
    ": ",
    ":",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "a",
    "web",
    "80",
    "8080:80",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<",
    "---\n",
    "null",
    "true",
    "-1",
    "1e999",
    "healthcheck",
    "readiness",
    "grpc",
    "update",
    "strategy",
    "blue-green",
    "promote",
    "completions",
    "http",
    "/",
    "resources",
    "cpu",
    "0.5",
    "volumes",
    "/a:/b",
    "|",
    ">",
    "!!str ",
    "!x ",
    "\t",
    "#",
    "%",
    "=",
    ".",
    "\u{0}",
    "é",
    "😀",
    "\\",
    "restart",
    "1s..2s",
    "placement",
    "prefer",
    "environment",
    "A=B",
    "command",
    "user",
    "? ",
    "[[",
    "]]",
    "\"\"\"",
    "\r\n",
    "\u{feff}",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.iter().map(|i| PIECES[*i]).collect();
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            let _ = read(&text, format);
        }
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(
        changes in proptest::collection::vec((0usize..DESIGN.len(), 0..PIECES.len(), 0usize..8), 1..8),
    ) {
        let mut text: Vec<char> = DESIGN.chars().collect();
        for (at, piece, remove) in changes {
            let at = at.min(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, PIECES[piece].chars());
        }
        let text: String = text.into_iter().collect();
        let lines = text.lines().count() as u32;
        for format in [Format::Yaml, Format::Toml] {
            if let Err(problems) = read(&text, format) {
                prop_assert!(!problems.is_empty());
                // An end of file may be told as the line after the last.
                prop_assert!(problems.iter().all(|problem| problem.line <= lines + 1));
            }
        }
    }
}

#[test]
fn a_legacy_environment_is_one_that_is_known() {
    let read = |word: &str| {
        let text = format!("job: a\nreplicas: 1\nimage: b:1\nlegacy_environment: {word}\n");
        read(&text, Format::Yaml)
    };
    let task = &read("marathon").unwrap()[0].tasks[0];
    assert_eq!(task.legacy_environment, Some(LegacyEnvironment::Marathon));
    let problems = read("maraton").unwrap_err();
    assert!(problems[0].message.contains("did you mean \"marathon\"?"), "{problems:?}");
}
