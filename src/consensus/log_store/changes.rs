//! Changes to the records of the log's trees: gathered, written to the journal, carried out in sled.
//!
//! In bytes: `(tree u8 | kind u8 | length of the key u16 | length of the value u32 | key | value)*`,
//! numbers big-endian.

use sled::IVec;

const LOG: u8 = 0;
const META: u8 = 1;
const REMOVED: u8 = 0;
const PUT: u8 = 1;
const HEAD_BYTES: usize = 1 + 1 + 2 + 4;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    tree: u8,
    key: IVec,
    /// None: the record goes.
    value: Option<IVec>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes(Vec<Change>);

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a record of the log.
    pub(super) fn put(&mut self, key: [u8; 10], value: IVec) {
        self.0.push(Change { tree: LOG, key: (&key).into(), value: Some(value) });
    }

    /// Removes a record of the log.
    pub(super) fn remove(&mut self, key: [u8; 10]) {
        self.0.push(Change { tree: LOG, key: (&key).into(), value: None });
    }

    /// Puts a value beside the log.
    pub(super) fn put_meta(&mut self, name: &str, value: Vec<u8>) {
        self.0.push(Change { tree: META, key: name.into(), value: Some(value.into()) });
    }

    /// Adds later ones.
    pub(super) fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }

    /// Their length in bytes.
    pub(super) fn bytes(&self) -> usize {
        let value = |change: &Change| change.value.as_ref().map_or(0, |value| value.len());
        self.0.iter().map(|change| HEAD_BYTES + change.key.len() + value(change)).sum()
    }

    /// Writes them at the end of `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for Change { tree, key, value } in &self.0 {
            out.extend_from_slice(&[*tree, if value.is_some() { PUT } else { REMOVED }]);
            let value = value.as_deref().unwrap_or_default();
            // Keys are ours, and a group is far smaller than four gigabytes.
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
    }

    /// Reads what [`Changes::write`] wrote; none if it is something else.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut changes = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
            let [tree, kind, k0, k1, v0, v1, v2, v3] = *head;
            let (key, rest) = rest.split_at_checked(u16::from_be_bytes([k0, k1]).into())?;
            let length = usize::try_from(u32::from_be_bytes([v0, v1, v2, v3])).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            let value = match kind {
                PUT => Some(value.into()),
                REMOVED if value.is_empty() => None,
                _ => return None,
            };
            if tree > META {
                return None;
            }
            changes.push(Change { tree, key: key.into(), value });
            bytes = rest;
        }
        bytes.is_empty().then_some(Self(changes))
    }

    /// Carries them out, one by one: the journal has them all. A batch of sled's would be written
    /// and waited for in three pieces, and sled can't be opened again after a crash behind one that
    /// is larger than a few of its segments.
    pub(super) fn carry_out(self, log: &sled::Tree, meta: &sled::Tree) -> sled::Result<()> {
        for Change { tree, key, value } in self.0 {
            let tree = if tree == LOG { log } else { meta };
            match value {
                Some(value) => tree.insert(key, value)?,
                None => tree.remove(key)?,
            };
        }
        Ok(())
    }
}
