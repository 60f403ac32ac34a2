//! Clients that do all sorts of things to a few variables and nodes, and write down what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orch::jute::reply::{CreateReply, DataReply, StatReply};
use orch::jute::request::{
    CreateRequest, PathRequest, SetDataRequest, VersionRequest, WatchRequest,
};
use orch::jute::{Acl, ErrorCode, Op, Stat};
use orch::zookeeper::client::{Client, ClientError, Ensemble, Options, Pending, Reply};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::history::{History, Row, Seen};
use super::models::{Changed, NodeOp, Outcome, VariableOp};
use super::order::{self, Born};
use super::servers::Doors;
use crate::support::{LONG, wait_until};

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries when nobody answers.
const PAUSE: Duration = Duration::from_millis(20);
/// The parent of the nodes that are written.
pub const NODES: &str = "/nodes";
/// The parent of the nodes with numbers.
const NUMBERED: &str = "/numbered";

/// How many clients, and what they are about.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of the REST API.
    pub rest: usize,
    /// Of ZooKeeper's protocol.
    pub zookeeper: usize,
    /// Variables, and as many nodes.
    pub paths: usize,
    /// Each one's pause between two operations is up to this.
    pub pause: Duration,
    /// Part of all paths, so that one cluster can have one plan after the other.
    pub epoch: u64,
}

impl Plan {
    fn variable(&self, at: usize) -> String {
        format!("v{}-{at}", self.epoch)
    }

    fn node(&self, at: usize) -> String {
        format!("{NODES}/{}-{at}", self.epoch)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self { rest: 4, zookeeper: 4, paths: 4, pause: Duration::from_millis(30), epoch: 0 }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    doors: Doors,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    plan: Plan,
}

impl Clients {
    /// Makes the nodes' parents, and starts them.
    pub fn start(doors: Doors, history: Arc<History>, plan: Plan, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        let one = |name: String, seed: u64| One {
            name,
            doors: doors.clone(),
            history: history.clone(),
            stop: stop.clone(),
            rng: StdRng::seed_from_u64(seed),
            plan,
            count: 0,
        };
        make_parents(&doors);
        for number in 0..plan.rest {
            let rest = Rest::new(one(format!("rest-{number}"), seed ^ (number as u64 + 1)));
            tasks.push(doors.runtime.spawn(rest.run()));
        }
        for number in 0..plan.zookeeper {
            let seed = seed ^ (1000 + number as u64);
            let keeper = Keeper { one: one(format!("zk-{number}"), seed), first: number };
            tasks.push(doors.runtime.spawn(keeper.run()));
        }
        Self { doors, history, stop, tasks, plan }
    }

    /// Ends them, when each has the answer to its last question, and reads everything on each
    /// server once more.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.doors.runtime.block_on(task).unwrap();
        }
        let (doors, history, plan) = (self.doors.clone(), self.history.clone(), self.plan);
        let last = async move {
            for at in 0..doors.servers.len() {
                let one = || One {
                    name: format!("last-{at}"),
                    doors: doors.clone(),
                    history: history.clone(),
                    stop: Arc::default(),
                    rng: StdRng::seed_from_u64(0),
                    plan,
                    count: 0,
                };
                let mut rest = Rest::new(one());
                for path in 0..plan.paths {
                    while !rest.read(at, path).await {}
                }
                Keeper { one: one(), first: at }.last().await;
            }
        };
        let last = async move { tokio::time::timeout(LONG, last).await };
        let last = self.doors.runtime.spawn(last);
        self.doors.runtime.block_on(last).unwrap().expect("every server to answer");
    }

    /// Removes what a plan has left behind.
    pub fn tidy(doors: &Doors, plan: Plan) {
        wait_until("what was left behind to be removed", LONG, || {
            let tidied = doors.runtime.spawn(tidy(doors.clone(), plan));
            doors.runtime.block_on(tidied).unwrap()
        });
    }
}

