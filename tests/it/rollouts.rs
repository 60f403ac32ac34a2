//! A rollout whose leader or agent is killed half way goes on, without a replica less than it
//! promised.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, LONG, orch_with, processes_with, wait_until};

const REPLICAS: usize = 6;

/// A service whose new replicas must be ready for a while before they count.
fn service(mark: &str, version: u32) -> String {
    format!(
        "job: web\nreplicas: {REPLICAS}\ncommand: [sleep, \"{mark}\"]\nstop_grace: 1s\n\
         environment: {{ VERSION: \"{version}\" }}\nresources: {{ cpu: 0.1, memory: 16Mi }}\n\
         update: {{ max_parallel: 1, min_healthy: 700ms }}\n"
    )
}

fn mark(test: u32) -> String {
    (20_000_000 + std::process::id() * 10 + test).to_string()
}

/// Counts replicas without pause: as processes, and as the cluster tells it whenever it does.
struct Watch {
    stop: Arc<AtomicBool>,
    fewest: Arc<AtomicUsize>,
    looks: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    fn start(cluster: &Cluster, mark: &str) -> Self {
        let servers: Vec<String> = cluster
            .servers()
            .iter()
            .map(|server| format!("http://{}", cluster.api_address(server)))
            .collect();
        let servers = servers.join(",");
        let mark = mark.to_owned();
        let mut watch = Self {
            stop: Arc::default(),
            fewest: Arc::new(AtomicUsize::new(usize::MAX)),
            looks: Arc::default(),
            threads: Vec::new(),
        };
        watch.thread(move || Some(processes_with(&["sleep", &mark]).len()));
        watch.thread(move || {
            let output = orch_with(&[("ORCH_ADDR", &servers)], &["ps", "web", "-o", "json"], b"");
            let rows = (output.code == 0).then(|| output.json())?;
            let rows = rows.as_array()?;
            let ready = rows.iter().filter(|row| row["ready"] == true && row["state"] == "running");
            Some(ready.map(|row| row["index"].as_u64()).collect::<BTreeSet<_>>().len())
        });
        watch
    }

    fn thread(&mut self, count: impl Fn() -> Option<usize> + Send + 'static) {
        let (stop, fewest, looks) = (self.stop.clone(), self.fewest.clone(), self.looks.clone());
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some(count) = count() {
                    fewest.fetch_min(count, Ordering::Relaxed);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }));
    }

    /// Every replica that was promised was there all the time.
    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let looks = self.looks.load(Ordering::Relaxed);
        println!("looked {looks} times");
        assert!(looks > 0);
        assert_eq!(self.fewest.load(Ordering::Relaxed), REPLICAS, "replicas at the worst moment");
    }
}

fn updated(rows: &[Value]) -> usize {
    rows.iter().filter(|row| row["version"] == 2 && row["ready"] == true).count()
}

#[track_caller]
fn wait_half_way(cluster: &Cluster) {
    wait_until("a replica of the new version", LONG, || {
        let rows = cluster.ps("web");
        if updated(&rows) > 0 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let rows = cluster.ps("web");
    assert!(updated(&rows) < REPLICAS, "it is over already: {rows:?}");
}

/// Waits until all replicas are new, and the deployment is over.
#[track_caller]
fn wait_done(cluster: &Cluster, mark: &str) {
    wait_until("the rollout to end", LONG, || {
        let output = cluster.orch(&["ps", "web", "-o", "json"]);
        if output.code != 0 {
            return Err(output.to_string());
        }
        let rows = output.json().as_array().cloned().unwrap_or_default();
        let processes = processes_with(&["sleep", mark]).len();
        if updated(&rows) == REPLICAS && rows.len() == REPLICAS && processes == REPLICAS {
            Ok(())
        } else {
            Err(format!("{processes} processes, {rows:?}"))
        }
    });
    cluster.orch(&["deploy", "status", "web"]).ok().says(&["successful"]);
}

fn cluster(servers: usize, mark: &str) -> Cluster {
    let mut cluster = Cluster::start(servers);
    for agent in ["n1", "n2"] {
        cluster.agent(agent, &["--runtime", "process"]);
    }
    cluster.submit(&service(mark, 1));
    cluster.wait_healthy("web", REPLICAS);
    cluster
}

#[test]
fn it_goes_on_when_the_leader_is_killed() {
    let mark = mark(1);
    let mut cluster = cluster(3, &mark);
    let watch = Watch::start(&cluster, &mark);
    cluster.submit(&service(&mark, 2));
    wait_half_way(&cluster);
    let leader = cluster.leader();
    cluster.kill(&leader);
    wait_done(&cluster, &mark);
    watch.end();
    cluster.start_member(&leader);
    cluster.wait_for_voters(3);
    assert_eq!(updated(&cluster.ps("web")), REPLICAS);
}

#[test]
fn it_goes_on_when_an_agent_is_killed_and_comes_back() {
    let mark = mark(2);
    let mut cluster = cluster(1, &mark);
    let watch = Watch::start(&cluster, &mark);
    cluster.submit(&service(&mark, 2));
    wait_half_way(&cluster);
    cluster.kill("n1");
    cluster.start_member("n1");
    wait_done(&cluster, &mark);
    watch.end();
    let rows = cluster.ps("web");
    assert!(rows.iter().all(|row| row["restarts"] == 0), "{rows:?}");
}
