//! Real servers, real clients, real faults, and what the clients saw judged for linearizability.
//!
//! `servers` are processes in network namespaces, `preload` (with `preload.c`) a disk that loses
//! power and a clock that is wrong; `clients` do things and write down what they saw into a
//! `history`, which `linearizability` judges by the `models` and `order` by what a session is
//! promised; a `nemesis` brings the faults. `each_kind` has a test for each kind of fault; `clock`
//! is about time-outs; `lies` proves that a lost write would be found; `soak` is all of it for
//! hours, with `curves` of what processes use.
//!
//! Everything random comes from a seed, which is printed. For longer runs, or another seed:
//!
//!     ORCH_FAULTS_ROUNDS=100 ORCH_FAULTS_SEED=7 cargo test faults::each_kind

mod clients;
mod clock;
mod curves;
mod each_kind;
mod fill;
mod history;
mod lies;
mod linearizability;
mod models;
mod nemesis;
mod order;
mod preload;
mod servers;
mod soak;
