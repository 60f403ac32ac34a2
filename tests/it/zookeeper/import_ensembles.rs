//! `orch zk import` and `inspect` of running ensembles: by which way, how that is proven, and what
//! is said where there is none.

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orch::jute::{Acl, Id};
use serde_json::{Value, json};

use super::import::make_nodes;
use crate::support::zookeeper::{CLIENT_PORT, Options, QUORUM_PORT, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::{Cluster, LONG, LoopbackAddress, command, wait_until};

fn learners(zookeeper: &ZooKeeper) -> String {
    let ports: Vec<String> =
        (0..zookeeper.count()).map(|index| zookeeper.quorum_address(index).to_string()).collect();
    format!("observer://{}", ports.join(","))
}

/// Three servers whose sessions outlive a slow machine's run: clients here don't say that they live.
fn ensemble(options: Options) -> ZooKeeper {
    ZooKeeper::ensemble(3, options.property("maxSessionTimeout", "600000"))
}

fn connect(zookeeper: &ZooKeeper, index: usize) -> Client {
    Client::connect(zookeeper.client_address(index), 600_000).unwrap()
}

/// What `me:pw` is in access lists.
const ME: &str = "me:xlpJGzVhaayvpHfFn/RwowgwqI4=";

/// Some of everything; the sessions live until the clients are dropped.
fn fill(zookeeper: &ZooKeeper) -> Vec<Client> {
    let (mut client, other) = (connect(zookeeper, 0), connect(zookeeper, 1));
    client.create("/app", b"data", mode::PERSISTENT);
    client.create("/app/box", b"", mode::CONTAINER);
    client.create_ttl("/app/ttl", b"", 3_600_000);
    client.create("/app/mine", b"", mode::EPHEMERAL);
    for _ in 0..5 {
        let job = client.create("/app/job-", b"", mode::SEQUENTIAL);
        client.delete(&job).unwrap();
    }
    let id = Id { scheme: "digest".to_owned(), id: ME.to_owned() };
    client.create_with("/app/secret", b"s", mode::PERSISTENT, vec![Acl { perms: 31, id }]);
    client.create("/größe", b"", mode::PERSISTENT);
    vec![client, other]
}

fn kind(cluster: &Cluster, path: &str) -> Value {
    cluster.orch(&["zk", "stat", path, "-o", "json"]).ok().json()["stat"]["kind"].clone()
}

#[test]
fn an_ensemble_is_copied_whole_by_whichever_name_it_has() {
    let zookeeper = ensemble(Options::default());
    let _clients = fill(&zookeeper);
    let by_clients = format!("zk://{}", zookeeper.connect_string());
    for source in [&learners(&zookeeper), &by_clients] {
        let cluster = Cluster::start(1);
        let inspected = cluster.orch(&["zk", "inspect", &learners(&zookeeper), "-o", "json"]);
        let inspected = inspected.ok().json();
        let done = cluster.orch(&["zk", "import", source, "-o", "json"]).ok();
        let through = done.stderr.contains("as an observer, through the quorum port");
        assert_eq!(through, *source == by_clients, "{}", done.stderr);
        let report = done.json();
        assert_eq!(report["proven"], true, "{report}");
        assert_eq!((&report["losses"], &report["sessions"]), (&json!([]), &json!(2)));
        let digest = inspected["inventory"]["digest"].as_u64().unwrap();
        assert_eq!(report["digest"], format!("{digest:#018x}"), "{report}");
        for (path, is) in
            [("/app/box", "container"), ("/app/ttl", "ttl"), ("/app/mine", "ephemeral")]
        {
            assert_eq!(kind(&cluster, path), is, "{path}");
        }
        let secret = cluster.orch(&["zk", "stat", "/app/secret", "-o", "json"]).ok().json();
        assert_eq!(secret["acl"][0]["id"], ME);
        let stat = cluster.orch(&["zk", "stat", "/app", "-o", "json"]).ok().json();
        assert_eq!((&stat["stat"]["children"], &stat["stat"]["cversion"]), (&json!(4), &json!(14)));
    }
    let cluster = Cluster::start(1);
    let as_client = ["zk", "import", &by_clients, "--as-client", "-o", "json"];
    cluster.orch(&as_client).code(1).says(&["/app/secret", "--auth"]);
    let done = cluster.orch(&[&as_client[..], &["--auth", "digest:me:pw"]].concat()).ok();
    assert!(done.json()["losses"].to_string().contains("1 ephemeral"), "{}", done.stdout);
    assert_eq!(kind(&cluster, "/app/box"), "persistent");
}

#[test]
fn an_ensemble_that_says_no_digests_is_proven_by_a_second_copy() {
    let zookeeper = ensemble(Options::default().java("-Dzookeeper.digest.enabled=false"));
    let _clients = fill(&zookeeper);
    let source = learners(&zookeeper);
    let mut cluster = Cluster::empty();
    let endpoint = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    cluster.server("s1", &["--zk-addr", &endpoint]);
    let done = cluster.orch(&["zk", "import", &source, "--at", "/copy", "-o", "json"]).ok();
    let report = done.json();
    assert_eq!((&report["proven"], &report["proof"]), (&json!(true), &json!("comparison")));
    assert!(done.stderr.contains("the source says no digest"), "{}", done.stderr);
    cluster.orch(&["zk", "rm", "/copy", "-r"]).ok();

    // And while it is followed.
    let address = LoopbackAddress::next().port(CLIENT_PORT);
    let door = TcpListener::bind(address).unwrap();
    let clients = format!("zk://{address}");
    cluster.orch(&["zk", "migrate", "start", "move", &source, &clients]).ok();
    let row = || cluster.orch(&["zk", "migrate", "status", "move", "-o", "json"]).json();
    let following = |what: &str, fine: &dyn Fn(&Value) -> bool| {
        wait_until(what, LONG, || {
            let row = row();
            (row["phase"] == "following" && fine(&row))
                .then_some(row.clone())
                .ok_or(row.to_string())
        })
    };
    let zxid = |row: &Value| row["zxid"].clone();
    let first = following("the copy", &|_| true);
    let mut client = connect(&zookeeper, 0);
    for number in 0..50 {
        client.create(&format!("/app/more-{number}"), b"x", mode::PERSISTENT);
    }
    let last = format!("{:#x}", zookeeper.zxid(zookeeper.leader()).unwrap());
    following("the transactions", &|row| zxid(row) == last.as_str());
    // The only port that its clients are said to have closes.
    drop(door);
    let cutover = ["zk", "migrate", "cutover", "move", "-o", "json"];
    let report = cluster.orch(&cutover).ok().json();
    assert_eq!((&report["zxid"], &report["proven"]), (&json!(last), &json!(0)), "{first}");
    let done = row();
    assert_eq!((&done["mismatches"], &done["transactions"].is_null()), (&json!(0), &false));
    assert!(done["compared_at"].is_string(), "{done}");
    assert_eq!(kind(&cluster, "/app/more-49"), "persistent");
}

#[test]
fn an_observers_import_goes_on_behind_what_came() {
    let zookeeper = ensemble(Options::default());
    let mut clients = fill(&zookeeper);
    let source = learners(&zookeeper);
    let cluster = Cluster::start(1);
    // All of it comes, and can't be put where something is.
    cluster.orch(&["zk", "set", "/keep", "mine", "--create"]).ok();
    cluster.orch(&["zk", "import", &source]).code(4);
    let row = cluster.http("s1").get("/v1/zk/imports/import").value();
    assert_eq!(row["phase"], "following", "{row}");
    for number in 0..20 {
        clients[0].create(&format!("/app/more-{number}"), b"x", mode::PERSISTENT);
    }
    let again = ["zk", "import", &source, "--existing", "keep", "-o", "json"];
    let done = cluster.orch(&again).ok();
    let going_on = format!("going on behind the transaction {}", row["zxid"].as_str().unwrap());
    assert!(done.stderr.contains(&going_on), "{}", done.stderr);
    let report = done.json();
    let came = report["transactions"].as_u64().unwrap() - row["transactions"].as_u64().unwrap();
    // The digest of the last of them says that nothing is missing.
    assert_eq!((came, &report["proof"]), (20, &json!("digest")), "{report}");
    cluster.orch(&["zk", "get", "/app/more-19"]).ok();
    cluster.orch(&["zk", "get", "/keep"]).ok();
}

#[test]
fn an_observers_copy_that_was_killed_half_way_begins_anew() {
    let zookeeper = ensemble(Options::default());
    let mut client = connect(&zookeeper, 0);
    client.create("/many", b"", mode::PERSISTENT);
    make_nodes(&mut client, "/many", 0, 12_000);
    let source = learners(&zookeeper);
    let cluster = Cluster::start(1);
    let address = cluster.api_address("s1");
    let mut importing = command(&[("ORCH_ADDR", &address)], &["zk", "import", &source])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // 24 MB are over 40 lots.
    let row = || cluster.http("s1").try_get("/v1/zk/imports/import").map(|reply| reply.value());
    wait_until("the first lots", LONG, || match row()?["next_chunk"].as_u64() {
        Some(1..) => Ok(()),
        _ => Err("none has come".to_owned()),
    });
    importing.kill().unwrap();
    importing.wait().unwrap();
    assert_eq!(row().unwrap()["phase"], "copying", "it was killed too late");
    let done = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok();
    assert!(done.stderr.contains("it is copied anew"), "{}", done.stderr);
    let report = done.json();
    assert_eq!((&report["proven"], &report["nodes"]), (&json!(true), &json!(12_005)));
    let inspected = cluster.orch(&["zk", "inspect", &source, "-o", "json"]).ok().json();
    let digest = inspected["inventory"]["digest"].as_u64().unwrap();
    assert_eq!(report["digest"], format!("{digest:#018x}"));
}

#[test]
fn who_can_not_follow_is_told_what_else_there_is() {
    let zookeeper = ZooKeeper::standalone(Options::default());
    let cluster = Cluster::start(1);
    let alone = format!("zk://{}", zookeeper.connect_string());
    let nobody = format!("observer://{}", LoopbackAddress::next().port(QUORUM_PORT));
    for source in [&alone, &nobody] {
        let refused = cluster.orch(&["zk", "migrate", "start", "move", source]).code(4);
        let next = format!("orch zk migrate start move {source} --no-probe");
        for part in ["orch zk import /var/lib/zookeeper", "orch zk import zk://", &next] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    assert_eq!(cluster.orch(&["zk", "migrate", "status", "-o", "json"]).json(), json!([]));
    let refused = cluster.orch(&["zk", "import", &nobody]).code(1).says(&["refused"]);
    assert!(!refused.stderr.contains("joining again"), "{}", refused.stderr);
    cluster.orch(&["zk", "migrate", "start", "move", &nobody, "--no-probe"]).ok();
    cluster.orch(&["zk", "migrate", "abort", "move"]).ok();
}

#[test]
fn a_source_that_does_not_answer_is_waited_for_aloud() {
    // It takes connections and never says anything.
    let address = LoopbackAddress::next().port(CLIENT_PORT);
    let _silent = TcpListener::bind(address).unwrap();
    for source in [format!("zk://{address}"), format!("observer://{address}")] {
        let mut looking = command(&[("ORCH_ADDR", "127.0.0.1:1")], &["zk", "inspect", &source])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(looking.stderr.take().unwrap()).read_line(&mut first).unwrap();
        looking.kill().unwrap();
        looking.wait().unwrap();
        assert!(
            first.starts_with("waiting for") && first.contains(&address.to_string()),
            "{first}"
        );
        assert!(first.contains("s at most"), "{first}");
    }
    // Nobody is there at all.
    let nobody = LoopbackAddress::next().port(CLIENT_PORT);
    for source in [format!("zk://{nobody}"), format!("observer://{nobody}")] {
        let refused = crate::support::orch(&["zk", "inspect", &source]).code(1);
        assert!(refused.stderr.contains("refused"), "{}", refused.stderr);
    }
}

#[test]
fn a_copy_is_proven_while_the_source_is_written_and_tells_wrong_digests() {
    let zookeeper = ensemble(Options::default());
    let stop = Arc::new(AtomicBool::new(false));
    // The root beside its children: that is what ZooKeeper gets wrong.
    let write = |act: fn(&mut Client)| {
        let (mut client, stop) = (connect(&zookeeper, 0), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                act(&mut client);
            }
        })
    };
    let writers = [
        write(|client| client.set("/", Some(b"root")).unwrap()),
        write(|client| drop(client.create("/top-", b"x", mode::SEQUENTIAL))),
        write(|client| drop(client.create("/top-", b"y", mode::SEQUENTIAL))),
    ];
    let cluster = Cluster::start(1);
    let done = cluster.orch(&["zk", "import", &learners(&zookeeper), "-o", "json"]).ok();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let report = done.json();
    // By whichever of the two: the last digest may have been a right one.
    assert_eq!(report["proven"], true, "{report}\n{}", done.stderr);
    assert!(report["transactions"].as_u64() > Some(0), "{report}");
    assert_eq!(cluster.orch(&["zk", "get", "/"]).ok().stdout, "root");
}

