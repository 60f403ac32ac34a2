//! A client of ZooKeeper's protocol, for any server that speaks it.
//!
//! [`Client`] is a session: it goes on through reconnects, sets its watches again, and keeps
//! requests on their way without waiting for each reply. Below it, [`Wire`] is one connection,
//! frame by frame, for whoever wants to say something that a client would not.
//! Start at `handle`; `session` is the task behind it, `ops` the operations.

mod ensemble;
mod error;
mod event;
mod four_letter;
mod handle;
mod ops;
mod session;
mod watches;
mod wire;

#[cfg(test)]
mod tests;

pub use self::ensemble::{Ensemble, EnsembleError};
pub use self::error::{ClientError, WireError};
pub use self::event::{Connected, Event, EventKind, Events, KeeperState, WatchEvent};
pub use self::four_letter::four_letter;
pub use self::handle::{Client, Options, Pending, Reply, Session};
pub use self::ops::{Created, Mode, MultiAnswer};
pub use self::wire::{FrameReader, FrameWriter, Wire};
