//! `orch status` read aloud: states that are brought about command by command, told by the real
//! command line. Whoever reads one of these must understand it without the manual.

use std::collections::BTreeMap;
use std::sync::Arc;

use orch::model::allocation::{
    AllocReport, AllocStatus, Allocation, CheckResult, Health, TaskState,
};
use orch::model::deployment::DeploymentId;
use orch::model::job::{Promotion, UpdateStrategy};
use orch::model::job_file::{Format, read};
use orch::model::node::NodeState;
use orch::state::Command;

use super::{TestApi, within};

/// What an agent says of one replica.
#[derive(Clone, Default)]
pub(super) struct Word {
    pub(super) status: Option<AllocStatus>,
    pub(super) health: Health,
    pub(super) ready: bool,
    pub(super) message: String,
    pub(super) task: TaskState,
}

pub(super) fn ready() -> Word {
    Word {
        status: Some(AllocStatus::Running),
        health: Health::Healthy,
        ready: true,
        ..Word::default()
    }
}

/// It has failed after it ran.
fn crashed(restarts: u32) -> Word {
    let text = "gave up after 3 restarts within 5m: exit code 3";
    Word {
        status: Some(AllocStatus::Failed),
        message: text.into(),
        task: TaskState {
            restarts,
            exit_code: Some(3),
            error: "exit code 3".into(),
            output_tail: "panic: no configuration".into(),
            ..TaskState::default()
        },
        ..Word::default()
    }
}

/// Its image can't be had.
fn no_image() -> Word {
    let text =
        "image nope:1 does not exist in its registry; check its name and tag (manifest unknown)";
    Word {
        status: Some(AllocStatus::Failed),
        message: text.into(),
        task: TaskState { error: text.into(), ..TaskState::default() },
        ..Word::default()
    }
}

fn fails_readiness(api: &TestApi) -> Word {
    let since = api.context.clock.now();
    let answer = CheckResult { passing: false, message: "GET /health answered 503".into(), since };
    Word {
        status: Some(AllocStatus::Running),
        health: Health::Healthy,
        task: TaskState { readiness: Some(answer), ..TaskState::default() },
        ..Word::default()
    }
}

impl TestApi {
    /// Agents say this of the replicas that are meant to run; nothing where there is no word.
    pub(super) async fn say(&self, word: impl Fn(&Allocation) -> Option<Word>) {
        let state = self.state();
        for alloc in state.allocs().filter(|alloc| alloc.wanted()) {
            let Some(word) = word(alloc) else { continue };
            let spec = state.job(&alloc.job).unwrap().spec_of(alloc.version).clone();
            let mut task = word.task;
            task.started_at = task.started_at.or(Some(alloc.created_at));
            let report = AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status: word.status.unwrap_or(AllocStatus::Starting),
                health: word.health,
                ready: word.ready,
                tasks: spec.tasks.iter().map(|t| (t.name.clone(), task.clone())).collect(),
                message: word.message,
            };
            let (node, agent_id) = (alloc.node.clone(), 1);
            self.propose(Command::ReportAllocs { node, agent_id, reports: vec![report] }).await;
        }
    }

    /// Agents end what they are told to end.
    pub(super) async fn obey(&self) {
        let state = self.state();
        for alloc in state.allocs().filter(|alloc| !alloc.ended() && !alloc.wanted()) {
            let report = AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status: AllocStatus::Stopped,
                health: Health::Unknown,
                ready: false,
                tasks: BTreeMap::new(),
                message: String::new(),
            };
            let (node, agent_id) = (alloc.node.clone(), 1);
            self.propose(Command::ReportAllocs { node, agent_id, reports: vec![report] }).await;
        }
    }

    /// Planners and agents take turns until nothing changes any more.
    pub(super) async fn settle(&self, word: impl Fn(&Allocation) -> Option<Word> + Copy) {
        for _ in 0..100 {
            let before = self.state().last_event();
            self.plan().await;
            self.say(word).await;
            self.obey().await;
            if self.state().last_event() == before {
                return;
            }
        }
        panic!("it never settles: {:?}", self.state().allocs().collect::<Vec<_>>());
    }

    /// What the command line prints; ages and ports are `#`, columns one space apart.
    pub(super) async fn orch(&self, words: &str) -> String {
        let address = self.serve().await;
        let line = format!("--addr http://{address} {words}");
        let output = tokio::task::spawn_blocking(move || {
            crate::support::orch(&line.split(' ').collect::<Vec<_>>())
        });
        without_ages(&within(output).await.unwrap().ok().stdout)
    }
}

