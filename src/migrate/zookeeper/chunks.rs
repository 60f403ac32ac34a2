//! Rows put together to lots, as an import takes them. The same rows make the same lots, so that a
//! copy that was interrupted goes on where it was.

use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::{Kind, Row};
use crate::jute::txn::describe;
use crate::jute::{Field, StatPersisted};
use crate::limits::{ZK_CHUNK_BYTES, ZK_CHUNK_BYTES_MAX};
use crate::state::znodes::{ROW_ACL, ROW_NODE, ROW_SESSION};

/// A row that is too large for any lot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {bytes} bytes with all that belongs to it; the most is {ZK_CHUNK_BYTES_MAX}")]
pub struct RowTooLarge {
    /// Which row.
    pub what: String,
    /// Its bytes.
    pub bytes: usize,
}

/// Collects rows.
#[derive(Debug, Default)]
pub struct Chunks {
    bytes: Vec<u8>,
}

impl Chunks {
    /// Adds a row; a lot that is full comes back.
    ///
    /// # Errors
    /// If the row alone is more than a lot can be.
    pub fn add(&mut self, row: &Row<'_>) -> Result<Option<Vec<u8>>, RowTooLarge> {
        let begin = self.bytes.len();
        match row {
            Row::Session(session) => {
                self.bytes.push(ROW_SESSION);
                session.write(&mut self.bytes);
            }
            Row::Acl(acl) => {
                self.bytes.push(ROW_ACL);
                acl.write(&mut self.bytes);
            }
            Row::Node(node) => {
                self.bytes.push(ROW_NODE);
                node.write(&mut self.bytes);
            }
        }
        let what = || match row {
            Row::Node(node) => format!("the node {}", node.path),
            Row::Acl(acl) => format!("the access list {}", acl.key),
            Row::Session(session) => format!("the session {:#x}", session.id),
        };
        self.cut(begin, what)
    }

    /// Adds a row of that kind as it was written; a lot that is full comes back.
    ///
    /// # Errors
    /// If the row alone is more than a lot can be.
    pub fn add_bytes(&mut self, kind: Kind, row: &[u8]) -> Result<Option<Vec<u8>>, RowTooLarge> {
        let begin = self.bytes.len();
        self.bytes.push(match kind {
            Kind::Session => ROW_SESSION,
            Kind::Acl => ROW_ACL,
            Kind::Node => ROW_NODE,
        });
        self.bytes.extend_from_slice(row);
        self.cut(begin, || match kind.read(row) {
            Ok(Row::Node(node)) => format!("the node {}", node.path),
            _ => "a row".to_owned(),
        })
    }

    /// A row was added at `begin`.
    fn cut(
        &mut self,
        begin: usize,
        what: impl Fn() -> String,
    ) -> Result<Option<Vec<u8>>, RowTooLarge> {
        let length = self.bytes.len() - begin;
        if length > ZK_CHUNK_BYTES_MAX {
            self.bytes.truncate(begin);
            return Err(RowTooLarge { what: what(), bytes: length });
        }
        if self.bytes.len() <= ZK_CHUNK_BYTES || begin == 0 {
            return Ok(None);
        }
        // It would be too much with this row, which begins the next lot.
        let mut next = Vec::with_capacity(ZK_CHUNK_BYTES + 1024);
        next.extend_from_slice(&self.bytes[begin..]);
        self.bytes.truncate(begin);
        Ok(Some(std::mem::replace(&mut self.bytes, next)))
    }

    /// What is left, if anything is.
    pub fn finish(self) -> Option<Vec<u8>> {
        Some(self.bytes).filter(|bytes| !bytes.is_empty())
    }
}

/// What a server has before its first transaction.
pub const FIRST_NODES: [&str; 4] = ["", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// That, as a lot of rows.
pub fn first_rows() -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in FIRST_NODES {
        bytes.push(ROW_NODE);
        let (acl, stat) = (OPEN_ACL_KEY, StatPersisted::default());
        NodeRow { path, data: Some(&[]), acl, stat }.write(&mut bytes);
    }
    bytes
}

