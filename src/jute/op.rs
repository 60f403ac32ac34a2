//! Numbers of operations, errors and flags on the wire.

use serde::{Deserialize, Serialize};

/// Defines an enum of wire numbers with its conversion from one.
macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $number:literal, )* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// Its number on the wire.
            pub fn number(self) -> i32 {
                self as i32
            }

            /// What the number means, if anything.
            pub fn of(number: i32) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// An operation of a client, or a kind of transaction.
    Op {
        /// A watch event (from the server).
        Notification = 0,
        /// Make a node; the path comes back.
        Create = 1,
        /// Remove a node.
        Delete = 2,
        /// A node's stat.
        Exists = 3,
        /// A node's data and stat.
        GetData = 4,
        /// Replace a node's data.
        SetData = 5,
        /// A node's access list.
        GetAcl = 6,
        /// Replace a node's access list.
        SetAcl = 7,
        /// Names of a node's children.
        GetChildren = 8,
        /// Catch up with the leader.
        Sync = 9,
        /// Keep the session alive.
        Ping = 11,
        /// Names of a node's children, and its stat.
        GetChildren2 = 12,
        /// Compare a node's version, within a multi.
        Check = 13,
        /// Several changes, or none of them.
        Multi = 14,
        /// Make a node; path and stat come back.
        Create2 = 15,
        /// Change the ensemble's members.
        Reconfig = 16,
        /// Is there such a watch?
        CheckWatches = 17,
        /// Take watches away.
        RemoveWatches = 18,
        /// Make a container node.
        CreateContainer = 19,
        /// Remove an empty container, or a node whose time is up (the server's own).
        DeleteContainer = 20,
        /// Make a node with a time to live.
        CreateTtl = 21,
        /// Several reads.
        MultiRead = 22,
        /// Add an identity.
        Auth = 100,
        /// Set watches again after a reconnect.
        SetWatches = 101,
        /// A step of SASL.
        Sasl = 102,
        /// The session's ephemeral nodes.
        GetEphemerals = 103,
        /// How many nodes are below one.
        GetAllChildrenNumber = 104,
        /// As `SetWatches`, with persistent ones.
        SetWatches2 = 105,
        /// Set a persistent watch.
        AddWatch = 106,
        /// The identities of the connection.
        WhoAmI = 107,
        /// A session begins.
        CreateSession = -10,
        /// A session ends.
        CloseSession = -11,
        /// A change that failed (in transaction logs and multi replies).
        Error = -1,
    }
}

numbers! {
    /// Why an operation failed; ZooKeeper's `KeeperException.Code`.
    ErrorCode {
        /// It did not.
        Ok = 0,
        /// A defect of the server.
        SystemError = -1,
        /// An operation of a multi was not tried, as another one failed.
        RuntimeInconsistency = -2,
        /// Data are damaged.
        DataInconsistency = -3,
        /// The connection broke.
        ConnectionLoss = -4,
        /// The request could not be read.
        MarshallingError = -5,
        /// No such operation.
        Unimplemented = -6,
        /// It took too long.
        OperationTimeout = -7,
        /// The request makes no sense.
        BadArguments = -8,
        /// No such session.
        UnknownSession = -12,
        /// New members make no quorum.
        NewConfigNoQuorum = -13,
        /// Members are being changed already.
        ReconfigInProgress = -14,
        /// API errors from here down.
        ApiError = -100,
        /// No such node.
        NoNode = -101,
        /// Not allowed.
        NoAuth = -102,
        /// The node's version is another.
        BadVersion = -103,
        /// Ephemeral nodes have no children.
        NoChildrenForEphemerals = -108,
        /// There is such a node.
        NodeExists = -110,
        /// The node has children.
        NotEmpty = -111,
        /// The session has expired.
        SessionExpired = -112,
        /// Not on the wire.
        InvalidCallback = -113,
        /// The access list can't be.
        InvalidAcl = -114,
        /// The identity was not proven.
        AuthFailed = -115,
        /// The session goes on on another connection.
        SessionMoved = -118,
        /// The server only reads.
        NotReadOnly = -119,
        /// A local session has no ephemeral nodes.
        EphemeralOnLocalSession = -120,
        /// No such watch.
        NoWatcher = -121,
        /// It took too long.
        RequestTimeout = -122,
        /// Members can't be changed by clients.
        ReconfigDisabled = -123,
        /// The session must be proven by SASL.
        SessionClosedRequireSaslAuth = -124,
        /// A quota is used up.
        QuotaExceeded = -125,
        /// The server has too much to do.
        ThrottledOp = -127,
    }
}

