//! Feeds every reader of outside bytes with valid inputs that were tampered with: a bounded
//! number of cases from one seed. The same readers are fuzz targets under tests/fuzz.

use std::path::Path;

use orch::model::job_file::{Format, read};
use orch::model::time::Timestamp;
use orch::state::codec::{BatchWriter, to_bytes};
use orch::state::{Command, Request, Stamp, State, snapshot};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../fuzz/readers/mod.rs"]
mod readers;

const SEED: u64 = 0x6f72_6368;
const CASES: usize = 10_000;

/// Runs `reader` on tampered copies of `inputs`; a panic names the case.
fn feed(inputs: &[Vec<u8>], reader: fn(&[u8])) {
    assert!(!inputs.is_empty());
    let mut random = StdRng::seed_from_u64(SEED);
    for input in inputs {
        reader(input);
    }
    for case in 0..CASES {
        let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
        for _ in 0..random.random_range(1..6) {
            tamper(&mut bytes, inputs, &mut random);
        }
        if std::panic::catch_unwind(|| reader(&bytes)).is_err() {
            panic!("case {case} of seed {SEED:#x}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

fn tamper(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(random.random());
        return;
    }
    let at = random.random_range(0..bytes.len());
    let some = random.random_range(0..32.min(bytes.len() - at) + 1);
    match random.random_range(0..7) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + some)),
        // A piece twice.
        4 => {
            let piece = bytes[at..at + some].to_vec();
            bytes.splice(at..at, piece);
        }
        // A length or a number at its edge.
        5 => {
            let edge = [0x00, 0x7f, 0x80, 0xff][random.random_range(0..4)];
            bytes[at..at + some.min(4)].fill(edge);
        }
        // A piece of another input.
        _ => {
            let other = &inputs[random.random_range(0..inputs.len())];
            let from = random.random_range(0..other.len());
            let to = (from + some).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
}

fn example_files() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn example_commands() -> Vec<Request> {
    let mut commands = vec![Command::FoundCluster { cluster_id: 7 }];
    for file in example_files() {
        for spec in read(&file, Format::Yaml).unwrap() {
            commands.push(Command::SubmitJob { spec: spec.into(), if_version: None });
        }
    }
    let path = "a/b".to_owned().try_into().unwrap();
    commands.push(Command::PutVariable {
        project: Default::default(),
        path,
        value: b"value".to_vec(),
        if_index: Some(0),
    });
    commands.into_iter().map(Request::from).collect()
}

#[test]
fn job_files() {
    let json = r#"{"job": "a", "image": "b:1", "replicas": 2, "ports": {"http": 80}}"#;
    let toml = "job = \"a\"\nimage = \"b:1\"\n[resources]\ncpu = 0.5\n";
    let yaml = example_files();
    let mut inputs: Vec<Vec<u8>> =
        yaml.iter().map(|file| [&[0], file.as_bytes()].concat()).collect();
    inputs.push([&[1], json.as_bytes()].concat());
    inputs.push([&[2], toml.as_bytes()].concat());
    feed(&inputs, readers::job_file::feed);
}

#[test]
fn log_entries() {
    let requests = example_commands();
    let mut inputs = Vec::new();
    for some in [&requests[..], &requests[..1], &requests[2..4]] {
        let mut batch = BatchWriter::new(Timestamp(1_700_000_000_000));
        for request in some {
            batch.push(&to_bytes(request).unwrap());
        }
        inputs.push(batch.finish());
    }
    feed(&inputs, readers::log_entry::feed);
}

#[test]
fn snapshots() {
    let mut state = State::default();
    let mut inputs = Vec::new();
    for (i, request) in example_commands().iter().enumerate() {
        let stamp = Stamp { index: i as u64 + 1, at: Timestamp(1_700_000_000_000 + i as u64) };
        assert!(state.apply(stamp, request).reply.is_ok());
        let mut bytes = Vec::new();
        snapshot::write(&state, &mut bytes).unwrap();
        inputs.push(bytes);
    }
    feed(&inputs, readers::snapshot::feed);
}

#[test]
fn messages() {
    use orch::model::allocation::{AllocReport, AllocStatus, Assignment, Grant, Health};
    use orch::model::name::AllocId;
    use orch::model::node::NodeSpec;
    use orch::model::resources::Resources;

    let spec = read(&example_files()[0], Format::Yaml).unwrap().remove(0);
    let grant = Grant { ports: [("http".parse().unwrap(), 20_000)].into(), ..Grant::default() };
    let assignment = Assignment { id: AllocId(1), version: 1, index: 0, grant, spec: spec.into() };
    let report = AllocReport {
        id: AllocId(1),
        generation: 1,
        status: AllocStatus::Running,
        health: Health::Healthy,
        ready: true,
        tasks: Default::default(),
        message: "fine".to_owned(),
    };
    let node = NodeSpec {
        name: "n1".parse().unwrap(),
        agent_id: 7,
        address: "127.0.0.1".to_owned(),
        class: "web".to_owned(),
        attributes: [("zone".to_owned(), "a".to_owned())].into(),
        resources: Resources { cpu_milli: 1000, memory: 1 << 30, disk: 1 << 30, gpu: 0 },
        runtimes: ["docker".to_owned()].into(),
        volume_roots: vec!["/srv".to_owned()],
        port_range: (20_000, 30_000),
        version: "0.1.0".to_owned(),
    };
    let inputs = [
        [vec![0], to_bytes(&assignment).unwrap()].concat(),
        [vec![1], to_bytes(&report).unwrap()].concat(),
        [vec![2], to_bytes(&node).unwrap()].concat(),
    ];
    feed(&inputs, readers::message::feed);
}

#[test]
fn marathon_definitions() {
    use orch::marathon::messages::{CommandInfo, ServiceDefinition};
    use prost::Message as _;

    let stored = ServiceDefinition {
        id: "shop_web".to_owned(),
        cmd: CommandInfo { value: Some("run".to_owned()), ..CommandInfo::default() },
        instances: 2,
        ports: vec![10_000, 0],
        dependencies: vec!["shop_db".to_owned()],
        ..ServiceDefinition::default()
    };
    let app = r#"{"id": "/", "apps": [{"id": "/a", "cmd": "x", "instances": 2, "env": {"A": "1"},
        "container": {"docker": {"image": "a:1"}, "portMappings": [{"containerPort": 80}],
        "volumes": [{"containerPath": "/a", "hostPath": "/b", "mode": "RO"}]},
        "constraints": [["rack", "LIKE", "r[1-3]|x"]],
        "healthChecks": [{"protocol": "HTTP", "portIndex": 0}]}]}"#;
    let pod = r#"{"id": "/p", "containers": [{"name": "c", "image": {"id": "a:1"},
        "endpoints": [{"name": "w", "containerPort": 80}]}], "scaling": {"instances": 2}}"#;
    let inputs = [
        [&[0], &stored.encode_to_vec()[..]].concat(),
        [&[1], app.as_bytes()].concat(),
        [&[1], pod.as_bytes()].concat(),
    ];
    feed(&inputs, readers::marathon::feed);
}

