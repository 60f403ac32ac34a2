//! What is assigned against what is observed: decides what to do next. Pure: no clock, no socket,
//! no task; time and results come in as events.
//!
//! Level-triggered: each decision looks at what is wanted and what is known now, never at how it
//! came about. A task has at most one operation on its way; its result says what is known next.
//! So events may be late, repeated or lost, and the end is the assigned state all the same.
//!
//! Start at `Converge::handle` in `machine`, then `Task::decide` in `task`; `account` says what
//! results mean, `checks` what follows from checks, `away` what happens without a server, and
//! `unknown` how orders about what never came are answered.

mod account;
mod alloc;
mod away;
mod checks;
mod event;
mod machine;
mod task;
mod unknown;

#[cfg(test)]
mod tests;

pub(super) use alloc::Alloc;
pub(super) use event::{Action, CheckKind, Event, Everything, Finding};
pub(super) use machine::Converge;
