//! `orch bench`: load and scheduling benchmarks that operators can run too.
