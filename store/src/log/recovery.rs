//! Reads a log back: every record up to the first break, and a verdict on the break.
//!
//! | what is found | verdict |
//! |---|---|
//! | a whole snapshot | the ledger begins with the newest one, the log goes on at its place; what lies before is not read |
//! | a damaged snapshot under its final name | corruption: refused, because what it stood for may be gone |
//! | zeros, or nothing, after the last sound frame | the end, or the next segment goes on |
//! | something else, and no sound frame behind it says that it was durable | a torn tail: cut, and said |
//! | something else, and a sound frame behind it says that it was durable | corruption: refused |
//! | a blank segment at the end | prepared, and not begun |
//! | a segment that does not continue the one before, and no sound frame in it says that that one was durable | begun, and never flushed: cut as a torn tail |
//! | a segment is missing, or its first one has no sound header | corruption: refused |
//! | a header of another version | refused, with both numbers |
//!
//! So what is recovered is a prefix of what was appended, and it holds every record that was known to be durable
//! (`recovered_is_a_prefix` and `damage_is_refused`). A segment is begun before the one before is flushed, so the tail that a loss of power tears may
//! reach over several. Reading changes nothing on disk: a crash in the middle of it changes nothing either.

use super::frame::{self, FORMAT_VERSION, Frame, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, Sequence};
use super::segment;
use super::snapshot::{self, Place, Snapshot, SnapshotError};
use crate::core::ledger::snapshot::{BYTES_PER_PAYMENT, Replay};
use crate::core::record::{Record, RecordError};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Records of one payment from its acceptance to its charge, in bytes.
const PAYMENT_RECORDS_BYTES: u64 = 53;

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
    /// Where to go on.
    pub end: Place,
    /// There was no log.
    pub is_new: bool,
    /// The place of the snapshot that it began with.
    pub snapshot: Option<Place>,
    /// How long that snapshot is.
    pub snapshot_bytes: u64,
    /// Frames that were read.
    pub frames: u64,
    /// Bytes of a torn tail that will be cut.
    pub torn_bytes: u64,
    /// The last record that a frame, or the snapshot, calls durable.
    pub witnessed: Sequence,
    /// Segment and offset of the first frame that may not be on the disk: no later frame calls it durable.
    pub unflushed: Option<(u64, u64)>,
    /// The segment that is prepared and not begun.
    pub spare: Option<u64>,
}

/// Reads the newest snapshot in `dir` and all segments behind it into `fold`, in order.
///
/// # Errors
/// [`RecoveryError`]; then the store must not start.
pub fn recover(dir: &Path, fold: &mut impl Replay) -> Result<Recovered, RecoveryError> {
    let io_error = |source| RecoveryError::Io { dir: dir.to_owned(), source };
    let newest = snapshot::list(dir).map_err(io_error)?.pop();
    let loaded = newest.map(|sequence| load(dir, &snapshot::path(dir, sequence), fold)).transpose()?;
    let (place, snapshot_bytes) = (loaded.map(|(place, _)| place), loaded.map_or(0, |(_, bytes)| bytes));
    let mut numbers = segment::list(dir).map_err(io_error)?;
    numbers.retain(|number| *number >= place.map_or(0, |place| place.segment));
    fold.expect(usize::try_from(payments_in(dir, &numbers)).unwrap_or(usize::MAX));
    let recovered = recover_segments(place, &mut Folder { dir, numbers, buffer: Vec::new() }, fold)?;
    if let (Some(place), true) = (place, recovered.is_new) {
        let path = segment::path(dir, place.segment);
        let what = "it is missing, and the snapshot rests on it".to_owned();
        return Err(RecoveryError::Corrupt { path, offset: 0, what });
    }
    Ok(Recovered { snapshot_bytes, ..recovered })
}

/// About how many payments the log in `dir` holds, without reading it.
///
/// # Errors
/// What the system says.
pub fn payments_about(dir: &Path) -> io::Result<u64> {
    let newest = snapshot::list(dir)?.pop().map(|sequence| snapshot::path(dir, sequence));
    let snapshot_bytes = newest.map_or(Ok(0), |path| std::fs::metadata(path).map(|file| file.len()))?;
    let numbers = segment::list(dir)?;
    Ok(snapshot_bytes / BYTES_PER_PAYMENT as u64 + payments_in(dir, &numbers))
}

/// About how many payments are in the full segments among these.
fn payments_in(dir: &Path, numbers: &[u64]) -> u64 {
    let begun = numbers.iter().filter(|number| segment::is_begun(dir, **number).unwrap_or(true)).count();
    begun.saturating_sub(1) as u64 * segment::SEGMENT_BYTES / PAYMENT_RECORDS_BYTES
}

