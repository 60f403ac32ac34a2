//! Reads of one node, answered alike from a view and in the log.
//!
//! A read that stands between two writes of its session sees the first and not the second. If all
//! three came together, the state between the two exists nowhere but where they are applied: such
//! a read travels with them.

use super::acl::{self, Asker};
use super::tree::Tree;
use crate::jute::op::{ErrorCode, Op, PERM_ADMIN, PERM_READ};
use crate::jute::reply::{AclReply, DataReply, StatReply};
use crate::jute::request::{PathRequest, WatchRequest};
use crate::jute::{Field, Stat};
use crate::limits::ZK_PASSING_READ_BYTES;

/// Bytes of an answer beside data, about.
const ANSWER_BYTES: usize = 128;

impl Tree {
    /// What `exists` answers.
    ///
    /// # Errors
    /// `NoNode`; `BadArguments` for a path that none can have.
    pub fn read_stat(&self, path: &str) -> Result<Stat, ErrorCode> {
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        self.get(path).map(|node| node.stat()).ok_or(ErrorCode::NoNode)
    }

    /// What `getData` answers.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`.
    pub fn read_data(&self, path: &str, asker: Asker<'_>) -> Result<DataReply<'_>, ErrorCode> {
        let node = self.get(path).ok_or(ErrorCode::NoNode)?;
        if !self.allows(node, PERM_READ, asker) {
            return Err(ErrorCode::NoAuth);
        }
        Ok(DataReply { data: node.data(), stat: node.stat() })
    }

    /// What `getACL` answers.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`.
    pub fn read_acl(&self, path: &str, asker: Asker<'_>) -> Result<AclReply, ErrorCode> {
        let node = self.get(path).ok_or(ErrorCode::NoNode)?;
        if !self.allows(node, PERM_READ | PERM_ADMIN, asker) {
            return Err(ErrorCode::NoAuth);
        }
        Ok(AclReply { acl: self.acl_shown(node, asker), stat: node.stat() })
    }

    /// Whether a read may travel with writes: it sets no watch and its answer is small. How many
    /// bytes that has, about.
    pub fn may_pass(&self, op: Op, body: &[u8]) -> Option<usize> {
        let path = match op {
            Op::Exists | Op::GetData => match WatchRequest::from_bytes(body) {
                Ok(WatchRequest { path, watch: false }) => path,
                _ => return None,
            },
            Op::GetAcl => PathRequest::from_bytes(body).ok()?.path,
            _ => return None,
        };
        let Some(node) = self.get(path) else { return Some(ANSWER_BYTES) };
        let fits = body.len() <= ZK_PASSING_READ_BYTES
            && node.data_len() <= ZK_PASSING_READ_BYTES
            // A list of its own may be long.
            && (op != Op::GetAcl || node.acl() == acl::OPEN);
        fits.then_some(ANSWER_BYTES + node.data_len())
    }

    /// The record that answers a read which travelled with writes.
    ///
    /// # Errors
    /// The code that the client gets.
    pub(super) fn passing_read(
        &self,
        op: Op,
        body: &[u8],
        asker: Asker<'_>,
    ) -> Result<Vec<u8>, ErrorCode> {
        match op {
            Op::Exists => {
                let stat = self.read_stat(WatchRequest::from_bytes(body)?.path)?;
                Ok(StatReply { stat }.to_bytes())
            }
            Op::GetData => {
                Ok(self.read_data(WatchRequest::from_bytes(body)?.path, asker)?.to_bytes())
            }
            Op::GetAcl => Ok(self.read_acl(PathRequest::from_bytes(body)?.path, asker)?.to_bytes()),
            _ => Err(ErrorCode::Unimplemented),
        }
    }
}
