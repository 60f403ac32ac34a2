//! Moving from Marathon: what is shown, what is refused, what is submitted, and containers that
//! are taken over where they run. A Marathon itself is not there: its answers are.

use std::io::{Read, Write};
use std::net::TcpListener;

use orch::marathon::messages as m;
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::docker::{docker, inspect, need_image, runs};
use crate::support::zookeeper::{Options, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::{Cluster, LONG, orch, wait_until};

/// Writes a source into the cluster's directory.
fn source(cluster: &Cluster, name: &str, content: &Value) -> String {
    let path = cluster.path().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path.display().to_string()
}

fn sleeper(id: &str, more: Value) -> Value {
    let mut app = json!({
        "id": id, "cmd": "exec sleep 1000", "instances": 1, "cpus": 0.1, "mem": 16,
        "portDefinitions": [],
    });
    app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app
}

#[test]
fn apps_are_shown_refused_and_submitted() {
    let cluster = Cluster::single("process");
    let groups = json!({"id": "/", "groups": [{"id": "/shop", "apps": [
        sleeper("/shop/web", json!({"dependencies": ["/shop/db"]})),
        sleeper("/shop/db", json!({"env": {"PASSWORD": {"secret": "pw"}}})),
    ]}]});
    let file = source(&cluster, "groups.json", &groups);

    // What is printed is a job file, with what is told as comments.
    let shown = cluster.orch(&["migrate", "marathon", &file, "--dry-run"]).ok();
    let shown = shown.says(&[
        "# essential /shop/db env.PASSWORD (secret pw): ",
        "# lost /shop/web dependencies ([\"/shop/db\"]): ",
        "job: shop-web",
        "REST API: 2 jobs; findings: 2 adapted, 1 lost, 1 essential, 0 blocked",
    ]);
    cluster
        .orch(&["plan", &cluster.job_file(&shown.stdout)])
        .ok()
        .says(&["shop-db: a new service"]);
    let data = cluster.orch(&["migrate", "marathon", &file, "--dry-run", "-o", "json"]).ok().json();
    assert_eq!(data["jobs"][1]["job"], "shop-web");
    assert_eq!(data["findings"].as_array().unwrap().len(), 4);

    let refused = cluster.orch(&["migrate", "marathon", &file]).code(4);
    refused.says(&["1 essential thing has no equal", "env.PASSWORD", "--accept-losses"]);
    assert_eq!(
        cluster.orch(&["status", "-o", "json"]).ok().json(),
        json!([]),
        "it changed something"
    );
    cluster.orch(&["migrate", "marathon", &file, "--only", "/nothing"]).code(3);
    cluster.orch(&["migrate", "marathon", &file, "--rename", "/nothing=x"]).code(2);
    cluster.orch(&["migrate", "marathon", "ftp://a/marathon"]).code(2);
    cluster.orch(&["migrate", "marathon", "/no/such/file"]).code(1);
    cluster.orch(&["migrate", "marathon", "http://127.0.0.1:1"]).code(1);

    let web = ["migrate", "marathon", &file, "--only", "/shop/web"];
    cluster.orch(&web).ok().says(&["shop-web", "submitted"]);
    cluster.wait_healthy("shop-web", 1);
    let all = ["migrate", "marathon", &file, "--accept-losses", "-o", "json"];
    let again = cluster.orch(&all).ok().json();
    let results: Vec<_> =
        again["jobs"].as_array().unwrap().iter().map(|job| &job["result"]).collect();
    assert_eq!(results, ["submitted", "unchanged"]);

    // What runs under the name with other content is left alone.
    cluster.orch(&["scale", "shop-web=2"]).ok();
    let conflict = cluster.orch(&["migrate", "marathon", &file, "--accept-losses"]).code(4);
    conflict.says(&["1 job exists with other content", "shop-web (from /shop/web)"]);
    let renamed =
        ["migrate", "marathon", &file, "--only", "/shop/web", "--rename", "shop/web=front"];
    cluster.orch(&renamed).ok().says(&["front", "submitted"]);
}

/// A Marathon that answers what it is asked, until the test ends.
fn marathon(answers: Vec<(&'static str, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let known = answers.iter().find(|(start, _)| path.starts_with(start));
            let authorized = head.to_lowercase().contains("authorization: basic dtpw");
            let (status, body) = match known {
                _ if !authorized => ("401 Unauthorized", "who are you?".to_owned()),
                Some((_, answer)) => ("200 OK", answer.to_string()),
                None => ("404 Not Found", "{}".to_owned()),
            };
            let length = body.len();
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address.to_string()
}

#[test]
fn a_live_marathon_is_asked() {
    let groups = json!({"id": "/", "apps": [sleeper("/a", json!({}))]});
    let tasks = json!({"tasks": []});
    let address = marathon(vec![
        ("/service/marathon/v2/groups?embed=", groups),
        ("/service/marathon/v2/tasks", tasks),
        ("/service/marathon/v2/info", json!({"version": "1.11.24"})),
    ]);
    let with = |who: &str, path: &str| {
        orch(&["migrate", "marathon", &format!("http://{who}{address}{path}"), "--dry-run"])
    };
    with("u:p@", "/service/marathon").ok().says(&["job: a\n", "Marathon 1.11.24: 1 job;"]);
    let refused = with("", "/service/marathon").code(4);
    assert!(refused.stderr.contains("http://USER:PASSWORD@HOST"), "{refused}");
    let nobody = with("u:p@", "").code(3);
    assert!(!nobody.stderr.contains("u:p@"), "a password is shown: {nobody}");
}

/// A container as Marathon's would be, removed at the end.
struct Container(String);

impl Container {
    fn start(name: &str, task: &str, label: bool, address: &str, port: u16) -> Self {
        let label = if label { format!("MESOS_TASK_ID={task}") } else { "other=x".to_owned() };
        let (task, publish) = (format!("MESOS_TASK_ID={task}"), format!("{address}:{port}:8080"));
        let script =
            "echo up; mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www";
        let id = docker(&[
            "run",
            "--detach",
            "--name",
            name,
            "--label",
            &label,
            "--env",
            &task,
            "--publish",
            &publish,
            need_image(),
            "sh",
            "-c",
            script,
        ])
        .unwrap_or_else(|error| panic!("{error}"));
        Self(id)
    }

    /// What would change with a restart.
    fn life(&self) -> (Value, Value, Value) {
        let state = inspect(&self.0)["State"].clone();
        (state["Pid"].clone(), state["StartedAt"].clone(), state["Running"].clone())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.0]);
    }
}

