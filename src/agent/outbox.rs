//! Reports on their way to the leader: the latest of each allocation, until the leader has it.
//! Pure.

use std::collections::BTreeMap;

use crate::limits::{REPORTS_BYTES, REPORTS_PER_MESSAGE_MAX};
use crate::model::allocation::{AllocReport, TaskState};
use crate::model::name::AllocId;

/// Reports that wait, and those that are on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: BTreeMap<AllocId, AllocReport>,
    sent: BTreeMap<AllocId, AllocReport>,
    sequence: u64,
}

impl Outbox {
    /// A report takes the place of an earlier one about the same allocation.
    pub(super) fn put(&mut self, report: AllocReport) {
        self.waiting.insert(report.id, report);
    }

    /// The next message, if none is on its way: its number and what it holds.
    pub(super) fn next(&mut self) -> Option<(u64, Vec<&AllocReport>)> {
        if !self.sent.is_empty() || self.waiting.is_empty() {
            return None;
        }
        let mut weight = 0;
        while self.sent.len() < REPORTS_PER_MESSAGE_MAX && weight < REPORTS_BYTES {
            let Some((id, report)) = self.waiting.pop_first() else { break };
            weight += text_bytes(&report);
            self.sent.insert(id, report);
        }
        self.sequence += 1;
        Some((self.sequence, self.sent.values().collect()))
    }

    /// The leader has everything up to that message.
    pub(super) fn acknowledged(&mut self, sequence: u64) {
        if sequence == self.sequence {
            self.sent.clear();
        }
    }

    /// What is on its way may be lost: it waits once more, unless something newer does.
    pub(super) fn lost(&mut self) {
        for (id, report) in std::mem::take(&mut self.sent) {
            self.waiting.entry(id).or_insert(report);
        }
    }

    /// Whether a message is on its way.
    pub(super) fn is_waiting_for_ack(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether the leader has everything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }
}

/// Bytes of a report's texts, which are what makes one large.
fn text_bytes(report: &AllocReport) -> usize {
    let of_task = |task: &TaskState| task.error.len() + task.output_tail.len();
    report.message.len() + report.tasks.values().map(of_task).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allocation::{AllocStatus, Health};

    fn report(id: u64, message: &str) -> AllocReport {
        AllocReport {
            id: AllocId(id),
            generation: 1,
            status: AllocStatus::Running,
            health: Health::Healthy,
            tasks: BTreeMap::new(),
            message: message.to_owned(),
        }
    }

    fn texts(next: Option<(u64, Vec<&AllocReport>)>) -> Vec<String> {
        let reports = next.map(|(_, reports)| reports).unwrap_or_default();
        reports.iter().map(|report| report.message.clone()).collect()
    }

    #[test]
    fn reports_stay_until_they_are_acknowledged() {
        let mut outbox = Outbox::default();
        outbox.put(report(1, "a"));
        outbox.put(report(2, "b"));
        assert_eq!(texts(outbox.next()), ["a", "b"]);
        outbox.put(report(1, "c"));
        assert!(outbox.next().is_none(), "one message at a time");
        outbox.lost();
        // The newer one about the same allocation counts.
        assert_eq!(texts(outbox.next()), ["c", "b"]);
        outbox.acknowledged(1);
        assert!(!outbox.is_empty(), "an old acknowledgement is about another message");
        outbox.acknowledged(2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_message_is_bounded() {
        let mut outbox = Outbox::default();
        for id in 0..REPORTS_PER_MESSAGE_MAX as u64 + 1 {
            outbox.put(report(id, ""));
        }
        assert_eq!(texts(outbox.next()).len(), REPORTS_PER_MESSAGE_MAX);
    }
}
