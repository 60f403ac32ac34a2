//! Events as they are shown.

use super::job::change_word;
use crate::api::view::event::EventRow;
use crate::model::name::{JobId, NodeName};
use crate::state::{AllocChange, DeploymentChange, Event, EventRecord, NodeChange};

/// Which events a reader wants.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Filter {
    /// Only of this job.
    pub(in crate::api) job: Option<JobId>,
    /// Only of this node.
    pub(in crate::api) node: Option<NodeName>,
}

impl Filter {
    /// Whether the reader wants it; that the state was replaced concerns everyone.
    pub(in crate::api) fn wants(&self, event: &Event) -> bool {
        let (job, node) = match event {
            Event::Restored => return true,
            Event::JobChanged { job, .. } | Event::DeploymentChanged { job, .. } => {
                (Some(job), None)
            }
            Event::AllocChanged { job, node, .. } => (Some(job), Some(node)),
            Event::NodeChanged { node, .. } => (None, Some(node)),
            Event::VariableChanged { .. } => (None, None),
        };
        self.job.as_ref().is_none_or(|wanted| job == Some(wanted))
            && self.node.as_ref().is_none_or(|wanted| node == Some(wanted))
    }
}

/// An event as a row.
pub(in crate::api) fn row(record: &EventRecord) -> EventRow {
    let bare = EventRow {
        index: record.index,
        at: record.at.into(),
        kind: String::new(),
        change: String::new(),
        project: None,
        job: None,
        version: None,
        allocation: None,
        deployment: None,
        replica: None,
        node: None,
        state: None,
        health: None,
        path: None,
        message: String::new(),
    };
    match &record.event {
        Event::JobChanged { job, version, change } => EventRow {
            kind: "job".to_owned(),
            change: change_word(*change).to_owned(),
            project: Some(job.project.to_string()),
            job: Some(job.name.to_string()),
            version: Some(*version),
            ..bare
        },
        Event::AllocChanged { alloc, job, index, node, change, status, health, message } => {
            EventRow {
                kind: "allocation".to_owned(),
                change: alloc_word(*change).to_owned(),
                project: Some(job.project.to_string()),
                job: Some(job.name.to_string()),
                allocation: Some(alloc.to_string()),
                replica: Some(*index),
                node: Some(node.to_string()),
                state: Some(status.word().to_owned()),
                health: Some(health.word().to_owned()),
                message: message.clone(),
                ..bare
            }
        }
        Event::NodeChanged { node, change, state, message } => EventRow {
            kind: "node".to_owned(),
            change: node_word(*change).to_owned(),
            node: Some(node.to_string()),
            state: Some(state.word().to_owned()),
            message: message.clone(),
            ..bare
        },
        Event::VariableChanged { project, path, deleted } => EventRow {
            kind: "variable".to_owned(),
            change: if *deleted { "deleted" } else { "written" }.to_owned(),
            project: Some(project.to_string()),
            path: Some(path.to_string()),
            ..bare
        },
        Event::DeploymentChanged { deployment, job, version, change, message } => EventRow {
            kind: "deployment".to_owned(),
            change: deployment_word(*change).to_owned(),
            project: Some(job.project.to_string()),
            job: Some(job.name.to_string()),
            version: Some(*version),
            deployment: Some(deployment.to_string()),
            message: message.clone(),
            ..bare
        },
        Event::Restored => {
            EventRow { kind: "restored".to_owned(), change: "restored".to_owned(), ..bare }
        }
    }
}

fn alloc_word(change: AllocChange) -> &'static str {
    match change {
        AllocChange::Placed => "placed",
        AllocChange::Stopping => "stopping",
        AllocChange::Status => "status",
        AllocChange::Health => "health",
        AllocChange::Restarted => "restarted",
        AllocChange::Message => "message",
        AllocChange::Removed => "removed",
        AllocChange::Moving => "moving",
        AllocChange::GaveUp => "gave up",
    }
}

fn deployment_word(change: DeploymentChange) -> &'static str {
    match change {
        DeploymentChange::Started => "started",
        DeploymentChange::Promoted => "promoted",
        DeploymentChange::Paused => "paused",
        DeploymentChange::Resumed => "resumed",
        DeploymentChange::Successful => "successful",
        DeploymentChange::Failed => "failed",
        DeploymentChange::Superseded => "superseded",
    }
}

fn node_word(change: NodeChange) -> &'static str {
    match change {
        NodeChange::Joined => "joined",
        NodeChange::Registered => "registered",
        NodeChange::State => "state",
        NodeChange::Eligibility => "eligibility",
        NodeChange::Draining => "draining",
        NodeChange::Removed => "removed",
    }
}
