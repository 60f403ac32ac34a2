//! The keys a job file may have, and advice for those it may not.

/// A key with its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Other names for it, mostly Compose's.
    pub also: &'static [&'static str],
    /// One line about it.
    pub meaning: &'static str,
}

const fn key(name: &'static str, meaning: &'static str) -> Key {
    Key { name, also: &[], meaning }
}

const fn key_also(name: &'static str, also: &'static [&'static str], meaning: &'static str) -> Key {
    Key { name, also, meaning }
}

/// Keys of a job.
pub(super) const JOB: &[Key] = &[
    key("job", "the job's name; required"),
    key("project", "the project that owns it; default if absent"),
    key("replicas", "a service: how many copies are kept up"),
    key("per", "node: a system job, one copy on every node that fits"),
    key("timeout", "a batch job: ends a run that takes longer"),
    key("completions", "a batch job: how many runs have to complete; 1 if absent"),
    key("parallelism", "a batch job: the most runs at the same time; all of them if absent"),
    key("retries", "a batch job: times that failed runs are placed anew; 0 if absent"),
    key("replicas_owner", "who else decides replicas, as an autoscaler: later runs leave it alone"),
    key("priority", "1 to 100: who is placed first when room is short; 50 if absent"),
    key("labels", "free-form marks of the job, as a map or a list of KEY=VALUE"),
    key("placement", "which nodes: require, prefer, spread, max_per_node"),
    key(
        "restart",
        "what happens when a task ends: attempts, within, delay; or no, always, on-failure:N",
    ),
    key(
        "reschedule",
        "what happens when its node has given up: attempts, within, delay from one placement to \
         the next",
    ),
    key(
        "update",
        "how a new version replaces the old one: strategy, max_parallel, min_healthy, order, \
         deadline, auto_revert",
    ),
    key(
        "disconnect",
        "what happens while its node and the servers don't hear each other: replace_after, \
         stop_after",
    ),
    key("shutdown_delay", "from leaving the endpoints to the stop signal; 2s if absent"),
    key("tasks", "a map from name to task; for one task its keys may stand beside job instead"),
];

/// Keys of a task. They may also stand at the top of a job with one task, except `labels`, which
/// are the job's there.
pub(super) const TASK: &[Key] = &[
    key("image", "the container's image; without it the task is a process of the host"),
    key("entrypoint", "replaces the image's entry point: a list, or a text split as a shell does"),
    key("command", "the command: a list, or a text split as a shell does"),
    key("args", "a list of words that follow the command"),
    key("environment", "environment variables, as a map or a list of KEY=VALUE"),
    key(
        "ports",
        "a map from name to port: 80, \"8080:80\", auto, or { container, host, protocol }; in \
         Compose's list form the names are port-80, port-53-udp",
    ),
    key("resources", "what it needs and may use: cpu, memory, disk, gpu"),
    key("mem_limit", "Compose's name for resources.memory"),
    key("cpus", "Compose's name for resources.cpu"),
    key(
        "volumes",
        "a list of \"/host:/in:ro\", \"name:/in\", or { type, source, target, read_only }",
    ),
    key("tmpfs", "a path, or a list of paths, held in memory"),
    key("user", "who it runs as: name, uid or uid:gid"),
    key("working_dir", "the directory it starts in"),
    key("stop_signal", "the signal that asks it to end: SIGTERM if absent"),
    key_also(
        "stop_grace_period",
        &["stop_grace"],
        "time from that signal to the kill; 10s if absent",
    ),
    key("cap_add", "Linux capabilities it gets beyond the usual ones"),
    key("cap_drop", "Linux capabilities taken from it; ALL takes all"),
    key("read_only", "true: its root file system can't be written"),
    key("pull_policy", "when the image is pulled: missing, always or never"),
    key("registry", "credentials for the image's registry: username, password"),
    key(
        "healthcheck",
        "whether it is alive, else it is restarted: http, tcp, grpc, command or Compose's test; \
         interval, timeout, retries, successes, start_period",
    ),
    key(
        "readiness",
        "whether it can take traffic, else it leaves the endpoints: as healthcheck; as healthy as \
         it is if absent",
    ),
    key("labels", "free-form marks of the container, as a map or a list of KEY=VALUE"),
    key(
        "legacy_environment",
        "marathon: the variables that Marathon set are there too: PORT0, PORTS, MESOS_TASK_ID; \
         PORT and PORT_<NAME> are ports of the host",
    ),
];

/// Keys of a port.
pub(super) const PORT: &[Key] = &[
    key_also("container", &["target"], "port inside the container; 0: the same as on the host"),
    key_also("host", &["published"], "port on the host; chosen if absent"),
    key("protocol", "tcp or udp"),
    key("name", "in the list form: the port's name"),
    key("mode", "in the list form: host"),
];

/// Keys of `resources`.
pub(super) const RESOURCES: &[Key] = &[
    key_also("cpu", &["cpus"], "cores: 0.5 or 500m"),
    key("memory", "a size: 256Mi"),
    key("disk", "a size: 1Gi"),
    key("gpu", "whole devices"),
];

/// Keys of a volume.
pub(super) const VOLUME: &[Key] = &[
    key("type", "bind, volume or tmpfs"),
    key("source", "an absolute path of the host, or a volume's name"),
    key("target", "an absolute path inside the task"),
    key("read_only", "true: can't be written"),
];

/// Keys of `registry`.
pub(super) const REGISTRY: &[Key] = &[
    key("username", "user of the registry"),
    key("password", "password or token; never shown again"),
];

/// Keys of `healthcheck`.
pub(super) const HEALTHCHECK: &[Key] = &[
    key("http", "a path: GET must answer 200 to 399"),
    key("tcp", "a port's name: it must take a connection"),
    key("grpc", "a service's name, \"\" for the server: the gRPC health check must say SERVING"),
    key("command", "a command in the task: it must end with 0"),
    key("test", "Compose's forms: [CMD, …], [CMD-SHELL, …], a text for the shell, or NONE"),
    key("disable", "true: no check"),
    key("port", "with http and grpc: the port's name; the only one if absent"),
    key("interval", "time from the end of a check to the next; 5s if absent"),
    key("timeout", "a check that takes longer has failed; 2s if absent"),
    key("retries", "failures in a row that make it fail; 3 if absent"),
    key("successes", "successes in a row that make it pass; 1 if absent"),
    key("start_period", "failures this soon after the start don't count; 0 if absent"),
];

/// Keys of `placement`.
pub(super) const PLACEMENT: &[Key] = &[
    key("require", "a list of rules that must hold: \"node.class == web\""),
    key("prefer", "a list of { rule: weight }, weights from -100 to 100"),
    key("spread", "a list of what replicas are spread over: attr.zone"),
    key("max_per_node", "the most replicas on one node"),
];

/// Keys of `restart`.
pub(super) const RESTART: &[Key] = &[
    key("attempts", "restarts before the allocation has failed; 3 if absent"),
    key("within", "time over which they are counted; 5m if absent"),
    key("delay", "wait from the second restart on: 5s, or 1s..30s to double from one to the other"),
];

/// Keys of `reschedule`.
pub(super) const RESCHEDULE: &[Key] = &[
    key("attempts", "times it is placed anew before it stays failed, or unlimited; 50 if absent"),
    key("within", "time over which they are counted; 24h if absent"),
    key("delay", "wait before each: 10s, or 5s..5m to double from one to the other"),
];

/// Keys of `disconnect`.
pub(super) const DISCONNECT: &[Key] = &[
    key("replace_after", "how long the replicas of a lost node are waited for; 0 if absent"),
    key("stop_after", "how long they run on without a server; without end if absent"),
];

/// Keys of `update`.
pub(super) const UPDATE: &[Key] = &[
    key("strategy", "rolling, canary or blue-green; rolling if absent"),
    key_also("max_parallel", &["parallelism"], "replicas replaced at the same time; 1 if absent"),
    key(
        "min_healthy",
        "how long a new one must be ready before it counts; 0 if absent, 1s without any check",
    ),
    key(
        "order",
        "start-first: the new one is ready before the old one stops; stop-first for what can't \
         be there twice",
    ),
    key("deadline", "the longest time without progress before it has failed; 5m if absent"),
    key("canary", "how many are replaced first; then strategy: canary need not be written"),
    key(
        "promote",
        "what makes a canary or second set the one that counts: manual, auto, or a duration",
    ),
    key("keep_old", "with blue-green: how long the old set is kept running; 5m if absent"),
    key("auto_revert", "whether a failure goes back to the last good version; true if absent"),
];

/// Every key of a job file by the place it belongs to, for documentation and completion.
pub const KNOWN: &[(&str, &[Key])] = &[
    ("job", JOB),
    ("task", TASK),
    ("ports", PORT),
    ("resources", RESOURCES),
    ("volumes", VOLUME),
    ("registry", REGISTRY),
    ("healthcheck", HEALTHCHECK),
    ("placement", PLACEMENT),
    ("restart", RESTART),
    ("reschedule", RESCHEDULE),
    ("disconnect", DISCONNECT),
    ("update", UPDATE),
];

const HOST_SETTING: &str = "orch leaves it to the host's Docker engine";

/// Keys of Compose that orch does not have, and what to do instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("services", "write one document per service, separated by ---, each with job: NAME"),
    ("build", "build the image first, and name it under image"),
    ("develop", "it is for development on one machine"),
    ("provider", "run it as a job of its own"),
    ("models", "run it as a job of its own"),
    ("depends_on", "put what must run together under tasks of one job, and let the others retry"),
    ("networks", "tasks reach each other through their ports"),
    ("network_mode", "tasks reach each other through their ports"),
    ("links", "tasks reach each other through their ports"),
    ("expose", "write the port under ports"),
    ("secrets", "pass it under environment"),
    ("configs", "mount it under volumes"),
    ("env_file", "write the variables under environment"),
    ("extends", "use an anchor and <<"),
    ("include", "name several files to orch run"),
    ("profiles", "put what does not always run into a file of its own"),
    ("deploy", "write replicas, resources, placement, restart and update beside job"),
    ("container_name", "containers are named by their job and replica"),
    ("hostname", "containers are named by their job and replica"),
    ("domainname", "containers are named by their job and replica"),
    ("logging", "orch logs reads what the task prints"),
    ("privileged", "name the capabilities under cap_add"),
    ("devices", "use resources.gpu, or run it as a process with command and no image"),
    ("gpus", "use resources.gpu"),
    ("init", HOST_SETTING),
    ("sysctls", HOST_SETTING),
    ("ulimits", HOST_SETTING),
    ("shm_size", HOST_SETTING),
    ("extra_hosts", HOST_SETTING),
    ("dns", HOST_SETTING),
    ("dns_search", HOST_SETTING),
    ("dns_opt", HOST_SETTING),
    ("platform", "use placement.require"),
    ("pids_limit", HOST_SETTING),
    ("security_opt", HOST_SETTING),
    ("runtime", HOST_SETTING),
    ("ipc", HOST_SETTING),
    ("pid", HOST_SETTING),
    ("cgroup", HOST_SETTING),
    ("cgroup_parent", HOST_SETTING),
    ("group_add", HOST_SETTING),
    ("tty", "orch exec -it opens a terminal"),
    ("stdin_open", "orch exec -it opens a terminal"),
    ("start_interval", "failures within start_period don't count, at the usual interval"),
    ("host_ip", "the port is opened on all of the node's addresses"),
    ("limits", "write cpu and memory under resources: they are reserved, and the limit"),
    ("reservations", "write cpu and memory under resources: they are reserved, and the limit"),
];

