//! Entries of the log.

use orch::state::codec::{self, BatchWriter};
use orch::state::{Stamp, State};

/// A log entry: what is accepted is also applied.
pub fn feed(data: &[u8]) {
    let Ok((at, requests)) = codec::decode_batch(data) else { return };
    let mut batch = BatchWriter::new(at);
    let mut state = State::default();
    for (index, request) in (1..).zip(&requests) {
        batch.push(&codec::to_bytes(request).expect("a request encodes"));
        state.apply(Stamp { index, at }, request);
    }
    assert_eq!(codec::decode_batch(&batch.finish()), Ok((at, requests)));
}
