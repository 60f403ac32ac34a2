//! Loopback addresses that no other test uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// An address of 127.0.0.0/8 for one process of one test: all of its ports are free, the standard
/// ones too, and stay free while the process is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackAddress(Ipv4Addr);

impl LoopbackAddress {
    /// The next one. The middle comes from this process's id, so that two runs side by side
    /// don't meet.
    pub fn next() -> Self {
        let pid = std::process::id();
        let last = loop {
            match NEXT.fetch_add(1, Ordering::Relaxed) {
                0 | 255 => continue,
                last => break last,
            }
        };
        Self(Ipv4Addr::new(127, 64 + (pid >> 8) as u8 % 128, pid as u8, last))
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        IpAddr::V4(self.0)
    }

    /// The address with a port.
    pub fn port(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}

impl std::fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
