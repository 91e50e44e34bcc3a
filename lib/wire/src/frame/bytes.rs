//! A frame as bytes: its length, its kind, and the fields that all payloads are made of. It knows no message.

use crate::{Bounds, Cents, PaymentId, Processor, Timestamp};
use bytes::BufMut;

/// Counts every change of the frames. Both ends must speak the same one.
pub const PROTOCOL_VERSION: u16 = 3;

/// What the first frame says, so that a stranger on the socket is told apart from an old api.
pub const PROTOCOL_MAGIC: [u8; 4] = *b"ESPO";

/// The longest frame, kind included. The longest that is sent is a metrics text; a hello with
/// [`HELD_ATTEMPTS_MAX`](super::HELD_ATTEMPTS_MAX) attempts is 32 KiB.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are no frame. The connection they came from must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length of zero, or above [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    Length(u32),
    /// No such kind, in this direction and version.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The payload is shorter or longer than its kind demands, or a field is out of its range.
    #[error("a broken frame of kind {0}")]
    Payload(u8),
    /// Not an api of this version.
    #[error("the peer is no api of protocol version {PROTOCOL_VERSION}")]
    Version,
}

/// A message that travels as a frame.
pub trait Message: Sized {
    /// Appends the whole frame.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads kind and payload of one frame.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no message of this direction.
    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError>;
}

/// Takes the first whole frame off `buffer` and tells how many bytes it took; `None` while it is incomplete.
///
/// # Errors
/// [`FrameError`] when no continuation of these bytes could be a frame.
pub fn decode<M: Message>(buffer: &[u8]) -> Result<Option<(M, usize)>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*header);
    let bytes = length as usize;
    if bytes == 0 || bytes > FRAME_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    let Some(frame) = rest.get(..bytes) else {
        return Ok(None);
    };
    let message = M::decode(frame[0], &frame[1..])?;
    Ok(Some((message, 4 + bytes)))
}

/// Frames out of a stream, which brings them in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
}

impl Frames {
    /// Takes a piece in, and gives `each` the messages that are whole with it, in their order.
    ///
    /// # Errors
    /// [`FrameError`] when what comes next can be no frame; what came before it has been given. The stream is of no more
    /// use then.
    pub fn take<M: Message>(&mut self, piece: &[u8], mut each: impl FnMut(M)) -> Result<(), FrameError> {
        // Nearly always whole frames come: then nothing is copied.
        let mut joined = std::mem::take(&mut self.rest);
        let bytes = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            &joined[..]
        };
        let mut used = 0;
        while let Some((message, len)) = decode(&bytes[used..])? {
            used += len;
            each(message);
        }
        self.rest = bytes[used..].to_vec();
        Ok(())
    }
}

/// Writes one frame: reserves the length, lets `fill` append the payload, then sets the length.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    fill(out);
    let length = out.len() - start - 4;
    assert!(length <= FRAME_BYTES_MAX, "a frame of kind {kind} grew to {length} bytes");
    let length = u32::try_from(length).expect("FRAME_BYTES_MAX fits");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads fields off a payload; the first that is missing or out of range spoils the whole.
pub(super) struct Fields<'a> {
    pub(super) kind: u8,
    pub(super) rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn broken<T>(&self) -> Result<T, FrameError> {
        Err(FrameError::Payload(self.kind))
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else {
            return self.broken();
        };
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.broken(),
        }
    }

    pub(super) fn id(&mut self) -> Result<PaymentId, FrameError> {
        self.take().map(|bytes| PaymentId(u128::from_le_bytes(bytes)))
    }

    pub(super) fn cents(&mut self) -> Result<Cents, FrameError> {
        self.take().map(|bytes| Cents(i64::from_le_bytes(bytes)))
    }

    /// The amount of one payment, which has a range.
    pub(super) fn amount(&mut self) -> Result<Cents, FrameError> {
        let cents = self.cents()?;
        if cents.is_payable() { Ok(cents) } else { self.broken() }
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, FrameError> {
        self.take().map(|bytes| Timestamp(i64::from_le_bytes(bytes)))
    }

    pub(super) fn bound(&mut self) -> Result<Option<Timestamp>, FrameError> {
        let given = self.bool()?;
        let time = self.time()?;
        Ok(given.then_some(time))
    }

    pub(super) fn bounds(&mut self) -> Result<Bounds, FrameError> {
        Ok(Bounds { from: self.bound()?, to: self.bound()? })
    }

    /// Where a list goes on.
    pub(super) fn next(&mut self) -> Result<Option<u32>, FrameError> {
        let (more, next) = (self.bool()?, self.u32()?);
        Ok(more.then_some(next))
    }

    pub(super) fn processor(&mut self) -> Result<Processor, FrameError> {
        let byte = self.u8()?;
        Processor::from_byte(byte).map_or_else(|| self.broken(), Ok)
    }

    pub(super) fn optional_processor(&mut self) -> Result<Option<Processor>, FrameError> {
        match self.u8()? {
            NO_PROCESSOR => Ok(None),
            byte => Processor::from_byte(byte).map_or_else(|| self.broken(), |processor| Ok(Some(processor))),
        }
    }

    /// All that is left.
    pub(super) fn text(&mut self) -> Result<String, FrameError> {
        std::str::from_utf8(self.rest).map_or_else(|_| self.broken(), |text| Ok(text.to_owned()))
    }

    pub(super) fn end<T>(&self, message: T) -> Result<T, FrameError> {
        if self.rest.is_empty() { Ok(message) } else { self.broken() }
    }
}

/// In the place of a processor that is not named.
pub(super) const NO_PROCESSOR: u8 = 0xff;

pub(super) fn put_bound(out: &mut Vec<u8>, bound: Option<Timestamp>) {
    out.put_u8(u8::from(bound.is_some()));
    out.put_i64_le(bound.map_or(0, |time| time.0));
}

pub(super) fn put_bounds(out: &mut Vec<u8>, bounds: Bounds) {
    put_bound(out, bounds.from);
    put_bound(out, bounds.to);
}

pub(super) fn put_next(out: &mut Vec<u8>, next: Option<u32>) {
    out.put_u8(u8::from(next.is_some()));
    out.put_u32_le(next.unwrap_or(0));
}
