//! What the log holds: one record for each fact that must outlive the process.
//!
//! The state of the ledger is the fold of its records: while it runs and while it recovers, a record changes memory
//! through the same function. A record is a kind byte and fixed fields, little-endian; its length follows from its kind.
//! Payments are named by their ordinal, which the order of the accepts implies, so that recovery looks up no ids.

use super::fields::Fields;
use super::queue::Ordinal;
use bytes::BufMut;
use std::io::Read;
use wire::frame::AttemptId;
use wire::{Cents, PaymentId, Processor, Timestamp};

/// Why an attempt charged nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Negative {
    /// This call did not; another may.
    NotNow = 0,
    /// This processor never will.
    Refused = 1,
}

/// The time and amount that a charge counts under: ours, or the processor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// Those that we sent.
    Ours,
    /// Those that the processor was found to hold.
    Theirs {
        /// Its `requestedAt`.
        requested_at: Timestamp,
        /// Its amount.
        cents: Cents,
    },
}

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A payment was accepted; it gets the next ordinal.
    Accepted {
        /// The payment.
        id: PaymentId,
        /// Its amount.
        cents: Cents,
    },
    /// An attempt is about to be made (`intent_before_first_byte`).
    Intended {
        /// The payment.
        ordinal: Ordinal,
        /// The attempt.
        attempt: AttemptId,
        /// Where it goes.
        processor: Processor,
        /// The time that is sent.
        requested_at: Timestamp,
    },
    /// An attempt is proven to have charged nothing.
    Cleared {
        /// The payment.
        ordinal: Ordinal,
        /// The attempt.
        attempt: AttemptId,
        /// Whether another call may.
        negative: Negative,
    },
    /// A payment is proven charged.
    Charged {
        /// The payment.
        ordinal: Ordinal,
        /// The processor.
        processor: Processor,
        /// Under whose time and amount.
        terms: Terms,
    },
    /// The processor holds the payment although no attempt of ours could have put it there: what it holds is asked for.
    Surprised {
        /// The payment.
        ordinal: Ordinal,
    },
    /// This processor claims what contradicts the rest of the evidence: the payment is flagged for people.
    Conflicted {
        /// The payment.
        ordinal: Ordinal,
        /// Which processor.
        processor: Processor,
    },
    /// Both processors refuse the payment for good.
    Died {
        /// The payment.
        ordinal: Ordinal,
    },
    /// Everything is forgotten but what may still be charged.
    Purged,
    /// An attempt that a purge left behind is proven to have charged nothing.
    TombstoneCleared {
        /// The payment.
        id: PaymentId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// A payment that a purge left behind is proven charged, in the world before.
    TombstoneCharged {
        /// The payment.
        id: PaymentId,
    },
    /// An operator says that no attempt of this payment charged it, or ever will: a payment in flight is queued again, and no
    /// processor claims a dead letter any more.
    Resolved {
        /// The payment.
        ordinal: Ordinal,
    },
    /// An operator says that no attempt which a purge left behind charged this payment, or ever will.
    TombstoneResolved {
        /// The payment.
        id: PaymentId,
    },
    /// An operator sends a dead letter again, as if no processor had refused it.
    Revived {
        /// The payment.
        ordinal: Ordinal,
    },
}

/// Bytes that are no record: the log was written by something else, or the frame's checksum did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record of this version begins with {0:?}")]
pub struct RecordError(pub Option<u8>);

