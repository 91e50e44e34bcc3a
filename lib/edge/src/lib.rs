//! The HTTP edge and the hand-off of connections: what lb and api do alike.
//!
//! Reading order: the sockets ([`tcp`], [`unix`]), the bounds ([`limits`]), the pure readers of a request (`chunks`,
//! `head`, `request`) and the form of an answer (`reply`), then the shell around them (`stream`, `budget`, `connection`,
//! [`server`]), the [`handoff`] of a connection from lb to
//! an api, and what both do alike ([`failure`], [`process`]).

mod budget;
mod chunks;
mod connection;
pub mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handoff;
mod head;
pub mod limits;
pub mod process;
mod reply;
mod request;
pub mod server;
mod stream;
pub mod tcp;
pub mod unix;

pub use failure::SendError;
pub use head::TOKEN;
pub use reply::{JSON, Reply};
pub use request::Request;
pub use server::{Edge, HeldBytes, Refusal};
pub use stream::Stream;
