//! A connection's requests that wait for their turn, which of them may go into the log, and in
//! which order their answers and watch events are told.
//!
//! Requests in the log stand before all others. Whatever a client is told comes in the order of
//! transactions: an event from behind a request's state is told behind its answer, though the view
//! that brings the event may be here first. Otherwise a client could see a node's older data after
//! the event that it has changed, and a node's old version would stay in its cache for good.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::jute::op::{ErrorCode, Op};
use crate::state::znodes::{ZkCaller, ZkReply};
use crate::zookeeper::connection::Room;

/// A request that waits for its turn: answers go out in the order of the requests.
#[derive(Debug)]
pub(super) enum Item {
    /// It is answered from the view when its turn comes.
    Read { xid: i32, op: Op, body: Bytes },
    /// A write behind a read that is not answered yet, which must not see what it does. `caller`
    /// is whom it comes from.
    Held { xid: i32, op: Op, body: Bytes, caller: Arc<ZkCaller> },
    /// It is on its way through the log, or a read between two that are; the answer comes into
    /// [`Pipeline::settle`].
    Logged { xid: i32, op: Op },
    /// Its answer is found out elsewhere: how fresh this server is, or what takes long to count;
    /// that as of the transaction `zxid`.
    Later { xid: i32, number: u64, zxid: Option<i64>, answer: Option<Result<Vec<u8>, ErrorCode>> },
    /// The answer is known.
    Known { xid: i32, err: ErrorCode, body: Vec<u8> },
}

/// Frames that came together.
#[derive(Debug, Clone)]
pub(super) struct Lot {
    pub(super) arrived: Instant,
    /// Their share of the bytes that may wait; given back with the last answer.
    pub(super) room: Option<Arc<Room>>,
}

/// A request that may go into the log now.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) op: Op,
    pub(super) body: Bytes,
    pub(super) caller: Arc<ZkCaller>,
    /// Bytes of its answer, about, if it is a read.
    pub(super) answer: usize,
    /// See [`Lot::room`].
    pub(super) room: Option<Arc<Room>>,
}

/// A change that the client is to be told of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: i32,
    pub(super) zxid: i64,
    pub(super) path: Arc<str>,
}

impl Event {
    /// What it takes while it waits, about.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.len()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    items: VecDeque<(Item, Lot)>,
    /// How many of them, from the first on, are in the log or on their way there.
    logged: usize,
    /// Bytes of the answer of each read behind those that may travel, about. None of these is
    /// looked at again, however often something else happens.
    passing: VecDeque<usize>,
    /// How many items are held.
    held: usize,
    /// Answers from the log, in order, to the first of the requests that went there.
    replies: VecDeque<ZkReply>,
    /// Events that may have to stand behind answers to come, in order.
    events: VecDeque<Event>,
    event_bytes: usize,
}

impl Pipeline {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A request that waits for its turn.
    pub(super) fn push(&mut self, item: Item, lot: Lot) {
        match item {
            Item::Logged { .. } => self.logged += 1,
            Item::Held { .. } => self.held += 1,
            Item::Read { .. } | Item::Later { .. } | Item::Known { .. } => {}
        }
        self.items.push_back((item, lot));
    }

    /// The first request is found out elsewhere instead of here.
    pub(super) fn push_later(&mut self, xid: i32, number: u64, zxid: i64, lot: Lot) {
        let item = Item::Later { xid, number, zxid: Some(zxid), answer: None };
        self.items.push_front((item, lot));
    }

