//! A job as the job file that makes it: what `orch inspect` prints and `orch run` reads.
//!
//! What is left out is what the reader of job files would add: its defaults. Amounts and
//! durations are exact.

use serde_json::{Map, Value, json};

use crate::model::job::{
    DisconnectPolicy, HealthCheck, JobKind, JobSpec, PortSpec, Probe, Promotion, Protocol,
    PullPolicy, ReschedulePolicy, RestartPolicy, TaskRuntime, TaskSpec, UpdatePolicy,
    UpdateStrategy, VolumeMount, VolumeSource,
};
use crate::model::resources::ResourceRequest;
use crate::model::time::Millis;

/// Keys whose values are never shown.
pub const HIDDEN_FIELDS: [&str; 1] = ["password"];

/// The job file with everything in it, passwords too: for comparing, never for showing.
pub fn whole(spec: &JobSpec) -> Value {
    let mut file = Map::new();
    file.insert("job".into(), json!(spec.name.as_str()));
    file.insert("project".into(), json!(spec.project.as_str()));
    match spec.kind {
        JobKind::Service { replicas } => put(&mut file, "replicas", json!(replicas)),
        JobKind::System => put(&mut file, "per", json!("node")),
        JobKind::Batch { timeout, completions, parallelism, retries } => {
            put_unless_empty(&mut file, "timeout", timeout.map_or(Value::Null, duration));
            if completions != 1 {
                put(&mut file, "completions", json!(completions));
            }
            if parallelism != completions {
                put(&mut file, "parallelism", json!(parallelism));
            }
            if retries != 0 {
                put(&mut file, "retries", json!(retries));
            }
        }
    }
    put_unless_empty(&mut file, "replicas_owner", json!(spec.replicas_owner));
    if spec.priority != JobSpec::priority_default() {
        put(&mut file, "priority", json!(spec.priority));
    }
    put_unless_empty(&mut file, "labels", json!(spec.labels));
    match spec.tasks.as_slice() {
        [only] if only.name.as_str() == spec.name.as_str() && only.labels.is_empty() => {
            file.extend(task(only));
        }
        tasks => {
            let tasks = tasks.iter().map(|one| (one.name.to_string(), task(one).into()));
            put(&mut file, "tasks", Value::Object(tasks.collect()));
        }
    }
    put_unless_empty(&mut file, "placement", placement(&spec.placement));
    put_unless_empty(&mut file, "restart", restart(&spec.restart));
    put_unless_empty(&mut file, "reschedule", reschedule(&spec.reschedule));
    put_unless_empty(&mut file, "update", update(spec));
    put_unless_empty(&mut file, "disconnect", disconnect(&spec.disconnect));
    if spec.shutdown_delay != JobSpec::shutdown_delay_default() {
        put(&mut file, "shutdown_delay", duration(spec.shutdown_delay));
    }
    Value::Object(file)
}

/// The job file as it may be shown: without passwords.
pub fn shown(spec: &JobSpec) -> Value {
    let mut file = whole(spec);
    hide(&mut file);
    file
}

/// Passwords stand under `registry` alone: a variable of that name in the environment is the
/// user's business.
fn hide(value: &mut Value) {
    let Value::Object(map) = value else { return };
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("registry", Value::Object(registry)) => {
                registry.retain(|key, _| !HIDDEN_FIELDS.contains(&key.as_str()));
            }
            ("tasks", Value::Object(tasks)) => tasks.values_mut().for_each(hide),
            _ => {}
        }
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

fn put_unless_empty(map: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(_) | Value::String(_) => false,
    };
    if !empty {
        put(map, key, value);
    }
}

/// In the largest unit that loses nothing.
fn duration(millis: Millis) -> Value {
    const UNITS: [(&str, u64); 4] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = UNITS.iter().find(|(_, factor)| millis.0 > 0 && millis.0.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) => json!(format!("{}{unit}", millis.0 / factor)),
        None => json!(format!("{}ms", millis.0)),
    }
}

/// In the largest unit that loses nothing.
fn bytes(bytes: u64) -> Value {
    const UNITS: [(&str, u64); 4] =
        [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    match UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => json!(format!("{}{unit}", bytes / factor)),
        None => json!(bytes),
    }
}

