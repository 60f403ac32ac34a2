//! Stored messages in the JSON of the REST API, which is what is translated.

use prost::Message;
use serde_json::{Map, Value, json};

use super::wire::messages as m;
use crate::limits::MARATHON_GROUP_DEPTH_MAX;

use m::extended_container_info::DockerInfo;
use m::extended_container_info::docker_info::Network;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// No message of that type.
    #[error("not a {what}: {why}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// What is wrong with them.
        why: String,
    },
    /// Groups in groups in groups.
    #[error("groups are nested deeper than {MARATHON_GROUP_DEPTH_MAX} levels")]
    Depth,
}

/// Finds the app or pod of a path, as storage writes it, and a version.
pub type Find<'f> = dyn FnMut(&str, &str) -> Option<Map<String, Value>> + 'f;

/// A `ServiceDefinition` as the REST API would show it. Fields that this release does not know
/// make one of the name `unknownFields`, which the translation tells of.
///
/// # Errors
/// If the bytes are none.
pub fn app_json(bytes: &[u8]) -> Result<Map<String, Value>, StoredError> {
    let app = m::ServiceDefinition::decode(bytes).map_err(|error| StoredError::Malformed {
        what: "ServiceDefinition",
        why: error.to_string(),
    })?;
    let mut json = app_of(&app);
    note_unknown(&mut json, bytes.len(), app.encoded_len());
    Ok(json)
}

/// A pod's JSON.
///
/// # Errors
/// If it is no JSON object.
pub fn pod_json(bytes: &[u8]) -> Result<Map<String, Value>, StoredError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoredError::Malformed { what: "pod", why: error.to_string() })
}

/// A group with the apps and pods that it refers to. `app` and `pod` find the definition with that
/// path and version, or say nothing, and then it is left out: they tell of it themselves.
///
/// # Errors
/// If the group, or an app or pod that stands in it, is malformed or nested too deeply.
pub fn group_json(
    group: &m::GroupDefinition,
    app: &mut Find<'_>,
    pod: &mut Find<'_>,
) -> Result<Map<String, Value>, StoredError> {
    group_at(group, 0, app, pod)
}

fn group_at(
    group: &m::GroupDefinition,
    depth: usize,
    app: &mut Find<'_>,
    pod: &mut Find<'_>,
) -> Result<Map<String, Value>, StoredError> {
    if depth > MARATHON_GROUP_DEPTH_MAX {
        return Err(StoredError::Depth);
    }
    let mut map = Map::new();
    put(&mut map, "id", json!(group.id));
    put(&mut map, "version", json!(group.version));
    let mut apps: Vec<Value> =
        group.deprecated_apps.iter().map(|app| Value::Object(app_of(app))).collect();
    apps.extend(group.apps.iter().filter_map(|to| app(&to.id, &to.version)).map(Value::Object));
    let mut pods = Vec::new();
    for stored in &group.deprecated_pods {
        pods.push(Value::Object(pod_json(stored.json.as_bytes())?));
    }
    pods.extend(group.pods.iter().filter_map(|to| pod(&to.id, &to.version)).map(Value::Object));
    let mut groups = Vec::new();
    for inner in &group.groups {
        groups.push(Value::Object(group_at(inner, depth + 1, app, pod)?));
    }
    put(&mut map, "apps", Value::Array(apps));
    put(&mut map, "pods", Value::Array(pods));
    put(&mut map, "groups", Value::Array(groups));
    let dependencies: Vec<String> = group.dependencies.iter().map(|path| path_of(path)).collect();
    put(&mut map, "dependencies", json!(dependencies));
    put(&mut map, "enforceRole", json!(group.enforce_role));
    Ok(map)
}

/// What is left when the message is written again was not understood.
fn note_unknown(json: &mut Map<String, Value>, read: usize, known: usize) {
    if read > known {
        json.insert("unknownFields".into(), json!(format!("{} bytes", read - known)));
    }
}

/// The id of a path as storage writes it: `/a/b` is `a_b`; segments have no underscore.
pub fn path_of(safe: &str) -> String {
    if safe.starts_with('/') { safe.to_owned() } else { format!("/{}", safe.replace('_', "/")) }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    let nothing = match &value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if !nothing {
        map.insert(key.to_owned(), value);
    }
}

