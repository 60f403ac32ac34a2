//! A term has one leader (Raft, section 5.2: election safety): with two, two logs would grow.

use std::collections::BTreeMap;

/// Who led in which term.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, u64>);

impl Leaders {
    pub fn leads(&mut self, term: u64, leader: u64) {
        let known = *self.0.entry(term).or_insert(leader);
        assert_eq!(known, leader, "term {term} has two leaders");
    }

    pub fn terms(&self) -> usize {
        self.0.len()
    }
}