async fn tidy(doors: Doors, plan: Plan) -> Result<(), String> {
    let said = |error: ClientError| error.to_string();
    let client = connect(&doors, 0).await.map_err(said)?;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    for at in 0..plan.paths {
        let request = VersionRequest { path: &plan.node(at), version: -1 };
        let pending = client.request(Op::Delete.number(), &request).await.map_err(said)?;
        let gone = pending.await.map_err(said)?;
        let (door, path) = (&doors.servers[0].1, plan.variable(at));
        let url = format!("http://{door}/v1/variables/{path}");
        let deleted = http.delete(url).send().await.map_err(|error| error.to_string())?;
        let fine = [0, ErrorCode::NoNode.number()].contains(&gone.err)
            && [204, 404].contains(&deleted.status().as_u16());
        if !fine {
            return Err(format!("{} and {}", gone.err, deleted.status()));
        }
    }
    client.close().await.map_err(said)
}

/// What all clients have.
#[derive(Debug)]
struct One {
    name: String,
    doors: Doors,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    rng: StdRng,
    plan: Plan,
    /// Values so far: none comes twice.
    count: u64,
}

impl One {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn value(&mut self) -> String {
        self.count += 1;
        format!("{}:{}", self.name, self.count)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    async fn pause(&mut self) {
        let most = self.plan.pause.as_micros().max(1) as u64;
        let micros = self.rng.random_range(0..most);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    fn note(&self, server: &str, path: &str, begin: u64, end: Option<u64>, seen: Seen) {
        let (client, server) = (self.name.clone(), server.to_owned());
        self.history.note(Row { client, server, path: path.to_owned(), begin, end, seen });
    }
}

/// A client of the REST API: asks any server.
struct Rest {
    one: One,
    http: reqwest::Client,
    /// The last index that was seen of each variable.
    indexes: Vec<u64>,
}

/// What became of one exchange.
enum Exchange {
    Answer(u16, Option<u64>, String),
    /// It was not carried out.
    Never,
    /// Nobody knows.
    Unknown,
}

impl Rest {
    fn new(one: One) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let indexes = vec![0; one.plan.paths];
        Self { one, http, indexes }
    }

    async fn run(mut self) {
        while self.one.goes_on() {
            let (server, path) =
                (self.one.below(self.one.doors.servers.len()), self.one.below(self.one.plan.paths));
            match self.one.below(20) {
                0..8 => drop(self.read(server, path).await),
                8..15 => {
                    let index = self.indexes[path];
                    self.put(server, path, Some(index)).await;
                }
                15..18 => self.put(server, path, None).await,
                18 => {
                    let index = self.indexes[path];
                    self.delete(server, path, Some(index)).await;
                }
                _ => self.delete(server, path, None).await,
            }
            self.one.pause().await;
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Exchange {
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let index = response
                    .headers()
                    .get("etag")
                    .and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
                match response.text().await {
                    Ok(text) => Exchange::Answer(status, index, text),
                    Err(_) => Exchange::Unknown,
                }
            }
            Err(error) if error.is_connect() => Exchange::Never,
            Err(_) => Exchange::Unknown,
        }
    }

    fn at(&self, server: usize, path: usize, if_index: Option<u64>) -> (String, String) {
        let query = if_index.map_or(String::new(), |index| format!("?if_index={index}"));
        let path = self.one.plan.variable(path);
        let door = &self.one.doors.servers[server].1;
        (format!("http://{door}/v1/variables/{path}{query}"), path)
    }

    /// Whether it was answered.
    async fn read(&mut self, server: usize, at: usize) -> bool {
        let (url, path) = self.at(server, at, None);
        let begin = self.one.history.now();
        let found = match self.exchange(self.http.get(url)).await {
            Exchange::Answer(200, Some(index), value) => {
                self.indexes[at] = index;
                Some((value, index))
            }
            Exchange::Answer(404, ..) => {
                self.indexes[at] = 0;
                None
            }
            _ => {
                tokio::time::sleep(PAUSE).await;
                return false;
            }
        };
        self.note(server, &path, begin, VariableOp::Read { found });
        true
    }

    fn note(&self, server: usize, path: &str, begin: u64, op: VariableOp) {
        let is_known = match &op {
            VariableOp::Read { .. } => true,
            VariableOp::Put { outcome, .. } | VariableOp::Delete { outcome, .. } => {
                outcome.is_some()
            }
        };
        let end = is_known.then(|| self.one.history.now());
        let name = &self.one.doors.servers[server].0;
        self.one.note(name, path, begin, end, Seen::Variable(op));
    }

    async fn put(&mut self, server: usize, at: usize, if_index: Option<u64>) {
        let (url, path) = self.at(server, at, if_index);
        let value = self.one.value();
        let begin = self.one.history.now();
        let exchange = self.exchange(self.http.put(url).body(value.clone())).await;
        let Some(outcome) = self.outcome(at, exchange).await else { return };
        self.note(server, &path, begin, VariableOp::Put { value, if_index, outcome });
    }

