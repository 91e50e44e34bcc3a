//! The store: every decision about a payment and all state. It has no network but its Unix socket; the command
//! `store reconcile`, a process of its own, asks the processors ([`reconcile`]).
//!
//! Two halves. [`core`] is pure: `step(now, event)` changes memory and returns records and frames; it knows no socket,
//! file, clock or chance, and the simulation runs it as shipped. The shell is the rest: [`log`] makes the records
//! durable, [`server`] reads frames, calls the core and sends what it answers, once the log allows.
//!
//! ```text
//!   frames in --> server --> core.step --> records --> log.append (one write for a turn)
//!                   ^                  '-> frames  --> held until the log is as durable as the mode demands --> out
//!                   '--- one turn: all frames that one epoll_wait brought
//! ```
//!
//! One rule replaces reasoning message by message: what a turn says leaves the process only after all that the turn,
//! and every turn before it, recorded.

pub mod ask;
pub mod config;
pub mod core;
pub mod inspect;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod now;
pub mod reconcile;
pub mod server;
