//! Orders about what is not known here.

use super::*;

#[test]
fn an_order_to_stop_what_never_came_is_answered() {
    let mut bench = synced();
    bench.order(Vec::new(), vec![(9, 3)]);
    assert!(!bench.world.reports.contains_key(&AllocId(9)), "not before it was looked for");
    bench.settle();
    assert_eq!((bench.report(9).status, bench.report(9).generation), (AllocStatus::Stopped, 3));
    assert!(bench.converge.unlisted().is_empty());
}

#[test]
fn what_runs_without_being_known_has_ended_before_the_answer() {
    let mut bench = synced();
    bench.world.tasks.insert(key(9, "web"), ("stray".to_owned(), None));
    let mut everything = Everything::default();
    everything.stop.push((AllocId(9), 3));
    bench.hear(Event::Sync(everything));
    // The listing finds it; nothing has ended it yet.
    while let Some(at) = bench.waiting.iter().position(|a| matches!(a, Action::List { .. })) {
        bench.carry_out(at);
    }
    assert!(!bench.world.reports.contains_key(&AllocId(9)));
    assert_eq!(bench.converge.unlisted(), [RUNTIME].into(), "to be looked at again soon");
    bench.settle();
    assert!(bench.world.tasks.is_empty());
    bench.list();
    assert_eq!(bench.report(9).status, AllocStatus::Stopped);
    assert!(bench.converge.unlisted().is_empty());
}

#[test]
fn a_runtime_that_is_away_has_to_be_asked_first() {
    let mut bench = synced();
    bench.world.away = true;
    bench.hear(Event::Down { runtime: RUNTIME, message: "no answer".to_owned() });
    bench.order(Vec::new(), vec![(9, 3)]);
    bench.pass(600_000);
    assert!(!bench.world.reports.contains_key(&AllocId(9)));
    bench.world.away = false;
    bench.list();
    assert_eq!(bench.report(9).status, AllocStatus::Stopped);
}

#[test]
fn a_runtime_that_was_never_there_has_nothing() {
    let offered = [RUNTIME, "docker"].into();
    let mut bench = Bench::new();
    bench.converge = Converge::new(BTreeMap::new(), offered, Timestamp(0), 7);
    bench.list();
    bench.sync(Vec::new());
    bench.order(Vec::new(), vec![(9, 3)]);
    bench.settle();
    assert!(!bench.world.reports.contains_key(&AllocId(9)), "it may come yet");
    bench.pass(6_000);
    assert_eq!(bench.report(9).status, AllocStatus::Stopped);
}

#[test]
fn a_runtime_that_did_not_answer_once_is_asked_again() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    bench.world.away = true;
    bench.hear(Event::Changed { key: key(1, "web") });
    bench.settle();
    assert_eq!(bench.converge.unlisted(), [RUNTIME].into());
    bench.world.away = false;
    bench.list();
    bench.settle();
    assert_eq!(bench.report(1).status, AllocStatus::Running);
    assert!(bench.converge.unlisted().is_empty());
}
