//! Reports on their way to the leader: the latest of each allocation, until the leader has it.
//! Pure.
//!
//! Each report becomes an entry of the servers' log, so an allocation that changes all the time
//! reports at a pace: a few at once after a quiet while, then one each second, always the latest.
//! That it can't take traffic any more, or has ended, does not wait; the next good news does.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{REPORT_BURST, REPORT_PACE_MS, REPORTS_BYTES, REPORTS_PER_MESSAGE_MAX};
use crate::model::allocation::{AllocReport, TaskState};
use crate::model::name::AllocId;
use crate::model::time::Millis;

/// What reports at once may cost together, in milliseconds.
const CREDIT_MOST: i64 = REPORT_BURST as i64 * REPORT_PACE_MS as i64;

/// Reports that wait, and those that are on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: BTreeMap<AllocId, AllocReport>,
    sent: BTreeMap<AllocId, AllocReport>,
    /// Of allocations that have reported lately.
    paces: BTreeMap<AllocId, Pace>,
    /// Last said to be ready.
    ready: BTreeSet<AllocId>,
    sequence: u64,
}

/// How much an allocation may report: a report costs its pace, and time brings it back.
#[derive(Debug)]
struct Pace {
    credit: i64,
    at: Millis,
}

impl Pace {
    fn catch_up(&mut self, now: Millis) {
        let passed = i64::try_from(now.0.saturating_sub(self.at.0)).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(passed).min(CREDIT_MOST);
        self.at = now;
    }
}

impl Outbox {
    /// A report takes the place of an earlier one about the same allocation.
    pub(super) fn put(&mut self, report: AllocReport) {
        self.waiting.insert(report.id, report);
    }

    /// The next message, if none is on its way: its number and what it holds. `now` is of any
    /// steady clock; with `hurry` nothing waits for its pace.
    pub(super) fn next(&mut self, now: Millis, hurry: bool) -> Option<(u64, Vec<&AllocReport>)> {
        if !self.sent.is_empty() || self.waiting.is_empty() {
            return None;
        }
        self.paces.retain(|_, pace| {
            pace.catch_up(now);
            pace.credit < CREDIT_MOST
        });
        let mut weight = 0;
        let ready = self.waiting.values().filter(|report| hurry || self.wait(report) == 0);
        let chosen: Vec<_> = ready
            .take(REPORTS_PER_MESSAGE_MAX)
            .take_while(|report| {
                let room = weight < REPORTS_BYTES;
                weight += text_bytes(report);
                room
            })
            .map(|report| report.id)
            .collect();
        for id in chosen {
            let Some(report) = self.waiting.remove(&id) else { continue };
            self.pay(&report, now);
            self.sent.insert(id, report);
        }
        if self.sent.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some((self.sequence, self.sent.values().collect()))
    }

    /// How long until a report that waits for its pace may go, if that is all that it waits for.
    pub(super) fn next_in(&self) -> Option<Millis> {
        if !self.sent.is_empty() {
            return None;
        }
        self.waiting.values().map(|report| Millis(self.wait(report))).min()
    }