fn without_ages(text: &str) -> String {
    let age = |word: &str| {
        let bare = word.trim_end_matches([';', ',', ')']);
        let digits = bare.trim_end_matches(['s', 'm', 'h', 'd']);
        let is_age = bare.len() == digits.len() + 1 && digits.parse::<u32>().is_ok();
        match (is_age, word.rsplit_once("=127.0.0.1:")) {
            (true, _) => word.replacen(bare, "#", 1),
            (_, Some((port, _))) => format!("{port}=127.0.0.1:#"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let words: Vec<String> = line.split_whitespace().map(age).collect();
        format!("{indent}{}\n", words.join(" "))
    };
    text.lines().map(line).collect()
}

/// The text as it must be, of `tests/golden/status`.
fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/status/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A service of two replicas with an image.
fn web(image: &str, more: &str) -> String {
    format!(
        "job: web\nreplicas: 2\nimage: {image}\nports: {{ http: 80 }}\n\
         update: {{ min_healthy: 0s }}\n{more}"
    )
}

async fn cluster(nodes: &[&str]) -> TestApi {
    let api = TestApi::start().await;
    for node in nodes {
        api.node(node).await;
    }
    api
}

macro_rules! aloud {
    ($name:ident, $api:ident, $brought_about:block) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let $api = cluster(&["n1", "n2"]).await;
            $brought_about
            let said = $api.orch("status web").await;
            assert_eq!(said, golden(stringify!($name)), "\n{said}");
        }
    };
}

aloud!(a_service_that_is_well, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(ready())).await;
});

aloud!(one_that_waits_for_memory, api, {
    api.submit(&web("a:1", "resources: { memory: 5Gi }\n").replace("replicas: 2", "replicas: 3"))
        .await
        .ok();
    api.settle(|_| Some(ready())).await;
});

aloud!(one_that_is_too_large_for_any_node, api, {
    api.submit(&web("a:1", "resources: { memory: 1Ti }\n")).await.ok();
    api.settle(|_| Some(ready())).await;
});

aloud!(one_with_an_impossible_constraint, api, {
    api.submit(&web("a:1", "placement: { require: [\"attr.zone == z\"] }\n")).await.ok();
    api.settle(|_| Some(ready())).await;
});

aloud!(one_in_a_crash_loop, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(crashed(3))).await;
});

aloud!(one_whose_image_does_not_exist, api, {
    api.submit(&web("nope:1", "")).await.ok();
    api.settle(|_| Some(no_image())).await;
});

aloud!(one_that_is_not_ready, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.plan().await;
    let word = fails_readiness(&api);
    api.say(|alloc| Some(if alloc.index == 0 { ready() } else { word.clone() })).await;
});

aloud!(one_that_gave_up, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|alloc| Some(if alloc.index == 0 { ready() } else { crashed(3) })).await;
    let failed = api.state().allocs().find(|alloc| alloc.index == 1).unwrap().id;
    let why = "it failed 50 times within 1d: it ended with exit code 3".to_owned();
    api.propose(Command::GiveUpAllocs { allocs: vec![(failed, why)] }).await;
});

aloud!(one_half_way_through_an_update, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.submit(&web("a:2", "")).await.ok();
    api.plan().await;
    api.say(|alloc| (alloc.version == 1).then(ready)).await;
});

aloud!(one_that_is_held, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.submit(&web("a:2", "")).await.ok();
    api.plan().await;
    api.propose(Command::PauseDeployment { deployment: DeploymentId(2), paused: true }).await;
    api.settle(|_| Some(ready())).await;
});

aloud!(one_after_an_automatic_revert, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.submit(&web("nope:1", "")).await.ok();
    api.plan().await;
    api.say(|alloc| Some(if alloc.version == 1 { ready() } else { no_image() })).await;
    let reason = "web.0 on n1: image nope:1 does not exist".to_owned();
    let command = Command::FailDeployment { deployment: DeploymentId(2), reason, revert: true };
    api.propose(command).await;
    api.settle(|_| Some(ready())).await;
});

aloud!(one_that_was_stopped, api, {
    api.submit(&web("a:1", "")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.send("DELETE", "/v1/jobs/web", &[], "").await.ok();
    api.settle(|_| Some(ready())).await;
});

/// Submits the web service with this strategy.
async fn submit_with(api: &TestApi, image: &str, strategy: UpdateStrategy) {
    let file = web(image, "");
    let mut spec = read(&file, Format::Yaml).unwrap().remove(0);
    spec.update.strategy = strategy;
    api.propose(Command::SubmitJob { spec: Arc::new(spec), if_version: None }).await;
}

const CANARY: UpdateStrategy = UpdateStrategy::Canary { count: 1, promote: Promotion::Manual };

aloud!(one_half_way_through_a_canary, api, {
    submit_with(&api, "a:1", CANARY).await;
    api.settle(|_| Some(ready())).await;
    submit_with(&api, "a:2", CANARY).await;
    api.settle(|_| Some(ready())).await;
});

aloud!(one_whose_data_is_on_a_lost_node, api, {
    let file = web("a:1", "volumes: [\"pg:/data\"]\n").replace("replicas: 2", "replicas: 1");
    api.submit(&file).await.ok();
    api.settle(|_| Some(ready())).await;
    let node = api.state().allocs().next().unwrap().node.clone();
    let (state, reason) = (NodeState::Lost, "not heard for 10s".to_owned());
    api.propose(Command::SetNodeState { node, agent_id: 1, state, reason }).await;
});
