//! `POST /v1/jobs/{name}/adopt`: a new job whose first copies run already, under Mesos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extracted;

use super::context::{Context, project};
use super::error::Problem;
use super::extract::{IdempotencyKey, JsonBody, Params, Segment};
use super::view::adopt::{AdoptReply, AdoptRequest, AdoptTask, AdoptedTask, RefusedTask};
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, ProjectWrite, WriteHeaders};
use crate::limits::{ADOPT_TASKS_MAX, MESOS_TASK_ID_CHARS_MAX};
use crate::model::job::{JobSpec, Protocol};
use crate::model::job_file::{self, Format};
use crate::model::name::{JobId, JobName, NodeName};
use crate::model::node::Node;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{FindRequest, FoundContainer, SessionRequest};
use crate::state::{Adoption, Command, Reply, State};

/// Creates a job, and takes containers that run under Mesos over as its first copies, where they
/// are and without a restart. Each is looked for on its node first; with one that can't be taken
/// over nothing is changed.
#[utoipa::path(
    post, path = "/v1/jobs/{name}/adopt", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ProjectWrite, WriteHeaders),
    request_body = AdoptRequest,
    responses((status = 200, body = AdoptReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn adopt_job(
    Extracted(context): Extracted<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ProjectWrite>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(ask): JsonBody<AdoptRequest>,
) -> Result<Json<AdoptReply>, Problem> {
    let id = JobId { project: project(query.project.as_deref())?, name };
    let spec = spec(&ask, &id)?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let mut wanted = Vec::new();
    let mut refused = Vec::new();
    for task in &ask.tasks {
        match node_of(&view.state, &task.host) {
            Ok(node) => wanted.push((task, node)),
            Err(reason) => refused.push(refusal(task, reason)),
        }
    }
    let nodes: BTreeSet<NodeName> = wanted.iter().map(|(_, node)| node.clone()).collect();
    let mut containers = BTreeMap::new();
    for node in nodes {
        let tasks = wanted.iter().filter(|(_, place)| *place == node);
        let tasks = tasks.map(|(task, _)| task.task_id.clone()).collect();
        containers.insert(node.clone(), find(&context, &node, tasks).await);
    }
    let mut fit = Vec::new();
    for (task, node) in wanted {
        let found = containers.get(&node);
        match adoption(&spec, task, node, found, fit.len()) {
            Ok(adoption) => fit.push((task, adoption)),
            Err(reason) => refused.push(refusal(task, reason)),
        }
    }
    // One that does not fit must not hide the others.
    loop {
        let adoptions: Vec<Adoption> = fit.iter().map(|(_, adoption)| adoption.clone()).collect();
        let Some((place, reason)) = view.state.adoption_problem(&spec, &adoptions) else { break };
        let (task, _) = fit.remove(place);
        refused.push(refusal(task, reason));
        for (index, (_, adoption)) in fit.iter_mut().enumerate() {
            adoption.index = u32::try_from(index).unwrap_or(u32::MAX);
        }
    }
    let adoptions: Vec<Adoption> = fit.iter().map(|(_, adoption)| adoption.clone()).collect();
    let adopted = fit.iter().map(|(task, adoption)| adopted(&spec, task, adoption)).collect();
    let mut version = 0;
    if !ask.dry_run && refused.is_empty() {
        let command = Command::AdoptJob { spec: Arc::new(spec), adoptions };
        let Reply::Job { version: made, .. } = context.propose(key, command).await?.reply else {
            return Err(Problem::internal("the state answered something else than asked"));
        };
        version = made;
    }
    let JobId { project, name } = id;
    let (project, job) = (project.to_string(), name.to_string());
    Ok(Json(AdoptReply { project, job, version, adopted, refused }))
}

/// The one job of the request.
fn spec(ask: &AdoptRequest, id: &JobId) -> Result<JobSpec, Problem> {
    if ask.tasks.is_empty() || ask.tasks.len() > ADOPT_TASKS_MAX {
        return Err(Problem::invalid(format!("tasks: 1 to {ADOPT_TASKS_MAX} are taken over")));
    }
    let good = |text: &str| !text.is_empty() && text.len() <= MESOS_TASK_ID_CHARS_MAX;
    let mut seen = BTreeSet::new();
    for task in &ask.tasks {
        if !good(&task.task_id) || !good(&task.host) {
            return Err(Problem::invalid(format!(
                "tasks: task_id and host have 1 to {MESOS_TASK_ID_CHARS_MAX} bytes"
            )));
        }
        if !seen.insert(&task.task_id) {
            return Err(Problem::invalid(format!("tasks: {} is named twice", task.task_id)));
        }
    }
    let mut specs =
        job_file::read_in(&ask.file, Format::Yaml, &id.project).map_err(|problems| {
            let detail = "the job file is wrong; nothing was changed";
            Problem::of_input(detail, problems.into_iter().map(Into::into).collect())
        })?;
    match (specs.pop(), specs.is_empty()) {
        (Some(spec), true) if spec.id() == *id => Ok(spec),
        _ => Err(Problem::invalid(format!("file: it must hold one job, {id}"))),
    }
}

/// The node that Mesos knew by that name: by its own, its address, its host name, or the first part
/// of that.
fn node_of(state: &State, host: &str) -> Result<NodeName, String> {
    let short = |text: &str| text.split('.').next().unwrap_or(text).to_ascii_lowercase();
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let by: [&dyn Fn(&Node) -> bool; 3] = [
        &|node| node.name.as_str() == host || node.address == host,
        &|node| node.attributes.get("hostname").is_some_and(|name| name == host),
        &|node| {
            let name = node.attributes.get("hostname").map_or(node.name.as_str(), String::as_str);
            !is_address && (short(name) == short(host) || node.name.as_str() == short(host))
        },
    ];
    for is in by {
        let mut found = state.nodes().filter(|node| is(node));
        match (found.next(), found.next()) {
            (Some(node), None) => return Ok(node.name.clone()),
            (Some(one), Some(other)) => {
                return Err(format!("{host} may be node {} or {}", one.name, other.name));
            }
            (None, _) => {}
        }
    }
    Err(format!("no agent runs on {host}; `orch node ls` lists those that there are"))
}

/// What a node has of the tasks, by task; or why that is not known.
async fn find(
    context: &Context,
    node: &NodeName,
    mesos_tasks: Vec<String>,
) -> Result<BTreeMap<String, FoundContainer>, String> {
    let request = SessionRequest {
        node: node.to_string(),
        alloc: 0,
        task: String::new(),
        kind: Some(Kind::Find(FindRequest { mesos_tasks })),
    };
    let mut session =
        context.agents.open_session(request).await.map_err(|error| error.to_string())?;
    match session.from.recv().await.and_then(|frame| frame.frame) {
        Some(Frame::Found(found)) => {
            let by_task = found.containers.into_iter();
            Ok(by_task.map(|container| (container.mesos_task.clone(), container)).collect())
        }
        Some(Frame::Error(error)) => Err(error.message),
        _ => Err(format!("the agent of node {node} gave no answer")),
    }
}

/// A container as a copy of the job.
fn adoption(
    spec: &JobSpec,
    task: &AdoptTask,
    node: NodeName,
    found: Option<&Result<BTreeMap<String, FoundContainer>, String>>,
    index: usize,
) -> Result<Adoption, String> {
    let [only] = spec.tasks.as_slice() else {
        return Err("the job has several tasks, and a Mesos task is one container".to_owned());
    };
    let container = match found {
        Some(Ok(found)) => found.get(&task.task_id).ok_or_else(|| {
            format!("no container with MESOS_TASK_ID={} runs on node {node}", task.task_id)
        })?,
        Some(Err(why)) => return Err(why.clone()),
        None => return Err(format!("node {node} was not asked")),
    };
    let mut ports = Vec::new();
    for (i, port) in only.ports.iter().enumerate() {
        let published = container.ports.iter().find(|published| {
            let same = port.container.map(u32::from) == Some(published.inside);
            same && published.udp == (port.protocol == Protocol::Udp)
        });
        let published = published.and_then(|published| u16::try_from(published.host).ok());
        match published.or_else(|| task.ports.get(i).copied()).filter(|number| *number > 0) {
            Some(number) => ports.push(number),
            None => return Err(format!("which port of the host {} is, is not known", port.name)),
        }
    }
    Ok(Adoption {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        node,
        ports,
        containers: [(only.name.clone(), container.id.clone())].into(),
        origin: format!("MESOS_TASK_ID {}", task.task_id),
    })
}

fn adopted(spec: &JobSpec, task: &AdoptTask, adoption: &Adoption) -> AdoptedTask {
    let ports = spec.ports().zip(&adoption.ports);
    AdoptedTask {
        task_id: task.task_id.clone(),
        index: adoption.index,
        node: adoption.node.to_string(),
        container_id: adoption.containers.values().next().cloned().unwrap_or_default(),
        ports: ports.map(|(port, number)| (port.name.to_string(), *number)).collect(),
    }
}

fn refusal(task: &AdoptTask, reason: String) -> RefusedTask {
    RefusedTask { task_id: task.task_id.clone(), host: task.host.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::v1::FoundPort;

    fn spec_of(text: &str) -> JobSpec {
        job_file::read(text, Format::Yaml).unwrap().remove(0)
    }

    #[test]
    fn what_the_container_says_of_its_ports_counts() {
        let spec =
            spec_of("job: a\nreplicas: 2\nimage: a\nports: { web: 80, dns: 53/udp, raw: auto }");
        let port = |inside, host, udp| FoundPort { inside, host, udp };
        let container = FoundContainer {
            mesos_task: "a.1".into(),
            id: "c1".into(),
            image: "a".into(),
            ports: vec![port(80, 31_000, false), port(53, 31_009, false), port(53, 31_001, true)],
        };
        let found = Ok(BTreeMap::from([("a.1".to_owned(), container)]));
        let task = |id: &str, ports: &[u16]| AdoptTask {
            task_id: id.into(),
            host: "h".into(),
            ports: ports.to_vec(),
        };
        let node = || "n1".parse::<NodeName>().unwrap();
        let fits = adoption(&spec, &task("a.1", &[1, 2, 31_002]), node(), Some(&found), 1).unwrap();
        assert_eq!((fits.index, &fits.ports[..]), (1, &[31_000, 31_001, 31_002][..]));
        let unknown = adoption(&spec, &task("a.1", &[1, 2]), node(), Some(&found), 0);
        assert!(unknown.unwrap_err().contains("raw"));
        let missing = adoption(&spec, &task("a.2", &[]), node(), Some(&found), 0);
        assert!(missing.unwrap_err().contains("MESOS_TASK_ID=a.2"));
        let silent = adoption(&spec, &task("a.1", &[]), node(), Some(&Err("it sleeps".into())), 0);
        assert_eq!(silent.unwrap_err(), "it sleeps");
    }

    #[test]
    fn a_node_is_found_by_what_mesos_called_it() {
        let mut state = State::default();
        for (i, (name, address, hostname)) in [
            ("n1", "10.0.0.1", "web1.example.com"),
            ("n2", "10.0.0.2", "web2"),
            ("n3", "10.0.0.3", "web2.other"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut node = Node::example(name).spec;
            node.address = address.into();
            node.attributes = [("hostname".to_owned(), hostname.to_owned())].into();
            let stamp =
                crate::state::Stamp { index: i as u64 + 1, at: crate::model::time::Timestamp(1) };
            state.apply(stamp, &Command::RegisterNode { spec: node }.into()).reply.unwrap();
        }
        let of = |host: &str| node_of(&state, host).map(|node| node.to_string());
        for host in
            ["n1", "10.0.0.1", "web1.example.com", "web1", "WEB1.other.net", "n1.example.com"]
        {
            assert_eq!(of(host), Ok("n1".to_owned()), "{host}");
        }
        assert_eq!(of("web2"), Ok("n2".to_owned()));
        assert!(of("web2.example.com").unwrap_err().contains("n2 or n3"));
        assert!(of("10.0.0.9").unwrap_err().contains("no agent runs on 10.0.0.9"));
    }
}