fn load(dir: &Path, path: &Path, fold: &mut impl Replay) -> Result<(Place, u64), RecoveryError> {
    let corrupt = |what: String| RecoveryError::Corrupt { path: path.to_owned(), offset: 0, what };
    let snapshot = Snapshot::open(path).map_err(|error| match error {
        SnapshotError::Io(source) => RecoveryError::Io { dir: dir.to_owned(), source },
        SnapshotError::Version(found) => RecoveryError::Version { path: path.to_owned(), found },
        SnapshotError::Broken(_) => corrupt(error.to_string()),
    })?;
    fold.load(snapshot.ledger, snapshot.len).map_err(|error| corrupt(error.to_string()))?;
    Ok((snapshot.place, snapshot.len))
}

/// Segments, sorted by number, wherever they come from.
pub trait Segments {
    /// How many there are.
    fn count(&self) -> usize;

    /// The number in the name of one, and what to call it in an error.
    fn name(&self, at: usize) -> (u64, PathBuf);

    /// All of one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self, at: usize) -> Result<&[u8], RecoveryError>;
}

/// Those of a log. One is in memory at a time, and all in the same place.
struct Folder<'a> {
    dir: &'a Path,
    numbers: Vec<u64>,
    buffer: Vec<u8>,
}

impl Segments for Folder<'_> {
    fn count(&self) -> usize {
        self.numbers.len()
    }

    fn name(&self, at: usize) -> (u64, PathBuf) {
        (self.numbers[at], segment::path(self.dir, self.numbers[at]))
    }

    fn read(&mut self, at: usize) -> Result<&[u8], RecoveryError> {
        self.buffer.clear();
        File::open(segment::path(self.dir, self.numbers[at]))
            .and_then(|mut file| file.read_to_end(&mut self.buffer))
            .map_err(|source| RecoveryError::Io { dir: self.dir.to_owned(), source })?;
        Ok(&self.buffer)
    }
}

/// The bytes of one segment in memory.
#[derive(Clone, Debug)]
pub struct Image {
    /// The number in its name.
    pub number: u64,
    /// What to call it in an error.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Segments for [Image] {
    fn count(&self) -> usize {
        self.len()
    }

    fn name(&self, at: usize) -> (u64, PathBuf) {
        (self[at].number, self[at].path.clone())
    }

    fn read(&mut self, at: usize) -> Result<&[u8], RecoveryError> {
        Ok(&self[at].bytes)
    }
}

/// Reads segments from a place on; without one they begin at the beginning.
///
/// # Errors
/// [`RecoveryError`], that of a segment among them.
pub fn recover_segments(
    snapshot: Option<Place>,
    segments: &mut (impl Segments + ?Sized),
    fold: &mut impl Replay,
) -> Result<Recovered, RecoveryError> {
    let start = snapshot.unwrap_or(Place { offset: SEGMENT_HEADER_BYTES as u64, ..Place::default() });
    let recovered = Recovered { end: start, is_new: true, snapshot, ..Recovered::default() };
    let unflushed = Unflushed { witnessed: start.sequence, blocks: VecDeque::new() };
    let mut reading = Reading { recovered, path: PathBuf::new(), has_ended: false, unflushed };
    for (at, number) in (0..segments.count()).zip(start.segment..) {
        let (found, path) = segments.name(at);
        if found != number {
            let what = format!("segment {number} is missing before it");
            return Err(RecoveryError::Corrupt { path, offset: 0, what });
        }
        reading.take(number, path, segments.read(at)?, fold)?;
    }
    let Unflushed { witnessed, blocks } = reading.unflushed;
    let unflushed = blocks.front().map(|block| (block.segment, block.offset));
    Ok(Recovered { witnessed, unflushed, ..reading.recovered })
}

/// A reading of one segment after the other.
struct Reading {
    recovered: Recovered,
    /// The segment that `recovered.end` is in.
    path: PathBuf,
    /// The log has ended before the segment that comes now.
    has_ended: bool,
    unflushed: Unflushed,
}

impl Reading {
    fn take(
        &mut self,
        number: u64,
        path: PathBuf,
        bytes: &[u8],
        fold: &mut impl Replay,
    ) -> Result<(), RecoveryError> {
        let mut place = self.recovered.end;
        if !self.recovered.is_new {
            (place.segment, place.offset) = (number, SEGMENT_HEADER_BYTES as u64);
        }
        if !self.has_ended {
            match check_header(&path, bytes, &place)? {
                Ok(()) => {
                    (self.recovered.end, self.path) = (place, path);
                    return self.read(bytes, fold);
                }
                Err(what) if self.recovered.is_new => {
                    return Err(RecoveryError::Corrupt { path, offset: 0, what });
                }
                Err(_) => self.has_ended = true,
            }
        }
        self.look_behind(number, bytes)
    }

    fn corrupt(&self, offset: u64, what: String) -> RecoveryError {
        RecoveryError::Corrupt { path: self.path.clone(), offset, what }
    }

    /// Reads the segment in which the log goes on.
    fn read(&mut self, bytes: &[u8], fold: &mut impl Replay) -> Result<(), RecoveryError> {
        let number = self.recovered.end.segment;
        self.recovered.is_new = false;
        let end = read_frames(bytes, &mut self.recovered, &mut self.unflushed, fold)
            .map_err(|(offset, error)| self.corrupt(offset as u64, error.to_string()))?;
        self.recovered.end.offset = end as u64;
        // Should the next segment go on from here, there is no tail.
        self.recovered.torn_bytes = self.torn_bytes(bytes, number, end)?;
        Ok(())
    }

