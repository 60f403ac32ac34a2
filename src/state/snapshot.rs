//! The bytes of a whole state: a magic word, a version, then rows, each MessagePack behind its
//! length. Rows of one table follow one another in the table's order, so that equal states have
//! equal bytes. New tables become new row variants; readers skip nothing silently.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::znodes::{self, RowReader, ZkRow};
use super::{EventRecord, Job, Remembered, Stamp, State};
use crate::limits::SNAPSHOT_ROW_BYTES_MAX;
use crate::model::allocation::Allocation;
use crate::model::deployment::Deployment;
use crate::model::name::{JobId, ServerName};
use crate::model::node::Node;
use crate::model::variable::{Variable, VariableKey};

const MAGIC: &[u8; 8] = b"ORCHSNAP";
const VERSION: u32 = 1;

/// A snapshot that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file or stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not a snapshot, or a damaged one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Written by a newer release.
    #[error("snapshot format {0} is newer than this release knows; upgrade this server")]
    Version(u32),
    /// Damaged.
    #[error("damaged snapshot: {0}")]
    Damaged(&'static str),
}

/// One row. Variants are only ever added.
#[derive(Serialize)]
enum RowRef<'s> {
    Head {
        cluster_id: u64,
        last: Stamp,
        next_alloc: u64,
        next_event: u64,
        next_deployment: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_variable: Option<u64>,
    },
    Job(&'s JobId, &'s Job),
    Node(&'s Node),
    Alloc(&'s Allocation),
    Variable(&'s VariableKey, &'s Variable),
    Reply(&'s str, &'s Remembered),
    Event(&'s EventRecord),
    Staged(#[serde(with = "serde_bytes")] &'s [u8]),
    RetiredServer(u64, &'s ServerName),
    Deployment(&'s Deployment),
    Zk(ZkRow),
    End {
        rows: u64,
    },
}

#[derive(Deserialize)]
enum Row {
    Head {
        cluster_id: u64,
        last: Stamp,
        next_alloc: u64,
        next_event: u64,
        #[serde(default)]
        next_deployment: u64,
        #[serde(default)]
        last_variable: Option<u64>,
    },
    Job(JobId, Job),
    Node(Node),
    Alloc(Allocation),
    Variable(VariableKey, Variable),
    Reply(String, Remembered),
    Event(EventRecord),
    Staged(#[serde(with = "serde_bytes")] Vec<u8>),
    RetiredServer(u64, ServerName),
    Deployment(Deployment),
    Zk(ZkRow),
    End {
        rows: u64,
    },
}

/// Writes all of `state`.
///
/// # Errors
/// When `out` does.
pub fn write(state: &State, out: &mut impl Write) -> Result<(), SnapshotError> {
    write_rows(state, true, out)
}

/// Writes all that a checksum of `state` has to cover.
///
/// # Errors
/// When `out` does.
pub(super) fn write_for_checksum(state: &State, out: &mut impl Write) -> Result<(), SnapshotError> {
    write_rows(state, false, out)
}

fn write_rows(state: &State, with_nodes: bool, out: &mut impl Write) -> Result<(), SnapshotError> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_be_bytes())?;
    let mut rows = 0;
    let mut put = |row: RowRef<'_>| -> Result<(), SnapshotError> {
        let bytes = codec::to_bytes(&row)?;
        out.write_all(&(bytes.len() as u32).to_be_bytes())?;
        out.write_all(&bytes)?;
        rows += 1;
        Ok(())
    };
    put(RowRef::Head {
        cluster_id: state.cluster_id,
        last: state.last,
        next_alloc: state.next_alloc,
        next_event: state.next_event,
        next_deployment: state.next_deployment,
        // Behind the log's own index it says nothing: the next variable gets a higher one anyway.
        last_variable: Some(state.last_variable).filter(|index| *index > state.last.index),
    })?;
    for (id, job) in &state.jobs {
        put(RowRef::Job(id, job))?;
    }
    for node in state.nodes.values() {
        put(RowRef::Node(node))?;
    }
    for alloc in state.allocs.values() {
        put(RowRef::Alloc(alloc))?;
    }
    for (key, variable) in &state.variables {
        put(RowRef::Variable(key, variable))?;
    }
    for key in &state.replies_order {
        if let Some(reply) = state.replies.get(key) {
            put(RowRef::Reply(key, reply))?;
        }
    }
    for event in &state.events {
        put(RowRef::Event(event))?;
    }
    for chunk in &state.staging.chunks {
        put(RowRef::Staged(chunk))?;
    }
    for (id, name) in &state.retired_servers {
        put(RowRef::RetiredServer(*id, name))?;
    }
    for deployment in state.deployments.values() {
        put(RowRef::Deployment(deployment))?;
    }
    znodes::write_all(state, with_nodes, |row| put(RowRef::Zk(row)))?;
    let before_end = rows;
    let bytes = codec::to_bytes(&RowRef::End { rows: before_end })?;
    out.write_all(&(bytes.len() as u32).to_be_bytes())?;
    out.write_all(&bytes)?;
    Ok(())
}

/// Reads a whole state.
///
/// # Errors
/// If `input` fails, or is no snapshot that this release can read.
pub fn read(input: &mut impl Read) -> Result<State, SnapshotError> {
    let mut magic = [0; 8];
    input.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(SnapshotError::Damaged("it does not begin as a snapshot does"));
    }
    let version = read_u32(input)?;
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let mut state = State::default();
    let mut count = 0;
    let mut trees = RowReader::default();
    loop {
        let length = read_u32(input)? as usize;
        if length > SNAPSHOT_ROW_BYTES_MAX {
            return Err(SnapshotError::Damaged("a row is too long"));
        }
        let mut bytes = Vec::new();
        // Grows with what is really there, not with what the length claims.
        input.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(SnapshotError::Damaged("it ends within a row"));
        }
        match codec::from_bytes(&bytes)? {
            Row::End { rows } if rows == count => return Ok(state),
            Row::End { .. } => return Err(SnapshotError::Damaged("rows are missing")),
            Row::Zk(row) => trees.put(&mut state, row).map_err(SnapshotError::Damaged)?,
            row => put_row(&mut state, row)?,
        }
        count += 1;
    }
}

fn read_u32(input: &mut impl Read) -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn put_row(state: &mut State, row: Row) -> Result<(), SnapshotError> {
    match row {
        Row::Head { cluster_id, last, next_alloc, next_event, next_deployment, last_variable } => {
            state.cluster_id = cluster_id;
            state.last = last;
            state.next_alloc = next_alloc;
            state.next_event = next_event;
            state.next_deployment = next_deployment;
            state.last_variable = last_variable.unwrap_or(0);
        }
        Row::Job(_, job) if job.versions.is_empty() => {
            return Err(SnapshotError::Damaged("a job has no version"));
        }
        Row::Job(id, job) => {
            state.jobs.insert(id, Arc::new(job));
        }
        Row::Node(node) => {
            state.nodes.insert(node.name.clone(), Arc::new(node));
        }
        Row::Alloc(alloc) => state.put_alloc(alloc),
        Row::Variable(key, variable) => {
            state.variables.insert(key, Arc::new(variable));
        }
        Row::Reply(key, reply) => {
            state.replies_order.push_back(key.clone());
            state.replies.insert(key, Arc::new(reply));
        }
        Row::Event(event) => state.events.push_back(Arc::new(event)),
        Row::Staged(bytes) => {
            state.staging.length += bytes.len() as u64;
            state.staging.chunks.push_back(bytes.into());
        }
        Row::RetiredServer(id, name) => {
            state.retired_servers.insert(id, name);
        }
        Row::Deployment(deployment) => {
            state.deployments.insert(deployment.id, Arc::new(deployment));
        }
        Row::Zk(_) | Row::End { .. } => {}
    }
    Ok(())
}
