//! The limits of the HTTP edge: connections, bytes and time.

use std::time::Duration;
use wire::memory;

/// Connections that one process serves at a time unless told otherwise (`CONNECTIONS_MAX`), or a memory limit has no room
/// for so many.
pub const CONNECTIONS_MAX_DEFAULT: usize = 20_000;

/// Bytes held for all clients of a process without a memory limit, unless told otherwise (`HELD_BYTES_MAX`).
pub const HELD_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// The least that this bound may be: any request has room twice, and the longest answer.
pub const HELD_BYTES_MAX_MIN: u64 = 128 << 10;

/// What a connection takes that holds nothing, in bytes: 1 KiB here and 2 KiB in the kernel, which counts for a control
/// group, too.
pub(crate) const CONNECTION_BYTES: u64 = 3 << 10;

/// The part of a memory limit that connections may take which hold nothing.
pub(crate) const CONNECTIONS_PART: u64 = 2;

/// The part of a memory limit that bytes held for clients may be. An allocator takes up to two and a half times as much
/// when thousands of pieces of all sizes come and go, and the rest is for the process itself.
pub(crate) const HELD_PART: u64 = 8;

/// What it takes to get a request answered beside the request and its handler, in bytes.
pub(crate) const ANSWERING_BYTES: usize = 1 << 10;

/// A request of so many bytes, with nothing behind it, is one of a client that holds nothing else.
pub(crate) const ALONE_BYTES_MAX: usize = 2 << 10;

/// Connections that are told at a time why they are not served; more are closed without a word.
pub(crate) const TURNED_AWAY_MAX: usize = 64;

/// The longest time between two sweeps. Connections that come in between are over later than that.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(SWEEP_INTERVAL.as_nanos() < REQUEST_TIMEOUT.as_nanos());

/// One sweep looks at one connection, because each that is over costs some 60 us here, and as much where its client comes
/// back from: two at once are a pause that others feel ...
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// ... and at so many once the first of them has been over for longer than [`SWEEP_LAG_MS`].
pub(crate) const SWEEP_MAX: usize = 8;
pub(crate) const SWEEP_LAG_MS: u64 = 20;

/// The longest request line, in bytes.
pub const REQUEST_LINE_BYTES_MAX: usize = 2 * 1024;

/// The longest set of fields, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most fields of a request.
pub const FIELDS_MAX: usize = 64;

/// The longest body, in bytes. It bounds the depth of JSON that the parser may meet, too.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// From the first byte of a request to its last.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may read nothing of an answer that does not fit into the socket.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be silent between requests, or before the first one.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a connection that has just been made, and has sent nothing yet, has for that when a process ends.
pub(crate) const FRESH_TIMEOUT: Duration = Duration::from_millis(100);

/// A lingering close reads at most so much ...
pub(crate) const LINGER_BYTES_MAX: usize = 64 * 1024;

/// ... for at most so long.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// One read of unwanted bytes.
pub(crate) const READ_BYTES: usize = 4 * 1024;

/// How many connections a process may have with this memory limit.
fn connections_max_by(memory_limit: Option<u64>) -> usize {
    let room = memory_limit.map(|limit| limit / CONNECTIONS_PART / CONNECTION_BYTES);
    let room = room.map_or(usize::MAX, |room| usize::try_from(room).unwrap_or(usize::MAX));
    room.min(CONNECTIONS_MAX_DEFAULT)
}

/// How many bytes a process may hold for clients with this memory limit.
fn held_bytes_max_by(memory_limit: Option<u64>) -> usize {
    let Some(limit) = memory_limit else { return HELD_BYTES_MAX_DEFAULT };
    usize::try_from((limit / HELD_PART).max(HELD_BYTES_MAX_MIN)).unwrap_or(usize::MAX)
}

/// The settings of these limits, which lb and api share.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LimitArgs {
    /// Client connections served at a time; more get 503 [default: 20000, or as many as fit into half of the memory limit]
    #[arg(long, env = "CONNECTIONS_MAX")]
    pub connections_max: Option<usize>,
    /// Bytes held for all clients together: incomplete requests and unread answers. At this limit the connections are closed
    /// that have held bytes longest [default: an eighth of the memory limit, or 64 MiB without one]
    #[arg(long, env = "HELD_BYTES_MAX", value_parser = clap::value_parser!(u64).range(HELD_BYTES_MAX_MIN..))]
    pub held_bytes_max: Option<u64>,
}

impl LimitArgs {
    /// Connections that are served at a time.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max.unwrap_or_else(|| connections_max_by(memory::limit()))
    }

    /// Bytes that may be held for all clients together.
    #[must_use]
    pub fn held_bytes_max(&self) -> usize {
        let given = self.held_bytes_max.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        given.unwrap_or_else(|| held_bytes_max_by(memory::limit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_what_is_held_for_them_fit_into_the_memory() {
        for (limit_mib, connections, held_kib) in
            [(60, 10_240, 7_680), (40, 6_826, 5_120), (1_000, 20_000, 128_000)]
        {
            let limit = Some(limit_mib << 20);
            let bounds = (connections_max_by(limit), held_bytes_max_by(limit));
            assert_eq!(bounds, (connections, held_kib << 10), "{limit_mib} MiB");
        }
        assert_eq!(held_bytes_max_by(Some(1)), 128 << 10);
        let unlimited = (CONNECTIONS_MAX_DEFAULT, HELD_BYTES_MAX_DEFAULT);
        assert_eq!((connections_max_by(None), held_bytes_max_by(None)), unlimited);
    }
}