    async fn delete(&mut self, server: usize, at: usize, if_index: Option<u64>) {
        let (url, path) = self.at(server, at, if_index);
        let begin = self.one.history.now();
        let exchange = self.exchange(self.http.delete(url)).await;
        let Some(outcome) = self.outcome(at, exchange).await else { return };
        self.note(server, &path, begin, VariableOp::Delete { if_index, outcome });
    }

    /// None: it was not carried out; none within: nobody knows.
    async fn outcome(&mut self, at: usize, exchange: Exchange) -> Option<Option<Outcome>> {
        match exchange {
            Exchange::Answer(200, Some(index), _) => {
                self.indexes[at] = index;
                Some(Some(Outcome::Done(index)))
            }
            Exchange::Answer(204, ..) => {
                self.indexes[at] = 0;
                Some(Some(Outcome::Done(0)))
            }
            Exchange::Answer(404, ..) => {
                self.indexes[at] = 0;
                Some(Some(Outcome::NotFound))
            }
            Exchange::Answer(409, _, text) => {
                let now = index_of_conflict(&text);
                self.indexes[at] = now.unwrap_or(self.indexes[at]);
                Some(Some(Outcome::Conflict(now)))
            }
            Exchange::Answer(503, _, text) if text.contains("no_leader") => {
                tokio::time::sleep(PAUSE).await;
                None
            }
            Exchange::Never => {
                tokio::time::sleep(PAUSE).await;
                None
            }
            Exchange::Answer(500.., ..) | Exchange::Unknown => {
                tokio::time::sleep(PAUSE).await;
                Some(None)
            }
            Exchange::Answer(status, _, text) => panic!("status {status}: {text}"),
        }
    }
}

/// Where a refusal says that the variable is.
fn index_of_conflict(text: &str) -> Option<u64> {
    if text.contains("there is no variable") {
        return Some(0);
    }
    let rest = text.split_once("is at index ")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Makes the parents of all nodes, if they are not there.
pub fn make_parents(doors: &Doors) {
    let theirs = doors.clone();
    wait_until("the parents of all nodes to be made", LONG, || {
        let theirs = theirs.clone();
        let made = doors.runtime.spawn(async move { make_them(&theirs).await });
        doors.runtime.block_on(made).unwrap().map_err(|error| error.to_string())
    });
}

async fn make_them(doors: &Doors) -> Result<(), ClientError> {
    let client = connect(doors, 0).await?;
    for path in [NODES, NUMBERED] {
        let request = CreateRequest { path, data: Some(b""), acl: vec![Acl::open()], flags: 0 };
        let made = client.request(Op::Create.number(), &request).await?.await?;
        let there = [0, ErrorCode::NodeExists.number()];
        assert!(there.contains(&made.err), "{path}: {}", made.err);
    }
    client.close().await
}

/// A session that asks that server first.
pub async fn connect(doors: &Doors, first: usize) -> Result<Client, ClientError> {
    let count = doors.servers.len();
    let servers = (0..count).map(|at| doors.servers[(first + at) % count].2.clone()).collect();
    let ensemble = Ensemble { servers, chroot: String::new() };
    let options = Options {
        timeout: Duration::from_secs(6),
        pause: Duration::from_millis(50),
        ..Options::default()
    };
    // What happens to the session shows in its requests.
    Client::connect(&ensemble, options).await.map(|(client, _)| client)
}

/// A client of ZooKeeper's protocol: goes on at another server when one is gone.
struct Keeper {
    one: One,
    first: usize,
}

/// No answer came; the session, or this end of it, is not used any more.
struct Over;

impl Keeper {
    async fn run(mut self) {
        while self.one.goes_on() {
            let Ok(client) = connect(&self.one.doors, self.first).await else { continue };
            self.first += 1;
            while self.one.goes_on() {
                if self.step(&client).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
                self.one.pause().await;
            }
            if !self.one.goes_on() {
                let _ = tokio::time::timeout(PATIENCE, client.close()).await;
            }
        }
    }

    /// Reads all nodes, as the last thing that happens.
    async fn last(mut self) {
        let mut left: Vec<usize> = (0..self.one.plan.paths).collect();
        while !left.is_empty() {
            let Ok(client) = connect(&self.one.doors, self.first).await else { continue };
            while let Some(path) = left.last() {
                if self.read(&client, &self.one.plan.node(*path)).await.is_err() {
                    break;
                }
                left.pop();
            }
            let _ = tokio::time::timeout(PATIENCE, client.close()).await;
        }
    }

    async fn step(&mut self, client: &Client) -> Result<(), Over> {
        let at = self.one.below(self.one.plan.paths);
        let path = self.one.plan.node(at);
        match self.one.below(20) {
            0..5 => self.read(client, &path).await.map(drop),
            5..9 => self.read_locally(client, &path).await,
            9..14 => {
                // What is read right before is what the change expects.
                let version = self.read(client, &path).await?;
                match version {
                    Some(version) => self.set(client, &path, version).await,
                    None => self.create(client, &path).await,
                }
            }
            14..16 => self.set(client, &path, -1).await,
            16 => self.create(client, &path).await,
            17 => {
                let version = self.read(client, &path).await?.unwrap_or(-1);
                self.delete(client, &path, version).await
            }
            _ => self.number(client).await,
        }
    }

    /// An answer, as it may be read or refused.
    async fn answer(&self, sent: Result<Pending, ClientError>) -> Result<Reply, Over> {
        let Ok(pending) = sent else { return Err(Over) };
        match tokio::time::timeout(PATIENCE, pending).await {
            Ok(Ok(reply)) => Ok(reply),
            _ => Err(Over),
        }
    }

    /// What a reply tells of the order.
    fn order(&self, client: &Client, reply: &Reply, stat: Option<&Stat>) -> order::Reply {
        let node = stat.map(|stat| Born { czxid: stat.czxid, mzxid: stat.mzxid });
        order::Reply { session: client.session().id, zxid: reply.zxid, node, data: None }
    }

    fn nothing(&self, client: &Client) -> order::Reply {
        order::Reply { session: client.session().id, zxid: 0, node: None, data: None }
    }

    fn note(&self, path: &str, begin: u64, end: Option<u64>, seen: Seen) {
        self.one.note("any", path, begin, end, seen);
    }

    /// `getData` behind a `sync`; the version.
    async fn read(&mut self, client: &Client, path: &str) -> Result<Option<i32>, Over> {
        let begin = self.one.history.now();
        let sync = client.request(Op::Sync.number(), &PathRequest { path }).await;
        let get = client.request(Op::GetData.number(), &WatchRequest { path, watch: false }).await;
        let synced = self.answer(sync).await?;
        let reply = self.answer(get).await?;
        let end = Some(self.one.history.now());
        if synced.err != 0 {
            return Err(Over);
        }
        let (found, order) = self.found(client, &reply)?;
        let version = found.as_ref().map(|(_, version)| *version);
        self.note(path, begin, end, Seen::Node(NodeOp::Read { found }, order));
        Ok(version)
    }

    fn found(
        &self,
        client: &Client,
        reply: &Reply,
    ) -> Result<(Option<(String, i32)>, order::Reply), Over> {
        match reply.read::<DataReply<'_>>() {
            Ok(DataReply { data, stat }) => {
                let data = String::from_utf8_lossy(data.unwrap_or_default()).into_owned();
                let order = self.order(client, reply, Some(&stat));
                let order = order::Reply { data: Some(data.clone()), ..order };
                Ok((Some((data, stat.version)), order))
            }
            Err(ClientError::Refused(ErrorCode::NoNode)) => {
                Ok((None, self.order(client, reply, None)))
            }
            Err(_) => Err(Over),
        }
    }

    async fn read_locally(&mut self, client: &Client, path: &str) -> Result<(), Over> {
        let begin = self.one.history.now();
        let get = client.request(Op::GetData.number(), &WatchRequest { path, watch: false }).await;
        let reply = self.answer(get).await?;
        let (_, order) = self.found(client, &reply)?;
        let end = Some(self.one.history.now());
        self.note(path, begin, end, Seen::Local(order));
        Ok(())
    }

    async fn create(&mut self, client: &Client, path: &str) -> Result<(), Over> {
        let data = self.one.value();
        let request =
            CreateRequest { path, data: Some(data.as_bytes()), acl: vec![Acl::open()], flags: 0 };
        let begin = self.one.history.now();
        let sent = client.request(Op::Create2.number(), &request).await;
        let reply = self.answer(sent).await;
        let end = self.one.history.now();
        let told = reply.as_ref().ok().and_then(|reply| match reply.read::<CreateReply<'_>>() {
            Ok(created) => Some((true, self.order(client, reply, Some(&created.stat)))),
            Err(ClientError::Refused(ErrorCode::NodeExists)) => {
                Some((false, self.order(client, reply, None)))
            }
            Err(_) => None,
        });
        match told {
            Some((done, order)) => {
                let wrote = done.then(|| data.clone());
                let op = NodeOp::Create { data, done: Some(done) };
                let order = order::Reply { data: wrote, ..order };
                self.note(path, begin, Some(end), Seen::Node(op, order));
                Ok(())
            }
            None => {
                let op = NodeOp::Create { data, done: None };
                self.note(path, begin, None, Seen::Node(op, self.nothing(client)));
                Err(Over)
            }
        }
    }

