//! Clients over REST that write variables with compare-and-set and read them back, on whichever
//! server they come to; and what must hold of what they saw: it is linearizable. A variable's
//! index makes that easy to see: it names the log entry that wrote it, and so the one order there
//! can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orch::clock;
use orch::net::SharedNet;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::cluster::{API, server_addr};
use super::http::{self, Failed};

/// Variables that they share.
const KEYS: u64 = 6;
/// For one answer; longer than a server looks for a leader.
const LIMIT: Duration = Duration::from_secs(12);

/// What a client saw.
#[derive(Debug, Clone)]
pub struct Seen {
    /// On which variable.
    key: u64,
    /// When it asked, and when it had the answer, in milliseconds of its host.
    from: u64,
    to: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// It wrote `value`, if the variable was at `expected`; that made it index `index`.
    Wrote { value: String, expected: Option<u64>, index: u64 },
    /// Nobody knows whether it wrote.
    Perhaps { value: String },
    /// It read this; none: there was no such variable.
    Read(Option<(u64, String)>),
}

/// What all clients saw; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Vec<Seen>>>);

impl History {
    fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|seen| matches!(seen.what, What::Wrote { .. })).count()
    }

    /// Checks it against itself, and against what the cluster has in the end.
    pub fn check(&self, end: impl Fn(&str) -> Option<(u64, Vec<u8>)>) {
        let mut keys: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
        for seen in self.0.lock().unwrap().iter() {
            keys.entry(seen.key).or_default().push(seen.clone());
        }
        for (key, seen) in keys {
            check_one(key, &seen, end(&name(key)));
        }
    }
}

fn name(key: u64) -> String {
    format!("r/{key}")
}

fn check_one(key: u64, all: &[Seen], end: Option<(u64, Vec<u8>)>) {
    let mut written: BTreeMap<u64, &str> = BTreeMap::new();
    for seen in all {
        if let What::Wrote { value, index, .. } = &seen.what {
            let known = written.insert(*index, value);
            assert!(known.is_none(), "two writes of {key} are entry {index}");
        }
    }
    let perhaps = |value: &str| {
        all.iter().any(|seen| matches!(&seen.what, What::Perhaps { value: own } if own == value))
    };
    let end = end.map(|(index, value)| (index, String::from_utf8(value).unwrap()));
    let last = Seen { key, from: u64::MAX, to: u64::MAX, what: What::Read(end) };
    // By the time of the answer: whatever was seen by then is seen by whoever asks later.
    let mut by_answer: Vec<&Seen> = all.iter().chain([&last]).collect();
    by_answer.sort_by_key(|seen| seen.to);
    let mut newest: Vec<(u64, u64)> = Vec::new();
    for seen in by_answer {
        let before = newest.partition_point(|(to, _)| *to < seen.from);
        let floor = before.checked_sub(1).map_or(0, |place| newest[place].1);
        let index = match &seen.what {
            What::Wrote { expected, index, .. } => {
                if let Some(expected) = expected {
                    let between = written.range(expected + 1..*index).next();
                    assert_eq!(between, None, "{seen:?} did not see a write in between");
                    let existed = *expected == 0 || !written.is_empty();
                    assert!(existed, "{seen:?} replaced what nobody wrote");
                }
                assert!(*index > floor, "{seen:?} is older than what was seen before it, {floor}");
                *index
            }
            What::Read(Some((index, value))) => {
                match written.get(index) {
                    Some(known) => assert_eq!(known, value, "{seen:?}"),
                    None => assert!(perhaps(value), "nobody wrote what was read: {seen:?}"),
                }
                assert!(*index >= floor, "{seen:?} is older than what was seen before it, {floor}");
                *index
            }
            What::Read(None) => {
                assert_eq!(floor, 0, "{seen:?}, but it had been written by then");
                0
            }
            What::Perhaps { .. } => continue,
        };
        let newest_yet = newest.last().map_or(0, |(_, index)| *index);
        newest.push((seen.to, index.max(newest_yet)));
    }
}

/// A client that never rests.
pub async fn client(number: u64, servers: usize, net: SharedNet, history: History) {
    let began = Instant::now();
    let millis = move || began.elapsed().as_millis() as u64;
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    for count in 0_u64.. {
        sleep(Duration::from_millis(5 + clock::random() % 60)).await;
        let key = clock::random() % KEYS;
        let server = (clock::random() % servers as u64) as usize;
        let addr = server_addr(server, API);
        let from = millis();
        if clock::random().is_multiple_of(3) {
            let path = format!("/v1/variables/{}", name(key));
            let asked = http::ask(&net, addr, ("GET", &path), &[], LIMIT).await;
            let Some(read) = asked.ok().and_then(read) else { continue };
            known.insert(key, read.as_ref().map_or(0, |(index, _)| *index));
            history.push(Seen { key, from, to: millis(), what: What::Read(read) });
            continue;
        }
        let value = format!("{number}-{count}");
        let expected = known.get(&key).copied().filter(|_| !clock::random().is_multiple_of(4));
        let condition = expected.map(|index| format!("?if_index={index}")).unwrap_or_default();
        let path = format!("/v1/variables/{}{condition}", name(key));
        // Noted first: it may be done although its client is never told.
        let perhaps = What::Perhaps { value: value.clone() };
        history.push(Seen { key, from, to: u64::MAX, what: perhaps });
        let what = match http::ask(&net, addr, ("PUT", &path), value.as_bytes(), LIMIT).await {
            Ok(answer) if answer.status == 200 => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                let index = body["index"].as_u64().unwrap();
                known.insert(key, index);
                What::Wrote { value, expected, index }
            }
            // Somebody else was quicker, or nothing was proposed.
            Ok(answer) if answer.status == 412 || answer.status == 409 => {
                known.remove(&key);
                continue;
            }
            Ok(_) | Err(Failed::Unknown | Failed::NotSent) => continue,
        };
        history.push(Seen { key, from, to: millis(), what });
    }
}

/// What a variable was, if the answer says so.
fn read(answer: http::Answer) -> Option<Option<(u64, String)>> {
    match answer.status {
        200 => Some(Some((answer.etag?, String::from_utf8(answer.body).ok()?))),
        404 => Some(None),
        _ => None,
    }
}
