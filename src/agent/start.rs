//! One start of a task: the image is fetched if need be, and not too many begin at once.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::converge;
use super::keeper::Event;
use super::order::TaskOrder;
use super::runtime::{Runtime, RuntimeError};
use crate::model::job::{PullPolicy, TaskRuntime};

/// Carries out one start.
pub(super) struct Start {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) order: TaskOrder,
    pub(super) starts: Arc<Semaphore>,
    pub(super) call: CancellationToken,
    pub(super) events: mpsc::Sender<Event>,
}

impl Start {
    /// Starts the task, in its ended container if that may be used again; returns its handle.
    pub(super) async fn carry_out(&self, reuse: Option<&str>) -> Result<String, RuntimeError> {
        let policy = match &self.order.spec.runtime {
            TaskRuntime::Docker { pull, .. } => *pull,
            TaskRuntime::Process => PullPolicy::Never,
        };
        // An image that is new needs a container that is new.
        let reuse = reuse.filter(|_| policy != PullPolicy::Always);
        if policy == PullPolicy::Always {
            self.pull().await?;
        }
        match self.start(reuse).await {
            // Asking first would cost a call for each start.
            Err(RuntimeError::ImageMissing(_)) if policy == PullPolicy::Missing => {
                self.pull().await?;
                self.start(None).await
            }
            Err(RuntimeError::ImageMissing(text)) if policy == PullPolicy::Never => {
                Err(RuntimeError::Failed(match &self.order.spec.runtime {
                    TaskRuntime::Docker { image, .. } => {
                        format!("image {image} is not on this node, and its pull_policy is never")
                    }
                    TaskRuntime::Process => text,
                }))
            }
            other => other,
        }
    }

    async fn start(&self, reuse: Option<&str>) -> Result<String, RuntimeError> {
        let permit = tokio::select! {
            permit = self.starts.acquire() => permit,
            () = self.call.cancelled() => return Err(RuntimeError::Cancelled),
        };
        let started = self.runtime.start(&self.order, reuse).await;
        drop(permit);
        started
    }

    async fn pull(&self) -> Result<(), RuntimeError> {
        let key = self.order.key.clone();
        let _ = self.events.send(Event::Work(converge::Event::Pulling { key })).await;
        tokio::select! {
            pulled = self.runtime.pull(&self.order) => pulled,
            () = self.call.cancelled() => Err(RuntimeError::Cancelled),
        }
    }
}
