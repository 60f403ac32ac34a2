//! What newcomers touch first, with the release binary: the quickstart, the image, the Compose
//! demonstration. `scripts/test --quick` leaves these out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use crate::support::docker::{docker, work_of};
use crate::support::{Http, LONG, LoopbackAddress, orch_with, wait_until};

/// Two builds of the release binary at once would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn call(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} can't be run: {error}"));
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {arguments:?} ended with {status}\n{out}\n{err}");
    out.into_owned()
}

fn script(name: &str) -> String {
    root().join("scripts").join(name).display().to_string()
}

#[test]
fn quickstart_shows_a_healthy_service_and_leaves_nothing_running() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let address = LoopbackAddress::next();
    let (api, rpc) = (address.port(7400).to_string(), address.port(7401).to_string());
    let environment = [("ORCH_API_ADDR", api.as_str()), ("ORCH_RPC_ADDR", rpc.as_str())];
    let output = call(&script("quickstart"), &environment, &["--once"]);
    for part in ["hello from replica 0 of hello", "hello from replica 1 of hello", &api, "healthy"]
    {
        assert!(output.contains(part), "expected {part:?} in:\n{output}");
    }
    assert!(std::net::TcpStream::connect(&api).is_err(), "it still answers on {api}");
    let left = docker(&["ps", "--quiet", "--filter", "ancestor=orch-hello:1"]).unwrap();
    assert_eq!(left, "", "containers are left:\n{output}");
}

#[test]
fn the_compose_demo_comes_up_runs_a_job_survives_a_server_and_goes_down() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    call(&script("image"), &[], &[]);
    let demo = Demo::up();
    let api = format!("http://{}", demo.address.port(7400));
    let orch = |arguments: &[&str]| orch_with(&[("ORCH_ADDR", &api)], arguments, b"");
    wait_until("three servers and two nodes", LONG, || {
        let servers = orch(&["server", "ls", "-o", "json"]);
        let nodes = orch(&["node", "ls", "-o", "json"]);
        if servers.code != 0 || nodes.code != 0 {
            return Err(format!("{servers}{nodes}"));
        }
        let (servers, nodes) = (servers.json(), nodes.json());
        let ready = |node: &&serde_json::Value| node["state"] == "ready";
        let nodes = nodes.as_array().map_or(0, |nodes| nodes.iter().filter(ready).count());
        match servers.as_array().map(Vec::len) {
            Some(3) if nodes == 2 => Ok(()),
            other => Err(format!("{other:?} servers, {nodes} nodes")),
        }
    });
    let example = root().join("config/examples/hello.yaml").display().to_string();
    call("bash", &[], &["-c", ". scripts/lib.sh && make_image orch-hello:1"]);
    orch(&["run", &example]).ok();
    for row in orch(&["ps", "hello", "-o", "json"]).ok().json().as_array().unwrap() {
        let port = row["ports"]["http"].as_u64().expect("a port");
        let page = Http::new(demo.address.port(port as u16)).get("/").ok().text();
        assert!(page.contains("hello from replica"), "{page}");
    }
    // One server fewer: the rest answers and the work runs.
    let s1 = demo.compose(&["ps", "-q", "s1"]);
    docker(&["kill", s1.trim()]).unwrap();
    let other = format!("http://{}", demo.address.port(7410));
    wait_until("another server to answer", LONG, || {
        let output = orch_with(&[("ORCH_ADDR", &other)], &["ps", "hello", "-o", "json"], b"");
        if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
    });
    orch_with(&[("ORCH_ADDR", &other)], &["stop", "hello", "--purge"], b"").ok();
    wait_until("its containers to end", LONG, || {
        let left = work_of(&[demo.address.to_string()], false);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let project = demo.project.clone();
    drop(demo);
    let left = docker(&["ps", "--all", "--quiet", "--filter", &format!("name={project}")]).unwrap();
    assert_eq!(left, "", "containers are left");
}

struct Demo {
    project: String,
    address: LoopbackAddress,
    file: PathBuf,
}

impl Demo {
    fn up() -> Self {
        let demo = Self {
            project: format!("orch-it-{}", std::process::id()),
            address: LoopbackAddress::next(),
            file: root().join("config/compose/docker-compose.yaml"),
        };
        demo.compose(&["up", "-d"]);
        demo
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let (address, file) = (self.address.to_string(), self.file.display().to_string());
        let mut all = vec!["-p", self.project.as_str(), "-f", file.as_str()];
        all.extend(arguments);
        call("docker-compose", &[("ORCH_DEMO_IP", address.as_str())], &all)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose(&["logs", "--no-color", "--tail", "30"]));
        }
        crate::support::docker::remove_work_of(&[self.address.to_string()]);
        self.compose(&["down", "--volumes", "--timeout", "20"]);
    }
}
