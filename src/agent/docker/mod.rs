//! Runs tasks as containers of the Docker engine. The only place that names bollard.
//!
//! Nothing is kept here: which container belongs to which task stands in its labels.
//!
//! Start at `engine::Docker`.

mod adopt;
mod create;
mod engine;
mod exec;
mod files;
mod logs;
mod usage;

pub(super) use engine::{Docker, EngineFacts};
