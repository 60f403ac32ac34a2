//! All sources of the same Marathon say the same; what is damaged or hostile is refused.

use std::io::Write;

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::limits::MARATHON_VALUE_BYTES_MAX;
use crate::marathon::messages as m;
use crate::marathon::{Options, Weight, translate};

const OLD: &str = "2018-05-04T10:11:12.123Z";
const NEW: &str = "2018-06-05T00:00:00.000Z";

fn app(id: &str, version: &str, command: &str) -> m::ServiceDefinition {
    m::ServiceDefinition {
        id: id.into(),
        cmd: m::CommandInfo { value: Some(command.into()), ..Default::default() },
        instances: 2,
        version: Some(version.into()),
        ..Default::default()
    }
}

fn reference(id: &str, version: &str) -> m::group_definition::AppReference {
    m::group_definition::AppReference { id: id.into(), version: version.into() }
}

fn root(apps: Vec<m::group_definition::AppReference>) -> m::GroupDefinition {
    let shop = m::GroupDefinition {
        id: "shop".into(),
        version: OLD.into(),
        apps,
        pods: vec![reference("shop_pod", OLD)],
        ..Default::default()
    };
    let id = "/".to_owned();
    m::GroupDefinition { id, version: OLD.into(), groups: vec![shop], ..Default::default() }
}

fn version(major: u32, minor: u32, format: m::storage_version::StorageFormat) -> m::StorageVersion {
    m::StorageVersion { major, minor, patch: 0, format: Some(format as i32) }
}

fn entry(name: &str, value: Vec<u8>, packed: bool) -> Vec<u8> {
    let value = if packed { gzip(&value) } else { value };
    let entry = m::ZkStoreEntry {
        name: name.into(),
        uuid: Bytes::from_static(b"0d6e8d2c-6e0c-4b5a-9a35-7e5a5a5a5a5a"),
        value: value.into(),
        compressed: Some(packed),
    };
    entry.encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

const POD: &str = r#"{"id": "/shop/pod", "version": "2018-05-04T10:11:12.123Z",
    "containers": [{"name": "x", "image": {"id": "a:1"}}]}"#;

fn instance(condition: Value, goal: &str) -> Value {
    json!({
        "instanceId": {"idString": "shop_web.instance-aaaa-bbbb"},
        "agentInfo": {"host": "h1.example.com", "agentId": "S1", "attributes": []},
        "tasksMap": {"shop_web.instance-aaaa-bbbb._app.1": {
            "taskId": "shop_web.instance-aaaa-bbbb._app.1", "runSpecVersion": OLD,
            "status": {"stagedAt": OLD, "condition": condition,
                "networkInfo": {"hostName": "h1.example.com", "hostPorts": [31001, 31002], "ipAddresses": []}}}},
        "runSpecVersion": OLD, "state": {"condition": condition, "goal": goal}
    })
}

/// The layout of 1.4 to 1.11. A deployment is under way: newer versions are there already.
fn new_layout() -> Memory {
    let mut tree = Memory::default();
    let put = |tree: &mut Memory, path: &str, data: Vec<u8>| {
        tree.put(&format!("/marathon/state/{path}"), data);
    };
    let stored = version(110, 100, m::storage_version::StorageFormat::PersistenceStore);
    put(
        &mut tree,
        "internal:storage:version",
        entry("internal:storage:version", stored.encode_to_vec(), false),
    );
    put(
        &mut tree,
        "group/2/root",
        root(vec![reference("shop_web", OLD), reference("shop_db", OLD)]).encode_to_vec(),
    );
    put(&mut tree, "apps/c/shop_web", app("shop_web", NEW, "new").encode_to_vec());
    put(&mut tree, &format!("apps/c/shop_web/{OLD}"), app("shop_web", OLD, "old").encode_to_vec());
    put(&mut tree, &format!("apps/c/shop_web/{NEW}"), app("shop_web", NEW, "new").encode_to_vec());
    // 1.4 wrote more digits; and one that stands only as the current value.
    put(&mut tree, "apps/3/shop_db", Vec::new());
    put(
        &mut tree,
        "apps/3/shop_db/2018-05-04T10:11:12.123456Z",
        app("shop_db", OLD, "db").encode_to_vec(),
    );
    put(&mut tree, "apps/0/shop_gone", Vec::new());
    put(&mut tree, "pods/1/shop_pod", POD.into());
    put(
        &mut tree,
        "instance/7/shop_web.instance-aaaa-bbbb",
        instance(json!("Running"), "Running").to_string().into(),
    );
    put(
        &mut tree,
        "instance/8/shop_web.instance-cccc",
        instance(json!({"str": "Failed"}), "Running").to_string().into(),
    );
    put(
        &mut tree,
        "instance/8/shop_web.instance-dddd",
        instance(json!({"str": "Running"}), "Stopped").to_string().into(),
    );
    tree
}

