//! What an api says to the store.

use super::bytes::{
    FRAME_BYTES_MAX, Fields, FrameError, Message, PROTOCOL_MAGIC, PROTOCOL_VERSION, frame, put_bounds,
};
use super::call::{AttemptId, Health, HeldAttempt, Outcome, Report};
use super::operation::Operation;
use crate::{Bounds, Cents, PaymentId, Processor};
use bytes::BufMut;

/// How many unanswered attempts a hello can list: the calls that one api may hold open, timed-out ones included.
pub const HELD_ATTEMPTS_MAX: usize = 2_048;

const _: () = assert!(HELD_ATTEMPTS_MAX * 16 + 64 <= FRAME_BYTES_MAX);

/// The kinds of frame that an api sends.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const HEARTBEAT: u8 = 2;
    pub(super) const ACCEPT: u8 = 3;
    pub(super) const SUMMARY: u8 = 4;
    pub(super) const PURGE: u8 = 5;
    pub(super) const METRICS: u8 = 6;
    pub(super) const REPORT: u8 = 7;
    pub(super) const HEALTH_REPORT: u8 = 8;
    pub(super) const DRAIN: u8 = 9;
    pub(super) const OPERATE: u8 = 10;
}

/// Api to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromApi {
    /// The first frame of a connection.
    Hello {
        /// Drawn at the api's start: tells a reconnecting api from a new one.
        instance: u64,
        /// How many calls it can carry at once.
        calls_max: u16,
        /// What it still waits for, overdue calls included. At most [`HELD_ATTEMPTS_MAX`].
        held: Vec<HeldAttempt>,
    },
    /// I am alive; sent each second.
    Heartbeat,
    /// Take this payment.
    Accept {
        /// Repeated in the reply.
        request: u64,
        /// The payment.
        id: PaymentId,
        /// Its amount.
        cents: Cents,
    },
    /// Sum up a window.
    Summary {
        /// Repeated in the reply.
        request: u64,
        /// The window.
        bounds: Bounds,
    },
    /// Forget everything.
    Purge {
        /// Repeated in the reply.
        request: u64,
        /// Since when its client waits, on the host's monotonic clock ([`crate::time::monotonic_us`]): a purge that took effect
        /// later has done what this one asks for.
        asked_us: u64,
        /// Until when: its client has given up after that, and payments that were acknowledged since must not be forgotten.
        deadline_us: u64,
    },
    /// Your metrics, please.
    Metrics {
        /// Repeated in the reply.
        request: u64,
    },
    /// What became of an attempt.
    Report(Report),
    /// What a leased health call brought.
    HealthReport {
        /// Which processor was asked.
        processor: Processor,
        /// What it said.
        health: Health,
    },
    /// No more leases, please: this api drains.
    Drain,
    /// From an operator's command, on a connection of its own and without a hello.
    Operate {
        /// Repeated in the reply.
        request: u64,
        /// Until when, as with a purge.
        deadline_us: u64,
        /// What.
        operation: Operation,
    },
}

