//! Determinism, refusals, and the bytes that are pinned.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits::EVENTS_KEPT;
use crate::model::allocation::{AllocReport, AllocStatus, Health, StopReason, TaskState};
use crate::model::deployment::DeploymentId;
use crate::model::job::{
    HealthCheck, JobKind, JobSpec, LegacyEnvironment, Probe, Promotion, TaskRuntime, TaskSpec,
    UpdatePolicy, UpdateStrategy,
};
use crate::model::node::NodeState;
use crate::model::time::Millis;

fn spec(name: &str, kind: JobKind, command: &str) -> Arc<JobSpec> {
    let task = TaskSpec {
        command: vec![command.to_owned()],
        ..TaskSpec::new(name.parse().unwrap(), TaskRuntime::Process)
    };
    Arc::new(JobSpec::new(name.parse().unwrap(), kind, vec![task]))
}

fn service(name: &str, replicas: u32) -> Arc<JobSpec> {
    spec(name, JobKind::Service { replicas }, "serve")
}

fn id(name: &str) -> JobId {
    name.parse().unwrap()
}

fn register(name: &str) -> Command {
    Command::RegisterNode { spec: Node::example(name).spec }
}

fn place(job: &str, version: u64, index: u32, node: &str) -> Command {
    let mut placements = Placements::default();
    placements.push(Placement {
        job: id(job),
        version,
        index,
        node: node.parse().unwrap(),
        ports: Vec::new(),
        gpus: Vec::new(),
        previous: None,
    });
    Command::Place(Box::new(placements))
}

fn report(node: &str, alloc: u64, status: AllocStatus) -> Command {
    let node = Node::example(node);
    let report = AllocReport {
        id: AllocId(alloc),
        generation: u64::MAX,
        status,
        health: Health::Unknown,
        ready: false,
        tasks: BTreeMap::new(),
        message: String::new(),
    };
    Command::ReportAllocs {
        node: node.name.clone(),
        agent_id: node.agent_id,
        reports: vec![report],
    }
}

/// Applies commands one after another, one entry each.
fn run(state: &mut State, commands: impl IntoIterator<Item = Command>) -> Vec<Applied> {
    commands
        .into_iter()
        .map(|command| {
            let index = state.stamp().index + 1;
            state.apply(Stamp { index, at: Timestamp(index * 1000) }, &command.into())
        })
        .collect()
}

fn codes(applied: &[Applied]) -> Vec<Option<RejectedCode>> {
    applied.iter().map(|a| a.reply.as_ref().err().map(|rejected| rejected.code)).collect()
}

