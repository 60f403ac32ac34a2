//! A pod as a job with several tasks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::app::{labels, network, rest, secrets};
use super::checks;
use super::container;
use super::environment::{self, Told};
use super::fields::{Fields, said};
use super::finding::Notes;
use super::job::{Amounts, Draft, LABEL_ID, duration, give_sandbox};
use super::names::Names;
use super::placement::Placement;
use super::policy::{self, Circumstances};
use super::ports::{self, Network};
use super::volumes::SANDBOX;

/// What all containers of a pod have in common.
struct Common {
    environment: Map<String, Value>,
    user: Option<String>,
    network: Network,
    volumes: BTreeMap<String, Source>,
    told: Map<String, Value>,
}

/// Where the files of a pod's volume are.
enum Source {
    Host(String),
    /// Thrown away with the pod; how many containers mount it is not known yet.
    Ephemeral,
    Named(String),
    Gone,
}

/// Takes a pod apart; `name` is its job's.
pub(super) fn draft(id: &str, pod: Map<String, Value>, name: &str, notes: &mut Notes) -> Draft {
    let mut fields = Fields::new("", pod);
    for report in ["id", "version", "versionInfo"] {
        fields.take(report);
    }
    let mut draft = Draft { replicas: 1, ..Draft::default() };
    if let Some(mut scaling) = fields.object("scaling", notes) {
        scaling.take("kind");
        draft.replicas = scaling.whole("instances", notes).unwrap_or(1);
        scaling.lose("maxInstances", notes, "nothing scales by itself", "see replicas_owner");
        scaling.finish(notes);
    }
    draft.labels = labels(&mut fields, "labels", notes);
    let told = environment::told(&Told { id, ..Told::default() }, &draft.labels);
    draft.labels.insert(LABEL_ID.into(), json!(id));
    let mut environment = Map::new();
    environment::own(fields.object("environment", notes), &mut environment, notes);
    secrets(&mut fields, notes);
    let network = network(fields.objects("networks", notes), notes).unwrap_or(Network::Host);
    let user = fields.text("user", notes);
    let (volumes, local) = sources(fields.objects("volumes", notes), name, notes);
    let common = Common { environment, user, network, volumes, told };
    let containers = fields.objects("containers", notes);
    if containers.is_empty() {
        let why = "the pod has no containers";
        notes.blocked("containers", "", why, "write one at the source");
    }
    if containers.len() > 1 {
        notes.essential(
            "containers",
            format!("{} containers", containers.len()),
            "they run together on one node, but each has a network of its own: 127.0.0.1 of one is \
             not that of another",
            "have them reach each other under $HOST and $HOST_PORT_<NAME>",
        );
    }
    if network == Network::Host {
        notes.lost(
            "networks",
            "host",
            "each container gets a network of its own, and its ports are published on the node",
            "name every port that is listened on under ports",
        );
    }
    shared(&containers, &common, notes);
    let (mut task_names, mut port_names) = (Names::default(), Names::default());
    let (mut fixed, mut grace, mut slots) = (false, 0.0_f64, 0);
    for (i, fields) in containers.into_iter().enumerate() {
        let made = task(fields, &common, &mut port_names, &mut draft, notes);
        let task_name = task_names.fresh(&made.name, &format!("task{i}"));
        fixed |= made.fixed;
        grace = grace.max(made.grace);
        draft.port_order.extend(made.order.iter().map(|slot| slots + slot));
        slots += made.slots;
        draft.tasks.push((Some(task_name), made.task));
    }
    let here = Circumstances { instances: draft.replicas, alone: fixed || local, grace };
    scheduling(&mut fields, here, local, &mut draft, notes);
    fields.lose("executorResources", notes, "there is no executor that needs them", "nothing");
    fields.lose(
        "linuxInfo",
        notes,
        "seccomp, IPC and shared memory are the engine's",
        "set them there",
    );
    rest(&mut fields, notes);
    fields.finish(notes);
    draft
}

fn sources(list: Vec<Fields>, job: &str, notes: &mut Notes) -> (BTreeMap<String, Source>, bool) {
    let mut sources = BTreeMap::new();
    let mut local = false;
    for mut fields in list {
        let name = fields.text("name", notes).unwrap_or_default();
        let path = fields.at("");
        let path = path.trim_end_matches('.').to_owned();
        let source = if let Some(host) = fields.text("host", notes) {
            Source::Host(host)
        } else if let Some(mut persistent) = fields.object("persistent", notes) {
            let size = persistent.take("size").map(|size| said(&size)).unwrap_or_default();
            for key in ["type", "constraints", "maxSize", "profileName"] {
                let why = "a volume of the node is a directory of its engine";
                persistent.lose(key, notes, why, "put the engine's directory on the right disk");
            }
            persistent.finish(notes);
            let volume = super::names::name(&format!("{job}-{name}"));
            let volume = volume.unwrap_or_else(|| format!("{job}-data"));
            let why = "the job gets an empty volume; the data is in a directory of the Mesos agent";
            let remedy = format!("copy it to the volume {volume}");
            notes.essential(&path, format!("{name} ({size} MiB)"), why, &remedy);
            local = true;
            Source::Named(volume)
        } else if fields.has("secret") {
            fields.miss(
                "secret",
                notes,
                "the value is in a store of secrets that orch does not reach",
                "put the file on the node, or have the task fetch it",
            );
            Source::Gone
        } else {
            Source::Ephemeral
        };
        fields.finish(notes);
        sources.insert(name, source);
    }
    (sources, local)
}

