//! The values and frames that api and store exchange, and the process chores that every binary of Espora does alike.
//!
//! Reading order: values first ([`money`], [`id`], [`time`], [`processor`]), then what is said about them
//! ([`frame`]), what HTTP's fields say ([`media`]), then the process chores that every binary does alike ([`config`],
//! [`secret`], [`stderr`], [`trace`], [`socket`], [`memory`]).
//!
//! Nothing here decides anything. Rules about payments live in `store`, rules about what an answer proves in `api`.

pub mod config;
pub mod frame;
pub mod id;
pub mod media;
pub mod memory;
pub mod metrics;
pub mod money;
pub mod processor;
pub mod secret;
pub mod socket;
pub mod stderr;
pub mod time;
pub mod trace;

pub use id::PaymentId;
pub use money::Cents;
pub use processor::{PerProcessor, Processor};
pub use time::{Bounds, Timestamp};
