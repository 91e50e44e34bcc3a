//! Reads a log back: every record up to the first break, and a verdict on the break.
//!
//! | what is found | verdict |
//! |---|---|
//! | zeros, or nothing, after the last sound frame | the end |
//! | something else in the last segment, and no sound frame behind it says that it was durable | a torn tail: cut, and said |
//! | something else, and a sound frame behind it, or a next segment, says that it was durable | corruption: refused |
//! | a segment is missing, or does not continue the one before | corruption: refused |
//! | a header of another version | refused, with both numbers |
//!
//! So what is recovered is a prefix of what was appended, and it holds every record that was known to be durable
//! (invariants 22 and 23). Reading changes nothing on disk: a crash in the middle of it changes nothing either.

use super::frame::{self, FORMAT_VERSION, Frame, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, Sequence};
use super::segment;
use crate::core::record::{Record, RecordError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The system would not let us read.
    #[error("cannot read the log in {dir}: {source}")]
    Io {
        /// The log's folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Records that were durable are damaged.
    #[error(
        "the log is damaged at byte {offset} of {path}: {what}. Records after it were acknowledged, so starting without \
         them could charge twice. Restore the folder from a copy, or move it away to start empty"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The log was written by another version.
    #[error("{path} has format {found}, this store reads {FORMAT_VERSION}: start the version that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// How a recovery went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Where to go on: number and end of the last segment. `None` for an empty folder.
    pub end: Option<(u64, u64)>,
    /// The last record.
    pub sequence: Sequence,
    /// The checksum that the next frame must repeat.
    pub chain: u32,
    /// Frames that were read.
    pub frames: u64,
    /// Bytes of a torn tail that will be cut.
    pub torn_bytes: u64,
}

/// Reads all segments of `dir` and hands each record to `replay`, in order.
///
/// # Errors
/// [`RecoveryError`]; then the store must not start.
pub fn recover(dir: &Path, replay: impl FnMut(&Record)) -> Result<Recovered, RecoveryError> {
    let io_error = |source| RecoveryError::Io { dir: dir.to_owned(), source };
    let numbers = segment::list(dir).map_err(io_error)?;
    let read = |number: &u64| {
        let path = segment::path(dir, *number);
        let bytes = std::fs::read(&path).map_err(io_error)?;
        Ok(Image { number: *number, path, bytes })
    };
    recover_images(numbers.iter().map(read), replay)
}

/// The bytes of one segment, wherever they come from.
#[derive(Clone, Debug)]
pub struct Image {
    /// The number in its name.
    pub number: u64,
    /// What to call it in an error.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Reads segments, sorted by number. One image is held at a time.
///
/// # Errors
/// [`RecoveryError`], that of an image among them.
pub fn recover_images(
    images: impl Iterator<Item = Result<Image, RecoveryError>>,
    mut replay: impl FnMut(&Record),
) -> Result<Recovered, RecoveryError> {
    let mut recovered = Recovered::default();
    let mut images = images.peekable();
    while let Some(image) = images.next() {
        let Image { number, path, bytes } = image?;
        let corrupt = |offset: usize, what: String| RecoveryError::Corrupt {
            path: path.clone(),
            offset: offset as u64,
            what,
        };
        let before = recovered.end.map(|(before, _)| before);
        let expected = before.map_or(0, |before| before + 1);
        if number != expected {
            return Err(corrupt(0, format!("segment {expected} is missing before it")));
        }
        check_header(&path, &bytes, number, before.is_none(), &mut recovered)?;
        let end = read_frames(&bytes, number, &mut recovered, &mut replay)
            .map_err(|(offset, error)| corrupt(offset, error.to_string()))?;
        recovered.end = Some((number, end as u64));
        if images.peek().is_none() {
            recovered.torn_bytes = torn_bytes(&bytes, number, end, recovered.sequence).map_err(|offset| {
                corrupt(end, format!("a sound frame at byte {offset} says that this was durable"))
            })?;
        }
    }
    Ok(recovered)
}

/// The header must continue where the segment before ended; that of the first one sets the start.
fn check_header(
    path: &Path,
    bytes: &[u8],
    number: u64,
    is_first: bool,
    recovered: &mut Recovered,
) -> Result<(), RecoveryError> {
    let corrupt = |what: String| RecoveryError::Corrupt { path: path.to_owned(), offset: 0, what };
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(HeaderError::Version(found)) => {
            return Err(RecoveryError::Version { path: path.to_owned(), found });
        }
        Err(HeaderError::Blank | HeaderError::Broken) => {
            return Err(corrupt("its header is broken".to_owned()));
        }
    };
    if header.segment != number {
        return Err(corrupt(format!("its header is that of segment {}", header.segment)));
    }
    if is_first {
        recovered.sequence = header.first_sequence - 1;
        recovered.chain = header.chain;
    } else if header.first_sequence != recovered.sequence + 1 || header.chain != recovered.chain {
        let text = format!(
            "it begins with record {}, but the segment before ends with {}",
            header.first_sequence, recovered.sequence
        );
        return Err(corrupt(text));
    }
    Ok(())
}

/// Reads frames while they follow one another; tells where they end. A frame that passes its checksum and holds no
/// records of ours is an error: it was written by something else.
fn read_frames(
    bytes: &[u8],
    number: u64,
    recovered: &mut Recovered,
    replay: &mut impl FnMut(&Record),
) -> Result<usize, (usize, RecordError)> {
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(frame) = following(&bytes[offset.min(bytes.len())..], number, recovered) {
        let mut rest = frame.records;
        for _ in 0..frame.count {
            let record = Record::decode(&mut rest).map_err(|error| (offset, error))?;
            replay(&record);
        }
        if !rest.is_empty() {
            return Err((offset, RecordError(rest.first().copied())));
        }
        recovered.sequence += u64::from(frame.count);
        recovered.chain = frame.crc;
        recovered.frames += 1;
        offset += frame.bytes;
    }
    Ok(offset)
}

fn following<'a>(bytes: &'a [u8], number: u64, recovered: &Recovered) -> Option<Frame<'a>> {
    frame::decode(bytes, number)
        .filter(|frame| frame.chain == recovered.chain && frame.sequence == recovered.sequence + 1)
}

/// Looks behind the end. `Err` with the place of a frame that proves that more was durable than was read.
fn torn_bytes(bytes: &[u8], number: u64, end: usize, last: Sequence) -> Result<u64, usize> {
    let tail = bytes.get(end..).unwrap_or_default();
    let Some(last_byte) = tail.iter().rposition(|byte| *byte != 0) else {
        return Ok(0);
    };
    for offset in (0..=last_byte).step_by(8) {
        if frame::decode(&tail[offset..], number).is_some_and(|frame| frame.durable > last) {
            return Err(end + offset);
        }
    }
    Ok(last_byte as u64 + 1)
}
