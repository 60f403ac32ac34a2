//! An app as a job with one task.

use serde_json::{Map, Value, json};

use super::container::{self, Container};
use super::environment::{self, Told};
use super::fields::{Fields, misread, said};
use super::finding::Notes;
use super::job::{Amounts, Draft, LABEL_ID, give_sandbox};
use super::names::Names;
use super::placement::Placement;
use super::policy::{self, Circumstances};
use super::ports::{self, Network, Ports};
use super::{checks, normal, volumes};

/// Takes an app apart; `name` is its job's.
pub(super) fn draft(id: &str, app: Map<String, Value>, name: &str, notes: &mut Notes) -> Draft {
    let mut fields = Fields::new("", normal::app(app, notes));
    fields.take("id");
    let mut draft = Draft::default();
    let mut task = Map::new();
    let mut container = Container::default();
    let mut inner = fields.object("container", notes);
    if let Some(inner) = &mut inner {
        container = container::read(inner, &mut task, notes);
    }
    let process = container.image.is_none();
    let mappings = inner.as_mut().map(|inner| inner.objects("portMappings", notes));
    let mounts = inner.as_mut().map(|inner| inner.objects("volumes", notes)).unwrap_or_default();
    if let Some(inner) = inner {
        inner.finish(notes);
    }

    let instances = fields.whole("instances", notes).unwrap_or(1);
    draft.replicas = instances;
    let amounts = amounts(&mut fields, notes);
    let cmd = fields.text("cmd", notes).filter(|cmd| !cmd.is_empty());
    let args = fields.texts("args", notes);
    container::command(cmd, args, &container, &mut task, notes);
    container::fetch(fields.objects("fetch", notes), notes);
    user(&mut fields, &container, &mut task, notes);

    draft.labels = labels(&mut fields, "labels", notes);
    let told = Told {
        id,
        version: fields.text("version", notes),
        image: container.image.clone(),
        amounts: Some(&amounts),
    };
    let mut variables = environment::told(&told, &draft.labels);
    draft.labels.insert(LABEL_ID.into(), json!(id));

    let ports = app_ports(&mut fields, mappings.unwrap_or_default(), process, notes);
    variables.extend(ports.environment.iter().map(|(key, value)| (key.clone(), json!(value))));
    if let Some(Value::Object(given)) = task.remove("environment") {
        variables.extend(given);
    }
    environment::own(fields.object("env", notes), &mut variables, notes);
    secrets(&mut fields, notes);
    task.insert("environment".into(), Value::Object(variables));
    task.insert("legacy_environment".into(), json!("marathon"));
    if !ports.entries.is_empty() {
        task.insert("ports".into(), Value::Object(ports.entries.clone()));
    }
    draft.port_order.clone_from(&ports.order);
    draft.keep_service_ports(&ports.service, "servicePort", notes);
    task.insert("resources".into(), amounts.entry(str::to_owned, notes));

    let volumes = volumes::of_app(mounts, name, process, notes);
    draft.roots.clone_from(&volumes.roots);
    if !volumes.entries.is_empty() {
        let list = task.entry("volumes").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.extend(volumes.entries.clone());
        }
    }
    give_sandbox(&mut task, process, notes);
    if let Some(grace) = fields.number("taskKillGracePeriodSeconds", notes) {
        task.insert("stop_grace_period".into(), super::job::duration(grace.min(86_400.0)));
    }
    if let Some(labels) = task.remove("container_labels") {
        task.insert("labels".into(), labels);
    }

    let (health, grace) = checks::health(fields.objects("healthChecks", notes), &ports, notes);
    if let Some(health) = health {
        task.insert("healthcheck".into(), health);
    }
    let readiness = fields.objects("readinessChecks", notes);
    if let Some(readiness) = checks::readiness(readiness, &ports, notes) {
        task.insert("readiness".into(), readiness);
    }
    fields.lose(
        "check",
        notes,
        "it only told how the task is, and nothing followed from it",
        "write it under readiness, if the task is to leave the endpoints while it fails",
    );

    let mut placement = Placement::default();
    placement.constraints(fields.list("constraints", notes), notes);
    if volumes.local {
        // Two replicas on a node would share the volume.
        placement.at_most(1);
    }
    let alone = ports.fixed() || volumes.local;
    rules(&mut fields, placement, Circumstances { instances, alone, grace }, &mut draft, notes);
    rest(&mut fields, notes);
    fields.finish(notes);
    draft.tasks.push((None, task));
    draft
}

