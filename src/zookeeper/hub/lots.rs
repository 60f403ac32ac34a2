//! Lots of requests on their way through the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Gathered, Hub};
use crate::limits::{
    ZK_BATCH_BYTES, ZK_BATCH_REQUESTS_MAX, ZK_LOT_REQUESTS_MIN, ZK_LOTS_IN_FLIGHT,
    ZK_PASSING_READS_BYTES,
};
use crate::state::znodes::{ZkBatch, ZkCaller, ZkRequest};
use crate::state::{Command, Request};
use crate::zookeeper::connection::Room;
use crate::zookeeper::watches::ConnId;

/// A lot that is put together.
#[derive(Default)]
struct Lot {
    batch: ZkBatch,
    /// Who asks: by connection, with the place in the batch.
    callers: BTreeMap<ConnId, (Arc<ZkCaller>, u32)>,
    /// Whose request each is.
    conns: Vec<ConnId>,
    members: BTreeSet<ConnId>,
    bytes: usize,
    /// Bytes of answers to reads.
    answers: usize,
    /// What keeps the room of its requests taken.
    rooms: Vec<Arc<Room>>,
}

impl Lot {
    /// Bytes that a request adds.
    fn more(&self, next: &Gathered) -> usize {
        let is_known = |caller: &&Arc<ZkCaller>| {
            let known = self.callers.get(&next.conn);
            known.is_some_and(|(known, _)| Arc::ptr_eq(known, *caller))
        };
        let new = next.caller.as_ref().filter(|caller| !is_known(caller));
        next.bytes + new.map_or(0, |caller| caller.bytes())
    }

    /// Whether there is room for a request; one alone always fits.
    fn has_room(&self, next: &Gathered) -> bool {
        let fits = self.conns.len() < ZK_BATCH_REQUESTS_MAX
            && self.bytes + self.more(next) <= ZK_BATCH_BYTES
            && self.answers + next.answer <= ZK_PASSING_READS_BYTES;
        fits || self.conns.is_empty()
    }

    fn push(&mut self, next: Gathered) {
        self.bytes += self.more(&next);
        self.answers += next.answer;
        let Gathered { conn, caller, mut request, room, .. } = next;
        // Requests that came together share one.
        if let Some(room) = room
            && !self.rooms.last().is_some_and(|last| Arc::ptr_eq(last, &room))
        {
            self.rooms.push(room);
        }
        if let (ZkRequest::Op { caller: place, .. }, Some(caller)) = (&mut request, caller) {
            *place = match self.callers.get(&conn) {
                Some((known, place)) if Arc::ptr_eq(known, &caller) => *place,
                _ => {
                    let place = self.batch.callers.len() as u32;
                    self.batch.callers.push(ZkCaller::clone(&caller));
                    self.callers.insert(conn, (caller, place));
                    place
                }
            };
        }
        self.members.insert(conn);
        self.conns.push(conn);
        self.batch.requests.push(request);
    }
}

impl Hub {
    /// Sends lots on their way: while one is written, the next is made ready and the last applied.
    pub(super) fn launch(&mut self) {
        while self.may_launch
            && !self.gathered.is_empty()
            && self.in_flight.len() < ZK_LOTS_IN_FLIGHT
        {
            let free = ZK_LOTS_IN_FLIGHT - self.in_flight.len();
            let share = self.gathered.len().div_ceil(free).max(ZK_LOT_REQUESTS_MIN);
            let lot = self.gather_lot(share);
            if lot.conns.is_empty() {
                // All that wait are behind requests of their own.
                self.may_launch = false;
            } else {
                self.send(lot);
            }
        }
    }

    /// About `share` requests, of clients of which none is on its way.
    fn gather_lot(&mut self, share: usize) -> Lot {
        let mut lot = Lot::default();
        let mut left = Vec::new();
        // Whose requests wait from here on, since an earlier one of theirs does.
        let mut behind: BTreeSet<ConnId> = BTreeSet::new();
        while let Some(next) = self.gathered.pop_front() {
            let id = next.conn;
            // Who has begun goes whole: the next lot is for others.
            let enough = lot.conns.len() >= share && !lot.members.contains(&id);
            if enough || behind.contains(&id) || self.on_their_way.contains(&id) {
                behind.insert(id);
                left.push(next);
            } else if lot.has_room(&next) {
                lot.push(next);
            } else {
                left.push(next);
                break;
            }
        }
        for next in left.into_iter().rev() {
            self.gathered.push_front(next);
        }
        lot
    }

    fn send(&mut self, lot: Lot) {
        let Lot { mut batch, conns, mut members, rooms, .. } = lot;
        batch.enforce_quota = self.around.config.enforce_quota;
        self.on_their_way.append(&mut members);
        self.around.metrics.zk_batch_requests.observe(conns.len() as f64);
        let consensus = self.around.consensus.clone();
        self.in_flight.push(Box::pin(async move {
            let request = Request::from(Command::Zk(Box::new(batch)));
            let outcome = consensus.propose(request).await;
            drop(rooms);
            (conns, outcome)
        }));
    }
}