fn seconds(millis: i64) -> Value {
    json!(millis.max(0) as f64 / 1000.0)
}

fn app_of(app: &m::ServiceDefinition) -> Map<String, Value> {
    let mut map = Map::new();
    put(&mut map, "id", json!(path_of(&app.id)));
    put(&mut map, "instances", json!(app.instances));
    command(&app.cmd, &mut map);
    env(app, &mut map);
    for resource in &app.resources {
        let value = resource.scalar.as_ref().map(|scalar| scalar.value);
        match (resource.name.as_str(), value) {
            ("cpus" | "mem" | "disk", Some(value)) => {
                put(&mut map, &resource.name, json!(value));
            }
            ("gpus", Some(value)) => put(&mut map, "gpus", json!(value as u64)),
            // Old versions kept the ports here as well.
            ("ports", None) => {}
            (other, _) => put(&mut map, &format!("resources.{other}"), json!(value)),
        }
    }
    put(&mut map, "description", json!(app.description));
    put(&mut map, "ports", json!(app.ports));
    put(&mut map, "constraints", app.constraints.iter().map(constraint).collect());
    put(&mut map, "executor", json!(app.executor));
    if let Some(container) = &app.obsolete_container {
        let image = String::from_utf8_lossy(&container.image);
        put(&mut map, "obsoleteContainer", json!(image));
    }
    put(&mut map, "version", json!(app.version));
    put(&mut map, "healthChecks", app.health_checks.iter().map(health).collect());
    put(&mut map, "backoffSeconds", seconds(app.backoff()));
    put(&mut map, "backoffFactor", json!(app.backoff_factor()));
    put(&mut map, "maxLaunchDelaySeconds", seconds(app.max_launch_delay()));
    if let Some(strategy) = &app.upgrade_strategy {
        let value = json!({
            "minimumHealthCapacity": strategy.minimum_health_capacity,
            "maximumOverCapacity": strategy.maximum_over_capacity(),
        });
        put(&mut map, "upgradeStrategy", value);
    }
    let dependencies: Vec<String> = app.dependencies.iter().map(|path| path_of(path)).collect();
    put(&mut map, "dependencies", json!(dependencies));
    put(&mut map, "storeUrls", json!(app.store_urls));
    put(&mut map, "requirePorts", json!(app.require_ports()));
    if let Some(info) = &app.container {
        put(&mut map, "container", container(info));
    }
    put(&mut map, "labels", parameters(&app.labels));
    let roles = app.accepted_resource_roles.as_ref().map(|roles| json!(roles.role));
    put(&mut map, "acceptedResourceRoles", roles.unwrap_or_default());
    if let Some(address) = &app.obsolete_ip_address {
        put(&mut map, "ipAddress", ip_address(address));
    }
    if let Some(residency) = &app.residency {
        let behaviour = residency.task_lost_behavior.map(|_| residency.task_lost_behavior());
        let mut inner = Map::new();
        let wait = residency.relaunch_escalation_timeout_seconds;
        put(&mut inner, "relaunchEscalationTimeoutSeconds", json!(wait));
        put(&mut inner, "taskLostBehavior", json!(behaviour.map(|word| word.as_str_name())));
        put(&mut map, "residency", Value::Object(inner));
    }
    put(
        &mut map,
        "portDefinitions",
        app.port_definitions.iter().map(|p| port(p, "port")).collect(),
    );
    put(&mut map, "readinessChecks", app.readiness_checks.iter().map(readiness).collect());
    let secrets: Map<String, Value> = app
        .secrets
        .iter()
        .map(|secret| (secret.id.clone(), json!({ "source": secret.source })))
        .collect();
    put(&mut map, "secrets", Value::Object(secrets));
    put(&mut map, "taskKillGracePeriodSeconds", grace(app.task_kill_grace_period));
    if let Some(strategy) = &app.unreachable_strategy {
        let disabled = m::UnreachableStrategy::default();
        let value = if *strategy == disabled {
            json!("disabled")
        } else {
            json!({
                "inactiveAfterSeconds": strategy.inactive_after_seconds(),
                "expungeAfterSeconds": strategy.expunge_after_seconds(),
            })
        };
        put(&mut map, "unreachableStrategy", value);
    }
    put(&mut map, "killSelection", json!(app.kill_selection().as_str_name()));
    put(&mut map, "networks", app.networks.iter().map(network).collect());
    if app.tty.is_some() {
        put(&mut map, "tty", json!(true));
    }
    let executor: Map<String, Value> = app
        .executor_resources
        .iter()
        .map(|resource| {
            let value = resource.scalar.as_ref().map(|scalar| scalar.value);
            (resource.name.clone(), json!(value))
        })
        .collect();
    put(&mut map, "executorResources", Value::Object(executor));
    if let Some(definition) = &app.check {
        put(&mut map, "check", check(definition));
    }
    put(&mut map, "role", json!(app.role));
    if let Some(limits) = &app.resource_limits {
        let mut inner = Map::new();
        put(&mut inner, "cpus", amount(limits.cpus));
        put(&mut inner, "mem", amount(limits.mem));
        put(&mut map, "resourceLimits", Value::Object(inner));
    }
    map
}

