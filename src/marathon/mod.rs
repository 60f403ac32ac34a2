//! Marathon's words: its apps, groups and pods, and what they are as jobs.
//!
//! Pure. One form counts inside: the JSON of Marathon's own REST API of 1.5 and later. Older JSON
//! is brought into it (`normal`), and so are the protobuf messages of its storage (`stored`).
//! `translate` then takes a definition apart field by field. What it takes becomes a part of a job
//! file; what is left over, and what has no equal, becomes a [`Finding`]. So nothing is dropped in
//! silence, fields included that nobody had heard of when this was written.
//!
//! The result is a text in orch's own job file format that `model::job_file` has read: what it
//! does not take is left out, and told.
//!
//! Start at [`translate`].

mod app;
mod checks;
mod container;
mod environment;
mod fields;
mod finding;
mod group;
mod job;
mod names;
mod normal;
mod placement;
mod pod;
mod policy;
mod ports;
mod stored;
mod translate;
mod volumes;
mod wire;

#[cfg(test)]
mod tests;

pub use finding::{Finding, Weight};
pub use group::{Definition, Definitions, Kind, definitions};
pub use names::job_name;
pub use stored::{Find, StoredError, app_json, group_json, path_of, pod_json};
pub use translate::{Job, Options, Translation, translate};
pub use wire::messages;
