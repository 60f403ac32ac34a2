//! Sessions with agents: where they are attached, and through every other server.

use orch::model::allocation::Assignment;
use orch::model::time::Millis;
use orch::rpc::v1;
use orch::rpc::v1::session_frame::Frame;
use orch::rpc::v1::{session_request, to_agent};
use orch::server::{Config, Session, SessionError};
use tonic::Code;

use super::fake_agent::{self, FakeAgent, FakeSession, frame, node};
use super::{Member, cluster, config, one, within};

fn exec(order: &Assignment) -> v1::SessionRequest {
    let command = vec!["cat".into()];
    let exec = v1::ExecRequest { command, stdin: true, ..Default::default() };
    v1::SessionRequest {
        node: "n1".into(),
        alloc: order.id.0,
        task: String::new(),
        kind: Some(session_request::Kind::Exec(exec)),
    }
}

async fn agent_with_work(server: &Member) -> (FakeAgent, Assignment) {
    let mut agent = FakeAgent::attach(&server.addr, &node("n1")).await.unwrap();
    agent.sync().await;
    server.run(1).await;
    let order = agent.order_to_run().await;
    (agent, order)
}

/// Opens a session through `member` and answers it.
async fn open(
    member: &Member,
    agent: &mut FakeAgent,
    request: &v1::SessionRequest,
) -> (Session, FakeSession) {
    let (session, there) =
        tokio::join!(within(member.handle.open_session(request.clone())), agent.session());
    assert_eq!(there.request, *request);
    (session.unwrap(), there)
}

async fn talk(mut session: Session, mut there: FakeSession) {
    for number in 0..200_u32 {
        let bytes = number.to_be_bytes().to_vec();
        session.to.send(frame(Frame::Stdin(bytes.clone().into()))).await.unwrap();
        let Some(Frame::Stdin(heard)) = there.next().await else { panic!("input was expected") };
        there.send(Frame::Stdout(heard)).await;
        let echo = within(session.from.recv()).await.unwrap();
        assert_eq!(echo, frame(Frame::Stdout(bytes.into())));
    }
    there.send(Frame::Exit(v1::Exit { code: 3 })).await;
    let exit = within(session.from.recv()).await;
    assert_eq!(exit, Some(frame(Frame::Exit(v1::Exit { code: 3 }))));
    // Both sides see the end.
    assert_eq!(within(session.from.recv()).await, None);
    assert_eq!(there.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_through_any_server() {
    let servers = cluster(3, config()).await;
    let (mut agent, order) = agent_with_work(&servers[0]).await;
    for member in &servers {
        let (session, there) = open(member, &mut agent, &exec(&order)).await;
        talk(session, there).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_whoever_listens() {
    let servers = cluster(2, config()).await;
    let (mut agent, order) = agent_with_work(&servers[0]).await;
    for member in &servers {
        let (session, mut there) = open(member, &mut agent, &exec(&order)).await;
        // Nothing more to say is not the end; to listen no more is.
        drop(session.to);
        there.send(Frame::Stdout("still here".into())).await;
        let mut from = session.from;
        assert!(within(from.recv()).await.is_some());
        drop(from);
        assert_eq!(there.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_agent() {
    let servers = cluster(2, config()).await;
    let (mut agent, order) = agent_with_work(&servers[0]).await;
    for member in &servers {
        let (mut session, there) = open(member, &mut agent, &exec(&order)).await;
        drop(there);
        let last = within(session.from.recv()).await.unwrap();
        let Some(Frame::Error(error)) = last.frame else { panic!("an error was expected") };
        assert_eq!(error.code, "unreachable");
        assert!(error.message.contains("n1"), "{error:?}");
        assert_eq!(within(session.from.recv()).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let hasty = Config { session_open: Millis(300), ..config() };
    let servers = cluster(2, hasty).await;
    let (mut agent, order) = agent_with_work(&servers[0]).await;
    let good = exec(&order);
    let node: orch::model::name::NodeName = "n1".parse().unwrap();
    for member in &servers {
        let ask = async |request| within(member.handle.open_session(request)).await.unwrap_err();
        let unknown = v1::SessionRequest { alloc: 999, ..good.clone() };
        assert!(matches!(ask(unknown).await, SessionError::NotFound(_)));
        let elsewhere = v1::SessionRequest { node: "n2".into(), ..good.clone() };
        assert!(matches!(ask(elsewhere).await, SessionError::NotFound(_)));
        let nothing = v1::SessionRequest { kind: None, ..good.clone() };
        assert!(matches!(ask(nothing).await, SessionError::Invalid(_)));
        // The agent does not answer.
        let slow = SessionError::TooSlow { node: node.clone() };
        assert_eq!(ask(good.clone()).await, slow);
        let Some(to_agent::Message::OpenSession(open)) = agent.next().await.unwrap() else {
            panic!("an order to open a session was expected");
        };
        // It answers when nobody waits any more.
        let late = FakeSession::answer(&mut agent.client, open).await.err().unwrap();
        assert_eq!(late.code(), Code::NotFound);
    }
    drop(agent);
    let mut gone = within(servers[0].handle.open_session(good.clone())).await.unwrap_err();
    while !matches!(gone, SessionError::NotConnected { .. }) {
        assert!(matches!(gone, SessionError::TooSlow { .. }), "{gone:?}");
        gone = within(servers[0].handle.open_session(good.clone())).await.unwrap_err();
    }
    let gone = within(servers[1].handle.open_session(good)).await.unwrap_err();
    assert_eq!(gone, SessionError::NotConnected { node });
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_part_in_a_session_without_its_number() {
    let server = one(config()).await;
    let mut client = fake_agent::client(&server.addr).await;
    let open = v1::OpenSession { session: 1, request: None };
    let status = FakeSession::answer(&mut client, open).await.err().unwrap();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_counted_and_given_back() {
    let server = one(config()).await;
    let (mut agent, order) = agent_with_work(&server).await;
    // More in a row than can be open at once.
    for _ in 0..orch::limits::AGENT_SESSIONS_MAX + 10 {
        let (session, mut there) = open(&server, &mut agent, &exec(&order)).await;
        drop(session);
        assert_eq!(there.next().await, None);
    }
    let mut held = Vec::new();
    for _ in 0..orch::limits::AGENT_SESSIONS_MAX {
        held.push(open(&server, &mut agent, &exec(&order)).await);
    }
    let one_more = within(server.handle.open_session(exec(&order))).await.unwrap_err();
    assert!(matches!(one_more, SessionError::TooMany { .. }), "{one_more:?}");
}
