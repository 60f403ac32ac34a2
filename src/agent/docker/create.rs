//! Containers: made, started, removed; and the images they are made of.

use std::path::PathBuf;

use bollard::Docker as Engine;
use bollard::auth::DockerCredentials;
use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType,
    PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures::StreamExt as _;

use super::engine::{
    LABEL_ALLOC, LABEL_CLUSTER, LABEL_GENERATION, LABEL_JOB, LABEL_NODE, LABEL_TASK, error,
};
use crate::agent::order::TaskOrder;
use crate::agent::runtime::RuntimeError;
use crate::agent::volumes::checked_path;
use crate::model::job::{TaskRuntime, VolumeSource};

/// Rotation of a container's log.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "3";
/// Bytes of a registry's own words that are shown.
const PULL_CAUSE_SHOWN: usize = 120;

/// Makes the task's container and starts it.
///
/// Two calls to the engine when all is well; a name that an earlier container of the same task
/// has is freed first.
pub(super) async fn start(
    engine: &Engine,
    order: &TaskOrder,
    volume_roots: &[PathBuf],
) -> Result<String, RuntimeError> {
    let name = order.container_name();
    let body = body(order, volume_roots)?;
    let options = || Some(CreateContainerOptionsBuilder::new().name(&name).build());
    let created = match engine.create_container(options(), body.clone()).await {
        Err(e) if is_conflict(&e) && is_own(engine, &name, order).await? => {
            remove(engine, &name).await?;
            engine.create_container(options(), body).await
        }
        other => other,
    };
    let id = created.map_err(error)?.id;
    match engine.start_container(&id, None).await.map_err(error) {
        Ok(()) => Ok(id),
        Err(failed) => {
            // What can't be started is of no use, and holds its name and perhaps its ports.
            let _ = remove(engine, &id).await;
            Err(match failed {
                // The engine says 404 as well when the command is not in the image.
                RuntimeError::NotFound(text) | RuntimeError::ImageMissing(text) => {
                    RuntimeError::Failed(text)
                }
                other => other,
            })
        }
    }
}

/// Removes a container, running or not, with its anonymous volumes.
pub(super) async fn remove(engine: &Engine, container: &str) -> Result<(), RuntimeError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match engine.remove_container(container, Some(options)).await {
        // Another removal is on its way.
        Err(e) if is_conflict(&e) => Ok(()),
        other => other.map_err(error),
    }
}

/// Whether the container of that name belongs to the task.
async fn is_own(engine: &Engine, name: &str, order: &TaskOrder) -> Result<bool, RuntimeError> {
    let found = engine.inspect_container(name, None).await.map_err(error)?;
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let same = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    Ok(same(LABEL_CLUSTER, &order.owner.cluster_label())
        && same(LABEL_NODE, order.owner.node.as_str())
        && same(LABEL_ALLOC, &order.key.alloc.to_string())
        && same(LABEL_TASK, order.key.task.as_str()))
}

fn is_conflict(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError;
    matches!(error, DockerResponseServerError { status_code: 409, .. })
}

/// Fetches the task's image.
pub(super) async fn pull(engine: &Engine, order: &TaskOrder) -> Result<(), RuntimeError> {
    let TaskRuntime::Docker { image, registry, .. } = &order.spec.runtime else {
        return Err(RuntimeError::Failed("the task has no image".to_owned()));
    };
    // Without a tag the engine would fetch all of them.
    let reference =
        if has_tag_or_digest(image) { image.clone() } else { format!("{image}:latest") };
    let credentials = registry.as_ref().map(|auth| DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.clone()),
        serveraddress: Some(registry_of(image).to_owned()),
        ..DockerCredentials::default()
    });
    let options = CreateImageOptionsBuilder::new().from_image(&reference).build();
    let mut progress = std::pin::pin!(engine.create_image(Some(options), None, credentials));
    let failed = |text: String| RuntimeError::Failed(pull_problem(&reference, &text));
    while let Some(step) = progress.next().await {
        match step {
            Ok(info) => {
                if let Some(message) = info.error_detail.and_then(|detail| detail.message) {
                    return Err(failed(message));
                }
            }
            Err(e) => {
                // A registry that gives no answer is the image's fault, not the engine's; that the
                // engine itself is gone shows elsewhere.
                return Err(failed(error(e).to_string()));
            }
        }
    }
    Ok(())
}

/// Why an image could not be fetched, in one sentence. Engines and registries have many words for
/// the same few reasons, and no codes that would tell them apart.
fn pull_problem(image: &str, text: &str) -> String {
    const REASONS: [(&[&str], &str); 6] = [
        (&["no matching manifest"], "has no variant for this node's architecture"),
        (
            &["manifest unknown", "name unknown", "not found: manifest", "manifest for "],
            "does not exist in its registry; check its name and tag",
        ),
        (
            &["no basic auth", "unauthorized", "denied", "authentication required"],
            "is not open to this node; check its name, or give credentials under registry",
        ),
        (&["toomanyrequests", "too many requests"], "is over its registry's rate limit"),
        (&["no space left"], "does not fit on this node's disk"),
        (
            &[
                "no such host",
                "connection refused",
                "i/o timeout",
                "timeout exceeded",
                "deadline exceeded",
                "unreachable",
                "dial tcp",
                "lookup ",
            ],
            "can't be fetched: its registry does not answer",
        ),
    ];
    let lower = text.to_ascii_lowercase();
    let known = REASONS.iter().find(|(marks, _)| marks.iter().any(|mark| lower.contains(mark)));
    // What comes last is closest to the cause.
    let cause = text.rsplit(": ").next().unwrap_or(text).trim();
    let shown = &cause[..cause.floor_char_boundary(PULL_CAUSE_SHOWN)];
    match known {
        Some((_, reason)) => format!("image {image} {reason} ({shown})"),
        None => {
            let text = text.trim();
            format!("image {image}: {}", &text[..text.floor_char_boundary(2 * PULL_CAUSE_SHOWN)])
        }
    }
}

