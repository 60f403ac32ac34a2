//! The REST door: health, metrics, pages, idempotency, streams, and the description of it all.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Cluster, SHORT, wait_until};

#[test]
fn health_and_metrics() {
    let cluster = Cluster::single("process");
    cluster.run("job: one\ncommand: [sh, -c, 'exit 0']\n");
    let http = cluster.http("s1");
    http.get("/healthz").ok();
    http.get("/readyz").ok();
    let metrics = http.get("/metrics").ok().text();
    for word in ["term", "commit", "fsync", "leader", "pending", "agents", "process_"] {
        assert!(metrics.contains(word), "no {word} in:\n{metrics}");
    }
    let names = metrics.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert!(names >= 10, "{metrics}");
}

#[test]
fn openapi_describes_the_routes() {
    let cluster = Cluster::start(1);
    let document = cluster.http("s1").get("/v1/openapi.json").ok().value();
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/v1/jobs", "/v1/nodes", "/v1/servers", "/v1/allocations", "/v1/events"] {
        assert!(paths.contains_key(path), "{path} is not among {:?}", paths.keys());
    }
    // Every list without parameters answers as described.
    for (path, methods) in paths {
        let stream = ["/events", "/watch"].iter().any(|end| path.ends_with(end))
            || path.contains("snapshot");
        if path.contains('{') || methods.get("get").is_none() || stream {
            continue;
        }
        let reply = cluster.http("s1").get(path);
        assert!(reply.status < 300, "GET {path}: {} {}", reply.status, reply.text());
    }
}

#[test]
fn the_same_idempotency_key_gets_the_same_answer_and_one_change() {
    let cluster = Cluster::start(3);
    let headers = |key| [("idempotency-key", key), ("content-type", "application/octet-stream")];
    let put = |server: &str, key, value: &str| {
        let body = value.as_bytes().to_vec();
        cluster.http(server).send("PUT", "/v1/variables/once", &headers(key), body).unwrap()
    };
    let first = put("s1", "key-1", "first").ok().value();
    put("s1", "key-2", "second").ok();
    // The same key again, to another server.
    let again = put("s2", "key-1", "first").ok().value();
    assert_eq!(again, first);
    let now = cluster.http("s3").get("/v1/variables/once").ok().text();
    assert!(now.contains("second"), "{now}");
}

#[test]
fn lists_come_in_pages_that_join_without_gap_or_repeat() {
    let cluster = Cluster::start(1);
    let http = cluster.http("s1");
    for i in 0..25 {
        http.json("PUT", &format!("/v1/variables/page/{i:02}"), &json!(i)).ok();
    }
    let mut found = Vec::new();
    let mut path = "/v1/variables?limit=10".to_owned();
    let mut pages = 0;
    loop {
        let page = http.get(&path).ok().value();
        let rows = page["items"].as_array().unwrap().clone();
        assert!(rows.len() <= 10);
        found.extend(rows.iter().map(|row| row["path"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/variables?limit=10&cursor={cursor}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..25).map(|i| format!("page/{i:02}")).collect();
    assert_eq!((found, pages), (expected, 3));
}

#[test]
fn a_write_can_ask_that_nothing_came_between() {
    let cluster = Cluster::start(1);
    let http = cluster.http("s1");
    let put = |query: &str, value: &str| {
        let path = format!("/v1/variables/cas{query}");
        http.send("PUT", &path, &[], value.as_bytes().to_vec()).unwrap()
    };
    let index = put("?if_index=0", "a").ok().value()["index"].as_u64().unwrap();
    assert_eq!(put("?if_index=0", "b").status, 409);
    put(&format!("?if_index={index}"), "c").ok();
    assert_eq!(put(&format!("?if_index={index}"), "d").status, 409);
}

#[test]
fn server_sent_events_resume_from_an_index() {
    let cluster = Cluster::start(1);
    let http = cluster.http("s1");
    let write = |i: usize| {
        http.json("PUT", &format!("/v1/variables/e/{i}"), &json!(i)).ok();
    };
    (0..5).for_each(write);
    let mut stream = sse(&cluster, 0);
    let first = next_indexes(&mut stream, 3);
    // From the second on, on a new connection: what came after it, and what comes now.
    let mut stream = sse(&cluster, first[1]);
    (5..8).for_each(write);
    let resumed = next_indexes(&mut stream, 4);
    assert_eq!(resumed[0], first[2], "{first:?} {resumed:?}");
    assert!(resumed.windows(2).all(|pair| pair[0] < pair[1]), "{resumed:?}");
}

fn sse(cluster: &Cluster, since: u64) -> BufReader<TcpStream> {
    let address = cluster.api_address("s1");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let request = format!(
        "GET /v1/events?since={since} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The next `count` values of `id:`.
fn next_indexes(stream: &mut BufReader<TcpStream>, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    let mut line = String::new();
    while found.len() < count {
        line.clear();
        let read = stream.read_line(&mut line).unwrap_or_else(|e| panic!("{found:?}, then {e}"));
        assert!(read > 0, "the stream ended after {found:?}");
        if let Some(id) = line.strip_prefix("id:") {
            let index = id.trim().split(['.', '-', ':']).next().unwrap_or_default();
            found.push(index.parse().unwrap_or_else(|e| panic!("{line}: {e}")));
        }
    }
    found
}

#[test]
fn stale_reads_are_answered_without_a_leader_and_others_are_not() {
    let mut cluster = Cluster::start(3);
    cluster.http("s1").json("PUT", "/v1/variables/x", &json!("here")).ok();
    wait_until("it to be everywhere", SHORT, || {
        let reply = cluster.http("s3").try_get("/v1/variables/x?consistency=stale")?;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    });
    for name in ["s1", "s2"] {
        cluster.kill(name);
    }
    let http = cluster.http("s3");
    assert!(http.get("/v1/variables/x?consistency=stale").ok().text().contains("here"));
    wait_until("linearizable reads to be refused", SHORT, || {
        let reply = http.try_get("/v1/variables/x")?;
        if reply.status >= 500 { Ok(()) } else { Err(format!("{} {}", reply.status, reply.text())) }
    });
    http.get("/healthz").ok();
    assert_ne!(http.get("/readyz").status, 200, "it is not ready without a leader");
}
