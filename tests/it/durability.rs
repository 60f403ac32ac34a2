//! Nothing acknowledged is lost: under `kill -9` of leaders, a full disk, a damaged log.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::writer::{Acknowledged, Writers, figures, gaps, stored};
use crate::support::{Cluster, LONG, SHORT, SmallDisk, orch, wait_until};

const KILLS: usize = 8;
/// Far above what is wanted: only a cluster that hangs is over it.
const GAP_MAX: Duration = Duration::from_secs(30);

#[test]
fn nothing_acknowledged_is_lost_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3);
    let addresses: Vec<_> = cluster.servers().iter().map(|s| cluster.api_address(s)).collect();
    let writers = Writers::start(8, &addresses);
    let mut moments = Vec::new();
    for _ in 0..KILLS {
        cluster.wait_for_voters(3);
        let enough = writers.count() + 300;
        wait_until("writes to go on", LONG, || {
            if writers.count() >= enough { Ok(()) } else { Err(format!("{}", writers.count())) }
        });
        let leader = cluster.leader();
        moments.push(Instant::now());
        cluster.kill(&leader);
        let so_far = writers.count();
        wait_until("writes to go on without the leader", LONG, || {
            if writers.count() > so_far + 100 {
                Ok(())
            } else {
                Err(format!("{}", writers.count()))
            }
        });
        cluster.start_member(&leader);
    }
    cluster.wait_for_voters(3);
    let acknowledged = writers.finish();
    let gaps = gaps(&acknowledged, &moments);
    println!("{} writes acknowledged", acknowledged.len());
    println!("{}", figures("from kill -9 of the leader to the next write", &gaps));
    assert_eq!(gaps.len(), KILLS);
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX), "{gaps:?}");
    same_everywhere(&cluster);
    for server in cluster.servers() {
        assert_stored(&cluster, &server, &acknowledged);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_all_servers_are_killed_at_once() {
    let mut cluster = Cluster::start(3);
    let addresses: Vec<_> = cluster.servers().iter().map(|s| cluster.api_address(s)).collect();
    let writers = Writers::start(8, &addresses);
    for round in 1..=3 {
        let enough = round * 500;
        wait_until("writes to go on", LONG, || {
            if writers.count() >= enough { Ok(()) } else { Err(format!("{}", writers.count())) }
        });
        for server in cluster.servers() {
            cluster.kill(&server);
        }
        for server in cluster.servers() {
            cluster.spawn(&server);
        }
        cluster.wait_for_voters(3);
    }
    let acknowledged = writers.finish();
    same_everywhere(&cluster);
    for server in cluster.servers() {
        assert_stored(&cluster, &server, &acknowledged);
    }
}

/// Waits until all servers have applied the same, and compares their checksums.
fn same_everywhere(cluster: &Cluster) {
    wait_until("equal checksums at an equal index", LONG, || {
        let mut seen = Vec::new();
        for server in cluster.servers() {
            let reply = cluster.http(&server).get("/v1/servers/self/checksum").ok().value();
            seen.push((reply["applied_index"].clone(), reply["checksum"].clone()));
        }
        let at_one_index = seen.windows(2).all(|pair| pair[0].0 == pair[1].0);
        if !at_one_index {
            return Err(format!("{seen:?}"));
        }
        assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].1), "states differ: {seen:?}");
        Ok(())
    });
}

