//! Count and sum of payments.

use super::bytes::{Fields, FrameError};
use crate::Cents;
use bytes::BufMut;

/// Count and sum of a set of payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub cents: Cents,
}

impl Totals {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.count);
        out.put_i64_le(self.cents.0);
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, FrameError> {
        Ok(Self { count: fields.u64()?, cents: fields.cents()? })
    }
}
