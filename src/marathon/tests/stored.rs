//! What Marathon stores says the same as what its REST API shows.

use prost::Message as _;
use serde_json::{Map, Value, json};

use super::of;
use crate::marathon::messages as m;
use crate::marathon::{StoredError, app_json, group_json, pod_json};

fn label(key: &str, value: &str) -> m::Label {
    m::Label { key: key.into(), value: Some(value.into()) }
}

fn parameter(key: &str, value: &str) -> m::Parameter {
    m::Parameter { key: key.into(), value: value.into() }
}

fn scalar(name: &str, value: f64) -> m::Resource {
    let scalar = Some(m::Scalar { value });
    m::Resource { name: name.into(), r#type: 0, scalar, ..Default::default() }
}

/// An app as 1.5 and later store it, with as much as it can hold.
fn stored() -> m::ServiceDefinition {
    use m::extended_container_info as c;
    let variable = |name: &str, value: &str| m::environment::Variable {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    m::ServiceDefinition {
        id: "shop_web".into(),
        cmd: m::CommandInfo {
            uris: vec![m::command_info::Uri {
                value: "http://a/b".into(),
                extract: Some(false),
                ..Default::default()
            }],
            environment: Some(m::Environment { variables: vec![variable("A", "1")] }),
            value: Some("run".into()),
            user: Some("www".into()),
            shell: Some(true),
            ..Default::default()
        },
        instances: 3,
        resources: vec![
            scalar("cpus", 0.5),
            scalar("mem", 64.0),
            scalar("disk", 0.0),
            scalar("gpus", 1.0),
        ],
        constraints: vec![m::Constraint {
            field: "hostname".into(),
            operator: m::constraint::Operator::MaxPer as i32,
            value: Some("2".into()),
        }],
        executor: String::new(),
        version: Some("2018-05-04T10:11:12.123Z".into()),
        health_checks: vec![m::HealthCheckDefinition {
            protocol: m::health_check_definition::Protocol::MesosHttp as i32,
            port_name: Some("web".into()),
            path: Some("/ping".into()),
            interval_seconds: Some(7),
            ..Default::default()
        }],
        backoff: Some(2500),
        max_launch_delay: Some(60_000),
        upgrade_strategy: Some(m::UpgradeStrategyDefinition {
            minimum_health_capacity: 0.5,
            maximum_over_capacity: Some(0.0),
        }),
        dependencies: vec!["shop_db".into()],
        container: Some(m::ExtendedContainerInfo {
            r#type: c::Type::Docker as i32,
            volumes: vec![m::Volume {
                container_path: "/in".into(),
                host_path: Some("/host".into()),
                mode: m::volume::Mode::Ro as i32,
                ..Default::default()
            }],
            docker: Some(c::DockerInfo {
                image: "shop/web:3".into(),
                privileged: Some(true),
                parameters: vec![parameter("cap-add", "NET_ADMIN")],
                force_pull_image: Some(true),
                ..Default::default()
            }),
            port_mappings: vec![c::PortMapping {
                host_port: Some(0),
                container_port: 8080,
                protocol: Some("tcp".into()),
                name: Some("web".into()),
                labels: vec![label("VIP_0", "/web:80")],
                service_port: Some(10_000),
                network_names: vec![],
            }],
            ..Default::default()
        }),
        labels: vec![parameter("team", "shop")],
        accepted_resource_roles: Some(m::ResourceRoles { role: vec!["web".into()] }),
        readiness_checks: vec![m::ReadinessCheckDefinition {
            name: Some("r".into()),
            protocol: Some(0),
            path: Some("/ready".into()),
            port_name: Some("web".into()),
            interval_millis: Some(5000),
            timeout_millis: Some(1000),
            http_status_code_for_ready: vec![200],
            preserve_last_response: Some(false),
        }],
        secrets: vec![m::Secret { id: "pw".into(), source: "/pw".into() }],
        env_var_references: vec![m::EnvVarReference {
            r#type: 1,
            name: "PASSWORD".into(),
            secret_ref: Some(m::EnvVarSecretRef { secret_id: "pw".into() }),
        }],
        task_kill_grace_period: Some(9000),
        unreachable_strategy: Some(m::UnreachableStrategy {
            inactive_after_seconds: Some(5),
            expunge_after_seconds: Some(5),
        }),
        kill_selection: Some(m::KillSelection::OldestFirst as i32),
        networks: vec![m::NetworkDefinition {
            mode: Some(m::network_definition::Mode::Bridge as i32),
            ..Default::default()
        }],
        tty: Some(Vec::new().into()),
        role: Some("web".into()),
        resource_limits: Some(m::ResourceLimits { cpus: Some(f64::INFINITY), mem: Some(128.0) }),
        ..Default::default()
    }
}

fn shown() -> Value {
    json!({
        "id": "/shop/web", "cmd": "run", "user": "www", "instances": 3, "cpus": 0.5, "mem": 64.0,
        "disk": 0.0, "gpus": 1, "fetch": [{"uri": "http://a/b", "extract": false}],
        "env": {"A": "1", "PASSWORD": {"secret": "pw"}},
        "constraints": [["hostname", "MAX_PER", "2"]], "version": "2018-05-04T10:11:12.123Z",
        "healthChecks": [{"protocol": "MESOS_HTTP", "portName": "web", "path": "/ping",
            "gracePeriodSeconds": 15, "intervalSeconds": 7, "timeoutSeconds": 20,
            "maxConsecutiveFailures": 3, "delaySeconds": 15, "ignoreHttp1xx": false}],
        "backoffSeconds": 2.5, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 60,
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.0},
        "dependencies": ["/shop/db"],
        "container": {"type": "DOCKER",
            "volumes": [{"containerPath": "/in", "hostPath": "/host", "mode": "RO"}],
            "docker": {"image": "shop/web:3", "privileged": true, "forcePullImage": true,
                "parameters": [{"key": "cap-add", "value": "NET_ADMIN"}]},
            "portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": 10000,
                "protocol": "tcp", "name": "web", "labels": {"VIP_0": "/web:80"}}]},
        "labels": {"team": "shop"}, "acceptedResourceRoles": ["web"],
        "readinessChecks": [{"name": "r", "protocol": "HTTP", "path": "/ready", "portName": "web",
            "intervalSeconds": 5.0, "timeoutSeconds": 1.0, "httpStatusCodesForReady": [200]}],
        "secrets": {"pw": {"source": "/pw"}}, "taskKillGracePeriodSeconds": 9.0,
        "unreachableStrategy": {"inactiveAfterSeconds": 5, "expungeAfterSeconds": 5},
        "killSelection": "OLDEST_FIRST", "networks": [{"mode": "container/bridge"}], "tty": true,
        "role": "web", "resourceLimits": {"cpus": "unlimited", "mem": 128.0},
    })
}

