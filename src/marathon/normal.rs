//! Older forms of an app brought into the current one (Marathon 1.5): `ports`, `uris`,
//! `container.docker.network` and `portMappings`, `ipAddress`, `storeUrls`.

use serde_json::{Map, Value, json};

use super::fields::{misread, said, says_nothing};
use super::finding::Notes;

/// Fields that tell how an app is, and ask for nothing.
const REPORTS: [&str; 12] = [
    "versionInfo",
    "tasksStaged",
    "tasksRunning",
    "tasksHealthy",
    "tasksUnhealthy",
    "tasks",
    "taskStats",
    "deployments",
    "lastTaskFailure",
    "failures",
    "readinessCheckResults",
    "counts",
];

/// An app in the current form.
pub(super) fn app(mut app: Map<String, Value>, notes: &mut Notes) -> Map<String, Value> {
    app.retain(|key, _| !REPORTS.contains(&key.as_str()));
    fetches(&mut app);
    container(&mut app, notes);
    ip_address(&mut app, notes);
    ports(&mut app, notes);
    app
}

fn taken(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.shift_remove(key).filter(|value| !says_nothing(value))
}

/// `uris` and `storeUrls` are `fetch` with nothing but the address.
fn fetches(app: &mut Map<String, Value>) {
    let uris = [taken(app, "uris"), taken(app, "storeUrls")];
    let mut fetch = match app.shift_remove("fetch") {
        Some(Value::Array(items)) => items,
        Some(other) if !says_nothing(&other) => {
            app.insert("fetch".into(), other);
            return;
        }
        _ => Vec::new(),
    };
    for uris in uris.into_iter().flatten() {
        let uris = match uris {
            Value::Array(items) => items,
            other => vec![other],
        };
        for uri in uris {
            // Marathon shows the same ones under both.
            if !fetch.iter().any(|known| known.get("uri") == Some(&uri)) {
                fetch.push(json!({ "uri": uri }));
            }
        }
    }
    if !fetch.is_empty() {
        app.insert("fetch".into(), Value::Array(fetch));
    }
}

/// Network and port mappings stood under `container.docker`.
fn container(app: &mut Map<String, Value>, notes: &mut Notes) {
    let Some(Value::Object(container)) = app.get_mut("container") else { return };
    let mut network = None;
    if let Some(Value::Object(docker)) = container.get_mut("docker") {
        network = taken(docker, "network");
        if let Some(mappings) = taken(docker, "portMappings") {
            match container.get("portMappings") {
                Some(newer) if !says_nothing(newer) && *newer != mappings => notes.lost(
                    "container.docker.portMappings",
                    said(&mappings),
                    "container.portMappings says something else, and counts",
                    "check the ports of the job",
                ),
                Some(newer) if !says_nothing(newer) => {}
                _ => {
                    container.insert("portMappings".into(), mappings);
                }
            }
        }
    }
    let Some(network) = network else { return };
    if app.get("networks").is_some_and(|networks| !says_nothing(networks)) {
        return;
    }
    let mode = match network.as_str() {
        Some("HOST") => "host",
        Some("BRIDGE") => "container/bridge",
        Some("USER") => "container",
        _ => {
            notes.essential(
                "container.docker.network",
                said(&network),
                "orch gives every container a network of its own",
                "check that it may have one",
            );
            return;
        }
    };
    app.insert("networks".into(), json!([{ "mode": mode }]));
}