fn old_layout(packed: bool) -> Memory {
    let mut tree = Memory::default();
    let mut put = |name: &str, data: Vec<u8>| {
        tree.put(&format!("/marathon/state/{name}"), entry(name, data, packed));
    };
    let stored = m::StorageVersion { major: 1, minor: 3, patch: 5, format: None };
    put("internal:storage:version", stored.encode_to_vec());
    let shop = m::GroupDefinition {
        id: "shop".into(),
        deprecated_apps: vec![app("shop_web", OLD, "old"), app("shop_db", OLD, "db")],
        ..Default::default()
    };
    let root = m::GroupDefinition { id: "/".into(), groups: vec![shop], ..Default::default() };
    put("group:root", root.encode_to_vec());
    put("group:root:2018-05-04T10:11:12.123Z", b"not looked at".to_vec());
    put("app:shop_web", app("shop_web", NEW, "new").encode_to_vec());
    let task = |id: &str, status: m::marathon_task::Status| {
        let task = m::MarathonTask {
            id: id.into(),
            host: Some("h1".into()),
            ports: vec![31001],
            started_at: Some(1),
            marathon_task_status: Some(status as i32),
        };
        task.encode_to_vec()
    };
    put("task:shop_web.aaaa", task("shop_web.aaaa", m::marathon_task::Status::Running));
    put("task:shop_web.bbbb", task("shop_web.bbbb", m::marathon_task::Status::Failed));
    tree
}

