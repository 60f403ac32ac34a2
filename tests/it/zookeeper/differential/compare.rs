//! Whether two servers have said the same. Their transaction numbers differ, but must stand in
//! the same order: what is older at one is older at the other, what is the same is the same.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::side::Entry;

/// Pairs of transaction numbers that have stood in the same place.
#[derive(Debug, Default)]
pub struct Order {
    pairs: BTreeMap<i64, i64>,
}

impl Order {
    /// What differs, if anything. Between replies to what was asked at once, events may stand
    /// earlier at the other than at the one, but never later: then a reply could have shown what
    /// the event tells of.
    pub fn compare(&mut self, one: &[Entry], other: &[Entry]) -> Result<(), String> {
        for is_event in [true, false] {
            let of_kind = |entries: &[Entry]| {
                let entries = entries.iter().enumerate().filter(|(_, e)| e.is_event == is_event);
                entries.map(|(at, entry)| (at, entry.clone())).collect::<Vec<_>>()
            };
            let (one, other) = (of_kind(one), of_kind(other));
            for (nth, ((at, one), (other_at, other))) in one.iter().zip(&other).enumerate() {
                if one.text != other.text {
                    return Err(format!("entry {at}:\n  {}\n  {}", one.text, other.text));
                }
                // So many replies stand before it.
                if is_event && other_at - nth > at - nth {
                    return Err(format!("{} comes too late, at place {other_at}", other.text));
                }
                if one.zxids.len() != other.zxids.len() {
                    return Err(format!("entry {at}: {one:?} and {other:?}"));
                }
                for (one_zxid, other_zxid) in one.zxids.iter().zip(&other.zxids) {
                    self.pair(*one_zxid, *other_zxid)
                        .map_err(|error| format!("entry {at}: {error}\n  {one:?}\n  {other:?}"))?;
                }
            }
            if one.len() != other.len() {
                let what = if is_event { "events" } else { "replies" };
                let (one_len, other_len) = (one.len(), other.len());
                let longer = if one_len > other_len { one } else { other };
                let (_, first) = &longer[one_len.min(other_len)];
                return Err(format!("{one_len} {what} and {other_len}; one has: {}", first.text));
            }
        }
        Ok(())
    }

    fn pair(&mut self, one: i64, other: i64) -> Result<(), String> {
        if let Some(known) = self.pairs.get(&one) {
            return match *known == other {
                true => Ok(()),
                false => Err(format!("{one:#x} stood with {known:#x}, now with {other:#x}")),
            };
        }
        let below = self.pairs.range(..one).next_back();
        let above = self.pairs.range((Excluded(one), Unbounded)).next();
        let fits = below.is_none_or(|(_, below)| *below < other)
            && above.is_none_or(|(_, above)| other < *above);
        if !fits {
            return Err(format!("{one:#x} and {other:#x} stand in another order"));
        }
        self.pairs.insert(one, other);
        Ok(())
    }
}

#[test]
fn numbers_are_compared_by_their_order() {
    let entry =
        |zxids: &[i64]| vec![Entry { text: String::new(), zxids: zxids.to_vec(), is_event: false }];
    let mut order = Order::default();
    assert_eq!(order.compare(&entry(&[1, 5, 9]), &entry(&[100, 101, 200])), Ok(()));
    assert_eq!(order.compare(&entry(&[5, 7]), &entry(&[101, 150])), Ok(()));
    assert!(order.compare(&entry(&[5]), &entry(&[150])).is_err());
    assert!(order.compare(&entry(&[8]), &entry(&[149])).is_err());
    assert!(order.compare(&entry(&[3]), &entry(&[101])).is_err());
    assert!(order.compare(&entry(&[1]), &entry(&[])).is_err());
}

#[test]
fn events_may_come_sooner_but_not_later() {
    let entry = |text: &str| Entry {
        text: text.to_owned(),
        zxids: Vec::new(),
        is_event: text.starts_with("event"),
    };
    let entries = |texts: &[&str]| texts.iter().map(|text| entry(text)).collect::<Vec<_>>();
    let mut order = Order::default();
    let later = entries(&["a", "event", "b"]);
    let sooner = entries(&["event", "a", "b"]);
    assert_eq!(order.compare(&later, &sooner), Ok(()));
    assert!(order.compare(&sooner, &later).is_err());
    assert!(order.compare(&later, &entries(&["b", "event", "a"])).is_err());
    assert!(order.compare(&later, &entries(&["a", "b"])).is_err());
}
