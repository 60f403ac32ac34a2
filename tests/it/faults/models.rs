//! What a variable of the REST API and a node of ZooKeeper's tree are to one client after the other.

use serde::{Deserialize, Serialize};

use super::linearizability::Model;

/// What a request to one variable asked, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableOp {
    /// `GET`; value and index, if there is such a variable.
    Read {
        /// What was there.
        found: Option<(String, u64)>,
    },
    /// `PUT`, if it is at an index.
    Put {
        /// The new value; no two writes of a history share one.
        value: String,
        /// Only if it is at this index; 0: if there is none.
        if_index: Option<u64>,
        /// What came of it; none: nobody knows.
        outcome: Option<Outcome>,
    },
    /// `DELETE`, if it is at an index.
    Delete {
        /// Only if it is at this index.
        if_index: Option<u64>,
        /// What came of it; none: nobody knows.
        outcome: Option<Outcome>,
    },
}

/// How a write of a variable was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done; a `PUT` at this index, a `DELETE` at 0.
    Done(u64),
    /// Refused: it is at another index, this one if the answer said so; 0: there is none.
    Conflict(Option<u64>),
    /// Refused: there is none.
    NotFound,
}

/// A variable of the REST API.
#[derive(Debug)]
pub struct Variable;

/// A variable as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableState {
    value: Option<String>,
    /// Its index; none: written by a request whose answer did not come. 0: there is no variable.
    index: Option<u64>,
    /// The highest index that was seen so far: later writes have higher ones.
    seen: u64,
}

impl VariableState {
    /// As far as the index is known it must be this one, and is from here on.
    fn at(&self, index: u64) -> Option<Self> {
        match self.index {
            Some(known) if known != index => None,
            // A write whose answer did not come had its turn behind what was seen before.
            None if index <= self.seen => None,
            _ => Some(Self { index: Some(index), seen: self.seen.max(index), ..self.clone() }),
        }
    }

    fn absent(&self) -> Self {
        Self { value: None, index: Some(0), seen: self.seen }
    }

    fn expected(&self, if_index: Option<u64>) -> Option<Self> {
        if_index.map_or(Some(self.clone()), |index| self.at(index))
    }

    fn put(&self, value: &str, index: Option<u64>) -> Option<Self> {
        match index {
            Some(index) if index <= self.seen => None,
            index => {
                let seen = index.unwrap_or(self.seen);
                Some(Self { value: Some(value.to_owned()), index, seen })
            }
        }
    }

    /// It is not at `if_index`; and where it is instead, if that was said.
    fn conflict(&self, if_index: Option<u64>, now: Option<u64>) -> Option<Self> {
        match (if_index, now) {
            (None, _) => None,
            (Some(expected), _) if self.index == Some(expected) => None,
            (Some(expected), Some(now)) if expected == now => None,
            (_, Some(now)) => self.at(now),
            (_, None) => Some(self.clone()),
        }
    }
}

impl Model for Variable {
    type Op = VariableOp;
    type State = VariableState;

    fn initial() -> VariableState {
        VariableState { value: None, index: Some(0), seen: 0 }
    }

    fn step(state: &VariableState, op: &VariableOp) -> Option<VariableState> {
        let is_there = state.value.is_some();
        match op {
            VariableOp::Read { found: None } => (!is_there).then(|| state.clone()),
            VariableOp::Read { found: Some((value, index)) } => {
                (state.value.as_ref() == Some(value)).then(|| state.at(*index)).flatten()
            }
            VariableOp::Put { value, if_index, outcome } => match outcome {
                Some(Outcome::Done(index)) => state.expected(*if_index)?.put(value, Some(*index)),
                Some(Outcome::Conflict(now)) => state.conflict(*if_index, *now),
                Some(Outcome::NotFound) => None,
                // That it was refused in the end is as if it had never come.
                None => state.expected(*if_index)?.put(value, None),
            },
            VariableOp::Delete { if_index, outcome } => match outcome {
                Some(Outcome::Done(_)) if is_there => {
                    state.expected(*if_index).map(|state| state.absent())
                }
                Some(Outcome::Done(_)) => None,
                Some(Outcome::Conflict(now)) if is_there => state.conflict(*if_index, *now),
                Some(Outcome::Conflict(_)) => None,
                Some(Outcome::NotFound) => (!is_there).then(|| state.clone()),
                None => state.expected(*if_index).map(|state| state.absent()),
            },
        }
    }