#[test]
fn containers_are_taken_over_where_they_run() {
    let mut cluster = Cluster::single("docker");
    let address = cluster.member("n1").address.to_string();
    let mark = std::process::id();
    let task = |i: u32| format!("shop_web.instance-{mark}-{i}._app.1");
    // One with the label and one of an older Mesos, which has the variable alone.
    let one = Container::start(&format!("mesos-{mark}-a"), &task(1), true, &address, 31_001);
    let two = Container::start(&format!("mesos-{mark}-b"), &task(2), false, &address, 31_002);
    let (first, second) = (one.life(), two.life());
    let running = |i: u32, host: &str, port: u16| json!({"id": task(i), "appId": "/shop/web", "host": host, "ports": [port], "state": "TASK_RUNNING"});
    let app = |instances: u32, tasks: &[Value]| {
        json!({"apps": [{
            "id": "/shop/web", "instances": instances, "cpus": 0.1, "mem": 16,
            "cmd": "mkdir -p /www; echo new >/www/index.html; exec httpd -f -p 8080 -h /www",
            "container": {"type": "DOCKER", "docker": {"image": need_image(), "network": "BRIDGE",
                "portMappings": [{"containerPort": 8080, "hostPort": 0, "name": "http"}]}},
            "healthChecks": [{"protocol": "HTTP", "path": "/", "portIndex": 0,
                "gracePeriodSeconds": 1, "intervalSeconds": 1, "delaySeconds": 0}],
            "taskKillGracePeriodSeconds": 1,
            "tasks": tasks,
        }]})
    };

    // What can't be found is told, and stops everything.
    let (there, gone) = (running(1, "n1", 31_001), running(3, "n1", 31_003));
    let file = source(&cluster, "gone.json", &app(2, &[there.clone(), gone]));
    let nowhere = cluster.orch(&["migrate", "marathon", &file, "--adopt"]).code(4);
    nowhere.says(&["no container with MESOS_TASK_ID=", "another one is started"]);
    let file =
        source(&cluster, "far.json", &app(2, &[running(1, "elsewhere.example.com", 31_001)]));
    let far = cluster.orch(&["migrate", "marathon", &file, "--adopt"]).code(4);
    far.says(&["no agent runs on elsewhere.example.com"]);

    let file = source(&cluster, "apps.json", &app(2, &[there, running(2, "n1", 31_002)]));
    let shown = cluster.orch(&["migrate", "marathon", &file, "--adopt", "--dry-run"]).ok();
    shown.says(&["# taken over as copy 0: ", "# taken over as copy 1: "]);
    assert_eq!(
        cluster.orch(&["status", "-o", "json"]).ok().json(),
        json!([]),
        "it changed something"
    );

    cluster
        .orch(&["migrate", "marathon", &file, "--adopt"])
        .ok()
        .says(&["submitted, 2 taken over"]);
    let rows = cluster.wait_healthy("shop-web", 2);
    assert_eq!(rows[0]["container_id"], json!(one.0));
    assert_eq!(rows[1]["container_id"], json!(two.0));
    assert_eq!(
        (&rows[0]["ports"]["http"], &rows[1]["ports"]["http"]),
        (&json!(31_001), &json!(31_002))
    );
    assert_eq!((one.life(), two.life()), (first.clone(), second.clone()), "one was restarted");
    cluster.orch(&["logs", "shop-web.0"]).ok().says(&["up"]);
    cluster.orch(&["exec", "shop-web.1", "--", "cat", "/www/index.html"]).ok().says(&["hello"]);
    cluster.orch(&["status", "shop-web"]).ok().says(&["running"]);
    // A second time there is nothing to do.
    cluster.orch(&["migrate", "marathon", &file, "--adopt"]).ok().says(&["unchanged"]);

    // An agent that starts again knows them.
    cluster.restart("n1");
    cluster.wait_for_node("n1", "ready");
    cluster.wait_healthy("shop-web", 2);
    assert_eq!((one.life(), two.life()), (first, second.clone()), "one was restarted");

    // One that ends is replaced by a container of orch's own, and removed.
    docker(&["kill", &one.0]).unwrap();
    let replaced = wait_until("a replacement", LONG, || {
        let rows = cluster.ps("shop-web");
        let id = rows[0]["container_id"].as_str().unwrap_or_default().to_owned();
        let good = id != one.0 && rows[0]["state"] == "running" && rows[0]["health"] == "healthy";
        if good { Ok(id) } else { Err(format!("{rows:?}")) }
    });
    assert!(inspect(&replaced)["Name"].as_str().unwrap().starts_with("/orch-shop-web-0-"));
    wait_until("what is left of it to be removed", LONG, || {
        docker(&["container", "inspect", &one.0]).err().map(|_| ()).ok_or("it is there".to_owned())
    });
    assert_eq!(two.life(), second, "the other one was restarted");

    // A stop stops it.
    cluster.orch(&["stop", "shop-web", "--wait"]).ok();
    assert!(!runs(&two.0) && !runs(&replaced), "one runs on");
}

