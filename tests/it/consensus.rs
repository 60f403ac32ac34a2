//! Servers in one process, on real directories, over gRPC on the loopback.

use std::path::Path;
use std::time::Duration;

use orch::consensus::{Config, Consensus, Consistency, ProposeError, StartError, Tuning};
use orch::ground::Ground;
use orch::model::name::ProjectName;
use orch::model::variable::VariablePath;
use orch::observe::metrics::Metrics;
use orch::state::{Command, Request};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// For whatever a test waits for; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct TestServer {
    consensus: Consensus,
    addr: String,
    door: JoinHandle<()>,
}

fn fast() -> Tuning {
    Tuning { propose_deadline: Duration::from_secs(20), ..Tuning::default() }
}

async fn try_open(
    dir: &Path,
    name: &str,
    join: &[String],
    tuning: Tuning,
) -> Result<TestServer, String> {
    open_at("127.0.0.1:0", dir, name, join, tuning).await
}

async fn open_at(
    addr: &str,
    dir: &Path,
    name: &str,
    join: &[String],
    tuning: Tuning,
) -> Result<TestServer, String> {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let config = Config {
        data_dir: dir.to_owned(),
        name: name.parse().unwrap(),
        rpc_addr: addr.clone(),
        api_addr: format!("api-of-{name}:7400"),
        join: join.to_vec(),
        tuning,
    };
    let (consensus, services) = Consensus::open(config, Ground::machine(), Metrics::new().unwrap())
        .await
        .map_err(|error| error.to_string())?;
    let door = tokio::spawn(async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().add_service(services.raft).add_service(services.cluster);
        let _ = server.serve_with_incoming(incoming).await;
    });
    Ok(TestServer { consensus, addr, door })
}

async fn open(dir: &Path, name: &str, join: &[String], tuning: Tuning) -> TestServer {
    let server = try_open(dir, name, join, tuning).await.unwrap();
    within(server.consensus.start()).await.unwrap();
    server
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "it never came true: {what}");
}

impl TestServer {
    /// As if the process were killed: nothing is handed over.
    async fn kill(self) {
        self.door.abort();
        self.consensus.stop_at_once().await;
    }

    async fn shutdown(self) {
        self.consensus.shutdown().await;
        self.door.abort();
    }

    async fn put(&self, key: &str, value: &str) -> Result<u64, ProposeError> {
        within(self.consensus.propose(put(key, value))).await.map(|done| done.index)
    }

    async fn get(&self, key: &str) -> Option<String> {
        let view = within(self.consensus.read(Consistency::Linearizable)).await.unwrap();
        let project: ProjectName = "default".parse().unwrap();
        let found = view.state.variable(&project, &path(key))?;
        Some(String::from_utf8(found.value.clone()).unwrap())
    }

    fn leads(&self) -> bool {
        let leader = self.consensus.leadership().borrow().leader.clone();
        leader.is_some_and(|leader| leader.id == self.consensus.me().id)
    }

    async fn roles(&self) -> Vec<(String, &'static str)> {
        let servers = self.consensus.servers().await;
        servers.into_iter().map(|server| (server.server.name.to_string(), server.role)).collect()
    }
}

fn path(key: &str) -> VariablePath {
    VariablePath::try_from(key.to_owned()).unwrap()
}

fn put(key: &str, value: &str) -> Request {
    let project = "default".parse().unwrap();
    let value = value.as_bytes().to_vec();
    Command::PutVariable { project, path: path(key), value, if_index: None }.into()
}

/// Three servers; the first one founded the cluster and leads.
async fn three(tuning: &Tuning) -> (Vec<TempDir>, Vec<TestServer>) {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let first = open(dirs[0].path(), "s1", &[], tuning.clone()).await;
    let join = [first.addr.clone()];
    let second = open(dirs[1].path(), "s2", &join, tuning.clone()).await;
    let third = open(dirs[2].path(), "s3", &join, tuning.clone()).await;
    (dirs, vec![first, second, third])
}