impl Record {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Accepted { id, cents } => {
                out.put_u8(1);
                out.put_u128_le(id.0);
                out.put_i64_le(cents.0);
            }
            Self::Intended { ordinal, attempt, processor, requested_at } => {
                out.put_u8(2);
                out.put_u32_le(ordinal.0);
                out.put_u64_le(attempt.0);
                out.put_u8(processor as u8);
                out.put_i64_le(requested_at.0);
            }
            Self::Cleared { ordinal, attempt, negative } => {
                out.put_u8(3);
                out.put_u32_le(ordinal.0);
                out.put_u64_le(attempt.0);
                out.put_u8(negative as u8);
            }
            Self::Charged { ordinal, processor, terms: Terms::Ours } => {
                out.put_u8(4);
                out.put_u32_le(ordinal.0);
                out.put_u8(processor as u8);
            }
            Self::Charged { ordinal, processor, terms: Terms::Theirs { requested_at, cents } } => {
                out.put_u8(5);
                out.put_u32_le(ordinal.0);
                out.put_u8(processor as u8);
                out.put_i64_le(requested_at.0);
                out.put_i64_le(cents.0);
            }
            Self::Surprised { ordinal } => {
                out.put_u8(6);
                out.put_u32_le(ordinal.0);
            }
            Self::Conflicted { ordinal, processor } => {
                out.put_u8(7);
                out.put_u32_le(ordinal.0);
                out.put_u8(processor as u8);
            }
            Self::Died { ordinal } => {
                out.put_u8(8);
                out.put_u32_le(ordinal.0);
            }
            Self::Purged => out.put_u8(9),
            Self::TombstoneCleared { id, attempt } => {
                out.put_u8(10);
                out.put_u128_le(id.0);
                out.put_u64_le(attempt.0);
            }
            Self::TombstoneCharged { id } => {
                out.put_u8(11);
                out.put_u128_le(id.0);
            }
            Self::Resolved { ordinal } => {
                out.put_u8(12);
                out.put_u32_le(ordinal.0);
            }
            Self::TombstoneResolved { id } => {
                out.put_u8(13);
                out.put_u128_le(id.0);
            }
            Self::Revived { ordinal } => {
                out.put_u8(14);
                out.put_u32_le(ordinal.0);
            }
        }
    }

    /// Takes the first record off `bytes`.
    ///
    /// # Errors
    /// When they begin with no record.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields::new(*bytes, bytes.len() as u64);
        let record = Self::take(&mut fields).ok_or(RecordError(bytes.first().copied()))?;
        let left = usize::try_from(fields.left()).expect("no more than there were");
        *bytes = &bytes[bytes.len() - left..];
        Ok(record)
    }

    fn take(fields: &mut Fields<impl Read>) -> Option<Self> {
        let record = match fields.byte()? {
            1 => Self::Accepted { id: fields.id()?, cents: fields.cents()? },
            2 => Self::Intended {
                ordinal: fields.ordinal()?,
                attempt: fields.attempt()?,
                processor: fields.processor()?,
                requested_at: fields.time()?,
            },
            3 => Self::Cleared {
                ordinal: fields.ordinal()?,
                attempt: fields.attempt()?,
                negative: if fields.flag()? { Negative::Refused } else { Negative::NotNow },
            },
            4 => Self::Charged {
                ordinal: fields.ordinal()?,
                processor: fields.processor()?,
                terms: Terms::Ours,
            },
            5 => Self::Charged {
                ordinal: fields.ordinal()?,
                processor: fields.processor()?,
                terms: Terms::Theirs { requested_at: fields.time()?, cents: fields.cents()? },
            },
            6 => Self::Surprised { ordinal: fields.ordinal()? },
            7 => Self::Conflicted { ordinal: fields.ordinal()?, processor: fields.processor()? },
            8 => Self::Died { ordinal: fields.ordinal()? },
            9 => Self::Purged,
            10 => Self::TombstoneCleared { id: fields.id()?, attempt: fields.attempt()? },
            11 => Self::TombstoneCharged { id: fields.id()? },
            12 => Self::Resolved { ordinal: fields.ordinal()? },
            13 => Self::TombstoneResolved { id: fields.id()? },
            14 => Self::Revived { ordinal: fields.ordinal()? },
            _ => return None,
        };
        Some(record)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any record at all, possible or not.
    pub(crate) fn record() -> impl Strategy<Value = Record> {
        (0_u8..15, any::<u128>(), any::<u32>(), any::<u64>(), any::<bool>(), any::<i64>(), any::<i64>())
            .prop_map(|(kind, id, ordinal, attempt, flag, time, cents)| {
                let (id, ordinal, attempt) = (PaymentId(id), Ordinal(ordinal), AttemptId(attempt));
                let processor = if flag { Processor::Fallback } else { Processor::Default };
                let (requested_at, cents) = (Timestamp(time), Cents(cents));
                match kind {
                    0 | 1 => Record::Accepted { id, cents },
                    2 => Record::Intended { ordinal, attempt, processor, requested_at },
                    3 => {
                        let negative = if flag { Negative::Refused } else { Negative::NotNow };
                        Record::Cleared { ordinal, attempt, negative }
                    }
                    4 => Record::Charged { ordinal, processor, terms: Terms::Ours },
                    5 => Record::Charged { ordinal, processor, terms: Terms::Theirs { requested_at, cents } },
                    6 => Record::Surprised { ordinal },
                    7 => Record::Conflicted { ordinal, processor },
                    8 => Record::Died { ordinal },
                    9 => Record::Purged,
                    10 => Record::TombstoneCleared { id, attempt },
                    11 => Record::TombstoneCharged { id },
                    12 => Record::Resolved { ordinal },
                    13 => Record::TombstoneResolved { id },
                    _ => Record::Revived { ordinal },
                }
            })
    }

    proptest! {
        #[test]
        fn records_are_read_back_as_written(records in proptest::collection::vec(record(), 0..20)) {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| record.encode(&mut bytes));
            let mut rest = &bytes[..];
            for record in &records {
                prop_assert_eq!(Record::decode(&mut rest), Ok(*record));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_records_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while !rest.is_empty() && Record::decode(&mut rest).is_ok() {}
        }
    }
}