    async fn set(&mut self, client: &Client, path: &str, version: i32) -> Result<(), Over> {
        let data = self.one.value();
        let request = SetDataRequest { path, data: Some(data.as_bytes()), version };
        let begin = self.one.history.now();
        let sent = client.request(Op::SetData.number(), &request).await;
        let reply = self.answer(sent).await;
        let end = self.one.history.now();
        let (outcome, order) = match &reply {
            Ok(reply) => match reply.read::<StatReply>() {
                Ok(StatReply { stat }) => {
                    let order = self.order(client, reply, Some(&stat));
                    let order = order::Reply { data: Some(data.clone()), ..order };
                    (Some(Changed::Done(stat.version)), order)
                }
                Err(error) => (refusal(&error), self.order(client, reply, None)),
            },
            Err(Over) => (None, self.nothing(client)),
        };
        let op = NodeOp::Set { data, version, outcome };
        self.changed(path, begin, end, outcome, Seen::Node(op, order))
    }

    async fn delete(&mut self, client: &Client, path: &str, version: i32) -> Result<(), Over> {
        let begin = self.one.history.now();
        let sent = client.request(Op::Delete.number(), &VersionRequest { path, version }).await;
        let reply = self.answer(sent).await;
        let end = self.one.history.now();
        let (outcome, order) = match &reply {
            Ok(reply) => {
                let outcome = match reply.done() {
                    Ok(()) => Some(Changed::Done(version)),
                    Err(error) => refusal(&error),
                };
                (outcome, self.order(client, reply, None))
            }
            Err(Over) => (None, self.nothing(client)),
        };
        let op = NodeOp::Delete { version, outcome };
        self.changed(path, begin, end, outcome, Seen::Node(op, order))
    }

