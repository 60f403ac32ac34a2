//! Checks of tasks against servers that behave as each test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use orch::agent::RuntimeChoice;
use orch::model::allocation::{AllocReport, AllocStatus, Assignment, CheckResult, Health};
use orch::model::job::TaskRuntime::Process;
use orch::model::job::{HealthCheck, PortSpec, Probe, Protocol};
use orch::model::time::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::leader::Leader;
use super::{Agent, image, service, shell, task};
use crate::support::docker::{docker, need_image};

/// A server that answers each request with one status, or never.
#[derive(Clone)]
struct Page {
    port: u16,
    status: Arc<AtomicU16>,
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    /// Requests by path.
    paths: Arc<Mutex<BTreeMap<String, usize>>>,
}

const NEVER: u16 = 0;

impl Page {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = Self {
            port: listener.local_addr().unwrap().port(),
            status: Arc::new(AtomicU16::new(status)),
            open: Arc::default(),
            most_open: Arc::default(),
            asked: Arc::default(),
            paths: Arc::default(),
        };
        let serves = page.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serves.clone().answer(stream));
            }
        });
        page
    }

    async fn answer(self, mut stream: tokio::net::TcpStream) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..read]).into_owned();
        if let Some(path) = text.split(' ').nth(1) {
            *self.paths.lock().unwrap().entry(path.to_owned()).or_default() += 1;
        }
        let status = self.status.load(Ordering::SeqCst);
        if status == NEVER {
            // Until the caller gives up.
            while !matches!(stream.read(&mut request).await, Ok(0) | Err(_)) {}
        } else {
            let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

fn http(path: &str) -> HealthCheck {
    let probe = Probe::Http { path: path.to_owned(), port: "http".parse().unwrap() };
    quick(probe)
}

/// Each 100 ms, and twice in a row counts.
fn quick(probe: Probe) -> HealthCheck {
    HealthCheck { interval: Millis(100), retries: 2, successes: 2, ..HealthCheck::new(probe) }
}

/// A process that only waits; what is checked is on that port.
fn on_port(id: u64, port: u16) -> Assignment {
    let mut web = task("web", Process, shell("exec sleep 600"));
    web.stop_grace = Millis(0);
    web.ports = vec![PortSpec {
        name: "http".parse().unwrap(),
        container: None,
        host: Some(port),
        protocol: Protocol::Tcp,
    }];
    let mut order = service(id, vec![web]);
    order.grant.ports.insert("http".parse().unwrap(), port);
    Arc::make_mut(&mut order.spec).restart.attempts = 0;
    order
}

fn with_readiness(mut order: Assignment, check: HealthCheck) -> Assignment {
    Arc::make_mut(&mut order.spec).tasks[0].readiness = Some(check);
    order
}

fn with_liveness(mut order: Assignment, check: HealthCheck) -> Assignment {
    Arc::make_mut(&mut order.spec).tasks[0].healthcheck = Some(check);
    order
}

fn readiness(report: &AllocReport) -> Option<&CheckResult> {
    report.tasks.values().next()?.readiness.as_ref()
}

fn not_ready(report: &AllocReport, reason: &str) -> bool {
    !report.ready
        && readiness(report).is_some_and(|result| !result.passing && result.message == reason)
}

fn pid(report: &AllocReport) -> Option<String> {
    report.tasks.values().next()?.container_id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_comes_and_goes_and_nothing_is_restarted() {
    let (leader, page) = (Leader::start().await, Page::start(503).await);
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let order = with_readiness(on_port(1, page.port), http("/ready?a=1"));
    leader.order(&[order], &[], &[]).await;
    // Told although it has never been ready.
    let first =
        leader.report_that(1, "not ready", |r| not_ready(r, "GET /ready?a=1 answered 503")).await;
    assert_eq!((first.status, first.health), (AllocStatus::Running, Health::Healthy));
    assert_eq!(first.message, "not ready: GET /ready?a=1 answered 503");
    page.set(204);
    let report = leader.report_that(1, "ready", |report| report.ready).await;
    assert!(readiness(&report).unwrap().message.is_empty() && report.message.is_empty());
    page.set(500);
    let report =
        leader.report_that(1, "unready", |r| not_ready(r, "GET /ready?a=1 answered 500")).await;
    assert_eq!((report.status, pid(&report)), (AllocStatus::Running, pid(&first)));
    assert_eq!(report.tasks.values().map(|task| task.restarts).sum::<u32>(), 0);
    page.set(301);
    leader.report_that(1, "ready again", |report| report.ready).await;
    assert_eq!(page.paths.lock().unwrap().keys().collect::<Vec<_>>(), ["/ready?a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_check_is_one_in_flight() {
    let (leader, page) = (Leader::start().await, Page::start(NEVER).await);
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let check = HealthCheck { timeout: Millis(300), ..http("/slow") };
    let order = with_readiness(on_port(1, page.port), check);
    leader.order(&[order], &[], &[]).await;
    let reason = "GET /slow: no answer within 300ms";
    leader.report_that(1, "timed out", |report| not_ready(report, reason)).await;
    let before = page.asked.load(Ordering::SeqCst);
    crate::support::wait_until("more checks", crate::support::SHORT, || {
        let asked = page.asked.load(Ordering::SeqCst);
        if asked > before + 5 { Ok(()) } else { Err(asked.to_string()) }
    });
    assert_eq!(page.most_open.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_takes_no_connection_is_not_alive() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = quick(Probe::Tcp { port: "http".parse().unwrap() });
    leader.order(&[with_liveness(on_port(1, port), check)], &[], &[]).await;
    let report = leader.report_that(1, "healthy", |r| r.health == Health::Healthy).await;
    let liveness = report.tasks.values().next().unwrap().liveness.clone().unwrap();
    assert!(report.ready && liveness.passing);
    drop(listener);
    // It may not be started again, so the allocation has failed.
    let report = leader.report_that(1, "failed", |r| r.status == AllocStatus::Failed).await;
    let reason = format!("health check failed: connection refused on port {port}");
    assert_eq!((report.message, report.ready), (reason, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_answers_is_restarted_until_it_has_failed() {
    let (leader, page) = (Leader::start().await, Page::start(500).await);
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let mut order = with_liveness(on_port(1, page.port), http("/"));
    Arc::make_mut(&mut order.spec).restart.attempts = 1;
    leader.order(&[order], &[], &[]).await;
    let report = leader.report_that(1, "failed", |r| r.status == AllocStatus::Failed).await;
    assert_eq!(
        report.message,
        "gave up after 1 restart within 5m: health check failed: GET / answered 500"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_tells_the_end_of_what_it_printed() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let script = "i=0; while [ $i -lt 200 ]; do echo noise $i; i=$((i+1)); done; \
                  echo no database; echo so no answers >&2; exit 3";
    let check = quick(Probe::Command { command: shell(script) });
    leader.order(&[with_readiness(on_port(1, 1), check)], &[], &[]).await;
    let fails = |report: &AllocReport| readiness(report).is_some_and(|result| !result.passing);
    let report = leader.report_that(1, "not ready", fails).await;
    let message = &readiness(&report).unwrap().message;
    assert!(message.starts_with("sh -c i=0; while"), "{message}");
    assert!(message.contains(" ended with exit code 3: noise "), "{message}");
    assert!(message.ends_with("no database / so no answers"), "{message}");
    assert!(message.len() <= 512 && !message.contains('\n'), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_container_and_nothing_of_it_is_left() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    // The first one hangs, with a child; the others say no.
    let script = "test -e /tried || { touch /tried; sleep 8642; }; echo not yet; exit 1";
    let mut web = task("web", image(name), shell("while :; do sleep 0.2; done"));
    web.readiness = Some(HealthCheck {
        timeout: Millis(1000),
        ..quick(Probe::Command { command: shell(script) })
    });
    leader.order(&[service(1, vec![web])], &[], &[]).await;
    let reason = format!("sh -c {script} ended with exit code 1: not yet");
    let report = leader.report_that(1, "the reason", |r| not_ready(r, &reason)).await;
    let id = pid(&report).unwrap();
    crate::support::wait_until("the end of what hung", crate::support::SHORT, || {
        let processes = docker(&["top", &id, "-o", "pid,args"])?;
        if processes.contains("sleep 8642") { Err(processes) } else { Ok(()) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_is_asked_by_service() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let (health, service) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let check = |service: &str| {
        let port = "http".parse().unwrap();
        quick(Probe::Grpc { service: service.to_owned(), port })
    };
    let orders = [
        with_readiness(on_port(1, port), check("shop.Cart")),
        with_readiness(on_port(2, port), check("")),
    ];
    leader.order(&orders, &[], &[]).await;
    leader.report_that(2, "ready", |report| report.ready).await;
    let reason = "gRPC health of shop.Cart: the server knows no such service";
    leader.report_that(1, "no service", |report| not_ready(report, reason)).await;
    health.set_service_status("shop.Cart", tonic_health::ServingStatus::Serving).await;
    leader.report_that(1, "ready", |report| report.ready).await;
    health.set_service_status("shop.Cart", tonic_health::ServingStatus::NotServing).await;
    let reason = "gRPC health of shop.Cart is NOT_SERVING";
    leader.report_that(1, "not serving", |report| not_ready(report, reason)).await;
    server.abort();
    let _ = server.await;
    let reason = format!("gRPC health of the server: connection refused on port {port}");
    leader.report_that(2, "refused", |report| not_ready(report, &reason)).await;
    // A server of another kind.
    let page = Page::start(200).await;
    leader.order(&[with_readiness(on_port(3, page.port), check(""))], &[], &[]).await;
    let fails = |report: &AllocReport| readiness(report).is_some_and(|result| !result.passing);
    let report = leader.report_that(3, "no gRPC", fails).await;
    let message = &readiness(&report).unwrap().message;
    let port = page.port;
    let told = [
        format!("gRPC health of the server: what port {port} answers is not gRPC"),
        format!("gRPC health of the server: connection reset on port {port}"),
    ];
    assert!(told.contains(message), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_without_a_listener_takes_no_connection() {
    let name = need_image();
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Docker);
    let script = "while ! test -e /go; do sleep 0.1; done; exec httpd -f -p 80";
    let mut web = task("web", image(name), shell(script));
    let port = super::free_port();
    web.ports = vec![PortSpec {
        name: "http".parse().unwrap(),
        container: Some(80),
        host: None,
        protocol: Protocol::Tcp,
    }];
    web.readiness = Some(quick(Probe::Tcp { port: "http".parse().unwrap() }));
    let mut order = service(1, vec![web]);
    order.grant.ports.insert("http".parse().unwrap(), port);
    leader.order(&[order], &[], &[]).await;
    let fails = |report: &AllocReport| readiness(report).is_some_and(|result| !result.passing);
    let report = leader.report_that(1, "not ready", fails).await;
    let message = &readiness(&report).unwrap().message;
    assert!(!report.ready && message.ends_with("nothing listens behind it"), "{message}");
    docker(&["exec", &pid(&report).unwrap(), "touch", "/go"]).unwrap();
    leader.report_that(1, "ready", |report| report.ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_reports_at_a_pace_and_says_the_truth_last() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let mut order = service(1, vec![task("web", Process, shell("exit 7"))]);
    {
        let restart = &mut Arc::make_mut(&mut order.spec).restart;
        restart.attempts = 60;
        (restart.delay_min, restart.delay_max) = (Millis(0), Millis(0));
    }
    let began = std::time::Instant::now();
    leader.order(&[order], &[], &[]).await;
    let report = leader.report_that(1, "failed", |r| r.status == AllocStatus::Failed).await;
    assert_eq!(report.message, "gave up after 60 restarts within 5m: exit code 7");
    assert_eq!(report.tasks.values().next().unwrap().restarts, 60);
    // A burst, one each second, and the last; without a pace there would be three each restart.
    let most = 5 + usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(leader.said(1) <= most, "{} reports, {most} at most", leader.said(1));
}
