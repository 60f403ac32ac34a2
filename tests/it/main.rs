//! One binary for all integration tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail where it stands")]
#![allow(unreachable_pub, reason = "pub here says: for all test files")]

mod server;
