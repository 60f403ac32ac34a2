//! Where the log is kept: sled in life, a simulated disk in simulation.
//!
//! A disk is whoever serves the other end of the queue: it carries jobs out in their order, many
//! at a time, and answers each once it would survive a loss of power.

use openraft::storage::IOFlushed;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::types::{Entry, LogId, TypeConfig, Vote};

/// What a disk held when it was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The vote.
    pub vote: Option<Vote>,
    /// A place up to which the log was known to be committed; later ones may be.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub last_purged: Option<LogId>,
    /// The entries behind it, without a hole.
    pub entries: Vec<Entry>,
}

/// Who this server is, kept with its log: an emptied directory is another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the directory.
    pub format: u32,
    /// Random, made with the directory.
    pub server_id: u64,
    /// Of the cluster it belongs to; 0 while it belongs to none.
    pub cluster_id: u64,
    /// It has asked to join a cluster: it must never found one.
    pub joining: bool,
}

/// One change to what a disk keeps.
#[derive(Debug)]
pub enum LogOp {
    /// Adds entries at the end. With them comes how far the log is committed, if that is news.
    Append {
        /// The entries.
        entries: Vec<Entry>,
        /// As [`LogOp::Committed`].
        committed: Option<LogId>,
    },
    /// Drops all entries from this index on.
    TruncateFrom(u64),
    /// Drops all entries up to this one.
    Purge(LogId),
    /// Keeps a vote.
    SaveVote(Vote),
    /// A hint for the next start: need not be durable, and never costs a sync of its own.
    Committed(LogId),
    /// Keeps who this server is.
    SaveIdentity(Identity),
    /// Ends the service, once everything before it is durable.
    Close,
}

/// Who wants to know that a change is durable.
#[derive(Default)]
pub enum Done {
    /// Nobody.
    #[default]
    Unasked,
    /// openraft's core.
    Flushed(IOFlushed<TypeConfig>),
    /// A task that waits.
    Signal(oneshot::Sender<std::io::Result<()>>),
}

impl Done {
    /// Tells them.
    pub fn complete(self, result: std::io::Result<()>) {
        match self {
            Self::Unasked => {}
            Self::Flushed(callback) => callback.io_completed(result),
            Self::Signal(sender) => {
                // Whoever asked may have gone.
                let _ = sender.send(result);
            }
        }
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

/// A change, and who wants to know.
#[derive(Debug)]
pub struct LogJob {
    /// The change.
    pub op: LogOp,
    /// Who wants to know.
    pub done: Done,
}

/// A place where a log is kept.
pub trait LogDisk: Send + 'static {
    /// Carries out the jobs of `queue`, in order, until it is closed.
    fn serve(self: Box<Self>, queue: mpsc::Receiver<LogJob>);
}