fn amounts(fields: &mut Fields, notes: &mut Notes) -> Amounts {
    let limits = fields.object("resourceLimits", notes);
    if let Some(mut limits) = limits {
        for key in ["cpus", "mem"] {
            limits.lose(
                key,
                notes,
                "what is reserved is also the most that a task gets",
                "raise resources in the job to the limit, if the nodes have room",
            );
        }
        limits.finish(notes);
    }
    Amounts {
        cpus: Some(fields.number("cpus", notes).unwrap_or(1.0)),
        mem: Some(fields.number("mem", notes).unwrap_or(128.0)),
        disk: fields.number("disk", notes),
        gpus: fields.whole("gpus", notes),
    }
}

fn user(
    fields: &mut Fields,
    container: &Container,
    task: &mut Map<String, Value>,
    notes: &mut Notes,
) {
    let Some(user) = fields.text("user", notes).filter(|user| !user.is_empty()) else { return };
    if container.image.is_some() && !container.mesos {
        let why = "in a Docker container it decided nothing: the image's user counted, as now";
        notes.adapted("user", user, why, "nothing");
    } else {
        task.entry("user").or_insert(json!(user));
    }
}

/// Labels are texts; what is none is told.
pub(super) fn labels(fields: &mut Fields, key: &str, notes: &mut Notes) -> Map<String, Value> {
    let mut labels = Map::new();
    let Some(inner) = fields.object(key, notes) else { return labels };
    for (path, key, value) in inner.entries() {
        match value {
            Value::String(_) => {
                labels.insert(key, value);
            }
            Value::Null => {}
            other => misread(&path, &other, "a text", notes),
        }
    }
    labels
}

/// Every secret that is named; where it is used is told there.
pub(super) fn secrets(fields: &mut Fields, notes: &mut Notes) {
    let Some(secrets) = fields.object("secrets", notes) else { return };
    for (path, _, value) in secrets.entries() {
        let source = value.get("source").unwrap_or(&value);
        notes.essential(
            &path,
            format!("source {}", said(source)),
            "the value is in a store of secrets that orch does not reach",
            "write it under environment, put it on the node, or have the task fetch it",
        );
    }
}

/// The network that the containers have.
pub(super) fn network(list: Vec<Fields>, notes: &mut Notes) -> Option<Network> {
    let mut found = None;
    for mut fields in list {
        let mode = fields.text("mode", notes).unwrap_or_else(|| "container".to_owned());
        let kind = match mode.as_str() {
            "host" => Network::Host,
            "container/bridge" => Network::Bridge,
            "container" => Network::Container,
            other => {
                let why = "there is no such network";
                notes.essential(&fields.at("mode"), other, why, "check how it is reached");
                Network::Bridge
            }
        };
        if let Some(name) = fields.text("name", notes) {
            let why = "orch puts containers on no network but the engine's own";
            let remedy =
                "its ports are published on the node: callers find them with `orch endpoints`";
            notes.lost(&fields.at("name"), name, why, remedy);
        }
        fields.lose("labels", notes, "networks have no labels", "check whether they mattered");
        fields.finish(notes);
        found.get_or_insert(kind);
    }
    found
}

