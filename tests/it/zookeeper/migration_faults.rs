//! `orch zk migrate` when something is wrong: a source that lost data, a copy that is not the
//! source, ports that nobody saw, people who change their mind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::zookeeper::{CLIENT_PORT, Options, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::zookeeper_leader::{Answer, FakeLeader};
use crate::support::{Cluster, LONG, LoopbackAddress, Output, command, wait_until};

pub(super) const S: i64 = 3 << 32 | 0x20;

pub(super) fn status(cluster: &Cluster) -> Value {
    cluster.orch(&["zk", "migrate", "status", "move", "-o", "json"]).json()
}

pub(super) fn start(cluster: &Cluster, source: &str, more: &[&str]) {
    cluster.orch(&[&["zk", "migrate", "start", "move", source], more].concat()).ok();
}

/// Waits until the copy follows its source, and has that transaction.
pub(super) fn wait_until_following(cluster: &Cluster, zxid: i64) -> Value {
    wait_until("the copy to follow", LONG, || {
        let row = status(cluster);
        let there = row["phase"] == "following"
            && row["zxid"] == format!("{zxid:#x}")
            && row["heard"].as_u64() > Some(0);
        there.then(|| row.clone()).ok_or_else(|| row.to_string())
    })
}

/// Waits until it has stopped; why.
fn wait_until_stopped(cluster: &Cluster) -> String {
    let reason = wait_until("the migration to stop", LONG, || {
        let row = status(cluster);
        let stopped = row["phase"] == "stopped";
        stopped.then(|| row["reason"].as_str().unwrap().to_owned()).ok_or_else(|| row.to_string())
    });
    // Scripts see it too, and a cut-over is refused with the reason.
    cluster.orch(&["zk", "migrate", "status", "move"]).code(1).says(&[&reason]);
    reason
}

#[test]
fn a_source_that_has_less_than_was_copied_stops_the_migration() {
    for answer in [Answer::Truncate, Answer::Snapshot] {
        let leader = FakeLeader::start(S, &[("/app", "one"), ("/app/a", "a")]);
        let cluster = Cluster::start(1);
        start(&cluster, &leader.name(), &[]);
        let before = wait_until_following(&cluster, S);
        leader.restart(|source| {
            source.zxid = S - 3;
            source.nodes.pop();
            source.answer = answer;
        });
        let reason = wait_until_stopped(&cluster);
        let words = ["lost what it had committed", &format!("{:#x}", S - 3), &format!("{S:#x}")];
        for word in words {
            assert!(reason.contains(word), "{answer:?}: {reason}");
        }
        // What was copied is as it was: nothing is thrown away for a source that has less.
        let after = status(&cluster);
        assert_eq!((&after["digest"], &after["nodes"]), (&before["digest"], &before["nodes"]));
    }
}