/// `ipAddress` was a network of the container's own before there were `networks`.
fn ip_address(app: &mut Map<String, Value>, notes: &mut Notes) {
    let mut address = match taken(app, "ipAddress") {
        Some(Value::Object(address)) => address,
        Some(other) => return misread("ipAddress", &other, "an object", notes),
        None => return,
    };
    let name = taken(&mut address, "networkName");
    let mut discovery = taken(&mut address, "discovery");
    if let Some(Value::Object(discovery)) = &mut discovery {
        let found = taken(discovery, "ports");
        let mapped = app.get("container").and_then(|container| container.get("portMappings"));
        if let Some(other) = found.as_ref().filter(|found| !found.is_array()) {
            misread("ipAddress.discovery.ports", other, "a list", notes);
        }
        if let Some(Value::Array(found)) = found {
            if mapped.is_some_and(|mapped| !says_nothing(mapped)) {
                notes.lost(
                    "ipAddress.discovery.ports",
                    said(&Value::Array(found)),
                    "the app has portMappings as well, and those count",
                    "check the ports of the job",
                );
            } else {
                let mappings: Vec<Value> = found.into_iter().map(mapping).collect();
                let container = app.entry("container").or_insert_with(|| json!({}));
                if container.is_null() {
                    *container = json!({});
                }
                if let Value::Object(container) = container {
                    container.insert("portMappings".into(), Value::Array(mappings));
                }
            }
        }
        left(discovery, "ipAddress.discovery", notes);
    } else if let Some(other) = discovery {
        misread("ipAddress.discovery", &other, "an object", notes);
    }
    let mut network = json!({ "mode": "container" });
    if let (Some(name), Value::Object(network)) = (name, &mut network) {
        network.insert("name".into(), name);
    }
    let plain = json!([{ "mode": "container" }]);
    if app.get("networks").is_none_or(|networks| says_nothing(networks) || *networks == plain) {
        app.insert("networks".into(), json!([network]));
    }
    left(&address, "ipAddress", notes);
}

fn mapping(port: Value) -> Value {
    match port {
        Value::Object(mut port) => {
            if let Some(number) = port.shift_remove("number") {
                port.insert("containerPort".into(), number);
            }
            Value::Object(port)
        }
        other => other,
    }
}

fn left(map: &Map<String, Value>, path: &str, notes: &mut Notes) {
    let says = |value: &Value| value.is_boolean() || !says_nothing(value);
    for (key, value) in map.iter().filter(|(_, value)| says(value)) {
        notes.lost(
            &format!("{path}.{key}"),
            said(value),
            "orch has no addresses of containers to give out",
            "use labels, and the job's endpoints",
        );
    }
}

/// `ports` are the numbers of `portDefinitions`, and of the mappings' service ports.
fn ports(app: &mut Map<String, Value>, notes: &mut Notes) {
    let mapped = app.get("container").and_then(|container| container.get("portMappings")).cloned();
    let mapped = mapped.filter(|mapped| !says_nothing(mapped));
    let numbers = |list: &Value, key: &str| -> Vec<u64> {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item.get(key).and_then(Value::as_u64).unwrap_or(0)).collect()
    };
    let has_definitions = app.get("portDefinitions").is_some_and(|list| !says_nothing(list));
    if mapped.is_some() && has_definitions {
        let value = app.shift_remove("portDefinitions").unwrap_or_default();
        notes.lost(
            "portDefinitions",
            said(&value),
            "the container has portMappings, and those count",
            "check the ports of the job",
        );
    }
    let Some(ports) = taken(app, "ports") else { return };
    let numbers_only = |items: &&Vec<Value>| items.iter().all(Value::is_u64);
    let Some(items) = ports.as_array().filter(numbers_only) else {
        // Told as what it is: something that nobody knows.
        app.insert("ports".into(), ports);
        return;
    };
    let given: Vec<u64> = items.iter().map(|item| item.as_u64().unwrap_or(0)).collect();
    let known = match (&mapped, app.get("portDefinitions")) {
        (Some(mapped), _) => Some(numbers(mapped, "servicePort")),
        (None, Some(list)) if !says_nothing(list) => Some(numbers(list, "port")),
        _ => None,
    };
    match known {
        // The same numbers once more, or nothing but "any".
        Some(known) if known == given || given.iter().all(|port| *port == 0) => {}
        Some(_) => notes.lost(
            "ports",
            said(&ports),
            "portDefinitions or portMappings say something else, and count",
            "check the ports of the job",
        ),
        None => {
            let list: Vec<Value> = items.iter().map(|port| json!({ "port": port })).collect();
            app.insert("portDefinitions".into(), Value::Array(list));
        }
    }
}
