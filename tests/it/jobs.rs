//! A user's day: run, plan, look, scale, change, stop. Through the command line, with processes
//! where the runtime does not matter and containers where it does.

use serde_json::{Value, json};

use crate::support::docker::{self, docker, need_image, work_of};
use crate::support::{Cluster, Http, LONG, SHORT, wait_until};

/// A web server of busybox whose page has `mark` in it.
fn web(replicas: usize, mark: &str) -> String {
    format!(
        r#"
job: web
replicas: {replicas}
image: {image}
command:
  - sh
  - -c
  - echo "{mark} replica $ORCH_INDEX" >/www/index.html; echo up; exec httpd -f -p $PORT_HTTP -h /www
ports: {{ http: 8080 }}
resources: {{ cpu: 0.1, memory: 16Mi }}
healthcheck: {{ http: /, interval: 300ms }}
stop_signal: SIGKILL
"#,
        image = need_image()
    )
}

fn page(row: &Value) -> Result<String, String> {
    let address = row["address"].as_str().ok_or("no address")?;
    let port = row["ports"]["http"].as_u64().ok_or("no port")?;
    let reply = Http::new(format!("{address}:{port}")).try_get("/")?;
    Ok(reply.text())
}

#[test]
fn a_service_from_plan_to_purge() {
    let cluster = Cluster::single("docker");
    let file = cluster.job_file(&web(2, "one"));
    cluster.orch(&["plan", &file]).ok().says(&["web", "n1"]);
    assert_eq!(cluster.orch(&["status", "-o", "json"]).ok().json(), json!([]), "plan changed it");

    cluster.orch(&["run", &file]).ok();
    let rows = cluster.wait_healthy("web", 2);
    for (i, row) in rows.iter().enumerate() {
        for key in [
            "project",
            "job",
            "index",
            "id",
            "node",
            "version",
            "state",
            "health",
            "container_id",
            "ports",
            "restarts",
            "started_at",
        ] {
            assert!(!row[key].is_null(), "{key} in {row}");
        }
        assert_eq!(page(row).unwrap().trim(), format!("one replica {i}"));
        let container = docker::inspect(row["container_id"].as_str().unwrap());
        assert_eq!(container["HostConfig"]["Memory"], 16 << 20);
        assert_eq!(container["HostConfig"]["NanoCpus"], 100_000_000);
    }
    let status = cluster.orch(&["status", "-o", "json"]).ok().json();
    let status = &status[0];
    for (key, value) in [
        ("project", json!("default")),
        ("job", json!("web")),
        ("type", json!("service")),
        ("version", json!(1)),
        ("desired", json!(2)),
        ("running", json!(2)),
        ("healthy", json!(2)),
    ] {
        assert_eq!(status[key], value, "{key} in {status}");
    }
    assert!(status["state"].is_string(), "{status}");
    cluster.orch(&["ps"]).ok().says(&["web", "running", "healthy", "n1"]);
    cluster.orch(&["status", "web"]).ok().says(&["web", "n1"]);
    cluster.orch(&["inspect", "web"]).ok().says(&["orch-test-busybox"]);

    // The same file again changes nothing.
    cluster.orch(&["plan", &file]).ok();
    cluster.orch(&["run", &file]).ok();
    assert_eq!(cluster.orch(&["status", "web", "-o", "json"]).ok().json()["version"], 1);

    // A new version replaces the old one.
    let next = cluster.job_file(&web(2, "two"));
    cluster.orch(&["plan", &next]).ok().says(&["command"]);
    cluster.orch(&["run", &next]).ok();
    let rows = wait_until("both pages to be new", LONG, || {
        let rows = cluster.ps("web");
        let new: Vec<Value> = rows
            .iter()
            .filter(|row| row["state"] == "running" && row["version"] == 2)
            .cloned()
            .collect();
        let pages: Result<Vec<String>, String> = new.iter().map(page).collect();
        let pages = pages?;
        if pages.len() == 2 && pages.iter().all(|page| page.starts_with("two")) {
            Ok(new)
        } else {
            Err(format!("{pages:?}"))
        }
    });
    assert_eq!(rows.len(), 2);
    let history = cluster.orch(&["history", "web", "-o", "json"]).ok().json();
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");

    // More and fewer.
    cluster.orch(&["scale", "web=4"]).ok();
    cluster.wait_healthy("web", 4);
    cluster.orch(&["scale", "web=1"]).ok();
    cluster.wait_healthy("web", 1);

    cluster.orch(&["stop", "web"]).ok();
    wait_until("its containers to be gone", LONG, || {
        match work_of(&[cluster.member("n1").address.to_string()], false) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    let status = cluster.orch(&["status", "web", "-o", "json"]).ok().json();
    assert_eq!((&status["running"], &status["desired"]), (&json!(0), &json!(0)), "{status}");
    cluster.orch(&["stop", "web", "--purge"]).ok();
    wait_until("it to be forgotten", SHORT, || {
        let output = cluster.orch(&["status", "web"]);
        if output.code == 3 { Ok(()) } else { Err(output.to_string()) }
    });
}

#[test]
fn logs_and_exec() {
    let cluster = Cluster::single("docker");
    let image = need_image();
    cluster.run(&format!(
        "job: talk\nreplicas: 2\nimage: {image}\n\
         command: [\"sh\", \"-c\", \"for i in 1 2 3; do echo out $i of $ORCH_INDEX; done; echo err >&2; exec sleep 1000\"]\n\
         stop_signal: SIGKILL\n"
    ));
    wait_until("all lines", SHORT, || {
        let output = cluster.orch(&["logs", "talk.1"]);
        let lines = output.stdout.lines().filter(|line| line.contains("of 1")).count();
        if lines == 3 { Ok(()) } else { Err(output.to_string()) }
    });
    let all = cluster.orch(&["logs", "talk"]).ok();
    assert!(all.stdout.contains("of 0") && all.stdout.contains("of 1"), "{all}");
    let tail = cluster.orch(&["logs", "talk.0", "--tail", "1"]).ok();
    assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 1, "{tail}");

    let id = cluster.ps("talk")[0]["container_id"].as_str().unwrap().to_owned();
    let inside = cluster.orch(&["exec", "talk.0", "--", "sh", "-c", "hostname; exit 7"]).code(7);
    assert!(id.starts_with(inside.stdout.trim()), "{inside}");
    let server = format!("http://{}", cluster.api_address("s1"));
    let echo = crate::support::orch_with(
        &[("ORCH_ADDR", &server)],
        &["exec", "-i", "talk.0", "--", "cat"],
        b"through and back\n",
    );
    assert_eq!(echo.ok().stdout, "through and back\n");
    cluster.orch(&["exec", "talk.9", "--", "true"]).code(3);
}

#[test]
fn a_batch_job_completes_fails_or_runs_out_of_time() {
    let cluster = Cluster::single("process");
    cluster.run("job: fine\ncommand: [sh, -c, 'echo done; exit 0']\n");
    let status = cluster.orch(&["status", "fine", "-o", "json"]).ok().json();
    assert_eq!(
        (&status["type"], &status["state"]),
        (&json!("batch"), &json!("complete")),
        "{status}"
    );
    cluster.orch(&["logs", "fine"]).ok().says(&["done"]);

    let file = cluster.job_file(
        "job: wrong\ncommand: [sh, -c, 'echo a reason >&2; exit 3']\nrestart: { attempts: 1, delay: 100ms }\n",
    );
    cluster.orch(&["run", &file]).code(1).says(&["wrong"]);
    wait_until("status to tell the reason with its output", LONG, || {
        let output = cluster.orch(&["status", "wrong"]).ok();
        let said = output.stdout.contains("a reason") && output.stdout.contains('3');
        if said { Ok(()) } else { Err(output.to_string()) }
    });

    let file = cluster.job_file("job: slow\ncommand: sleep 1000\ntimeout: 1s\nstop_grace: 1s\n");
    let output = cluster.orch(&["run", &file]).code(1);
    output.says(&["timeout"]);
}

#[test]
fn a_system_job_is_on_every_node_that_fits_and_follows_new_ones() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &["--runtime", "process", "--attr", "zone=a"]);
    cluster.agent("n2", &["--runtime", "process", "--attr", "zone=b"]);
    cluster.submit(
        "job: everywhere\nper: node\ncommand: sleep 1000\nstop_grace: 1s\n\
         placement: { require: [\"attr.zone != c\"] }\n",
    );
    let nodes = |rows: Vec<Value>| {
        let mut nodes: Vec<_> =
            rows.iter().map(|row| row["node"].as_str().unwrap().to_owned()).collect();
        nodes.sort();
        nodes
    };
    assert_eq!(nodes(cluster.wait_healthy("everywhere", 2)), ["n1", "n2"]);
    cluster.agent("n3", &["--runtime", "process", "--attr", "zone=c"]);
    cluster.agent("n4", &["--runtime", "process", "--attr", "zone=d"]);
    assert_eq!(nodes(cluster.wait_healthy("everywhere", 3)), ["n1", "n2", "n4"]);
}

