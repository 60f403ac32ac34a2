//! One server's clock is an hour off: what is promised in time is still kept in time.

use std::time::{Duration, Instant};

use orch::jute::request::{CreateRequest, PathRequest, WatchRequest};
use orch::jute::{Acl, ErrorCode, Op};
use orch::zookeeper::client::{Client, ClientError, Ensemble, Options};
use serde_json::Value;

use super::servers::{Doors, Servers, Setup};
use crate::support::{LONG, SHORT, wait_until};

/// Of sessions here; as long as the node timeout.
const SESSION: Duration = Duration::from_secs(3);
/// Longer than both.
const HOLD: Duration = Duration::from_secs(5);
const HOUR: i64 = 3600;

fn connect(doors: &Doors) -> Client {
    let servers = doors.servers.iter().map(|(_, _, zk)| zk.clone()).collect();
    let ensemble = Ensemble { servers, chroot: String::new() };
    let options = Options { timeout: SESSION, ..Options::default() };
    let connected = doors.runtime.spawn(async move { Client::connect(&ensemble, options).await });
    doors.runtime.block_on(connected).unwrap().unwrap().0
}

/// A node that goes with the client's session.
fn make(doors: &Doors, client: &Client, path: &str) {
    wait_until(&format!("{path} to be made"), LONG, || {
        let (client, path) = (client.clone(), path.to_owned());
        let made = doors.runtime.spawn(async move {
            let (data, acl) = (Some(&b""[..]), vec![Acl::open()]);
            let request = CreateRequest { path: &path, data, acl, flags: 1 };
            client.request(Op::Create.number(), &request).await?.await?.done()
        });
        match doors.runtime.block_on(made).unwrap() {
            Ok(()) | Err(ClientError::Refused(ErrorCode::NodeExists)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Whether a node is there now.
fn is_there(doors: &Doors, client: &Client, path: &str) -> Result<bool, String> {
    let (client, path) = (client.clone(), path.to_owned());
    let found = doors.runtime.spawn(async move {
        let sync = client.request(Op::Sync.number(), &PathRequest { path: &path }).await?;
        let request = WatchRequest { path: &path, watch: false };
        let exists = client.request(Op::Exists.number(), &request).await?;
        sync.await?.done()?;
        Ok::<bool, ClientError>(exists.await?.err == 0)
    });
    doors.runtime.block_on(found).unwrap().map_err(|error| error.to_string())
}

struct World {
    servers: Servers,
    doors: Doors,
    /// Lives all the time, with the node `/alive`.
    client: Client,
    deaths: usize,
}

impl World {
    fn start() -> Self {
        let servers = Servers::start(Setup { count: 3, preload: true, ..Setup::default() });
        let doors = servers.doors();
        let client = connect(&doors);
        make(&doors, &client, "/alive");
        Self { servers, doors, client, deaths: 0 }
    }

    fn nodes(&self) -> Vec<Value> {
        let leader = self.servers.leader().unwrap_or(0);
        let nodes = self.servers.json(leader, "/v1/nodes").unwrap_or_default();
        nodes["items"].as_array().cloned().unwrap_or_default()
    }

    fn wait_for_node(&self, name: &str, state: &str) {
        wait_until(&format!("node {name} to be {state}"), LONG, || {
            let nodes = self.nodes();
            let found = nodes.iter().any(|node| node["name"] == name && node["state"] == state);
            if found { Ok(()) } else { Err(format!("{nodes:?}")) }
        });
    }

    /// For longer than all time-outs: whoever is there stays.
    fn hold(&self, when: &str, node: &str) {
        let until = Instant::now() + HOLD;
        while Instant::now() < until {
            // Without an answer, as during an election, nothing is known.
            if let Ok(there) = is_there(&self.doors, &self.client, "/alive") {
                assert!(there, "{when}: a session that pings has expired");
            }
            for row in self.nodes() {
                let fine = row["name"] != node || row["state"] == "ready";
                assert!(fine, "{when}: a node that is heard is {row}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whoever falls silent goes.
    fn one_dies(&mut self, when: &str) {
        self.deaths += 1;
        let path = format!("/dies-{}", self.deaths);
        let client = connect(&self.doors);
        make(&self.doors, &client, &path);
        // The connection goes, the session stays.
        drop(client);
        wait_until(&format!("{when}: a silent session to expire"), SHORT, || {
            match is_there(&self.doors, &self.client, &path)? {
                false => Ok(()),
                true => Err("its node is there".to_owned()),
            }
        });
    }

    /// Runs a job of one replica whose place is kept for some time when its node is lost.
    fn run(&self, name: &str, replace_after: &str) {
        let file = self.servers.path().join(format!("{name}.yaml"));
        let text = format!(
            "job: {name}\nreplicas: 1\ncommand: [sleep, \"100000\"]\nstop_grace: 1s\n\
             resources: {{ cpu: 0.1, memory: 16Mi }}\n\
             disconnect: {{ replace_after: {replace_after} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        self.servers.orch(0, &["run", "--detach", &file.display().to_string()]).ok();
    }

    /// Nodes on which a job runs, as far as anybody knows.
    fn places(&self, job: &str) -> Vec<String> {
        let output = self.servers.orch(0, &["ps", job, "-o", "json"]);
        let rows = if output.code == 0 { output.json() } else { Value::Null };
        let running = |row: &&Value| row["state"] == "running";
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().filter(running).map(|row| row["node"].as_str().unwrap().to_owned()).collect()
    }

    fn wait_for_place(&self, job: &str, node: &str) {
        wait_until(&format!("{job} to run on {node}"), LONG, || {
            let places = self.places(job);
            if places.iter().any(|place| place == node) {
                Ok(())
            } else {
                Err(format!("{places:?}"))
            }
        });
    }

    fn lead(&self, at: usize) {
        wait_until("leadership to move", LONG, || {
            self.servers.lead(at)?;
            match self.servers.leader() {
                Some(leader) if leader == at => Ok(()),
                other => Err(format!("{other:?} leads")),
            }
        });
    }
}

#[test]
fn sessions_and_nodes_outlive_a_leader_whose_clock_is_off() {
    let mut world = World::start();
    world.servers.agent("n1", &["--cpu", "4", "--memory", "4Gi"]);
    world.wait_for_node("n1", "ready");
    world.lead(0);
    for (at, off) in [(1, HOUR), (2, -HOUR)] {
        world.servers.shift_clock(at, off);
        world.lead(at);
        let when = format!("the leader's clock is off by {off} s");
        world.hold(&when, "n1");
        world.one_dies(&when);
        world.lead(0);
        let when = format!("the leader before was off by {off} s");
        world.hold(&when, "n1");
        world.one_dies(&when);
    }
    for off in [HOUR, -HOUR] {
        world.servers.shift_clock(0, off);
        let when = format!("the leader's clock jumped by {off} s");
        world.hold(&when, "n1");
        world.one_dies(&when);
        world.servers.shift_clock(0, 0);
    }
}

#[test]
fn deadlines_pass_when_they_should_although_the_leader_s_clock_is_set() {
    let mut world = World::start();
    world.servers.agent("n1", &["--cpu", "4", "--memory", "4Gi"]);
    world.wait_for_node("n1", "ready");
    world.run("soon", "1s");
    world.run("later", "30m");
    world.wait_for_place("soon", "n1");
    world.wait_for_place("later", "n1");
    world.servers.agent("n2", &["--cpu", "4", "--memory", "4Gi"]);
    world.wait_for_node("n2", "ready");
    world.lead(0);
    world.servers.shift_clock(0, -HOUR);
    world.servers.kill_agent(0);
    world.wait_for_node("n1", "lost");
    world.wait_for_place("soon", "n2");
    world.servers.shift_clock(0, HOUR);
    world.hold("the leader's clock jumped by two hours", "n2");
    assert!(!world.places("later").contains(&"n2".to_owned()), "half an hour has not passed");
}