fn task(task: &TaskSpec) -> Map<String, Value> {
    let mut map = Map::new();
    if let TaskRuntime::Docker { image, pull, registry } = &task.runtime {
        put(&mut map, "image", json!(image));
        let pull = match pull {
            PullPolicy::Missing => Value::Null,
            PullPolicy::Always => json!("always"),
            PullPolicy::Never => json!("never"),
        };
        put_unless_empty(&mut map, "pull_policy", pull);
        let registry = registry.as_ref().map(
            |registry| json!({ "username": registry.username, "password": registry.password }),
        );
        put_unless_empty(&mut map, "registry", json!(registry));
    }
    if let Some(entrypoint) = &task.entrypoint {
        put(&mut map, "entrypoint", json!(entrypoint));
    }
    put_unless_empty(&mut map, "command", json!(task.command));
    put_unless_empty(&mut map, "environment", json!(task.environment));
    put_unless_empty(&mut map, "ports", ports(&task.ports));
    put_unless_empty(&mut map, "resources", resources(&task.resources));
    put_unless_empty(&mut map, "volumes", task.volumes.iter().map(volume).collect());
    put_unless_empty(&mut map, "user", json!(task.user));
    put_unless_empty(&mut map, "working_dir", json!(task.working_dir));
    put_unless_empty(&mut map, "stop_signal", json!(task.stop_signal));
    if task.stop_grace != TaskSpec::stop_grace_default() {
        put(&mut map, "stop_grace_period", duration(task.stop_grace));
    }
    put_unless_empty(&mut map, "cap_add", json!(task.cap_add));
    put_unless_empty(&mut map, "cap_drop", json!(task.cap_drop));
    put_unless_empty(&mut map, "read_only", json!(task.read_only));
    if let Some(check) = &task.healthcheck {
        put(&mut map, "healthcheck", healthcheck(check));
    }
    if let Some(check) = &task.readiness {
        put(&mut map, "readiness", healthcheck(check));
    }
    put_unless_empty(&mut map, "labels", json!(task.labels));
    put_unless_empty(&mut map, "legacy_environment", json!(task.legacy_environment));
    map
}

fn ports(ports: &[PortSpec]) -> Value {
    let ports = ports.iter().map(|port| {
        let numbers = match (port.host, port.container) {
            (None, None) => "auto".to_owned(),
            (None, Some(container)) => container.to_string(),
            (Some(host), container) => format!("{host}:{}", container.unwrap_or(0)),
        };
        let text = match port.protocol {
            Protocol::Tcp => numbers,
            Protocol::Udp => format!("{numbers}/udp"),
        };
        let value = text.parse::<u16>().map_or_else(|_| json!(text), |number| json!(number));
        (port.name.to_string(), value)
    });
    Value::Object(ports.collect())
}

fn resources(wanted: &ResourceRequest) -> Value {
    let mut map = Map::new();
    if let Some(milli) = wanted.cpu_milli {
        put(
            &mut map,
            "cpu",
            match milli % 1000 {
                0 => json!(milli / 1000),
                _ => json!(milli as f64 / 1000.0),
            },
        );
    }
    put_unless_empty(&mut map, "memory", wanted.memory.map_or(Value::Null, bytes));
    put_unless_empty(&mut map, "disk", wanted.disk.map_or(Value::Null, bytes));
    if wanted.gpu > 0 {
        put(&mut map, "gpu", json!(wanted.gpu));
    }
    Value::Object(map)
}

fn volume(mount: &VolumeMount) -> Value {
    let mut map = Map::new();
    let (kind, source) = match &mount.source {
        VolumeSource::Path(path) => ("bind", Some(path)),
        VolumeSource::Named(name) => ("volume", Some(name)),
        VolumeSource::Tmpfs => ("tmpfs", None),
    };
    put(&mut map, "type", json!(kind));
    put_unless_empty(&mut map, "source", json!(source));
    put(&mut map, "target", json!(mount.target));
    put_unless_empty(&mut map, "read_only", json!(mount.read_only));
    Value::Object(map)
}