/// The client ports of an ensemble at other addresses, behind which no quorum port is.
fn doors(zookeeper: &ZooKeeper) -> String {
    let doors: Vec<String> = (0..zookeeper.count())
        .map(|index| {
            let (door, behind) =
                (LoopbackAddress::next().port(CLIENT_PORT), zookeeper.client_address(index));
            let listener = TcpListener::bind(door).unwrap();
            std::thread::spawn(move || {
                for here in listener.incoming() {
                    let Ok(there) = TcpStream::connect(behind) else { continue };
                    pass_on(here.unwrap(), there);
                }
            });
            door.to_string()
        })
        .collect();
    doors.join(",")
}

/// Passes on what comes on either side, until one closes.
fn pass_on(here: TcpStream, there: TcpStream) {
    for (mut from, mut to) in
        [(here.try_clone().unwrap(), there.try_clone().unwrap()), (there, here)]
    {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

#[test]
fn the_quorum_port_is_the_one_that_the_ensemble_names() {
    let hash = "super:0bX78nEegDzJM3ju0iLBEJdWzjg=";
    let digest = format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={hash}");
    let zookeeper = ensemble(Options::default().java(&digest));
    let _clients = fill(&zookeeper);
    let source = format!("zk://{}", doors(&zookeeper));
    let cluster = Cluster::start(1);
    let done = cluster.orch(&["zk", "import", &source, "--at", "/one", "-o", "json"]).ok();
    let leader = zookeeper.quorum_address(zookeeper.leader());
    done.says(&[&format!("as an observer, through the quorum port {leader}"), "\"proven\": true"]);

    // Where it can't be learnt, nobody is found there.
    let hide = async {
        let servers = zookeeper.connect_string().parse().unwrap();
        let options = orch::zookeeper::client::Options::default();
        let (client, _) =
            orch::zookeeper::client::Client::connect(&servers, options).await.unwrap();
        client.auth("digest", b"super:pw").await.unwrap();
        let id = Id { scheme: "digest".to_owned(), id: ME.to_owned() };
        client.set_acl("/zookeeper/config", vec![Acl { perms: 31, id }], -1).await.unwrap();
        client.close().await.unwrap();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(hide);
    let auth = ["--auth", "digest:super:pw", "-o", "json"];
    let import = ["zk", "import", &source, "--at", "/two"];
    let done = cluster.orch(&[&import[..], &auth[..]].concat()).ok();
    for part in ["no observer gets in", "leads", "copying as a client", "lost: sessions"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let losses = done.json()["losses"].to_string();
    assert!(losses.contains("times to live") && losses.contains("1 ephemeral"), "{losses}");
    assert_eq!(kind(&cluster, "/one/app/box"), "container");
    assert_eq!(kind(&cluster, "/two/app/box"), "persistent");
}
