//! A cluster of real processes on loopback addresses of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::command_line::{Output, command, orch_with};
use super::docker;
use super::process::kill_processes_under;
use super::{Http, LONG, LoopbackAddress, Process, SHORT, wait_until};

const API_PORT: u16 = 7400;
const RPC_PORT: u16 = 7401;
const LOG: &str = "info,openraft=error,sled=warn,h2=warn,hyper=warn,tonic=warn,tower=warn";

/// Servers and agents with their data directories and logs. Everything ends when it is dropped;
/// if the test has failed, the end of each log is shown and the files stay.
#[derive(Debug)]
pub struct Cluster {
    directory: Option<tempfile::TempDir>,
    members: BTreeMap<String, Member>,
}

/// A server or an agent: how it is started, and its process if it runs.
#[derive(Debug)]
pub struct Member {
    /// Where it listens, or where its work does.
    pub address: LoopbackAddress,
    /// Its data directory.
    pub data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    is_server: bool,
    process: Option<Process>,
}

impl Cluster {
    /// Nothing yet.
    pub fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("orch-it-").tempdir().unwrap();
        Self { directory: Some(directory), members: BTreeMap::new() }
    }

    /// Servers `s1` to `sN`, all of them voters.
    pub fn start(servers: usize) -> Self {
        let mut cluster = Self::empty();
        for i in 1..=servers {
            cluster.server(&format!("s{i}"), &[]);
        }
        cluster.wait_for_voters(servers);
        cluster
    }

    /// One server `s1` and one agent `n1` with a runtime.
    pub fn single(runtime: &str) -> Self {
        let mut cluster = Self::start(1);
        cluster.agent("n1", &["--runtime", runtime]);
        cluster
    }

    /// The directory with everybody's data and logs.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// Starts a server that joins those there are, and waits until it answers.
    pub fn server(&mut self, name: &str, more: &[&str]) -> LoopbackAddress {
        let address = self.add_server(name, more);
        self.start_member(name);
        address
    }

    /// Puts a server on the list without starting it.
    pub fn add_server(&mut self, name: &str, more: &[&str]) -> LoopbackAddress {
        let address = LoopbackAddress::next();
        let data_dir = self.path().join(name);
        let mut arguments = words(&["server", "--name", name, "--insecure", "--data-dir"]);
        arguments.push(data_dir.display().to_string());
        arguments.extend(["--api-addr".into(), address.port(API_PORT).to_string()]);
        arguments.extend(["--rpc-addr".into(), address.port(RPC_PORT).to_string()]);
        for other in self.servers() {
            arguments
                .extend(["--join".into(), self.member(&other).address.port(RPC_PORT).to_string()]);
        }
        arguments.extend(words(more));
        self.add(name, address, data_dir, arguments, true);
        address
    }

    /// Starts an agent, and waits until its node is ready.
    pub fn agent(&mut self, name: &str, more: &[&str]) -> LoopbackAddress {
        let address = self.add_agent(name, more);
        self.start_member(name);
        self.wait_for_node(name, "ready");
        address
    }

    /// Puts an agent on the list without starting it.
    pub fn add_agent(&mut self, name: &str, more: &[&str]) -> LoopbackAddress {
        let address = LoopbackAddress::next();
        let data_dir = self.path().join(name);
        let mut arguments = words(&["agent", "--name", name, "--insecure", "--data-dir"]);
        arguments.push(data_dir.display().to_string());
        for server in self.servers() {
            arguments
                .extend(["--join".into(), self.member(&server).address.port(RPC_PORT).to_string()]);
        }
        for (flag, value) in
            [("--address", address.to_string()), ("--bind-address", address.to_string())]
        {
            arguments.extend([flag.to_owned(), value]);
        }
        // Room for tests that start many small things on a small machine.
        if !more.contains(&"--cpu") {
            arguments.extend(words(&["--cpu", "8"]));
        }
        if !more.contains(&"--memory") {
            arguments.extend(words(&["--memory", "8Gi"]));
        }
        arguments.extend(words(more));
        self.add(name, address, data_dir, arguments, false);
        address
    }

    fn add(
        &mut self,
        name: &str,
        address: LoopbackAddress,
        data_dir: PathBuf,
        arguments: Vec<String>,
        is_server: bool,
    ) {
        let log = self.path().join(format!("{name}.log"));
        let environment = vec![("ORCH_LOG".to_owned(), LOG.to_owned())];
        let member =
            Member { address, data_dir, arguments, environment, log, is_server, process: None };
        self.members.insert(name.to_owned(), member);
    }

    /// Starts a member that does not run, as it was started before; of a server waits for an
    /// answer.
    #[track_caller]
    pub fn start_member(&mut self, name: &str) {
        self.spawn(name);
        if self.member(name).is_server {
            self.wait_ready(name);
        }
    }

    /// Starts a member that does not run and waits for nothing.
    #[track_caller]
    pub fn spawn(&mut self, name: &str) {
        let member = self.members.get_mut(name).unwrap_or_else(|| panic!("no member {name}"));
        assert!(member.process.is_none(), "{name} runs already");
        let arguments: Vec<&str> = member.arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            member.environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut command = command(&environment, &arguments);
        member.process = Some(Process::start(name, &mut command, &member.log));
    }

    /// `kill -9` of one member.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut process) = self.member_mut(name).process.take() {
            process.kill();
        }
    }

    /// SIGTERM to one member, and waits for an orderly end.
    #[track_caller]
    pub fn stop(&mut self, name: &str) {
        let mut process = self.member_mut(name).process.take().expect("it runs");
        process.signal(Signal::TERM);
        let status = process.wait(SHORT);
        assert!(status.success(), "{name} ended with {status}; its log:\n{}", process.log());
    }

    /// `kill -9` of one member, and starts it again.
    #[track_caller]
    pub fn restart(&mut self, name: &str) {
        self.kill(name);
        self.start_member(name);
    }

    /// Makes a member forget everything: kills it and removes its data directory.
    pub fn wipe(&mut self, name: &str) {
        self.kill(name);
        std::fs::remove_dir_all(&self.member(name).data_dir).unwrap();
    }

    /// A member by name.
    #[track_caller]
    pub fn member(&self, name: &str) -> &Member {
        self.members.get(name).unwrap_or_else(|| panic!("no member {name}"))
    }

    #[track_caller]
    fn member_mut(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("no member {name}"))
    }

    /// A member's process, which must run.
    #[track_caller]
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.member_mut(name).process.as_mut().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// All that a member has printed since the cluster began.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(&self.member(name).log).unwrap_or_default()
    }

    /// Names of all servers, running or not.
    pub fn servers(&self) -> Vec<String> {
        self.members.iter().filter(|(_, m)| m.is_server).map(|(name, _)| name.clone()).collect()
    }

    fn running_servers(&self) -> Vec<String> {
        self.members
            .iter()
            .filter(|(_, m)| m.is_server && m.process.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// `--api-addr` of a server.
    pub fn api_address(&self, server: &str) -> String {
        self.member(server).address.port(API_PORT).to_string()
    }

    /// A client of one server.
    pub fn http(&self, server: &str) -> Http {
        Http::new(self.api_address(server))
    }

    /// The command line against the first server that runs.
    #[track_caller]
    pub fn orch(&self, arguments: &[&str]) -> Output {
        let server = self.running_servers().into_iter().next().expect("a server runs");
        self.orch_at(&server, arguments)
    }

    /// The command line against one server.
    pub fn orch_at(&self, server: &str, arguments: &[&str]) -> Output {
        let address = format!("http://{}", self.api_address(server));
        orch_with(&[("ORCH_ADDR", &address)], arguments, b"")
    }

    /// Writes a job file into the cluster's directory and returns its path.
    pub fn job_file(&self, text: &str) -> String {
        let directory = self.path().join("jobs");
        std::fs::create_dir_all(&directory).unwrap();
        let count = std::fs::read_dir(&directory).unwrap().count();
        let path = directory.join(format!("{count}.yaml"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a job and waits until the command says that it is up.
    #[track_caller]
    pub fn run(&self, text: &str) -> Output {
        self.orch(&["run", &self.job_file(text)]).ok()
    }

    /// Submits a job and does not wait for it.
    #[track_caller]
    pub fn submit(&self, text: &str) -> Output {
        self.orch(&["run", "--detach", &self.job_file(text)]).ok()
    }

    /// Rows of `orch ps JOB -o json`.
    #[track_caller]
    pub fn ps(&self, job: &str) -> Vec<Value> {
        self.orch(&["ps", job, "-o", "json"]).ok().json().as_array().expect("an array").clone()
    }

    /// Waits until exactly `count` allocations of a job run and are healthy; returns their rows in
    /// the order of their indexes.
    #[track_caller]
    pub fn wait_healthy(&self, job: &str, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} healthy allocations of {job}"), LONG, || {
            let output = self.orch(&["ps", job, "-o", "json"]);
            if output.code != 0 {
                return Err(output.to_string());
            }
            let mut rows: Vec<Value> = output.json().as_array().expect("an array").clone();
            rows.retain(|row| row["state"] == "running" && row["health"] == "healthy");
            rows.sort_by_key(|row| row["index"].as_u64());
            if rows.len() == count { Ok(rows) } else { Err(output.stdout) }
        })
    }

    /// The row of `orch server ls` of the leader.
    #[track_caller]
    pub fn leader(&self) -> String {
        wait_until("a leader", SHORT, || {
            for server in self.running_servers() {
                let Ok(rows) = self.server_rows(&server) else { continue };
                if let Some(row) = rows.iter().find(|row| row["role"] == "leader") {
                    return Ok(row["name"].as_str().unwrap_or_default().to_owned());
                }
            }
            Err("no server names one".to_owned())
        })
    }

    /// Rows of `orch server ls -o json` as one server tells them.
    pub fn server_rows(&self, server: &str) -> Result<Vec<Value>, String> {
        let output = self.orch_at(server, &["server", "ls", "-o", "json"]);
        if output.code != 0 {
            return Err(output.to_string());
        }
        Ok(output.json().as_array().cloned().unwrap_or_default())
    }

    /// Waits until there are that many voters, all reachable, with one leader.
    #[track_caller]
    pub fn wait_for_voters(&self, count: usize) {
        wait_until(&format!("{count} voters"), LONG, || {
            let server = self.running_servers().into_iter().next().ok_or("no server runs")?;
            let rows = self.server_rows(&server)?;
            let voters = rows
                .iter()
                .filter(|row| row["role"] != "learner" && row["reachable"] == true)
                .count();
            let leaders = rows.iter().filter(|row| row["role"] == "leader").count();
            if voters == count && leaders == 1 { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }

    /// Waits until a server says that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, name: &str) {
        let http = self.http(name).timeout(Duration::from_secs(2));
        let process = self.process(name);
        wait_until(&format!("{name} to be ready"), SHORT, || {
            assert!(process.runs(), "{name} has ended:\n{}", process.log());
            let reply = http.try_get("/readyz")?;
            if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
        });
    }

    /// Waits until a node is in a state.
    #[track_caller]
    pub fn wait_for_node(&self, name: &str, state: &str) {
        wait_until(&format!("node {name} to be {state}"), LONG, || {
            let output = self.orch(&["node", "ls", "-o", "json"]);
            if output.code != 0 {
                return Err(output.to_string());
            }
            let nodes = output.json();
            let nodes = nodes.as_array().ok_or("no array")?;
            match nodes.iter().find(|node| node["name"] == name) {
                Some(node) if node["state"] == state => Ok(()),
                Some(node) => Err(format!("it is {}: {}", node["state"], node["reason"])),
                None => Err("no such node".to_owned()),
            }
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for member in self.members.values_mut().rev() {
            if let Some(mut process) = member.process.take() {
                process.kill();
                if failed {
                    process.show_log();
                }
            } else if failed && member.log.exists() {
                eprintln!("--- {} does not run ---", member.log.display());
            }
        }
        let Some(directory) = self.directory.take() else { return };
        // Work outlives its agent by design; here it must not.
        let addresses: Vec<String> =
            self.members.values().filter(|m| !m.is_server).map(|m| m.address.to_string()).collect();
        docker::remove_work_of(&addresses);
        kill_processes_under(directory.path());
        if failed {
            eprintln!("files are kept in {}", directory.keep().display());
        }
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}
