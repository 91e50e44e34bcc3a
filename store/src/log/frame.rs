//! Bytes of the log: segment headers and batch frames.
//!
//! ```text
//!  segment header, 64 bytes
//!   0         8        12       16        24               32          36         40          60      64
//!   | ESPORLOG | version | 0000 | segment | first sequence | chain in | created ms .. zeros .. | crc32 |
//!
//!  batch frame, a multiple of 8 bytes; all records of one turn
//!   0       4       8       12      16         24        32      36     40
//!   | ELFB  | bytes | crc32 | chain | sequence | durable | count | 0000 | records ... zeros to 8 |
//! ```
//!
//! * `crc32` covers all other bytes of the frame and starts from the segment's number, so that what a recycled or
//!   misplaced file holds cannot pass.
//! * `chain` is the `crc32` of the frame before (in the first frame of a segment: the header's `chain in`, which is that
//!   of the last frame of the segment before). A frame that passes by itself but does not follow is no continuation.
//! * `sequence` numbers the first record of the frame, from 1, over all segments.
//! * `durable` is the last record that was known to be flushed when the frame was written. Damage at or before it is
//!   corruption, damage after it a torn tail (`damage_is_refused`).
//! * A frame without records is a witness: it calls the last record durable where no other frame follows.
//!
//! All numbers are little-endian. Any bytes can be given to the decoders.

use bytes::BufMut;
use crc32fast::Hasher;

/// Counts every change of these formats. A log of another version is refused with both numbers.
pub const FORMAT_VERSION: u32 = 3;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 40;

/// The longest run of records in one frame. One turn of the server reads at most 64 KiB from each connection, which
/// makes at most about as many bytes of records; this is sixty times that.
pub const FRAME_RECORDS_BYTES_MAX: usize = 4 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"ESPORLOG";
const FRAME_MAGIC: [u8; 4] = *b"ELFB";

/// Numbers the records of a log, from 1.
pub type Sequence = u64;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number, as in its file name.
    pub segment: u64,
    /// The number of the first record that it may hold.
    pub first_sequence: Sequence,
    /// The checksum of the last frame before it.
    pub chain: u32,
    /// When it was begun, in milliseconds since 1970. For people.
    pub created_ms: u64,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Nothing was written yet.
    Blank,
    /// Written by another version of the format.
    Version(u32),
    /// Something else, or damaged.
    Broken,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.first_sequence);
        out.put_u32_le(self.chain);
        out.put_u64_le(self.created_ms);
        out.resize(SEGMENT_HEADER_BYTES - 4, 0);
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out.try_into().expect("the fields fill the header")
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] tells a blank one from a foreign and a broken one.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(HeaderError::Broken);
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Blank);
        }
        if bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32fast::hash(&bytes[..60]) {
            return Err(HeaderError::Broken);
        }
        match u32_at(bytes, 8) {
            FORMAT_VERSION => Ok(Self {
                segment: u64_at(bytes, 16),
                first_sequence: u64_at(bytes, 24),
                chain: u32_at(bytes, 32),
                created_ms: u64_at(bytes, 36),
            }),
            version => Err(HeaderError::Version(version)),
        }
    }
}

/// A frame as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its checksum, which the next frame repeats.
    pub crc: u32,
    /// The checksum of the frame before.
    pub chain: u32,
    /// The number of its first record.
    pub sequence: Sequence,
    /// The last record known to be flushed when it was written.
    pub durable: Sequence,
    /// How many records it holds.
    pub count: u32,
    /// The records.
    pub records: &'a [u8],
    /// How many bytes it takes up.
    pub bytes: usize,
}

/// Appends a frame to `out` and tells its checksum.
pub fn encode(
    out: &mut Vec<u8>,
    segment: u64,
    chain: u32,
    sequence: Sequence,
    durable: Sequence,
    count: u32,
    records: &[u8],
) -> u32 {
    assert!(
        records.len() <= FRAME_RECORDS_BYTES_MAX,
        "a turn records at most {FRAME_RECORDS_BYTES_MAX} bytes"
    );
    let start = out.len();
    out.put_slice(&FRAME_MAGIC);
    out.put_u32_le(u32::try_from(records.len()).expect("FRAME_RECORDS_BYTES_MAX fits"));
    out.put_u32_le(0);
    out.put_u32_le(chain);
    out.put_u64_le(sequence);
    out.put_u64_le(durable);
    out.put_u32_le(count);
    out.put_u32_le(0);
    out.put_slice(records);
    out.resize(start + frame_bytes(records.len()), 0);
    let crc = checksum(segment, &out[start..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Reads the frame that `bytes` begin with; `None` when they begin with no sound frame of this segment.
#[must_use]
pub fn decode(bytes: &[u8], segment: u64) -> Option<Frame<'_>> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let len = u32_at(header, 4) as usize;
    if header[..4] != FRAME_MAGIC || len > FRAME_RECORDS_BYTES_MAX {
        return None;
    }
    let frame = bytes.get(..frame_bytes(len))?;
    let crc = u32_at(header, 8);
    (checksum(segment, frame) == crc).then(|| Frame {
        crc,
        chain: u32_at(header, 12),
        sequence: u64_at(header, 16),
        durable: u64_at(header, 24),
        count: u32_at(header, 32),
        records: &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len],
        bytes: frame.len(),
    })
}

/// What a frame with so many bytes of records takes up.
#[must_use]
pub fn frame_bytes(records_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + records_bytes).next_multiple_of(8)
}

/// Over everything but the checksum itself.
fn checksum(segment: u64, frame: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&frame[..8]);
    hasher.update(&frame[12..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_read_back_and_every_flipped_bit_is_noticed() {
        let header = SegmentHeader { segment: 7, first_sequence: 99, chain: 0xdead_beef, created_ms: 5 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&broken), Err(HeaderError::Broken), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER_BYTES]), Err(HeaderError::Blank));
    }

    #[test]
    fn another_version_is_told_by_its_number() {
        let mut bytes = SegmentHeader { segment: 0, first_sequence: 1, chain: 0, created_ms: 0 }.encode();
        let other = FORMAT_VERSION + 1;
        bytes[8..12].copy_from_slice(&other.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(other)));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 3, 1, 2, 1, 4, b"thirteen bytes");
        assert!(decode(&bytes, 3).is_some());
        assert!(decode(&bytes, 4).is_none(), "a frame of another segment is none of this one");
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&broken, 3), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back_as_written(
            records in proptest::collection::vec(any::<u8>(), 0..200),
            (segment, chain, sequence, durable, count) in any::<(u64, u32, u64, u64, u32)>(),
        ) {
            let mut bytes = Vec::new();
            let crc = encode(&mut bytes, segment, chain, sequence, durable, count, &records);
            let frame = decode(&bytes, segment).unwrap();
            prop_assert_eq!(frame, Frame { crc, chain, sequence, durable, count, records: &records, bytes: bytes.len() });
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut], segment), None);
            }
        }

        #[test]
        fn any_bytes_are_a_frame_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 0);
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
