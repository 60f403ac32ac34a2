//! What agents and other servers send is checked here before anything is done with it. Pure.

use tonic::Status;

use crate::limits::{
    ADOPT_TASKS_MAX, COMMAND_WORDS_MAX, FILE_PATH_BYTES_MAX, JOB_FILE_BYTES_MAX,
    LOG_TAIL_LINES_MAX, MAP_KEY_BYTES_MAX, MESOS_TASK_ID_CHARS_MAX, NAME_CHARS_MAX,
    NODE_ATTRIBUTES_MAX, NODE_GPUS_MAX, NODE_RUNTIMES_MAX, NODE_SPEC_BYTES_MAX,
    NODE_TEXT_CHARS_MAX, NODE_VOLUME_ROOTS_MAX, PATTERN_BYTES_MAX, REPORT_BYTES_MAX,
    REPORTS_PER_MESSAGE_MAX, TASKS_MAX,
};
use crate::model::allocation::AllocReport;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::rpc::v1;
use crate::rpc::v1::session_frame::Frame;
use crate::state::codec;

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// The host that an agent speaks for.
///
/// # Errors
/// `INVALID_ARGUMENT` if it can't be read or exceeds a bound.
pub(super) fn node_spec(bytes: &[u8]) -> Result<NodeSpec, Status> {
    if bytes.len() > NODE_SPEC_BYTES_MAX {
        let got = bytes.len();
        return Err(invalid(format!(
            "the node's description has {got} bytes; the most is {NODE_SPEC_BYTES_MAX}"
        )));
    }
    let spec: NodeSpec = codec::from_bytes(bytes)
        .map_err(|error| invalid(format!("the node's description can't be read: {error}")))?;
    if spec.agent_id == 0 {
        return Err(invalid("the agent's id can't be 0"));
    }
    let counts = [
        ("attributes", spec.attributes.len(), NODE_ATTRIBUTES_MAX),
        ("runtimes", spec.runtimes.len(), NODE_RUNTIMES_MAX),
        ("volume roots", spec.volume_roots.len(), NODE_VOLUME_ROOTS_MAX),
        ("GPUs", spec.resources.gpu as usize, NODE_GPUS_MAX as usize),
    ];
    for (what, got, max) in counts {
        if got > max {
            return Err(invalid(format!("a node has at most {max} {what}, not {got}")));
        }
    }
    let texts = [&spec.address, &spec.class, &spec.version];
    let texts = texts.into_iter().chain(&spec.volume_roots).chain(&spec.runtimes);
    if texts.chain(spec.attributes.values()).any(|text| text.len() > NODE_TEXT_CHARS_MAX) {
        return Err(invalid(format!(
            "a text in the node's description is longer than {NODE_TEXT_CHARS_MAX} bytes"
        )));
    }
    if spec.attributes.keys().any(|key| key.is_empty() || key.len() > MAP_KEY_BYTES_MAX) {
        return Err(invalid(format!(
            "the name of a node's attribute has 1 to {MAP_KEY_BYTES_MAX} bytes"
        )));
    }
    let (first, last) = spec.port_range;
    if first == 0 || first > last {
        return Err(invalid(format!("{first}-{last} is no range of ports")));
    }
    Ok(spec)
}

/// What an agent reports, each with the bytes it came in.
///
/// # Errors
/// `INVALID_ARGUMENT` if it can't be read or exceeds a bound.
pub(super) fn reports(message: &v1::Reports) -> Result<Vec<(AllocReport, usize)>, Status> {
    let count = message.reports.len();
    if count > REPORTS_PER_MESSAGE_MAX {
        return Err(invalid(format!(
            "{count} reports in one message; the most is {REPORTS_PER_MESSAGE_MAX}"
        )));
    }
    let read = |bytes: &bytes::Bytes| {
        if bytes.len() > REPORT_BYTES_MAX {
            let got = bytes.len();
            return Err(invalid(format!(
                "a report of {got} bytes is too large; the most is {REPORT_BYTES_MAX}"
            )));
        }
        let report = codec::from_bytes(bytes)
            .map_err(|error| invalid(format!("a report can't be read: {error}")))?;
        Ok((report, bytes.len()))
    };
    message.reports.iter().map(read).collect()
}