#[test]
fn a_real_ensemble_that_lost_data_stops_the_migration() {
    let mut zookeeper = ZooKeeper::ensemble(3, Options::default());
    let stop_all = |zookeeper: &mut ZooKeeper| {
        for index in 0..zookeeper.count() {
            zookeeper.stop(index);
        }
    };
    stop_all(&mut zookeeper);
    let kept = tempfile::tempdir().unwrap();
    let files = |index: usize| kept.path().join(index.to_string());
    for index in 0..zookeeper.count() {
        copy_files(&zookeeper.data_dir(index).join("version-2"), &files(index));
    }
    zookeeper.start_all();
    let mut client = Client::connect(zookeeper.client_address(0), 10_000).unwrap();
    for number in 0..50 {
        client.create(&format!("/lost-{number}"), b"", mode::PERSISTENT);
    }
    client.close();
    let learners: Vec<String> =
        (0..3).map(|index| zookeeper.quorum_address(index).to_string()).collect();
    let cluster = Cluster::start(1);
    start(&cluster, &format!("observer://{}", learners.join(",")), &[]);
    let nodes = wait_until("the copy to have all of it", LONG, || {
        let row = status(&cluster);
        let nodes = row["nodes"].as_u64().unwrap_or(0);
        let there = row["phase"] == "following" && row["lag_transactions"] == 0 && nodes > 50;
        there.then_some(nodes).ok_or_else(|| row.to_string())
    });
    // Its own list of members comes along, whatever the operator named.
    let members = &status(&cluster)["members"];
    assert_eq!(members.as_array().map(Vec::len), Some(3), "{members}");
    assert_eq!(members[0]["quorum"], learners[0]);
    stop_all(&mut zookeeper);
    for index in 0..zookeeper.count() {
        let version_2 = zookeeper.data_dir(index).join("version-2");
        fs::remove_dir_all(&version_2).unwrap();
        copy_files(&files(index), &version_2);
    }
    zookeeper.start_all();
    let reason = wait_until_stopped(&cluster);
    assert!(reason.contains("lost what it had committed"), "{reason}");
    assert_eq!(status(&cluster)["nodes"], nodes);
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_mismatch_is_looked_into_and_only_a_difference_stops() {
    let leader = FakeLeader::start(S, &[("/app", ""), ("/app/a", "one"), ("/app/b", "b")]);
    let mut cluster = Cluster::empty();
    let endpoint = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    cluster.server("s1", &["--zk-addr", &endpoint]);
    cluster.wait_for_voters(1);
    start(&cluster, &leader.name(), &[]);
    wait_until_following(&cluster, S);
    let wrong = |data: &[u8], count: u64| {
        leader.set("/app/a", data, Some(1));
        wait_until("the mismatch to be seen", LONG, || {
            let row = status(&cluster);
            let seen = row["mismatches"] == count && !row["unverified_since"].is_null();
            seen.then_some(()).ok_or_else(|| row.to_string())
        });
    };
    // The digest is wrong, and a fresh copy is the same: it was the source's own mistake.
    wrong(b"two", 1);
    let refused = cluster.orch(&["zk", "migrate", "cutover", "move", "--client-ports", "zk1:1"]);
    refused.code(4).says(&["not proven"]);
    wait_until("a comparison to prove it", LONG, || {
        let row = status(&cluster);
        let proven = row["phase"] == "following"
            && row["unverified_since"].is_null()
            && row["compared_at"] == format!("{:#x}", S + 1);
        proven.then_some(()).ok_or_else(|| row.to_string())
    });
    // Now the source has something else than what came.
    leader.source().nodes[2].1 = b"else".to_vec();
    wrong(b"three", 2);
    let reason = wait_until_stopped(&cluster);
    assert!(reason.contains("differs from the source: /app/b: its data"), "{reason}");
    assert_eq!(status(&cluster)["compared_at"], format!("{:#x}", S + 1));
    let refused = cluster.orch(&["zk", "migrate", "cutover", "move", "--client-ports", "zk1:1"]);
    refused.code(4).says(&["/app/b"]);
}

#[test]
fn a_copy_of_one_moment_has_what_came_while_it_was_taken() {
    let leader = FakeLeader::start(S, &[("/app", "one"), ("/app/a", "a")]);
    // More than go together in one lot.
    let long = vec![b'x'; 300_000];
    for _ in 0..5 {
        leader.set("/app", &long, None);
    }
    leader.set("/app/a", b"last", None);
    let cluster = Cluster::start(1);
    let report = cluster.orch(&["zk", "import", &leader.name(), "-o", "json"]).ok().json();
    assert_eq!((&report["transactions"], &report["nodes"]), (&Value::from(6), &Value::from(3)));
    assert_eq!(cluster.orch(&["zk", "get", "/app/a"]).ok().stdout, "last");
    assert_eq!(cluster.orch(&["zk", "get", "/app"]).ok().stdout.len(), long.len());
}

#[test]
fn what_cannot_be_applied_stops_the_migration_and_is_named() {
    let leader = FakeLeader::start(S, &[("/app", "one")]);
    let cluster = Cluster::start(1);
    start(&cluster, &leader.name(), &[]);
    wait_until_following(&cluster, S);
    leader.set_half("/app");
    let reason = wait_until_stopped(&cluster);
    let named = format!("the transaction {:#x} (node \"/app\")", S + 1);
    assert!(reason.contains(&named), "{reason}");
    // It is a person's turn: what was copied is not thrown away by itself, nor begun anew.
    assert_eq!(status(&cluster)["zxid"], format!("{S:#x}"));
}

/// A cut-over that runs beside the test.
pub(super) struct CutOver {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    told: String,
}

impl CutOver {
    /// Starts it, and reads until it asks to close the ports.
    pub(super) fn until_it_asks(cluster: &Cluster, port: &str) -> Self {
        let address = cluster.api_address("s1");
        let words = ["zk", "migrate", "cutover", "move", "--client-ports", port, "-o", "json"];
        let mut process = command(&[("ORCH_ADDR", &address)], &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut cut_over = Self { process, lines, told: String::new() };
        while !cut_over.told.contains("close ALL client ports") {
            let Some(line) = cut_over.lines.next() else { panic!("{}", cut_over.told) };
            cut_over.told.push_str(&line.unwrap());
        }
        cut_over
    }

    /// Reads to its end.
    pub(super) fn end(mut self) -> Output {
        for line in self.lines {
            self.told.push_str(&line.unwrap());
            self.told.push('\n');
        }
        let mut output =
            Output::of(&["zk", "migrate", "cutover"], self.process.wait_with_output().unwrap());
        output.stderr = self.told;
        output
    }
}

/// A port that takes connections and closes them, until it is dropped.
pub(super) struct OpenPort {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl OpenPort {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let accepting = std::thread::spawn(move || {
            while listener.accept().is_ok() && !stopped.load(Ordering::SeqCst) {}
        });
        Self { address, stop, accepting: Some(accepting) }
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes whoever accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn open(address: &str) -> bool {
    TcpStream::connect(address.parse::<SocketAddr>().unwrap()).is_ok()
}

#[test]
fn a_cut_over_needs_somebody_to_take_the_clients() {
    let leader = FakeLeader::start(S, &[("/app", "one")]);
    let cluster = Cluster::start(1);
    start(&cluster, &leader.name(), &[]);
    wait_until_following(&cluster, S);
    let refused = cluster.orch(&["zk", "migrate", "cutover", "move", "--client-ports", "zk1:1"]);
    refused.code(4).says(&["no server here has an endpoint", "s1 has none", "--zk-addr"]);
}

#[test]
fn a_cut_over_believes_only_what_it_has_seen() {
    let leader = FakeLeader::start(S, &[("/app", "one"), ("/app/a", "a")]);
    let port = OpenPort::new();
    let named = port.address.to_string();
    let endpoint = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--zk-addr", &endpoint]);
    cluster.wait_for_voters(1);
    start(&cluster, &leader.name(), &[]);
    wait_until_following(&cluster, S);
    assert_eq!(cluster.server_rows("s1").unwrap()[0]["zk_addr"], endpoint);

    // A port that was never open says nothing by being closed.
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let both = format!("{named},{other}");
    let ask = |cluster: &Cluster, ports: &str, more: &[&str]| {
        let words = ["zk", "migrate", "cutover", "move", "--client-ports", ports];
        cluster.orch(&[&words[..], more].concat())
    };
    ask(&cluster, &both, &[]).code(4).says(&["never seen open", &other, "--force"]);
    ask(&cluster, "", &[]).code(2);
    // By force it goes on to wait for the one that is open still.
    let waited = ask(&cluster, &both, &["--force", "--timeout", "10s"]).code(1);
    waited.says(&["never seen open", "close ALL client ports", &named, "Nothing was cut over"]);

    // People who change their mind are told how it is.
    let cut_over = CutOver::until_it_asks(&cluster, &named);
    let pid = Pid::from_child(&cut_over.process);
    kill_process(pid, Signal::INT).unwrap();
    let interrupted = cut_over.end().code(130);
    interrupted.says(&["Nothing was cut over", "move is following", "open the client ports"]);
    assert_eq!(status(&cluster)["phase"], "following");
    assert!(!open(&endpoint));

    // The port is closed meanwhile, and was seen open before: that is enough.
    drop(port);
    let done = ask(&cluster, &named, &["-o", "json"]).ok().json();
    assert!(done["without_server_ms"].is_u64(), "{done}");
    assert!(open(&endpoint));
    assert_eq!(cluster.orch(&["zk", "get", "/app/a"]).ok().stdout, "a");
    ask(&cluster, &named, &[]).code(4).says(&["cut over"]);

    // Back again: the endpoint is closed until somebody says what would come of it.
    let back = cluster.path().join("back").display().to_string();
    cluster.orch(&["zk", "migrate", "rollback", "move", "--to", &back, "--yes"]).ok();
    wait_until("the endpoint to close", LONG, || {
        (!open(&endpoint)).then_some(()).ok_or_else(|| "it is open".to_owned())
    });
    let abort = |more: &[&str]| cluster.orch(&[&["zk", "migrate", "abort", "move"], more].concat());
    abort(&[]).code(2).says(&["throws away", "--yes"]);
    assert_eq!(status(&cluster)["phase"], "rolled_back");
    abort(&["--yes"]).ok().says(&["stays closed"]);
    assert_eq!(status(&cluster)["keeps_closed"], true);
    // Also after a restart.
    cluster.kill("s1");
    cluster.restart("s1");
    assert_eq!(status(&cluster)["keeps_closed"], true);
    assert!(!open(&endpoint));
    let abort = |more: &[&str]| cluster.orch(&[&["zk", "migrate", "abort", "move"], more].concat());
    abort(&["--open"]).code(2).says(&["opens the endpoint", "loses its own"]);
    assert!(!open(&endpoint));
    abort(&["--open", "--yes"]).ok();
    wait_until("the endpoint to open", LONG, || {
        open(&endpoint).then_some(()).ok_or_else(|| "it is closed".to_owned())
    });
}
