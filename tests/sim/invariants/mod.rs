//! What must hold all the while, one file each with its reason.

mod agreement;
mod capacity;
mod doubles;
mod jobs;
mod leaders;
mod places;
mod promises;
mod znodes;

use orch::model::name::AllocId;
use orch::state::State;

use self::agreement::Agreement;
use self::jobs::Jobs;
use self::leaders::Leaders;
use super::machine::Task;

/// All of them.
#[derive(Default)]
pub struct Invariants {
    leaders: Leaders,
    agreement: Agreement,
    jobs: Jobs,
    /// Entries that were looked at.
    pub entries: u64,
    /// Reasons for which servers stopped themselves.
    pub stopped: Vec<String>,
}

impl Invariants {
    /// A server starts with an empty state.
    pub fn starts(&mut self, server: usize) {
        self.agreement.starts(server);
    }

    /// A server has applied an entry.
    pub fn applied(&mut self, server: usize, index: u64, state: &State) {
        if self.agreement.applied(server, index, state) {
            self.entries += 1;
            znodes::check(index, state);
        }
        self.jobs.applied(index, state);
    }

    /// That runs on the machines: by node, the allocation and what runs of it. How many rightly
    /// stand beside another.
    pub fn runs(&self, running: &[(String, AllocId, Task)]) -> u64 {
        doubles::check(&self.jobs, running)
    }

    /// What is known of jobs.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// A server takes another, or itself, for the leader of a term.
    pub fn leads(&mut self, term: u64, leader: u64) {
        self.leaders.leads(term, leader);
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.terms()
    }

    /// A server has stopped by itself.
    pub fn stopped_itself(&mut self, why: &str) {
        let allowed = ["StorageFull", "no storage space", "damaged", "checksum", "was taken out"];
        let expected = allowed.iter().any(|word| why.contains(word));
        assert!(expected, "a server stopped itself without a fault of its disk: {why}");
        self.stopped.push(why.to_owned());
    }
}
