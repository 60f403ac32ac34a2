//! Nothing is dropped in silence: every field of a definition that has all of them changes the job
//! or is told, and so is every field that nobody knows.

use serde_json::{Map, Value, json};

use super::of;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// An app in the current form with everything that Marathon knows.
fn app() -> Value {
    parse(
        r#"{
        "id": "/all", "cmd": "run", "args": ["a"], "instances": 3, "cpus": 0.5, "mem": 64, "disk": 10,
        "gpus": 1, "executor": "custom", "user": "www", "role": "web", "description": "words",
        "acceptedResourceRoles": ["web"], "backoffSeconds": 2, "backoffFactor": 1.5,
        "maxLaunchDelaySeconds": 60, "taskKillGracePeriodSeconds": 5, "requirePorts": true,
        "killSelection": "OLDEST_FIRST", "tty": true, "dependencies": ["/db"],
        "constraints": [["rack", "IS", "1"]], "env": {"A": "1", "S": {"secret": "s"}},
        "labels": {"l": "1"}, "secrets": {"s": {"source": "/s"}},
        "fetch": [{"uri": "http://a/b", "extract": true, "executable": false, "cache": true, "destPath": "c"}],
        "container": {
            "type": "MESOS",
            "linuxInfo": {"seccomp": {"unconfined": true, "profileName": "p"}, "ipcInfo": {"mode": "PRIVATE", "shmSize": 4}},
            "docker": {"image": "a:1", "forcePullImage": true, "privileged": true,
                "credential": {"principal": "p", "secret": "x"},
                "pullConfig": {"secret": "s"}, "parameters": [{"key": "hostname", "value": "x"}]},
            "portMappings": [{"containerPort": 80, "hostPort": 8080, "servicePort": 10000, "protocol": "udp",
                "name": "http", "labels": {"VIP": "1"}, "networkNames": ["n"]},
                {"containerPort": 81, "name": "tcp"}],
            "volumes": [
                {"containerPath": "/a", "hostPath": "/b", "mode": "RO"},
                {"containerPath": "c", "mode": "RW", "persistent": {"size": 1, "type": "mount",
                    "maxSize": 2, "profileName": "p", "constraints": [["path", "LIKE", "x"]]}},
                {"containerPath": "/d", "mode": "RW", "external": {"size": 1, "name": "n", "provider": "p",
                    "options": {"o": "1"}, "shared": true}},
                {"containerPath": "/e", "secret": "s"}]
        },
        "networks": [{"mode": "container", "name": "n", "labels": {"l": "1"}}],
        "portDefinitions": [{"port": 1, "name": "x", "protocol": "tcp", "labels": {"l": "1"}}],
        "healthChecks": [{"protocol": "HTTP", "path": "/h", "portIndex": 1, "gracePeriodSeconds": 3,
            "intervalSeconds": 4, "timeoutSeconds": 5, "maxConsecutiveFailures": 6, "delaySeconds": 8,
            "ignoreHttp1xx": true, "ipProtocol": "IPv6"},
            {"protocol": "COMMAND", "command": {"value": "true"}}],
        "check": {"http": {"path": "/c", "portIndex": 0}, "intervalSeconds": 1},
        "readinessChecks": [{"name": "r", "protocol": "HTTPS", "path": "/r", "portName": "tcp", "intervalSeconds": 3,
            "timeoutSeconds": 4, "httpStatusCodesForReady": [500], "preserveLastResponse": true}],
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.4},
        "unreachableStrategy": {"inactiveAfterSeconds": 5, "expungeAfterSeconds": 9},
        "residency": {"relaunchEscalationTimeoutSeconds": 7, "taskLostBehavior": "WAIT_FOREVER"},
        "resourceLimits": {"cpus": 2, "mem": "unlimited"},
        "version": "2020-01-01T00:00:00.000Z"
    }"#,
    )
}

/// One in the form of 1.4 and before.
fn old_app() -> Value {
    parse(
        r#"{
        "id": "/old", "args": ["a"], "ports": [10000], "uris": ["http://a/b"], "storeUrls": ["http://c/d"],
        "container": {"type": "DOCKER", "docker": {"image": "a:1", "network": "USER"}},
        "ipAddress": {"groups": ["g"], "labels": {"l": "1"}, "networkName": "n",
            "discovery": {"ports": [{"number": 80, "name": "x", "protocol": "tcp"}]}}
    }"#,
    )
}