/// Each kind of message, with the byte that names it to the reader.
fn zookeeper_messages() -> Vec<Vec<u8>> {
    use orch::jute::quorum::{AuthInfo, INFORM, QuorumPacket};
    use orch::jute::reply::{ConnectReply, MultiReply, MultiResult};
    use orch::jute::request::*;
    use orch::jute::txn::{Transaction, Txn, TxnHeader};
    use orch::jute::{Acl, Field, Id, Op};

    let acl = vec![Acl::open()];
    let create = CreateRequest { path: "/a/b", data: Some(b"data"), acl, flags: 3 };
    let request = |op: Op, record: Vec<u8>| {
        let header = RequestHeader { xid: 7, op: op.number() };
        [vec![1], header.to_bytes(), record].concat()
    };
    let ops = vec![
        MultiOp::Create(create.clone()),
        MultiOp::Check(VersionRequest { path: "/a", version: 1 }),
    ];
    let watches = SetWatches2Request {
        relative_zxid: 5,
        data: vec!["/a"],
        exist: vec!["/b", "/c"],
        child: Vec::new(),
        persistent: vec!["/d"],
        persistent_recursive: vec!["/"],
    };
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 9,
        timeout: 4000,
        session_id: 0x100_0000,
        password: vec![7; 16],
        read_only: Some(false),
    };
    let password = [7; 16];
    let accepted = ConnectReply {
        protocol_version: 0,
        timeout: 4000,
        session_id: 1,
        password,
        read_only: None,
    };
    let header = TxnHeader { client_id: 1, cxid: 2, zxid: 3, time: 4, op: -11 };
    let closed = Txn::CloseSession(Some(vec!["/a/e", "/b"]));
    let transaction = Transaction { header, txn: closed, digest: None }.to_bytes();
    let ids = vec![Id { scheme: "ip".to_owned(), id: "127.0.0.1".to_owned() }];
    let auth = AuthInfo(Some(ids));
    let packet = QuorumPacket { kind: INFORM, zxid: 3, data: Some(&transaction), auth };
    let results = vec![MultiResult::Error(-101), MultiResult::Delete];
    vec![
        [vec![0], connect.to_bytes()].concat(),
        request(Op::Create, create.to_bytes()),
        request(Op::Multi, MultiRequest { ops }.to_bytes()),
        request(Op::SetWatches2, watches.to_bytes()),
        [vec![2], transaction.clone()].concat(),
        [vec![3], packet.to_bytes()].concat(),
        [vec![4], accepted.to_bytes()].concat(),
        [vec![5], MultiReply { results }.to_bytes()].concat(),
    ]
}

