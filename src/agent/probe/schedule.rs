//! When to check, and what the results come to. Pure.

use crate::agent::converge::Finding;
use crate::model::job::HealthCheck;
use crate::model::time::Millis;

/// Between checks until the first one passes, if the interval is longer: what comes up is seen
/// soon. Grows to the interval, so that what never comes up is not asked in haste for ever.
const FIRST_PAUSE: Millis = Millis(50);
/// What has not passed yet is told after that time: most tasks are up by then, and nobody wants
/// to hear that they were not.
const TOLD_AFTER: Millis = Millis::from_secs(2);

/// Counts the results of one check of one run.
#[derive(Debug)]
pub(super) struct Schedule {
    check: HealthCheck,
    /// Since the task's start.
    now: Millis,
    began: Millis,
    pause: Millis,
    /// It has passed before, as often in a row as it must.
    passed: bool,
    /// What holds: none before the first verdict.
    passing: Option<bool>,
    successes: u32,
    failures: u32,
    /// Checks in haste don't count each: a failure counts from then on.
    counts_from: Millis,
    said: Option<Finding>,
}

impl Schedule {
    /// For a task that has run for `running_for`.
    pub(super) fn new(check: HealthCheck, running_for: Millis) -> Self {
        let pause = FIRST_PAUSE.min(check.interval);
        let counts_from =
            Millis(running_for.max(check.start_period).0.saturating_add(check.interval.0));
        Self {
            check,
            now: running_for,
            began: running_for,
            pause,
            passed: false,
            passing: None,
            successes: 0,
            failures: 0,
            counts_from,
            said: None,
        }
    }

    /// Takes a result in, `took` after the end of the pause before it; says what is to be told
    /// if it is new, and how long to wait before the next check.
    pub(super) fn result(
        &mut self,
        took: Millis,
        outcome: Result<(), String>,
    ) -> (Option<Finding>, Millis) {
        self.now = Millis(self.now.0.saturating_add(took.0));
        let found = match outcome {
            Ok(()) => self.success(),
            Err(message) => self.failure(message),
        };
        let news = found.filter(|found| self.said.as_ref() != Some(found));
        if news.is_some() {
            self.said.clone_from(&news);
        }
        // What has answered once is asked at its pace.
        let steady = self.passed || self.successes > 0;
        let pause = if steady { self.check.interval } else { self.pause };
        self.pause = Millis((self.pause.0 * 5).div_ceil(4)).min(self.check.interval);
        self.now = Millis(self.now.0.saturating_add(pause.0));
        (news, pause)
    }

    fn success(&mut self) -> Option<Finding> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.successes < self.check.successes.max(1) && self.passing != Some(true) {
            return None;
        }
        self.passed = true;
        self.passing = Some(true);
        Some(Finding::Passes)
    }

    fn failure(&mut self, message: String) -> Option<Finding> {
        self.successes = 0;
        if self.passed || self.now >= self.counts_from {
            self.failures = self.failures.saturating_add(1);
            self.counts_from = Millis(self.now.0.saturating_add(self.check.interval.0));
        }
        if self.failures >= self.check.retries.max(1) {
            self.passing = Some(false);
        }
        match self.passing {
            Some(false) => Some(Finding::Fails(message)),
            Some(true) => None,
            None if self.now.0.saturating_sub(self.began.0) < TOLD_AFTER.0 => None,
            None => Some(Finding::NotYet(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::Probe;

    fn check(interval: u64, retries: u32, start_period: u64) -> HealthCheck {
        HealthCheck {
            interval: Millis(interval),
            timeout: Millis(1000),
            retries,
            start_period: Millis(start_period),
            ..HealthCheck::new(Probe::Tcp { port: "http".parse().unwrap() })
        }
    }

    fn fails(text: &str) -> Option<Finding> {
        Some(Finding::Fails(text.to_owned()))
    }

    impl Schedule {
        fn pass(&mut self) -> Option<Finding> {
            self.result(Millis(1), Ok(())).0
        }

        fn fail(&mut self, text: &str) -> Option<Finding> {
            self.result(Millis(1), Err(text.to_owned())).0
        }
    }

    #[test]
    fn what_comes_up_is_seen_soon_and_then_asked_at_its_interval() {
        let mut schedule = Schedule::new(check(5000, 3, 0), Millis(0));
        let (said, pause) = schedule.result(Millis(1), Err("refused".to_owned()));
        assert_eq!((said, pause), (None, Millis(50)));
        let (said, pause) = schedule.result(Millis(1), Ok(()));
        assert_eq!((said, pause), (Some(Finding::Passes), Millis(5000)));
        assert_eq!(schedule.pass(), None);
    }

    #[test]
    fn failures_in_a_row_make_it_fail_once_and_a_new_reason_is_told() {
        let mut schedule = Schedule::new(check(100, 3, 0), Millis(0));
        schedule.pass();
        assert_eq!(schedule.fail("a"), None);
        assert_eq!(schedule.pass(), None);
        let said: Vec<_> = (0..4).map(|_| schedule.fail("a")).collect();
        assert_eq!(said, [None, None, fails("a"), None]);
        assert_eq!(schedule.fail("b"), fails("b"));
        assert_eq!(schedule.pass(), Some(Finding::Passes));
    }

    #[test]
    fn successes_in_a_row_make_it_pass_each_at_the_interval() {
        let three = HealthCheck { successes: 3, ..check(1000, 1, 0) };
        let mut schedule = Schedule::new(three, Millis(0));
        assert_eq!(schedule.result(Millis(1), Ok(())), (None, Millis(1000)));
        assert_eq!(schedule.pass(), None);
        // One failure, and they count from the start.
        schedule.fail("a");
        assert_eq!((schedule.pass(), schedule.pass()), (None, None));
        assert_eq!(schedule.pass(), Some(Finding::Passes));
        assert_eq!(schedule.fail("a"), fails("a"));
        assert_eq!((schedule.pass(), schedule.pass()), (None, None));
        assert_eq!(schedule.pass(), Some(Finding::Passes));
    }

    #[test]
    fn what_never_comes_up_is_told_soon_and_fails_after_its_start_period_and_retries() {
        let mut schedule = Schedule::new(check(1000, 2, 3000), Millis(0));
        let (mut at, mut told_at) = (0, None);
        let failed_at = loop {
            let (said, pause) = schedule.result(Millis(0), Err("refused".to_owned()));
            match said {
                Some(Finding::Fails(_)) => break at,
                Some(Finding::NotYet(_)) => {
                    assert!(told_at.replace(at).is_none(), "the same was told twice");
                }
                _ => {}
            }
            at += pause.0;
            assert!(at < 60_000, "never failed");
        };
        assert!((2000..3000).contains(&told_at.unwrap()), "{told_at:?}");
        assert!((3000 + 1000..3000 + 4000).contains(&failed_at), "{failed_at}");
    }

    #[test]
    fn a_slow_check_delays_the_next_and_counts_once() {
        let mut schedule = Schedule::new(check(1000, 2, 0), Millis(0));
        schedule.pass();
        let slow = Millis(30_000);
        let (said, pause) = schedule.result(slow, Err("no answer within 30s".to_owned()));
        assert_eq!((said, pause), (None, Millis(1000)));
        let (said, pause) = schedule.result(slow, Err("no answer within 30s".to_owned()));
        assert_eq!((said, pause), (fails("no answer within 30s"), Millis(1000)));
    }
}
