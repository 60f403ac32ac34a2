//! Composition root: start in order, stop in reverse.
