//! What can go wrong between a client and a server.

use std::io;

use crate::jute::ErrorCode;
use crate::jute::codec::Error as CodecError;
use crate::jute::path::PathError;

/// One connection failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It could not be made, or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("no answer for {0} ms")]
    Silence(u128),
    /// The other side closed it.
    #[error("the server closed the connection")]
    Closed,
    /// A frame longer than allowed, or of negative length.
    #[error("a frame of {length} bytes, where at most {most} are taken")]
    Length {
        /// What the frame says.
        length: i32,
        /// What is taken.
        most: usize,
    },
    /// A frame that is no such record.
    #[error("what the server sent can't be read: {0}")]
    Record(#[from] CodecError),
    /// A reply to something that was not asked, or not next.
    #[error("a reply to request {got}, where that to {expected} is next")]
    OutOfOrder {
        /// The request that it says it answers.
        got: i32,
        /// The request that is next; 0: none is open.
        expected: i32,
    },
}

impl WireError {
    /// Whether nobody takes the connection there.
    pub(super) fn refused(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let refused = |error: &io::Error| {
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        };
        matches!(self, Self::Io(error) if refused(error))
    }
}

/// A request or a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server refused it; nothing has changed.
    #[error("{}", refusal(*.0))]
    Refused(ErrorCode),
    /// The server refused it with a code that nobody knows.
    #[error("the server refused it with code {0}, which is unknown")]
    UnknownCode(i32),
    /// The connection broke before the reply came: it may or may not have been carried out.
    #[error("the connection broke before the reply came")]
    Lost,
    /// The session has expired; its ephemeral nodes have gone.
    #[error("the session has expired")]
    Expired,
    /// The server did not accept an identity and closed the connection.
    #[error("the server did not accept the identity")]
    AuthFailed,
    /// This client was closed.
    #[error("the client was closed")]
    Closed,
    /// No server could be reached in time.
    #[error("no server of {servers} answered within {waited_ms} ms; the last problem: {last}")]
    Unreachable {
        /// Their addresses.
        servers: String,
        /// How long was tried, in milliseconds.
        waited_ms: u128,
        /// What happened last.
        last: String,
    },
    /// The request is too long to be sent.
    #[error("a request of {bytes} bytes is too long; the most is {most}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// The path can't be one.
    #[error("{path:?} is no path: {why}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        why: PathError,
    },
    /// The reply can't be read.
    #[error("the reply can't be read: {0}")]
    Reply(#[from] CodecError),
}

impl ClientError {
    /// What the server answered, if it did.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(code) => Some(*code),
            _ => None,
        }
    }

    /// Of a number on the wire that is not 0.
    pub fn of_number(number: i32) -> Self {
        match ErrorCode::of(number) {
            Some(code) => Self::Refused(code),
            None => Self::UnknownCode(number),
        }
    }
}

fn refusal(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Ok => "no error",
        ErrorCode::SystemError => "the server failed (system error)",
        ErrorCode::RuntimeInconsistency => "not tried, as another operation failed",
        ErrorCode::DataInconsistency => "the server's data are inconsistent",
        ErrorCode::ConnectionLoss => "the connection broke",
        ErrorCode::MarshallingError => "the server could not read the request",
        ErrorCode::Unimplemented => "the server has no such operation",
        ErrorCode::OperationTimeout | ErrorCode::RequestTimeout => "it took the server too long",
        ErrorCode::BadArguments => "the request makes no sense (bad arguments)",
        ErrorCode::UnknownSession => "there is no such session",
        ErrorCode::NewConfigNoQuorum => "the new members have no quorum",
        ErrorCode::ReconfigInProgress => "members are being changed already",
        ErrorCode::ApiError | ErrorCode::InvalidCallback => "the server refused it (API error)",
        ErrorCode::NoNode => "there is no such node",
        ErrorCode::NoAuth => "not allowed by the node's access list",
        ErrorCode::BadVersion => "the node has another version",
        ErrorCode::NoChildrenForEphemerals => "ephemeral nodes can't have children",
        ErrorCode::NodeExists => "there is such a node already",
        ErrorCode::NotEmpty => "the node has children",
        ErrorCode::SessionExpired => "the session has expired",
        ErrorCode::InvalidAcl => "the access list can't be",
        ErrorCode::AuthFailed => "the identity was not accepted",
        ErrorCode::SessionMoved => "the session goes on on another connection",
        ErrorCode::NotReadOnly => "the server only reads",
        ErrorCode::EphemeralOnLocalSession => "a local session can't have ephemeral nodes",
        ErrorCode::NoWatcher => "there is no such watch",
        ErrorCode::ReconfigDisabled => "members can't be changed by clients",
        ErrorCode::SessionClosedRequireSaslAuth => "the server demands SASL",
        ErrorCode::QuotaExceeded => "a quota is used up",
        ErrorCode::ThrottledOp => "the server has too much to do",
    }
}
