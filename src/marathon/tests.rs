//! Translations as a whole.

mod every_field;
mod property;
mod stored;

use serde_json::{Value, json};

use super::*;
use crate::model::job::{JobKind, Probe, UpdateOrder, VolumeSource};

/// What one app or pod comes to.
fn of(json: Value) -> Translation {
    translate(&definitions(json), &Options::default())
}

/// The findings' fields of one weight, those of all jobs left out.
fn fields(translation: &Translation, weight: Weight) -> Vec<&str> {
    let own = translation.findings.iter().filter(|finding| finding.id != "*");
    own.filter(|finding| finding.weight == weight).map(|finding| finding.field.as_str()).collect()
}

#[test]
fn a_plain_app_loses_nothing() {
    let translation = of(json!({
        "id": "/shop/web",
        "cmd": "exec server --port $PORT0",
        "instances": 4, "cpus": 0.5, "mem": 256, "disk": 0,
        "container": {"type": "DOCKER", "docker": {"image": "shop/web:3", "network": "BRIDGE",
            "portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": 0, "name": "http"}]}},
        "env": {"MODE": "prod"}, "labels": {"team": "shop"},
        "constraints": [["hostname", "UNIQUE"], ["rack", "LIKE", "r[1-2]"], ["zone", "GROUP_BY"]],
        "healthChecks": [{"protocol": "HTTP", "path": "/health", "portIndex": 0,
            "gracePeriodSeconds": 30, "intervalSeconds": 10, "timeoutSeconds": 5,
            "maxConsecutiveFailures": 2, "delaySeconds": 0}],
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0},
        "backoffSeconds": 2, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600,
        "taskKillGracePeriodSeconds": 30,
        "unreachableStrategy": {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 60},
        "tasksRunning": 4, "version": "2020-01-01T00:00:00.000Z", "deployments": []
    }));
    let own: Vec<_> = translation.findings.iter().filter(|f| f.id != "*").collect();
    assert!(own.is_empty(), "{own:#?}");
    let job = &translation.jobs[0];
    let spec = &job.spec;
    assert_eq!(spec.name.as_str(), "shop-web");
    assert_eq!(spec.kind, JobKind::Service { replicas: 4 });
    let task = &spec.tasks[0];
    assert_eq!(task.entrypoint.as_deref(), Some(&["/bin/sh".to_owned()][..]));
    assert_eq!(task.command, ["-c", "exec server --port $PORT0"]);
    assert_eq!((task.resources.cpu_milli, task.resources.memory), (Some(500), Some(256 << 20)));
    assert_eq!(task.environment["MODE"], "prod");
    assert_eq!(task.environment["MARATHON_APP_ID"], "/shop/web");
    assert_eq!(task.environment["MARATHON_APP_RESOURCE_MEM"], "256.0");
    assert_eq!(task.environment["MARATHON_APP_LABEL_TEAM"], "shop");
    assert_eq!((task.ports[0].name.as_str(), task.ports[0].container), ("http", Some(8080)));
    assert_eq!(spec.labels["marathon.id"], "/shop/web");
    let require: Vec<_> = spec.placement.require.iter().map(ToString::to_string).collect();
    assert_eq!(require, ["attr.rack in r1,r2"]);
    assert_eq!(spec.placement.max_per_node, Some(1));
    assert_eq!(spec.placement.spread[0].to_string(), "attr.zone");
    let check = task.healthcheck.as_ref().unwrap();
    assert!(matches!(&check.probe, Probe::Http { path, .. } if path == "/health"));
    assert_eq!((check.interval.0, check.timeout.0, check.retries), (10_000, 5000, 2));
    assert_eq!(check.start_period.0, 30_000);
    assert_eq!((spec.update.max_parallel, spec.update.order), (2, Some(UpdateOrder::StopFirst)));
    assert_eq!(spec.reschedule.attempts, None);
    assert_eq!((spec.reschedule.delay_min.0, spec.reschedule.delay_max.0), (2000, 3_600_000));
    assert_eq!(spec.disconnect.replace_after.0, 60_000);
    assert_eq!(task.stop_grace.0, 30_000);
    assert_eq!(job.port_order, [0]);
}

#[test]
fn a_command_without_an_image_is_a_process() {
    let translation = of(json!({
        "id": "/sleeper", "cmd": "cd $MESOS_SANDBOX && exec sleep $PORT1", "user": "nobody",
        "portDefinitions": [{"port": 0}, {"port": 31005, "name": "admin"}], "requirePorts": true
    }));
    let task = &translation.jobs[0].spec.tasks[0];
    assert_eq!(task.runtime.word(), "process");
    assert_eq!(task.command[..2], ["/bin/sh", "-c"]);
    assert_eq!(task.user.as_deref(), Some("nobody"));
    assert_eq!(task.environment["MESOS_SANDBOX"], ".");
    let ports: Vec<_> = task.ports.iter().map(|port| (port.name.as_str(), port.host)).collect();
    assert_eq!(ports, [("port0", None), ("admin", Some(31005))]);
    // An app that says nothing of ports has one.
    assert_eq!(of(json!({"id": "a", "cmd": "x"})).jobs[0].spec.tasks[0].ports.len(), 1);
    let none = of(json!({"id": "a", "cmd": "x", "portDefinitions": []}));
    assert!(none.jobs[0].spec.tasks[0].ports.is_empty());
}

