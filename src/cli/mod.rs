//! The command line; one file a noun, plus client and output.
