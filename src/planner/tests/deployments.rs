//! How versions follow one another.

use super::*;

/// `web` with so many replicas, and the same with another command.
fn web_and_its_next(replicas: u32, update: UpdatePolicy) -> (JobSpec, JobSpec) {
    let old = JobSpec { update, ..service("web", replicas) };
    let mut new = old.clone();
    new.tasks[0].command = vec!["serve".into(), "better".into()];
    (old, new)
}

fn web() -> JobId {
    "web".parse().unwrap()
}

#[test]
fn stop_first_keeps_all_but_max_parallel() {
    let order = Some(UpdateOrder::StopFirst);
    let update = UpdatePolicy { order, max_parallel: 2, ..UpdatePolicy::default() };
    let (old, new) = web_and_its_next(6, update);
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new);
    let mut least = 6;
    while cluster.step(|_| AllocStatus::Running) {
        let live: Vec<_> =
            cluster.state.allocs_of(&web()).filter(|a| !a.ended()).map(|a| a.index).collect();
        let places: BTreeSet<_> = live.iter().collect();
        assert_eq!(places.len(), live.len(), "one at a time in each place");
        least = least.min(cluster.running("web").iter().filter(|a| a.available()).count());
    }
    assert_eq!(least, 4);
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
}

#[test]
fn a_replica_counts_after_min_healthy() {
    let min_healthy = Millis::from_secs(20);
    let (old, new) = web_and_its_next(2, UpdatePolicy { min_healthy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(2);
    cluster.submit(old);
    cluster.settle();
    cluster.now = cluster.now + min_healthy;
    cluster.settle();
    cluster.submit(new);
    cluster.settle();
    let new_ones = |c: &Cluster| c.running("web").iter().filter(|a| a.version == 2).count();
    assert_eq!((new_ones(&cluster), cluster.running("web").len()), (1, 3));
    assert_eq!(cluster.waits("web"), "web.0 to have been ready for 20s");
    cluster.now = cluster.now + min_healthy;
    cluster.settle();
    assert_eq!((new_ones(&cluster), cluster.running("web").len()), (2, 3));
    cluster.now = cluster.now + min_healthy;
    cluster.settle();
    assert_eq!((new_ones(&cluster), cluster.running("web").len()), (2, 2));
}

#[test]
fn a_canary_waits_beside_the_old_version_for_its_promotion() {
    let strategy = UpdateStrategy::Canary { count: 1, promote: Promotion::Manual };
    let (old, new) = web_and_its_next(3, UpdatePolicy { strategy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
    cluster.submit(new.clone());
    cluster.settle();
    let versions: Vec<_> = cluster.running("web").iter().map(|a| (a.index, a.version)).collect();
    assert_eq!(versions, [(0, 1), (1, 1), (2, 1), (0, 2)]);
    assert_eq!(cluster.waits("web"), "its promotion: orch deploy promote web");
    let job = cluster.state.job(&web()).unwrap().clone();
    assert_eq!(cluster.state.endpoints(&web(), &job).count(), 4);
    // An old replica that fails comes back as the old version.
    cluster.step(|a| if a.id == AllocId(2) { AllocStatus::Failed } else { AllocStatus::Running });
    cluster.now = cluster.now + Millis::from_secs(60);
    cluster.settle();
    assert_eq!(cluster.running("web").iter().filter(|a| a.version == 1).count(), 3);
    let deployment = cluster.deployment("web").id;
    cluster.apply(Command::PromoteDeployment { deployment });
    cluster.settle();
    assert_eq!(cluster.running("web").iter().filter(|a| a.version == 2).count(), 3);
    assert_eq!(cluster.running("web").len(), 3);
    // The next one is given up by hand.
    let mut newer = new;
    newer.tasks[0].command = vec!["serve".into(), "worse".into()];
    cluster.submit(newer);
    cluster.settle();
    let deployment = cluster.deployment("web").id;
    let reason = "aborted".to_owned();
    cluster.apply(Command::FailDeployment { deployment, reason, revert: true });
    cluster.settle();
    assert!(cluster.running("web").iter().all(|a| a.version == 2));
    assert_eq!(cluster.running("web").len(), 3);
}

#[test]
fn a_canary_is_promoted_by_itself_when_its_time_has_come() {
    let promote = Promotion::After(Millis::from_secs(600));
    let strategy = UpdateStrategy::Canary { count: 2, promote };
    let (old, new) = web_and_its_next(3, UpdatePolicy { strategy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new);
    cluster.settle();
    cluster.now = cluster.now + Millis::from_secs(590);
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 5);
    cluster.now = cluster.now + Millis::from_secs(20);
    cluster.settle();
    assert!(cluster.running("web").iter().all(|a| a.version == 2));
}

#[test]
fn a_second_set_takes_over_and_the_old_one_stays_warm() {
    let keep_old = Millis::from_secs(60);
    let strategy = UpdateStrategy::BlueGreen { promote: Promotion::Manual, keep_old };
    let (old, new) = web_and_its_next(3, UpdatePolicy { strategy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new.clone());
    cluster.settle();
    let versions = |cluster: &Cluster| -> Vec<u64> {
        let job = cluster.state.job(&web()).unwrap().clone();
        cluster.state.endpoints(&web(), &job).map(|a| a.version).collect()
    };
    assert_eq!((cluster.running("web").len(), versions(&cluster)), (6, vec![1, 1, 1]));
    let deployment = cluster.deployment("web").id;
    cluster.apply(Command::PromoteDeployment { deployment });
    cluster.settle();
    assert_eq!((cluster.running("web").len(), versions(&cluster)), (6, vec![2, 2, 2]));
    // Back at once: the old set is still there.
    let reason = "aborted".to_owned();
    cluster.apply(Command::FailDeployment { deployment, reason, revert: true });
    cluster.settle();
    assert_eq!((cluster.running("web").len(), versions(&cluster)), (3, vec![1, 1, 1]));
    cluster.submit(new);
    cluster.settle();
    let deployment = cluster.deployment("web").id;
    cluster.apply(Command::PromoteDeployment { deployment });
    cluster.now = cluster.now + keep_old;
    cluster.settle();
    assert_eq!((cluster.running("web").len(), versions(&cluster)), (3, vec![4, 4, 4]));
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
}

#[test]
fn a_newer_submission_supersedes_a_stuck_deployment_at_once() {
    let (old, mut new) = web_and_its_next(3, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    new.tasks[0].resources.memory = Some(1 << 50);
    cluster.submit(new.clone());
    cluster.settle();
    let waits = cluster.waits("web");
    assert!(waits.starts_with("room for a replica: too small"), "{waits}");
    let stuck = cluster.deployment("web").id;
    new.tasks[0].resources.memory = Some(1 << 20);
    cluster.submit(new);
    cluster.settle();
    let stuck = cluster.state.deployment(stuck).unwrap().clone();
    assert_eq!(stuck.status, DeploymentStatus::Superseded);
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
    assert!(cluster.running("web").iter().all(|a| a.version == 3));
}

#[test]
fn a_deployment_without_progress_fails_at_its_deadline_and_goes_back() {
    let (old, mut new) = web_and_its_next(3, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    new.tasks[0].resources.memory = Some(1 << 50);
    cluster.submit(new);
    cluster.settle();
    let stuck = cluster.deployment("web").id;
    cluster.now = cluster.now + Millis::from_secs(290);
    cluster.settle();
    assert_eq!(cluster.deployment("web").id, stuck);
    cluster.now = cluster.now + Millis::from_secs(20);
    cluster.settle();
    let stuck = cluster.state.deployment(stuck).unwrap().clone();
    assert_eq!(
        stuck.reason,
        "no progress for 5m; it waited for room for a replica: too small (memory): 3; going back \
         to version 1"
    );
    let back = cluster.deployment("web");
    assert_eq!((back.status, back.reverts), (DeploymentStatus::Successful, Some(stuck.id)));
    assert!(cluster.running("web").iter().all(|a| a.version == 1));
}

#[test]
fn a_paused_deployment_moves_nothing_and_goes_on() {
    let (old, new) = web_and_its_next(3, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new);
    let deployment = cluster.deployment("web").id;
    cluster.apply(Command::PauseDeployment { deployment, paused: true });
    cluster.settle();
    cluster.now = cluster.now + Millis::from_secs(10_000);
    cluster.settle();
    assert!(cluster.running("web").iter().all(|a| a.version == 1));
    assert_eq!(cluster.waits("web"), "somebody to let it go on: orch deploy resume web");
    cluster.apply(Command::PauseDeployment { deployment, paused: false });
    cluster.settle();
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
}

#[test]
fn a_rollback_half_way_restarts_only_what_has_moved() {
    let (old, new) = web_and_its_next(4, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    let before: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    cluster.submit(new);
    let moved = |c: &Cluster| c.running("web").iter().filter(|a| a.version == 2).count();
    while moved(&cluster) < 2 {
        assert!(cluster.step(|_| AllocStatus::Running));
    }
    let moved = moved(&cluster);
    cluster.apply(Command::RollbackJob { job: web(), to: Some(1) });
    cluster.settle();
    let after: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    assert!(before.intersection(&after).count() >= 4 - moved);
    assert_eq!(after.len(), 4);
    assert!(!cluster.ask(Command::RollbackJob { job: web(), to: Some(77) }));
}

#[test]
fn a_rollback_goes_to_the_last_version_that_was_healthy() {
    let (old, new) = web_and_its_next(2, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    assert!(!cluster.ask(Command::RollbackJob { job: web(), to: None }));
    cluster.settle();
    cluster.submit(new);
    cluster.settle();
    cluster.apply(Command::ScaleJob { job: web(), replicas: 3 });
    cluster.settle();
    cluster.apply(Command::RollbackJob { job: web(), to: None });
    cluster.settle();
    let job = cluster.state.job(&web()).unwrap().clone();
    assert_eq!(job.spec().tasks[0].command, ["serve"]);
    assert_eq!(cluster.running("web").len(), 3, "how many there are stays");
}

#[test]
fn a_restart_replaces_every_replica() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 3));
    cluster.settle();
    let before: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    cluster.apply(Command::RestartJob { job: web() });
    cluster.settle();
    let after: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    assert!(before.is_disjoint(&after));
    assert_eq!(after.len(), 3);
}

#[test]
fn what_always_fails_is_given_up_in_the_end() {
    let mut cluster = Cluster::new(2);
    let mut spec = service("web", 1);
    spec.reschedule.attempts = Some(3);
    cluster.submit(spec);
    for _ in 0..100 {
        cluster.step(|_| AllocStatus::Failed);
        cluster.now = cluster.now + Millis::from_secs(60);
    }
    let last = cluster.state.replica(&web(), 0).unwrap().clone();
    assert!(last.gave_up);
    assert_eq!(last.failures, 3);
    let told = last.notes.last().unwrap().text.clone();
    assert_eq!(told, "given up after 4 tries within 1d; restart the job to try again");
    cluster.apply(Command::RestartJob { job: web() });
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 1);
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
}

#[test]
fn what_runs_for_a_moment_replaces_nothing_and_fails_at_once() {
    let min_healthy = Millis::from_secs(1);
    let (old, new) = web_and_its_next(4, UpdatePolicy { min_healthy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(2);
    cluster.submit(old);
    cluster.live_through(Millis::from_secs(5));
    cluster.submit(new);
    cluster.settle();
    let good = |c: &Cluster| c.running("web").iter().filter(|a| a.version != 2).count();
    let is_new = |a: &Allocation| a.version == 2;
    assert!(cluster.running("web").iter().any(|a| is_new(a) && a.available()));
    // Within its node it is started again a few times, and gives up.
    cluster.step(|a| if is_new(a) { AllocStatus::Starting } else { AllocStatus::Running });
    cluster.step(|a| if is_new(a) { AllocStatus::Failed } else { AllocStatus::Running });
    assert_eq!(good(&cluster), 4);
    cluster.settle();
    assert_eq!(good(&cluster), 4);
    assert_eq!(cluster.running("web").len(), 4);
    let last = cluster.deployment("web");
    assert_eq!(last.status, DeploymentStatus::Successful);
    assert!(last.reverts.is_some(), "{last:?}");
}

#[test]
fn a_system_job_rolls_out_in_steps_and_stops_at_a_bad_version() {
    let mut cluster = Cluster::new(6);
    let mut spec = job("logs", JobKind::System);
    spec.update.max_parallel = 2;
    cluster.submit(spec.clone());
    cluster.settle();
    spec.tasks[0].command = vec!["better".into()];
    cluster.submit(spec.clone());
    let mut least = 6;
    while cluster.step(|_| AllocStatus::Running) {
        least = least.min(cluster.running("logs").iter().filter(|a| a.available()).count());
    }
    assert_eq!(least, 4);
    spec.tasks[0].command = vec!["crash".into()];
    cluster.submit(spec);
    for _ in 0..50 {
        cluster.step(|a| if a.version == 3 { AllocStatus::Failed } else { AllocStatus::Running });
        let healthy = cluster.running("logs").iter().filter(|a| a.available()).count();
        assert!(healthy >= 4, "only {healthy} of 6");
        cluster.now = cluster.now + Millis::from_secs(60);
    }
    assert_eq!(cluster.running("logs").iter().filter(|a| a.available()).count(), 6);
    assert_eq!(cluster.deployment("logs").status, DeploymentStatus::Successful);
}

#[test]
fn a_system_job_has_its_canary_on_some_nodes() {
    let mut cluster = Cluster::new(6);
    let mut spec = job("logs", JobKind::System);
    spec.update.strategy = UpdateStrategy::Canary { count: 2, promote: Promotion::Manual };
    cluster.submit(spec.clone());
    cluster.settle();
    spec.tasks[0].command = vec!["better".into()];
    cluster.submit(spec);
    cluster.settle();
    let count = |c: &Cluster, v| c.running("logs").iter().filter(|a| a.version == v).count();
    assert_eq!((count(&cluster, 1), count(&cluster, 2)), (4, 2));
    let deployment = cluster.deployment("logs").id;
    cluster.apply(Command::PromoteDeployment { deployment });
    cluster.settle();
    assert_eq!(count(&cluster, 2), 6);
}

#[test]
fn a_batch_job_runs_so_many_times_so_many_at_once() {
    let mut cluster = Cluster::new(3);
    let kind = JobKind::Batch { timeout: None, completions: 7, parallelism: 3, retries: 1 };
    cluster.submit(job("work", kind));
    cluster.settle();
    assert_eq!(cluster.running("work").len(), 3);
    let id: JobId = "work".parse().unwrap();
    // One fails once, and is tried again.
    let failed = cluster.running("work")[0].id;
    for _ in 0..20 {
        cluster.step(|a| if a.id == failed { AllocStatus::Failed } else { AllocStatus::Complete });
        assert!(cluster.running("work").len() <= 3);
        cluster.now = cluster.now + Millis::from_secs(10);
    }
    assert_eq!(cluster.state.job(&id).unwrap().outcome, Some(crate::state::JobOutcome::Complete));
    assert_eq!(cluster.state.allocs_of(&id).count(), 8);
    cluster.submit(job("bad", kind));
    for _ in 0..20 {
        cluster.step(|_| AllocStatus::Failed);
        cluster.now = cluster.now + Millis::from_secs(60);
    }
    let id: JobId = "bad".parse().unwrap();
    assert_eq!(cluster.state.job(&id).unwrap().outcome, Some(crate::state::JobOutcome::Failed));
}

#[test]
fn a_job_may_wait_for_a_lost_node() {
    let mut cluster = Cluster::new(2);
    let mut spec = service("web", 1);
    spec.disconnect.replace_after = Millis::from_secs(300);
    cluster.submit(spec);
    cluster.settle();
    let alloc = cluster.running("web")[0].id;
    let node = cluster.running("web")[0].node.clone();
    cluster.silent.insert(node.clone());
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    assert_eq!(cluster.running("web").iter().map(|a| a.id).collect::<Vec<_>>(), [alloc]);
    assert!(!cluster.running("web")[0].available());
    cluster.silent.clear();
    let spec = cluster.state.node(&node).unwrap().spec.clone();
    cluster.apply(Command::RegisterNode { spec });
    cluster.settle();
    assert!(cluster.running("web")[0].available());
    cluster.silent.insert(node);
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    cluster.now = cluster.now + Millis::from_secs(300);
    cluster.settle();
    assert_ne!(cluster.running("web")[0].id, alloc);
}

#[test]
fn an_owner_of_the_replicas_is_not_overruled() {
    let mut cluster = Cluster::new(2);
    let mut spec = service("web", 2);
    spec.replicas_owner = Some("autoscaler".into());
    cluster.submit(spec.clone());
    cluster.settle();
    cluster.apply(Command::ScaleJob { job: web(), replicas: 5 });
    cluster.settle();
    spec.tasks[0].command = vec!["better".into()];
    cluster.submit(spec);
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 5);
}

#[test]
fn a_broken_version_is_mended_by_the_next_without_churn() {
    let (old, new) = web_and_its_next(3, UpdatePolicy::default());
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.slow = 5;
    // One replica of version 1 fails again and again.
    let fate = |a: &Allocation| match (a.version, a.index) {
        (1, 1) => AllocStatus::Failed,
        _ => AllocStatus::Running,
    };
    for _ in 0..20 {
        cluster.step(fate);
        cluster.now = cluster.now + Millis::from_secs(10);
    }
    let before = cluster.state.allocs().map(|a| a.id).max().unwrap();
    cluster.submit(new);
    for _ in 0..60 {
        cluster.step(fate);
        cluster.now = cluster.now + Millis(100);
    }
    let placed = cluster.state.allocs().map(|a| a.id).max().unwrap().0 - before.0;
    assert_eq!(placed, 3, "one new replica for each place");
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
}

#[test]
fn what_was_given_up_is_mended_by_the_next_version() {
    for strategy in [
        UpdateStrategy::Rolling,
        UpdateStrategy::Canary { count: 1, promote: Promotion::After(Millis(0)) },
    ] {
        let update = UpdatePolicy { strategy, ..UpdatePolicy::default() };
        let (mut old, mut new) = web_and_its_next(1, update);
        old.reschedule.attempts = Some(1);
        new.reschedule.attempts = Some(1);
        let mut cluster = Cluster::new(3);
        cluster.submit(old);
        cluster.settle();
        let fate = |a: &Allocation| match a.version {
            1 => AllocStatus::Failed,
            _ => AllocStatus::Running,
        };
        for _ in 0..50 {
            cluster.step(fate);
            cluster.now = cluster.now + Millis::from_secs(60);
        }
        assert!(cluster.state.replica(&web(), 0).unwrap().gave_up);
        cluster.submit(new);
        for _ in 0..20 {
            cluster.step(fate);
            cluster.now = cluster.now + Millis(100);
        }
        assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful, "{strategy:?}");
        assert!(cluster.running("web").iter().all(|a| a.version == 2));
    }
}

#[test]
fn a_version_that_was_stopped_does_not_come_back() {
    for strategy in [
        UpdateStrategy::Rolling,
        UpdateStrategy::Canary { count: 1, promote: Promotion::Manual },
        UpdateStrategy::BlueGreen { promote: Promotion::Manual, keep_old: Millis(1000) },
    ] {
        let update = UpdatePolicy { strategy, ..UpdatePolicy::default() };
        let (old, new) = web_and_its_next(3, update);
        let mut cluster = Cluster::new(3);
        cluster.submit(old);
        cluster.settle();
        cluster.apply(Command::StopJob { job: web(), purge: false });
        cluster.settle();
        cluster.submit(new);
        let last = cluster.state.allocs().map(|a| a.id).max().unwrap();
        cluster.settle();
        let since: Vec<_> = cluster.state.allocs().filter(|a| a.id > last).collect();
        assert!(since.iter().all(|a| a.version == 2), "{strategy:?}");
        assert_eq!(since.len(), 3);
        assert_eq!(cluster.deployment("web").status, DeploymentStatus::Successful);
    }
}

#[test]
fn a_set_that_waits_for_hours_is_not_failed_by_a_stumble() {
    let strategy = UpdateStrategy::Canary { count: 1, promote: Promotion::Manual };
    let (old, new) = web_and_its_next(3, UpdatePolicy { strategy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new);
    cluster.settle();
    cluster.now = cluster.now + Millis::from_secs(7200);
    cluster.settle();
    let canary = cluster.running("web").iter().find(|a| a.version == 2).unwrap().id;
    cluster.step(|a| if a.id == canary { AllocStatus::Starting } else { AllocStatus::Running });
    cluster.step(|a| if a.id == canary { AllocStatus::Starting } else { AllocStatus::Running });
    cluster.settle();
    assert_eq!(cluster.deployment("web").status, DeploymentStatus::Running);
    assert_eq!(cluster.running("web").len(), 4);
}

#[test]
fn the_set_that_serves_is_kept_whole_while_the_other_waits() {
    let keep_old = Millis::from_secs(60);
    let strategy = UpdateStrategy::BlueGreen { promote: Promotion::Manual, keep_old };
    let (old, new) = web_and_its_next(3, UpdatePolicy { strategy, ..UpdatePolicy::default() });
    let mut cluster = Cluster::new(4);
    cluster.submit(old);
    cluster.settle();
    cluster.submit(new.clone());
    cluster.settle();
    let lost = cluster.running("web")[0].node.clone();
    cluster.silent.insert(lost);
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    let serving = |cluster: &Cluster| -> Vec<u64> {
        let job = cluster.state.job(&web()).unwrap();
        cluster.state.endpoints(&web(), job).map(|a| a.version).collect()
    };
    assert_eq!(serving(&cluster), [1, 1, 1]);
    let deployment = cluster.deployment("web").id;
    cluster.apply(Command::PromoteDeployment { deployment });
    assert_eq!(serving(&cluster), [2, 2, 2]);
    // The next version comes beside what serves now, not beside what it replaced.
    let mut newer = new;
    newer.tasks[0].command = vec!["third".into()];
    cluster.submit(newer);
    for _ in 0..20 {
        assert_eq!(serving(&cluster), [2, 2, 2]);
        cluster.step(|_| AllocStatus::Running);
    }
}

#[test]
fn a_full_node_holds_up_no_system_job() {
    let mut cluster = Cluster::new(3);
    let mut spec = job("logs", JobKind::System);
    cluster.submit(spec.clone());
    cluster.settle();
    // The new node is full before the job gets there.
    let mut big = service("big", 1);
    big.tasks[0].resources.cpu_milli = Some(4000);
    cluster.apply(Command::RegisterNode { spec: Node::example("n9").spec });
    cluster.apply(Command::SetEligibility { node: "n9".parse().unwrap(), eligible: false });
    cluster.settle();
    big.placement.require = vec!["node.name == n9".parse().unwrap()];
    cluster.submit(big);
    cluster.apply(Command::SetEligibility { node: "n9".parse().unwrap(), eligible: true });
    let mut placements = crate::state::Placements::default();
    placements.push(crate::state::Placement {
        job: "big".parse().unwrap(),
        version: 1,
        index: 0,
        node: "n9".parse().unwrap(),
        ports: vec![20_000],
        gpus: Vec::new(),
        previous: None,
    });
    cluster.apply(Command::Place(Box::new(placements)));
    cluster.settle();
    assert_eq!(cluster.running("logs").len(), 3);
    spec.tasks[0].command = vec!["better".into()];
    cluster.submit(spec);
    cluster.settle();
    assert!(cluster.running("logs").iter().all(|a| a.version == 2));
    assert_eq!(cluster.deployment("logs").status, DeploymentStatus::Successful);
}

#[test]
fn a_system_job_that_was_given_up_is_mended_by_the_next_version() {
    let mut cluster = Cluster::new(2);
    let mut spec = job("logs", JobKind::System);
    spec.reschedule.attempts = Some(0);
    cluster.submit(spec.clone());
    for _ in 0..10 {
        cluster.step(|_| AllocStatus::Failed);
        cluster.now = cluster.now + Millis::from_secs(60);
    }
    assert!(cluster.state.allocs().all(|a| a.gave_up));
    spec.tasks[0].command = vec!["better".into()];
    cluster.submit(spec);
    cluster.settle();
    assert_eq!(cluster.running("logs").iter().filter(|a| a.available()).count(), 2);
}

#[test]
fn the_first_replica_tells_for_all_whether_a_version_without_checks_runs() {
    let (mut old, mut new) = web_and_its_next(4, UpdatePolicy::default());
    old.update.min_healthy = old.min_healthy_default();
    new.update.min_healthy = new.min_healthy_default();
    assert_eq!(new.update.min_healthy, Millis::from_secs(1));
    let mut cluster = Cluster::new(3);
    cluster.submit(old);
    cluster.live_through(Millis::from_secs(5));
    cluster.submit(new);
    let begun = cluster.now;
    while cluster.deployment("web").active() {
        let busy = cluster.step(|_| AllocStatus::Running);
        let ready = cluster.running("web").iter().filter(|a| a.version == 2 && a.ready).count();
        assert!(ready <= 1 || cluster.now.since(begun) >= Millis::from_secs(1));
        cluster.now = cluster.now + Millis(if busy { 10 } else { 100 });
    }
    assert!(cluster.now.since(begun) < Millis::from_secs(2), "one second for all, not for each");
}
