//! What snapshot files, log files and the stream to a learner are made of.

use super::codec::records;
use super::data::{Acl, StatPersisted};

/// Magic number of a snapshot file.
pub const SNAPSHOT_MAGIC: i32 = 0x5a4b_534e;
/// Magic number of a log file.
pub const LOG_MAGIC: i32 = 0x5a4b_4c47;
/// Version of both formats.
pub const FORMAT_VERSION: i32 = 2;
/// Key of "everybody may do everything", which is never in the table of access lists.
pub const OPEN_ACL_KEY: i64 = -1;

records! {
    /// Head of both kinds of file.
    #[derive(Copy)]
    FileHeader {
        /// See the constants.
        magic: i32,
        /// See the constants.
        version: i32,
        /// -1 in snapshots, 0 in logs.
        dbid: i64,
    }

    /// A session.
    #[derive(Copy)]
    SessionRow {
        /// Its id.
        id: i64,
        /// Its time-out, in milliseconds.
        timeout: i32,
    }

    /// An access list under its key.
    AclRow {
        /// The key.
        key: i64,
        /// The list.
        acl: Vec<Acl>,
    }

    /// A node; those above it come before it.
    NodeRow<'a> {
        /// Its path; the root's is empty.
        path: &'a str,
        /// The data.
        data: Option<&'a [u8]>,
        /// Key of its access list.
        acl: i64,
        /// The rest.
        stat: StatPersisted,
    }
}

/// The path that stands where a node's would, behind the last one.
pub const NODES_END: &str = "/";