impl Message for FromApi {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { instance, calls_max, held } => frame(out, kind::HELLO, |out| {
                out.put_slice(&PROTOCOL_MAGIC);
                out.put_u16_le(PROTOCOL_VERSION);
                out.put_u64_le(*instance);
                out.put_u16_le(*calls_max);
                assert!(held.len() <= HELD_ATTEMPTS_MAX, "a hello lists {} attempts", held.len());
                out.put_u16_le(u16::try_from(held.len()).expect("HELD_ATTEMPTS_MAX fits"));
                for HeldAttempt { attempt, age_ms } in held {
                    out.put_u64_le(attempt.0);
                    out.put_u64_le(*age_ms);
                }
            }),
            Self::Heartbeat => frame(out, kind::HEARTBEAT, |_| ()),
            Self::Accept { request, id, cents } => frame(out, kind::ACCEPT, |out| {
                out.put_u64_le(*request);
                out.put_u128_le(id.0);
                out.put_i64_le(cents.0);
            }),
            Self::Summary { request, bounds } => frame(out, kind::SUMMARY, |out| {
                out.put_u64_le(*request);
                put_bounds(out, *bounds);
            }),
            Self::Purge { request, asked_us, deadline_us } => frame(out, kind::PURGE, |out| {
                out.put_u64_le(*request);
                out.put_u64_le(*asked_us);
                out.put_u64_le(*deadline_us);
            }),
            Self::Metrics { request } => frame(out, kind::METRICS, |out| out.put_u64_le(*request)),
            Self::Report(report) => frame(out, kind::REPORT, |out| {
                out.put_u64_le(report.sequence);
                out.put_u64_le(report.attempt.0);
                out.put_u128_le(report.id.0);
                out.put_u8(report.processor as u8);
                out.put_u16_le(report.status);
                out.put_u32_le(report.latency_us);
                report.outcome.put(out);
            }),
            Self::HealthReport { processor, health } => frame(out, kind::HEALTH_REPORT, |out| {
                out.put_u8(*processor as u8);
                let (kind, failing, ms) = match health {
                    Health::Answered { failing, min_response_ms } => (0, *failing, *min_response_ms),
                    Health::Busy => (1, false, 0),
                    Health::Unanswered => (2, false, 0),
                    Health::HandedBack => (3, false, 0),
                };
                out.put_u8(kind);
                out.put_u8(u8::from(failing));
                out.put_u32_le(ms);
            }),
            Self::Drain => frame(out, kind::DRAIN, |_| ()),
            Self::Operate { request, deadline_us, operation } => frame(out, kind::OPERATE, |out| {
                out.put_u64_le(*request);
                out.put_u64_le(*deadline_us);
                operation.put(out);
            }),
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields { kind, rest: payload };
        let message = match kind {
            kind::HELLO => {
                if fields.take::<4>()? != PROTOCOL_MAGIC || fields.u16()? != PROTOCOL_VERSION {
                    return Err(FrameError::Version);
                }
                let (instance, calls_max, count) = (fields.u64()?, fields.u16()?, fields.u16()?);
                if usize::from(count) > HELD_ATTEMPTS_MAX || fields.rest.len() != usize::from(count) * 16 {
                    return fields.broken();
                }
                let mut held = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    held.push(HeldAttempt { attempt: AttemptId(fields.u64()?), age_ms: fields.u64()? });
                }
                Self::Hello { instance, calls_max, held }
            }
            kind::HEARTBEAT => Self::Heartbeat,
            kind::ACCEPT => {
                Self::Accept { request: fields.u64()?, id: fields.id()?, cents: fields.amount()? }
            }
            kind::SUMMARY => {
                let request = fields.u64()?;
                Self::Summary { request, bounds: fields.bounds()? }
            }
            kind::PURGE => {
                Self::Purge { request: fields.u64()?, asked_us: fields.u64()?, deadline_us: fields.u64()? }
            }
            kind::METRICS => Self::Metrics { request: fields.u64()? },
            kind::REPORT => Self::Report(Report {
                sequence: fields.u64()?,
                attempt: AttemptId(fields.u64()?),
                id: fields.id()?,
                processor: fields.processor()?,
                status: fields.u16()?,
                latency_us: fields.u32()?,
                outcome: Outcome::take(&mut fields)?,
            }),
            kind::HEALTH_REPORT => {
                let (processor, said, failing, min_response_ms) =
                    (fields.processor()?, fields.u8()?, fields.bool()?, fields.u32()?);
                let health = match said {
                    0 => Health::Answered { failing, min_response_ms },
                    1 => Health::Busy,
                    2 => Health::Unanswered,
                    3 => Health::HandedBack,
                    _ => return fields.broken(),
                };
                Self::HealthReport { processor, health }
            }
            kind::DRAIN => Self::Drain,
            kind::OPERATE => Self::Operate {
                request: fields.u64()?,
                deadline_us: fields.u64()?,
                operation: Operation::take(&mut fields)?,
            },
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end(message)
    }
}
