//! Another system's data, read where it is: from its files, its streams or its API.

pub mod zookeeper;
