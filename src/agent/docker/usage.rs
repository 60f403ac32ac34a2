//! What containers use: out of their control groups where those are found, otherwise from the
//! engine, which takes far longer.

use std::path::{Path, PathBuf};

use bollard::Docker as Engine;
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt as _;

use crate::agent::meter::{ROOT, Sample};
use crate::agent::order::TaskKey;
use crate::agent::runtime::RuntimeError;

/// Containers that the engine is asked about at once.
const ASKED_AT_ONCE: usize = 4;

/// What these tasks have used.
pub(super) async fn samples(
    engine: &Engine,
    tasks: &[(TaskKey, String)],
) -> Result<Vec<(TaskKey, Sample)>, RuntimeError> {
    let wanted = tasks.to_vec();
    let read = move || {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (key, handle) in wanted {
            match from_groups(&handle) {
                Some(sample) => found.push((key, sample)),
                None => missing.push((key, handle)),
            }
        }
        (found, missing)
    };
    let failed = |error: tokio::task::JoinError| RuntimeError::Failed(error.to_string());
    let (mut found, missing) = tokio::task::spawn_blocking(read).await.map_err(failed)?;
    let asked = futures::stream::iter(missing).map(|(key, handle)| async move {
        from_engine(engine, &handle).await.map(|sample| (key, sample))
    });
    let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_ONCE).collect().await;
    found.extend(answers.into_iter().flatten());
    Ok(found)
}

/// Where the engine's two drivers put a container, below a controller or the one tree there is.
fn places(above: &Path, handle: &str) -> [PathBuf; 2] {
    [above.join("docker").join(handle), above.join(format!("system.slice/docker-{handle}.scope"))]
}

fn from_groups(handle: &str) -> Option<Sample> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return places(root, handle).iter().find_map(|group| Sample::of_v2(group));
    }
    let memory = places(&root.join("memory"), handle);
    let cpuacct = places(&root.join("cpuacct"), handle);
    memory.iter().zip(&cpuacct).find_map(|(memory, cpuacct)| Sample::of_v1(memory, cpuacct))
}

async fn from_engine(engine: &Engine, handle: &str) -> Option<Sample> {
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let stats = std::pin::pin!(engine.stats(handle, Some(options))).next().await?.ok()?;
    let memory = stats.memory_stats.unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    let inactive = ["total_inactive_file", "inactive_file"];
    let inactive = inactive.iter().find_map(|name| details.get(*name).copied()).unwrap_or_default();
    Some(Sample {
        cpu: stats.cpu_stats?.cpu_usage?.total_usage?,
        memory: memory.usage.unwrap_or_default().saturating_sub(inactive),
        // The host's memory stands for none.
        memory_limit: 0,
    })
}