/// Infinity stands for "unlimited".
fn amount(value: Option<f64>) -> Value {
    match value {
        None => Value::Null,
        Some(value) if value.is_finite() => json!(value),
        Some(_) => json!("unlimited"),
    }
}

fn grace(millis: Option<i64>) -> Value {
    millis.map_or(Value::Null, seconds)
}

fn command(cmd: &m::CommandInfo, map: &mut Map<String, Value>) {
    if cmd.shell() {
        put(map, "cmd", json!(cmd.value));
        put(map, "args", json!(cmd.arguments));
    } else {
        // What runs is the first word; older versions kept it apart from the others.
        let mut words = cmd.arguments.clone();
        if let Some(first) = cmd.value.clone().filter(|value| words.first() != Some(value)) {
            words.insert(0, first);
        }
        put(map, "args", json!(words));
    }
    put(map, "user", json!(cmd.user));
    let fetch: Vec<Value> = cmd
        .uris
        .iter()
        .map(|uri| {
            let mut inner = Map::new();
            put(&mut inner, "uri", json!(uri.value));
            put(&mut inner, "executable", json!(uri.executable));
            put(&mut inner, "extract", json!(uri.extract));
            put(&mut inner, "cache", json!(uri.cache));
            put(&mut inner, "destPath", json!(uri.output_file));
            Value::Object(inner)
        })
        .collect();
    put(map, "fetch", Value::Array(fetch));
}

fn env(app: &m::ServiceDefinition, map: &mut Map<String, Value>) {
    let mut env = Map::new();
    for variable in app.cmd.environment.iter().flat_map(|environment| &environment.variables) {
        let value = match variable.r#type() {
            m::environment::variable::Type::Secret => json!({ "secret": variable.name }),
            _ => json!(variable.value.clone().unwrap_or_default()),
        };
        env.insert(variable.name.clone(), value);
    }
    for reference in &app.env_var_references {
        let id = reference.secret_ref.as_ref().map(|secret| secret.secret_id.clone());
        env.insert(reference.name.clone(), json!({ "secret": id.unwrap_or_default() }));
    }
    put(map, "env", Value::Object(env));
}

fn constraint(rule: &m::Constraint) -> Value {
    let mut items = vec![json!(rule.field), json!(rule.operator().as_str_name())];
    items.extend(rule.value.as_ref().map(|value| json!(value)));
    Value::Array(items)
}

fn parameters(list: &[m::Parameter]) -> Value {
    Value::Object(list.iter().map(|one| (one.key.clone(), json!(one.value))).collect())
}

fn labels(list: &[m::Label]) -> Value {
    let label = |one: &m::Label| (one.key.clone(), json!(one.value.clone().unwrap_or_default()));
    Value::Object(list.iter().map(label).collect())
}

fn shell(cmd: &m::CommandInfo) -> Value {
    json!({ "value": cmd.value.clone().unwrap_or_else(|| cmd.arguments.join(" ")) })
}

