//! Whether a history of concurrent operations can be put in one order, one after the other, that
//! agrees with real time and with a model of the object.
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with Lowe's
//! memory of what was tried ("Testing for linearizability", 2017): a set of operations that was put
//! in order once, with the same state behind it, is not tried again. What was tried is remembered
//! by a sum of random numbers, one for each operation, so that a step costs the same in a long
//! history as in a short one. Operations whose outcome nobody knows may take effect at any time
//! after their begin, or never: they are tried last, since most of them never mattered.
//!
//! Of the checkers there are as crates, `stateright`'s has no memory of what was tried, and
//! `todc-utils`'s knows no operation without an outcome; both are needed here.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// What one operation after the other would do.
pub trait Model {
    /// What an operation asked, and how it was answered.
    type Op: Clone + Debug;
    /// What the object is.
    type State: Clone + Debug + Ord;

    /// Before the first operation.
    fn initial() -> Self::State;

    /// The state after an operation; none if it can't have been answered so in this state.
    fn step(state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// The same operation as it is before its answer is known; none if it changes nothing.
    fn unanswered(op: &Self::Op) -> Option<Self::Op>;
}

/// An operation with its times, in any unit that all of a history share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed<Op> {
    /// Before it was sent.
    pub begin: u64,
    /// After its answer came; none: no answer came that says what became of it.
    pub end: Option<u64>,
    /// What it was.
    pub op: Op,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Violated(Violation),
    /// The search took more than so many steps.
    GaveUp(usize),
}

/// How far an order could be found. Numbers are places in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The longest order that was found.
    pub order: Vec<usize>,
    /// Operations that were under way behind it, none of which fits.
    pub stuck: Vec<usize>,
}

/// Looks for an order, in at most `steps_max` steps.
pub fn check<M: Model>(history: &[Timed<M::Op>], steps_max: usize) -> Verdict {
    Search::<M>::new(history).run(steps_max)
}

/// The shortest beginning of a history for which there is no order, if there is none for the
/// whole: what had begun by then, as it was known by then.
pub fn shortest_violation<M: Model>(
    history: &[Timed<M::Op>],
    steps_max: usize,
) -> Option<Vec<Timed<M::Op>>> {
    let violated = |until: u64| {
        let part = beginning::<M>(history, until);
        matches!(check::<M>(&part, steps_max), Verdict::Violated(_)).then_some(part)
    };
    let mut ends: Vec<u64> = history.iter().filter_map(|timed| timed.end).collect();
    ends.sort_unstable();
    ends.dedup();
    // More of a history never mends it.
    let at = ends.partition_point(|end| violated(*end).is_none());
    ends.get(at).and_then(|end| violated(*end))
}

fn beginning<M: Model>(history: &[Timed<M::Op>], until: u64) -> Vec<Timed<M::Op>> {
    let begun = history.iter().filter(|timed| timed.begin <= until);
    begun
        .filter_map(|timed| match timed.end {
            Some(end) if end <= until => Some(timed.clone()),
            _ => M::unanswered(&timed.op).map(|op| Timed { begin: timed.begin, end: None, op }),
        })
        .collect()
}

/// Begins and ends in the order of time, linked, so that an operation is taken out and put back
/// in a few steps.
struct Search<'h, M: Model> {
    history: &'h [Timed<M::Op>],
    marks: Vec<Mark>,
    /// Place of each operation's begin among the marks, and of its end.
    places: Vec<(usize, Option<usize>)>,
    /// Answered operations that have no place in the order yet.
    open: usize,
}

/// A begin or an end. The first mark is neither: it stands before all.
#[derive(Debug, Clone, Copy)]
struct Mark {
    op: usize,
    is_begin: bool,
    before: usize,
    /// The number of marks: none.
    after: usize,
}

/// A place in the order that was given to an operation, and how to go back.
struct Taken<State> {
    op: usize,
    state: State,
    /// Whether unanswered operations were tried there.
    last_resort: bool,
    sum: u128,
}

