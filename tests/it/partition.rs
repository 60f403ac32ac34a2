//! A host that is cut off from the servers, for real: each side lives in a network namespace of
//! its own, with one wire between them. No address or interface appears outside of the two.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    LONG, Namespace, Output, Process, SHORT, kill_processes_under, processes_with, wait_until,
};

const NODE_TIMEOUT: &str = "5s";
const CORE: &str = "10.0.0.1";
const EDGE: &str = "10.0.0.2";

/// A server and node `near` on one side, node `far` on the other.
struct Split {
    core: Namespace,
    edge: Namespace,
    // Dropped before the namespaces, and before their files.
    processes: Vec<Process>,
    directory: tempfile::TempDir,
    /// Marks this cluster's work among all processes.
    mark: String,
}

impl Split {
    /// The server and `far`; `near` comes later, so that work begins on `far`.
    fn start() -> Self {
        let (core, edge) = (Namespace::new("core"), Namespace::new("edge"));
        core.ip(&[
            "link",
            "add",
            "wire",
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            edge.name(),
        ]);
        for (side, address) in [(&core, CORE), (&edge, EDGE)] {
            side.ip(&["address", "add", &format!("{address}/24"), "dev", "wire"]);
            side.ip(&["link", "set", "wire", "up"]);
        }
        let directory = tempfile::Builder::new().prefix("orch-it-").tempdir().unwrap();
        let mark = format!("{}{:03}", 10_000_000 + std::process::id(), number(core.name()));
        let mut split = Self { core, edge, processes: Vec::new(), directory, mark };
        let (api, rpc) = (format!("{CORE}:7400"), format!("{CORE}:7401"));
        split.spawn(
            true,
            "server",
            &["server", "--api-addr", &api, "--rpc-addr", &rpc, "--node-timeout", NODE_TIMEOUT],
        );
        wait_until("the server to answer", SHORT, || split.nodes().map(|_| ()));
        split.agent(false, "far", EDGE);
        split
    }

    fn spawn(&mut self, core: bool, name: &str, arguments: &[&str]) {
        let data = self.directory.path().join(name).display().to_string();
        let more = ["--name", name, "--insecure", "--data-dir", &data];
        let side = if core { &self.core } else { &self.edge };
        let mut command = side.orch(&[arguments, &more].concat());
        let log = self.directory.path().join(format!("{name}.log"));
        self.processes.push(Process::start(name, &mut command, &log));
    }

    fn agent(&mut self, core: bool, name: &str, address: &str) {
        let join = format!("{CORE}:7401");
        self.spawn(
            core,
            name,
            &["agent", "--join", &join, "--runtime", "process", "--address", address, "--cpu", "8"],
        );
        self.wait_for_node(name, "ready");
    }

    fn near(&mut self) {
        self.agent(true, "near", CORE);
    }

    /// The command line on the servers' side.
    fn orch(&self, arguments: &[&str]) -> Output {
        let mut command = self.core.orch(arguments);
        command.env("ORCH_ADDR", format!("http://{CORE}:7400"));
        Output::of(arguments, command.output().unwrap())
    }

    fn nodes(&self) -> Result<Vec<Value>, String> {
        let output = self.orch(&["node", "ls", "-o", "json"]);
        if output.code != 0 {
            return Err(output.to_string());
        }
        Ok(output.json().as_array().cloned().unwrap_or_default())
    }

    #[track_caller]
    fn wait_for_node(&self, name: &str, state: &str) {
        wait_until(&format!("node {name} to be {state}"), LONG, || {
            let nodes = self.nodes()?;
            let found = nodes.iter().any(|node| node["name"] == name && node["state"] == state);
            if found { Ok(()) } else { Err(format!("{nodes:?}")) }
        });
    }

    /// Two replicas that do nothing, with some more lines of their file.
    fn run(&self, more: &str) {
        let file = self.directory.path().join("web.yaml");
        let text = format!(
            "job: web\nreplicas: 2\ncommand: [sleep, \"{}\"]\nstop_grace: 1s\n\
             resources: {{ cpu: 0.1, memory: 16Mi }}\n{more}",
            self.mark
        );
        std::fs::write(&file, text).unwrap();
        self.orch(&["run", "--detach", &file.display().to_string()]).ok();
    }

    /// The processes of the job, on whichever side.
    fn work(&self) -> Vec<u32> {
        processes_with(&["sleep", &self.mark])
    }

    #[track_caller]
    fn wait_for_work(&self, what: &str, fits: impl Fn(&[u32]) -> bool) -> Vec<u32> {
        wait_until(what, LONG, || {
            let work = self.work();
            if fits(&work) { Ok(work) } else { Err(format!("{work:?}, {:?}", self.ready())) }
        })
    }