#[test]
fn what_would_lose_data_or_secrets_is_essential() {
    let translation = of(json!({
        "id": "/db", "instances": 2,
        "container": {"type": "DOCKER",
            "docker": {"image": "db:1", "privileged": true,
                "parameters": [{"key": "device", "value": "/dev/x"}, {"key": "cap-add", "value": "SYS_ADMIN"}]},
            "volumes": [
                {"containerPath": "data", "mode": "RW", "persistent": {"size": 512}},
                {"containerPath": "/etc/x", "hostPath": "/etc/x", "mode": "RO"}]},
        "env": {"PASSWORD": {"secret": "pw"}}, "secrets": {"pw": {"source": "/db/pw"}},
        "constraints": [["rack", "LIKE", "r.*"], ["hostname", "CLUSTER"], ["a b", "IS", "x"]],
        "fetch": [{"uri": "http://files/app.tgz"}]
    }));
    assert_eq!(
        fields(&translation, Weight::Essential),
        [
            "container.docker.privileged",
            "container.docker.parameters[0]",
            "fetch[0].uri",
            "env.PASSWORD",
            "secrets.pw",
            "container.volumes[0]",
            "constraints[0]",
            "constraints[1]",
            "constraints[2]",
        ]
    );
    let job = &translation.jobs[0];
    let task = &job.spec.tasks[0];
    assert_eq!(task.volumes[0].source, VolumeSource::Named("db-data".into()));
    assert_eq!(task.volumes[0].target, "/mnt/mesos/sandbox/data");
    assert!(task.volumes[1].read_only);
    assert_eq!(task.cap_add, ["SYS_ADMIN"]);
    // Two replicas on a node would share the volume.
    assert_eq!(job.spec.placement.max_per_node, Some(1));
    let roots = translation.findings.iter().find(|f| f.field == "container.volumes").unwrap();
    assert!(roots.id == "*" && roots.remedy.contains("--volume-root /etc/x"), "{roots:?}");
}

#[test]
fn ports_keep_marathons_order() {
    let translation = of(json!({
        "id": "/dns", "container": {"docker": {"image": "dns", "network": "BRIDGE", "portMappings": [
            {"containerPort": 53, "hostPort": 53, "protocol": "udp,tcp", "name": "dns"},
            {"containerPort": 0, "name": "dns"},
            {"containerPort": 9090, "servicePort": 10019, "protocol": "udp"}]}},
        "healthChecks": [{"protocol": "TCP", "portIndex": 1}]
    }));
    let job = &translation.jobs[0];
    let ports: Vec<_> = job.spec.ports().map(|port| port.name.as_str()).collect();
    assert_eq!(ports, ["dns", "dns-2", "port2", "dns-udp"]);
    assert_eq!(job.port_order, [0, 1, 2, 0]);
    assert_eq!(job.spec.labels["marathon.service-ports"], "0,0,10019");
    let check = job.spec.tasks[0].healthcheck.as_ref().unwrap();
    assert!(matches!(&check.probe, Probe::Tcp { port } if port.as_str() == "dns-2"));
    assert_eq!(fields(&translation, Weight::Adapted), ["servicePort"]);
}

#[test]
fn a_container_with_an_address_of_its_own_is_told_where_it_listens() {
    let translation = of(json!({
        "id": "/a", "container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80, "name": "web"}]},
        "networks": [{"mode": "container", "name": "dcos"}]
    }));
    let task = &translation.jobs[0].spec.tasks[0];
    for (key, value) in [("PORT0", "80"), ("PORT", "80"), ("PORT_WEB", "80")] {
        assert_eq!(task.environment[key], value, "{key}");
    }
    assert_eq!(fields(&translation, Weight::Lost), ["networks[0].name"]);
}

