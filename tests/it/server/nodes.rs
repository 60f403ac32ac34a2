//! Nodes are lost and come back; who decides it is the planner, who notices is this room.

use orch::model::allocation::{AllocStatus, Assignment};
use orch::model::node::NodeState;
use orch::model::time::Millis;
use orch::server::Config;
use orch::state::codec;
use tonic::Code;

use super::fake_agent::{FakeAgent, node, running};
use super::{config, one};

fn impatient() -> Config {
    Config { node_timeout: Millis(400), heartbeat: Millis(50), ..config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_silent_node_is_placed_elsewhere() {
    let server = one(impatient()).await;
    let mut silent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    silent.sync().await;
    server.run(1).await;
    let order = silent.order_to_run().await;
    let sequence = silent.report(&[running(&order)]).await;
    silent.acknowledged(sequence).await;

    let other = FakeAgent::attach(&server.addr, &node("n2")).await.unwrap().live();
    let state = server
        .state(|state| state.allocs_on(&"n2".parse().unwrap()).any(|alloc| alloc.wanted()))
        .await;
    assert_eq!(state.node(&"n1".parse().unwrap()).unwrap().state, NodeState::Lost);
    assert_eq!(state.alloc(order.id).unwrap().status, AllocStatus::Lost);
    assert_eq!(silent.end().await.code(), Code::Aborted);

    // It comes back with what it ran: that goes on, and the replacement ends.
    let mut back = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    let sync = back.sync().await;
    assert_eq!((sync.run.len(), sync.stop.len()), (1, 0));
    let again: Assignment = codec::from_bytes(&sync.run[0]).unwrap();
    assert_eq!(again.id, order.id);
    let sequence = back.report(&[running(&again)]).await;
    back.acknowledged(sequence).await;
    let back = back.live();
    let state = server
        .state(|state| state.allocs_on(&"n2".parse().unwrap()).all(|alloc| !alloc.wanted()))
        .await;
    assert!(state.alloc(order.id).unwrap().available());
    back.abort();
    other.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_lost_its_line_keeps_its_work() {
    let server = one(config()).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    server.run(2).await;
    let orders = agent.orders().await;
    assert_eq!(orders.run.len(), 2);
    drop(agent);
    let mut back = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    let sync = back.sync().await;
    assert_eq!(sync.run, orders.run);
    let state = server.consensus.views().borrow().state.clone();
    assert_eq!(state.node(&"n1".parse().unwrap()).unwrap().state, NodeState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_is_placed_when_a_node_comes() {
    let server = one(config()).await;
    server.run(3).await;
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    assert_eq!(agent.orders().await.run.len(), 3);
    server.state(|state| state.allocs().count() == 3).await;
}