fn commands(storage: &Storage) -> Vec<(String, String)> {
    let translation = translate(&storage.definitions, &Options::default());
    let command =
        |job: &crate::marathon::Job| job.spec.tasks[0].command.last().cloned().unwrap_or_default();
    translation.jobs.iter().map(|job| (job.id.clone(), command(job))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn the_new_layout_is_read_at_the_versions_that_the_groups_name() {
    let storage = from_nodes(&new_layout(), "/marathon").await.unwrap();
    assert_eq!(storage.origin, "storage 110.100.0, PERSISTENCE_STORE");
    assert_eq!(
        commands(&storage),
        pairs(&[("/shop/db", "db"), ("/shop/pod", ""), ("/shop/web", "old")])
    );
    assert!(storage.knows_instances);
    assert_eq!(
        storage.instances,
        [Instance {
            task_id: "shop_web.instance-aaaa-bbbb._app.1".into(),
            id: "/shop/web".into(),
            host: "h1.example.com".into(),
            ports: vec![31001, 31002],
        }]
    );
}

#[tokio::test]
async fn the_old_layout_is_read_packed_or_not() {
    for packed in [false, true] {
        let storage = from_nodes(&old_layout(packed), "/marathon/").await.unwrap();
        assert_eq!(storage.origin, "storage 1.3.5, LEGACY");
        assert_eq!(commands(&storage), pairs(&[("/shop/db", "db"), ("/shop/web", "old")]));
        assert_eq!(storage.instances.len(), 1);
        assert_eq!(
            (storage.instances[0].id.as_str(), &storage.instances[0].ports[..]),
            ("/shop/web", &[31001][..])
        );
    }
}

#[tokio::test]
async fn what_the_groups_name_and_nobody_has_is_told() {
    let mut tree = new_layout();
    let apps = vec![reference("shop_web", "2017-01-01T00:00:00.000Z"), reference("shop_no", OLD)];
    tree.put("/marathon/state/group/2/root", root(apps).encode_to_vec());
    let storage = from_nodes(&tree, "/marathon").await.unwrap();
    let told: Vec<_> =
        storage.definitions.findings.iter().map(|f| (f.id.as_str(), f.weight)).collect();
    assert_eq!(told, [("/shop/web", Weight::Blocked), ("/shop/no", Weight::Blocked)]);
    assert_eq!(commands(&storage), pairs(&[("/shop/pod", "")]));
}

#[tokio::test]
async fn a_tree_that_is_being_changed_or_not_marathons_is_refused() {
    let mut tree = new_layout();
    tree.put("/marathon/state/migration-in-progress", "");
    let refused = from_nodes(&tree, "/marathon").await;
    assert!(matches!(refused, Err(SourceError::MigrationInProgress { .. })), "{refused:?}");
    for root in ["/", "/other"] {
        let refused = from_nodes(&new_layout(), root).await;
        assert!(matches!(refused, Err(SourceError::NotMarathon(_))), "{refused:?}");
    }
    let mut empty = Memory::default();
    empty.put("/marathon/state/apps", "");
    assert!(matches!(from_nodes(&empty, "/marathon").await, Err(SourceError::NotMarathon(_))));
    let mut newer = new_layout();
    let stored = version(120, 0, m::storage_version::StorageFormat::PersistenceStore);
    newer.put("/marathon/state/internal:storage:version", stored.encode_to_vec());
    let told = from_nodes(&newer, "/marathon").await.unwrap().definitions.findings;
    assert_eq!((told[0].said.as_str(), told[0].weight), ("120.0.0", Weight::Essential));
}

#[tokio::test]
async fn damaged_and_hostile_values_are_refused_with_their_place() {
    for (path, bytes) in [
        ("group/2/root", vec![0xff; 9]),
        ("apps/c/shop_web/2018-05-04T10:11:12.123Z", vec![0xff; 9]),
        ("pods/1/shop_pod", b"{".to_vec()),
        ("instance/7/shop_web.instance-aaaa-bbbb", b"no".to_vec()),
        ("task/7/x", vec![0xff; 9]),
        ("group/2/root", vec![0x1f, 0x8b, 1, 2]),
    ] {
        let mut tree = new_layout();
        let path = format!("/marathon/state/{path}");
        tree.put(&path, bytes);
        match from_nodes(&tree, "/marathon").await {
            Err(SourceError::Malformed { place, .. }) => assert_eq!(place, path),
            other => panic!("{path}: {other:?}"),
        }
    }
    // A small value that unpacks to more than anything that is kept.
    let bomb = gzip(&vec![0; MARATHON_VALUE_BYTES_MAX + 1]);
    assert!(bomb.len() < 1 << 20);
    let mut tree = new_layout();
    tree.put("/marathon/state/group/2/root", bomb.clone());
    assert!(matches!(from_nodes(&tree, "/marathon").await, Err(SourceError::TooLarge { .. })));
    let mut tree = old_layout(false);
    let packed =
        m::ZkStoreEntry { value: bomb.into(), compressed: Some(true), ..Default::default() };
    tree.put("/marathon/state/group:root", packed.encode_to_vec());
    assert!(matches!(from_nodes(&tree, "/marathon").await, Err(SourceError::TooLarge { .. })));
}

/// A backup as 1.5 and later write it.
fn backup(version: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, data).unwrap();
    };
    put("internal:storage:version/items/internal:storage:version", version);
    put(
        "group/items/root",
        &root(vec![reference("shop_web", OLD), reference("shop_db", OLD)]).encode_to_vec(),
    );
    put("apps/items/shop_web", &app("shop_web", NEW, "new").encode_to_vec());
    put(&format!("apps/versions/shop_web/{OLD}"), &app("shop_web", OLD, "old").encode_to_vec());
    put("apps/items/shop_db", &app("shop_db", OLD, "db").encode_to_vec());
    put("pods/items/shop_pod", POD.as_bytes());
    put(
        "instance/items/shop_web.instance-aaaa-bbbb",
        instance(json!({"str": "Running"}), "Running").to_string().as_bytes(),
    );
    put("something/else", b"?");
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn a_backup_says_the_same_as_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let stored =
        version(18, 200, m::storage_version::StorageFormat::PersistenceStore).encode_to_vec();
    let tree = from_nodes(&new_layout(), "/marathon").await.unwrap();
    for (name, bytes) in [("plain.tar", backup(&stored)), ("packed.tar.gz", gzip(&backup(&stored)))]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let storage = from_file(&path).await.unwrap();
        assert_eq!(storage.origin, "backup, storage 18.200.0, PERSISTENCE_STORE");
        assert_eq!(storage.instances, tree.instances);
        assert_eq!(commands(&storage), commands(&tree));
    }
}

#[tokio::test]
async fn a_saved_answer_brings_its_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apps.json");
    let task = |id: &str, state: &str| json!({"id": id, "appId": "/a", "host": "h", "ports": [1], "state": state});
    let answer = json!({"apps": [{"id": "/a", "cmd": "x", "tasks": [
        task("a.1", "TASK_RUNNING"), task("a.2", "TASK_STAGING")]}]});
    std::fs::write(&path, answer.to_string()).unwrap();
    let storage = from_file(&path).await.unwrap();
    assert_eq!((storage.instances.len(), storage.knows_instances), (1, true));
    std::fs::write(&path, r#"[{"id": "/a", "cmd": "x"}]"#).unwrap();
    assert!(!from_file(&path).await.unwrap().knows_instances);
    for bad in ["", "{", "nothing of the kind"] {
        std::fs::write(&path, bad).unwrap();
        assert!(from_file(&path).await.is_err(), "{bad}");
    }
    assert!(matches!(from_file(&dir.path().join("none")).await, Err(SourceError::Unreachable(_))));
}
