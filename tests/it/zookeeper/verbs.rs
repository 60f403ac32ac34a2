//! `orch zk`: an operator looks at nodes and changes them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Cluster, command};

#[test]
fn an_operator_looks_at_nodes_and_changes_them() {
    let cluster = Cluster::start(1);
    let orch = |arguments: &[&str]| cluster.orch(arguments);
    orch(&["zk", "get", "/app"]).code(3);
    orch(&["zk", "set", "/app/a", "x", "--create"]).code(3).says(&["/app"]);
    orch(&["zk", "set", "/app", "hello", "--create"]).ok();
    let again = orch(&["zk", "set", "/app", "hello 2", "--create", "-o", "json"]).ok().json();
    assert_eq!((&again["created"], &again["version"]), (&Value::from(false), &Value::from(1)));
    orch(&["zk", "set", "/app", "late", "--version", "0"]).code(4).says(&["another version"]);
    orch(&["zk", "set", "/app", "in time", "--version", "1"]).ok();
    assert_eq!(orch(&["zk", "get", "/app"]).ok().stdout, "in time");
    for child in ["/app/b", "/app/a", "/app/a/deep"] {
        orch(&["zk", "set", child, child, "--create"]).ok();
    }
    let node = orch(&["zk", "get", "/app", "-o", "json"]).ok().json();
    assert_eq!(node["data"], "in time");
    assert_eq!((&node["stat"]["version"], &node["stat"]["children"]), (&2.into(), &2.into()));
    assert_eq!(node["acl"][0]["perms"], "cdrwa");
    let names: Vec<Value> = orch(&["zk", "ls", "/app", "-o", "json"])
        .ok()
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let tree = orch(&["zk", "tree", "/app", "--depth", "1", "-o", "json"]).ok().json();
    let counts: Vec<(&str, u64, u64)> = tree["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let number = |key: &str| row[key].as_u64().unwrap();
            (row["path"].as_str().unwrap(), number("nodes"), number("bytes_below"))
        })
        .collect();
    assert_eq!(counts, [("/app", 4, 30), ("/app/a", 2, 17), ("/app/b", 1, 6)]);
    let dump = orch(&["zk", "dump", "/app"]).ok().stdout;
    let paths: Vec<String> = dump
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].to_string())
        .collect();
    assert_eq!(paths, ["\"/app\"", "\"/app/a\"", "\"/app/a/deep\"", "\"/app/b\""]);
    let summary = orch(&["zk", "stat", "-o", "json"]).ok().json();
    assert_eq!(summary["nodes"], 8);
    orch(&["zk", "rm", "/app"]).code(4).says(&["children"]);
    orch(&["zk", "rm", "/zookeeper/quota"]).code(4);
    let removed = orch(&["zk", "rm", "-r", "/app", "-o", "json"]).ok().json();
    assert_eq!(removed["nodes"], 4);
    orch(&["zk", "stat", "/app"]).code(3);
    orch(&["zk", "get", "no-path"]).code(2);
}

#[test]
fn changes_are_told_from_where_one_was() {
    let cluster = Cluster::start(1);
    let position = cluster.orch(&["zk", "stat", "-o", "json"]).ok().json()["position"].to_string();
    for (path, data) in [("/w", "1"), ("/w/a", "1"), ("/other", "1"), ("/w/a", "2")] {
        cluster.orch(&["zk", "set", path, data, "--create"]).ok();
    }
    cluster.orch(&["zk", "rm", "/w/a"]).ok();
    let address = cluster.api_address("s1");
    let mut watching = command(
        &[("ORCH_ADDR", &address)],
        &["zk", "watch", "/w", "-r", "--since", &position, "-o", "json"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let told: Vec<(String, String)> = lines
        .take(4)
        .map(|line| {
            let change: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |key: &str| change[key].as_str().unwrap().to_owned();
            (text("change"), text("path"))
        })
        .collect();
    watching.kill().unwrap();
    watching.wait().unwrap();
    let expected = [("created", "/w"), ("created", "/w/a"), ("data", "/w/a"), ("deleted", "/w/a")];
    assert_eq!(told, expected.map(|(change, path)| (change.to_owned(), path.to_owned())));
    // What has not come yet can't be gone on from.
    let reply = cluster.http("s1").try_get("/v1/zk/watch?since=999999").unwrap();
    assert_eq!(reply.status, 410, "{}", reply.text());
}
