//! Docker Swarm's side: changed with `docker service`, read over the engine's socket.

use std::time::Instant;

use serde::Deserialize;

use super::super::cluster::{POLL, WAIT};
use super::super::engine::{Socket, docker};
use super::super::error::BenchError;
use super::sides::{Copy, Service, Side};

const SERVICE: &str = "orch-bench-services";
const VERSION: &str = "BENCH_VERSION";
/// The network that the engine makes for itself when it joins a swarm, and leaves behind.
const GATEWAY: &str = "docker_gwbridge";

/// This engine's place in a swarm while it is measured.
#[derive(Debug)]
pub(super) enum Membership {
    /// It was there before.
    Found,
    /// It is ours, and goes when we are done.
    Made {
        /// The engine had that network before.
        had_gateway: bool,
    },
    /// There is none to be had.
    Refused(String),
}

impl Membership {
    /// Uses the swarm that the engine is in, or makes one of this engine alone.
    pub(super) async fn take() -> Self {
        match Self::try_take().await {
            Ok(membership) => membership,
            Err(error) => Self::Refused(error.to_string()),
        }
    }

    async fn try_take() -> Result<Self, BenchError> {
        let format = "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}";
        match docker(&["info", "--format", format]).await?.as_str() {
            "active true" => Ok(Self::Found),
            "inactive false" => {
                let had_gateway = docker(&["network", "inspect", GATEWAY]).await.is_ok();
                // Loopback: nobody else is to join.
                docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).await?;
                Ok(Self::Made { had_gateway })
            }
            state => Ok(Self::Refused(format!("this engine is no manager of a swarm: {state}"))),
        }
    }

    pub(super) fn refused(&self) -> Option<&str> {
        match self {
            Self::Refused(why) => Some(why),
            Self::Found | Self::Made { .. } => None,
        }
    }

    /// Leaves the swarm if it is ours.
    pub(super) async fn give_back(self) -> Result<(), BenchError> {
        let Self::Made { had_gateway } = self else { return Ok(()) };
        docker(&["swarm", "leave", "--force"]).await?;
        if !had_gateway {
            docker(&["network", "rm", GATEWAY]).await?;
        }
        Ok(())
    }
}

pub(super) struct Swarm {
    socket: Socket,
    image: String,
}

impl Swarm {
    pub(super) fn new(image: &str) -> Result<Self, BenchError> {
        Ok(Self { socket: Socket::new()?, image: image.to_owned() })
    }

    fn create(&self, service: Service) -> Vec<String> {
        let order = service.order.word();
        let mut args = words(&["service", "create", "--detach", "--quiet", "--no-resolve-image"]);
        args.extend(words(&["--name", SERVICE, "--stop-signal", "SIGKILL"]));
        args.extend(words(&["--limit-memory", "8m", "--reserve-memory", "8m"]));
        args.extend(words(&["--reserve-cpu", "0.02"]));
        args.extend(words(&["--update-parallelism", "1", "--update-order", order]));
        // As orch does by default; Swarm's own default is to stop half-way.
        args.extend(words(&["--update-failure-action", "rollback", "--rollback-order", order]));
        if service.checked {
            args.extend(words(&["--health-cmd", "true", "--health-interval", "1s"]));
        }
        args.extend(["--replicas".to_owned(), service.replicas.to_string()]);
        args.extend(["--env".to_owned(), format!("{VERSION}={}", service.version)]);
        args.push(self.image.clone());
        args.extend(words(service.does.command()));
        args
    }

    fn update(service: Service) -> Vec<String> {
        let mut args = words(&["service", "update", "--detach", "--quiet", "--no-resolve-image"]);
        args.extend(["--env-add".to_owned(), format!("{VERSION}={}", service.version)]);
        args.extend(["--args".to_owned(), service.does.command().join(" ")]);
        args.push(SERVICE.to_owned());
        args
    }
}

impl Side for Swarm {
    async fn submit(&self, service: Service) -> Result<u64, BenchError> {
        let args = match service.version {
            1 => self.create(service),
            _ => Self::update(service),
        };
        docker(&args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        Ok(service.version.into())
    }

    async fn copies(&self) -> Result<Vec<Copy>, BenchError> {
        let tasks: Vec<Task> = self.socket.list("/tasks", ("service", SERVICE)).await?;
        Ok(tasks.into_iter().map(copy).collect())
    }

    /// It goes back to whatever was before.
    async fn trusts(&self, _version: u64) -> Result<bool, BenchError> {
        Ok(true)
    }

    async fn takes_back(&self, _version: u64) -> Result<bool, BenchError> {
        let known: Vec<Known> = self.socket.list("/services", ("name", SERVICE)).await?;
        Ok(known.iter().any(Known::takes_back))
    }

    async fn remove(&self) -> Result<(), BenchError> {
        let filter = format!("name={SERVICE}");
        if !docker(&["service", "ls", "--quiet", "--filter", &filter]).await?.is_empty() {
            docker(&["service", "rm", SERVICE]).await?;
        }
        let begin = Instant::now();
        let label = format!("com.docker.swarm.service.name={SERVICE}");
        loop {
            let path = "/containers/json?all=true";
            let left: Vec<serde_json::Value> = self.socket.list(path, ("label", &label)).await?;
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > WAIT {
                return Err(BenchError::Slow(format!("the end of {SERVICE}"), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// What of the engine's task is needed here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task {
    #[serde(rename = "ID")]
    id: String,
    spec: TaskSpec,
    status: TaskStatus,
    desired_state: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskSpec {
    container_spec: ContainerSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerSpec {
    #[serde(default)]
    env: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskStatus {
    state: String,
    #[serde(default)]
    container_status: ContainerStatus,
}

#[derive(Debug, Default, Deserialize)]
struct ContainerStatus {
    #[serde(rename = "ContainerID", default)]
    container: String,
}

/// With a health check, Swarm calls a task running once it is healthy.
pub(super) fn copy(task: Task) -> Copy {
    let prefix = format!("{VERSION}=");
    let env = task.spec.container_spec.env;
    let version = env.iter().find_map(|pair| pair.strip_prefix(&prefix)?.parse().ok());
    let container = task.status.container_status.container;
    let state = task.status.state.as_str();
    Copy {
        run: task.id,
        container: (!container.is_empty()).then_some(container),
        version: version.unwrap_or_default(),
        ready: state == "running" && task.desired_state == "running",
        ended: matches!(
            state,
            "complete" | "failed" | "shutdown" | "rejected" | "orphaned" | "remove"
        ),
    }
}

/// What of the engine's service is needed here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Known {
    /// Absent before the first update; without a state before Swarm has looked at it.
    #[serde(default)]
    update_status: UpdateStatus,
}

#[derive(Debug, Default, Deserialize)]
struct UpdateStatus {
    #[serde(rename = "State", default)]
    state: String,
}

impl Known {
    pub(super) fn takes_back(&self) -> bool {
        self.update_status.state.starts_with("rollback_")
    }
}