    /// The first request, whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(Item, Lot)> {
        let first = self.items.pop_front()?;
        match first.0 {
            Item::Logged { .. } => self.logged -= 1,
            Item::Held { .. } => self.held -= 1,
            // It was the first of those that may travel, if there are any.
            Item::Read { .. } => drop(self.passing.pop_front()),
            Item::Later { .. } | Item::Known { .. } => {}
        }
        Some(first)
    }

    /// Answers nothing more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the answer to the first request is still to come from elsewhere.
    pub(super) fn waits(&self) -> bool {
        match self.items.front() {
            Some((Item::Held { .. } | Item::Later { answer: None, .. }, _)) => true,
            Some((Item::Logged { .. }, _)) => self.replies.is_empty(),
            _ => false,
        }
    }

    /// Whether the first request is found out elsewhere.
    pub(super) fn begins_later(&self) -> bool {
        matches!(self.items.front(), Some((Item::Later { .. }, _)))
    }

    /// Whether a write may go into the log at once: nothing stands before it but what is there
    /// already.
    pub(super) fn may_write(&self) -> bool {
        self.logged == self.items.len()
    }

    /// What was found out elsewhere.
    pub(super) fn found(&mut self, number: u64, found: Result<Vec<u8>, ErrorCode>) {
        for (item, _) in &mut self.items {
            if let Item::Later { number: own, answer, .. } = item
                && *own == number
            {
                *answer = Some(found);
                return;
            }
        }
    }

    /// The next answer from the log.
    pub(super) fn settle(&mut self, reply: ZkReply) {
        self.replies.push_back(reply);
    }

    /// The answer to the first request, if that is in the log.
    pub(super) fn reply(&mut self) -> Option<ZkReply> {
        self.replies.pop_front()
    }

    /// Whether a write waits for reads before it.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Writes that need wait for reads no longer, in order, and reads before them that may pass
    /// with them: `may_pass` says how many bytes they are answered with. They are on their way
    /// from now on. A client that does not take its answers (`full`) is asked for no more of them.
    ///
    /// Each request is looked at twice at most, but the one at which this stops.
    pub(super) fn release(
        &mut self,
        caller: &Arc<ZkCaller>,
        full: bool,
        may_pass: impl Fn(Op, &[u8]) -> Option<usize>,
    ) -> Vec<Released> {
        let mut released = Vec::new();
        while self.held > 0 && !self.begins_later() {
            let Some((item, _)) = self.items.get(self.logged + self.passing.len()) else { break };
            match item {
                Item::Read { op, body, .. } if !full => match may_pass(*op, body) {
                    Some(answer) => self.passing.push_back(answer),
                    None => break,
                },
                Item::Held { .. } if !full || self.passing.is_empty() => {
                    for answer in std::mem::take(&mut self.passing).into_iter().chain([0]) {
                        released.extend(self.log(answer, caller));
                    }
                    self.held -= 1;
                }
                _ => break,
            }
        }
        released
    }

    /// The first request that is not in the log goes there.
    fn log(&mut self, answer: usize, caller: &Arc<ZkCaller>) -> Option<Released> {
        let (item, lot) = self.items.get_mut(self.logged)?;
        let room = lot.room.clone();
        let (Item::Read { xid, op, .. } | Item::Held { xid, op, .. }) = *item else { return None };
        let (body, caller) = match std::mem::replace(item, Item::Logged { xid, op }) {
            Item::Read { body, .. } => (body, caller.clone()),
            Item::Held { body, caller, .. } => (body, caller),
            _ => return None,
        };
        self.logged += 1;
        Some(Released { op, body, caller, answer, room })
    }

    /// Takes an event, which comes back from [`Pipeline::event`].
    pub(super) fn hold(&mut self, event: Event) {
        self.event_bytes += event.bytes();
        self.events.push_back(event);
    }

    /// The next event to be told before anything else is. With requests on their way through the
    /// log, nobody knows yet whether it is from before them or from behind.
    pub(super) fn event(&mut self, on_their_way: bool) -> Option<Event> {
        let next = self.events.front()?;
        let before = match (self.replies.front(), self.items.front()) {
            (Some(reply), _) => next.zxid <= reply.zxid,
            (None, Some((Item::Later { zxid: Some(zxid), .. }, _))) => next.zxid <= *zxid,
            (None, _) => !on_their_way,
        };
        let event = if before { self.events.pop_front() } else { None }?;
        self.event_bytes -= event.bytes();
        Some(event)
    }

    /// The newest transaction of which all is told, if a server has everything up to `newest`.
    pub(super) fn told(&self, newest: i64) -> i64 {
        self.events.front().map_or(newest, |event| newest.min(event.zxid - 1))
    }

    /// Whether there are events.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Bytes that events take, about.
    pub(super) fn event_bytes(&self) -> usize {
        self.event_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn lot() -> Lot {
        Lot { arrived: Instant::now(), room: None }
    }

    fn read(body: &'static str) -> Item {
        Item::Read { xid: 1, op: Op::GetData, body: Bytes::from_static(body.as_bytes()) }
    }

    fn held(body: &'static str) -> Item {
        let (body, caller) = (Bytes::from_static(body.as_bytes()), Arc::default());
        Item::Held { xid: 1, op: Op::SetData, body, caller }
    }

    fn logged() -> Item {
        Item::Logged { xid: 1, op: Op::SetData }
    }

    fn of(items: impl IntoIterator<Item = Item>) -> Pipeline {
        let mut pipeline = Pipeline::default();
        for item in items {
            pipeline.push(item, lot());
        }
        pipeline
    }

    /// Bodies of what is released; reads called `large` don't travel.
    fn release(pipeline: &mut Pipeline, full: bool, looks: &Cell<usize>) -> Vec<Bytes> {
        let may_pass = |_, body: &[u8]| {
            looks.set(looks.get() + 1);
            (body != b"large").then_some(10)
        };
        let released = pipeline.release(&Arc::default(), full, may_pass);
        released.into_iter().map(|released| released.body).collect()
    }

    #[test]
    fn reads_go_with_the_writes_behind_them_up_to_one_that_can_not() {
        let looks = Cell::new(0);
        let items =
            [logged(), read("a"), held("b"), held("c"), read("large"), read("d"), held("e")];
        let mut pipeline = of(items);
        assert!(!pipeline.may_write());
        assert!(release(&mut pipeline, true, &looks).is_empty(), "it takes no answers");
        assert_eq!(release(&mut pipeline, false, &looks), ["a", "b", "c"]);
        assert!(release(&mut pipeline, false, &looks).is_empty());
        // The log answers the first four; the large read is answered here.
        for _ in 0..5 {
            pipeline.pop();
        }
        assert_eq!(release(&mut pipeline, false, &looks), ["d", "e"]);
        assert!(pipeline.may_write() && !pipeline.holds());
        assert_eq!(pipeline.len(), 2);
    }

    #[test]
    fn what_is_found_out_elsewhere_is_waited_for() {
        let looks = Cell::new(0);
        let mut pipeline = of([read("a"), read("b"), read("large"), held("c")]);
        release(&mut pipeline, false, &looks);
        pipeline.pop();
        pipeline.push_later(1, 7, 40, lot());
        assert!(pipeline.waits() && pipeline.begins_later());
        assert!(release(&mut pipeline, false, &looks).is_empty());
        pipeline.found(7, Ok(Vec::new()));
        for _ in 0..3 {
            assert!(!pipeline.waits());
            pipeline.pop();
        }
        assert_eq!(release(&mut pipeline, false, &looks), ["c"]);
    }

    #[test]
    fn a_long_pipeline_is_not_looked_through_again_and_again() {
        const LONG: usize = 10_000;
        let looks = Cell::new(0);
        let mut pipeline = of((0..LONG).map(|_| logged()));
        for _ in 0..LONG {
            pipeline.push(read("a"), lot());
        }
        pipeline.push(read("large"), lot());
        pipeline.push(held("b"), lot());
        for _ in 0..LONG {
            assert!(release(&mut pipeline, false, &looks).is_empty());
            pipeline.pop();
        }
        assert!(looks.get() <= 2 * LONG + 1, "{}", looks.get());
    }

    fn reply(zxid: i64) -> ZkReply {
        ZkReply { zxid, err: 0, body: Vec::new() }
    }

    fn event(zxid: i64) -> Event {
        Event { kind: 3, zxid, path: Arc::from("/x") }
    }

    /// What is told, while `on_their_way` requests are not answered.
    fn told(pipeline: &mut Pipeline, on_their_way: bool) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            while let Some(event) = pipeline.event(on_their_way) {
                told.push(format!("event {}", event.zxid));
            }
            if pipeline.is_empty() || pipeline.waits() {
                return told;
            }
            told.push(match pipeline.pop() {
                Some((Item::Logged { .. }, _)) => {
                    format!("answer {}", pipeline.reply().unwrap().zxid)
                }
                item => format!("{:?}", item.map(|(item, _)| matches!(item, Item::Read { .. }))),
            });
        }
    }

    #[test]
    fn an_event_from_behind_a_travelling_read_is_told_behind_its_answer() {
        // A write, a read that travels and a write, and other clients' changes around them.
        let mut pipeline = of([logged(), logged(), logged(), read("a")]);
        for zxid in [4, 5, 6, 7] {
            pipeline.hold(event(zxid));
        }
        // The view came before what became of the lot.
        assert!(told(&mut pipeline, true).is_empty());
        assert_eq!(pipeline.told(7), 3);
        for zxid in [5, 5, 6] {
            pipeline.settle(reply(zxid));
        }
        let order =
            ["event 4", "event 5", "answer 5", "answer 5", "event 6", "answer 6", "event 7"];
        let all = told(&mut pipeline, false);
        assert_eq!(all[..7], order);
        assert_eq!(all[7..], ["Some(true)"], "from the view, behind all that it brought");
        assert_eq!((pipeline.told(7), pipeline.event_bytes()), (7, 0));
    }

    #[test]
    fn an_event_waits_for_no_request_that_went_later() {
        let mut pipeline = of([logged(), logged()]);
        pipeline.hold(event(3));
        // One lot is answered, and the next is on its way already.
        pipeline.settle(reply(4));
        assert_eq!(told(&mut pipeline, true), ["event 3", "answer 4"]);
        // Of those that wait here, nobody thinks yet.
        pipeline.hold(event(5));
        assert_eq!(told(&mut pipeline, false), ["event 5"]);
    }

    #[test]
    fn an_event_from_behind_a_count_is_told_behind_it() {
        let mut pipeline = Pipeline::default();
        pipeline.push_later(1, 7, 4, lot());
        pipeline.hold(event(4));
        pipeline.hold(event(5));
        assert_eq!(told(&mut pipeline, false), ["event 4"]);
        pipeline.found(7, Ok(Vec::new()));
        assert_eq!(told(&mut pipeline, false), ["Some(false)", "event 5"]);
    }
}
