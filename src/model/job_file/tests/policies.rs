//! What a job asks for when things change or go wrong.

use super::*;

#[test]
fn without_a_check_a_replica_counts_after_a_second() {
    let cases = [
        ("replicas: 1", 1000),
        ("per: node", 1000),
        ("replicas: 1\nupdate: { max_parallel: 2 }", 1000),
        ("replicas: 1\nupdate: { deadline: 1s }", 500),
        ("replicas: 1\nupdate: { min_healthy: 0s }", 0),
        ("replicas: 1\nhealthcheck: { command: [a] }", 0),
        ("replicas: 1\nreadiness: { command: [a] }", 0),
        ("timeout: 1h", 0),
    ];
    for (text, wanted) in cases {
        let job = one(&format!("job: web\nimage: a\n{text}\n"));
        assert_eq!(job.update.min_healthy, Millis(wanted), "{text}");
    }
}

#[test]
fn a_batch_job_says_how_often_it_runs() {
    let batch = |timeout, completions, parallelism, retries| JobKind::Batch {
        timeout,
        completions,
        parallelism,
        retries,
    };
    for (keys, kind) in [
        ("completions: 5", batch(None, 5, 5, 0)),
        ("completions: 5\nparallelism: 2", batch(None, 5, 2, 0)),
        ("parallelism: 1", batch(None, 1, 1, 0)),
        ("retries: 3\ntimeout: 1s", batch(Some(Millis(1000)), 1, 1, 3)),
    ] {
        assert_eq!(one(&format!("job: a\nimage: b\n{keys}\n")).kind, kind);
    }
}

#[test]
fn the_strategy_of_an_update_follows_from_its_keys() {
    let soon = Promotion::After(Millis(0));
    let green = |promote, keep_old| UpdateStrategy::BlueGreen { promote, keep_old };
    let canary = |count, promote| UpdateStrategy::Canary { count, promote };
    for (keys, strategy) in [
        ("max_parallel: 2", UpdateStrategy::Rolling),
        ("strategy: rolling", UpdateStrategy::Rolling),
        ("canary: 2", canary(2, Promotion::Manual)),
        ("strategy: canary, promote: 10m", canary(1, Promotion::After(Millis(600_000)))),
        ("strategy: canary, canary: 3, promote: auto", canary(3, soon)),
        ("strategy: blue-green", green(soon, Millis::from_secs(300))),
        ("strategy: blue-green, promote: manual, keep_old: 0", green(Promotion::Manual, Millis(0))),
    ] {
        let job = one(&format!("job: a\nimage: b\nreplicas: 3\nupdate: {{ {keys} }}\n"));
        assert_eq!(job.update.strategy, strategy, "{keys}");
    }
    // Compose's names.
    let job = one("job: a\nimage: b\nreplicas: 3\nupdate: { parallelism: 2, order: stop-first }\n");
    assert_eq!((job.update.max_parallel, job.order()), (2, UpdateOrder::StopFirst));
}

#[test]
fn what_is_there_for_bad_times_reads() {
    let job = one(r#"
job: cart
image: b
replicas: 3
replicas_owner: autoscaler
ports: { rpc: 9000, http: 80 }
healthcheck: { grpc: "", port: rpc, successes: 2 }
readiness: { grpc: shop.Cart, port: 9000 }
reschedule: { attempts: unlimited, within: 24h, delay: 5s..5m }
disconnect: { replace_after: 1m, stop_after: 30s }
shutdown_delay: 500ms
"#);
    let port: PortName = "rpc".parse().unwrap();
    let grpc = |service: &str| Probe::Grpc { service: service.to_owned(), port: port.clone() };
    let task = &job.tasks[0];
    let alive = task.healthcheck.as_ref().unwrap();
    assert_eq!((&alive.probe, alive.successes), (&grpc(""), 2));
    assert_eq!(task.readiness.as_ref().unwrap().probe, grpc("shop.Cart"));
    assert_eq!((job.reschedule.attempts, job.reschedule.delay_max), (None, Millis(300_000)));
    assert_eq!(job.disconnect.replace_after, Millis(60_000));
    assert_eq!(job.disconnect.stop_after, Some(Millis(30_000)));
    assert_eq!(job.shutdown_delay, Millis(500));
    assert_eq!(job.replicas_owner.as_deref(), Some("autoscaler"));
}