#[test]
fn a_pod_is_a_job_with_several_tasks() {
    let translation = of(json!({
        "id": "/pod", "scaling": {"kind": "fixed", "instances": 3},
        "networks": [{"mode": "container/bridge"}],
        "volumes": [{"name": "etc", "host": "/etc/app"}, {"name": "scratch"}],
        "containers": [
            {"name": "App", "image": {"id": "app:1", "kind": "DOCKER"},
             "exec": {"command": {"shell": "run"}}, "resources": {"cpus": 1, "mem": 64},
             "endpoints": [{"name": "web", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"]}],
             "healthCheck": {"http": {"path": "/", "endpoint": "web"}},
             "volumeMounts": [{"name": "etc", "mountPath": "/etc/app", "readOnly": true}]},
            {"name": "side", "image": {"id": "side:1", "kind": "DOCKER"},
             "exec": {"command": {"argv": ["/bin/side", "-v"]}, "overrideEntrypoint": true},
             "endpoints": [{"name": "web", "containerPort": 81, "hostPort": 8081}],
             "volumeMounts": [{"name": "scratch", "mountPath": "/tmp/x"}],
             "lifecycle": {"killGracePeriodSeconds": 7}}],
        "scheduling": {"placement": {"constraints": [
            {"fieldName": "@hostname", "operator": "MAX_PER", "value": "2"}]}}
    }));
    assert_eq!(fields(&translation, Weight::Essential), ["containers"]);
    assert!(fields(&translation, Weight::Lost).is_empty(), "{:#?}", translation.findings);
    let job = &translation.jobs[0];
    assert_eq!(job.kind, Kind::Pod);
    let names: Vec<_> = job.spec.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["app", "side"]);
    let ports: Vec<_> = job.spec.ports().map(|port| (port.name.as_str(), port.host)).collect();
    assert_eq!(ports, [("web", None), ("web-2", Some(8081))]);
    assert_eq!(job.port_order, [0, 1]);
    assert_eq!(job.spec.placement.max_per_node, Some(2));
    assert_eq!(job.spec.tasks[1].entrypoint.as_deref(), Some(&["/bin/side".to_owned()][..]));
    assert_eq!(job.spec.tasks[1].volumes[0].source, VolumeSource::Tmpfs);
    assert_eq!(job.spec.tasks[1].stop_grace.0, 7000);
}

#[test]
fn two_ids_with_one_name_are_told_and_can_be_renamed() {
    let source = definitions(json!({
        "id": "/", "dependencies": ["/x"],
        "apps": [{"id": "/a-b", "cmd": "x"}],
        "groups": [{"id": "a", "apps": [{"id": "b", "cmd": "y"}, {"id": "/a/C.d", "cmd": "z"}]}]
    }));
    let translation = translate(&source, &Options::default());
    assert_eq!(fields(&translation, Weight::Blocked), ["id", "id"]);
    assert_eq!(translation.jobs.len(), 1);
    assert_eq!(translation.jobs[0].spec.name.as_str(), "a-c-d");
    assert!(translation.findings.iter().any(|f| f.id == "/" && f.field == "dependencies"));

    let names = [("/a/b".to_owned(), "other".parse().unwrap())].into();
    let options = Options { names, project: "shop".parse().unwrap(), ..Options::default() };
    let translation = translate(&source, &options);
    let ids: Vec<_> = translation.jobs.iter().map(|job| job.spec.id().to_string()).collect();
    assert_eq!(ids, ["shop/a-b", "shop/a-c-d", "shop/other"]);

    let only = |only: &str| {
        let options = Options { only: Some(only.into()), ..Options::default() };
        translate(&source, &options).jobs.len()
    };
    assert_eq!((only("/a"), only("/a/b"), only("/a/"), only("/"), only("/x")), (2, 1, 2, 1, 0));
}

#[test]
fn what_the_reader_does_not_take_is_left_out_and_told() {
    let translation = of(json!({
        "id": "/a", "cpus": 5000, "instances": 2,
        "container": {"docker": {"image": "a:1"}, "volumes": [{"containerPath": "/", "hostPath": "/x"}]},
        "env": {"with space": "1", "GOOD": "2"}
    }));
    let essential = fields(&translation, Weight::Essential);
    for field in ["resources.cpu", "volumes[0]", "environment"] {
        assert!(essential.iter().any(|found| found.starts_with(field)), "{field} in {essential:?}");
    }
    assert_eq!(translation.jobs[0].spec.tasks[0].environment["GOOD"], "2");
    for bad in [
        json!({"id": "/a", "container": {"docker": {"image": "NOT AN IMAGE"}}}),
        json!({"id": "/a", "cmd": "x", "instances": 1_000_000}),
        json!({"id": "/a", "instances": 1}),
    ] {
        let translation = of(bad);
        assert!(translation.jobs.is_empty());
        assert_eq!(translation.weight(), Some(Weight::Blocked), "{translation:?}");
    }
}

#[test]
fn what_is_no_definition_is_told() {
    for bad in [json!(1), json!(["x"]), json!([{"id": "/"}]), json!([{"cmd": "x"}])] {
        let translation = of(bad.clone());
        assert!(translation.jobs.is_empty() && !translation.findings.is_empty(), "{bad}");
    }
    let twice = of(json!([{"id": "/a", "cmd": "x"}, {"id": "a", "cmd": "y"}]));
    assert_eq!((twice.jobs.len(), fields(&twice, Weight::Essential)), (1, vec!["id"]));
    let mut deep = json!({"id": "g", "apps": []});
    for _ in 0..100 {
        deep = json!({"id": "g", "groups": [deep]});
    }
    assert_eq!(of(deep).weight(), Some(Weight::Blocked));
}