#[test]
fn messages_of_zookeeper() {
    feed(&zookeeper_messages(), readers::zookeeper_message::feed);
}

#[test]
fn snapshot_files_of_zookeeper() {
    use orch::jute::file::{AclRow, NodeRow, SessionRow};
    use orch::jute::{Acl, StatPersisted};
    use orch::zookeeper::snapshot_file::{SnapshotDigest, SnapshotWriter, Tail};

    let sessions = [SessionRow { id: 1, timeout: 4000 }];
    let acls = [AclRow { key: 1, acl: vec![Acl::open()] }];
    let digest = Some(SnapshotDigest { zxid: 1, version: 2, digest: 3 });
    let file = |tail: Tail| {
        let mut writer = SnapshotWriter::new(Vec::new(), sessions.iter(), acls.iter()).unwrap();
        for (path, data) in [("", None), ("/a", Some(b"data".as_slice())), ("/a/b", Some(b""))] {
            let stat = StatPersisted::default();
            writer.node(&NodeRow { path, data, acl: 1, stat }).unwrap();
        }
        writer.finish(tail).unwrap()
    };
    let plain = file(Tail { digest, last_zxid: Some(4) });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let length = (block.len() as u32).to_be_bytes();
    let snappy = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", length.as_slice(), &block].concat();
    let inputs = [plain, file(Tail { digest, last_zxid: None }), file(Tail::default())];
    feed(
        &[inputs.as_slice(), &[gzip.finish().unwrap(), snappy]].concat(),
        readers::zookeeper_snapshot::feed,
    );
}

#[test]
fn log_files_of_zookeeper() {
    use orch::zookeeper::txn_log_file::LogWriter;

    let mut writer = LogWriter::new(Vec::new()).unwrap();
    for message in zookeeper_messages().iter().filter(|message| message[0] == 2) {
        writer.append(&message[1..]).unwrap();
        writer.append(&message[1..]).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let padded = [bytes.as_slice(), &[0; 100]].concat();
    let torn = bytes[..bytes.len() - 5].to_vec();
    feed(&[bytes, padded, torn], readers::zookeeper_log::feed);
}
