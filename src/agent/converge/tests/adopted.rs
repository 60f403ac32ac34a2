//! Containers of another scheduler's that are tasks to begin with.

use super::*;

const CONTAINER: &str = "mesos-1";

fn adopted(generation: u64) -> Assignment {
    let mut assignment = service(1, generation);
    let container = ("web".parse().unwrap(), CONTAINER.to_owned());
    assignment.grant.adopted = [container].into();
    assignment
}

/// An agent that was given a container that runs.
fn taken_over() -> Bench {
    let mut bench = synced();
    bench.world.tasks.insert(key(1, "web"), (CONTAINER.to_owned(), None));
    bench.order(vec![adopted(1)], Vec::new());
    bench.settle();
    bench
}

fn container(bench: &Bench) -> Option<String> {
    bench.report(1).tasks.values().next().unwrap().container_id.clone()
}

#[test]
fn what_runs_is_taken_over_and_never_started() {
    let mut bench = taken_over();
    assert_eq!((bench.report(1).status, bench.world.started), (AllocStatus::Running, 0));
    assert_eq!(container(&bench).as_deref(), Some(CONTAINER));
    // Listings that do not have it change nothing, nor does another agent on the same directory.
    for _ in 0..3 {
        bench.list();
        bench.settle();
    }
    bench.restart();
    bench.list();
    bench.settle();
    bench.sync(vec![adopted(1)]);
    bench.settle();
    assert_eq!((bench.report(1).status, bench.world.started), (AllocStatus::Running, 0));
    assert!(bench.report(1).tasks.values().all(|task| task.restarts == 0));
}

#[test]
fn an_agent_that_lost_its_memory_finds_it_again() {
    let mut bench = taken_over();
    bench.converge = Converge::new(BTreeMap::new(), [RUNTIME].into(), Timestamp(0), 7);
    bench.list();
    bench.sync(vec![adopted(1)]);
    bench.settle();
    assert_eq!((bench.report(1).status, bench.world.started), (AllocStatus::Running, 0));
}

#[test]
fn one_that_ends_is_replaced_and_removed() {
    for noticed in [true, false] {
        let mut bench = taken_over();
        bench.world.tasks.insert(key(1, "web"), (CONTAINER.to_owned(), Some(exit(137))));
        if noticed {
            bench.hear(Event::ContainerChanged { handle: CONTAINER.to_owned() });
        } else {
            bench.list();
        }
        let mut removed = Vec::new();
        while !bench.waiting.is_empty() {
            if let Action::RemoveStray { found, .. } = &bench.waiting[0] {
                removed.push((found.handle.clone(), found.running));
            }
            bench.carry_out(0);
        }
        assert_eq!(container(&bench).as_deref(), Some("h1"), "a new one, not the old one again");
        assert_eq!(removed, [(CONTAINER.to_owned(), false)]);
        assert_eq!(bench.report(1).restarts(), 1);
        // From now on it is as any other: the order still names the container that is gone.
        bench.restart();
        bench.list();
        bench.sync(vec![adopted(1)]);
        bench.settle();
        assert_eq!((container(&bench).as_deref(), bench.world.started), (Some("h1"), 1));
        bench.converge = Converge::new(BTreeMap::new(), [RUNTIME].into(), Timestamp(0), 7);
        bench.list();
        bench.sync(vec![adopted(1)]);
        bench.settle();
        assert_eq!((container(&bench).as_deref(), bench.world.started), (Some("h1"), 1));
    }
}

#[test]
fn one_that_is_gone_before_it_was_seen_is_started_as_its_own() {
    for end in [None, Some(exit(0))] {
        let mut bench = synced();
        if let Some(end) = end {
            bench.world.tasks.insert(key(1, "web"), (CONTAINER.to_owned(), Some(end)));
        }
        bench.order(vec![adopted(1)], Vec::new());
        bench.settle();
        assert_eq!(bench.report(1).status, AllocStatus::Running);
        assert_eq!((container(&bench).as_deref(), bench.world.started), (Some("h1"), 1));
    }
}

#[test]
fn a_stop_ends_it_and_what_is_left_is_removed_when_it_is_forgotten() {
    let mut bench = taken_over();
    bench.order(Vec::new(), vec![(1, 2)]);
    bench.pass(10_000);
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
    assert!(!bench.runs(&key(1, "web")));
    bench.hear(Event::Orders { run: Vec::new(), stop: Vec::new(), forget: vec![AllocId(1)] });
    bench.settle();
    assert!(bench.world.tasks.is_empty() && bench.world.dropped.contains(&AllocId(1)));
}