/// What several containers share and is thrown away afterwards has no equal.
fn shared(containers: &[Fields], common: &Common, notes: &mut Notes) {
    for (name, source) in &common.volumes {
        let users = containers.iter().filter(|fields| fields.mounts(name)).count();
        if matches!(source, Source::Ephemeral) && users > 1 {
            notes.essential(
                &format!("volumes.{name}"),
                "shared by several containers",
                "each of them gets its own, held in memory: tasks share no directory but the host's",
                "name a path of the host under volumes in each",
            );
        }
    }
}

/// A task that was made of a container.
struct Made {
    name: String,
    task: Map<String, Value>,
    order: Vec<usize>,
    slots: usize,
    fixed: bool,
    grace: f64,
}

fn task(
    mut fields: Fields,
    common: &Common,
    port_names: &mut Names,
    draft: &mut Draft,
    notes: &mut Notes,
) -> Made {
    let mut task = Map::new();
    let name = fields.text("name", notes).unwrap_or_default();
    let mut image = None;
    if let Some(mut inner) = fields.object("image", notes) {
        image = inner.text("id", notes);
        inner.take("kind");
        if inner.truth("forcePull", notes) == Some(true) {
            task.insert("pull_policy".into(), json!("always"));
        }
        let why = "the registry's password is in a store of secrets";
        let remedy = "log the nodes' engines in to the registry, or write registry in the job";
        inner.miss("pullConfig", notes, why, remedy);
        inner.lose("labels", notes, "images are named by their reference", "nothing");
        inner.finish(notes);
    }
    if let Some(image) = &image {
        task.insert("image".into(), json!(image));
    }
    command(&mut fields, image.is_none(), &mut task, notes);
    let user = fields.text("user", notes).or_else(|| common.user.clone());
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        task.insert("user".into(), json!(user));
    }
    let ports =
        ports::mappings(fields.objects("endpoints", notes), common.network, port_names, notes);
    let mut environment = common.told.clone();
    environment.extend(ports.environment.iter().map(|(key, value)| (key.clone(), json!(value))));
    environment.extend(common.environment.clone());
    environment::own(fields.object("environment", notes), &mut environment, notes);
    task.insert("environment".into(), Value::Object(environment));
    task.insert("legacy_environment".into(), json!("marathon"));
    if !ports.entries.is_empty() {
        task.insert("ports".into(), Value::Object(ports.entries.clone()));
    }
    let mut amounts = Amounts { cpus: Some(0.1), mem: Some(32.0), ..Amounts::default() };
    let path = fields.at("resources");
    if let Some(mut inner) = fields.object("resources", notes) {
        amounts.cpus = inner.number("cpus", notes).or(amounts.cpus);
        amounts.mem = inner.number("mem", notes).or(amounts.mem);
        amounts.disk = inner.number("disk", notes);
        amounts.gpus = inner.whole("gpus", notes);
        inner.finish(notes);
    }
    let at = |key: &str| format!("{path}.{key}");
    task.insert("resources".into(), amounts.entry(at, notes));
    if let Some(mut limits) = fields.object("resourceLimits", notes) {
        for key in ["cpus", "mem"] {
            let why = "what is reserved is also the most that a task gets";
            limits.lose(key, notes, why, "raise resources in the job to the limit");
        }
        limits.finish(notes);
    }
    mounts(&mut fields, common, image.is_none(), &mut task, draft, notes);
    give_sandbox(&mut task, image.is_none(), notes);
    let mut grace = 0.0;
    if let Some(check) = fields.object("healthCheck", notes) {
        let (check, wait) = checks::of_pod(check, &ports, notes);
        grace = wait;
        if let Some(check) = check {
            task.insert("healthcheck".into(), check);
        }
    }
    let why = "it only told how the task is, and nothing followed from it";
    fields.lose("check", notes, why, "write it under readiness");
    container::fetch(fields.objects("artifacts", notes), notes);
    if let Some(mut lifecycle) = fields.object("lifecycle", notes) {
        if let Some(grace) = lifecycle.number("killGracePeriodSeconds", notes) {
            task.insert("stop_grace_period".into(), duration(grace.min(86_400.0)));
        }
        lifecycle.finish(notes);
    }
    let own = labels(&mut fields, "labels", notes);
    if !own.is_empty() {
        task.insert("labels".into(), Value::Object(own));
    }
    fields.lose("tty", notes, "tasks get no terminal", "`orch exec -it` gives one to a command");
    fields.lose(
        "linuxInfo",
        notes,
        "seccomp, IPC and shared memory are the engine's",
        "set them there",
    );
    fields.finish(notes);
    let fixed = ports.fixed();
    Made { name, task, order: ports.order, slots: ports.slots.len(), fixed, grace }
}