fn bytes_of(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(state, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_cluster_is_founded_once() {
    let mut state = State::default();
    run(&mut state, [7, 8].map(|cluster_id| Command::FoundCluster { cluster_id }));
    assert_eq!(state.cluster_id(), 7);
}

#[test]
fn a_job_gets_a_version_for_each_change_and_none_for_a_repeat() {
    let mut state = State::default();
    let applied = run(
        &mut state,
        [
            Command::SubmitJob { spec: service("web", 2), if_version: Some(0) },
            Command::SubmitJob { spec: service("web", 2), if_version: None },
            Command::SubmitJob { spec: service("web", 3), if_version: Some(1) },
            Command::SubmitJob { spec: service("web", 4), if_version: Some(1) },
        ],
    );
    assert_eq!(applied[1].reply, Ok(Reply::Job { version: 1, changed: false }));
    assert_eq!(applied[2].reply, Ok(Reply::Job { version: 2, changed: true }));
    assert_eq!(codes(&applied)[3], Some(RejectedCode::Conflict));
    let job = state.job(&id("web")).unwrap();
    assert_eq!((job.current().version, job.current().runs_as), (2, 1), "same work, no restart");
}

#[test]
fn a_placement_is_checked_again() {
    let mut state = State::default();
    let applied = run(
        &mut state,
        [
            register("n1"),
            Command::SubmitJob { spec: service("web", 2), if_version: None },
            place("web", 1, 0, "n1"),
            place("web", 1, 0, "n1"),
            place("web", 2, 1, "n1"),
            place("web", 1, 1, "n2"),
            Command::SetEligibility { node: "n1".parse().unwrap(), eligible: false },
            place("web", 1, 1, "n1"),
        ],
    );
    let placed: Vec<_> =
        [2, 3, 4, 5, 7].iter().map(|i| applied[*i].reply.clone().unwrap()).collect();
    let (yes, no) =
        (Reply::Placed { placed: 1, refused: 0 }, Reply::Placed { placed: 0, refused: 1 });
    assert_eq!(placed, [yes, no.clone(), no.clone(), no.clone(), no]);
}

#[test]
fn a_stop_that_comes_too_late_for_the_promise_is_left_out() {
    let mut state = State::default();
    let ready = |alloc| {
        let Command::ReportAllocs { node, agent_id, mut reports } =
            report("n1", alloc, AllocStatus::Running)
        else {
            unreachable!()
        };
        reports[0].ready = true;
        Command::ReportAllocs { node, agent_id, reports }
    };
    let stop = |alloc, reason| Command::StopAllocs { stops: vec![(AllocId(alloc), reason)] };
    let submit = |command| Command::SubmitJob {
        spec: spec("web", JobKind::Service { replicas: 1 }, command),
        if_version: None,
    };
    let setup = [
        register("n1"),
        submit("old"),
        place("web", 1, 0, "n1"),
        ready(1),
        submit("new"),
        place("web", 2, 0, "n1"),
        ready(2),
        // Planned while its successor was well, which has failed since.
        report("n1", 2, AllocStatus::Failed),
        stop(1, StopReason::Updated),
    ];
    assert!(run(&mut state, setup).iter().all(|applied| applied.reply.is_ok()));
    let wanted = |state: &State, alloc| state.alloc(AllocId(alloc)).is_some_and(|a| a.wanted());
    assert!(wanted(&state, 1), "the last one stays");
    run(&mut state, [place("web", 2, 0, "n1"), ready(3), stop(1, StopReason::Updated)]);
    assert!(!wanted(&state, 1), "its place is served by another");
    // What users ask for holds whatever is promised.
    run(&mut state, [stop(3, StopReason::ScaledDown)]);
    assert!(!wanted(&state, 3));
}

#[test]
fn only_the_right_agent_reports_and_an_end_is_final() {
    let mut state = State::default();
    run(
        &mut state,
        [
            register("n1"),
            Command::SubmitJob { spec: service("web", 1), if_version: None },
            place("web", 1, 0, "n1"),
            report("n1", 1, AllocStatus::Running),
        ],
    );
    assert_eq!(state.alloc(AllocId(1)).unwrap().status, AllocStatus::Running);
    let stranger =
        Command::ReportAllocs { node: "n1".parse().unwrap(), agent_id: 1, reports: Vec::new() };
    assert_eq!(codes(&run(&mut state, [stranger])), [Some(RejectedCode::Conflict)]);
    run(&mut state, [report("n1", 1, AllocStatus::Failed), report("n1", 1, AllocStatus::Running)]);
    assert_eq!(state.alloc(AllocId(1)).unwrap().status, AllocStatus::Failed);
}

#[test]
fn another_agent_under_a_connected_name_is_refused() {
    let mut state = State::default();
    let mut stranger = Node::example("n1").spec;
    stranger.agent_id = 1;
    let applied =
        run(&mut state, [register("n1"), Command::RegisterNode { spec: stranger.clone() }]);
    assert_eq!(codes(&applied), [None, Some(RejectedCode::NameTaken)]);
    let lost = Command::SetNodeState {
        node: "n1".parse().unwrap(),
        agent_id: Node::example("n1").agent_id,
        state: NodeState::Lost,
        reason: "silent".into(),
    };
    let applied = run(&mut state, [lost, Command::RegisterNode { spec: stranger }]);
    assert_eq!(codes(&applied), [None, None]);
}

#[test]
fn a_repeated_request_gets_the_same_reply_and_changes_nothing() {
    let mut state = State::default();
    let request = |replicas| Request {
        idempotency_key: Some("k".into()),
        command: Command::SubmitJob { spec: service("web", replicas), if_version: Some(0) },
    };
    let stamp = |index| Stamp { index, at: Timestamp(index) };
    let first = state.apply(stamp(1), &request(2));
    let again = state.apply(stamp(2), &request(2));
    assert_eq!(first.reply, again.reply);
    assert!(again.events.is_empty());
    let other = state.apply(stamp(3), &request(3));
    assert_eq!(codes(&[other]), [Some(RejectedCode::KeyReused)]);
}

#[test]
fn variables_compare_and_set() {
    let mut state = State::default();
    let put = |value: &str, if_index| Command::PutVariable {
        project: Default::default(),
        path: "db/host".to_owned().try_into().unwrap(),
        value: value.into(),
        if_index,
    };
    let applied =
        run(&mut state, [put("a", Some(0)), put("b", Some(0)), put("b", Some(1)), put("c", None)]);
    assert_eq!(codes(&applied), [None, Some(RejectedCode::Conflict), None, None]);
    assert_eq!(applied[3].reply, Ok(Reply::Variable { index: 3 }));
}

#[test]
fn writes_of_a_variable_in_one_log_entry_are_told_apart() {
    let mut state = State::default();
    let path = || "v".to_owned().try_into().unwrap();
    let put = |value: &str, if_index| Command::PutVariable {
        project: Default::default(),
        path: path(),
        value: value.into(),
        if_index,
    };
    let (project, if_index) = (Default::default(), None);
    let delete = Command::DeleteVariable { project, path: path(), if_index };
    let commands = [put("a", None), put("b", None), put("c", Some(1)), delete, put("d", None)];
    let stamp = Stamp { index: 7, at: Timestamp(7) };
    let one = |command: Command| state.apply(stamp, &command.into()).reply;
    let replies: Vec<_> = commands.map(one).into_iter().collect();
    assert_eq!(replies[0], Ok(Reply::Variable { index: 1 }));
    assert_eq!(replies[1], Ok(Reply::Variable { index: 2 }));
    let code = replies[2].as_ref().map_err(|rejected| rejected.code).err();
    assert_eq!(code, Some(RejectedCode::Conflict), "it did not see the second write");
    assert_eq!(replies[4], Ok(Reply::Variable { index: 4 }), "nor may a deleted one come back");
}

#[test]
fn time_never_runs_back() {
    let mut state = State::default();
    let command = |cluster_id| Request::from(Command::FoundCluster { cluster_id });
    state.apply(Stamp { index: 1, at: Timestamp(100) }, &command(1));
    state.apply(Stamp { index: 2, at: Timestamp(50) }, &command(1));
    assert_eq!(state.stamp(), Stamp { index: 2, at: Timestamp(100) });
}

#[test]
fn events_resume_without_gap_or_repeat_and_say_when_they_are_gone() {
    let mut state = State::default();
    let put = |i: usize| Command::PutVariable {
        project: Default::default(),
        path: format!("v{}", i % 10).try_into().unwrap(),
        value: Vec::new(),
        if_index: None,
    };
    run(&mut state, (0..EVENTS_KEPT + 5).map(put));
    let last = state.last_event();
    assert_eq!(last, EVENTS_KEPT as u64 + 5);
    assert_eq!(state.events_after(4), Err(query::EventsGone { oldest: 5 }));
    let all: Vec<u64> = state.events_after(5).unwrap().iter().map(|event| event.index).collect();
    assert_eq!(all, (6..=last).collect::<Vec<_>>());
    assert!(state.events_after(last).unwrap().is_empty());
    assert!(state.events_after(last + 10).unwrap().is_empty());
}

#[test]
fn a_saved_snapshot_comes_back_through_the_log() {
    let mut state = State::default();
    run(&mut state, [Command::SubmitJob { spec: service("web", 2), if_version: None }]);
    let saved = bytes_of(&state);
    run(&mut state, [Command::StopJob { job: id("web"), purge: false }]);
    let (left, right) = saved.split_at(saved.len() / 2);
    let commit = |checksum| Command::RestoreCommit { length: saved.len() as u64, checksum };
    let chunk = |offset: usize, bytes: &[u8]| Command::RestoreChunk {
        offset: offset as u64,
        bytes: bytes.to_vec(),
    };
    let checksum = xxhash_rust::xxh3::xxh3_64(&saved);
    let applied = run(&mut state, [chunk(0, left), commit(checksum)]);
    assert_eq!(codes(&applied)[1], Some(RejectedCode::Invalid), "half of it is refused");
    assert!(state.job(&id("web")).unwrap().stopped);
    let events = state.last_event();
    let applied = run(&mut state, [chunk(0, left), chunk(left.len(), right), commit(checksum)]);
    assert_eq!(codes(&applied), [None, None, None]);
    assert!(!state.job(&id("web")).unwrap().stopped);
    assert_eq!(state.last_event(), events + 1, "streams go on");
}

/// A service of containers without ports.
fn web_of(name: &str, replicas: u32) -> Arc<JobSpec> {
    let runtime =
        TaskRuntime::Docker { image: "a:1".into(), pull: Default::default(), registry: None };
    let task = TaskSpec::new(name.parse().unwrap(), runtime);
    Arc::new(JobSpec::new(name.parse().unwrap(), JobKind::Service { replicas }, vec![task]))
}

fn adoption(job: &str, index: u32, node: &str, container: &str) -> Adoption {
    Adoption {
        index,
        node: node.parse().unwrap(),
        ports: Vec::new(),
        containers: [(job.parse().unwrap(), container.to_owned())].into(),
        origin: "MESOS_TASK_ID t1".into(),
    }
}

#[test]
fn what_runs_already_becomes_copies_of_a_new_job_or_nothing_changes() {
    let mut state = State::default();
    let adopt = |name: &str, replicas, adoptions| Command::AdoptJob {
        spec: web_of(name, replicas),
        adoptions,
    };
    let applied = run(
        &mut state,
        [
            register("n1"),
            adopt("web", 3, vec![adoption("web", 0, "n1", "c0"), adoption("web", 2, "n1", "c2")]),
            // There is such a job; a container and a copy can't be two; a node must be there.
            adopt("web", 3, Vec::new()),
            adopt("two", 3, vec![adoption("two", 0, "n1", "c0")]),
            adopt("two", 3, vec![adoption("two", 0, "n1", "c3"), adoption("two", 0, "n1", "c4")]),
            adopt("two", 1, vec![adoption("two", 1, "n1", "c3")]),
            adopt("two", 1, vec![adoption("two", 0, "n2", "c3")]),
            adopt("two", 1, vec![adoption("other", 0, "n1", "c3")]),
        ],
    );
    let conflict = Some(RejectedCode::Conflict);
    assert_eq!(codes(&applied)[..2], [None, None]);
    assert!(codes(&applied)[2..].iter().all(|code| *code == conflict), "{:?}", codes(&applied));
    assert!(state.job(&id("two")).is_none());
    let allocs: Vec<_> = state.allocs_of(&id("web")).cloned().collect();
    let adopted: Vec<_> = allocs
        .iter()
        .map(|alloc| (alloc.index, alloc.grant.adopted.values().next().unwrap().as_str()))
        .collect();
    assert_eq!(adopted, [(0, "c0"), (2, "c2")]);
    assert!(allocs[0].notes[1].text.contains("MESOS_TASK_ID t1"));
    // They are what the node is told to run.
    let orders = state.assignments(&"n1".parse().unwrap());
    assert_eq!(orders.iter().filter(|order| !order.grant.adopted.is_empty()).count(), 2);
    // Once it has ended, the container is free for another.
    run(&mut state, [report("n1", 1, AllocStatus::Failed)]);
    let again = adopt("two", 1, vec![adoption("two", 0, "n1", "c0")]);
    assert_eq!(codes(&run(&mut state, [again])), [None]);
}

fn arb_command() -> impl Strategy<Value = Command> {
    let job = || (0..3_u8).prop_map(|i| format!("j{i}"));
    let node = || (0..3_u8).prop_map(|i| format!("n{i}"));
    let status = prop_oneof![
        Just(AllocStatus::Starting),
        Just(AllocStatus::Running),
        Just(AllocStatus::Stopped),
        Just(AllocStatus::Complete),
        Just(AllocStatus::Failed),
        Just(AllocStatus::Lost),
    ];
    prop_oneof![
        (job(), 0..4_u32, 0..3_u8).prop_map(|(name, replicas, kind)| {
            let kind = match kind {
                0 => JobKind::once(None),
                1 => JobKind::System,
                _ => JobKind::Service { replicas },
            };
            Command::SubmitJob { spec: spec(&name, kind, "serve"), if_version: None }
        }),
        (job(), any::<bool>()).prop_map(|(name, purge)| Command::StopJob { job: id(&name), purge }),
        (job(), 0..4_u32)
            .prop_map(|(name, replicas)| Command::ScaleJob { job: id(&name), replicas }),
        node().prop_map(|name| register(&name)),
        (node(), any::<bool>()).prop_map(|(name, lost)| Command::SetNodeState {
            node: name.parse().unwrap(),
            agent_id: Node::example(&name).agent_id,
            state: if lost { NodeState::Lost } else { NodeState::Left },
            reason: "silent".into(),
        }),
        (node(), any::<bool>()).prop_map(|(name, eligible)| Command::SetEligibility {
            node: name.parse().unwrap(),
            eligible,
        }),
        node().prop_map(|name| Command::DrainNode {
            node: name.parse().unwrap(),
            deadline: Some(Millis(5))
        }),
        node().prop_map(|name| Command::RemoveNode { node: name.parse().unwrap() }),
        (job(), 1..4_u64, 0..4_u32, node())
            .prop_map(|(job, version, index, node)| place(&job, version, index, &node)),
        (0..12_u64).prop_map(|alloc| Command::StopAllocs {
            stops: vec![(AllocId(alloc), StopReason::Drained)]
        }),
        (0..9_u64, 0..6_u8).prop_map(|(deployment, what)| {
            let deployment = DeploymentId(deployment);
            match what {
                0 => Command::PromoteDeployment { deployment },
                1 => Command::PauseDeployment { deployment, paused: true },
                2 => Command::PauseDeployment { deployment, paused: false },
                3 => Command::CompleteDeployment { deployment },
                _ => {
                    let reason = "it failed".to_owned();
                    Command::FailDeployment { deployment, reason, revert: what == 4 }
                }
            }
        }),
        (job(), prop::option::of(0..4_u64))
            .prop_map(|(job, to)| Command::RollbackJob { job: id(&job), to }),
        job().prop_map(|job| Command::RestartJob { job: id(&job) }),
        (0..12_u64, 0..4_u8, job()).prop_map(|(alloc, what, job)| {
            let alloc = AllocId(alloc);
            match what {
                0 => Command::MoveAllocs {
                    moves: vec![AllocMove { alloc, reason: StopReason::Moved, to: None }],
                },
                1 => Command::PreemptAllocs { victims: vec![alloc], by: id(&job) },
                2 => Command::LoseAllocs { allocs: vec![alloc] },
                _ => Command::GiveUpAllocs { allocs: vec![(alloc, "given up".into())] },
            }
        }),
        (node(), 0..12_u64, status).prop_map(|(node, alloc, status)| report(&node, alloc, status)),
        (0..12_u64, job()).prop_map(|(alloc, job)| Command::CollectGarbage {
            allocs: vec![AllocId(alloc)],
            jobs: vec![id(&job)],
            replies_before: Timestamp(3000),
        }),
        (0..3_u8, any::<u8>(), prop::option::of(0..9_u64)).prop_map(|(path, value, if_index)| {
            Command::PutVariable {
                project: Default::default(),
                path: format!("v{path}").try_into().unwrap(),
                value: vec![value],
                if_index,
            }
        }),
        (0..3_u8).prop_map(|path| Command::DeleteVariable {
            project: Default::default(),
            path: format!("v{path}").try_into().unwrap(),
            if_index: None,
        }),
        prop::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| Command::RestoreChunk { offset: 0, bytes }),
    ]
}

/// The same commands with what came later.
fn arb_any_command() -> impl Strategy<Value = Command> {
    let adopt = (0..3_u8, 1..4_u32, prop::collection::vec((0..4_u32, 0..3_u8, 0..5_u8), 0..4));
    let adopt = adopt.prop_map(|(job, replicas, rows)| {
        let adoptions = rows.into_iter().map(|(index, node, container)| {
            adoption(&format!("j{job}"), index, &format!("n{node}"), &format!("c{container}"))
        });
        let spec = web_of(&format!("j{job}"), replicas);
        Command::AdoptJob { spec, adoptions: adoptions.collect() }
    });
    prop_oneof![9 => arb_command(), 1 => adopt]
}

fn arb_request() -> impl Strategy<Value = Request> {
    (prop::option::weighted(0.3, 0..5_u8), arb_any_command()).prop_map(|(key, command)| Request {
        idempotency_key: key.map(|key| format!("key{key}")),
        command,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two replicas, one restored from a snapshot half way: the same replies and the same bytes.
    #[test]
    fn a_restored_replica_goes_on_as_the_other(
        requests in prop::collection::vec(arb_request(), 1..80),
        half in 0..80_usize,
    ) {
        let mut one = State::default();
        let mut other = State::default();
        for (i, request) in requests.iter().enumerate() {
            if i == half {
                other = snapshot::read(&mut bytes_of(&other).as_slice()).unwrap();
            }
            let stamp = Stamp { index: i as u64 + 1, at: Timestamp(i as u64 * 700) };
            // Through the bytes of the log, as in life.
            let mut writer = codec::BatchWriter::new(stamp.at);
            writer.push(&codec::encode_request(request).unwrap());
            let (at, decoded) = codec::decode_batch(&writer.finish()).unwrap();
            prop_assert_eq!(&decoded[..], std::slice::from_ref(request));
            let stamp = Stamp { at, ..stamp };
            prop_assert_eq!(one.apply(stamp, request), other.apply(stamp, &decoded[0]));
        }
        prop_assert_eq!(bytes_of(&one), bytes_of(&other));
        prop_assert_eq!(one.checksum(), other.checksum());
        for node in ["n0", "n1", "n2"] {
            let node = node.parse().unwrap();
            prop_assert_eq!(one.node_use(&node), other.node_use(&node));
        }
    }

    /// Damaged bytes are an error, never a panic.
    #[test]
    fn damaged_bytes_are_refused(
        requests in prop::collection::vec(arb_request(), 1..8),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut state = State::default();
        let mut writer = codec::BatchWriter::new(Timestamp(1));
        for (i, request) in requests.iter().enumerate() {
            state.apply(Stamp { index: i as u64 + 1, at: Timestamp(1) }, request);
            writer.push(&codec::encode_request(request).unwrap());
        }
        for mut bytes in [writer.finish(), bytes_of(&state)] {
            for (place, value) in &flips {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = codec::decode_batch(&bytes);
            let _ = snapshot::read(&mut bytes.as_slice());
        }
    }
}

/// The bytes of released formats: a change here breaks every cluster that is upgraded. Write them
/// anew with `ORCH_UPDATE_GOLDEN=1` only for a format that was never released.
#[test]
fn the_bytes_of_log_and_snapshot_are_pinned() {
    let mut state = State::default();
    let mut writer = codec::BatchWriter::new(Timestamp(1_700_000_000_000));
    let mut failed = report("n1", 1, AllocStatus::Failed);
    if let Command::ReportAllocs { reports, .. } = &mut failed {
        let task = TaskState {
            container_id: Some("c1".into()),
            exit_code: Some(1),
            error: "exit 1".into(),
            ..TaskState::default()
        };
        reports[0].tasks.insert("web".parse().unwrap(), task);
    }
    let commands = [
        Command::FoundCluster { cluster_id: 42 },
        register("n1"),
        Command::SubmitJob { spec: service("web", 2), if_version: Some(0) },
        place("web", 1, 0, "n1"),
        failed,
        Command::ScaleJob { job: id("web"), replicas: 3 },
        Command::SetEligibility { node: "n1".parse().unwrap(), eligible: false },
        Command::DrainNode { node: "n1".parse().unwrap(), deadline: Some(Millis(60_000)) },
        Command::PutVariable {
            project: Default::default(),
            path: "db/host".to_owned().try_into().unwrap(),
            value: b"\x00\xff".to_vec(),
            if_index: Some(0),
        },
        Command::StopAllocs { stops: vec![(AllocId(1), StopReason::Drained)] },
        Command::SetNodeState {
            node: "n1".parse().unwrap(),
            agent_id: Node::example("n1").agent_id,
            state: NodeState::Lost,
            reason: "silent".into(),
        },
        Command::RemoveNode { node: "n2".parse().unwrap() },
        Command::DeleteVariable {
            project: Default::default(),
            path: "no".to_owned().try_into().unwrap(),
            if_index: None,
        },
        Command::CollectGarbage {
            allocs: vec![AllocId(9)],
            jobs: vec![id("web")],
            replies_before: Timestamp(0),
        },
        Command::StopJob { job: id("web"), purge: true },
        Command::RestoreChunk { offset: 0, bytes: vec![1, 2, 3] },
        Command::RestoreCommit { length: 4, checksum: 5 },
        Command::RetireServer { id: 7, name: "s1".parse().unwrap() },
        Command::SubmitJob { spec: canary(), if_version: None },
        Command::PromoteDeployment { deployment: DeploymentId(2) },
        Command::PauseDeployment { deployment: DeploymentId(2), paused: true },
        Command::CompleteDeployment { deployment: DeploymentId(2) },
        Command::FailDeployment {
            deployment: DeploymentId(1),
            reason: "web.0 on n1: exit 1".into(),
            revert: true,
        },
        Command::RollbackJob { job: id("web"), to: Some(1) },
        Command::RestartJob { job: id("web") },
        Command::MoveAllocs {
            moves: vec![AllocMove {
                alloc: AllocId(1),
                reason: StopReason::Rebalanced,
                to: Some("n2".parse().unwrap()),
            }],
        },
        Command::PreemptAllocs { victims: vec![AllocId(1)], by: id("web") },
        Command::LoseAllocs { allocs: vec![AllocId(1)] },
        Command::GiveUpAllocs { allocs: vec![(AllocId(1), "given up".into())] },
    ];
    for (i, command) in commands.into_iter().enumerate() {
        let request = Request { idempotency_key: Some(format!("k{i}")), command };
        writer.push(&codec::encode_request(&request).unwrap());
        let stamp = Stamp { index: i as u64 + 1, at: Timestamp(1_700_000_000_000 + i as u64) };
        state.apply(stamp, &request);
    }
    golden("log-entry-v2.bin", &writer.finish());
    golden("snapshot-v3.bin", &bytes_of(&state));
    // Before there was ZooKeeper's tree: the same state, with the tree that everybody begins with.
    let before = snapshot::read(&mut read_golden("snapshot-v2.bin").as_slice()).unwrap();
    assert_eq!(bytes_of(&before), bytes_of(&state));
}

/// What came with the migration from Marathon: added to the format, never released before.
#[test]
fn the_bytes_of_an_adoption_are_pinned() {
    let mut state = State::default();
    let mut writer = codec::BatchWriter::new(Timestamp(1_700_000_000_000));
    let mut spec = (*web_of("web", 2)).clone();
    spec.tasks[0].legacy_environment = Some(LegacyEnvironment::Marathon);
    let adoptions = vec![adoption("web", 1, "n1", "c0ffee")];
    let commands = [register("n1"), Command::AdoptJob { spec: Arc::new(spec), adoptions }];
    for (i, command) in commands.into_iter().enumerate() {
        let request = Request::from(command);
        writer.push(&codec::encode_request(&request).unwrap());
        let stamp = Stamp { index: i as u64 + 1, at: Timestamp(1_700_000_000_000 + i as u64) };
        assert!(state.apply(stamp, &request).reply.is_ok());
    }
    golden("log-entry-adopt-v1.bin", &writer.finish());
    let (_, requests) = codec::decode_batch(&read_golden("log-entry-adopt-v1.bin")).unwrap();
    assert_eq!(requests.len(), 2);
    // A snapshot of then has it still; what other tables have gained since is theirs.
    let kept = snapshot::read(&mut read_golden("snapshot-adopt-v1.bin").as_slice()).unwrap();
    assert_eq!(kept.alloc(AllocId(1)), state.alloc(AllocId(1)));
    assert_eq!(kept.job(&id("web")), state.job(&id("web")));
    assert!(!kept.alloc(AllocId(1)).unwrap().grant.adopted.is_empty());
}

/// What came with ZooKeeper's tree: added to the format, never released before.
#[test]
fn the_bytes_of_zookeepers_tree_are_pinned() {
    let mut state = State::default();
    let mut writer = codec::BatchWriter::new(Timestamp(1_700_000_000_000));
    for (i, command) in znodes::tests::one_of_each().into_iter().enumerate() {
        let request = Request::from(command);
        writer.push(&codec::encode_request(&request).unwrap());
        let stamp = Stamp { index: i as u64 + 1, at: Timestamp(1_700_000_000_000 + i as u64) };
        assert!(state.apply(stamp, &request).reply.is_ok(), "{request:?}");
    }
    golden("log-entry-zk-v1.bin", &writer.finish());
    golden("snapshot-zk-v1.bin", &bytes_of(&state));
    let kept = snapshot::read(&mut read_golden("snapshot-zk-v1.bin").as_slice()).unwrap();
    assert_eq!(bytes_of(&kept), bytes_of(&state));
    assert_eq!(kept.checksum(), state.checksum());
}

/// What an earlier format's servers wrote is read by this one.
#[test]
fn the_bytes_of_earlier_formats_are_read() {
    let (at, requests) = codec::decode_batch(&read_golden("log-entry-v1.bin")).unwrap();
    let mut state = State::default();
    for (i, request) in requests.iter().enumerate() {
        state.apply(Stamp { index: i as u64 + 1, at }, request);
    }
    let kept = snapshot::read(&mut read_golden("snapshot-v1.bin").as_slice()).unwrap();
    assert_eq!(kept.cluster_id(), state.cluster_id());
    assert_eq!(kept.last_event(), 10);
}

/// A job with as many of the things that came later as it can have.
fn canary() -> Arc<JobSpec> {
    let mut spec = (*service("web", 2)).clone();
    let strategy = UpdateStrategy::Canary { count: 1, promote: Promotion::After(Millis(5)) };
    spec.update = UpdatePolicy { strategy, ..UpdatePolicy::default() };
    let probe = Probe::Grpc { service: "web".into(), port: "http".parse().unwrap() };
    spec.tasks[0].readiness = Some(HealthCheck::new(probe));
    spec.disconnect.stop_after = Some(Millis(30_000));
    spec.replicas_owner = Some("autoscaler".into());
    Arc::new(spec)
}

fn golden_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_golden(name: &str) -> Vec<u8> {
    std::fs::read(golden_path(name)).unwrap()
}

fn golden(name: &str, bytes: &[u8]) {
    let path = golden_path(name);
    if std::env::var_os("ORCH_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let pinned = std::fs::read(&path).unwrap_or_default();
    assert!(pinned == bytes, "{name} differs from the released format");
}