fn assert_stored(cluster: &Cluster, server: &str, acknowledged: &[Acknowledged]) {
    let stored = stored(&cluster.http(server));
    let lost: Vec<_> = acknowledged
        .iter()
        .map(|write| &write.path)
        .filter(|path| !stored.contains_key(*path))
        .collect();
    assert!(lost.is_empty(), "{server} lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
}

#[test]
fn a_fresh_member_gets_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::start(1);
    let writers = Writers::start(8, &[cluster.api_address("s1")]);
    wait_until("a long log", LONG, || {
        if writers.count() >= 3000 { Ok(()) } else { Err(format!("{}", writers.count())) }
    });
    cluster.server("s2", &[]);
    cluster.server("s3", &[]);
    cluster.wait_for_voters(3);
    let acknowledged = writers.finish();
    same_everywhere(&cluster);
    for server in cluster.servers() {
        assert_stored(&cluster, &server, &acknowledged);
    }
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let cluster = Cluster::start(1);
    let directory = cluster.member("s1").data_dir.display().to_string();
    let other = crate::support::LoopbackAddress::next();
    let (api, rpc) = (other.port(7400).to_string(), other.port(7401).to_string());
    let second = orch(&[
        "server",
        "--name",
        "s1",
        "--insecure",
        "--data-dir",
        &directory,
        "--api-addr",
        &api,
        "--rpc-addr",
        &rpc,
    ]);
    assert_ne!(second.code, 0, "{second}");
    second.says(&["in use", &directory]);
    // The first one is none the worse.
    cluster.http("s1").json("PUT", "/v1/variables/x", &json!(1)).ok();
}

#[test]
fn a_damaged_log_is_a_clear_message_and_no_silent_loss() {
    const MARK: &str = "a-value-that-is-easy-to-find-on-disk";
    let mut cluster = Cluster::start(1);
    for i in 0..20 {
        let body = format!("{MARK}-{i}").into_bytes();
        let reply = cluster.http("s1").send("PUT", &format!("/v1/variables/v{i}"), &[], body);
        reply.unwrap().ok();
    }
    cluster.kill("s1");
    let damaged = damage(&cluster.member("s1").data_dir, MARK.as_bytes());
    assert!(damaged > 0, "the mark is nowhere on disk");
    cluster.spawn("s1");
    let status = cluster.process("s1").wait(SHORT);
    assert!(!status.success(), "it started on a damaged log");
    let log = cluster.log("s1");
    let end: String = log.lines().rev().take(10).collect::<Vec<_>>().join("\n");
    let names_it = ["corrupt", "damaged", "checksum"].iter().any(|word| end.contains(word));
    assert!(names_it && !end.contains("panicked"), "{end}");
}

/// Changes one byte in each place that holds `mark`.
fn damage(directory: &Path, mark: &[u8]) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += damage(&path, mark);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> = (0..bytes.len().saturating_sub(mark.len()))
            .filter(|at| bytes[*at..].starts_with(mark))
            .collect();
        for at in &places {
            bytes[at + 3] ^= 0x20;
        }
        if !places.is_empty() {
            std::fs::write(&path, bytes).unwrap();
        }
        count += places.len();
    }
    count
}

#[test]
fn a_full_disk_is_a_clear_message_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::empty();
    cluster.add_server("s1", &[]);
    let disk = SmallDisk::mount(&cluster.member("s1").data_dir, "24m");
    cluster.start_member("s1");
    let http = cluster.http("s1");
    let mut acknowledged = Vec::new();
    let refusal = (0..2000).find_map(|i| {
        let path = format!("/v1/variables/v{i}");
        match http.send("PUT", &path, &[], vec![b'x'; 60_000]) {
            Ok(reply) if reply.status < 300 => {
                acknowledged.push(path);
                None
            }
            Ok(reply) => Some(reply.text()),
            Err(error) => Some(error),
        }
    });
    let refusal = refusal.expect("24 MB hold no 120 MB");
    println!("{} writes, then: {refusal}", acknowledged.len());
    wait_until("it to say that the disk is full", SHORT, || {
        let log = cluster.log("s1").to_lowercase();
        let said = log.contains("no space left") || log.contains("disk is full");
        if said { Ok(()) } else { Err("it did not".to_owned()) }
    });
    assert!(!cluster.log("s1").contains("panicked"), "{}", cluster.log("s1"));
    // With room again, it goes on where it was.
    cluster.kill("s1");
    disk.resize("300m");
    cluster.start_member("s1");
    let http = cluster.http("s1");
    for path in &acknowledged {
        assert_eq!(http.get(path).status, 200, "{path} was acknowledged and is lost");
    }
    http.json("PUT", "/v1/variables/after", &json!(1)).ok();
    cluster.kill("s1");
    // First, or the cluster's directory can't go.
    drop(disk);
}