    fn changed(
        &self,
        path: &str,
        begin: u64,
        end: u64,
        outcome: Option<Changed>,
        seen: Seen,
    ) -> Result<(), Over> {
        self.note(path, begin, outcome.map(|_| end), seen);
        outcome.map(drop).ok_or(Over)
    }

    /// A node with a number behind its name; gone again at once, so that only the number counts.
    async fn number(&mut self, client: &Client) -> Result<(), Over> {
        let path = format!("{NUMBERED}/n-");
        let flags = 2;
        let request = CreateRequest { path: &path, data: Some(b""), acl: vec![Acl::open()], flags };
        let begin = self.one.history.now();
        let sent = client.request(Op::Create2.number(), &request).await;
        let reply = self.answer(sent).await?;
        let end = Some(self.one.history.now());
        let Ok(CreateReply { path: made, .. }) = reply.read::<CreateReply<'_>>() else {
            return Err(Over);
        };
        let number = made.strip_prefix(&path).and_then(|number| number.parse().ok());
        let number = number.unwrap_or_else(|| panic!("{made} has no number"));
        let order = self.order(client, &reply, None);
        self.note(NUMBERED, begin, end, Seen::Number(number, order));
        let request = VersionRequest { path: made, version: -1 };
        let sent = client.request(Op::Delete.number(), &request).await;
        self.answer(sent).await.map(drop)
    }
}

/// What a refusal says of the node; none: something else was wrong.
fn refusal(error: &ClientError) -> Option<Changed> {
    match error {
        ClientError::Refused(ErrorCode::NoNode) => Some(Changed::NoNode),
        ClientError::Refused(ErrorCode::BadVersion) => Some(Changed::BadVersion),
        _ => None,
    }
}