/// Transactions put together to steps, as an import takes them.
#[derive(Debug, Default)]
pub struct TransactionLots {
    bytes: Vec<u8>,
}

impl TransactionLots {
    /// Adds a transaction; a lot that is full comes back.
    ///
    /// # Errors
    /// If the transaction alone is more than a lot can be.
    pub fn add(&mut self, zxid: i64, transaction: &[u8]) -> Result<Option<Vec<u8>>, RowTooLarge> {
        let bytes = transaction.len() + 4;
        if bytes > ZK_CHUNK_BYTES_MAX {
            return Err(RowTooLarge { what: describe(zxid, transaction), bytes });
        }
        let full = match self.bytes.len() + bytes > ZK_CHUNK_BYTES {
            true => self.take(),
            false => None,
        };
        Some(transaction).write(&mut self.bytes);
        Ok(full)
    }

    /// What is there, if anything is.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.bytes)).filter(|bytes| !bytes.is_empty())
    }

    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::txn::{SetDataTxn, Transaction, Txn, TxnHeader};

    fn row<'a>(path: &'a str, data: &'a [u8]) -> Row<'a> {
        Row::Node(NodeRow { path, data: Some(data), acl: -1, stat: StatPersisted::default() })
    }

    #[test]
    fn lots_hold_all_rows_in_order_and_none_is_too_long() {
        let sizes = [10, 400_000, 200_000, 1_000_000, 5, 5, 520_000, 100];
        let mut chunks = Chunks::default();
        let mut lots = Vec::new();
        let data: Vec<Vec<u8>> = sizes.iter().map(|size| vec![7; *size]).collect();
        for data in &data {
            lots.extend(chunks.add(&row("/a", data)).unwrap());
        }
        lots.extend(chunks.finish());
        let all: usize = lots.iter().map(Vec::len).sum();
        let overhead = row_bytes();
        assert_eq!(all, sizes.iter().sum::<usize>() + sizes.len() * overhead);
        // A row that is longer than a lot should be is alone in one.
        assert_eq!(lots.len(), 4);
        assert!(lots.iter().all(|lot| lot.len() <= ZK_CHUNK_BYTES || lot.len() > 1_000_000));
    }

    fn row_bytes() -> usize {
        let mut chunks = Chunks::default();
        chunks.add(&row("/a", b"")).unwrap();
        chunks.finish().unwrap().len()
    }

    #[test]
    fn what_no_lot_can_hold_is_named() {
        let mut chunks = Chunks::default();
        let data = vec![0; ZK_CHUNK_BYTES_MAX];
        let error = chunks.add(&row("/big", &data)).unwrap_err();
        assert!(error.to_string().contains("the node /big"), "{error}");
        assert_eq!(chunks.finish(), None);
        let set = SetDataTxn { path: "/a/b", data: Some(&data), version: 1 };
        let header = TxnHeader { client_id: 1, cxid: 1, zxid: 0x1f, time: 1, op: 5 };
        let transaction = Transaction { header, txn: Txn::SetData(set), digest: None }.to_bytes();
        let error = TransactionLots::default().add(0x1f, &transaction).unwrap_err();
        assert!(error.to_string().contains("0x1f (node \"/a/b\")"), "{error}");
    }

    #[test]
    fn transactions_come_in_lots() {
        let mut lots = TransactionLots::default();
        assert_eq!(lots.add(1, &[1; 300_000]).unwrap(), None);
        assert_eq!(lots.add(2, &[2; 300_000]).unwrap().unwrap().len(), 300_004);
        assert_eq!((lots.len(), lots.is_empty()), (300_004, false));
        assert_eq!(lots.take().unwrap()[4..], [2; 300_000]);
        assert_eq!(lots.take(), None);
    }
}
