//! An observer of real ensembles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use orch::zookeeper::observer::{
    Event, FindError, Leader, Observer, ObserverError, Options as Join, find_leader, join,
    read_config,
};

use super::tree::Tree;
use crate::support::zookeeper::{Options, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::{LONG, wait_until};

const WAIT: Duration = Duration::from_secs(10);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Clients that write until they are stopped, on nodes that are not at the top.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(zookeeper: &ZooKeeper, writers: usize) -> Self {
        let addresses: Vec<_> =
            (0..zookeeper.count()).map(|i| zookeeper.client_address(i)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let first = addresses[zookeeper.leader()];
        let mut client = Client::connect(first, 10_000).unwrap();
        client.create("/load", b"", mode::PERSISTENT);
        let threads = (0..writers).map(|writer| {
            let (stop, addresses) = (stop.clone(), addresses.clone());
            client.create(&format!("/load/{writer}"), b"", mode::PERSISTENT);
            std::thread::spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A server that is killed breaks the connection: on to the next one.
                    let address = addresses[(writer + rounds as usize) % addresses.len()];
                    let done = std::panic::catch_unwind(|| write(address, writer, &stop));
                    rounds += done.unwrap_or(1);
                }
                rounds
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// Ends it; how many rounds were written.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

/// A session with some of everything.
fn write(address: std::net::SocketAddr, writer: usize, stop: &AtomicBool) -> u64 {
    let mut client = Client::connect(address, 10_000).unwrap();
    let top = format!("/load/{writer}");
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) && rounds < 100 {
        rounds += 1;
        let name = client.create(&format!("{top}/s-"), b"data", mode::SEQUENTIAL);
        client.set(&name, Some(&vec![b'x'; rounds as usize])).unwrap();
        client.create(&format!("{top}/e-"), b"", mode::EPHEMERAL_SEQUENTIAL);
        let _ = client.delete("/load/nothing");
        if rounds % 3 == 0 {
            client.delete(&name).unwrap();
        }
    }
    client.close();
    rounds
}

/// A tree that is kept by an observer.
#[derive(Default)]
struct Copy {
    tree: Tree,
    exact: bool,
    /// How each join began.
    began: Vec<&'static str>,
}

impl Copy {
    fn take(&mut self, event: Event) {
        match event {
            Event::Snapshot { zxid } => {
                self.tree = Tree { zxid, ..Tree::default() };
                self.exact = false;
                self.began.push("snapshot");
            }
            Event::Rows(rows) => {
                for (kind, bytes) in rows.iter() {
                    self.tree.add(&kind.read(bytes).unwrap());
                }
            }
            Event::SnapshotEnd | Event::UpToDate | Event::Heard { .. } => {}
            Event::Diff => self.began.push("diff"),
            Event::Truncate { zxid } => panic!("nothing was lost, but it has only {zxid:#x}"),
            Event::Transaction { zxid, bytes } => {
                self.tree.apply(&bytes);
                assert_eq!(self.tree.zxid, zxid);
                if !self.exact {
                    self.tree.proven = (0, 0);
                }
            }
            Event::NewLeader { .. } => {
                self.exact = true;
                let unknown = self.tree.nodes.values().filter(|node| node.acl.is_none()).count();
                assert_eq!(unknown, 0, "access lists that never came");
            }
        }
    }

    /// Takes events until the tree has that transaction, and is exact.
    async fn follow(&mut self, observer: &mut Observer, zxid: i64) -> Result<(), ObserverError> {
        while self.tree.zxid < zxid || !self.exact {
            let event = observer.next().await?;
            self.take(event);
        }
        Ok(())
    }
}

async fn leader_of(zookeeper: &ZooKeeper) -> Leader {
    let servers: Vec<_> =
        (0..zookeeper.count()).map(|index| zookeeper.client_address(index).to_string()).collect();
    find_leader(&servers, None, WAIT).await.unwrap()
}

/// Joins, again and again until it is accepted: an election takes its time.
async fn join_from(zookeeper: &ZooKeeper, last_zxid: i64) -> Observer {
    let options = Join { last_zxid, ..Join::default() };
    let began = std::time::Instant::now();
    loop {
        let servers: Vec<_> = (0..zookeeper.count())
            .map(|index| zookeeper.client_address(index).to_string())
            .collect();
        let problem = match find_leader(&servers, None, WAIT).await {
            Ok(leader) => match join(&leader.quorum, &options).await {
                Ok(observer) => return observer,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        assert!(began.elapsed() < LONG, "{problem}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The tree as the ensemble has it now, by a connection of its own.
async fn fresh(zookeeper: &ZooKeeper) -> Tree {
    let mut copy = Copy::default();
    let mut observer = join_from(zookeeper, 0).await;
    copy.follow(&mut observer, 0).await.unwrap();
    copy.tree
}

fn zxid(zookeeper: &ZooKeeper) -> i64 {
    let leader = zookeeper.leader();
    zookeeper.zxid(leader).unwrap()
}

#[test]
fn an_ensemble_is_copied_and_followed_under_load_through_a_leader_s_death() {
    let mut zookeeper = ZooKeeper::ensemble(3, Options::default());
    let epoch = zxid(&zookeeper) >> 32;
    let load = Load::start(&zookeeper, 3);
    wait_until("some load", LONG, || {
        if zxid(&zookeeper) & 0xffff_ffff > 500 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    run(async {
        let mut copy = Copy::default();
        let mut observer = join_from(&zookeeper, 0).await;
        assert_eq!(observer.epoch(), epoch);
        copy.follow(&mut observer, zxid(&zookeeper) + 500).await.unwrap();
        let first = copy.tree.proven;
        assert!(first.0 > 200, "{first:?}");

        // The leader dies; another one goes on where this one was.
        let dead = zookeeper.leader();
        zookeeper.kill(dead);
        let lost = loop {
            match observer.next().await {
                Ok(event) => copy.take(event),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(lost, ObserverError::Closed { .. } | ObserverError::Broken { .. }),
            "{lost}"
        );
        let mut observer = join_from(&zookeeper, copy.tree.zxid).await;
        assert_eq!(observer.epoch(), epoch + 1, "only the election raised it");
        zookeeper.start_all();
        copy.follow(&mut observer, zxid(&zookeeper) + 500).await.unwrap();
        assert_eq!(copy.began, ["snapshot", "diff"]);

        let rounds = load.stop();
        assert!(rounds > 100, "{rounds}");
        let last = zxid(&zookeeper);
        copy.follow(&mut observer, last).await.unwrap();
        println!("{:?} proven, {} nodes", copy.tree.proven, copy.tree.nodes.len());
        assert_eq!(copy.tree.proven.1, 0, "{:?}", copy.tree.proven);
        assert!(copy.tree.proven.0 > first.0 + 200, "{:?}", copy.tree.proven);
        // Sessions of killed connections may have expired meanwhile.
        let fresh = fresh(&zookeeper).await;
        copy.follow(&mut observer, fresh.zxid).await.unwrap();
        assert_eq!(copy.tree.common().difference(&fresh.common()), None);
    });
    // Nobody voted for us, and nobody was asked to.
    assert_eq!(zxid(&zookeeper) >> 32, epoch + 1);
}

#[test]
fn an_observer_that_has_nothing_to_do_is_kept() {
    // The leader drops who is silent for syncLimit ticks: two seconds here.
    let options = Options::default().property("tickTime", "200");
    let zookeeper = ZooKeeper::ensemble(3, options);
    run(async {
        let mut copy = Copy::default();
        let mut observer = join_from(&zookeeper, 0).await;
        let last = zxid(&zookeeper);
        copy.follow(&mut observer, last).await.unwrap();
        let idle = async {
            loop {
                let event = observer.next().await.unwrap();
                copy.take(event);
            }
        };
        let quiet = Duration::from_secs(5);
        assert!(tokio::time::timeout(quiet, idle).await.is_err(), "it goes on without end");
        let mut client = Client::connect(zookeeper.client_address(0), 4_000).unwrap();
        client.create("/after", b"", mode::PERSISTENT);
        copy.follow(&mut observer, last + 2).await.unwrap();
        assert!(copy.tree.nodes.contains_key("/after"));
        assert_eq!(copy.began, ["snapshot"]);
    });
}

#[test]
fn the_leader_is_found_and_others_are_told_apart() {
    let zookeeper =
        ZooKeeper::ensemble(3, Options::default().property("4lw.commands.whitelist", "*"));
    let index = zookeeper.leader();
    run(async {
        let leader = leader_of(&zookeeper).await;
        let client = zookeeper.client_address(index).to_string();
        let quorum = zookeeper.quorum_address(index).to_string();
        assert_eq!(leader, Leader { client: Some(client.clone()), quorum: quorum.clone() });
        let given = find_leader(std::slice::from_ref(&client), Some(2888), WAIT).await.unwrap();
        assert_eq!(given, leader);

        // A follower alone knows where the others are.
        let follower = (0..3).find(|other| *other != index).unwrap();
        let servers = [zookeeper.client_address(follower).to_string()];
        let found = find_leader(&servers, None, WAIT).await.unwrap();
        assert_eq!(found, Leader { client: None, quorum });
        // But it does not let learners in, nor does the leader on its clients' port.
        let wrong = zookeeper.quorum_address(follower).to_string();
        let error = join(&wrong, &Join::default()).await.unwrap_err();
        assert!(matches!(error, ObserverError::Connect { .. }), "{error}");
        let error = join(&client, &Join::default()).await.unwrap_err();
        assert!(!matches!(error, ObserverError::Connect { .. }), "{error}");
        let error = find_leader(&servers, Some(2888), WAIT).await.unwrap_err();
        assert!(error.to_string().contains("follows"), "{error}");
    });
    let mut client = Client::connect(zookeeper.client_address(index), 4_000).unwrap();
    let config = client.get("/zookeeper/config").unwrap();
    let members = read_config(&String::from_utf8(config).unwrap());
    let ports: Vec<_> = members.iter().map(|member| member.quorum.clone()).collect();
    let expected: Vec<_> = (0..3).map(|i| zookeeper.quorum_address(i).to_string()).collect();
    assert_eq!(ports, expected);
}

#[test]
fn a_standalone_server_has_no_quorum_port() {
    let zookeeper = ZooKeeper::standalone(Options::default());
    let server = zookeeper.client_address(0).to_string();
    let error = run(find_leader(std::slice::from_ref(&server), None, WAIT)).unwrap_err();
    assert_eq!(error, FindError::Alone(server));
}

#[test]
fn an_ensemble_that_asks_for_proof_is_told_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let jaas = directory.path().join("jaas.conf");
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule required";
    let text = format!(
        "QuorumServer {{ {module} user_learner=\"secret\"; }};\n\
         QuorumLearner {{ {module} username=\"learner\" password=\"secret\"; }};\n"
    );
    std::fs::write(&jaas, text).unwrap();
    let mut options =
        Options::default().java(&format!("-Djava.security.auth.login.config={}", jaas.display()));
    for key in ["enableSasl", "learnerRequireSasl", "serverRequireSasl"] {
        options = options.property(&format!("quorum.auth.{key}"), "true");
    }
    let zookeeper = ZooKeeper::ensemble(3, options);
    let leader = zookeeper.quorum_address(zookeeper.leader()).to_string();
    let error = run(join(&leader, &Join::default())).unwrap_err();
    assert!(
        matches!(error, ObserverError::Closed { .. } | ObserverError::Broken { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("quorum.auth.learnerRequireSasl"), "{error}");
}