    /// Rows of `orch ps`.
    fn rows(&self) -> Vec<Value> {
        let output = self.orch(&["ps", "web", "-o", "json"]);
        match output.code {
            0 => output.json().as_array().cloned().unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Those that take traffic.
    fn ready(&self) -> Vec<Value> {
        let mut rows = self.rows();
        rows.retain(|row| row["ready"] == true && row["state"] == "running");
        rows
    }

    #[track_caller]
    fn wait_ready_on(&self, node: &str) -> Vec<Value> {
        wait_until(&format!("two ready replicas on {node}"), LONG, || {
            let rows = self.ready();
            let there = rows.iter().filter(|row| row["node"] == node).count();
            if there == 2 && rows.len() == 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
    }

    /// Cuts the wire; how long it took until the node was lost.
    fn cut(&self) -> Duration {
        let began = Instant::now();
        self.edge.ip(&["link", "set", "wire", "down"]);
        self.wait_for_node("far", "lost");
        let took = began.elapsed();
        println!("from the cut to the node being lost (timeout {NODE_TIMEOUT}): {took:?}");
        took
    }

    fn heal(&self) {
        self.edge.ip(&["link", "set", "wire", "up"]);
        self.wait_for_node("far", "ready");
    }
}

fn number(name: &str) -> u32 {
    name.split('-').filter_map(|part| part.parse().ok()).next_back().unwrap_or_default()
}

fn allocations(rows: &[Value]) -> Vec<(String, String, u64)> {
    rows.iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            (text("id"), text("container_id"), row["restarts"].as_u64().unwrap_or_default())
        })
        .collect()
}

impl Drop for Split {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.kill();
            if std::thread::panicking() {
                process.show_log();
            }
        }
        // Work outlives its agent by design; here it must not.
        kill_processes_under(self.directory.path());
    }
}

#[test]
fn a_host_cut_off_is_replaced_and_keeps_its_work_when_it_returns() {
    let mut split = Split::start();
    split.run("");
    let before = allocations(&split.wait_ready_on("far"));
    let processes = split.work();
    assert_eq!(processes.len(), 2);
    split.near();
    split.cut();
    split.wait_ready_on("near");
    let all = split.wait_for_work("four processes on both sides", |work| work.len() == 4);
    assert!(processes.iter().all(|pid| all.contains(pid)), "the cut-off side goes on");
    split.heal();
    let left = split.wait_for_work("the wanted two", |work| work.len() == 2);
    assert_eq!(left, processes, "the older ones are kept, the replacements end");
    assert_eq!(allocations(&split.wait_ready_on("far")), before, "nothing was restarted");
}

#[test]
fn a_job_that_waits_is_not_replaced_within_its_time() {
    let mut split = Split::start();
    split.run("disconnect: { replace_after: 1m }\n");
    let before = allocations(&split.wait_ready_on("far"));
    let processes = split.work();
    split.near();
    split.cut();
    // A job that came later is placed at once: planners have had their look at this one as well.
    let file = split.directory.path().join("later.yaml");
    std::fs::write(&file, "job: later\nreplicas: 1\ncommand: [sleep, \"1000\"]\n").unwrap();
    split.orch(&["run", &file.display().to_string()]).ok();
    assert_eq!(split.work(), processes, "nothing was replaced");
    split.heal();
    assert_eq!(allocations(&split.wait_ready_on("far")), before);
    assert_eq!(split.work(), processes);
}

#[test]
fn a_cut_off_agent_stops_what_must_not_run_unseen() {
    let mut split = Split::start();
    split.run("disconnect: { stop_after: 2s }\n");
    split.wait_ready_on("far");
    let processes = split.work();
    split.near();
    let began = Instant::now();
    split.cut();
    let gone = |work: &[u32]| processes.iter().all(|pid| !work.contains(pid));
    split.wait_for_work("the cut-off ones to end by themselves", gone);
    println!("from the cut to the end of the work (stop_after 2s): {:?}", began.elapsed());
    split.wait_ready_on("near");
    let replacements = split.work();
    split.heal();
    // What was ended there is not begun anew at the cost of what runs.
    wait_until("nothing left of the job on the node that came back", LONG, || {
        let rows = split.rows();
        let there = rows.iter().all(|row| row["node"] == "near" && row["ready"] == true);
        if rows.len() == 2 && there { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let left = split.wait_for_work("two processes", |work| work.len() == 2);
    assert_eq!(left, replacements, "the replacements are kept");
}
