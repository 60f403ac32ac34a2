//! Whatever a definition says, what comes of it is read by orch's own reader, or told.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::of;
use crate::marathon::Weight;
use crate::model::job_file::{self, Format};

/// Names of fields, so that random values meet the code that reads them.
const KEYS: [&str; 60] = [
    "id",
    "cmd",
    "args",
    "instances",
    "cpus",
    "mem",
    "disk",
    "gpus",
    "env",
    "labels",
    "constraints",
    "container",
    "docker",
    "image",
    "network",
    "networks",
    "mode",
    "name",
    "portMappings",
    "containerPort",
    "hostPort",
    "servicePort",
    "protocol",
    "portDefinitions",
    "port",
    "ports",
    "requirePorts",
    "healthChecks",
    "path",
    "portIndex",
    "portName",
    "command",
    "value",
    "gracePeriodSeconds",
    "intervalSeconds",
    "timeoutSeconds",
    "maxConsecutiveFailures",
    "readinessChecks",
    "upgradeStrategy",
    "minimumHealthCapacity",
    "maximumOverCapacity",
    "backoffSeconds",
    "maxLaunchDelaySeconds",
    "taskKillGracePeriodSeconds",
    "unreachableStrategy",
    "inactiveAfterSeconds",
    "volumes",
    "containerPath",
    "hostPath",
    "persistent",
    "size",
    "parameters",
    "key",
    "fetch",
    "uri",
    "ipAddress",
    "discovery",
    "user",
    "secret",
    "type",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[ -~]{0,20}",
        "\\PC{0,12}",
        any::<String>(),
        prop::sample::select(vec![
            "tcp", "udp", "udp,tcp", "HTTP", "TCP", "COMMAND", "UNIQUE", "LIKE", "GROUP_BY",
            "hostname", "/a/b", "yes", "null", "0x1", "1e3", "~", "- a", "a: b", "#", "\"", "a\nb",
            "'", "*", "&a", "HOST", "BRIDGE", "cap-add", "env", "x=y", "tmpfs",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|truth| json!(truth)),
        any::<i64>().prop_map(|number| json!(number)),
        (0..70_000_u32).prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        (0.0..10.0).prop_map(|number: f64| json!(number)),
        text().prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop_oneof![prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), text()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An app that makes sense at most places.
fn app() -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(
        (0..70_000_u32, 0..70_000_u32, text(), prop::sample::select(vec!["tcp", "udp", "udp,tcp"])),
        0..5,
    );
    let extra = prop::collection::vec((prop::sample::select(KEYS.to_vec()), value()), 0..6);
    let texts = prop::collection::vec((text(), text()), 0..6);
    let rules = prop::collection::vec(prop::collection::vec(text(), 2..4), 0..4);
    (ports, extra, texts, rules, 0.0..2000.0, 0..20_u32, any::<bool>()).prop_map(
        |(ports, extra, texts, rules, amount, instances, image)| {
            let mappings: Vec<Value> = ports
                .iter()
                .map(|(inside, host, name, protocol)| {
                    json!({"containerPort": inside, "hostPort": host, "name": name, "protocol": protocol})
                })
                .collect();
            let map: Map<String, Value> =
                texts.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            let mut app = json!({
                "id": "/some/app", "cmd": texts.first().map_or("run", |(_, value)| value),
                "cpus": amount, "mem": amount, "disk": amount, "instances": instances,
                "env": map, "labels": map, "constraints": rules,
                "healthChecks": [{"protocol": "TCP", "portIndex": 0, "intervalSeconds": amount}],
                "backoffSeconds": amount, "taskKillGracePeriodSeconds": amount,
            });
            if image {
                app["container"] = json!({"docker": {"image": "a:1"}, "portMappings": mappings});
            } else {
                app["portDefinitions"] = ports.iter().map(|(port, ..)| json!({"port": port})).collect();
            }
            for (key, value) in extra {
                app[key] = value;
            }
            app
        },
    )
}

fn holds(source: Value) {
    let translation = of(source);
    for job in &translation.jobs {
        let read = job_file::read(&job.file, Format::Yaml);
        assert_eq!(read.as_deref(), Ok(&[job.spec.clone()][..]), "{}", job.file);
        assert_eq!(job.spec.ports().count(), job.port_order.len());
    }
    let blocked = translation.findings.iter().any(|finding| finding.weight == Weight::Blocked);
    assert!(!translation.jobs.is_empty() || !translation.findings.is_empty() || !blocked);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_comes_of_an_app_is_always_read(app in app()) {
        let id = app["id"].as_str().is_some_and(|id| !id.trim_matches('/').is_empty());
        let translation = of(app.clone());
        if id && app["containers"].is_null() {
            let blocked = translation.weight() == Some(Weight::Blocked);
            prop_assert!(blocked || translation.jobs.len() == 1, "{translation:#?}");
        }
        holds(app);
    }

    #[test]
    fn what_makes_no_sense_is_no_reason_to_panic(source in value()) {
        holds(source.clone());
        holds(json!({ "id": "/", "apps": [source.clone()], "groups": [source] }));
    }
}
