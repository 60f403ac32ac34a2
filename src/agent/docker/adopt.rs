//! Containers that run under Mesos. Marathon gives each its task's id, as a label and as a variable.

use std::collections::{BTreeMap, BTreeSet};

use bollard::Docker as Engine;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, PortSummaryTypeEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::engine::error;
use crate::agent::runtime::RuntimeError;
use crate::rpc::v1::{FoundContainer, FoundPort};

/// The label and the variable.
pub(super) const LABEL: &str = "MESOS_TASK_ID";
/// What the names of Mesos' containers begin with.
const NAME: &str = "mesos-";
/// Containers without the label that are asked for the variable.
const ASKED_MAX: usize = 256;

/// Those of the tasks that run. One call to the engine; where the label is missing, as old
/// versions of Mesos leave it, one more for each container that is named like theirs.
pub(super) async fn find(
    engine: &Engine,
    tasks: &[String],
) -> Result<Vec<FoundContainer>, RuntimeError> {
    let mut wanted: BTreeSet<String> = tasks.iter().cloned().collect();
    let mut found = Vec::new();
    for summary in list(engine, "label", LABEL).await? {
        let task = summary.labels.as_ref().and_then(|labels| labels.get(LABEL)).cloned();
        if let Some(task) = task.filter(|task| wanted.remove(task)) {
            found.extend(container(task, summary));
        }
    }
    if wanted.is_empty() {
        return Ok(found);
    }
    let unlabelled = list(engine, "name", NAME).await?.into_iter().filter(|summary| {
        !summary.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
    });
    for summary in unlabelled.take(ASKED_MAX) {
        let Some(id) = &summary.id else { continue };
        let Ok(whole) = engine.inspect_container(id, None).await else { continue };
        let variables = whole.config.and_then(|config| config.env).unwrap_or_default();
        let task = variables.iter().find_map(|line| line.strip_prefix(LABEL)?.strip_prefix('='));
        if let Some(task) = task.filter(|task| wanted.remove(*task)) {
            found.extend(container(task.to_owned(), summary));
        }
    }
    Ok(found)
}

async fn list(
    engine: &Engine,
    key: &str,
    value: &str,
) -> Result<Vec<ContainerSummary>, RuntimeError> {
    let filters = BTreeMap::from([(key.to_owned(), vec![value.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().filters(&filters.into_iter().collect());
    engine.list_containers(Some(options.build())).await.map_err(error)
}

fn container(mesos_task: String, summary: ContainerSummary) -> Option<FoundContainer> {
    if summary.state != Some(ContainerSummaryStateEnum::RUNNING) {
        return None;
    }
    let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        Some(FoundPort {
            inside: u32::from(port.private_port),
            host: u32::from(port.public_port?),
            udp: port.typ == Some(PortSummaryTypeEnum::UDP),
        })
    });
    Some(FoundContainer {
        mesos_task,
        id: summary.id?,
        image: summary.image.unwrap_or_default(),
        ports: ports.collect(),
    })
}
