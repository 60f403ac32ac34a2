//! Without a server.

use super::*;

fn cut_off_after(seconds: u64) -> Assignment {
    let mut order = service(1, 1);
    let spec = Arc::make_mut(&mut order.spec);
    spec.disconnect.stop_after = Some(Millis::from_secs(seconds));
    order
}

fn line_down(bench: &mut Bench) {
    bench.hear(Event::LineDown { silent_for: Millis(3000) });
}

#[test]
fn what_may_not_run_without_a_server_ends_and_begins_again_with_one() {
    let mut bench = synced();
    bench.order(vec![cut_off_after(30), service(2, 1)], Vec::new());
    bench.settle();
    bench.world.now = 10_000;
    line_down(&mut bench);
    // Lines that don't come up change nothing.
    bench.pass(20_000);
    line_down(&mut bench);
    assert!(bench.runs(&key(1, "web")));
    bench.pass(60_000);
    assert_eq!(bench.world.stopped_at, Some(37_000), "thirty seconds after it was last heard");
    assert!(!bench.runs(&key(1, "web")) && bench.runs(&key(2, "web")));
    let report = bench.report(1);
    assert_eq!((report.status, report.ready), (AllocStatus::Starting, false));
    assert_eq!(report.message, "stopped: no server was heard for 30s");

    bench.sync(vec![cut_off_after(30), service(2, 1)]);
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.ready), (AllocStatus::Running, true));
    assert_eq!((report.restarts(), report.message.as_str()), (0, ""));
    // With a server for long.
    bench.pass(600_000);
    assert!(bench.runs(&key(1, "web")));
}

#[test]
fn what_is_not_wanted_when_the_server_is_back_stays_ended() {
    let mut bench = synced();
    bench.order(vec![cut_off_after(30)], Vec::new());
    bench.settle();
    line_down(&mut bench);
    bench.pass(60_000);
    let mut everything = Everything::default();
    everything.stop.push((AllocId(1), 2));
    bench.hear(Event::Sync(everything));
    bench.settle();
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
    assert_eq!(bench.world.started, 1);
}

#[test]
fn a_server_that_is_back_in_time_is_all_that_counts() {
    let mut bench = synced();
    bench.order(vec![cut_off_after(30)], Vec::new());
    bench.settle();
    for _ in 0..10 {
        line_down(&mut bench);
        bench.pass(20_000);
        bench.sync(vec![cut_off_after(30)]);
    }
    assert_eq!(bench.world.stopped_at, None);
    // While it is on its way down it is wanted once more.
    line_down(&mut bench);
    let deadline = bench.converge.next_deadline(Timestamp(bench.world.now)).unwrap();
    bench.world.now = deadline.0;
    bench.hear(Event::Tick);
    assert_eq!(bench.waiting.len(), 1, "{:?}", bench.waiting);
    bench.sync(vec![cut_off_after(30)]);
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.restarts()), (AllocStatus::Running, 0));
}

#[test]
fn a_new_agent_goes_on_counting() {
    let mut bench = synced();
    bench.order(vec![cut_off_after(30)], Vec::new());
    bench.settle();
    bench.world.now = 3000;
    line_down(&mut bench);
    bench.pass(20_000);
    bench.restart();
    bench.list();
    bench.pass(60_000);
    assert_eq!(bench.world.stopped_at, Some(30_000));
    // And keeps it down.
    bench.restart();
    bench.list();
    bench.pass(60_000);
    assert!(!bench.runs(&key(1, "web")));
    bench.sync(vec![cut_off_after(30)]);
    bench.settle();
    assert!(bench.runs(&key(1, "web")));
}
