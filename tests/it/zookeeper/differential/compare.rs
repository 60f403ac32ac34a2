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
    /// What differs, if anything.
    pub fn compare(&mut self, one: &[Entry], other: &[Entry]) -> Result<(), String> {
        for (at, (one, other)) in one.iter().zip(other).enumerate() {
            if one.text != other.text {
                return Err(format!("entry {at}:\n  {}\n  {}", one.text, other.text));
            }
            if one.zxids.len() != other.zxids.len() {
                return Err(format!("entry {at}: {one:?} and {other:?}"));
            }
            for (one_zxid, other_zxid) in one.zxids.iter().zip(&other.zxids) {
                self.pair(*one_zxid, *other_zxid)
                    .map_err(|error| format!("entry {at}: {error}\n  {one:?}\n  {other:?}"))?;
            }
        }
        match one.len() == other.len() {
            true => Ok(()),
            false => Err(format!("{} entries and {}", one.len(), other.len())),
        }
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
    let entry = |zxids: &[i64]| vec![Entry { text: String::new(), zxids: zxids.to_vec() }];
    let mut order = Order::default();
    assert_eq!(order.compare(&entry(&[1, 5, 9]), &entry(&[100, 101, 200])), Ok(()));
    assert_eq!(order.compare(&entry(&[5, 7]), &entry(&[101, 150])), Ok(()));
    assert!(order.compare(&entry(&[5]), &entry(&[150])).is_err());
    assert!(order.compare(&entry(&[8]), &entry(&[149])).is_err());
    assert!(order.compare(&entry(&[3]), &entry(&[101])).is_err());
    assert!(order.compare(&entry(&[1]), &entry(&[])).is_err());
}
