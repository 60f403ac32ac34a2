//! What a client is told without having asked: watches that fired, and how its session fares.

use tokio::sync::mpsc;

use crate::jute::reply::WatcherEvent;

/// What happened to a node, or to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Nothing: the event is about the connection.
    None,
    /// It was made.
    Created,
    /// It was removed.
    Deleted,
    /// Its data were replaced.
    DataChanged,
    /// A child was made or removed.
    ChildrenChanged,
    /// The watch on its data was taken away.
    DataWatchRemoved,
    /// The watch on its children was taken away.
    ChildWatchRemoved,
    /// The persistent watch was taken away.
    PersistentWatchRemoved,
    /// A number that nobody knows.
    Unknown(i32),
}

impl EventKind {
    /// What the number on the wire means.
    pub fn of(number: i32) -> Self {
        match number {
            -1 => Self::None,
            1 => Self::Created,
            2 => Self::Deleted,
            3 => Self::DataChanged,
            4 => Self::ChildrenChanged,
            5 => Self::DataWatchRemoved,
            6 => Self::ChildWatchRemoved,
            7 => Self::PersistentWatchRemoved,
            number => Self::Unknown(number),
        }
    }
}

/// What an event says of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeeperState {
    /// Connected.
    Connected,
    /// Connected to a server that only reads.
    ConnectedReadOnly,
    /// The session has expired.
    Expired,
    /// An identity was not accepted.
    AuthFailed,
    /// An identity was proven by SASL.
    SaslAuthenticated,
    /// A number that nobody knows.
    Unknown(i32),
}

impl KeeperState {
    /// What the number on the wire means.
    pub fn of(number: i32) -> Self {
        match number {
            3 => Self::Connected,
            5 => Self::ConnectedReadOnly,
            -112 => Self::Expired,
            4 => Self::AuthFailed,
            6 => Self::SaslAuthenticated,
            number => Self::Unknown(number),
        }
    }
}

/// A watch fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// What it says of the connection.
    pub state: KeeperState,
    /// Which node; without the chroot.
    pub path: String,
    /// The transaction, where the server says it (3.9 and later); else -1.
    pub zxid: i64,
    /// Its place among all frames that came in this client's life, replies too: what came
    /// earlier has a smaller one.
    pub position: u64,
}

impl WatchEvent {
    /// As it stands in a frame.
    pub(super) fn of(event: &WatcherEvent<'_>, path: &str, zxid: i64, position: u64) -> Self {
        Self {
            kind: EventKind::of(event.kind),
            state: KeeperState::of(event.state),
            path: path.to_owned(),
            zxid,
            position,
        }
    }
}

/// A connection was made, and a server accepted the session on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The server.
    pub server: String,
    /// The session; the same as before, unless this is the first.
    pub session_id: i64,
    /// The time-out agreed on, in milliseconds.
    pub timeout_ms: i32,
    /// Whether the server only reads.
    pub read_only: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session has a connection.
    Connected(Connected),
    /// It has none; why.
    Disconnected(String),
    /// It has expired: the last event.
    Expired,
    /// The server did not accept an identity: the last event.
    AuthFailed,
    /// A watch fired.
    Watch(WatchEvent),
}

/// Events in the order in which they happened. A queue that is full holds back replies too, since
/// order matters; drop this to have events thrown away.
#[derive(Debug)]
pub struct Events(pub(super) mpsc::Receiver<Event>);

impl Events {
    /// The next; none when the client has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next of those that are here. All events that came before a reply are here when the
    /// reply is.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next watch that fired; none when the client has ended.
    pub async fn next_watch(&mut self) -> Option<WatchEvent> {
        loop {
            if let Event::Watch(event) = self.next().await? {
                return Some(event);
            }
        }
    }
}
