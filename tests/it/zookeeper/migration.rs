//! `orch zk migrate`: an ensemble in use moves here and back, and nobody loses anything.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orch::jute::{Acl, ErrorCode};
use orch::zookeeper::client::{Client, ClientError, Ensemble, Mode, Options as ClientOptions};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::zookeeper::{CLIENT_PORT, Options, ZooKeeper};
use crate::support::{Cluster, LONG, LoopbackAddress, command, wait_until};

const SESSION: Duration = Duration::from_secs(20);
/// Between looks of a client that waits for its turn.
const PAUSE: Duration = Duration::from_millis(20);

/// The client ports of an ensemble, which can be closed without its servers knowing.
struct Doors {
    ways: Vec<(SocketAddr, SocketAddr)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Doors {
    fn before(zookeeper: &ZooKeeper) -> Self {
        let ways = (0..zookeeper.count())
            .map(|index| {
                (LoopbackAddress::next().port(CLIENT_PORT), zookeeper.client_address(index))
            })
            .collect();
        Self { ways, tasks: Vec::new() }
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.ways.iter().map(|(door, _)| door.to_string()).collect();
        names.join(",")
    }

    async fn open(&mut self) {
        for (door, behind) in self.ways.clone() {
            let listener = TcpListener::bind(door).await.unwrap();
            self.tasks.push(tokio::spawn(async move {
                // Dropped with the task, and all connections with it.
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((mut here, _)) = listener.accept().await {
                    connections.spawn(async move {
                        if let Ok(mut there) = TcpStream::connect(behind).await {
                            let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                        }
                    });
                }
            }));
        }
    }

    async fn close(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// What all clients of the load know.
#[derive(Default)]
struct Shared {
    /// How many believe to hold the lock.
    holders: AtomicU32,
    /// Names of numbered nodes that were made; each comes once.
    made: Mutex<BTreeSet<String>>,
    rest: AtomicBool,
    stop: AtomicBool,
}

/// One client: how often it had the lock, and what it last wrote.
#[derive(Default)]
struct Own {
    turns: AtomicU64,
    written: AtomicU64,
    resting: AtomicBool,
}

/// Does something until it is known to be done.
async fn surely<T, F: Future<Output = Result<T, ClientError>>>(act: impl Fn() -> F) -> T {
    loop {
        match act().await {
            Ok(done) => return done,
            Err(ClientError::Lost) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Locks, writes, unlocks, again and again, always in the same session.
async fn load(client: Client, number: usize, shared: Arc<Shared>, own: Arc<Own>) {
    let token = format!("client-{number}");
    let counter = format!("/counters/{number}");
    loop {
        while shared.rest.load(Ordering::SeqCst) && !shared.stop.load(Ordering::SeqCst) {
            own.resting.store(true, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
        }
        own.resting.store(false, Ordering::SeqCst);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let ticket = ticket(&client, &token).await;
        loop {
            let (mut waiting, _) = surely(|| client.get_children("/locks", false)).await;
            waiting.sort_by(|a, b| a[a.len() - 10..].cmp(&b[b.len() - 10..]));
            if ticket.ends_with(waiting[0].as_str()) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let others = shared.holders.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "the lock is held twice");
        match client
            .create("/log/entry-", token.as_bytes(), open(), Mode::PersistentSequential)
            .await
        {
            Ok(created) => {
                let new = shared.made.lock().unwrap().insert(created.path.clone());
                assert!(new, "{} was made twice", created.path);
            }
            // Whether it was made is not known.
            Err(ClientError::Lost) => {}
            Err(error) => panic!("{error}"),
        }
        let next = own.written.load(Ordering::SeqCst) + 1;
        let data = next.to_string().into_bytes();
        surely(|| client.set_data(&counter, &data, -1)).await;
        own.written.store(next, Ordering::SeqCst);
        shared.holders.fetch_sub(1, Ordering::SeqCst);
        remove(&client, &ticket).await;
        own.turns.fetch_add(1, Ordering::SeqCst);
    }
}

fn open() -> Vec<Acl> {
    vec![Acl::open()]
}

/// A place in the queue for the lock.
async fn ticket(client: &Client, token: &str) -> String {
    let name = format!("/locks/{token}-");
    match client.create(&name, b"", open(), Mode::EphemeralSequential).await {
        Ok(created) => created.path,
        Err(ClientError::Lost) => {
            // It may have been made: there is one at most.
            let (waiting, _) = surely(|| client.get_children("/locks", false)).await;
            match waiting.iter().find(|other| other.starts_with(token)) {
                Some(own) => format!("/locks/{own}"),
                None => Box::pin(ticket(client, token)).await,
            }
        }
        Err(error) => panic!("{error}"),
    }
}

async fn remove(client: &Client, path: &str) {
    loop {
        match client.delete(path, -1).await {
            Ok(()) | Err(ClientError::Refused(ErrorCode::NoNode)) => return,
            Err(ClientError::Lost) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// All clients of the load.
struct Crowd {
    shared: Arc<Shared>,
    clients: Vec<(Client, i64, Arc<Own>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    async fn gather(count: usize, servers: &str) -> Self {
        let ensemble: Ensemble = servers.parse().unwrap();
        let options = ClientOptions {
            timeout: SESSION,
            give_up: LONG,
            pause: Duration::from_millis(50),
            ..ClientOptions::default()
        };
        let shared = Arc::new(Shared::default());
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (client, mut events) = Client::connect(&ensemble, options.clone()).await.unwrap();
            tokio::spawn(async move { while events.next().await.is_some() {} });
            if number == 0 {
                for path in ["/locks", "/log", "/counters", "/members", "/app"] {
                    client.create(path, b"", open(), Mode::Persistent).await.unwrap();
                }
            }
            for path in [format!("/counters/{number}"), format!("/members/{number}")] {
                let ephemeral = path.starts_with("/members");
                let mode = if ephemeral { Mode::Ephemeral } else { Mode::Persistent };
                client.create(&path, b"0", open(), mode).await.unwrap();
            }
            let own = Arc::new(Own::default());
            let id = client.session().id;
            tasks.push(tokio::spawn(load(client.clone(), number, shared.clone(), own.clone())));
            clients.push((client, id, own));
        }
        Self { shared, clients, tasks }
    }

    fn turns(&self) -> Vec<u64> {
        self.clients.iter().map(|(.., own)| own.turns.load(Ordering::SeqCst)).collect()
    }

    /// Waits until each has had the lock some more times, in the session that it began with.
    fn go_on(&self, when: &str) {
        let before = self.turns();
        wait_until(&format!("all clients to go on {when}"), LONG, || {
            if let Some(task) = self.tasks.iter().find(|task| task.is_finished()) {
                panic!("a client has ended {when}: {task:?}");
            }
            let now = self.turns();
            match now.iter().zip(&before).all(|(now, before)| now >= &(before + 3)) {
                true => Ok(()),
                false => Err(format!("{before:?} -> {now:?}")),
            }
        });
        for (client, id, _) in &self.clients {
            assert_eq!(client.session().id, *id, "another session {when}");
        }
    }

    /// Lets them come to rest, or go on.
    fn rest(&self, rest: bool) {
        self.shared.rest.store(rest, Ordering::SeqCst);
        if rest {
            wait_until("the clients to rest", LONG, || {
                let resting =
                    |(.., own): &(Client, i64, Arc<Own>)| own.resting.load(Ordering::SeqCst);
                self.clients.iter().all(resting).then_some(()).ok_or_else(String::new)
            });
        }
    }

    /// Nothing that was acknowledged is missing, and nobody has lost what goes with a session.
    async fn check(&self, when: &str) {
        let client = &self.clients[0].0;
        // Before it is looked what there is: they go on meanwhile.
        let made = self.shared.made.lock().unwrap().clone();
        let written: Vec<u64> =
            self.clients.iter().map(|(.., own)| own.written.load(Ordering::SeqCst)).collect();
        surely(|| client.sync("/")).await;
        let (there, _) = surely(|| client.get_children("/log", false)).await;
        let there: BTreeSet<String> = there.iter().map(|name| format!("/log/{name}")).collect();
        let lost: Vec<&String> = made.difference(&there).collect();
        assert!(lost.is_empty(), "{when}: acknowledged and lost: {lost:?}");
        for (number, (_, id, _)) in self.clients.iter().enumerate() {
            let at_least = written[number];
            let path = format!("/counters/{number}");
            let (data, _) = surely(|| client.get_data(&path, false)).await;
            let has: u64 = String::from_utf8(data.unwrap()).unwrap().parse().unwrap();
            assert!(has >= at_least, "{when}: {path} has {has}, {at_least} was acknowledged");
            let member = format!("/members/{number}");
            let stat = surely(|| client.exists(&member, false)).await;
            assert_eq!(stat.map(|stat| stat.ephemeral_owner), Some(*id), "{when}: {member}");
        }
    }

    async fn disperse(self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        for (client, ..) in self.clients {
            let _ = client.close().await;
        }
    }
}

fn status(cluster: &Cluster) -> Value {
    cluster.orch(&["zk", "migrate", "status", "move", "-o", "json"]).json()
}

/// Waits until that many more transactions are proven than now.
fn wait_for_proof(cluster: &Cluster, when: &str) {
    let proven = |row: &Value| row["proven"].as_u64().unwrap_or(0);
    let before = proven(&status(cluster));
    wait_until(&format!("transactions to be proven {when}"), LONG, || {
        let row = status(cluster);
        let fine = row["phase"] == "following"
            && row["unverified_since"].is_null()
            && proven(&row) >= before + 30;
        fine.then_some(()).ok_or_else(|| row.to_string())
    });
}

#[test]
fn an_ensemble_in_use_moves_here_and_back() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let options = Options::default().property("maxSessionTimeout", "60000");
    let mut zookeeper = ZooKeeper::ensemble(3, options);
    let mut doors = Doors::before(&zookeeper);
    runtime.block_on(doors.open());
    let mut cluster = Cluster::empty();
    let mut servers = vec![doors.names()];
    for name in ["s1", "s2", "s3"] {
        let address = LoopbackAddress::next().port(CLIENT_PORT).to_string();
        cluster.server(name, &["--zk-addr", &address]);
        servers.push(address);
    }
    cluster.wait_for_voters(3);
    let crowd = runtime.block_on(Crowd::gather(4, &servers.join(",")));
    crowd.go_on("at first");

    let learners: Vec<String> =
        (0..3).map(|index| zookeeper.quorum_address(index).to_string()).collect();
    let learners = format!("observer://{}", learners.join(","));
    let clients = format!("zk://{}", doors.names());
    let inspected = cluster.orch(&["zk", "inspect", &learners, "-o", "json"]).ok().json();
    assert_eq!(inspected["inventory"]["sessions"], 4, "{inspected}");
    cluster.orch(&["zk", "migrate", "start", "move", &learners, &clients]).ok();
    wait_for_proof(&cluster, "at first");
    crowd.go_on("while it is followed");

    // Whoever follows goes away, then whoever is followed.
    let leader = cluster.leader();
    cluster.kill(&leader);
    wait_for_proof(&cluster, "after the follower's leader was killed");
    cluster.restart(&leader);
    let leader = zookeeper.leader();
    zookeeper.kill(leader);
    wait_for_proof(&cluster, "after the source's leader was killed");
    zookeeper.start_all();
    crowd.go_on("after both leaders were killed");

    let report = cut_over(&cluster, || runtime.block_on(doors.close()));
    assert!(report["without_server_ms"].as_u64().unwrap() < 20_000, "{report}");
    assert_eq!(report["sessions"], 4, "{report}");
    for index in 0..zookeeper.count() {
        zookeeper.kill(index);
    }
    crowd.go_on("here");
    let leader = cluster.leader();
    cluster.kill(&leader);
    crowd.go_on("here after a leader was killed");
    cluster.restart(&leader);
    runtime.block_on(crowd.check("here"));
    let made = crowd.shared.made.lock().unwrap().len();
    let list = cluster.orch(&["zk", "ls", "/log", "-o", "json"]).ok().json();
    assert!(list.as_array().unwrap().len() >= made);

    // And back, at a moment when nobody writes, so that digests can be compared.
    crowd.rest(true);
    let back = cluster.path().join("back");
    let to = back.display().to_string();
    let report =
        cluster.orch(&["zk", "migrate", "rollback", "move", "--to", &to, "--yes", "-o", "json"]);
    let report = report.ok().json();
    for index in 0..zookeeper.count() {
        let version_2 = zookeeper.data_dir(index).join("version-2");
        fs::remove_dir_all(&version_2).unwrap();
        copy_files(&back.join("version-2"), &version_2);
    }
    zookeeper.start_all();
    let inspected = cluster.orch(&["zk", "inspect", &learners, "-o", "json"]).ok().json();
    let digest = format!("{:#018x}", inspected["inventory"]["digest"].as_u64().unwrap());
    assert_eq!(Value::from(digest), report["digest"]);
    assert_eq!(inspected["inventory"]["sessions"], 4);
    runtime.block_on(doors.open());
    crowd.rest(false);
    crowd.go_on("back there");
    runtime.block_on(crowd.check("back there"));
    let aborted = cluster.orch(&["zk", "migrate", "abort", "move", "--yes"]).ok();
    aborted.says(&["stays closed"]);
    crowd.go_on("back there, with what was kept here given up");
    runtime.block_on(crowd.disperse());
}

/// Runs the cut-over; `close` is called when it tells to close the client ports.
fn cut_over(cluster: &Cluster, close: impl FnOnce()) -> Value {
    let servers: Vec<String> =
        cluster.servers().iter().map(|server| cluster.api_address(server)).collect();
    let mut process = command(
        &[("ORCH_ADDR", &servers.join(","))],
        &["zk", "migrate", "cutover", "move", "-o", "json"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut told = String::new();
    let mut close = Some(close);
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("close ALL client ports")
            && let Some(close) = close.take()
        {
            close();
        }
        told.push_str(&line);
        told.push('\n');
    }
    let mut report = String::new();
    process.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert!(process.wait().unwrap().success(), "{told}");
    serde_json::from_str(&report).unwrap()
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