fn healthcheck(check: &HealthCheck) -> Value {
    let mut map = Map::new();
    match &check.probe {
        Probe::Http { path, port } => {
            put(&mut map, "http", json!(path));
            put(&mut map, "port", json!(port.as_str()));
        }
        Probe::Tcp { port } => put(&mut map, "tcp", json!(port.as_str())),
        Probe::Command { command } => put(&mut map, "command", json!(command)),
        Probe::Grpc { service, port } => {
            put(&mut map, "grpc", json!(service));
            put(&mut map, "port", json!(port.as_str()));
        }
    }
    put(&mut map, "interval", duration(check.interval));
    put(&mut map, "timeout", duration(check.timeout));
    put(&mut map, "retries", json!(check.retries));
    if check.successes != HealthCheck::successes_default() {
        put(&mut map, "successes", json!(check.successes));
    }
    if check.start_period.0 > 0 {
        put(&mut map, "start_period", duration(check.start_period));
    }
    Value::Object(map)
}

fn placement(placement: &crate::model::job::Placement) -> Value {
    let mut map = Map::new();
    let texts = |items: Vec<String>| json!(items);
    let require = placement.require.iter().map(ToString::to_string).collect();
    put_unless_empty(&mut map, "require", texts(require));
    let prefer: Vec<Value> = placement
        .prefer
        .iter()
        .map(|preference| json!({ preference.rule.to_string(): preference.weight }))
        .collect();
    put_unless_empty(&mut map, "prefer", json!(prefer));
    let spread = placement.spread.iter().map(ToString::to_string).collect();
    put_unless_empty(&mut map, "spread", texts(spread));
    put_unless_empty(&mut map, "max_per_node", json!(placement.max_per_node));
    Value::Object(map)
}

fn restart(policy: &RestartPolicy) -> Value {
    if *policy == RestartPolicy::default() {
        return Value::Null;
    }
    let delay = range(policy.delay_min, policy.delay_max);
    json!({ "attempts": policy.attempts, "within": duration(policy.within), "delay": delay })
}

fn reschedule(policy: &ReschedulePolicy) -> Value {
    if *policy == ReschedulePolicy::default() {
        return Value::Null;
    }
    let attempts = policy.attempts.map_or(json!("unlimited"), |attempts| json!(attempts));
    let delay = range(policy.delay_min, policy.delay_max);
    json!({ "attempts": attempts, "within": duration(policy.within), "delay": delay })
}

fn range(least: Millis, most: Millis) -> String {
    let exact = |millis| duration(millis).as_str().unwrap_or_default().to_owned();
    format!("{}..{}", exact(least), exact(most))
}

fn disconnect(policy: &DisconnectPolicy) -> Value {
    let mut map = Map::new();
    if policy.replace_after.0 > 0 {
        put(&mut map, "replace_after", duration(policy.replace_after));
    }
    put_unless_empty(&mut map, "stop_after", policy.stop_after.map_or(Value::Null, duration));
    Value::Object(map)
}

fn update(spec: &JobSpec) -> Value {
    let policy = &spec.update;
    let usual = UpdatePolicy { min_healthy: spec.min_healthy_default(), ..UpdatePolicy::default() };
    if *policy == usual {
        return Value::Null;
    }
    let mut map = Map::new();
    match policy.strategy {
        UpdateStrategy::Rolling => {}
        UpdateStrategy::Canary { count, promote } => {
            put(&mut map, "canary", json!(count));
            put(&mut map, "promote", promotion(promote));
        }
        UpdateStrategy::BlueGreen { promote, keep_old } => {
            put(&mut map, "strategy", json!(policy.strategy.word()));
            put(&mut map, "promote", promotion(promote));
            put(&mut map, "keep_old", duration(keep_old));
        }
    }
    put(&mut map, "max_parallel", json!(policy.max_parallel));
    put(&mut map, "min_healthy", duration(policy.min_healthy));
    if let Some(order) = policy.order {
        put(&mut map, "order", json!(order.word()));
    }
    if policy.deadline != usual.deadline {
        put(&mut map, "deadline", duration(policy.deadline));
    }
    if policy.auto_revert != usual.auto_revert {
        put(&mut map, "auto_revert", json!(policy.auto_revert));
    }
    Value::Object(map)
}

fn promotion(promote: Promotion) -> Value {
    match promote {
        Promotion::Manual => json!("manual"),
        Promotion::After(Millis(0)) => json!("auto"),
        Promotion::After(wait) => duration(wait),
    }
}
