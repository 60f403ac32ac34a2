//! A blocking client of ZooKeeper's protocol, one request at a time: what tests drive servers with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use orch::jute::reply::{ConnectReply, ReplyHeader};
use orch::jute::request::{
    ConnectRequest, CreateRequest, CreateTtlRequest, MultiOp, MultiRequest, RequestHeader,
    SetAclRequest, SetDataRequest, VersionRequest, WatchRequest,
};
use orch::jute::{Acl, Field, Op, Reader};

const WAIT: Duration = Duration::from_secs(30);

/// Flags of a create.
pub mod mode {
    /// Stays.
    pub const PERSISTENT: i32 = 0;
    /// Goes with its session.
    pub const EPHEMERAL: i32 = 1;
    /// Stays, with a number behind its name.
    pub const SEQUENTIAL: i32 = 2;
    /// Goes with its session, with a number behind its name.
    pub const EPHEMERAL_SEQUENTIAL: i32 = 3;
    /// Goes with its last child.
    pub const CONTAINER: i32 = 4;
    /// Goes when its time is up.
    pub const TTL: i32 = 5;
}

/// A session on one connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    xid: i32,
    /// Its id.
    pub session_id: i64,
    /// Its password.
    pub password: [u8; 16],
}

impl Client {
    /// A new session with that time-out in milliseconds.
    pub fn connect(address: SocketAddr, timeout: i32) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, xid: 0, session_id: 0, password: [0; 16] };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout,
            session_id: 0,
            password: vec![0; 16],
            read_only: Some(false),
        };
        client.send(&request.to_bytes())?;
        let answer = client.receive()?;
        let reply = ConnectReply::from_bytes(&answer).map_err(std::io::Error::other)?;
        (client.session_id, client.password) = (reply.session_id, reply.password);
        Ok(client)
    }

    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&Some(frame).to_bytes())
    }

    fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// One request; its answer's record, or the error's number.
    pub fn call<'a>(
        &mut self,
        op: Op,
        record: &impl Field<'a>,
    ) -> std::io::Result<Result<Vec<u8>, i32>> {
        self.request(op, &record.to_bytes())
    }

    fn request(&mut self, op: Op, record: &[u8]) -> std::io::Result<Result<Vec<u8>, i32>> {
        self.xid += 1;
        let header = RequestHeader { xid: self.xid, op: op.number() };
        self.send(&[header.to_bytes(), record.to_vec()].concat())?;
        let frame = self.receive()?;
        let mut reader = Reader::new(&frame);
        let reply: ReplyHeader = reader.field().map_err(std::io::Error::other)?;
        assert_eq!(reply.xid, self.xid, "answers come in order");
        Ok(if reply.err == 0 { Ok(reader.rest().to_vec()) } else { Err(reply.err) })
    }

    /// Makes a node that everybody may use; its path.
    #[track_caller]
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> String {
        self.create_with(path, data, flags, vec![Acl::open()])
    }

    /// Makes a node with an access list; its path.
    #[track_caller]
    pub fn create_with(&mut self, path: &str, data: &[u8], flags: i32, acl: Vec<Acl>) -> String {
        let op = if flags == mode::CONTAINER { Op::CreateContainer } else { Op::Create };
        let request = CreateRequest { path, data: Some(data), acl, flags };
        let reply = self.call(op, &request).unwrap().unwrap_or_else(|err| panic!("{path}: {err}"));
        Reader::new(&reply).field().unwrap()
    }

    /// Makes a node with a time to live, in milliseconds.
    #[track_caller]
    pub fn create_ttl(&mut self, path: &str, data: &[u8], ttl: i64) {
        let data = Some(data);
        let acl = vec![Acl::open()];
        let request = CreateTtlRequest { path, data, acl, flags: mode::TTL, ttl };
        self.call(Op::CreateTtl, &request).unwrap().unwrap_or_else(|err| panic!("{path}: {err}"));
    }

    /// A node's data.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, i32> {
        let reply = self.call(Op::GetData, &WatchRequest { path, watch: false }).unwrap()?;
        let data: Option<&[u8]> = Reader::new(&reply).field().unwrap();
        Ok(data.unwrap_or_default().to_vec())
    }

    /// Replaces a node's data.
    pub fn set(&mut self, path: &str, data: Option<&[u8]>) -> Result<(), i32> {
        let request = SetDataRequest { path, data, version: -1 };
        self.call(Op::SetData, &request).unwrap().map(drop)
    }

    /// Replaces a node's access list.
    pub fn set_acl(&mut self, path: &str, acl: Vec<Acl>) -> Result<(), i32> {
        self.call(Op::SetAcl, &SetAclRequest { path, acl, version: -1 }).unwrap().map(drop)
    }

    /// Removes a node.
    pub fn delete(&mut self, path: &str) -> Result<(), i32> {
        self.call(Op::Delete, &VersionRequest { path, version: -1 }).unwrap().map(drop)
    }

    /// Several changes, or none; the reply's bytes.
    pub fn multi(&mut self, ops: Vec<MultiOp<'_>>) -> Vec<u8> {
        self.call(Op::Multi, &MultiRequest { ops }).unwrap().unwrap_or_default()
    }

    /// Ends the session.
    pub fn close(mut self) {
        let _ = self.request(Op::CloseSession, &[]);
    }
}
