//! The frames between api and store, over one Unix stream socket per api.
//!
//! ```text
//!  0        4      5
//!  | len u32 | kind | payload ...      little-endian; len counts kind and payload, 1..=FRAME_BYTES_MAX
//! ```
//!
//! Frames are pipelined in both directions and several travel in one read or write; order is kept within a direction.
//! The first frame of an api is [`FromApi::Hello`] with [`PROTOCOL_VERSION`]; the store answers [`FromStore::Welcome`]
//! or hangs up. Requests carry a number that their reply repeats.
//!
//! A decoder takes any bytes: what is no frame is a [`FrameError`], which ends the connection that it came from and
//! nothing else. It allocates at most what the frame itself is long.
//!
//! Reading order: `bytes` (a frame, whatever it says), `call` (leases, outcomes, reports), `totals` and `operation`
//! (operators), then the two speakers: [`FromApi`] and [`FromStore`]. Each kind of frame is named once, beside its codec.

mod api;
mod bytes;
mod call;
mod operation;
mod store;
mod totals;

pub use api::{FromApi, HELD_ATTEMPTS_MAX};
pub use bytes::{FRAME_BYTES_MAX, FrameError, Frames, Message, PROTOCOL_MAGIC, PROTOCOL_VERSION, decode};
pub use call::{
    AttemptId, CALL_OVERDUE_MS, CallKind, HEALTH_FRESH_MS, Health, HeldAttempt, LEASE_FRESH_MS, Lease,
    Outcome, Report,
};
pub use operation::{CHARGES_MAX, Charge, Listing, Operation, Window};
pub use store::{Accepted, FromStore};
pub use totals::Totals;
