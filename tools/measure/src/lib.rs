//! How fast and how small it is, each figure beside what others do with the same work, and where the time goes.
//!
//! [`mod@bench`] compares; [`profile`] looks into running processes with perf.

pub mod bench;
mod proc;
pub mod profile;
