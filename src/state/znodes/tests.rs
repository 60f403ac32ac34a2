//! The tree as clients see it change.
