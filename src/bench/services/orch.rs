//! The cluster's side.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::error::BenchError;
use super::sides::{Copy, Order, Service, Side};
use crate::api::view::allocation::AllocationRow;

pub(super) const JOB: &str = "bench-services";

pub(super) struct Orch {
    pub(super) cluster: Cluster,
    image: String,
    /// A node that is to take work again, whatever happens.
    drained: Mutex<Option<String>>,
}

impl Orch {
    pub(super) fn new(addr: &str, image: &str) -> Result<Self, BenchError> {
        Ok(Self {
            cluster: Cluster::new(addr)?,
            image: image.to_owned(),
            drained: Mutex::default(),
        })
    }

    pub(super) fn will_drain(&self, node: &str) {
        if let Ok(mut drained) = self.drained.lock() {
            *drained = Some(node.to_owned());
        }
    }

    /// Lets work on the drained node again, if there is one.
    pub(super) async fn end_drain(&self) -> Result<(), BenchError> {
        let drained = self.drained.lock().ok().and_then(|mut drained| drained.take());
        match drained {
            Some(node) => self.cluster.make_eligible(&node).await,
            None => Ok(()),
        }
    }

    fn file(&self, service: Service) -> Value {
        let mut file = json!({
            "job": JOB,
            "replicas": service.replicas,
            "image": self.image,
            "command": service.does.command(),
            "environment": { "BENCH_VERSION": service.version.to_string() },
            // Nothing here would mind SIGTERM, and who waits for it is not what is measured.
            "stop_signal": "SIGKILL",
            "resources": { "cpu": 0.02, "memory": "8Mi" },
        });
        if let Some(fields) = file.as_object_mut() {
            if service.checked {
                let check = json!({ "command": ["true"], "interval": "1s" });
                fields.insert("healthcheck".to_owned(), check);
            }
            if service.order == Order::StopFirst {
                fields.insert("update".to_owned(), json!({ "order": service.order.word() }));
            }
        }
        file
    }
}

impl Side for Orch {
    async fn submit(&self, service: Service) -> Result<u64, BenchError> {
        self.cluster.submit(&self.file(service)).await
    }

    async fn copies(&self) -> Result<Vec<Copy>, BenchError> {
        Ok(self.cluster.copies(JOB).await?.into_iter().map(copy).collect())
    }

    async fn trusts(&self, version: u64) -> Result<bool, BenchError> {
        let deployments = self.cluster.deployments(JOB).await?;
        Ok(deployments.iter().any(|known| known.version == version && known.status == "successful"))
    }

    async fn takes_back(&self, version: u64) -> Result<bool, BenchError> {
        let deployments = self.cluster.deployments(JOB).await?;
        Ok(deployments.iter().any(|known| known.version == version && known.reverted_by.is_some()))
    }

    async fn remove(&self) -> Result<(), BenchError> {
        self.cluster.purge(JOB).await
    }
}

pub(super) fn copy(row: AllocationRow) -> Copy {
    let started = row.started_at.map(|at| format!("{at:?}")).unwrap_or_default();
    Copy {
        // A restart in place keeps the allocation's id.
        run: format!(
            "{}/{}/{started}",
            row.id.unwrap_or_default(),
            row.container_id.as_deref().unwrap_or_default()
        ),
        container: row.container_id,
        version: row.version,
        ready: row.ready && row.state == "running",
        ended: matches!(row.state.as_str(), "stopped" | "complete" | "failed" | "lost"),
    }
}
