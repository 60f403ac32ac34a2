//! Transaction logs of ZooKeeper's.

use orch::jute::Field;
use orch::jute::txn::Transaction;
use orch::zookeeper::txn_log_file::{LogReader, LogWriter};

/// A transaction log of ZooKeeper's, and the transactions in it.
pub fn feed(data: &[u8]) {
    let mut reader = LogReader::new(data);
    let mut writer = LogWriter::new(Vec::new()).expect("memory takes it");
    while let Ok(Some(entry)) = reader.next_entry() {
        if let Ok(transaction) = Transaction::from_bytes(entry) {
            let again = transaction.to_bytes();
            assert_eq!(Transaction::from_bytes(&again).as_ref(), Ok(&transaction));
        }
        writer.append(entry).expect("memory takes it");
    }
    assert!(reader.offset() <= data.len() as u64);
    let written = writer.finish().expect("memory takes it");
    let (ours, theirs) = (written.get(16..), data.get(16..written.len()));
    assert!(reader.offset() == 0 || ours == theirs, "entries are written differently");
}
