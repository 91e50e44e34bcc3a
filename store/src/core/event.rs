//! What comes to the core from outside: events, and the present that each of them happens in.

use wire::frame::FromApi;

/// A connection of an api, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiId(pub u64);

/// The present.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The host's monotonic clock in microseconds, which deadlines of other processes are on.
    pub us: u64,
    /// The wall clock in milliseconds since 1970; it may jump.
    pub wall_ms: u64,
}

/// What the log still has room for. A disk that is full first costs new payments, then the pace, never a payment that was
/// accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// For everything.
    #[default]
    Ample,
    /// For what was accepted: nothing new is.
    NoAccepts,
    /// For what the open attempts still have to say: none is begun.
    NoIntents,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame came.
    Frame(ApiId, FromApi),
    /// A connection ended.
    Gone(ApiId),
    /// The log has more room, or less.
    Room(Room),
}