fn has_tag_or_digest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    image.contains('@') || name.contains(':')
}

/// The registry an image comes from, as the engine names it.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "https://index.docker.io/v1/",
    }
}

fn body(order: &TaskOrder, roots: &[PathBuf]) -> Result<ContainerCreateBody, RuntimeError> {
    let spec = &order.spec;
    let TaskRuntime::Docker { image, .. } = &spec.runtime else {
        return Err(RuntimeError::Failed("the task has no image".to_owned()));
    };
    let list = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let amount = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let port = |port: &crate::agent::order::Published| format!("{}/{}", port.inside, port.protocol);
    let bindings = order.ports.iter().map(|published| {
        let binding = PortBinding {
            host_ip: Some(order.bind_address.to_string()),
            host_port: Some(published.host.to_string()),
        };
        (port(published), Some(vec![binding]))
    });
    let gpus = (!order.gpus.is_empty()).then(|| {
        vec![DeviceRequest {
            driver: Some(String::new()),
            device_ids: Some(order.gpus.iter().map(u32::to_string).collect()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]
    });
    let rotation = [("max-size", LOG_FILE_SIZE), ("max-file", LOG_FILES)];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let memory = spec.resources.memory.map(amount);
    let host = HostConfig {
        memory,
        // The same for memory and swap together: no swap, so that the limit is one.
        memory_swap: memory,
        // The kernel takes no limit below a hundredth of a core.
        nano_cpus: spec.resources.cpu_milli.map(|m| amount(m.max(10).saturating_mul(1_000_000))),
        device_requests: gpus,
        port_bindings: Some(bindings.collect()),
        mounts: Some(mounts(order, roots)?),
        cap_add: list(&spec.cap_add),
        cap_drop: list(&spec.cap_drop),
        readonly_rootfs: Some(spec.read_only),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(rotation.into_iter().map(owned).collect()),
        }),
        ..HostConfig::default()
    };
    let own_labels = [
        (LABEL_CLUSTER, order.owner.cluster_label()),
        (LABEL_NODE, order.owner.node.to_string()),
        (LABEL_ALLOC, order.key.alloc.to_string()),
        (LABEL_TASK, order.key.task.to_string()),
        (LABEL_GENERATION, order.generation.to_string()),
        (LABEL_JOB, order.job.to_string()),
    ];
    let labels = spec
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(own_labels.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(ContainerCreateBody {
        image: Some(image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: list(&spec.command),
        env: Some(order.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(labels.collect()),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        stop_signal: spec.stop_signal.clone(),
        // For whoever stops it by hand.
        stop_timeout: Some(amount(spec.stop_grace.0.div_ceil(1000))),
        exposed_ports: Some(order.ports.iter().map(port).collect()),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn mounts(order: &TaskOrder, roots: &[PathBuf]) -> Result<Vec<Mount>, RuntimeError> {
    let mount = |volume: &crate::model::job::VolumeMount| {
        let (typ, source) = match &volume.source {
            VolumeSource::Path(path) => {
                let real = checked_path(path, roots).map_err(RuntimeError::Failed)?;
                (MountType::BIND, Some(real.display().to_string()))
            }
            VolumeSource::Named(name) => (MountType::VOLUME, Some(name.clone())),
            VolumeSource::Tmpfs => (MountType::TMPFS, None),
        };
        Ok(Mount {
            target: Some(volume.target.clone()),
            source,
            typ: Some(typ),
            read_only: Some(volume.read_only),
            ..Mount::default()
        })
    };
    order.spec.volumes.iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_image_could_not_be_fetched_is_said_shortly() {
        for (text, said) in [
            (
                "manifest for localhost:5000/a:1 not found: manifest unknown: manifest unknown",
                "image a:1 does not exist in its registry; check its name and tag (manifest \
                 unknown)",
            ),
            (
                "Get \"https://r.example.com/v2/\": dial tcp: lookup r.example.com on 10.0.0.2:53: \
                 no such host",
                "image a:1 can't be fetched: its registry does not answer (no such host)",
            ),
            (
                "pull access denied for a, repository does not exist or may require 'docker \
                 login': denied: requested access to the resource is denied",
                "image a:1 is not open to this node; check its name, or give credentials under \
                 registry (requested access to the resource is denied)",
            ),
            ("something new", "image a:1: something new"),
        ] {
            assert_eq!(pull_problem("a:1", text), said);
        }
        assert!(pull_problem("a:1", &"é: ".repeat(10_000)).len() < 400);
    }

    #[test]
    fn images_are_asked_for_by_tag_and_registry() {
        assert!(has_tag_or_digest("nginx:1.27"));
        assert!(has_tag_or_digest("reg.example.com:5000/a/b@sha256:0"));
        assert!(!has_tag_or_digest("reg.example.com:5000/a/b"));
        assert_eq!(registry_of("reg.example.com:5000/a/b"), "reg.example.com:5000");
        assert_eq!(registry_of("library/nginx"), "https://index.docker.io/v1/");
        assert_eq!(registry_of("nginx"), "https://index.docker.io/v1/");
    }
}
