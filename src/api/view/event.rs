//! Events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// One thing that changed. Which of the fields are there depends on `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Counts events from 1 without a gap; `?since=` resumes after it.
    pub index: u64,
    /// When it was applied.
    pub at: Time,
    /// `job`, `deployment`, `allocation`, `node`, `variable` or `restored`.
    pub kind: String,
    /// Of a job: `created`, `updated`, `scaled`, `stopped`, `completed`, `failed`, `purged`; of an
    /// allocation: `placed`, `stopping`, `status`, `health`, `restarted`, `message`, `removed`; of
    /// a node: `joined`, `registered`, `state`, `eligibility`, `draining`, `removed`; of a
    /// variable: `written`, `deleted`; `restored`.
    pub change: String,
    /// Of a job, an allocation, a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Of a job or an allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Of a job: its version now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The allocation's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<String>,
    /// The deployment's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The copy's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
    /// Of an allocation or a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// State now, of an allocation or a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Health now, of an allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The variable's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// More about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A page of events, with `?follow=false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// Oldest first.
    pub items: Vec<EventRow>,
    /// `?since=` of the next page: every event up to it was looked at.
    pub next_since: u64,
}
