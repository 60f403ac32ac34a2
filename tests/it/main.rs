//! One binary for all tests that start the real program.
//!
//! They need Docker, Debian's busybox-static and its zookeeper; `scripts/test` sees to them. Each
//! test has a cluster of its own on loopback addresses of its own, and ends what it started.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail where it stands")]
#![allow(unreachable_pub, reason = "pub here says: for all test files")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "figures and logs of a failed test")]

mod support;

mod agent;
mod api;
mod architecture;
mod bad_input;
mod consensus;
mod deploy;
mod dev;
mod durability;
mod engine;
mod examples;
mod faults;
mod fuzz_smoke;
mod inside;
mod jobs;
mod membership;
mod migrate;
mod partition;
mod release;
mod rest;
mod rollouts;
mod room;
mod server;
mod settings;
mod survival;
mod traffic;
mod zookeeper;