    fn unanswered(op: &VariableOp) -> Option<VariableOp> {
        match op.clone() {
            VariableOp::Read { .. } => None,
            VariableOp::Put { value, if_index, .. } => {
                Some(VariableOp::Put { value, if_index, outcome: None })
            }
            VariableOp::Delete { if_index, .. } => {
                Some(VariableOp::Delete { if_index, outcome: None })
            }
        }
    }
}

/// What a request to one node asked, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeOp {
    /// `getData` behind a `sync`; data and version, if there is such a node.
    Read {
        /// What was there.
        found: Option<(String, i32)>,
    },
    /// `create`.
    Create {
        /// Its data.
        data: String,
        /// Whether it was made; none: nobody knows.
        done: Option<bool>,
    },
    /// `setData`.
    Set {
        /// The new data.
        data: String,
        /// Only in this version; -1: in any.
        version: i32,
        /// What came of it; none: nobody knows.
        outcome: Option<Changed>,
    },
    /// `delete`.
    Delete {
        /// Only in this version; -1: in any.
        version: i32,
        /// What came of it; none: nobody knows.
        outcome: Option<Changed>,
    },
}

/// How a change of a node was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// Done; it has this version now, or had it.
    Done(i32),
    /// Refused: it has another version.
    BadVersion,
    /// Refused: there is none.
    NoNode,
}

/// A node of ZooKeeper's tree.
#[derive(Debug)]
pub struct Node;

/// A node's data and version, if there is one.
type NodeState = Option<(String, i32)>;

impl Model for Node {
    type Op = NodeOp;
    type State = NodeState;

    fn initial() -> NodeState {
        None
    }

    fn step(state: &NodeState, op: &NodeOp) -> Option<NodeState> {
        let now = state.as_ref().map(|(_, version)| *version);
        let refused = |version: i32, outcome: Option<Changed>| match (outcome, now) {
            (Some(Changed::NoNode), None) => true,
            (Some(Changed::BadVersion), Some(now)) => version != -1 && version != now,
            _ => false,
        };
        // None: can't be so; otherwise the version it had.
        let had = |version: i32| now.filter(|now| version == -1 || version == *now);
        match op {
            NodeOp::Read { found } => (found == state).then(|| state.clone()),
            NodeOp::Create { done: Some(false), .. } => now.map(|_| state.clone()),
            NodeOp::Create { data, .. } => match now {
                None => Some(Some((data.clone(), 0))),
                Some(_) => None,
            },
            NodeOp::Set { version, outcome, .. } | NodeOp::Delete { version, outcome }
                if refused(*version, *outcome) =>
            {
                Some(state.clone())
            }
            NodeOp::Set { data, version, outcome } => {
                let next = had(*version)? + 1;
                match outcome {
                    None => Some(Some((data.clone(), next))),
                    Some(Changed::Done(told)) if *told == next => Some(Some((data.clone(), next))),
                    Some(_) => None,
                }
            }
            NodeOp::Delete { version, outcome } => match outcome {
                None | Some(Changed::Done(_)) => had(*version).map(|_| None),
                Some(_) => None,
            },
        }
    }

