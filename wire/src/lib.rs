//! What the processes of Espora share: the frames between api and store, the values that cross them, and (feature
//! `edge`) what lb and api have in common: the HTTP server's edge, the hand-off, the clients' port, their Unix sockets.
//!
//! Reading order: values first ([`money`], [`id`], [`time`], [`processor`]), then what is said about them
//! ([`frame`]), what HTTP's fields say ([`media`]), then the process chores that every binary does alike ([`config`],
//! [`secret`], [`stderr`], [`trace`], [`socket`], [`memory`]).
//!
//! Nothing here decides anything. Rules about payments live in `store`, rules about what an answer proves in `api`.

pub mod config;
#[cfg(feature = "edge")]
pub mod edge;
pub mod frame;
#[cfg(feature = "edge")]
pub mod handoff;
pub mod id;
pub mod media;
pub mod memory;
pub mod metrics;
pub mod money;
pub mod processor;
pub mod secret;
pub mod socket;
pub mod stderr;
#[cfg(feature = "edge")]
pub mod tcp;
pub mod time;
pub mod trace;
#[cfg(feature = "edge")]
pub mod unix;

pub use id::PaymentId;
pub use money::Cents;
pub use processor::{PerProcessor, Processor};
pub use time::{Bounds, Timestamp};
