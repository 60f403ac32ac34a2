//! The tree as clients see it change, and as it comes from elsewhere.

mod batches;
mod clients;
mod imports;
mod quotas;
mod tree;

pub(in crate::state) use self::imports::one_of_each;
use super::{Tree, ZkBatch, ZkCaller, ZkReply, ZkRequest};
use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::ConnectReply;
use crate::jute::request::{CreateRequest, CreateTtlRequest, SetDataRequest, VersionRequest};
use crate::jute::{Acl, Field, Id, Stat};
use crate::model::time::Timestamp;
use crate::state::{Command, Reply, Stamp, State};

/// A state with one session, and how to speak to it.
struct World {
    state: State,
    index: u64,
    now: u64,
    caller: ZkCaller,
}

impl World {
    fn new() -> Self {
        let caller = ZkCaller { ids: vec![id("ip", "127.0.0.1")], ..ZkCaller::default() };
        let mut world = Self { state: State::default(), index: 0, now: 1_000, caller };
        world.caller = world.open();
        world
    }

    fn tree(&self) -> &Tree {
        self.state.zk()
    }

    fn run(&mut self, command: Command) -> Reply {
        self.index += 1;
        let stamp = Stamp { index: self.index, at: Timestamp(self.now) };
        let applied = self.state.apply(stamp, &command.into());
        self.holds();
        applied.reply.expect("carried out")
    }

    fn batch(&mut self, callers: Vec<ZkCaller>, requests: Vec<ZkRequest>) -> Vec<ZkReply> {
        let batch = ZkBatch { callers, requests, enforce_quota: false };
        match self.run(Command::Zk(Box::new(batch))) {
            Reply::Zk(replies) => replies,
            other => panic!("{other:?}"),
        }
    }

    /// A session like the first one.
    fn open(&mut self) -> ZkCaller {
        let attachment = self.index + 100;
        let open = ZkRequest::Open { timeout: 4_000, password: None, attachment };
        let reply = self.batch(Vec::new(), vec![open]).remove(0);
        let hello = ConnectReply::from_bytes(&reply.body).expect("readable");
        ZkCaller { session: hello.session_id, attachment, ..self.caller.clone() }
    }

    fn ask_as(&mut self, caller: ZkCaller, op: Op, body: Vec<u8>) -> Result<Vec<u8>, ErrorCode> {
        let request = ZkRequest::Op { caller: 0, op: op.number(), body };
        let reply = self.batch(vec![caller], vec![request]).remove(0);
        match ErrorCode::of(reply.err) {
            Some(ErrorCode::Ok) => Ok(reply.body),
            code => Err(code.expect("a known code")),
        }
    }

    fn ask(&mut self, op: Op, body: Vec<u8>) -> Result<Vec<u8>, ErrorCode> {
        self.ask_as(self.caller.clone(), op, body)
    }

    fn create(&mut self, path: &str, flags: i32) -> Result<Vec<u8>, ErrorCode> {
        self.ask(Op::Create, create(path, flags, &[Acl::open()]))
    }

    fn delete(&mut self, path: &str) -> Result<Vec<u8>, ErrorCode> {
        self.ask(Op::Delete, VersionRequest { path, version: -1 }.to_bytes())
    }

    fn set(&mut self, path: &str, data: &[u8], version: i32) -> Result<Vec<u8>, ErrorCode> {
        self.ask(Op::SetData, SetDataRequest { path, data: Some(data), version }.to_bytes())
    }

    fn stat(&self, path: &str) -> Stat {
        self.tree().get(path).expect("there").stat()
    }

    /// What is derived must be what it is derived from.
    fn holds(&self) {
        tree::assert_whole(self.tree());
    }
}

fn id(scheme: &str, id: &str) -> Id {
    Id { scheme: scheme.to_owned(), id: id.to_owned() }
}

fn create(path: &str, flags: i32, acl: &[Acl]) -> Vec<u8> {
    CreateRequest { path, data: Some(b"data"), acl: acl.to_vec(), flags }.to_bytes()
}

fn create_ttl(path: &str, ttl: i64) -> Vec<u8> {
    let acl = vec![Acl::open()];
    CreateTtlRequest { path, data: None, acl, flags: 5, ttl }.to_bytes()
}