fn pod() -> Value {
    parse(
        r#"{
        "id": "/pod", "labels": {"l": "1"}, "user": "u", "environment": {"A": "1", "S": {"secret": "s"}},
        "secrets": {"s": {"source": "/s"}},
        "volumes": [{"name": "h", "host": "/h"}, {"name": "e"}, {"name": "s", "secret": "s"},
            {"name": "p", "persistent": {"size": 1, "type": "mount", "maxSize": 3, "profileName": "q"}}],
        "networks": [{"mode": "container", "name": "n", "labels": {"l": "1"}}],
        "scaling": {"kind": "fixed", "instances": 2, "maxInstances": 9},
        "scheduling": {
            "backoff": {"backoff": 2, "backoffFactor": 1.5, "maxLaunchDelay": 9},
            "upgrade": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.5},
            "placement": {"constraints": [{"fieldName": "rack", "operator": "IS", "value": "1"}],
                "acceptedResourceRoles": ["web"]},
            "killSelection": "OLDEST_FIRST",
            "unreachableStrategy": {"inactiveAfterSeconds": 5, "expungeAfterSeconds": 9}},
        "executorResources": {"cpus": 0.1, "mem": 1, "disk": 2}, "role": "web",
        "linuxInfo": {"seccomp": {"unconfined": true}},
        "containers": [{
            "name": "c", "user": "v", "exec": {"command": {"shell": "run"}},
            "resources": {"cpus": 1, "mem": 64, "disk": 7, "gpus": 1}, "resourceLimits": {"cpus": 2, "mem": 128},
            "endpoints": [{"name": "web", "containerPort": 80, "hostPort": 8080, "protocol": ["udp"], "labels": {"l": "1"},
                "networkNames": ["n"]}, {"name": "tcp", "containerPort": 81}],
            "image": {"id": "a:1", "kind": "DOCKER", "forcePull": true, "pullConfig": {"secret": "s"}, "labels": {"l": "1"}},
            "environment": {"B": "1"}, "labels": {"m": "1"}, "tty": true,
            "linuxInfo": {"ipcInfo": {"mode": "PRIVATE"}},
            "healthCheck": {"gracePeriodSeconds": 3, "intervalSeconds": 4, "timeoutSeconds": 5,
                "maxConsecutiveFailures": 6, "delaySeconds": 8,
                "http": {"path": "/h", "endpoint": "tcp", "scheme": "HTTPS"}},
            "check": {"exec": {"command": {"shell": "true"}}},
            "volumeMounts": [{"name": "h", "mountPath": "/h", "readOnly": true},
                {"name": "e", "mountPath": "/e"}, {"name": "p", "mountPath": "p"}],
            "artifacts": [{"uri": "http://a/b", "cache": true}],
            "lifecycle": {"killGracePeriodSeconds": 5}
        }, {"name": "d", "exec": {"command": {"argv": ["x", "y"]}, "overrideEntrypoint": true},
            "image": {"id": "d:1"}, "healthCheck": {"exec": {"command": {"shell": "true"}}}},
           {"name": "f", "image": {"id": "f:1"}, "endpoints": [{"name": "z", "containerPort": 1}],
            "healthCheck": {"tcp": {"endpoint": "z"}}}]
    }"#,
    )
}

/// A process on the host's network.
fn process() -> Value {
    json!({
        "id": "/host", "cmd": "x", "instances": 4, "requirePorts": true,
        "portDefinitions": [{"port": 31000, "name": "x", "protocol": "udp", "labels": {"l": "1"}}],
    })
}

/// One whose upgrades are bound by nothing.
fn free() -> Value {
    json!({"id": "/free", "cmd": "x", "instances": 4,
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}})
}