    /// Looks at a segment that the log has not come to.
    fn look_behind(&mut self, number: u64, bytes: &[u8]) -> Result<(), RecoveryError> {
        let torn_bytes = self.torn_bytes(bytes, number, 0)?;
        self.recovered.torn_bytes += torn_bytes;
        let is_next = number == self.recovered.end.segment + 1;
        if torn_bytes == 0 && is_next && bytes.len() as u64 == segment::SEGMENT_BYTES {
            self.recovered.spare = Some(number);
        }
        Ok(())
    }

    fn torn_bytes(&self, bytes: &[u8], number: u64, end: usize) -> Result<u64, RecoveryError> {
        torn_bytes(bytes, number, end, self.recovered.end.sequence).map_err(|offset| {
            let what =
                format!("a sound frame at byte {offset} of segment {number} says that this was durable");
            self.corrupt(self.recovered.end.offset, what)
        })
    }
}

/// Where records begin that no frame calls durable, to a block: all frames of a log would be too many to list.
struct Unflushed {
    witnessed: Sequence,
    /// Oldest first.
    blocks: VecDeque<Block>,
}

/// Frames that begin in the same [`BLOCK_BYTES`] of a segment.
struct Block {
    segment: u64,
    /// Where the first of them begins.
    offset: u64,
    /// The last record of the last of them, or the one behind it if the last of them is a witness.
    last: Sequence,
}

/// Written again at a start, if need be, as a whole.
const BLOCK_BYTES: u64 = 1 << 16;

impl Unflushed {
    /// Takes note of a frame at `offset` of `segment`, which ends with record `last` and calls all up to `durable` durable.
    fn add(&mut self, segment: u64, offset: u64, last: Sequence, durable: Sequence) {
        self.witnessed = self.witnessed.max(durable);
        while self.blocks.front().is_some_and(|block| block.last <= self.witnessed) {
            self.blocks.pop_front();
        }
        if last <= self.witnessed {
            return;
        }
        match self.blocks.back_mut() {
            Some(block) if (block.segment, block.offset / BLOCK_BYTES) == (segment, offset / BLOCK_BYTES) => {
                block.last = last;
            }
            _ => self.blocks.push_back(Block { segment, offset, last }),
        }
    }
}

/// The header must continue where the log has been read up to; else the inner error says why it does not.
fn check_header(path: &Path, bytes: &[u8], at: &Place) -> Result<Result<(), String>, RecoveryError> {
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(HeaderError::Version(found)) => {
            return Err(RecoveryError::Version { path: path.to_owned(), found });
        }
        Err(HeaderError::Blank | HeaderError::Broken) => return Ok(Err("its header is broken".to_owned())),
    };
    if header.segment != at.segment {
        let what = format!("its header is that of segment {}", header.segment);
        return Err(RecoveryError::Corrupt { path: path.to_owned(), offset: 0, what });
    }
    let follows = if at.offset == SEGMENT_HEADER_BYTES as u64 {
        header.first_sequence == at.sequence + 1 && header.chain == at.chain
    } else {
        // A snapshot was taken in the middle of it.
        header.first_sequence <= at.sequence
    };
    let (first, last) = (header.first_sequence, at.sequence);
    let is_follower = || format!("it begins with record {first}, but what comes before ends with {last}");
    Ok(follows.then_some(()).ok_or_else(is_follower))
}

/// Reads frames while they follow one another; tells where they end. A frame that passes its checksum and holds no
/// records of ours is an error: it was written by something else.
fn read_frames(
    bytes: &[u8],
    recovered: &mut Recovered,
    unflushed: &mut Unflushed,
    fold: &mut impl Replay,
) -> Result<usize, (usize, RecordError)> {
    let end = &mut recovered.end;
    let mut offset = usize::try_from(end.offset).unwrap_or(usize::MAX);
    while let Some(frame) = following(&bytes[offset.min(bytes.len())..], end) {
        let mut rest = frame.records;
        for _ in 0..frame.count {
            let record = Record::decode(&mut rest).map_err(|error| (offset, error))?;
            fold.add(&record);
        }
        if !rest.is_empty() {
            return Err((offset, RecordError(rest.first().copied())));
        }
        end.sequence += u64::from(frame.count);
        end.chain = frame.crc;
        // A witness holds no record. Only what follows it can say that it was flushed.
        let last = end.sequence + u64::from(frame.count == 0);
        unflushed.add(end.segment, offset as u64, last, frame.durable);
        recovered.frames += 1;
        offset += frame.bytes;
    }
    Ok(offset)
}

fn following<'a>(bytes: &'a [u8], end: &Place) -> Option<Frame<'a>> {
    frame::decode(bytes, end.segment)
        .filter(|frame| frame.chain == end.chain && frame.sequence == end.sequence + 1)
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