fn health(check: &m::HealthCheckDefinition) -> Value {
    let mut map = Map::new();
    put(&mut map, "protocol", json!(check.protocol().as_str_name()));
    put(&mut map, "portIndex", json!(check.port_index));
    put(&mut map, "port", json!(check.port));
    put(&mut map, "portName", json!(check.port_name));
    put(&mut map, "path", json!(check.path));
    put(&mut map, "gracePeriodSeconds", json!(check.grace_period_seconds()));
    put(&mut map, "intervalSeconds", json!(check.interval_seconds()));
    put(&mut map, "timeoutSeconds", json!(check.timeout_seconds()));
    put(&mut map, "maxConsecutiveFailures", json!(check.max_consecutive_failures()));
    put(&mut map, "delaySeconds", json!(check.delay_seconds()));
    put(&mut map, "ignoreHttp1xx", json!(check.ignore_http_1xx()));
    if check.ip_protocol() == m::health_check_definition::IpProtocol::Ipv6 {
        put(&mut map, "ipProtocol", json!("IPv6"));
    }
    put(&mut map, "command", check.command.as_ref().map(shell).unwrap_or_default());
    Value::Object(map)
}

fn check(check: &m::CheckDefinition) -> Value {
    let mut map = Map::new();
    put(&mut map, "protocol", json!(check.protocol().as_str_name()));
    put(&mut map, "portIndex", json!(check.port_index));
    put(&mut map, "port", json!(check.port));
    put(&mut map, "path", json!(check.path));
    put(&mut map, "intervalSeconds", json!(check.interval_seconds()));
    put(&mut map, "timeoutSeconds", json!(check.timeout_seconds()));
    put(&mut map, "delaySeconds", json!(check.delay_seconds()));
    put(&mut map, "command", check.command.as_ref().map(shell).unwrap_or_default());
    Value::Object(map)
}

fn readiness(check: &m::ReadinessCheckDefinition) -> Value {
    let mut map = Map::new();
    let seconds = |millis: Option<u64>| millis.map(|millis| millis as f64 / 1000.0);
    put(&mut map, "name", json!(check.name));
    let protocol = check.protocol.map(|_| check.protocol().as_str_name());
    put(&mut map, "protocol", json!(protocol));
    put(&mut map, "path", json!(check.path));
    put(&mut map, "portName", json!(check.port_name));
    put(&mut map, "intervalSeconds", json!(seconds(check.interval_millis)));
    put(&mut map, "timeoutSeconds", json!(seconds(check.timeout_millis)));
    put(&mut map, "httpStatusCodesForReady", json!(check.http_status_code_for_ready));
    put(&mut map, "preserveLastResponse", json!(check.preserve_last_response));
    Value::Object(map)
}

fn port(port: &m::Port, number: &str) -> Value {
    let mut map = Map::new();
    put(&mut map, number, json!(port.number));
    put(&mut map, "name", json!(port.name));
    put(&mut map, "protocol", json!(port.protocol));
    let inner = port.labels.as_ref().map(|list| labels(&list.labels));
    put(&mut map, "labels", inner.unwrap_or_default());
    Value::Object(map)
}

fn network(network: &m::NetworkDefinition) -> Value {
    use m::network_definition::Mode;
    let mut map = Map::new();
    let mode = match network.mode() {
        Mode::Unknown => "unknown",
        Mode::Host => "host",
        Mode::Container => "container",
        Mode::Bridge => "container/bridge",
    };
    put(&mut map, "mode", json!(mode));
    put(&mut map, "name", json!(network.name));
    put(&mut map, "labels", labels(&network.labels));
    Value::Object(map)
}

fn ip_address(address: &m::ObsoleteIpAddress) -> Value {
    let mut map = Map::new();
    put(&mut map, "groups", json!(address.groups));
    put(&mut map, "labels", labels(&address.labels));
    put(&mut map, "networkName", json!(address.network_name));
    if let Some(discovery) = &address.discovery_info {
        let ports: Vec<Value> = discovery.ports.iter().map(|p| port(p, "number")).collect();
        put(&mut map, "discovery", json!({ "ports": ports }));
    }
    // An address of its own counts even where nothing more is said of it.
    if map.is_empty() {
        map.insert("groups".into(), json!([]));
    }
    Value::Object(map)
}