/// What people write at the top of a job, and what they mean.
const MEANT_OF_JOB: &[(&str, &str)] = &[
    ("name", "job"),
    ("service", "job"),
    ("id", "job"),
    ("count", "replicas"),
    ("instances", "replicas"),
    ("scale", "replicas"),
    ("namespace", "project"),
    ("mode", "per: node"),
];

/// What people write anywhere, and what they mean.
const MEANT: &[(&str, &str)] = &[
    ("env", "environment"),
    ("cmd", "command"),
    ("arguments", "args"),
    ("cpu", "resources.cpu"),
    ("mem", "resources.memory"),
    ("memory", "resources.memory"),
    ("disk", "resources.disk"),
    ("gpu", "resources.gpu"),
    ("constraints", "placement.require"),
    ("require", "placement.require"),
    ("prefer", "placement.prefer"),
    ("preferences", "placement.prefer"),
    ("spread", "placement.spread"),
    ("max_per_node", "placement.max_per_node"),
    ("max_replicas_per_node", "placement.max_per_node"),
    ("check", "healthcheck"),
    ("checks", "healthcheck"),
    ("health", "healthcheck"),
    ("healthcheck_test", "healthcheck.test"),
    ("liveness", "healthcheck"),
    ("livenessProbe", "healthcheck"),
    ("readinessProbe", "readiness"),
    ("readiness_check", "readiness"),
    ("failure_threshold", "retries"),
    ("success_threshold", "successes"),
    ("success_before_passing", "successes"),
    ("failures_before_critical", "retries"),
    ("backoff_limit", "retries"),
    ("reschedule_policy", "reschedule"),
    ("replace", "disconnect.replace_after"),
    ("lost_after", "disconnect.replace_after"),
    ("stop_on_client_after", "disconnect.stop_after"),
    ("failure_action", "auto_revert: true or false"),
    ("auto_promote", "promote: auto"),
    ("progress_deadline", "deadline"),
    ("min_healthy_time", "min_healthy"),
    ("workdir", "working_dir"),
    ("grace_period", "stop_grace_period"),
    ("kill_timeout", "stop_grace_period"),
    ("kill_signal", "stop_signal"),
    ("capabilities", "cap_add and cap_drop"),
    ("restart_policy", "restart beside job"),
    ("update_config", "update beside job"),
    ("max_attempts", "attempts"),
    ("window", "within"),
    ("monitor", "min_healthy"),
    ("pull", "pull_policy"),
    ("force_pull", "pull_policy: always"),
    ("volume", "volumes"),
    ("mounts", "volumes"),
    ("exec", "command"),
];

fn look_up(table: &[(&str, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// What to do instead of a Compose key that orch does not have.
pub(super) fn unsupported(key: &str) -> Option<&'static str> {
    look_up(UNSUPPORTED, key)
}

/// The key that is meant by another system's, where `known` are the keys.
pub(super) fn meant(key: &str, known: &[Key]) -> Option<&'static str> {
    let of_job = known.iter().any(|k| k.name == "job");
    of_job.then(|| look_up(MEANT_OF_JOB, key)).flatten().or_else(|| look_up(MEANT, key))
}
