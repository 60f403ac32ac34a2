//! An agent that says and does only what a test tells it to.

use std::collections::BTreeMap;
use std::time::Duration;

use orch::model::allocation::{AllocReport, AllocStatus, Assignment, Health};
use orch::model::node::NodeSpec;
use orch::model::resources::Resources;
use orch::rpc::v1;
use orch::rpc::v1::agents_client::AgentsClient;
use orch::rpc::v1::{from_agent, session_frame, to_agent};
use orch::state::codec;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::within;

pub fn node(name: &str) -> NodeSpec {
    NodeSpec {
        name: name.parse().unwrap(),
        agent_id: name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)),
        address: "127.0.0.1".into(),
        class: String::new(),
        attributes: BTreeMap::new(),
        resources: Resources { cpu_milli: 4000, memory: 8 << 30, disk: 100 << 30, gpu: 0 },
        runtimes: ["process".to_owned()].into(),
        volume_roots: Vec::new(),
        port_range: (20_000, 32_000),
        version: "0.1.0".into(),
    }
}

pub struct FakeAgent {
    pub client: AgentsClient<Channel>,
    pub to: mpsc::Sender<v1::FromAgent>,
    pub from: Streaming<v1::ToAgent>,
    pub welcome: v1::Welcome,
    sequence: u64,
}

pub async fn client(addr: &str) -> AgentsClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    AgentsClient::new(endpoint.connect().await.unwrap())
}

pub fn hello(spec: &NodeSpec) -> v1::Hello {
    let node = codec::to_bytes(spec).unwrap().into();
    v1::Hello { node, cluster_id: 0, term: 0 }
}

/// Opens a stream with `first` as its first message; the answers' stream comes back.
pub async fn open(
    client: &mut AgentsClient<Channel>,
    first: from_agent::Message,
) -> Result<(mpsc::Sender<v1::FromAgent>, Streaming<v1::ToAgent>), Status> {
    let (to, queue) = mpsc::channel(64);
    to.send(v1::FromAgent { message: Some(first) }).await.unwrap();
    let from = within(client.attach(ReceiverStream::new(queue))).await?.into_inner();
    Ok((to, from))
}

impl FakeAgent {
    pub async fn attach(addr: &str, spec: &NodeSpec) -> Result<FakeAgent, Status> {
        Self::attach_through(client(addr).await, spec).await
    }

    pub async fn attach_through(
        mut client: AgentsClient<Channel>,
        spec: &NodeSpec,
    ) -> Result<FakeAgent, Status> {
        let (to, from) = open(&mut client, from_agent::Message::Hello(hello(spec))).await?;
        let welcome = v1::Welcome::default();
        let mut agent = FakeAgent { client, to, from, welcome, sequence: 0 };
        match agent.next().await? {
            Some(to_agent::Message::Welcome(welcome)) => agent.welcome = welcome,
            other => panic!("a welcome was expected, not {other:?}"),
        }
        Ok(agent)
    }

    pub async fn say(&self, message: from_agent::Message) {
        self.to.send(v1::FromAgent { message: Some(message) }).await.unwrap();
    }

    /// The next message; none at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<to_agent::Message>, Status> {
        let message = within(self.from.message()).await?;
        Ok(message.map(|message| message.message.unwrap()))
    }

    /// Everything it is to run, which comes right after the welcome.
    pub async fn sync(&mut self) -> v1::Sync {
        match self.next().await.unwrap() {
            Some(to_agent::Message::Sync(sync)) => sync,
            other => panic!("a sync was expected, not {other:?}"),
        }
    }

    pub async fn orders(&mut self) -> v1::Orders {
        match self.next().await.unwrap() {
            Some(to_agent::Message::Orders(orders)) => orders,
            other => panic!("orders were expected, not {other:?}"),
        }
    }

    /// Orders for one allocation to run.
    pub async fn order_to_run(&mut self) -> Assignment {
        let orders = self.orders().await;
        assert_eq!(orders.run.len(), 1, "{orders:?}");
        codec::from_bytes(&orders.run[0]).unwrap()
    }

    /// Reports, and does not wait for the acknowledgement; its sequence comes back.
    pub async fn report(&mut self, reports: &[AllocReport]) -> u64 {
        self.sequence += 1;
        let reports = reports.iter().map(|report| codec::to_bytes(report).unwrap().into());
        let reports = v1::Reports { sequence: self.sequence, reports: reports.collect() };
        self.say(from_agent::Message::Reports(reports)).await;
        self.sequence
    }

    /// Reads until the acknowledgement of `sequence` or of a later one.
    pub async fn acknowledged(&mut self, sequence: u64) {
        loop {
            match self.next().await.unwrap() {
                Some(to_agent::Message::ReportsAck(ack)) if ack.sequence >= sequence => return,
                Some(_) => {}
                None => panic!("the stream ended before the acknowledgement"),
            }
        }
    }

    /// The status with which the stream ends.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    /// Answers the next order to open a session.
    pub async fn session(&mut self) -> FakeSession {
        loop {
            if let Some(to_agent::Message::OpenSession(open)) = self.next().await.unwrap() {
                return FakeSession::answer(&mut self.client, open).await.unwrap();
            }
        }
    }

    /// Sends heartbeats on and on, and reads what comes, until the stream ends.
    pub fn live(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        let beat = from_agent::Message::Heartbeat(v1::Heartbeat::default());
                        if self.to.send(v1::FromAgent { message: Some(beat) }).await.is_err() {
                            return;
                        }
                    }
                    message = self.from.message() => {
                        if !matches!(message, Ok(Some(_))) {
                            return;
                        }
                    }
                }
            }
        })
    }
}

pub fn running(order: &Assignment) -> AllocReport {
    AllocReport {
        id: order.id,
        generation: order.grant.generation,
        status: AllocStatus::Running,
        health: Health::Healthy,
        ready: true,
        tasks: BTreeMap::new(),
        message: String::new(),
    }
}

/// The agent's side of a session.
pub struct FakeSession {
    pub request: v1::SessionRequest,
    pub to: mpsc::Sender<v1::SessionFrame>,
    pub from: Streaming<v1::SessionFrame>,
}

pub fn frame(frame: session_frame::Frame) -> v1::SessionFrame {
    v1::SessionFrame { frame: Some(frame) }
}

impl FakeSession {
    pub async fn answer(
        client: &mut AgentsClient<Channel>,
        open: v1::OpenSession,
    ) -> Result<FakeSession, Status> {
        let (to, queue) = mpsc::channel(64);
        to.send(frame(session_frame::Frame::Session(open.session))).await.unwrap();
        let from = within(client.session(ReceiverStream::new(queue))).await?.into_inner();
        Ok(FakeSession { request: open.request.unwrap_or_default(), to, from })
    }

    pub async fn send(&self, sent: session_frame::Frame) {
        self.to.send(frame(sent)).await.unwrap();
    }

    /// The next frame; none when the other side has gone.
    pub async fn next(&mut self) -> Option<session_frame::Frame> {
        let message = within(self.from.message()).await.ok().flatten()?;
        message.frame
    }
}
