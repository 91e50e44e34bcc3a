//! Fixed fields of records and snapshots, little-endian, taken off bytes one after the other. `None` means that there are
//! too few bytes, or a byte that stands for nothing.

use super::queue::Ordinal;
use std::io::Read;
use wire::frame::AttemptId;
use wire::{Cents, PaymentId, Processor, Timestamp};

/// What is left to read.
#[derive(Debug)]
pub(super) struct Fields<R> {
    rest: R,
    left: u64,
}

impl<R: Read> Fields<R> {
    /// The next `left` bytes of `rest`.
    pub(super) fn new(rest: R, left: u64) -> Self {
        Self { rest, left }
    }

    /// Bytes that are not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.left = self.left.checked_sub(N as u64)?;
        let mut field = [0; N];
        self.rest.read_exact(&mut field).ok()?;
        Some(field)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn number_32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `bytes` each: never more than the rest can hold, so that it may be trusted with
    /// an allocation.
    pub(super) fn count(&mut self, bytes: usize) -> Option<usize> {
        let count = u64::from(self.number_32()?);
        (count * bytes as u64 <= self.left).then_some(usize::try_from(count).ok()?)
    }

    pub(super) fn ordinal(&mut self) -> Option<Ordinal> {
        self.number_32().map(Ordinal)
    }

    pub(super) fn attempt(&mut self) -> Option<AttemptId> {
        self.number().map(AttemptId)
    }

    pub(super) fn id(&mut self) -> Option<PaymentId> {
        self.take().map(|bytes| PaymentId(u128::from_le_bytes(bytes)))
    }

    pub(super) fn cents(&mut self) -> Option<Cents> {
        self.take().map(|bytes| Cents(i64::from_le_bytes(bytes)))
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp(i64::from_le_bytes(bytes)))
    }

    pub(super) fn processor(&mut self) -> Option<Processor> {
        self.byte().and_then(Processor::from_byte)
    }
}
