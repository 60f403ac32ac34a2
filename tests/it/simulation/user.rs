//! A user who never rests: new versions, good and bad, with all strategies, more and fewer
//! replicas, drains, moves, rollbacks.

use std::sync::Arc;
use std::time::Duration;

use orch::clock;
use orch::consensus::virtual_time::sleep;
use orch::model::allocation::StopReason;
use orch::model::job::{
    DisconnectPolicy, JobKind, JobSpec, PortSpec, Promotion, Protocol, ReschedulePolicy,
    TaskRuntime, TaskSpec, UpdateOrder, UpdatePolicy, UpdateStrategy,
};
use orch::model::name::JobId;
use orch::model::resources::ResourceRequest;
use orch::model::time::Millis;
use orch::state::{AllocMove, Command, State};

use super::hosts::{HOSTS, host_name};
use super::planning::seen_by_leader;
use super::rollouts::{BAD, Cluster};

pub const JOBS: u64 = 4;

fn below(bound: u64) -> u64 {
    clock::random() % bound
}

pub fn job_id(job: u64) -> JobId {
    format!("web{job}").parse().unwrap()
}

fn seconds(bound: u64) -> Millis {
    Millis(below(bound * 1000))
}

fn update() -> UpdatePolicy {
    let promote = Promotion::After(seconds(8));
    UpdatePolicy {
        strategy: match below(5) {
            0 => UpdateStrategy::Canary { count: 1 + below(2) as u32, promote },
            1 => UpdateStrategy::BlueGreen { promote, keep_old: seconds(5) },
            _ => UpdateStrategy::Rolling,
        },
        max_parallel: 1 + below(3) as u32,
        min_healthy: seconds(3),
        order: match below(4) {
            0 => None,
            1 => Some(UpdateOrder::StopFirst),
            _ => Some(UpdateOrder::StartFirst),
        },
        deadline: Millis::from_secs(20 + below(40)),
        auto_revert: below(5) > 0,
    }
}

/// A version that does, or one that fails.
pub fn version(job: u64, good: bool) -> Command {
    // The last job's port is fixed: no two of its replicas fit on one node.
    let fixed = job == JOBS - 1;
    let replicas = 1 + below(if fixed { 3 } else { 5 }) as u32;
    let name = job_id(job).name;
    let word = if good { "serve" } else { BAD };
    let task = TaskSpec {
        command: vec![word.to_owned(), below(1000).to_string()],
        ports: vec![PortSpec {
            name: "http".parse().unwrap(),
            container: None,
            host: fixed.then_some(8080),
            protocol: Protocol::Tcp,
        }],
        resources: ResourceRequest {
            cpu_milli: Some(400),
            memory: Some(256 << 20),
            ..ResourceRequest::default()
        },
        ..TaskSpec::new("main".parse().unwrap(), TaskRuntime::Process)
    };
    let spec = JobSpec {
        update: update(),
        reschedule: ReschedulePolicy {
            delay_min: Millis(500),
            delay_max: Millis::from_secs(8),
            ..ReschedulePolicy::default()
        },
        disconnect: DisconnectPolicy {
            replace_after: if below(3) == 0 { seconds(10) } else { Millis(0) },
            stop_after: None,
        },
        ..JobSpec::new(name, JobKind::Service { replicas }, vec![task])
    };
    Command::SubmitJob { spec: Arc::new(spec), if_version: None }
}

impl Cluster {
    /// Acts until it is calm.
    pub async fn user(self) {
        for job in 0..JOBS {
            self.ask(version(job, true)).await;
        }
        while !self.is_calm() {
            sleep(Duration::from_millis(300 + below(6000))).await;
            let Some(state) = seen_by_leader(&self) else { continue };
            if let Some(command) = wish(&state) {
                self.ask(command).await;
            }
        }
    }

    /// Asks until somebody answers; a repeat does no harm.
    pub async fn ask(&self, command: Command) {
        loop {
            if let Some(leader) = self.leader()
                && self.propose(&leader, vec![command.clone()]).await.is_ok()
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn wish(state: &State) -> Option<Command> {
    let number = below(JOBS);
    let job = job_id(number);
    let node = host_name(below(HOSTS));
    Some(match below(16) {
        0..6 => version(number, below(4) > 0),
        6 | 7 => Command::ScaleJob {
            job,
            replicas: 1 + below(if number == JOBS - 1 { 3 } else { 5 }) as u32,
        },
        8 | 9 => {
            let deadline = (below(2) == 0).then(|| seconds(20));
            Command::DrainNode { node, deadline }
        }
        10..12 => Command::SetEligibility { node, eligible: true },
        12 => {
            let wanted: Vec<_> = state.allocs().filter(|alloc| alloc.wanted()).collect();
            let alloc = wanted.get(below(wanted.len().max(1) as u64) as usize)?.id;
            let reason = if below(2) == 0 { StopReason::Moved } else { StopReason::Rebalanced };
            Command::MoveAllocs { moves: vec![AllocMove { alloc, reason, to: None }] }
        }
        13 => Command::RestartJob { job },
        14 => Command::RollbackJob { job, to: None },
        _ => {
            let deployment = *state.job(&job)?.deployments.last()?;
            match below(3) {
                0 => Command::PromoteDeployment { deployment },
                1 => Command::PauseDeployment { deployment, paused: below(2) == 0 },
                _ => Command::FailDeployment {
                    deployment,
                    reason: "aborted".to_owned(),
                    revert: below(2) == 0,
                },
            }
        }
    })
}