    fn unanswered(op: &NodeOp) -> Option<NodeOp> {
        match op.clone() {
            NodeOp::Read { .. } => None,
            NodeOp::Create { data, .. } => Some(NodeOp::Create { data, done: None }),
            NodeOp::Set { data, version, .. } => Some(NodeOp::Set { data, version, outcome: None }),
            NodeOp::Delete { version, .. } => Some(NodeOp::Delete { version, outcome: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::linearizability::{Timed, Verdict, check};
    use super::*;

    fn one_after_the_other<M: Model>(ops: Vec<M::Op>) -> bool {
        let timed = |(at, op)| Timed { begin: 2 * at as u64, end: Some(2 * at as u64 + 1), op };
        let history: Vec<_> = ops.into_iter().enumerate().map(timed).collect();
        check::<M>(&history, 100_000) == Verdict::Linearizable
    }

    fn put(value: &str, if_index: Option<u64>, outcome: Option<Outcome>) -> VariableOp {
        VariableOp::Put { value: value.to_owned(), if_index, outcome }
    }

    fn read(found: Option<(&str, u64)>) -> VariableOp {
        VariableOp::Read { found: found.map(|(value, index)| (value.to_owned(), index)) }
    }

    #[test]
    fn variables_are_judged_by_their_indexes() {
        use Outcome::{Conflict, Done, NotFound};
        let fine = one_after_the_other::<Variable>;
        assert!(fine(vec![
            read(None),
            put("a", Some(0), Some(Done(5))),
            read(Some(("a", 5))),
            put("b", Some(4), Some(Conflict(Some(5)))),
            put("b", Some(5), Some(Done(7))),
            VariableOp::Delete { if_index: Some(7), outcome: Some(Done(0)) },
            VariableOp::Delete { if_index: None, outcome: Some(NotFound) },
            put("c", Some(7), Some(Conflict(Some(0)))),
        ]));
        let a = || put("a", None, Some(Done(5)));
        assert!(!fine(vec![a(), put("b", None, Some(Done(5)))]), "an index twice");
        assert!(!fine(vec![a(), put("b", Some(4), Some(Done(6)))]), "not as expected");
        assert!(!fine(vec![a(), put("b", Some(5), Some(Conflict(None)))]), "as expected");
        assert!(!fine(vec![a(), put("b", Some(4), Some(Conflict(Some(6))))]), "elsewhere");
        assert!(!fine(vec![a(), read(Some(("a", 6)))]), "another index");
        assert!(!fine(vec![a(), read(Some(("b", 5)))]), "another value");
        assert!(!fine(vec![a(), read(None)]), "gone");
        let delete = VariableOp::Delete { if_index: None, outcome: Some(Done(0)) };
        assert!(!fine(vec![delete]), "nothing to delete");
    }

    #[test]
    fn a_write_without_an_answer_tells_its_index_when_it_is_read() {
        use Outcome::{Conflict, Done};
        let history = |tail: &[VariableOp]| {
            let lost = put("x", None, None);
            let mut history = vec![Timed { begin: 0, end: None, op: lost }];
            let head = put("a", None, Some(Done(5)));
            for (at, op) in std::iter::once(&head).chain(tail).enumerate() {
                let begin = 10 * (at as u64 + 1);
                history.push(Timed { begin, end: Some(begin + 5), op: op.clone() });
            }
            check::<Variable>(&history, 100_000) == Verdict::Linearizable
        };
        assert!(history(&[read(Some(("x", 6))), put("b", Some(6), Some(Done(7)))]));
        assert!(!history(&[read(Some(("x", 6))), put("b", Some(5), Some(Done(7)))]));
        assert!(!history(&[read(Some(("x", 4)))]), "behind 5, and at 4");
        assert!(history(&[put("b", Some(5), Some(Conflict(Some(6)))), read(Some(("x", 6)))]));
        assert!(!history(&[put("b", Some(5), Some(Conflict(Some(6)))), read(Some(("a", 5)))]));
    }

    #[test]
    fn nodes_are_judged_by_their_versions() {
        use Changed::{BadVersion, Done, NoNode};
        let fine = one_after_the_other::<Node>;
        let create = |done| NodeOp::Create { data: "a".to_owned(), done: Some(done) };
        let set = |version, outcome| NodeOp::Set {
            data: "b".to_owned(),
            version,
            outcome: Some(outcome),
        };
        let delete = |version, outcome| NodeOp::Delete { version, outcome: Some(outcome) };
        let read = |found: Option<(&str, i32)>| NodeOp::Read {
            found: found.map(|(data, version)| (data.to_owned(), version)),
        };
        assert!(fine(vec![
            read(None),
            set(-1, NoNode),
            create(true),
            create(false),
            set(1, BadVersion),
            set(0, Done(1)),
            read(Some(("b", 1))),
            set(-1, Done(2)),
            delete(1, BadVersion),
            delete(2, Done(2)),
            delete(-1, NoNode),
            create(true),
            read(Some(("a", 0))),
        ]));
        assert!(!fine(vec![create(true), create(true)]));
        assert!(!fine(vec![create(false)]));
        assert!(!fine(vec![create(true), set(0, Done(2))]), "a change too many");
        assert!(!fine(vec![create(true), set(0, BadVersion)]));
        assert!(!fine(vec![create(true), set(-1, BadVersion)]));
        assert!(!fine(vec![create(true), set(1, Done(1))]));
        assert!(!fine(vec![create(true), delete(1, Done(1))]));
        assert!(!fine(vec![create(true), delete(0, Done(0)), read(Some(("a", 0)))]));
    }
}