/// What a new node is; `CreateMode` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateMode {
    /// Goes with its session.
    pub ephemeral: bool,
    /// Its name gets a number.
    pub sequential: bool,
    /// Goes when its last child has gone.
    pub container: bool,
    /// Has a time to live.
    pub ttl: bool,
}

impl CreateMode {
    /// What the flags of a request say, if anything.
    pub fn of(flags: i32) -> Option<Self> {
        let (ephemeral, sequential, container, ttl) = match flags {
            0 => (false, false, false, false),
            1 => (true, false, false, false),
            2 => (false, true, false, false),
            3 => (true, true, false, false),
            4 => (false, false, true, false),
            5 => (false, false, false, true),
            6 => (false, true, false, true),
            _ => return None,
        };
        Some(Self { ephemeral, sequential, container, ttl })
    }
}

/// Header id of a watch event.
pub const XID_NOTIFICATION: i32 = -1;
/// Header id of a ping.
pub const XID_PING: i32 = -2;
/// Header id of an `auth`.
pub const XID_AUTH: i32 = -4;
/// Header id under which some clients send `setWatches`.
pub const XID_SET_WATCHES: i32 = -8;

/// May read data and list children.
pub const PERM_READ: i32 = 1;
/// May replace data.
pub const PERM_WRITE: i32 = 2;
/// May make children.
pub const PERM_CREATE: i32 = 4;
/// May remove children.
pub const PERM_DELETE: i32 = 8;
/// May replace the access list.
pub const PERM_ADMIN: i32 = 16;
/// All of them.
pub const PERM_ALL: i32 = 31;

/// `ephemeralOwner` of a container node.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// Highest byte of the `ephemeralOwner` of a node with a time to live, which is in the low 40 bits.
pub const TTL_OWNER_MASK: i64 = 0xff00_0000_0000_0000_u64 as i64;
/// The longest time to live, in milliseconds.
pub const TTL_MS_MAX: i64 = 0x00ff_ffff_ffff;

/// Whom a node belongs to, as `ephemeralOwner` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Persistent,
    /// It goes with this session.
    Session(i64),
    /// It goes with its last child.
    Container,
    /// It goes when it has not changed for that many milliseconds and has no child.
    Ttl(i64),
}

impl Owner {
    /// What the number says. Version 3.5.3 of ZooKeeper marked a time to live by the highest bit
    /// alone; such a node is read as one as well.
    pub fn of(number: i64) -> Self {
        match number {
            0 => Self::Persistent,
            CONTAINER_OWNER => Self::Container,
            ttl if ttl & TTL_OWNER_MASK == TTL_OWNER_MASK => Self::Ttl(ttl & TTL_MS_MAX),
            ttl if ttl < 0 && ttl & TTL_OWNER_MASK == i64::MIN => Self::Ttl(ttl & TTL_MS_MAX),
            session => Self::Session(session),
        }
    }

    /// The number.
    pub fn number(self) -> i64 {
        match self {
            Self::Persistent => 0,
            Self::Session(session) => session,
            Self::Container => CONTAINER_OWNER,
            Self::Ttl(ms) => TTL_OWNER_MASK | ms,
        }
    }
}
