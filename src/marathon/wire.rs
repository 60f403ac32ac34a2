//! The protobuf messages of Marathon's storage; see `proto/marathon.proto`.

/// Generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::pedantic)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/orch.marathon.rs"));
}
