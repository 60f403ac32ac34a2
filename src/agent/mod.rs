//! Makes this machine's work match its assignment.