#[test]
fn tasks_of_one_job_run_together() {
    let cluster = Cluster::single("docker");
    let image = need_image();
    cluster.run(&format!(
        r#"
job: pair
replicas: 1
tasks:
  writer:
    image: {image}
    command: ["sh", "-c", "echo shared >/shared/index.html; exec sleep 1000"]
    volumes: ["orch-it-pair:/shared"]
    stop_signal: SIGKILL
  web:
    image: {image}
    command: httpd -f -p 8080 -h /shared
    ports: {{ http: 8080 }}
    volumes: ["orch-it-pair:/shared:ro"]
    read_only: true
    user: "65534"
    cap_drop: [ALL]
    healthcheck: {{ http: /index.html, interval: 300ms }}
    stop_signal: SIGKILL
"#
    ));
    let row = cluster.wait_healthy("pair", 1).remove(0);
    assert_eq!(page(&row).unwrap().trim(), "shared");
    let work = work_of(&[cluster.member("n1").address.to_string()], false);
    assert_eq!(work.len(), 2);
    let web = work
        .iter()
        .map(|id| docker::inspect(id))
        .find(|container| container["Name"].as_str().is_some_and(|name| name.contains("web")))
        .expect("the web task");
    assert_eq!(web["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(web["HostConfig"]["CapDrop"], json!(["ALL"]));
    assert_eq!(web["Config"]["User"], "65534");
    cluster.orch(&["logs", "pair", "--task", "web"]).ok();
    cluster.orch(&["stop", "pair", "--purge"]).ok();
    wait_until("both to end", LONG, || {
        match work_of(&[cluster.member("n1").address.to_string()], false) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    wait_until("the volume to be free", SHORT, || {
        docker(&["volume", "ls", "--quiet", "--filter", "name=orch-it-pair"]).and_then(|names| {
            names.lines().try_for_each(|name| docker(&["volume", "rm", name]).map(drop))
        })
    });
}

#[test]
fn placement_rules_are_kept_and_a_drain_moves_work_away() {
    let mut cluster = Cluster::start(1);
    for (name, zone) in [("n1", "zone=a"), ("n2", "zone=b"), ("n3", "zone=c")] {
        cluster.agent(name, &["--runtime", "process", "--attr", zone, "--class", "web"]);
    }
    cluster.submit(
        "job: spread\nreplicas: 2\ncommand: sleep 1000\nstop_grace: 1s\n\
         placement:\n  require: [\"node.class == web\", \"attr.zone != c\"]\n  spread: [attr.zone]\n  max_per_node: 1\n",
    );
    let rows = cluster.wait_healthy("spread", 2);
    let nodes: std::collections::BTreeSet<_> =
        rows.iter().map(|row| row["node"].as_str().unwrap()).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["n1", "n2"]);

    cluster.submit("job: free\nreplicas: 2\ncommand: sleep 1000\nstop_grace: 1s\nplacement: { require: [\"node.name in n1, n3\"] }\n");
    cluster.wait_healthy("free", 2);
    cluster.orch(&["node", "drain", "n1"]).ok();
    wait_until("n1 to be empty of what can go elsewhere", LONG, || {
        let rows = cluster.ps("free");
        let there = rows.iter().filter(|r| r["state"] == "running" && r["node"] == "n3").count();
        if there == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let nodes = cluster.orch(&["node", "ls", "-o", "json"]).ok().json();
    for key in ["name", "id", "state", "eligible", "class", "attributes", "resources", "allocated"]
    {
        assert!(!nodes[0][key].is_null(), "{key} in {}", nodes[0]);
    }
    cluster.orch(&["node", "eligible", "n1"]).ok();
    cluster.orch(&["node", "status", "n1"]).ok().says(&["n1", "web"]);
}

#[test]
fn events_tell_what_happened_and_resume_from_an_index() {
    let cluster = Cluster::single("process");
    cluster.run("job: noise\ncommand: [sh, -c, 'exit 0']\n");
    let output = cluster.orch(&["events", "-o", "json"]).ok();
    let events: Vec<Value> =
        output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(events.len() >= 3, "{output}");
    let indexes: Vec<u64> = events.iter().filter_map(|event| event["index"].as_u64()).collect();
    assert_eq!(indexes.len(), events.len());
    assert!(indexes.windows(2).all(|pair| pair[0] <= pair[1]), "{indexes:?}");
    assert!(output.stdout.contains("noise"));
    let middle = indexes[indexes.len() / 2];
    let rest = cluster.orch(&["events", "-o", "json", "--since", &middle.to_string()]).ok();
    assert!(rest.stdout.lines().count() < events.len(), "{rest}");
    assert!(rest.stdout.lines().count() > 0);
}

#[test]
fn a_snapshot_is_saved_inspected_and_restored() {
    let cluster = Cluster::single("process");
    cluster.submit("job: kept\nreplicas: 1\ncommand: sleep 1000\nstop_grace: 1s\n");
    cluster.wait_healthy("kept", 1);
    cluster.orch(&["var", "put", "color", "blue"]).ok();
    let file = cluster.path().join("snapshot").display().to_string();
    cluster.orch(&["snapshot", "save", &file]).ok();
    cluster.orch(&["snapshot", "inspect", &file]).ok().says(&["job"]);
    cluster.orch(&["var", "put", "color", "red"]).ok();
    cluster.orch(&["stop", "kept", "--purge"]).ok();
    cluster.orch(&["snapshot", "restore", &file, "--yes"]).ok();
    assert_eq!(cluster.orch(&["var", "get", "color"]).ok().stdout.trim(), "blue");
    cluster.wait_healthy("kept", 1);

    let damaged = cluster.path().join("damaged").display().to_string();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&damaged, bytes).unwrap();
    let output = cluster.orch(&["snapshot", "restore", &damaged, "--yes"]);
    assert_ne!(output.code, 0, "{output}");
    assert_eq!(cluster.orch(&["var", "get", "color"]).ok().stdout.trim(), "blue");
}

#[test]
fn variables() {
    let cluster = Cluster::start(1);
    cluster.orch(&["var", "put", "db/host", "10.0.0.1"]).ok();
    assert_eq!(cluster.orch(&["var", "get", "db/host"]).ok().stdout.trim_end(), "10.0.0.1");
    let list = cluster.orch(&["var", "ls", "-o", "json"]).ok().json();
    assert_eq!(list[0]["path"], "db/host", "{list}");
    cluster.orch(&["var", "rm", "db/host"]).ok();
    cluster.orch(&["var", "get", "db/host"]).code(3);
}

#[test]
fn an_interrupted_run_leaves_the_job_going() {
    let cluster = Cluster::single("process");
    let file = cluster.job_file(
        "job: late\nreplicas: 1\ncommand: sleep 1000\nstop_grace: 1s\nports: { http: auto }\n\
         healthcheck: { tcp: http, interval: 500ms, start_period: 1h }\n",
    );
    let server = format!("http://{}", cluster.api_address("s1"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_orch"));
    command.env("ORCH_ADDR", &server).args(["run", &file]);
    let mut run =
        crate::support::Process::start("run", &mut command, &cluster.path().join("run.log"));
    wait_until("it to run", LONG, || {
        let output = cluster.orch(&["ps", "late", "-o", "json"]);
        let runs = output.code == 0
            && output.json().as_array().unwrap().iter().any(|row| row["state"] == "running");
        if runs { Ok(()) } else { Err(output.to_string()) }
    });
    assert!(run.runs(), "it ended before the job was up: {}", run.log());
    run.signal(rustix::process::Signal::INT);
    run.wait(SHORT);
    assert!(
        cluster.ps("late").iter().any(|row| row["state"] == "running"),
        "the job ended with it"
    );
}
