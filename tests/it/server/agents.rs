//! Agents attach, get orders, report.

use std::time::Duration;

use orch::model::allocation::AllocStatus;
use orch::model::name::JobId;
use orch::model::node::NodeState;
use orch::model::time::Millis;
use orch::rpc::v1;
use orch::rpc::v1::agents_client::AgentsClient;
use orch::rpc::v1::{from_agent, to_agent};
use orch::server::Config;
use orch::state::{Command, codec};
use tonic::Code;
use tonic::transport::Endpoint;

use super::fake_agent::{self, FakeAgent, hello, node, running};
use super::{cluster, config, one, within};

fn web() -> JobId {
    "web".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_ordered_reported_and_stopped() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    assert_ne!(agent.welcome.cluster_id, 0);
    assert!(agent.welcome.term > 0);
    assert_eq!(agent.welcome.servers, std::slice::from_ref(&server.addr));
    assert_eq!(agent.sync().await, v1::Sync::default());
    assert_eq!(server.handle.connected(), 1);
    assert_eq!(server.metrics.agents_connected.get(), 1);

    server.run(1).await;
    let order = agent.order_to_run().await;
    assert_eq!((order.version, order.index), (1, 0));
    let sequence = agent.report(&[running(&order)]).await;
    agent.acknowledged(sequence).await;
    server.state(|state| state.alloc(order.id).is_some_and(|alloc| alloc.available())).await;
    assert_eq!(server.metrics.scheduler_placed.get(), 1);

    server.propose(Command::StopJob { job: web(), purge: true }).await;
    let orders = agent.orders().await;
    assert_eq!(orders.stop.len(), 1);
    assert!(orders.stop[0].generation > order.grant.generation);
    let mut stopped = running(&order);
    stopped.generation = orders.stop[0].generation;
    stopped.status = AllocStatus::Stopped;
    agent.report(&[stopped]).await;
    // Purged: the state forgets it, and so is the agent to.
    loop {
        if let Some(to_agent::Message::Orders(orders)) = agent.next().await.unwrap() {
            assert_eq!(orders.forget, [order.id.0]);
            break;
        }
    }
    server.state(|state| state.job(&web()).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_report_is_in_the_state() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    server.run(1).await;
    let order = agent.order_to_run().await;
    for number in 0..50 {
        let mut report = running(&order);
        report.message = format!("report {number}");
        let sequence = agent.report(&[report.clone()]).await;
        agent.acknowledged(sequence).await;
        let state = server.consensus.views().borrow().state.clone();
        assert_eq!(state.alloc(order.id).unwrap().message, report.message);
    }
    // Many at once: the last word counts, and its acknowledgement is for all.
    let mut last = 0;
    for number in 50..100 {
        let mut report = running(&order);
        report.message = format!("report {number}");
        last = agent.report(&[report]).await;
    }
    agent.acknowledged(last).await;
    let state = server.consensus.views().borrow().state.clone();
    assert_eq!(state.alloc(order.id).unwrap().message, "report 99");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_answered_and_kept_out_of_the_log() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    let before = server.consensus.views().borrow().applied_index;
    let stats = v1::NodeStats { memory_used: 5, start_millis: vec![250], ..Default::default() };
    let beat = v1::Heartbeat { sequence: 9, stats: Some(stats) };
    agent.say(from_agent::Message::Heartbeat(beat)).await;
    let answer = agent.next().await.unwrap();
    assert_eq!(answer, Some(to_agent::Message::Heartbeat(v1::HeartbeatReply { sequence: 9 })));
    let name = "n1".parse().unwrap();
    let usage = server.handle.usage(Some(&name)).await.unwrap();
    let info = &usage.nodes[&name];
    assert!(info.connected && !usage.is_suspect(info));
    assert_eq!(info.stats.as_ref().unwrap().memory_used, 5);
    assert_eq!(server.metrics.agent_start_seconds.get_sample_count(), 1);
    assert_eq!(server.consensus.views().borrow().applied_index, before);
    assert!(server.handle.usage(Some(&"n2".parse().unwrap())).await.unwrap().nodes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_measure_is_known_to_every_server() {
    let servers = cluster(3, Config { heartbeat: Millis(200), ..config() }).await;
    let mut agent = FakeAgent::attach(&servers[0].addr, &node("n1")).await.unwrap();
    agent.sync().await;
    let used = |alloc| v1::AllocUsage { alloc, cpu: 0.5, memory: 7, memory_limit: 9 };
    let too_many = orch::limits::HEARTBEAT_ALLOCS_MAX as u64 + 10;
    let stats = v1::NodeStats { allocs: (0..too_many).map(used).collect(), ..Default::default() };
    let beat = v1::Heartbeat { sequence: 1, stats: Some(stats) };
    agent.say(from_agent::Message::Heartbeat(beat)).await;
    agent.next().await.unwrap();
    let name = "n1".parse().unwrap();
    for member in &servers {
        let usage = within(member.handle.usage(None)).await.unwrap();
        assert_eq!((usage.heartbeat, usage.nodes.len()), (Millis(200), 1));
        let stats = usage.nodes[&name].stats.as_ref().unwrap();
        assert_eq!(stats.allocs.len(), orch::limits::HEARTBEAT_ALLOCS_MAX);
        assert_eq!(stats.allocs[3], used(3));
        assert_eq!(within(member.handle.usage(Some(&name))).await.unwrap().nodes.len(), 1);
        // It says nothing more, but its line is open: soon it is suspect everywhere.
        let suspect = async {
            loop {
                let usage = member.handle.usage(None).await.unwrap();
                if usage.is_suspect(&usage.nodes[&name]) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(suspect).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_lead_names_the_leader() {
    let servers = cluster(3, config()).await;
    let status = FakeAgent::attach(&servers[1].addr, &node("n1")).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.metadata().get("orch-leader").unwrap(), servers[0].addr.as_str());

    // The leader hands over: its agents are sent on.
    let mut agent = FakeAgent::attach(&servers[0].addr, &node("n1")).await.unwrap();
    agent.sync().await;
    within(servers[0].consensus.transfer_leadership(Some("s2"))).await.unwrap();
    let status = agent.end().await;
    assert!(matches!(status.code(), Code::FailedPrecondition | Code::Unavailable), "{status:?}");
    let mut agent = within(async {
        loop {
            // As an agent does: until the new leader takes it.
            match FakeAgent::attach(&servers[1].addr, &node("n1")).await {
                Ok(agent) => break agent,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    agent.sync().await;
    // It plans, too.
    servers[2].run(1).await;
    agent.order_to_run().await;
    assert_eq!(servers[0].handle.connected(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_sends_its_agents_away() {
    let servers = cluster(3, config()).await;
    let leader = &servers[0];
    let mut agent = FakeAgent::attach(&leader.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    leader.run(1).await;
    let order = agent.order_to_run().await;
    for other in &servers[1..] {
        other.consensus.stop_at_once().await;
    }
    // What the log of a majority does not have is not acknowledged.
    agent.report(&[running(&order)]).await;
    let status = loop {
        match agent.next().await {
            Ok(Some(to_agent::Message::ReportsAck(ack))) => panic!("{ack:?}"),
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let status = FakeAgent::attach(&leader.addr, &node("n1")).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(leader.handle.connected(), 0);
    let state = leader.consensus.views().borrow().state.clone();
    assert_eq!(state.alloc(order.id).unwrap().status, AllocStatus::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_of_an_agent_takes_the_first_ones_place() {
    let server = one(config()).await;
    let mut first = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    first.sync().await;
    let mut second = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    second.sync().await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    assert_eq!(server.handle.connected(), 1);
    server.run(1).await;
    second.order_to_run().await;

    // Another agent under the same name is refused.
    let mut other = node("n1");
    other.agent_id += 1;
    let status = FakeAgent::attach(&server.addr, &other).await.err().unwrap();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("--name"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_goodbye_has_left() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    server.run(1).await;
    let order = agent.order_to_run().await;
    // What it reported before is not lost.
    let mut stopped = running(&order);
    stopped.status = AllocStatus::Stopped;
    agent.report(&[stopped]).await;
    agent.say(from_agent::Message::Goodbye(v1::Goodbye {})).await;
    agent.end().await;
    let state = server
        .state(|state| {
            let node = state.node(&"n1".parse().unwrap());
            node.is_some_and(|node| node.state == NodeState::Left)
        })
        .await;
    assert_eq!(state.alloc(order.id).unwrap().status, AllocStatus::Stopped);
    assert_eq!(server.handle.connected(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_stream_and_nothing_else() {
    let server = one(config()).await;
    let refused = async |first: from_agent::Message| {
        let mut client = fake_agent::client(&server.addr).await;
        fake_agent::open(&mut client, first).await.err().unwrap().code()
    };
    use from_agent::Message::{Goodbye, Hello, Reports};
    assert_eq!(refused(Goodbye(v1::Goodbye {})).await, Code::InvalidArgument);
    let malformed = v1::Hello { node: vec![1, 2, 3].into(), ..Default::default() };
    assert_eq!(refused(Hello(malformed)).await, Code::InvalidArgument);
    let elsewhere = v1::Hello { cluster_id: 1, ..hello(&node("n1")) };
    assert_eq!(refused(Hello(elsewhere)).await, Code::PermissionDenied);
    let future = v1::Hello { term: u64::MAX, ..hello(&node("n1")) };
    assert_eq!(refused(Hello(future)).await, Code::Unavailable);

    let after_hello = async |message: from_agent::Message| {
        let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
        agent.say(message).await;
        agent.end().await.code()
    };
    assert_eq!(after_hello(Hello(hello(&node("n1")))).await, Code::InvalidArgument);
    let malformed = v1::Reports { sequence: 1, reports: vec![vec![0xff; 9].into()] };
    assert_eq!(after_hello(Reports(malformed)).await, Code::InvalidArgument);
    let empty = v1::Reports { sequence: 1, reports: Vec::new() };
    assert_eq!(after_hello(Reports(empty)).await, Code::InvalidArgument);
    let one = codec::to_bytes(&7_u8).unwrap();
    let many = v1::Reports { sequence: 1, reports: vec![one.into(); 513] };
    assert_eq!(after_hello(Reports(many)).await, Code::InvalidArgument);

    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    server.run(1).await;
    agent.order_to_run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    let server = one(config()).await;
    let mut other = FakeAgent::attach(&server.addr, &node("n2")).await.unwrap();
    other.sync().await;
    // A small window: what is not read stays with the server.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
    let deaf = FakeAgent::attach_through(AgentsClient::new(channel), &node("n1")).await.unwrap();
    assert_eq!(server.handle.connected(), 2);
    let beat = from_agent::Message::Heartbeat(v1::Heartbeat { sequence: 1, stats: None });
    let beat = v1::FromAgent { message: Some(beat) };
    // What it says is read until too many answers wait for it.
    let talk = async { while deaf.to.send(beat.clone()).await.is_ok() {} };
    let cut_off = async {
        while server.handle.connected() == 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(async {
        tokio::select! {
            () = cut_off => {}
            // Nobody takes its words any more; what is left is to see it cut off.
            () = async { talk.await; std::future::pending().await } => {}
        }
    })
    .await;
    server.propose(Command::SetEligibility { node: "n1".parse().unwrap(), eligible: false }).await;
    server.run(1).await;
    other.order_to_run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_agents_are_told_everything_anew() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    let mut saved = Vec::new();
    let before = server.consensus.views().borrow().state.clone();
    orch::state::snapshot::write(&before, &mut saved).unwrap();
    server.run(1).await;
    agent.order_to_run().await;

    let (length, checksum) = (saved.len() as u64, xxhash_rust::xxh3::xxh3_64(&saved));
    server.propose(Command::RestoreChunk { offset: 0, bytes: saved }).await;
    server.propose(Command::RestoreCommit { length, checksum }).await;
    assert_eq!(agent.sync().await, v1::Sync::default());
    server.run(1).await;
    agent.order_to_run().await;
}
