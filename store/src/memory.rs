//! How many payments fit into the memory of the process, and what a start says when they do not.
//!
//! A store that recovers more than fits loses nothing: it serves and settles what it has, and answers 503 to new payments. If the
//! kernel kills it, the log is whole. So a start never refuses; it says what to change.

use crate::core::ledger::{PAYMENT_BYTES, UNCOUNTED_PAYMENTS};

/// Memory that the process needs besides payments: buffers, binary, the log's pages.
const BASE_BYTES: u64 = 24 << 20;

const _: () = assert!((UNCOUNTED_PAYMENTS * PAYMENT_BYTES) as u64 <= BASE_BYTES / 16);

/// Payments remembered when nothing limits the memory.
const PAYMENTS_MAX_UNLIMITED: u64 = 8 << 20;

/// The least that is chosen.
const PAYMENTS_MAX_LEAST: u64 = 1_024;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Payments remembered between two purges.
    pub payments_max: u64,
    /// The limit of the process, in bytes.
    pub limit: Option<u64>,
}

impl Memory {
    /// `payments_max` as it is set, or as many as fit into `limit` bytes.
    #[must_use]
    pub fn new(payments_max: Option<u64>, limit: Option<u64>) -> Self {
        let fitting = limit.map_or(PAYMENTS_MAX_UNLIMITED, |limit| {
            payments_in(limit).clamp(PAYMENTS_MAX_LEAST, PAYMENTS_MAX_UNLIMITED)
        });
        Self { payments_max: payments_max.unwrap_or(fitting), limit }
    }

    /// What to say before the log is read, which holds about `payments`.
    #[must_use]
    pub fn before_reading(&self, payments: u64) -> Vec<String> {
        let Some(limit) = self.limit else { return Vec::new() };
        let mut said = Vec::new();
        if bytes_of(payments) > limit {
            said.push(format!(
                "LOG_DIR holds about {payments} payments, which take up to {}; the memory limit is {}. If this start is \
                 killed, nothing is lost: raise the limit and start again",
                mib(bytes_of(payments)),
                mib(limit)
            ));
        }
        if bytes_of(self.payments_max) > limit {
            said.push(format!(
                "PAYMENTS_MAX is {}, which takes up to {}; the memory limit is {}. Set it to at most {}, or raise the limit",
                self.payments_max,
                mib(bytes_of(self.payments_max)),
                mib(limit),
                payments_in(limit)
            ));
        }
        said
    }

    /// What to say after the log is read, when what it held takes as much as `payments`.
    #[must_use]
    pub fn after_reading(&self, payments: u64) -> Option<String> {
        (payments >= self.payments_max).then(|| {
            format!(
                "what was recovered takes as much as {payments} payments, and PAYMENTS_MAX is {}: all of it is served and \
                 settled, new payments get 503. Raise PAYMENTS_MAX above {payments}, with a memory limit of at least {}, or \
                 purge",
                self.payments_max,
                mib(bytes_of(payments))
            )
        })
    }
}

/// The memory of a process with so many payments, in bytes.
fn bytes_of(payments: u64) -> u64 {
    BASE_BYTES.saturating_add(payments.saturating_mul(PAYMENT_BYTES as u64))
}

/// How many payments a process with so many bytes can have.
fn payments_in(bytes: u64) -> u64 {
    bytes.saturating_sub(BASE_BYTES) / PAYMENT_BYTES as u64
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 190 << 20;

    #[test]
    fn as_many_payments_as_fit_are_remembered_unless_a_number_is_set() {
        let payments_max = |set, limit| Memory::new(set, limit).payments_max;
        assert_eq!(payments_max(None, Some(LIMIT)), (166 << 20) / 64);
        assert_eq!(payments_max(None, Some(1 << 20)), 1_024);
        assert_eq!(payments_max(None, Some(1 << 40)), 8 << 20);
        assert_eq!(payments_max(None, None), 8 << 20);
        assert_eq!(payments_max(Some(7), Some(LIMIT)), 7);
    }

    #[test]
    fn a_start_says_what_does_not_fit() {
        let by_memory = Memory::new(None, Some(LIMIT));
        assert_eq!(by_memory.before_reading(by_memory.payments_max), Vec::<String>::new());
        let said = by_memory.before_reading(3_000_000);
        assert!(said.len() == 1 && said[0].contains("3000000") && said[0].contains("190 MiB"), "{said:?}");
        let said = Memory::new(Some(3_000_000), Some(LIMIT)).before_reading(0);
        assert!(said.len() == 1 && said[0].contains("at most 2719744"), "{said:?}");
        assert!(Memory::new(Some(3_000_000), None).before_reading(u64::MAX).is_empty());
        let two = Memory::new(Some(2), None);
        assert_eq!(two.after_reading(1), None);
        let said = two.after_reading(3).unwrap();
        assert!(said.contains("Raise PAYMENTS_MAX above 3"), "{said}");
    }
}
