//! Whatever happens: promises hold at every step, and calm brings what was asked.

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Submit { job: u8, replicas: u32, command: u8, update: UpdatePolicy },
    Promote { job: u8 },
    Pause { job: u8 },
    Abort { job: u8 },
    Rollback { job: u8 },
    Restart { job: u8 },
    Scale { job: u8, replicas: u32 },
    Move { nth: u8 },
    Stop { job: u8 },
    Silence { node: u8 },
    Hear { node: u8 },
    Drain { node: u8 },
    Eligible { node: u8 },
    Fail { nth: u8 },
    Wait,
}

fn update() -> impl Strategy<Value = UpdatePolicy> {
    let promote = prop_oneof![
        Just(Promotion::Manual),
        (0..60_u64).prop_map(|s| Promotion::After(Millis::from_secs(s))),
    ];
    let strategy = (0..4_u8, 1..3_u32, promote).prop_map(|(kind, count, promote)| match kind {
        0 => UpdateStrategy::Canary { count, promote },
        1 => UpdateStrategy::BlueGreen { promote, keep_old: Millis::from_secs(30) },
        _ => UpdateStrategy::Rolling,
    });
    let order = prop_oneof![
        Just(None),
        Just(Some(UpdateOrder::StopFirst)),
        Just(Some(UpdateOrder::StartFirst))
    ];
    (strategy, order, 1..3_u32, 0..20_u64, any::<bool>()).prop_map(
        |(strategy, order, max_parallel, min_healthy, auto_revert)| UpdatePolicy {
            strategy,
            order,
            max_parallel,
            min_healthy: Millis::from_secs(min_healthy),
            auto_revert,
            ..UpdatePolicy::default()
        },
    )
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3_u8, 0..6_u32, 0..3_u8, update()).prop_map(|(job, replicas, command, update)| {
            Happening::Submit { job, replicas, command, update }
        }),
        (0..3_u8).prop_map(|job| Happening::Promote { job }),
        (0..3_u8).prop_map(|job| Happening::Pause { job }),
        (0..3_u8).prop_map(|job| Happening::Abort { job }),
        (0..3_u8).prop_map(|job| Happening::Rollback { job }),
        (0..3_u8).prop_map(|job| Happening::Restart { job }),
        (0..3_u8, 0..6_u32).prop_map(|(job, replicas)| Happening::Scale { job, replicas }),
        (0..9_u8).prop_map(|nth| Happening::Move { nth }),
        (0..3_u8).prop_map(|job| Happening::Stop { job }),
        (0..4_u8).prop_map(|node| Happening::Silence { node }),
        (0..4_u8).prop_map(|node| Happening::Hear { node }),
        (0..4_u8).prop_map(|node| Happening::Drain { node }),
        (0..4_u8).prop_map(|node| Happening::Eligible { node }),
        (0..9_u8).prop_map(|nth| Happening::Fail { nth }),
        Just(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, and however the steps fall between: capacity, ports and places are never
    /// given twice (`check`), and once it is calm everything wanted that fits runs.
    #[test]
    fn it_always_comes_to_what_was_asked(
        happenings in prop::collection::vec((happening(), 0..4_u8), 1..40),
        slow in 0..4_u32,
    ) {
        let mut cluster = Cluster::new(4);
        cluster.slow = slow;
        let node = |i: u8| -> NodeName { format!("n{i}").parse().unwrap() };
        for (happening, steps) in happenings {
            match happening {
                Happening::Promote { job } => {
                    if let Some(deployment) = cluster.latest(job) {
                        cluster.ask(Command::PromoteDeployment { deployment });
                    }
                }
                Happening::Pause { job } => {
                    if let Some(deployment) = cluster.latest(job) {
                        cluster.ask(Command::PauseDeployment { deployment, paused: true });
                    }
                }
                Happening::Abort { job } => {
                    if let Some(deployment) = cluster.latest(job) {
                        let reason = "aborted".to_owned();
                        cluster.ask(Command::FailDeployment { deployment, reason, revert: true });
                    }
                }
                Happening::Rollback { job } => {
                    cluster.ask(Command::RollbackJob { job: numbered(job), to: None });
                }
                Happening::Restart { job } => {
                    cluster.ask(Command::RestartJob { job: numbered(job) });
                }
                Happening::Scale { job, replicas } => {
                    cluster.ask(Command::ScaleJob { job: numbered(job), replicas });
                }
                Happening::Move { nth } => {
                    let alloc = cluster.state.allocs().filter(|a| a.wanted()).nth(nth.into());
                    let alloc = alloc.map(|alloc| alloc.id);
                    let moves = alloc.map(|alloc| AllocMove {
                        alloc,
                        reason: StopReason::Moved,
                        to: None,
                    });
                    cluster.apply(Command::MoveAllocs { moves: moves.into_iter().collect() });
                }
                Happening::Submit { job, replicas, command, update } => {
                    let mut spec = service(&format!("j{job}"), replicas);
                    spec.update = update;
                    spec.tasks[0].command = vec![format!("c{command}")];
                    cluster.submit(spec);
                }
                Happening::Stop { job } => {
                    let id: JobId = format!("j{job}").parse().unwrap();
                    if cluster.state.job(&id).is_some() {
                        cluster.apply(Command::StopJob { job: id, purge: job == 0 });
                    }
                }
                Happening::Silence { node: i } => {
                    cluster.silent.insert(node(i));
                }
                Happening::Hear { node: i } => {
                    cluster.silent.remove(&node(i));
                    let spec = cluster.state.node(&node(i)).unwrap().spec.clone();
                    cluster.apply(Command::RegisterNode { spec });
                }
                Happening::Drain { node: i } => {
                    cluster.apply(Command::DrainNode { node: node(i), deadline: None });
                }
                Happening::Eligible { node: i } => {
                    cluster.apply(Command::SetEligibility { node: node(i), eligible: true });
                }
                Happening::Fail { nth } => {
                    let victim = cluster.state.allocs().filter(|a| a.wanted()).nth(nth.into());
                    let victim = victim.map(|alloc| alloc.id);
                    cluster.step(|a| {
                        if Some(a.id) == victim { AllocStatus::Failed } else { AllocStatus::Running }
                    });
                }
                Happening::Wait => cluster.now = cluster.now + Millis::from_secs(11),
            }
            for _ in 0..steps {
                cluster.step(|_| AllocStatus::Running);
            }
        }
        // Calm: all are heard, eligible, and old failures are forgotten in time.
        cluster.silent.clear();
        for i in 0..4 {
            let spec = cluster.state.node(&node(i)).unwrap().spec.clone();
            cluster.apply(Command::RegisterNode { spec });
            cluster.apply(Command::SetEligibility { node: node(i), eligible: true });
        }
        cluster.settle();
        for _ in 0..4 {
            for job in 0..3 {
                if let Some(deployment) = cluster.latest(job) {
                    cluster.ask(Command::PauseDeployment { deployment, paused: false });
                    cluster.ask(Command::PromoteDeployment { deployment });
                }
            }
            cluster.live_through(Millis::from_secs(1200));
        }
        let jobs: Vec<_> = cluster.state.jobs().map(|(id, job)| (id.clone(), job.clone())).collect();
        for (id, job) in jobs {
            let live: Vec<_> = cluster.state.allocs_of(&id).filter(|a| !a.ended()).collect();
            let latest = cluster.state.latest_deployment(&job).expect("a deployment");
            let given_up = latest.status == DeploymentStatus::Failed;
            let places: BTreeSet<u32> = live.iter().map(|alloc| alloc.index).collect();
            prop_assert_eq!(places.len() as u32, job.replicas(), "{}", id);
            // What failed and is not to go back is left as it is, for people to see.
            prop_assert!(given_up || live.len() as u32 == job.replicas(), "{} {:?} {:?}", id, latest, live);
            prop_assert!(given_up || live.iter().all(|a| job.runs_current(a.version)));
            let done = !job.active() || latest.status == DeploymentStatus::Successful;
            prop_assert!(given_up || done, "{:#?}", latest);
        }
    }
}
