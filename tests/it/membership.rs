//! Servers: joining, any of them answering, leaving in order, and identities that can't be reused.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::writer::{Writers, figures, gaps};
use crate::support::{Cluster, LONG, SHORT, wait_until};

#[test]
fn a_server_joins_as_learner_and_becomes_voter_by_itself() {
    let mut cluster = Cluster::start(1);
    let s1 = cluster.server_rows("s1").unwrap();
    assert_eq!((s1.len(), &s1[0]["role"]), (1, &json!("leader")));
    cluster.http("s1").json("PUT", "/v1/variables/before", &json!("joining")).ok();
    cluster.server("s2", &[]);
    cluster.server("s3", &[]);
    cluster.wait_for_voters(3);
    // What was written before it came is there.
    let read = cluster.http("s3").get("/v1/variables/before?consistency=stale").ok();
    assert!(read.text().contains("joining"), "{}", read.text());
    for row in cluster.server_rows("s2").unwrap() {
        for key in ["name", "id", "role", "rpc_addr", "last_log_index", "reachable"] {
            assert!(!row[key].is_null(), "{key} in {row}");
        }
    }
}

#[test]
fn any_server_answers_any_request() {
    let cluster = Cluster::start(3);
    let servers = cluster.servers();
    for writer in &servers {
        let path = format!("/v1/variables/from/{writer}");
        cluster.http(writer).json("PUT", &path, &json!({ "by": writer })).ok();
        // A linearizable read sees it at once, whoever is asked.
        for reader in &servers {
            let reply = cluster.http(reader).get(&path).ok();
            assert!(reply.text().contains(writer.as_str()), "{reader}: {}", reply.text());
        }
    }
    let rows: Vec<_> = servers.iter().map(|s| cluster.server_rows(s).unwrap()).collect();
    for (server, rows) in servers.iter().zip(&rows) {
        let leaders = rows.iter().filter(|row| row["role"] == "leader").count();
        assert_eq!((rows.len(), leaders), (3, 1), "as {server} tells it: {rows:?}");
    }
}

#[test]
fn an_orderly_stop_hands_leadership_over_and_writes_go_on() {
    let mut cluster = Cluster::start(3);
    let addresses: Vec<_> = cluster.servers().iter().map(|s| cluster.api_address(s)).collect();
    let writers = Writers::start(4, &addresses);
    let mut moments = Vec::new();
    for _ in 0..4 {
        cluster.wait_for_voters(3);
        let enough = writers.count() + 100;
        wait_until("writes to go on", LONG, || at_least(writers.count(), enough));
        let leader = cluster.leader();
        moments.push(Instant::now());
        cluster.stop(&leader);
        let next = wait_until("another leader", SHORT, || match cluster.leader() {
            next if next == leader => Err(format!("{next} is said to lead")),
            next => Ok(next),
        });
        assert!(next != leader);
        cluster.start_member(&leader);
    }
    let enough = writers.count() + 100;
    wait_until("writes to go on", LONG, || at_least(writers.count(), enough));
    let acknowledged = writers.finish();
    let gaps = gaps(&acknowledged, &moments);
    println!("{}", figures("from an orderly stop of the leader to the next write", &gaps));
    assert_eq!(gaps.len(), moments.len());
}

#[test]
fn leadership_moves_on_request() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let other = cluster.servers().into_iter().find(|name| *name != leader).unwrap();
    cluster.orch(&["server", "transfer", "--to", &other]).ok();
    wait_until("the other to lead", SHORT, || match cluster.leader() {
        now if now == other => Ok(()),
        now => Err(format!("{now} leads")),
    });
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    // Nobody is left to take over: an orderly stop would have to wait.
    for name in cluster.servers().into_iter().filter(|name| *name != leader) {
        cluster.process(&name).signal(Signal::STOP);
    }
    let process = cluster.process(&leader);
    process.signal(Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let second = Instant::now();
    if process.runs() {
        process.signal(Signal::TERM);
    }
    process.wait(SHORT);
    println!("from the second SIGTERM to the end: {:?}", second.elapsed());
}

#[test]
fn a_removed_server_does_not_come_back() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gone = cluster.servers().into_iter().rfind(|name| *name != leader).unwrap();
    cluster.orch_at(&leader, &["server", "remove", &gone]).ok();
    wait_until("two members", SHORT, || {
        let rows = cluster.server_rows(&leader)?;
        if rows.len() == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    // With its old data it is told so, and ends or stays outside; it takes no part.
    cluster.kill(&gone);
    cluster.spawn(&gone);
    wait_until("it to say that it was removed", LONG, || {
        let log = cluster.log(&gone);
        if log.contains("removed") { Ok(()) } else { Err(tail(&log)) }
    });
    let rows = cluster.server_rows(&leader).unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    // Two of two must do without it.
    cluster.http(&leader).json("PUT", "/v1/variables/after", &json!(1)).ok();
}

#[test]
fn a_server_with_an_empty_log_does_not_take_its_old_place() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let wiped = cluster.servers().into_iter().rfind(|name| *name != leader).unwrap();
    let id = |cluster: &Cluster| {
        let rows = cluster.server_rows(&leader).unwrap();
        rows.iter().find(|row| row["name"] == *wiped).map(|row| row["id"].clone())
    };
    let before = id(&cluster);
    cluster.wipe(&wiped);
    cluster.spawn(&wiped);
    wait_until("it to say what to do", LONG, || {
        let log = cluster.log(&wiped);
        let said = log.contains("server remove");
        if said { Ok(()) } else { Err(tail(&log)) }
    });
    assert_eq!(id(&cluster), before, "the old identity still stands");
    // Once the old identity is removed, it comes in as somebody new.
    cluster.kill(&wiped);
    cluster.orch_at(&leader, &["server", "remove", &wiped]).ok();
    cluster.start_member(&wiped);
    cluster.wait_for_voters(3);
    let after = id(&cluster);
    assert!(after.is_some() && after != before, "{before:?} {after:?}");
}

fn at_least(now: usize, wanted: usize) -> Result<(), String> {
    if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
}

fn tail(log: &str) -> String {
    log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
}
