//! The log's files: `log-NNNNNNNNNNNNNNNN.espora`, each of [`SEGMENT_BYTES`], filled with zeros before use.
//!
//! A file that has its final size and blocks on disk makes a flush one write: no size, no extent has to be journalled.
//! The next segment is prepared under the name `next.espora` and renamed into place, with the folder flushed, so that a
//! name of a segment always stands for a whole one.

use super::frame::{SEGMENT_HEADER_BYTES, SegmentHeader};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a segment: some 270,000 payments. Several of them are cheap to recycle and to hold in the page cache of a
/// small container.
pub const SEGMENT_BYTES: u64 = 16 << 20;

const _: () = assert!(SEGMENT_BYTES >= 2 * super::frame::FRAME_RECORDS_BYTES_MAX as u64);

const PREFIX: &str = "log-";
const SUFFIX: &str = ".espora";
const NEXT: &str = "next.espora";

/// A segment that is being written.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Shared with the flushing thread.
    pub file: Arc<File>,
    /// Where the next frame goes.
    pub position: u64,
}

impl Segment {
    /// Begins a segment with this header, from a prepared file if there is one.
    ///
    /// # Errors
    /// What the system says; then nothing may be acknowledged any more.
    pub fn begin(dir: &Path, header: &SegmentHeader) -> io::Result<Self> {
        // The flushing thread may be about to put another file under the name of the next one: take it away first.
        let ours = dir.join("begun.tmp");
        match fs::rename(dir.join(NEXT), &ours) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fill(&ours)?,
            renamed => renamed?,
        }
        let file = File::options().read(true).write(true).open(&ours)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        fs::rename(&ours, path(dir, header.segment))?;
        File::open(dir)?.sync_all()?;
        Ok(Self { number: header.segment, file: Arc::new(file), position: SEGMENT_HEADER_BYTES as u64 })
    }

    /// Goes on with a segment that recovery has read up to `position`, and clears what lies behind, unless it is blank
    /// already: a stale frame there must never look like a continuation. What was read is on the disk then.
    ///
    /// # Errors
    /// What the system says.
    pub fn resume(dir: &Path, number: u64, position: u64, is_blank_behind: bool) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path(dir, number))?;
        if !is_blank_behind || file.metadata()?.len() != SEGMENT_BYTES {
            fill_with_zeros(&file, position, SEGMENT_BYTES)?;
            file.set_len(SEGMENT_BYTES)?;
        }
        file.sync_all()?;
        Ok(Self { number, file: Arc::new(file), position })
    }

    /// Appends bytes; the caller has seen to it that they fit.
    ///
    /// # Errors
    /// What the system says; then nothing may be acknowledged any more.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(self.has_room(bytes.len()), "a frame fits into its segment");
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// True when so many bytes still fit.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        bytes as u64 <= self.room_bytes()
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        SEGMENT_BYTES.saturating_sub(self.position)
    }
}

/// True when the file that the next segment will be is there.
#[must_use]
pub fn is_prepared(dir: &Path) -> bool {
    dir.join(NEXT).exists()
}

/// Makes the file that the next segment will be. Does nothing when it is there.
///
/// # Errors
/// What the system says, a full disk among it.
pub fn prepare(dir: &Path) -> io::Result<()> {
    if is_prepared(dir) {
        return Ok(());
    }
    let unfinished = dir.join("next.tmp");
    if let Err(error) = fill(&unfinished) {
        // On a full disk what was taken is given back: the snapshot that could help needs it.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(unfinished, dir.join(NEXT))
}

/// Makes a file of a segment's size, all of it on disk.
fn fill(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    fill_with_zeros(&file, 0, SEGMENT_BYTES)?;
    file.sync_all()
}

/// The numbers of the segments in `dir`, sorted.
///
/// # Errors
/// What the system says.
pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
    numbered(dir, PREFIX, SUFFIX)
}

/// The hexadecimal numbers in the names of files in `dir`, sorted.
pub(super) fn numbered(dir: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix));
        numbers.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where a segment lies.
#[must_use]
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:016x}{SUFFIX}"))
}

fn fill_with_zeros(mut file: &File, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 1 << 16];
    io::Seek::seek(&mut file, io::SeekFrom::Start(from))?;
    let mut left = to.saturating_sub(from);
    while left > 0 {
        let len = usize::try_from(left.min(ZEROS.len() as u64)).expect("at most the block");
        file.write_all(&ZEROS[..len])?;
        left -= len as u64;
    }
    Ok(())
}