/// Servers that have applied the same have the same state.
async fn same_state(servers: &[&TestServer]) {
    eventually("all servers have the same state", async || {
        let mut sums = Vec::new();
        for server in servers {
            sums.push(server.consensus.checksum_now().await.unwrap());
        }
        let (index, sum) = sums[0];
        let settled = sums.iter().all(|other| other.0 == index);
        assert!(!settled || sums.iter().all(|other| other.1 == sum), "states differ: {sums:?}");
        settled
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_founds_a_cluster_and_finds_everything_again() {
    let dir = TempDir::new().unwrap();
    let server = open(dir.path(), "s1", &[], fast()).await;
    let cluster_id = server.consensus.cluster_id();
    assert_ne!(cluster_id, 0);
    for i in 0..50 {
        server.put("a/key", &format!("value-{i}")).await.unwrap();
    }
    assert_eq!(server.get("a/key").await.as_deref(), Some("value-49"));
    let many: Vec<Request> = (0..100).map(|i| put(&format!("many/{i}"), "x")).collect();
    let done = within(server.consensus.propose_many(many)).await;
    assert!(done.iter().all(Result::is_ok));
    let (index, sum) = server.consensus.checksum_now().await.unwrap();
    server.kill().await;

    let again = open(dir.path(), "s1", &[], fast()).await;
    assert_eq!(again.get("a/key").await.as_deref(), Some("value-49"));
    assert_eq!(again.consensus.cluster_id(), cluster_id);
    // A new term's first entry has come on top; the state is that of before.
    let (index_now, sum_now) = again.consensus.checksum_now().await.unwrap();
    assert!(index_now > index && sum_now != sum);
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_replicate_forward_and_outlive_their_leader() {
    let (_dirs, mut servers) = three(&fast()).await;
    assert_eq!(
        servers[1].roles().await,
        [("s1".into(), "leader"), ("s2".into(), "follower"), ("s3".into(), "follower")]
    );
    // Any server takes a write, and any server reads it at once.
    for (i, server) in servers.iter().enumerate() {
        let (key, value) = (format!("by/{i}"), format!("value-{i}"));
        server.put(&key, &value).await.unwrap();
        for reader in &servers {
            assert_eq!(reader.get(&key).await.as_deref(), Some(value.as_str()));
        }
    }
    same_state(&servers.iter().collect::<Vec<_>>()).await;

    let leader = servers.iter().position(TestServer::leads).unwrap();
    servers.swap_remove(leader).kill().await;
    // Requests wait for the next leader by themselves.
    servers[0].put("after", "the leader is gone").await.unwrap();
    assert_eq!(servers[1].get("after").await.as_deref(), Some("the leader is gone"));
    assert_eq!(servers[1].get("by/0").await.as_deref(), Some("value-0"));
    same_state(&servers.iter().collect::<Vec<_>>()).await;
    for server in servers {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_on_an_orderly_stop() {
    let (_dirs, mut servers) = three(&fast()).await;
    let to = within(servers[2].consensus.transfer_leadership(Some("s2"))).await.unwrap();
    assert_eq!(to, "s2");
    eventually("s2 leads", async || servers[1].leads()).await;
    servers[0].put("key", "value").await.unwrap();
    let refused = within(servers[0].consensus.transfer_leadership(Some("nobody"))).await;
    assert!(refused.unwrap_err().to_string().contains("there is no voting server nobody"));

    let leader = servers.remove(1);
    leader.shutdown().await;
    servers[0].put("key", "value after the stop").await.unwrap();
    assert_eq!(servers[1].get("key").await.as_deref(), Some("value after the stop"));
    for server in servers {
        server.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_never_comes_back() {
    let (dirs, mut servers) = three(&fast()).await;
    let refused = within(servers[1].consensus.remove_server("s9")).await.unwrap_err();
    assert!(refused.to_string().contains("there is no server s9; there are: "), "{refused}");

    let third = servers.pop().unwrap();
    within(servers[1].consensus.remove_server("s3")).await.unwrap();
    let message = within(third.consensus.fatal()).await;
    assert!(message.contains("server s3 was removed from the cluster"), "{message}");
    third.kill().await;

    // With its old data it is told so again and again.
    let again = open(dirs[2].path(), "s3", &[], fast()).await;
    let message = within(again.consensus.fatal()).await;
    assert!(message.contains("empty its data directory"), "{message}");
    again.kill().await;

    // With an empty directory it is another server, and the name is free.
    let fresh = TempDir::new().unwrap();
    let join = [servers[1].addr.clone()];
    let anew = open(fresh.path(), "s3", &join, fast()).await;
    assert_eq!(anew.roles().await.len(), 3);

    // A name that is taken is refused, by whichever server is asked.
    let other = TempDir::new().unwrap();
    let twin = try_open(other.path(), "s2", &join, fast()).await.unwrap();
    let error = within(twin.consensus.start()).await.unwrap_err();
    assert!(matches!(&error, StartError::Refused(message)
        if message.contains("server s2 is already a member with another data directory")));
    twin.kill().await;

    // A server of another cluster is refused too.
    let stranger_dir = TempDir::new().unwrap();
    let stranger = open(stranger_dir.path(), "x1", &[], fast()).await;
    let error = within(anew.consensus.remove_server("s1")).await;
    error.unwrap();
    stranger.kill().await;
    for server in servers.into_iter().chain([anew]) {
        server.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_member_gets_a_snapshot_while_writes_go_on() {
    let tuning = Tuning { snapshot_entries: 200, keep_entries: 20, checkpoint_every: 64, ..fast() };
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
    let first = open(dirs[0].path(), "s1", &[], tuning.clone()).await;
    let writing = {
        let consensus = first.consensus.clone();
        tokio::spawn(async move {
            for i in 0_u64.. {
                let request = put(&format!("k/{}", i % 100), &format!("value-{i}"));
                if consensus.propose(request).await.is_err() {
                    return i;
                }
            }
            0
        })
    };
    eventually("the log's beginning is purged", async || first.consensus.log_begins_at() > 100)
        .await;
    let second =
        open(dirs[1].path(), "s2", std::slice::from_ref(&first.addr), tuning.clone()).await;
    assert_eq!(second.roles().await[1].1, "follower");
    assert!(second.consensus.log_begins_at() > 0, "it came with a snapshot");
    writing.abort();
    let _ = writing.await;
    same_state(&[&first, &second]).await;

    // And both find their state again from snapshot and log.
    let (_, before) = second.consensus.checksum_now().await.unwrap();
    let seen = second.get("k/7").await;
    let addrs = [first.addr.clone(), second.addr.clone()];
    first.kill().await;
    second.kill().await;
    let first = open_at(&addrs[0], dirs[0].path(), "s1", &[], tuning.clone()).await.unwrap();
    let second = open_at(&addrs[1], dirs[1].path(), "s2", &[], tuning).await.unwrap();
    within(first.consensus.start()).await.unwrap();
    within(second.consensus.start()).await.unwrap();
    assert_eq!(second.get("k/7").await, seen);
    same_state(&[&first, &second]).await;
    let (_, after) = second.consensus.checksum_now().await.unwrap();
    assert_ne!(before, after, "the stamp went on");
    first.kill().await;
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_serves_one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path(), "s1", &[], fast()).await;
    let Err(error) = try_open(dir.path(), "s1", &[], fast()).await else {
        panic!("two servers on one directory");
    };
    assert!(error.contains("is in use by another process"), "{error}");
    first.shutdown().await;
    open(dir.path(), "s1", &[], fast()).await.shutdown().await;
}

#[test]
fn a_leader_whose_process_ends_is_replaced_at_once() {
    // So that no lease runs out while the test lasts.
    let lease = Duration::from_secs(600);
    let patient = Tuning { election_min: lease, election_max: lease * 2, ..fast() };
    // Each on a runtime of its own: with it end its connections, as with a process.
    let mut runtimes: Vec<_> = (0..3).map(|_| tokio::runtime::Runtime::new().unwrap()).collect();
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut servers: Vec<TestServer> = Vec::new();
    for (number, runtime) in runtimes.iter().enumerate() {
        let join: Vec<_> = servers.iter().map(|server| server.addr.clone()).take(1).collect();
        let (dir, name) = (dirs[number].path(), format!("s{}", number + 1));
        servers.push(runtime.block_on(open(dir, &name, &join, patient.clone())));
    }
    let put = |runtime: &tokio::runtime::Runtime, server: &TestServer, key: &str| {
        runtime.block_on(server.put(key, "v")).unwrap();
    };
    runtimes[1].block_on(eventually("three voters", async || {
        let roles = servers[1].roles().await;
        roles.iter().filter(|(_, role)| *role != "learner").count() == 3
    }));
    put(&runtimes[1], &servers[1], "before");
    assert!(servers[0].leads());
    drop(servers.remove(0));
    runtimes.remove(0).shutdown_background();
    runtimes[0]
        .block_on(eventually("another leads", async || servers.iter().any(TestServer::leads)));
    put(&runtimes[1], &servers[1], "after");
    assert_eq!(runtimes[0].block_on(servers[0].get("before")).as_deref(), Some("v"));
    assert_eq!(runtimes[0].block_on(servers[0].get("after")).as_deref(), Some("v"));
}
