//! The job file's reader.
