//! What a server says to one that learns from it, and back: ports 2888 of an ensemble.

use super::codec::{Error, Field, Reader, records};
use super::data::Id;
use crate::limits::{ZK_AUTH_BYTES_MAX, ZK_TRANSACTION_BYTES_MAX};

/// A change that is proposed.
pub const PROPOSAL: i32 = 2;
/// Something was taken note of.
pub const ACK: i32 = 3;
/// What was proposed is to be carried out.
pub const COMMIT: i32 = 4;
/// A sign of life.
pub const PING: i32 = 5;
/// What was proposed is to be carried out, with a change of members.
pub const COMMITANDACTIVATE: i32 = 9;
/// A client's session is asked for.
pub const REVALIDATE: i32 = 6;
/// What is committed, for an observer.
pub const INFORM: i32 = 8;
/// The leader is one for this learner.
pub const NEWLEADER: i32 = 10;
/// The learner has all it needs to begin.
pub const UPTODATE: i32 = 12;
/// What is missing follows.
pub const DIFF: i32 = 13;
/// The learner has too much.
pub const TRUNC: i32 = 14;
/// The whole tree follows.
pub const SNAP: i32 = 15;
/// An observer says who it is.
pub const OBSERVERINFO: i32 = 16;
/// The leader says who it is.
pub const LEADERINFO: i32 = 17;
/// The learner takes note of the leader's epoch.
pub const ACKEPOCH: i32 = 18;
/// What is committed, for an observer, with a change of members.
pub const INFORMANDACTIVATE: i32 = 19;
/// Version of the protocol.
pub const PROTOCOL_VERSION: i32 = 0x1_0000;
/// Text behind the tree.
pub const SNAP_END: &str = "BenWasHere";

records! {
    /// A message, either way. There is no length before it.
    QuorumPacket<'a> {
        /// See the constants.
        kind: i32,
        /// What it is about.
        zxid: i64,
        /// The rest.
        data: Option<&'a [u8]>,
        /// Identities of a client.
        auth: AuthInfo,
    }

    /// Who learns.
    #[derive(Copy)]
    LearnerInfo {
        /// Its number; need not be in the ensemble.
        server_id: i64,
        /// See [`PROTOCOL_VERSION`].
        protocol_version: i32,
        /// Of its configuration; 0: none.
        config_version: i64,
    }
}

/// Identities, or none: which is -1, and not the same as an empty list for old servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthInfo(pub Option<Vec<Id>>);

impl<'a> Field<'a> for AuthInfo {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut ahead = reader.clone();
        if ahead.field::<i32>()? == -1 {
            *reader = ahead;
            return Ok(Self(None));
        }
        reader.field().map(|ids| Self(Some(ids)))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(ids) => ids.write(out),
            None => (-1).write(out),
        }
    }
}

/// Bytes of a message before its data: kind, transaction, length.
const HEAD: usize = 4 + 8 + 4;

/// How many bytes the message has that begins with `bytes`, or at least how many, if that can't be
/// told yet.
///
/// # Errors
/// A length that can't be, or that is beyond what a message may have.
pub fn packet_bytes(bytes: &[u8]) -> Result<usize, Error> {
    let length = |at: usize, max: usize| -> Result<Option<usize>, Error> {
        let Some(length) = bytes.get(at..).and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        match i32::from_be_bytes(*length) {
            -1 => Ok(Some(0)),
            length => match usize::try_from(length) {
                Ok(bytes) if bytes <= max => Ok(Some(bytes)),
                _ => Err(Error::Length(length)),
            },
        }
    };
    let Some(data) = length(HEAD - 4, ZK_TRANSACTION_BYTES_MAX)? else { return Ok(HEAD) };
    let mut size = HEAD + data;
    // Scheme and identity of each, if there is one.
    let Some(ids) = length(size, ZK_AUTH_BYTES_MAX)? else { return Ok(size + 4) };
    size += 4;
    for _ in 0..2 * ids {
        let Some(text) = length(size, ZK_AUTH_BYTES_MAX)? else { return Ok(size + 4) };
        size += 4 + text;
        if size > HEAD + data + ZK_AUTH_BYTES_MAX {
            return Err(Error::Length(i32::try_from(size).unwrap_or(i32::MAX)));
        }
    }
    Ok(size)
}
