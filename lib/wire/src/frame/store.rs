//! What the store says to an api, or to an operator's command.

use super::bytes::{Fields, FrameError, Message, frame, put_next};
use super::call::{AttemptId, CallKind, Lease};
use super::operation::{Charge, Window};
use super::totals::Totals;
use crate::{PerProcessor, Processor};
use bytes::BufMut;

/// The kinds of frame that the store sends.
mod kind {
    pub(super) const WELCOME: u8 = 65;
    pub(super) const ACCEPTED: u8 = 66;
    pub(super) const SUMMARY: u8 = 67;
    pub(super) const PURGED: u8 = 68;
    pub(super) const METRICS: u8 = 69;
    pub(super) const LEASE: u8 = 70;
    pub(super) const HEALTH_LEASE: u8 = 71;
    pub(super) const ACKNOWLEDGE: u8 = 72;
    pub(super) const OPERATED: u8 = 73;
    pub(super) const WINDOW: u8 = 80;
    pub(super) const CHARGES: u8 = 81;
}

/// What became of an accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Accepted {
    /// New, and recorded.
    Recorded = 0,
    /// Known with the same amount.
    Duplicate = 1,
    /// Known with another amount; nothing changed.
    Mismatch = 2,
    /// No room; nothing was recorded.
    Full = 3,
}

/// Store to api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromStore {
    /// The answer to a hello.
    Welcome,
    /// The answer to an accept.
    Accepted {
        /// Of the accept.
        request: u64,
        /// What became of it.
        accepted: Accepted,
    },
    /// The answer to a summary.
    Summary {
        /// Of the question.
        request: u64,
        /// What each processor charged inside the window.
        totals: PerProcessor<Totals>,
    },
    /// The answer to a purge.
    Purged {
        /// Of the purge.
        request: u64,
        /// It has taken effect. If not, it came after its deadline and nothing has changed.
        done: bool,
    },
    /// The store's metrics, Prometheus text.
    Metrics {
        /// Of the question.
        request: u64,
        /// At most [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX) less the header.
        text: String,
    },
    /// Make this call.
    Lease(Lease),
    /// Ask this processor for its health, once, now.
    HealthLease {
        /// Which one.
        processor: Processor,
        /// Until when the call may begin, on the host's monotonic clock; one that does not is handed back.
        begin_until_us: u64,
    },
    /// Reports up to this one are as durable as the mode demands and need not be kept.
    Acknowledge {
        /// [`Report::sequence`](super::Report::sequence) of the last of them.
        sequence: u64,
    },
    /// The answer to an operation.
    Operated {
        /// Of the operation.
        request: u64,
        /// It was done. If not, nothing has changed.
        done: bool,
        /// More to list from here.
        next: Option<u32>,
        /// Payments, one a line; or what was done, or why not.
        text: String,
    },
    /// The answer to [`Operation::Window`](super::Operation::Window).
    Window {
        /// Of the operation.
        request: u64,
        /// What is known.
        window: Window,
    },
    /// The answer to [`Operation::Charges`](super::Operation::Charges).
    Charges {
        /// Of the operation.
        request: u64,
        /// More to list from here.
        next: Option<u32>,
        /// Some of the charges. At most [`CHARGES_MAX`](super::CHARGES_MAX).
        charges: Vec<Charge>,
    },
}

impl Message for FromStore {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome => frame(out, kind::WELCOME, |_| ()),
            Self::Accepted { request, accepted } => frame(out, kind::ACCEPTED, |out| {
                out.put_u64_le(*request);
                out.put_u8(*accepted as u8);
            }),
            Self::Summary { request, totals } => frame(out, kind::SUMMARY, |out| {
                out.put_u64_le(*request);
                for (_, totals) in totals.iter() {
                    totals.put(out);
                }
            }),
            Self::Purged { request, done } => frame(out, kind::PURGED, |out| {
                out.put_u64_le(*request);
                out.put_u8(u8::from(*done));
            }),
            Self::Metrics { request, text } => frame(out, kind::METRICS, |out| {
                out.put_u64_le(*request);
                out.put_slice(text.as_bytes());
            }),
            Self::Lease(lease) => frame(out, kind::LEASE, |out| {
                out.put_u64_le(lease.attempt.0);
                out.put_u128_le(lease.id.0);
                out.put_i64_le(lease.cents.0);
                out.put_u8(lease.processor as u8);
                out.put_i64_le(lease.requested_at.0);
                out.put_u8(lease.kind as u8);
                out.put_u64_le(lease.begin_until_us.unwrap_or(0));
            }),
            Self::HealthLease { processor, begin_until_us } => frame(out, kind::HEALTH_LEASE, |out| {
                out.put_u8(*processor as u8);
                out.put_u64_le(*begin_until_us);
            }),
            Self::Acknowledge { sequence } => frame(out, kind::ACKNOWLEDGE, |out| out.put_u64_le(*sequence)),
            Self::Operated { request, done, next, text } => frame(out, kind::OPERATED, |out| {
                out.put_u64_le(*request);
                out.put_u8(u8::from(*done));
                put_next(out, *next);
                out.put_slice(text.as_bytes());
            }),
            Self::Window { request, window } => frame(out, kind::WINDOW, |out| {
                out.put_u64_le(*request);
                window.put(out);
            }),
            Self::Charges { request, next, charges } => frame(out, kind::CHARGES, |out| {
                out.put_u64_le(*request);
                put_next(out, *next);
                Charge::put_all(out, charges);
            }),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { kind, rest: payload };
        let message = match kind {
            kind::WELCOME => Self::Welcome,
            kind::ACCEPTED => {
                let request = fields.u64()?;
                let accepted = match fields.u8()? {
                    0 => Accepted::Recorded,
                    1 => Accepted::Duplicate,
                    2 => Accepted::Mismatch,
                    3 => Accepted::Full,
                    _ => return fields.broken(),
                };
                Self::Accepted { request, accepted }
            }
            kind::SUMMARY => {
                let request = fields.u64()?;
                Self::Summary {
                    request,
                    totals: PerProcessor([Totals::take(&mut fields)?, Totals::take(&mut fields)?]),
                }
            }
            kind::PURGED => Self::Purged { request: fields.u64()?, done: fields.bool()? },
            kind::METRICS => {
                let request = fields.u64()?;
                return Ok(Self::Metrics { request, text: fields.text()? });
            }
            kind::LEASE => Self::Lease(Lease {
                attempt: AttemptId(fields.u64()?),
                id: fields.id()?,
                cents: fields.amount()?,
                processor: fields.processor()?,
                requested_at: fields.time()?,
                kind: if fields.bool()? { CallKind::Get } else { CallKind::Post },
                begin_until_us: Some(fields.u64()?).filter(|until_us| *until_us > 0),
            }),
            kind::HEALTH_LEASE => {
                Self::HealthLease { processor: fields.processor()?, begin_until_us: fields.u64()? }
            }
            kind::ACKNOWLEDGE => Self::Acknowledge { sequence: fields.u64()? },
            kind::OPERATED => {
                let (request, done) = (fields.u64()?, fields.bool()?);
                return Ok(Self::Operated { request, done, next: fields.next()?, text: fields.text()? });
            }
            kind::WINDOW => Self::Window { request: fields.u64()?, window: Window::take(&mut fields)? },
            kind::CHARGES => Self::Charges {
                request: fields.u64()?,
                next: fields.next()?,
                charges: Charge::take_all(&mut fields)?,
            },
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end(message)
    }
}
