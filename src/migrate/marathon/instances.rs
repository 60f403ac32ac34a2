//! Running tasks, as they are stored and shown.

use serde_json::Value;

use super::storage::Instance;
use crate::marathon::messages::{MarathonTask, marathon_task::Status};
use crate::marathon::path_of;

/// The app of a task or instance: everything before the last parts, `_` between its own.
///
/// `shop_web.instance-UUID`, `shop_web.UUID`, `shop_web.instance-UUID._app.1`.
pub(super) fn app_of(id: &str) -> Option<String> {
    let id = match id.find("._app").or_else(|| id.find(".$")) {
        Some(end) => &id[..end],
        None => id,
    };
    let (path, unique) = id.rsplit_once('.')?;
    (!path.is_empty() && !unique.is_empty()).then(|| path_of(path))
}

/// The tasks of a stored instance that run.
pub(super) fn of_instance(json: &Value) -> Vec<Instance> {
    let id = json.pointer("/instanceId/idString").and_then(Value::as_str).unwrap_or_default();
    let host = json.pointer("/agentInfo/host").and_then(Value::as_str).unwrap_or_default();
    let goal = json.pointer("/state/goal").and_then(Value::as_str);
    let Some(tasks) = json.get("tasksMap").and_then(Value::as_object) else { return Vec::new() };
    if goal.is_some_and(|goal| goal != "Running") {
        return Vec::new();
    }
    let Some(app) = app_of(id) else { return Vec::new() };
    let running = tasks.iter().filter(|(_, task)| {
        let condition = task.pointer("/status/condition");
        let inner = condition.and_then(|condition| condition.get("str")).or(condition);
        inner.and_then(Value::as_str) == Some("Running")
    });
    running
        .map(|(task_id, task)| {
            let network = task.pointer("/status/networkInfo");
            let name = network.and_then(|network| network.get("hostName")).and_then(Value::as_str);
            let host = if host.is_empty() { name.unwrap_or_default() } else { host };
            Instance {
                task_id: task_id.clone(),
                id: app.clone(),
                host: host.to_owned(),
                ports: numbers(network.and_then(|network| network.get("hostPorts"))),
            }
        })
        .collect()
}

/// A task as 1.4 and earlier store it; none if it does not run.
pub(super) fn of_task(task: &MarathonTask) -> Option<Instance> {
    let runs = match task.marathon_task_status {
        Some(_) => task.marathon_task_status() == Status::Running,
        None => task.started_at.is_some(),
    };
    let id = app_of(&task.id).filter(|_| runs)?;
    let ports = task.ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    Some(Instance { task_id: task.id.clone(), id, host: task.host().to_owned(), ports })
}

/// A task of `/v2/tasks`, or of an app's `tasks`; none if it does not run.
pub(super) fn of_shown(json: &Value) -> Option<Instance> {
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let runs = match text("state") {
        Some(state) => state == "TASK_RUNNING",
        // Before 1.3 there was no state.
        None => text("startedAt").is_some(),
    };
    let task_id = text("id").filter(|_| runs)?;
    let id = text("appId").map(str::to_owned).or_else(|| app_of(task_id))?;
    Some(Instance {
        task_id: task_id.to_owned(),
        id,
        host: text("host").unwrap_or_default().to_owned(),
        ports: numbers(json.get("ports")),
    })
}

fn numbers(list: Option<&Value>) -> Vec<u16> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_u64).filter_map(|port| u16::try_from(port).ok()).collect()
}