fn app_ports(
    fields: &mut Fields,
    mappings: Vec<Fields>,
    process: bool,
    notes: &mut Notes,
) -> Ports {
    let network = network(fields.objects("networks", notes), notes);
    let mapped = if mappings.is_empty() { Network::Host } else { Network::Bridge };
    let network = network.unwrap_or(mapped);
    let require = fields.truth("requirePorts", notes).unwrap_or(false);
    let named = fields.has("portDefinitions");
    let given = fields.take("portDefinitions");
    let mut names = Names::default();
    if network != Network::Host {
        if process && !mappings.is_empty() {
            let why = "a process listens on the host itself, where these ports are chosen";
            notes.adapted("container.portMappings", "", why, "have it listen on $PORT0 and so on");
            let at = |mut fields: Fields| {
                fields.take("containerPort");
                fields
            };
            let mappings = mappings.into_iter().map(at).collect();
            return ports::mappings(mappings, Network::Bridge, &mut names, notes);
        }
        return ports::mappings(mappings, network, &mut names, notes);
    }
    for mapping in mappings {
        let why = "on the host's network no port is mapped";
        notes.lost(mapping.at("").trim_end_matches('.'), "", why, "nothing");
    }
    let list = match given {
        Some(Value::Array(items)) => items,
        // Without a word about ports an app had one.
        None if !named => vec![json!({ "port": 0 })],
        _ => Vec::new(),
    };
    let list = list.into_iter().enumerate();
    let list = list
        .filter_map(|(i, item)| Fields::of(&format!("portDefinitions[{i}]"), item, notes))
        .collect();
    if !process {
        notes.lost(
            "networks",
            "host",
            "the container gets a network of its own, and its ports are published on the node: \
             what it reaches on 127.0.0.1, and ports it opens without naming them, are not the \
             host's any more",
            "name every port that is listened on under ports; a process of the host has the host's \
             network",
        );
    }
    ports::definitions(list, require, &mut names, notes)
}

fn rules(
    fields: &mut Fields,
    placement: Placement,
    here: Circumstances,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    if let Some(placement) = placement.entry() {
        draft.rules.insert("placement".into(), placement);
    }
    let backoff = fields.number("backoffSeconds", notes);
    let factor =
        fields.number("backoffFactor", notes).map(|factor| (factor, "backoffFactor".into()));
    let longest = fields.number("maxLaunchDelaySeconds", notes);
    let reschedule = policy::reschedule(backoff, factor, longest, notes);
    draft.rules.insert("reschedule".into(), reschedule);
    let strategy = fields.object("upgradeStrategy", notes);
    if let Some(update) = policy::update(strategy, here, notes) {
        draft.rules.insert("update".into(), update);
    }
    let unreachable = fields.take("unreachableStrategy");
    let unreachable = unreachable.map(|value| ("unreachableStrategy".to_owned(), value));
    if let Some(disconnect) = policy::disconnect(unreachable, notes) {
        draft.rules.insert("disconnect".into(), disconnect);
    }
    policy::residency(fields.object("residency", notes), notes);
}

/// What has no equal, for apps and pods alike.
pub(super) fn rest(fields: &mut Fields, notes: &mut Notes) {
    if let Some(executor) = fields.text("executor", notes)
        && !matches!(executor.as_str(), "" | "//cmd" | "/cmd")
    {
        let why = "tasks run without an executor, and this one did the work";
        notes.essential(
            "executor",
            executor,
            why,
            "start what the executor started in the command",
        );
    }
    fields.lose(
        "dependencies",
        notes,
        "jobs are started at the same time, and none waits for another",
        "have it try again until what it needs is there",
    );
    let roles = fields.texts("acceptedResourceRoles", notes);
    roles_of("acceptedResourceRoles", &roles, notes);
    let role: Vec<String> = fields.text("role", notes).into_iter().collect();
    roles_of("role", &role, notes);
    if fields.text("killSelection", notes).is_some_and(|which| which != "YOUNGEST_FIRST") {
        let why = "of too many replicas those with the highest numbers end";
        notes.lost("killSelection", "OLDEST_FIRST", why, "nothing, if all are alike");
    }
    fields.lose("tty", notes, "tasks get no terminal", "`orch exec -it` gives one to a command");
    fields.lose("description", notes, "jobs have no description", "keep it as a label");
}

fn roles_of(field: &str, roles: &[String], notes: &mut Notes) {
    let roles: Vec<&str> = roles.iter().map(String::as_str).filter(|role| *role != "*").collect();
    if !roles.is_empty() {
        let why = "orch reserves no resources for roles";
        let remedy =
            "give the nodes a class, and write placement.require: [\"node.class == CLASS\"]";
        notes.lost(field, roles.join(", "), why, remedy);
    }
}
