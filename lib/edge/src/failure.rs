//! How a request ends without an answer, and whether it may be sent again.

/// Why there is no answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Not a byte of it was written: nothing was recorded, and it may be sent again anywhere.
    NeverSent,
    /// It may have arrived: only a request that is known by an id may be sent again.
    Unknown,
}
