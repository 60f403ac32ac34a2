//! Every metric's name, in one file. Names follow Prometheus: `orch_`, unit last, `_total` for
//! counters.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// A metric's name is used twice or malformed.
pub use prometheus::Error;

/// The metrics of one process. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Raft's term.
    pub raft_term: IntGauge,
    /// 1 while this server leads.
    pub raft_is_leader: IntGauge,
    /// Times the leader changed, as seen here.
    pub raft_leader_changes: IntCounter,
    /// Last log index written here.
    pub raft_last_log_index: IntGauge,
    /// Last log index applied here.
    pub raft_applied_index: IntGauge,
    /// From proposal to applied, on the leader.
    pub raft_commit_seconds: Histogram,
    /// One write of the log made durable.
    pub raft_fsync_seconds: Histogram,
    /// Requests in one log entry.
    pub raft_batch_requests: Histogram,
    /// Clients of ZooKeeper's protocol connected here.
    pub zk_connections: IntGauge,
    /// Watches of such clients set here.
    pub zk_watches: IntGauge,
    /// Requests of such clients in one command.
    pub zk_batch_requests: Histogram,
    /// Commands applied, by kind.
    pub commands_applied: IntCounterVec,
    /// One pass of the planners.
    pub planner_pass_seconds: Histogram,
    /// Replicas that fit nowhere, by reason.
    pub scheduler_pending: IntGaugeVec,
    /// Allocations placed.
    pub scheduler_placed: IntCounter,
    /// Allocations, by status.
    pub allocations: IntGaugeVec,
    /// Nodes, by state.
    pub nodes: IntGaugeVec,
    /// Agents connected to this server.
    pub agents_connected: IntGauge,
    /// From order to running, as agents say.
    pub agent_start_seconds: Histogram,
    /// REST requests, by method, route and status class.
    pub api_requests: IntCounterVec,
    /// A REST request, until its answer begins.
    pub api_request_seconds: Histogram,
    /// Event streams open.
    pub api_event_streams: IntGauge,
}

/// From 50 µs to about 13 s, doubling.
fn latency_buckets() -> Vec<f64> {
    (0..18).map(|i| 0.000_05 * f64::from(1 << i)).collect()
}

impl Metrics {
    /// A fresh set.
    ///
    /// # Errors
    /// Never in practice: a name that is used twice or malformed would be found by the first test.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let sizes = (0..13).map(|i| f64::from(1 << i)).collect::<Vec<f64>>();
        Ok(Self {
            raft_term: gauge("orch_raft_term", "Raft's term")?,
            raft_is_leader: gauge("orch_raft_is_leader", "1 while this server leads")?,
            raft_leader_changes: counter(
                "orch_raft_leader_changes_total",
                "Times the leader changed, as seen by this server",
            )?,
            raft_last_log_index: gauge("orch_raft_last_log_index", "Last log index written")?,
            raft_applied_index: gauge("orch_raft_applied_index", "Last log index applied")?,
            raft_commit_seconds: histogram(
                "orch_raft_commit_seconds",
                "From proposal to applied, on the leader",
                latency_buckets(),
            )?,
            raft_fsync_seconds: histogram(
                "orch_raft_fsync_seconds",
                "One write of the log made durable",
                latency_buckets(),
            )?,
            raft_batch_requests: histogram(
                "orch_raft_batch_requests",
                "Requests in one log entry",
                sizes.clone(),
            )?,
            zk_connections: gauge("orch_zk_connections", "ZooKeeper clients connected here")?,
            zk_watches: gauge("orch_zk_watches", "Watches of ZooKeeper clients set here")?,
            zk_batch_requests: histogram(
                "orch_zk_batch_requests",
                "Requests of ZooKeeper clients in one command",
                sizes,
            )?,
            commands_applied: counters(
                "orch_commands_applied_total",
                "Commands applied, by kind",
                &["command"],
            )?,
            planner_pass_seconds: histogram(
                "orch_scheduler_decision_seconds",
                "One pass of the planners",
                latency_buckets(),
            )?,
            scheduler_pending: gauges(
                "orch_scheduler_pending_replicas",
                "Replicas that fit nowhere, by reason",
                &["reason"],
            )?,
            scheduler_placed: counter("orch_scheduler_placed_total", "Allocations placed")?,
            allocations: gauges("orch_allocations", "Allocations, by status", &["status"])?,
            nodes: gauges("orch_nodes", "Nodes, by state", &["state"])?,
            agents_connected: gauge("orch_agents_connected", "Agents connected to this server")?,
            agent_start_seconds: histogram(
                "orch_agent_start_seconds",
                "From order to running, as agents say",
                latency_buckets(),
            )?,
            api_requests: counters(
                "orch_api_requests_total",
                "REST requests, by method, route and status",
                &["method", "route", "status"],
            )?,
            api_request_seconds: histogram(
                "orch_api_request_seconds",
                "A REST request, until its answer begins",
                latency_buckets(),
            )?,
            api_event_streams: gauge("orch_api_event_streams", "Event streams open")?,
            registry,
        })
    }

    /// Prometheus' text format.
    ///
    /// # Errors
    /// If a collector fails.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