/// The node that a session is asked for.
///
/// # Errors
/// In words, if the request makes no sense or exceeds a bound.
pub(super) fn session_request(request: &v1::SessionRequest) -> Result<NodeName, String> {
    let node = request.node.parse().map_err(|error| format!("node {:?}: {error}", request.node))?;
    let find = match &request.kind {
        Some(v1::session_request::Kind::Find(find)) => Some(find),
        _ => None,
    };
    if (request.alloc == 0) != find.is_some() {
        return Err("a session needs an allocation, unless it looks for containers".into());
    }
    if let Some(find) = find {
        let good = |id: &String| !id.is_empty() && id.len() <= MESOS_TASK_ID_CHARS_MAX;
        let bounded = (1..=ADOPT_TASKS_MAX).contains(&find.mesos_tasks.len());
        return if bounded && find.mesos_tasks.iter().all(good) {
            Ok(node)
        } else {
            Err(format!(
                "1 to {ADOPT_TASKS_MAX} Mesos tasks can be looked for, each with 1 to \
                 {MESOS_TASK_ID_CHARS_MAX} bytes"
            ))
        };
    }
    if request.task.len() > NAME_CHARS_MAX {
        return Err(format!("a task's name has at most {NAME_CHARS_MAX} characters"));
    }
    match &request.kind {
        Some(v1::session_request::Kind::Find(_)) => Ok(node),
        None => Err("a session is for logs, a command, files or a port; none is asked for".into()),
        Some(v1::session_request::Kind::Logs(logs)) => match logs.tail {
            Some(lines) if lines > LOG_TAIL_LINES_MAX => {
                Err(format!("{lines} lines are too many; the most is {LOG_TAIL_LINES_MAX}"))
            }
            _ if logs.grep.len() > PATTERN_BYTES_MAX => {
                Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"))
            }
            _ if logs.after.len() > TASKS_MAX => {
                Err(format!("a job has at most {TASKS_MAX} tasks to go on reading"))
            }
            _ => Ok(node),
        },
        Some(v1::session_request::Kind::Exec(exec)) => {
            let bytes: usize = exec.command.iter().map(String::len).sum();
            if exec.command.is_empty() {
                Err("there is no command to carry out".into())
            } else if exec.command.len() > COMMAND_WORDS_MAX || bytes > JOB_FILE_BYTES_MAX {
                Err(format!(
                    "the command is too long; the most are {COMMAND_WORDS_MAX} words and \
                     {JOB_FILE_BYTES_MAX} bytes"
                ))
            } else {
                Ok(node)
            }
        }
        Some(v1::session_request::Kind::Files(files)) => {
            if files.path.is_empty() || files.path.len() > FILE_PATH_BYTES_MAX {
                Err(format!("a path has 1 to {FILE_PATH_BYTES_MAX} bytes"))
            } else {
                Ok(node)
            }
        }
        Some(v1::session_request::Kind::Forward(forward)) => {
            let by_name = !forward.name.is_empty() && forward.name.len() <= NAME_CHARS_MAX;
            if by_name || (1..=u32::from(u16::MAX)).contains(&forward.port) {
                Ok(node)
            } else {
                Err("a port is a number from 1 to 65535, or the name of one of the job's".into())
            }
        }
    }
}

/// Whether an agent may send such a frame in the course of a session.
pub(super) fn comes_from_agents(frame: &v1::SessionFrame) -> bool {
    matches!(
        frame.frame,
        Some(
            Frame::Logs(_)
                | Frame::Stdout(_)
                | Frame::StdoutEnd(_)
                | Frame::Stderr(_)
                | Frame::Opened(_)
                | Frame::File(_)
                | Frame::Found(_)
                | Frame::Exit(_)
                | Frame::Error(_)
        )
    )
}

/// Whether nothing comes after such a frame.
pub(super) fn is_last(frame: &v1::SessionFrame) -> bool {
    matches!(frame.frame, Some(Frame::Exit(_) | Frame::Error(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Node;
    use proptest::prelude::*;
    use tonic::Code;

    fn packed(spec: &NodeSpec) -> Vec<u8> {
        codec::to_bytes(spec).expect("encodes")
    }

    #[test]
    fn a_node_within_bounds_is_taken() {
        let spec = Node::example("n1").spec;
        assert_eq!(node_spec(&packed(&spec)).expect("valid"), spec);
    }

    #[test]
    fn a_node_beyond_a_bound_is_refused() {
        type Breaking = fn(&mut NodeSpec);
        let breaks: [Breaking; 7] = [
            |spec| spec.agent_id = 0,
            |spec| spec.resources.gpu = NODE_GPUS_MAX + 1,
            |spec| spec.port_range = (10, 9),
            |spec| spec.port_range = (0, 9),
            |spec| spec.class = "x".repeat(NODE_TEXT_CHARS_MAX + 1),
            |spec| spec.attributes = [(String::new(), String::new())].into(),
            |spec| {
                spec.attributes =
                    (0..=NODE_ATTRIBUTES_MAX).map(|i| (i.to_string(), String::new())).collect();
            },
        ];
        for (number, breaking) in breaks.iter().enumerate() {
            let mut spec = Node::example("n1").spec;
            breaking(&mut spec);
            let status = node_spec(&packed(&spec)).expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "break {number}");
        }
    }

    #[test]
    fn sessions_must_make_sense() {
        let logs = v1::LogsRequest::default();
        let good = v1::SessionRequest {
            node: "n1".into(),
            alloc: 1,
            task: String::new(),
            kind: Some(v1::session_request::Kind::Logs(logs)),
        };
        assert!(session_request(&good).is_ok());
        assert!(session_request(&v1::SessionRequest { node: "N".into(), ..good.clone() }).is_err());
        assert!(session_request(&v1::SessionRequest { alloc: 0, ..good.clone() }).is_err());
        assert!(session_request(&v1::SessionRequest { kind: None, ..good.clone() }).is_err());
        let exec = v1::session_request::Kind::Exec(v1::ExecRequest::default());
        assert!(session_request(&v1::SessionRequest { kind: Some(exec), ..good.clone() }).is_err());
        let find = |alloc, tasks: &[String]| {
            let find = v1::FindRequest { mesos_tasks: tasks.to_vec() };
            let kind = Some(v1::session_request::Kind::Find(find));
            session_request(&v1::SessionRequest { alloc, kind, ..good.clone() })
        };
        assert!(find(0, &["t.1".into()]).is_ok());
        assert!(find(1, &["t.1".into()]).is_err() && find(0, &[]).is_err());
        assert!(find(0, &["x".repeat(MESOS_TASK_ID_CHARS_MAX + 1)]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = node_spec(&bytes);
            let message = v1::Reports { sequence: 1, reports: vec![bytes.into()] };
            if let Err(status) = reports(&message) {
                prop_assert_eq!(status.code(), Code::InvalidArgument);
            }
        }
    }
}
