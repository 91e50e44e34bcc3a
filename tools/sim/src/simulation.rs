//! The whole system in one thread and simulated time: the store's core, the apis' desks and what they make of an answer
//! run as shipped; links, disk, processors, clients and faults are played under one seeded scheduler.
//!
//! ```text
//!   clients --> desk (api 1, 2) ==links==> core --> frames --> disk
//!                 |  ^                      ^                   | kill: the written stays; power: the unflushed goes
//!                 v  | evidence             '---- recovery -----'
//!              processors (delay, flag, limiter, quirks, late inserts)
//! ```
//!
//! A seed is small: a few dozen payments under a few dozen faults, a minute of simulated time, some milliseconds of real
//! time. Beside it a naive model ([`ledgers`]) writes down what clients were told and what processors hold; it is
//! asked at every step whether something is wrong that must never be, and at the end, when everything is healed and at
//! rest, whether the three sides agree. A seed replays bit by bit.
//!
//! Reading order: [`schedule`] (what happens when), [`disk`], [`processor`], [`ledgers`], [`past`], [`cells`]
//! (what the generator has reached), [`system`] (all of it together).

pub mod cells;
pub mod disk;
pub mod ledgers;
pub mod past;
pub mod processor;
pub mod schedule;
pub mod system;

pub use cells::Cells;
pub use system::{SeedResult, run, tell};