impl<'h, M: Model> Search<'h, M> {
    fn new(history: &'h [Timed<M::Op>]) -> Self {
        let mut events = Vec::with_capacity(2 * history.len());
        for (op, timed) in history.iter().enumerate() {
            // At one moment begins come first: the two may have been concurrent.
            events.push((timed.begin, false, op));
            events.extend(timed.end.map(|end| (end, true, op)));
        }
        events.sort_unstable();
        let mut places = vec![(0, None); history.len()];
        let mut marks = vec![Mark { op: usize::MAX, is_begin: false, before: 0, after: 1 }];
        for (_, is_end, op) in events {
            let at = marks.len();
            match is_end {
                false => places[op].0 = at,
                true => places[op].1 = Some(at),
            }
            marks.push(Mark { op, is_begin: !is_end, before: at - 1, after: at + 1 });
        }
        let open = history.iter().filter(|timed| timed.end.is_some()).count();
        Self { history, marks, places, open }
    }

    fn unlink(&mut self, at: usize) {
        let Mark { before, after, .. } = self.marks[at];
        self.marks[before].after = after;
        if let Some(next) = self.marks.get_mut(after) {
            next.before = before;
        }
    }

    fn link(&mut self, at: usize) {
        let Mark { before, after, .. } = self.marks[at];
        self.marks[before].after = at;
        if let Some(next) = self.marks.get_mut(after) {
            next.before = at;
        }
    }

    fn take(&mut self, op: usize) {
        let (begin, end) = self.places[op];
        self.unlink(begin);
        if let Some(end) = end {
            self.unlink(end);
            self.open -= 1;
        }
    }

    fn put_back(&mut self, op: usize) {
        let (begin, end) = self.places[op];
        if let Some(end) = end {
            self.link(end);
            self.open += 1;
        }
        self.link(begin);
    }

    fn run(mut self, steps_max: usize) -> Verdict {
        let mut state = M::initial();
        let mut sum = 0_u128;
        let mut tried = BTreeSet::new();
        let mut order: Vec<Taken<M::State>> = Vec::new();
        let mut best: Option<Violation> = None;
        let mut at = self.marks[0].after;
        // First those that were answered; then, as a last resort, those that were not.
        let mut last_resort = false;
        for _ in 0..steps_max {
            if self.open == 0 {
                return Verdict::Linearizable;
            }
            let mark = self.marks[at];
            if mark.is_begin {
                let timed = &self.history[mark.op];
                let is_turn = timed.end.is_none() == last_resort;
                let next = is_turn.then(|| M::step(&state, &timed.op)).flatten();
                let next_sum = sum ^ number_of(mark.op);
                match next {
                    Some(next) if tried.insert((next_sum, next.clone())) => {
                        self.take(mark.op);
                        let before = std::mem::replace(&mut state, next);
                        order.push(Taken { op: mark.op, state: before, last_resort, sum });
                        sum = next_sum;
                        (at, last_resort) = (self.marks[0].after, false);
                    }
                    _ => at = mark.after,
                }
                continue;
            }
            // An end that is reached: whatever comes next in the order stands before it.
            if !last_resort {
                (at, last_resort) = (self.marks[0].after, true);
                continue;
            }
            if best.as_ref().is_none_or(|best| best.order.len() < order.len()) {
                best = Some(self.violation(&order, at));
            }
            let Some(taken) = order.pop() else {
                let nothing = Violation { order: Vec::new(), stuck: Vec::new() };
                return Verdict::Violated(best.unwrap_or(nothing));
            };
            self.put_back(taken.op);
            (state, sum, last_resort) = (taken.state, taken.sum, taken.last_resort);
            at = self.marks[self.places[taken.op].0].after;
        }
        Verdict::GaveUp(steps_max)
    }

    fn violation(&self, order: &[Taken<M::State>], end: usize) -> Violation {
        let mut stuck = Vec::new();
        let mut at = self.marks[0].after;
        while at != end {
            stuck.push(self.marks[at].op);
            at = self.marks[at].after;
        }
        Violation { order: order.iter().map(|taken| taken.op).collect(), stuck }
    }
}

