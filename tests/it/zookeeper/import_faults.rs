//! `orch zk import` when something is wrong: a source that there is not, a copy that is not the
//! source, and what was sent for an earlier copy.

use std::net::TcpListener;
use std::process::Stdio;

use orch::migrate::zookeeper::chunks::first_rows;
use serde_json::{Value, json};

use super::migration_faults::S;
use crate::support::zookeeper_leader::FakeLeader;
use crate::support::{Cluster, LONG, Output, command, orch_with, wait_until};

const IMPORT: &str = "/v1/zk/imports/import";
const BYTES: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

fn row(cluster: &Cluster) -> Value {
    cluster.http("s1").get(IMPORT).ok().value()
}

fn step(cluster: &Cluster, step: &Value) -> (u16, Value) {
    let reply = cluster.http("s1").json("POST", &format!("{IMPORT}/steps"), step);
    (reply.status, reply.value())
}

/// Sends the rows of an empty tree as the first of the copy that `query` names.
fn send_rows(cluster: &Cluster, query: &str) -> (u16, String) {
    let rows = first_rows();
    let body = [&u32::try_from(rows.len()).unwrap().to_be_bytes()[..], &rows].concat();
    let reply = cluster.http("s1").send("POST", &format!("{IMPORT}/rows?{query}"), &BYTES, body);
    let reply = reply.unwrap();
    (reply.status, reply.text())
}

#[test]
fn a_wrong_source_is_told_before_any_server_is_asked() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let import =
        |source: &str| orch_with(&[("ORCH_ADDR", &nobody)], &["zk", "import", source], b"");
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().display().to_string();
    let silent = format!("observer://{nobody}");
    for (source, says) in [
        ("/nonexistent", ["/nonexistent: No such file", "dataDir names in the source's zoo.cfg"]),
        (empty.as_str(), ["no files snapshot.* or log.*", "dataDir names in zoo.cfg"]),
        (silent.as_str(), [nobody.as_str(), "quorum ports"]),
    ] {
        let told = import(source).code(1).says(&says);
        assert!(!told.stderr.contains("no server answers"), "{}", told.stderr);
    }
}

#[test]
fn what_was_sent_for_an_earlier_copy_has_no_place_in_the_next() {
    let leader = FakeLeader::start(S, &[("/app", "one")]);
    let cluster = Cluster::start(1);
    // An earlier command got no further than this, as far as can be seen.
    let begun = step(&cluster, &json!({"step": "start", "source": leader.name()}));
    let early = begun.1["generation"].as_u64().unwrap();
    assert_eq!((begun.0, &begun.1["next_chunk"]), (200, &json!(0)));
    // Something is here, so that the next one ends before its copy goes in.
    cluster.orch(&["zk", "set", "/keep", "mine", "--create"]).ok();
    cluster.orch(&["zk", "import", &leader.name()]).code(4).says(&["--existing"]);
    let whole = row(&cluster);
    let generation = whole["generation"].as_u64().unwrap();
    assert!(generation > early && whole["phase"] == "following", "{whole}");

    // What the earlier one had on its way comes now.
    let late = format!("generation={early}&from=0");
    let anew = json!({"step": "anew", "generation": generation});
    for copying in [false, true] {
        if copying {
            let (status, row) = step(&cluster, &anew);
            assert_eq!((status, &row["phase"]), (200, &json!("copying")));
        }
        let before = row(&cluster);
        let zxid = format!("{S:#x}");
        for late in [
            json!({"step": "copied", "generation": early, "zxid": zxid, "fuzzy": true}),
            json!({"step": "exact", "generation": early}),
            json!({"step": "anew", "generation": early}),
            json!({"step": "abort", "generation": early, "reason": "it differs"}),
            json!({"step": "merge", "generation": early, "at": "/", "only": "/", "existing": "keep"}),
        ] {
            let (status, problem) = step(&cluster, &late);
            assert_eq!(status, 409, "{late}: {problem}");
            assert!(problem.to_string().contains("begun anew"), "{late}: {problem}");
        }
        let (status, problem) = send_rows(&cluster, &late);
        assert!(status == 409 && problem.contains("begun anew"), "{status}: {problem}");
        let path = format!("{IMPORT}/transactions?generation={early}&after={zxid}");
        let refused = cluster.http("s1").send("POST", &path, &BYTES, Vec::new()).unwrap();
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert_eq!(row(&cluster), before);
    }
    // Who does not say for which copy it is, is told to.
    let (status, problem) = send_rows(&cluster, "from=0");
    assert!(status == 400 && problem.contains("generation"), "{status}: {problem}");
    let current = row(&cluster)["generation"].clone();
    let (status, row) = send_rows(&cluster, &format!("generation={current}"));
    assert_eq!(status, 200, "{row}");
}

/// Imports from `leader`, whose snapshots look different from the second copy on.
fn import_and_differ(cluster: &Cluster, leader: &FakeLeader) -> Output {
    // One to see whether it lets an observer in, one for the copy.
    leader.source().snapshots = 2;
    let address = cluster.api_address("s1");
    let words = ["zk", "import", &leader.name()];
    let importing = command(&[("ORCH_ADDR", &address)], &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the copy to be whole", LONG, || {
        let reply = cluster.http("s1").try_get(IMPORT)?;
        let there = reply.status == 200 && reply.value()["phase"] == "following";
        there.then_some(()).ok_or_else(|| reply.text())
    });
    leader.source().nodes[1].1 = b"else".to_vec();
    leader.source().snapshots = usize::MAX;
    Output::of(&words, importing.wait_with_output().unwrap())
}

#[test]
fn a_copy_that_is_not_the_source_is_given_up_and_copied_anew_the_next_time() {
    let leader = FakeLeader::start(S, &[("/app", "one"), ("/app/a", "a")]);
    let cluster = Cluster::start(1);
    let given_up = import_and_differ(&cluster, &leader).code(1);
    given_up.says(&["differs from the source: /app/a: its data", "copies it anew"]);
    let aborted = row(&cluster);
    assert_eq!(aborted["phase"], "aborted", "{aborted}");
    assert!(aborted["reason"].as_str().unwrap().contains("/app/a"), "{aborted}");
    cluster.orch(&["zk", "get", "/app"]).code(3);
    let done = cluster.orch(&["zk", "import", &leader.name(), "-o", "json"]).ok();
    assert_eq!(done.json()["proof"], "comparison", "{}", done.stderr);
    assert_eq!(cluster.orch(&["zk", "get", "/app/a"]).ok().stdout, "else");
    assert!(row(&cluster)["generation"].as_u64() > aborted["generation"].as_u64());
}