#[test]
fn a_restart_replaces_what_was_taken_over() {
    let cluster = Cluster::single("docker");
    let address = cluster.member("n1").address.to_string();
    let task = format!("job.instance-{}-r._app.1", std::process::id());
    let old =
        Container::start(&format!("mesos-{}-r", std::process::id()), &task, true, &address, 31_001);
    let app = json!({"apps": [{
        "id": "/job", "instances": 1, "cpus": 0.1, "mem": 16, "cmd": "exec sleep 1000",
        "container": {"docker": {"image": need_image()}}, "portDefinitions": [],
        "networks": [{"mode": "container/bridge"}], "taskKillGracePeriodSeconds": 0,
        "tasks": [{"id": task, "appId": "/job", "host": address, "ports": [], "state": "TASK_RUNNING"}],
    }]});
    let file = source(&cluster, "apps.json", &app);
    cluster.orch(&["migrate", "marathon", &file, "--adopt"]).ok().says(&["1 taken over"]);
    cluster.wait_healthy("job", 1);
    assert!(runs(&old.0));
    cluster.orch(&["restart", "job"]).ok();
    let rows = cluster.wait_healthy("job", 1);
    assert_ne!(rows[0]["container_id"], json!(old.0));
    wait_until("the old one to end", LONG, || {
        if runs(&old.0) { Err("it runs".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_container_on_the_hosts_own_network_is_taken_over_with_the_ports_that_marathon_knew() {
    let cluster = Cluster::single("docker");
    let address = cluster.member("n1").address.to_string();
    let task = format!("host.instance-{}-h._app.1", std::process::id());
    let label = format!("MESOS_TASK_ID={task}");
    let listen = format!("mkdir -p /www; exec httpd -f -p {address}:31003 -h /www");
    let id = docker(&[
        "run",
        "--detach",
        "--network",
        "host",
        "--label",
        &label,
        "--env",
        &label,
        need_image(),
        "sh",
        "-c",
        &listen,
    ]);
    let old = Container(id.unwrap());
    let before = old.life();
    let app = json!({"apps": [{
        "id": "/host", "instances": 1, "cpus": 0.1, "mem": 16,
        "cmd": "mkdir -p /www; exec httpd -f -p $PORT0 -h /www",
        "container": {"docker": {"image": need_image(), "network": "HOST"}},
        "portDefinitions": [{"port": 0, "name": "web"}], "taskKillGracePeriodSeconds": 0,
        "healthChecks": [{"protocol": "TCP", "portName": "web", "gracePeriodSeconds": 0,
            "intervalSeconds": 1, "delaySeconds": 0}],
        "tasks": [{"id": task, "appId": "/host", "host": "n1", "ports": [31003], "state": "TASK_RUNNING"}],
    }]});
    let file = source(&cluster, "apps.json", &app);
    cluster.orch(&["migrate", "marathon", &file, "--adopt"]).ok().says(&["1 taken over"]);
    let rows = cluster.wait_healthy("host", 1);
    assert_eq!(
        (&rows[0]["container_id"], &rows[0]["ports"]["web"]),
        (&json!(old.0), &json!(31003))
    );
    assert_eq!(old.life(), before);
    // Its successor finds a port by the variable that Marathon set.
    cluster.orch(&["restart", "host"]).ok();
    let rows = cluster.wait_healthy("host", 1);
    assert_ne!(rows[0]["container_id"], json!(old.0));
}

/// What Marathon 1.11 keeps: two apps, of which one is just being changed.
fn stored() -> Vec<(String, Vec<u8>)> {
    const OLD: &str = "2018-05-04T10:11:12.123Z";
    const NEW: &str = "2018-06-05T10:11:12.123Z";
    let app = |id: &str, version: &str, command: &str| {
        let cmd = m::CommandInfo { value: Some(command.to_owned()), ..Default::default() };
        let version = Some(version.to_owned());
        let id = id.to_owned();
        let app = m::ServiceDefinition { id, cmd, instances: 1, version, ..Default::default() };
        app.encode_to_vec()
    };
    let reference =
        |id: &str| m::group_definition::AppReference { id: id.to_owned(), version: OLD.to_owned() };
    let root = m::GroupDefinition {
        id: "/".to_owned(),
        apps: vec![reference("web"), reference("db")],
        ..Default::default()
    };
    let version = m::StorageVersion { major: 110, minor: 100, patch: 0, format: Some(1) };
    let version = m::ZkStoreEntry {
        name: "internal:storage:version".to_owned(),
        uuid: b"0d6e8d2c-6e0c-4b5a-9a35-7e5a5a5a5a5a".to_vec().into(),
        value: version.encode_to_vec().into(),
        compressed: Some(false),
    };
    let mut nodes: Vec<(String, Vec<u8>)> = [
        "",
        "/state",
        "/state/group",
        "/state/group/2",
        "/state/apps",
        "/state/apps/4",
        "/state/apps/b",
    ]
    .map(|path| (path.to_owned(), Vec::new()))
    .into();
    nodes.extend([
        ("/state/internal:storage:version".to_owned(), version.encode_to_vec()),
        ("/state/group/2/root".to_owned(), root.encode_to_vec()),
        ("/state/apps/4/web".to_owned(), app("web", NEW, "exec new")),
        (format!("/state/apps/4/web/{OLD}"), app("web", OLD, "exec old")),
        (format!("/state/apps/4/web/{NEW}"), app("web", NEW, "exec new")),
        ("/state/apps/b/db".to_owned(), app("db", OLD, "exec db")),
    ]);
    nodes
}

#[test]
fn what_marathon_keeps_in_zookeeper_is_read_from_an_ensemble_and_from_its_files() {
    let mut zookeeper = ZooKeeper::standalone(Options::default());
    let mut client = Client::connect(zookeeper.client_address(0), 10_000).unwrap();
    for root in ["/marathon", "/other"] {
        for (path, data) in stored() {
            client.create(&format!("{root}{path}"), &data, mode::PERSISTENT);
        }
    }
    client.close();
    let shown = |source: &str, more: &[&str]| {
        orch(&[&["migrate", "marathon", source, "--dry-run"], more].concat())
    };
    let right = |output: crate::support::Output, origin: &str| {
        let output = output.ok().says(&["job: web", "exec old", "job: db", "exec db", origin]);
        assert!(!output.stdout.contains("exec new"), "{output}");
    };
    let address = zookeeper.connect_string();
    right(shown(&format!("zk://{address}/marathon"), &[]), "storage 110.100.0, PERSISTENCE_STORE");
    right(shown(&format!("zk://user:secret@{address}/other"), &[]), "storage 110.100.0");
    right(shown(&format!("zk://{address}"), &[]), "storage 110.100.0");
    shown(&format!("zk://{address}/nothing"), &[]).code(3).says(&["/nothing/state is not there"]);

    // Its files say the same, while it runs and when it is gone.
    let directory = zookeeper.data_dir(0).display().to_string();
    zookeeper.kill(0);
    right(shown(&directory, &[]), "data directory, storage 110.100.0");
    right(shown(&directory, &["--zk-path", "/other"]), "data directory, storage 110.100.0");
    shown(&directory, &["--zk-path", "/nothing"]).code(3);
    shown(&format!("{directory}/.."), &[]).code(1);
}
