//! `orch zk migrate cutover` when something happens in the middle of it: another copy, a digest that
//! is wrong at the last moment, an answer that gets lost.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::migration_faults::{CutOver, OpenPort, S, start, status, wait_until_following};
use crate::support::zookeeper::CLIENT_PORT;
use crate::support::zookeeper_leader::{Answer, FakeLeader};
use crate::support::{Cluster, LONG, LoopbackAddress, orch_with, wait_until};

/// One server with an endpoint that follows `leader`.
fn following(leader: &FakeLeader) -> Cluster {
    let mut cluster = Cluster::empty();
    let endpoint = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    cluster.server("s1", &["--zk-addr", &endpoint]);
    cluster.wait_for_voters(1);
    start(&cluster, &leader.name(), &[]);
    wait_until_following(&cluster, S);
    cluster
}

#[test]
fn a_source_that_was_copied_anew_since_the_comparison_is_not_cut_over() {
    let leader = FakeLeader::start(S, &[("/app", "one")]);
    let port = OpenPort::new();
    let cluster = following(&leader);
    let cut_over = CutOver::until_it_asks(&cluster, &port.address.to_string());
    let compared = status(&cluster);
    // Another of its servers leads, has no transactions to go on with, and something else below.
    leader.restart(|source| {
        source.answer = Answer::Snapshot;
        source.nodes.push(("/app/other".to_owned(), Vec::new()));
    });
    wait_until("another copy to follow", LONG, || {
        let row = status(&cluster);
        let there = row["phase"] == "following"
            && row["generation"].as_u64() > compared["generation"].as_u64();
        there.then_some(()).ok_or_else(|| row.to_string())
    });
    drop(port);
    let refused = cut_over.end().code(1);
    refused.says(&["copied anew since the comparison", "Nothing was cut over", "is following"]);
    assert_eq!(status(&cluster)["phase"], "following");
    cluster.orch(&["zk", "get", "/app"]).code(3);
}

#[test]
fn what_is_not_proven_at_the_end_is_compared_once_more() {
    for is_right in [true, false] {
        let leader = FakeLeader::start(S, &[("/app", "one"), ("/app/a", "a")]);
        let port = OpenPort::new();
        let cluster = following(&leader);
        let cut_over = CutOver::until_it_asks(&cluster, &port.address.to_string());
        // The last thing that comes has a digest that is not the copy's.
        leader.source().snapshots = 0;
        leader.set("/app", b"last", Some(1));
        wait_until("the mismatch to be seen", LONG, || {
            let row = status(&cluster);
            let seen = row["unverified_since"].is_string();
            seen.then_some(()).ok_or_else(|| row.to_string())
        });
        assert!(status(&cluster)["compare_since"].is_null(), "nobody has asked for it yet");
        drop(port);
        wait_until("another comparison to be asked for", LONG, || {
            let row = status(&cluster);
            let asked = row["compare_since"].is_string();
            asked.then_some(()).ok_or_else(|| row.to_string())
        });
        if !is_right {
            leader.source().nodes[1].1 = b"else".to_vec();
        }
        leader.source().snapshots = usize::MAX;
        let ended = cut_over.end();
        let row = status(&cluster);
        if is_right {
            assert_eq!(ended.ok().json()["zxid"], format!("{:#x}", S + 1));
            assert_eq!(row["compared_at"], format!("{:#x}", S + 1), "{row}");
            assert_eq!(cluster.orch(&["zk", "get", "/app"]).ok().stdout, "last");
        } else {
            ended
                .code(4)
                .says(&["differs from the source: /app/a: its data", "Nothing was cut over"]);
            assert_eq!(row["phase"], "stopped", "{row}");
            cluster.orch(&["zk", "get", "/app"]).code(3);
        }
    }
}

/// The way to a server's API on which answers to a cut-over get lost.
struct LossyWay {
    address: SocketAddr,
    lost: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl LossyWay {
    /// The first `most` answers are lost.
    fn to(server: &str, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (lost, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let server = server.trim_start_matches("http://").to_owned();
        let (counted, stopped) = (lost.clone(), stop.clone());
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (stream, TcpStream::connect(&server)) else {
                    continue;
                };
                let lost = counted.clone();
                std::thread::spawn(move || carry(&client, &server, &lost, most));
            }
        });
        Self { address, lost, stop, accepting: Some(accepting) }
    }
}

impl Drop for LossyWay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes whoever accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Carries requests and answers until one of the two goes, or an answer gets lost.
fn carry(client: &TcpStream, server: &TcpStream, lost: &AtomicUsize, most: usize) {
    let loses = AtomicBool::new(false);
    let loses = &loses;
    std::thread::scope(|scope| {
        let (mut from, mut to) = (server, client);
        scope.spawn(move || {
            let mut block = [0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut block) {
                // The server has carried it out: this is what it says of it.
                if loses.load(Ordering::SeqCst) && lost.load(Ordering::SeqCst) < most {
                    lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                if to.write_all(&block[..count]).is_err() {
                    break;
                }
            }
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
        let (mut from, mut to) = (client, server);
        let (mut block, mut said) = ([0; 64 << 10], Vec::new());
        while let Ok(count @ 1..) = from.read(&mut block) {
            said.extend_from_slice(&block[..count]);
            let asks = said.windows(b"\"cut_over\"".len()).any(|words| words == b"\"cut_over\"");
            loses.store(asks, Ordering::SeqCst);
            if to.write_all(&block[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn a_cut_over_whose_answer_was_lost_is_told_as_it_is() {
    // Once it asks again and hears the same; if no answer ever comes, the state itself says it.
    for most in [1, usize::MAX] {
        let leader = FakeLeader::start(S, &[("/app", "one")]);
        let cluster = following(&leader);
        let way = LossyWay::to(&cluster.api_address("s1"), most);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let words = ["zk", "migrate", "cutover", "move", "--client-ports", &closed, "--force"];
        let address = way.address.to_string();
        let done =
            orch_with(&[("ORCH_ADDR", &address)], &[&words[..], &["-o", "json"]].concat(), b"");
        let done = done.ok();
        assert_eq!(done.json()["zxid"], format!("{S:#x}"), "{}", done.stderr);
        let lost = way.lost.load(Ordering::SeqCst);
        if most == 1 {
            assert_eq!(lost, 1, "{}", done.stderr);
            assert!(!done.stderr.contains("the clients are here"), "{}", done.stderr);
        } else {
            assert!(lost > 1, "{lost}");
            done.says(&["but move is cut over: the clients are here"]);
        }
        assert_eq!(status(&cluster)["phase"], "cut_over");
        assert_eq!(cluster.orch(&["zk", "get", "/app"]).ok().stdout, "one");
    }
}
