//! What every verb works with.

use super::client::Client;
use super::command::Globals;
use super::failure::Failure;
use super::output::Output;
use crate::api::view::query::ConsistencyChoice;
use crate::clock::{Clock, SharedClock, SystemClock};

/// Where servers are, how to print, how fresh reads are.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) output: Output,
    pub(super) consistency: ConsistencyChoice,
    pub(super) clock: SharedClock,
}

impl Context {
    pub(super) fn new(globals: &Globals) -> Result<Self, Failure> {
        let clock = SystemClock::shared();
        let consistency = match globals.stale {
            true => ConsistencyChoice::Stale,
            false => ConsistencyChoice::Linearizable,
        };
        Ok(Self {
            client: Client::new(&globals.addr, clock.clone())?,
            output: Output::new(globals.output, SystemClock.now()),
            consistency,
            clock,
        })
    }
}

#[cfg(test)]
impl Context {
    /// Prints tables, asks nobody.
    pub(super) fn for_tests() -> Self {
        Self::for_server("http://127.0.0.1:1")
    }

    /// Prints tables, asks this server.
    pub(super) fn for_server(address: &str) -> Self {
        let addr = address.to_owned();
        let output = super::output::Format::Table;
        Self::new(&Globals { addr, output, stale: false }).unwrap()
    }
}
