//! What operators ask the store, and what it tells them.

use super::bytes::{Fields, FrameError, NO_PROCESSOR, put_bound, put_bounds};
use super::totals::Totals;
use crate::{Bounds, Cents, PaymentId, PerProcessor, Processor, Timestamp};
use bytes::BufMut;

/// How many charges one page of them can list.
pub const CHARGES_MAX: usize = 1_000;

const CHARGE_BYTES: usize = 32;

const _: () = assert!(CHARGES_MAX * CHARGE_BYTES + 64 <= super::bytes::FRAME_BYTES_MAX);

/// A set of payments that an operator can look through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listing {
    /// Refused for good by both processors.
    DeadLetters = 0,
    /// With an attempt that has no answer.
    InFlight = 1,
    /// With evidence that contradicts itself.
    Conflicts = 2,
    /// Left behind by a purge with an attempt that has no answer, or charged since.
    Tombstones = 3,
}

impl Listing {
    const ALL: [Self; 4] = [Self::DeadLetters, Self::InFlight, Self::Conflicts, Self::Tombstones];
}

/// What an operator asks for or decides. Only people know what no evidence shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Show some of them.
    List {
        /// Which.
        listing: Listing,
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
    /// A processor has charged this payment.
    Charged {
        /// The payment.
        id: PaymentId,
        /// Which processor; needed only where the store cannot know it: both claim a dead letter.
        by: Option<Processor>,
    },
    /// No attempt of this payment charged it, or ever will.
    NotCharged(PaymentId),
    /// Send this dead letter again.
    Revive(PaymentId),
    /// Send all dead letters again that no processor claims.
    ReviveAll {
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
    /// Tell what is known about a window, to compare it with the processors' own sums.
    Window {
        /// The window.
        bounds: Bounds,
    },
    /// List what a processor charged inside a window.
    Charges {
        /// The processor.
        processor: Processor,
        /// The window.
        bounds: Bounds,
        /// Where to go on: 0, then what the answer before said.
        from: u32,
    },
}

impl Operation {
    /// The payment that is decided about.
    #[must_use]
    pub fn id(&self) -> Option<PaymentId> {
        match *self {
            Self::List { .. } | Self::ReviveAll { .. } | Self::Window { .. } | Self::Charges { .. } => None,
            Self::Charged { id, .. } | Self::NotCharged(id) | Self::Revive(id) => Some(id),
        }
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        let (kind, id) = match self {
            Self::List { listing, from } => {
                out.put_u8(0);
                out.put_u8(listing as u8);
                return out.put_u32_le(from);
            }
            Self::Charged { id, by } => {
                out.put_u8(1);
                out.put_u128_le(id.0);
                return out.put_u8(by.map_or(NO_PROCESSOR, |processor| processor as u8));
            }
            Self::NotCharged(id) => (2, id),
            Self::Revive(id) => (3, id),
            Self::ReviveAll { from } => {
                out.put_u8(4);
                return out.put_u32_le(from);
            }
            Self::Window { bounds } => {
                out.put_u8(8);
                return put_bounds(out, bounds);
            }
            Self::Charges { processor, bounds, from } => {
                out.put_u8(9);
                out.put_u8(processor as u8);
                put_bounds(out, bounds);
                return out.put_u32_le(from);
            }
        };
        out.put_u8(kind);
        out.put_u128_le(id.0);
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, FrameError> {
        Ok(match fields.u8()? {
            0 => {
                let listing = Listing::ALL.get(usize::from(fields.u8()?)).copied();
                let Some(listing) = listing else { return fields.broken() };
                Self::List { listing, from: fields.u32()? }
            }
            1 => Self::Charged { id: fields.id()?, by: fields.optional_processor()? },
            2 => Self::NotCharged(fields.id()?),
            3 => Self::Revive(fields.id()?),
            4 => Self::ReviveAll { from: fields.u32()? },
            8 => Self::Window { bounds: fields.bounds()? },
            9 => Self::Charges {
                processor: fields.processor()?,
                bounds: fields.bounds()?,
                from: fields.u32()?,
            },
            _ => return fields.broken(),
        })
    }
}

/// What the store knows about a window of `requestedAt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The store's clock. Unless it is set back, no payment gets a `requestedAt` before this time any more.
    pub now: Timestamp,
    /// Another number after each purge that forgot an attempt.
    pub world: u64,
    /// The first `requestedAt` inside the window under which a payment was sent or charged.
    pub first: Option<Timestamp>,
    /// What each processor charged inside the window.
    pub charged: PerProcessor<Totals>,
    /// Payments that each processor may hold inside the window beyond those, because an attempt has no answer. It is
    /// never too low.
    pub in_flight: PerProcessor<u64>,
}

/// A payment that a processor charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The payment.
    pub id: PaymentId,
    /// The amount that the summary counts.
    pub cents: Cents,
    /// The time under which the summary counts it.
    pub requested_at: Timestamp,
}

impl Window {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.now.0);
        out.put_u64_le(self.world);
        put_bound(out, self.first);
        for (_, totals) in self.charged.iter() {
            totals.put(out);
        }
        for (_, count) in self.in_flight.iter() {
            out.put_u64_le(*count);
        }
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            now: fields.time()?,
            world: fields.u64()?,
            first: fields.bound()?,
            charged: PerProcessor([Totals::take(fields)?, Totals::take(fields)?]),
            in_flight: PerProcessor([fields.u64()?, fields.u64()?]),
        })
    }
}

impl Charge {
    pub(super) fn put_all(out: &mut Vec<u8>, charges: &[Self]) {
        assert!(charges.len() <= CHARGES_MAX, "a page lists {} charges", charges.len());
        out.put_u16_le(u16::try_from(charges.len()).expect("CHARGES_MAX fits"));
        for Self { id, cents, requested_at } in charges {
            out.put_u128_le(id.0);
            out.put_i64_le(cents.0);
            out.put_i64_le(requested_at.0);
        }
    }

    pub(super) fn take_all(fields: &mut Fields<'_>) -> Result<Vec<Self>, FrameError> {
        let count = usize::from(fields.u16()?);
        if count > CHARGES_MAX || fields.rest.len() != count * CHARGE_BYTES {
            return fields.broken();
        }
        (0..count)
            .map(|_| Ok(Self { id: fields.id()?, cents: fields.amount()?, requested_at: fields.time()? }))
            .collect()
    }
}