fn command(fields: &mut Fields, process: bool, task: &mut Map<String, Value>, notes: &mut Notes) {
    let path = fields.at("exec");
    let mut words = Vec::new();
    let mut shell = None;
    let mut in_place = false;
    if let Some(mut exec) = fields.object("exec", notes) {
        in_place = exec.truth("overrideEntrypoint", notes).unwrap_or(false);
        if let Some(mut command) = exec.object("command", notes) {
            shell = command.text("shell", notes);
            words = command.texts("argv", notes);
            command.finish(notes);
        }
        exec.finish(notes);
    }
    match (shell, process) {
        (Some(text), true) => {
            task.insert("command".into(), json!(["/bin/sh", "-c", text]));
        }
        (Some(text), false) => {
            task.insert("entrypoint".into(), json!(["/bin/sh"]));
            task.insert("command".into(), json!(["-c", text]));
        }
        (None, false) if in_place && !words.is_empty() => {
            task.insert("entrypoint".into(), json!([words.remove(0)]));
            task.insert("command".into(), json!(words));
        }
        (None, _) if !words.is_empty() => {
            task.insert("command".into(), json!(words));
        }
        (None, true) => {
            let why = "the container has neither an image nor a command";
            notes.blocked(&path, "", why, "write one of them at the source");
        }
        (None, false) => {}
    }
}

fn mounts(
    fields: &mut Fields,
    common: &Common,
    process: bool,
    task: &mut Map<String, Value>,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    let mut entries = Vec::new();
    for mut mount in fields.objects("volumeMounts", notes) {
        let path = mount.at("name");
        let name = mount.text("name", notes).unwrap_or_default();
        let inside = mount.text("mountPath", notes).unwrap_or_default();
        let read_only = mount.truth("readOnly", notes).unwrap_or(false);
        mount.finish(notes);
        let target = if inside.starts_with('/') { inside } else { format!("{SANDBOX}/{inside}") };
        if process {
            let why = "a process of the host sees the host's own files, and has no volumes";
            notes.essential(&path, format!("{name} as {target}"), why, "name an image");
            continue;
        }
        let mut entry = match common.volumes.get(&name) {
            Some(Source::Host(host)) => {
                draft.roots.push(host.clone());
                json!({ "type": "bind", "source": host, "target": target })
            }
            Some(Source::Named(volume)) => {
                json!({ "type": "volume", "source": volume, "target": target })
            }
            Some(Source::Ephemeral) => {
                let why = "it is held in memory, and counts as the task's memory";
                notes.adapted(&path, name, why, "name a path of the host if it holds much");
                json!({ "type": "tmpfs", "target": target })
            }
            Some(Source::Gone) => continue,
            None => {
                let why = "the pod has no volume of that name";
                notes.essential(&path, name, why, "name it under volumes");
                continue;
            }
        };
        if read_only {
            entry["read_only"] = json!(true);
        }
        entries.push(entry);
    }
    if !entries.is_empty() {
        task.insert("volumes".into(), Value::Array(entries));
    }
}

fn scheduling(
    fields: &mut Fields,
    here: Circumstances,
    local: bool,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    let mut placement = Placement::default();
    let mut strategy = None;
    let (mut backoff, mut factor, mut longest) = (None, None, None);
    if let Some(mut scheduling) = fields.object("scheduling", notes) {
        if let Some(mut inner) = scheduling.object("backoff", notes) {
            backoff = inner.number("backoff", notes);
            let path = inner.at("backoffFactor");
            factor = inner.number("backoffFactor", notes).map(|factor| (factor, path));
            longest = inner.number("maxLaunchDelay", notes);
            inner.finish(notes);
        }
        strategy = scheduling.object("upgrade", notes);
        if let Some(mut inner) = scheduling.object("placement", notes) {
            placement.constraints(inner.list("constraints", notes), notes);
            rest(&mut inner, notes);
            inner.finish(notes);
        }
        let unreachable = scheduling.take("unreachableStrategy");
        let path = scheduling.at("unreachableStrategy");
        let disconnect = policy::disconnect(unreachable.map(|value| (path, value)), notes);
        if let Some(disconnect) = disconnect {
            draft.rules.insert("disconnect".into(), disconnect);
        }
        rest(&mut scheduling, notes);
        scheduling.finish(notes);
    }
    if local {
        placement.at_most(1);
    }
    if let Some(placement) = placement.entry() {
        draft.rules.insert("placement".into(), placement);
    }
    draft.rules.insert("reschedule".into(), policy::reschedule(backoff, factor, longest, notes));
    if let Some(update) = policy::update(strategy, here, notes) {
        draft.rules.insert("update".into(), update);
    }
}

impl Fields {
    /// Whether a container of a pod mounts a volume.
    fn mounts(&self, volume: &str) -> bool {
        let mounts = self.peek("volumeMounts").and_then(Value::as_array);
        mounts.into_iter().flatten().any(|mount| mount["name"] == volume)
    }
}