#[test]
fn a_stored_app_is_the_app_that_is_shown() {
    let json = app_json(&stored().encode_to_vec()).unwrap();
    let (stored, shown) = (of(Value::Object(json)), of(shown()));
    assert_eq!(stored.jobs, shown.jobs);
    assert_eq!(stored.findings, shown.findings);
    assert_eq!(stored.jobs.len(), 1);
}

#[test]
fn an_app_of_before_1_5_is_the_same_app() {
    use m::extended_container_info::docker_info as d;
    let mut old = stored();
    old.networks.clear();
    let container = old.container.as_mut().unwrap();
    let mapping = container.port_mappings.remove(0);
    let docker = container.docker.as_mut().unwrap();
    docker.obsolete_network = Some(d::Network::Bridge as i32);
    docker.obsolete_port_mappings = vec![d::ObsoleteDockerPortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: mapping.protocol,
        name: mapping.name,
        labels: mapping.labels,
        service_port: mapping.service_port,
    }];
    old.ports = vec![10_000];
    let old = of(Value::Object(app_json(&old.encode_to_vec()).unwrap()));
    assert_eq!(old.jobs, of(shown()).jobs);

    let host = m::ServiceDefinition {
        id: "/a".into(),
        cmd: m::CommandInfo {
            shell: Some(false),
            arguments: vec!["a".into(), "b".into()],
            ..Default::default()
        },
        instances: 1,
        ports: vec![0, 0],
        ..Default::default()
    };
    let host = of(Value::Object(app_json(&host.encode_to_vec()).unwrap()));
    assert_eq!(host.jobs[0].spec.tasks[0].command, ["a", "b"]);
    assert_eq!(host.jobs[0].spec.ports().count(), 2);
}

#[test]
fn a_stored_field_that_nobody_knows_is_told() {
    let mut bytes = stored().encode_to_vec();
    // Field 999, a number.
    bytes.extend([0xb8, 0x3e, 0x07]);
    let told = of(Value::Object(app_json(&bytes).unwrap()));
    let told = told.findings.iter().find(|finding| finding.field == "unknownFields").unwrap();
    assert_eq!(told.said, "3 bytes");
    assert!(matches!(app_json(b"\xff\xff"), Err(StoredError::Malformed { .. })));
}

#[test]
fn a_group_brings_what_it_refers_to() {
    let reference = |id: &str| m::group_definition::AppReference {
        id: id.into(),
        version: "2018-05-04T10:11:12.123Z".into(),
    };
    let inner = m::GroupDefinition {
        id: "shop".into(),
        apps: vec![reference("shop_web"), reference("shop_gone")],
        pods: vec![reference("shop_pod")],
        dependencies: vec!["db".into()],
        enforce_role: Some(true),
        ..Default::default()
    };
    let deprecated = m::ServiceDefinition { id: "old".into(), ..stored() };
    let root = m::GroupDefinition {
        id: "/".into(),
        groups: vec![inner.clone()],
        deprecated_apps: vec![deprecated],
        deprecated_pods: vec![m::Json { json: r#"{"id": "/p", "containers": []}"#.into() }],
        ..Default::default()
    };
    let mut asked = Vec::new();
    let mut app = |id: &str, version: &str| {
        asked.push(format!("{id}@{version}"));
        (id == "shop_web").then(|| app_json(&stored().encode_to_vec()).unwrap())
    };
    let mut pod = |_: &str, _: &str| {
        pod_json(br#"{"id": "/shop/pod", "containers": [{"name": "x", "image": {"id": "a"}}]}"#)
            .ok()
    };
    let json = group_json(&root, &mut app, &mut pod).unwrap();
    let translation = of(Value::Object(json));
    let ids: Vec<_> = translation.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["/old", "/shop/pod", "/shop/web"]);
    assert_eq!(asked.len(), 2);
    let told: Vec<_> = translation.findings.iter().filter(|f| f.id == "/shop").collect();
    assert_eq!((told[0].said.as_str(), told[1].field.as_str()), ("[\"/db\"]", "enforceRole"));

    let mut deep = inner;
    for _ in 0..50 {
        deep = m::GroupDefinition { groups: vec![deep], ..Default::default() };
    }
    let mut none = |_: &str, _: &str| None::<Map<String, Value>>;
    assert_eq!(group_json(&deep, &mut none, &mut |_, _| None), Err(StoredError::Depth));
}