    /// Milliseconds that a report waits for its pace, from when that was last caught up.
    fn wait(&self, report: &AllocReport) -> u64 {
        let urgent = report.status.ended() || (!report.ready && self.ready.contains(&report.id));
        match self.paces.get(&report.id) {
            Some(pace) if !urgent => {
                u64::try_from(REPORT_PACE_MS as i64 - pace.credit).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn pay(&mut self, report: &AllocReport, now: Millis) {
        let pace = self.paces.entry(report.id).or_insert(Pace { credit: CREDIT_MOST, at: now });
        pace.credit = (pace.credit - REPORT_PACE_MS as i64).max(-CREDIT_MOST);
        if report.ready {
            self.ready.insert(report.id);
        } else {
            self.ready.remove(&report.id);
        }
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
            if let Some(pace) = self.paces.get_mut(&id) {
                pace.credit += REPORT_PACE_MS as i64;
            }
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
    let of_task = |task: &TaskState| {
        let checks = task.liveness.iter().chain(&task.readiness);
        let said: usize = checks.map(|result| result.message.len()).sum();
        task.error.len() + task.output_tail.len() + said
    };
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
            ready: true,
            tasks: BTreeMap::new(),
            message: message.to_owned(),
        }
    }

    fn texts(next: Option<(u64, Vec<&AllocReport>)>) -> Vec<String> {
        let reports = next.map(|(_, reports)| reports).unwrap_or_default();
        reports.iter().map(|report| report.message.clone()).collect()
    }

    impl Outbox {
        /// What goes out at that time; the leader has it at once.
        fn sent_at(&mut self, now: u64) -> Vec<String> {
            let sent = texts(self.next(Millis(now), false));
            self.acknowledged(self.sequence);
            sent
        }
    }

    #[test]
    fn reports_stay_until_they_are_acknowledged() {
        let mut outbox = Outbox::default();
        let now = Millis(0);
        outbox.put(report(1, "a"));
        outbox.put(report(2, "b"));
        assert_eq!(texts(outbox.next(now, false)), ["a", "b"]);
        outbox.put(report(1, "c"));
        assert!(outbox.next(now, false).is_none(), "one message at a time");
        outbox.lost();
        // The newer one about the same allocation counts.
        assert_eq!(texts(outbox.next(now, false)), ["c", "b"]);
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
        assert_eq!(texts(outbox.next(Millis(0), false)).len(), REPORTS_PER_MESSAGE_MAX);
    }

    #[test]
    fn what_changes_all_the_time_reports_once_a_second_the_latest() {
        let mut outbox = Outbox::default();
        let mut sent = Vec::new();
        // A crash loop: a change each 50 ms, for a minute.
        for now in (0..60_000).step_by(50) {
            outbox.put(report(1, &now.to_string()));
            sent.extend(outbox.sent_at(now));
        }
        let most = usize::try_from(REPORT_BURST).unwrap() + 60;
        assert!((60..=most).contains(&sent.len()), "{}", sent.len());
        // Another one does not wait for it.
        outbox.put(report(2, "quiet"));
        assert_eq!(outbox.sent_at(59_960), ["quiet"]);
        let wait = outbox.next_in().unwrap();
        assert!((1..=REPORT_PACE_MS).contains(&wait.0), "{wait}");
        // The truth comes last.
        assert_eq!(outbox.sent_at(59_960 + wait.0), ["59950"]);
        assert!(outbox.is_empty() && outbox.next_in().is_none());
    }

    #[test]
    fn bad_news_goes_at_once_and_good_news_waits() {
        let mut outbox = Outbox::default();
        let unready = |text: &str| AllocReport { ready: false, ..report(1, text) };
        let mut sent = 0;
        for now in (0..60_000).step_by(100) {
            outbox.put(report(1, "up"));
            let up = !outbox.sent_at(now).is_empty();
            outbox.put(unready("down"));
            let down = !outbox.sent_at(now + 50).is_empty();
            assert!(down || !up, "it is called, and is not ready");
            sent += usize::from(up) + usize::from(down);
        }
        assert!(sent <= 60 + 2 * usize::try_from(REPORT_BURST).unwrap(), "{sent}");
        let failed = AllocReport { status: AllocStatus::Failed, ..unready("failed") };
        outbox.put(failed);
        assert_eq!(outbox.sent_at(60_000), ["failed"]);
    }

    #[test]
    fn who_leaves_does_not_wait() {
        let mut outbox = Outbox::default();
        for _ in 0..=REPORT_BURST {
            outbox.put(report(1, "a"));
            outbox.sent_at(0);
        }
        assert!(outbox.next(Millis(0), false).is_none() && !outbox.is_empty());
        assert_eq!(texts(outbox.next(Millis(0), true)), ["a"]);
    }
}
