//! Sessions of ZooKeeper's clients.

use serde::{Deserialize, Serialize};

/// A client's session: lives on when its connection breaks, until its time-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// In milliseconds, as agreed on.
    pub timeout: i32,
    /// Proves that a client that comes back is the same.
    pub password: [u8; 16],
    /// The connection it is on: changes with each one, so that what an earlier connection still
    /// has on its way is refused. 0: it was brought from an ensemble and has not come here yet.
    pub attachment: u64,
}

/// The password that a server of ZooKeeper gives to, and wants of, a session of that id: the
/// first 16 bytes of `java.util.Random` seeded with the id and a fixed number.
pub fn imported_password(id: i64) -> [u8; 16] {
    const SECRET: i64 = 0xB341_5C00;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = ((id ^ SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for word in password.chunks_exact_mut(4) {
        seed = seed.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        let next = (seed >> 16) as u32;
        word.copy_from_slice(&next.to_le_bytes());
    }
    password
}