/// A random number of an operation's own.
fn number_of(op: usize) -> u128 {
    // SplitMix64, twice.
    let mix = |seed: u64| {
        let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ (z >> 31))
    };
    mix(2 * op as u64 + 1) << 64 | mix(2 * op as u64 + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number with compare-and-set.
    struct Number;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Op {
        Read(u8),
        Write(u8),
        /// From, to, and whether it was so.
        Swap(u8, u8, Option<bool>),
    }

    impl Model for Number {
        type Op = Op;
        type State = u8;

        fn initial() -> u8 {
            0
        }

        fn step(state: &u8, op: &Op) -> Option<u8> {
            match op {
                Op::Read(found) => (found == state).then_some(*state),
                Op::Write(value) => Some(*value),
                Op::Swap(from, to, done) => {
                    let fits = from == state;
                    match done {
                        Some(done) if *done != fits => None,
                        _ => Some(if fits { *to } else { *state }),
                    }
                }
            }
        }

        fn unanswered(op: &Op) -> Option<Op> {
            match op {
                Op::Read(_) => None,
                Op::Write(value) => Some(Op::Write(*value)),
                Op::Swap(from, to, _) => Some(Op::Swap(*from, *to, None)),
            }
        }
    }

    const STEPS: usize = 10_000_000;

    fn history(rows: &[(u64, u64, Op)]) -> Vec<Timed<Op>> {
        let end = |end: u64| (end > 0).then_some(end);
        let timed =
            |(begin, e, op): &(u64, u64, Op)| Timed { begin: *begin, end: end(*e), op: op.clone() };
        rows.iter().map(timed).collect()
    }

    /// 0 as the end: no answer.
    fn verdict(rows: &[(u64, u64, Op)]) -> Verdict {
        check::<Number>(&history(rows), STEPS)
    }

    fn is_fine(rows: &[(u64, u64, Op)]) -> bool {
        verdict(rows) == Verdict::Linearizable
    }

    #[test]
    fn known_histories_are_judged_rightly() {
        use Op::{Read, Swap, Write};
        assert!(is_fine(&[]));
        assert!(is_fine(&[(1, 2, Write(1)), (3, 4, Read(1))]));
        assert!(!is_fine(&[(1, 2, Write(1)), (3, 4, Read(0))]), "a stale read");
        assert!(is_fine(&[(1, 4, Write(1)), (2, 3, Read(0))]), "concurrent: before it");
        assert!(is_fine(&[(1, 4, Write(1)), (2, 3, Read(1))]), "concurrent: behind it");
        let back = [(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))];
        assert!(!is_fine(&back), "a read that goes back behind another");
        let twice = [(1, 2, Swap(0, 1, Some(true))), (1, 2, Swap(0, 2, Some(true)))];
        assert!(!is_fine(&twice), "both can't have found 0");
        let once = [(1, 3, Swap(0, 1, Some(true))), (2, 4, Swap(0, 2, Some(false)))];
        assert!(is_fine(&once));
        let lost = [(1, 2, Write(1)), (3, 4, Write(2)), (5, 6, Read(1))];
        assert!(!is_fine(&lost), "a write that was acknowledged is gone");
    }

    #[test]
    fn what_was_not_answered_may_have_happened_later_or_never() {
        use Op::{Read, Swap, Write};
        assert!(is_fine(&[(1, 0, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))]), "late");
        assert!(is_fine(&[(1, 0, Write(1)), (2, 3, Read(0)), (4, 5, Read(0))]), "never");
        let flicker = [(1, 0, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))];
        assert!(!is_fine(&flicker), "once, not for a moment");
        assert!(!is_fine(&[(3, 0, Write(1)), (1, 2, Read(1))]), "not before it was asked");
        let twice = [(1, 0, Swap(0, 1, None)), (2, 3, Read(1)), (4, 5, Write(0)), (6, 7, Read(1))];
        assert!(!is_fine(&twice), "not twice");
    }

    #[test]
    fn the_shortest_violation_ends_where_it_shows() {
        use Op::{Read, Write};
        let rows = [
            (1, 2, Write(1)),
            (3, 4, Read(1)),
            (5, 6, Read(0)),
            (5, 9, Write(2)),
            (10, 11, Read(2)),
        ];
        let short = shortest_violation::<Number>(&history(&rows), STEPS).unwrap();
        let expected =
            history(&[(1, 2, Write(1)), (3, 4, Read(1)), (5, 6, Read(0)), (5, 0, Write(2))]);
        assert_eq!(short, expected);
        let Verdict::Violated(violation) = check::<Number>(&short, STEPS) else { unreachable!() };
        assert!(violation.stuck.contains(&2), "{violation:?}");
        assert_eq!(shortest_violation::<Number>(&history(&rows[..2]), STEPS), None);
    }

    #[test]
    fn a_search_without_end_is_given_up() {
        let rows = [(1, 2, Op::Write(1)), (3, 4, Op::Read(1))];
        assert_eq!(check::<Number>(&history(&rows), 1), Verdict::GaveUp(1));
    }

    /// Thousands of operations with twelve clients at once, some of them never answered.
    #[test]
    fn long_histories_are_judged_quickly() {
        let (mut rows, mut now, mut value) = (Vec::new(), 10, 0_u8);
        for round in 0..1500_u64 {
            value = value.wrapping_add(1);
            rows.push((now, now + 9, Op::Write(value)));
            for reader in 0..4 {
                rows.push((now + 10 + reader, now + 15 + reader, Op::Read(value)));
            }
            if round % 40 == 0 {
                rows.push((now, 0, Op::Write(value.wrapping_add(100))));
            }
            now += 20;
        }
        assert!(is_fine(&rows));
        let last = rows.len() - 1;
        let Op::Read(read) = &mut rows[last].2 else { unreachable!() };
        *read = value.wrapping_add(50);
        assert!(!is_fine(&rows));
    }

    /// Every order there is, and every choice of what happened.
    fn by_brute_force(history: &[Timed<Op>], taken: u32, state: u8) -> bool {
        let is_open = |at: usize| taken & (1 << at) == 0;
        if (0..history.len()).all(|at| !is_open(at) || history[at].end.is_none()) {
            return true;
        }
        (0..history.len()).filter(|at| is_open(*at)).any(|at| {
            let begin = history[at].begin;
            let is_late = (0..history.len()).any(|other| {
                other != at && is_open(other) && history[other].end.is_some_and(|end| end < begin)
            });
            !is_late
                && Number::step(&state, &history[at].op)
                    .is_some_and(|next| by_brute_force(history, taken | 1 << at, next))
        })
    }

    fn some_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..3_u8).prop_map(Op::Read),
            2 => (0..3_u8).prop_map(Op::Write),
            2 => (0..3_u8, 0..3_u8, any::<bool>())
                .prop_map(|(from, to, done)| Op::Swap(from, to, Some(done))),
        ]
    }

    fn some_history() -> impl Strategy<Value = Vec<Timed<Op>>> {
        let timed = (0..12_u64, 0..6_u64, 0..5_u8, some_op()).prop_map(
            |(begin, length, unanswered, op)| match (unanswered, Number::unanswered(&op)) {
                (0, Some(op)) => Timed { begin, end: None, op },
                _ => Timed { begin, end: Some(begin + length), op },
            },
        );
        proptest::collection::vec(timed, 0..7)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn it_agrees_with_brute_force(history in some_history()) {
            let expected = by_brute_force(&history, 0, 0);
            let found = check::<Number>(&history, STEPS) == Verdict::Linearizable;
            prop_assert_eq!(found, expected);
            let shortest = shortest_violation::<Number>(&history, STEPS);
            prop_assert_eq!(shortest.is_some(), !expected);
            if let Some(shortest) = shortest {
                prop_assert!(!by_brute_force(&shortest, 0, 0));
            }
        }
    }
}