fn container(info: &m::ExtendedContainerInfo) -> Value {
    let mut map = Map::new();
    put(&mut map, "type", json!(info.r#type().as_str_name()));
    put(&mut map, "volumes", info.volumes.iter().map(volume).collect());
    let mappings = info.port_mappings.iter().map(|mapping| {
        let mut map = Map::new();
        put(&mut map, "containerPort", json!(mapping.container_port));
        put(&mut map, "hostPort", json!(mapping.host_port));
        put(&mut map, "servicePort", json!(mapping.service_port()));
        put(&mut map, "protocol", json!(mapping.protocol));
        put(&mut map, "name", json!(mapping.name));
        put(&mut map, "labels", labels(&mapping.labels));
        put(&mut map, "networkNames", json!(mapping.network_names));
        Value::Object(map)
    });
    put(&mut map, "portMappings", mappings.collect());
    if let Some(info) = &info.docker {
        put(&mut map, "docker", docker(info));
    }
    if let Some(info) = &info.mesos_docker {
        let mut inner = Map::new();
        put(&mut inner, "image", json!(info.image));
        put(&mut inner, "forcePullImage", json!(info.force_pull_image));
        opaque(&mut inner, "credential", info.deprecated_credential.as_deref());
        opaque(&mut inner, "pullConfig", info.pull_config.as_deref());
        put(&mut map, "docker", Value::Object(inner));
    }
    opaque(&mut map, "appc", info.appc.as_deref());
    opaque(&mut map, "linuxInfo", info.linux_info.as_deref());
    Value::Object(map)
}

/// Something that is there, and that nothing is read from.
fn opaque(map: &mut Map<String, Value>, key: &str, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        map.insert(key.to_owned(), json!(format!("{} bytes", bytes.len())));
    }
}

fn docker(info: &DockerInfo) -> Value {
    let mut map = Map::new();
    put(&mut map, "image", json!(info.image));
    if info.obsolete_network.is_some() {
        let network = match info.obsolete_network() {
            Network::Bridge => "BRIDGE",
            Network::User => "USER",
            Network::None => "NONE",
            Network::Host => "HOST",
        };
        put(&mut map, "network", json!(network));
    }
    let mappings = info.obsolete_port_mappings.iter().map(|mapping| {
        let mut map = Map::new();
        put(&mut map, "containerPort", json!(mapping.container_port));
        put(&mut map, "hostPort", json!(mapping.host_port));
        put(&mut map, "servicePort", json!(mapping.service_port()));
        put(&mut map, "protocol", json!(mapping.protocol));
        put(&mut map, "name", json!(mapping.name));
        put(&mut map, "labels", labels(&mapping.labels));
        Value::Object(map)
    });
    put(&mut map, "portMappings", mappings.collect());
    put(&mut map, "privileged", json!(info.privileged()));
    let parameters = info.parameters.iter();
    let parameters = parameters.map(|one| json!({ "key": one.key, "value": one.value }));
    put(&mut map, "parameters", parameters.collect());
    put(&mut map, "forcePullImage", json!(info.force_pull_image));
    Value::Object(map)
}

fn volume(volume: &m::Volume) -> Value {
    let mut map = Map::new();
    put(&mut map, "containerPath", json!(volume.container_path));
    put(&mut map, "hostPath", json!(volume.host_path));
    put(&mut map, "mode", json!(volume.mode().as_str_name()));
    if let Some(info) = &volume.persistent {
        let mut inner = Map::new();
        put(&mut inner, "size", json!(info.size));
        put(&mut inner, "type", json!(info.r#type));
        put(&mut inner, "constraints", info.constraints.iter().map(constraint).collect());
        put(&mut inner, "maxSize", json!(info.max_size));
        put(&mut inner, "profileName", json!(info.profile_name));
        put(&mut map, "persistent", Value::Object(inner));
    }
    if let Some(info) = &volume.external {
        let mut inner = Map::new();
        put(&mut inner, "size", json!(info.size));
        put(&mut inner, "name", json!(info.name));
        put(&mut inner, "provider", json!(info.provider));
        put(&mut inner, "options", labels(&info.options));
        put(&mut inner, "shared", json!(info.shared()));
        put(&mut map, "external", Value::Object(inner));
    }
    put(&mut map, "secret", json!(volume.secret.as_ref().map(|info| &info.secret)));
    opaque(&mut map, "image", volume.image.as_deref());
    opaque(&mut map, "csi", volume.csi_external.as_deref());
    Value::Object(map)
}