/// What says the same as its absence, here.
const SAID_ELSEWHERE: [(&str, &str); 16] = [
    ("/all", "/requirePorts"),
    ("/all", "/container/volumes/1/mode"),
    ("/all", "/container/volumes/2/mode"),
    ("/all", "/networks/0/mode"),
    ("/all", "/healthChecks/0/protocol"),
    ("/all", "/upgradeStrategy/maximumOverCapacity"),
    ("/old", "/container/type"),
    ("/old", "/container/docker/network"),
    ("/old", "/ipAddress/discovery/ports/0/protocol"),
    ("/pod", "/networks/0/mode"),
    ("/pod", "/scaling/kind"),
    ("/pod", "/containers/0/image/kind"),
    ("/pod", "/scheduling/upgrade/maximumOverCapacity"),
    ("/pod", "/volumes/2/name"),
    ("/host", "/id"),
    ("/free", "/id"),
];

/// Pointers of all values that hold no others.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                leaves(inner, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                leaves(inner, &format!("{path}/{i}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn remove(value: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Object(map) => {
            map.shift_remove(key);
        }
        Value::Array(items) => {
            items.remove(key.parse().unwrap());
        }
        _ => unreachable!("{pointer}"),
    }
}

#[test]
fn every_known_field_changes_the_job_or_is_told() {
    let (mut checked, mut silent) = (0, Vec::new());
    for whole in [app(), old_app(), pod(), process(), free()] {
        let with = of(whole.clone());
        assert_eq!(with.jobs.len(), 1, "{:#?}", with.findings);
        let mut pointers = Vec::new();
        leaves(&whole, "", &mut pointers);
        let id = whole["id"].as_str().unwrap();
        let counts = |pointer: &&String| !SAID_ELSEWHERE.contains(&(id, pointer.as_str()));
        for pointer in pointers.iter().filter(counts) {
            let mut without = whole.clone();
            remove(&mut without, pointer);
            checked += 1;
            if of(without) == with {
                silent.push(pointer.clone());
            }
        }
    }
    assert!(silent.is_empty(), "dropped in silence: {silent:#?}");
    assert!(checked > 180, "{checked}");
}

/// Objects whose keys the user chooses, and those that are told as a whole.
const FREE: [&str; 17] = [
    "/env",
    "/environment",
    "/labels",
    "/secrets",
    "/fetch",
    "/artifacts",
    "/linuxInfo",
    "/credential",
    "/pullConfig",
    "/external",
    "/check",
    "/options",
    "/executorResources",
    "/source",
    "/image/labels",
    "/s",
    "/S",
];

fn objects(value: &Value, path: &str, found: &mut Vec<String>) {
    if FREE.iter().any(|free| format!("{path}/").contains(&format!("{free}/"))) {
        return;
    }
    match value {
        Value::Object(map) => {
            found.push(path.to_owned());
            for (key, inner) in map {
                objects(inner, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                objects(inner, &format!("{path}/{i}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn a_field_that_nobody_knows_is_told_wherever_it_stands() {
    for whole in [app(), old_app(), pod()] {
        let mut pointers = Vec::new();
        objects(&whole, "", &mut pointers);
        assert!(pointers.len() > 4, "{pointers:?}");
        let mut silent = Vec::new();
        for pointer in pointers {
            for strange in [json!(1), json!("x"), json!(false), json!({"a": 1}), json!([0])] {
                let mut with: Value = whole.clone();
                let map: &mut Map<String, Value> =
                    with.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
                map.insert("neverHeardOf".into(), strange);
                let told = of(with).findings;
                let names = |text: &str| text.contains("neverHeardOf");
                let told = told.iter().any(|told| names(&told.field) || names(&told.said));
                if !told {
                    silent.push(pointer.clone());
                }
            }
        }
        assert!(silent.is_empty(), "dropped in silence: {silent:#?}");
    }
}

#[test]
fn a_field_of_the_wrong_type_is_told() {
    for whole in [app(), old_app(), pod()] {
        let mut silent = Vec::new();
        for (key, _) in whole.as_object().unwrap() {
            if matches!(key.as_str(), "id" | "containers") {
                continue;
            }
            let mut wrong = whole.clone();
            wrong[key.as_str()] = json!([[true]]);
            let told = of(wrong).findings;
            if !told.iter().any(|finding| finding.said.contains("true")) {
                silent.push(key.clone());
            }
        }
        assert!(silent.is_empty(), "dropped in silence: {silent:#?}");
    }
}
