//! Watches a runtime: passes its notices on, and connects again when it was away.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::converge;
use super::docker::{Docker, EngineFacts};
use super::keeper::Event;
use super::link;
use super::order::Owner;
use super::runtime::{Notice, Runtime};
use crate::clock::SharedClock;
use crate::limits::AGENT_QUEUE_MAX;
use crate::model::time::Millis;

/// Notices replayed from before a runtime was (re)connected.
const WATCH_OVERLAP: Millis = Millis::from_secs(5);

/// Keeps an eye on one runtime.
#[derive(Debug)]
pub(super) struct Warden {
    events: mpsc::Sender<Event>,
    owner: watch::Receiver<Option<Owner>>,
    clock: SharedClock,
}

impl Warden {
    pub(super) fn new(
        events: &mpsc::Sender<Event>,
        owner: &watch::Receiver<Option<Owner>>,
        clock: &SharedClock,
    ) -> Self {
        Self { events: events.clone(), owner: owner.clone(), clock: clock.clone() }
    }

    /// Watches a runtime that always answers.
    pub(super) async fn keep(mut self, runtime: Arc<dyn Runtime>) {
        let mut pause = link::Backoff::new(self.clock.clone());
        loop {
            let up = Event::Up { runtime: runtime.clone(), engine: None };
            if self.events.send(up).await.is_err() {
                return;
            }
            let (runtime, message) = (runtime.word(), self.watch(runtime.as_ref()).await);
            if self.events.send(Event::Down { runtime, message }).await.is_err() {
                return;
            }
            pause.wait().await;
        }
    }

    /// Connects to the engine, watches it, and connects again.
    pub(super) async fn keep_docker(
        mut self,
        mut first: Option<(Docker, EngineFacts)>,
        socket: Option<String>,
        roots: Vec<std::path::PathBuf>,
    ) {
        let mut pause = link::Backoff::new(self.clock.clone());
        loop {
            let connected = match first.take() {
                Some(connected) => Ok(connected),
                None => Docker::connect(socket.as_deref(), roots.clone()).await,
            };
            let message = match connected {
                Ok((docker, engine)) => {
                    let up = Event::Up { runtime: Arc::new(docker.clone()), engine: Some(engine) };
                    if self.events.send(up).await.is_err() {
                        return;
                    }
                    let since = Instant::now();
                    let message = self.watch(&docker).await;
                    if since.elapsed() > link::STEADY {
                        pause.reset();
                    }
                    message
                }
                Err(error) => error.to_string(),
            };
            let down = Event::Down { runtime: "docker", message };
            if self.events.send(down).await.is_err() {
                return;
            }
            pause.wait().await;
        }
    }

    /// Passes notices on until the runtime goes away; says why it did.
    async fn watch(&mut self, runtime: &dyn Runtime) -> String {
        let owner = match self.owner.wait_for(Option::is_some).await {
            Ok(owner) => owner.clone(),
            Err(_) => return "the agent stops".to_owned(),
        };
        let Some(owner) = owner else { return String::new() };
        let since = self.clock.now() - WATCH_OVERLAP;
        let (sink, mut notices) = mpsc::channel(AGENT_QUEUE_MAX);
        let mut watching = runtime.watch(&owner, since, sink);
        loop {
            tokio::select! {
                ended = &mut watching => return match ended {
                    Ok(()) => format!("{} is gone", runtime.word()),
                    Err(error) => error.to_string(),
                },
                Some(notice) = notices.recv() => {
                    let changed = match notice {
                        Notice::Task(key) => converge::Event::Changed { key },
                        Notice::Container(handle) => converge::Event::ContainerChanged { handle },
                    };
                    if self.events.send(Event::Work(changed)).await.is_err() {
                        return "the agent stops".to_owned();
                    }
                }
                changed = self.owner.changed() => {
                    if changed.is_err() || self.owner.borrow().as_ref() != Some(&owner) {
                        return "the agent belongs to another cluster now".to_owned();
                    }
                }
            }
        }
    }
}
