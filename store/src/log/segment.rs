//! The log's files: `log-NNNNNNNNNNNNNNNN.espora`, each of [`SEGMENT_BYTES`], filled with zeros before use.
//!
//! A file that has its final size and blocks on disk makes a flush one write: no size, no extent has to be journalled.
//! A segment is made under another name, flushed, renamed, and the folder is flushed: the name of a segment always stands for
//! a whole file. The next one is there long before it is begun ([`mod@super::prepare`]); until then it is blank. To begin a
//! segment, the deciding thread writes its header.
//!
//! Payments are for the owner of the log only: files have mode [`FILE_MODE`].

use super::frame::{SEGMENT_HEADER_BYTES, SegmentHeader};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a segment: some 270,000 payments. Several of them are cheap to recycle and to hold in the page cache of a
/// small container.
pub const SEGMENT_BYTES: u64 = 16 << 20;

const _: () = assert!(SEGMENT_BYTES >= 2 * super::frame::FRAME_RECORDS_BYTES_MAX as u64);

const PREFIX: &str = "log-";
const SUFFIX: &str = ".espora";
const UNFINISHED: &str = "next.tmp";

/// Mode of a file of the log.
pub(super) const FILE_MODE: u32 = 0o600;

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
    /// A segment that goes on at `position`.
    pub(super) fn new(number: u64, file: File, position: u64) -> Self {
        Self { number, file: Arc::new(file), position }
    }

    /// Begins a segment in a blank file. What is written before the next flush may be lost together with the header.
    ///
    /// # Errors
    /// What the system says; then nothing may be acknowledged any more.
    pub(super) fn begin(file: File, header: &SegmentHeader) -> io::Result<Self> {
        file.write_all_at(&header.encode(), 0)?;
        Ok(Self::new(header.segment, file, SEGMENT_HEADER_BYTES as u64))
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

/// Makes the file of a segment that begins with `head` and goes on with zeros. When it returns, the file is on the disk under
/// its name; if there was one before, it has taken its place.
///
/// # Errors
/// What the system says, a full disk among it. A file that was there before is unchanged then.
pub(super) fn create(dir: &Path, number: u64, head: &[u8]) -> io::Result<File> {
    let unfinished = dir.join(UNFINISHED);
    let created = fill(&unfinished, head).and_then(|file| {
        fs::rename(&unfinished, path(dir, number))?;
        flush_folder(dir)?;
        Ok(file)
    });
    if created.is_err() {
        // On a full disk what was taken is given back: the snapshot that could help needs it.
        let _ = fs::remove_file(&unfinished);
    }
    created
}

/// Puts the blank segment `spare` in the place of segment `number`, with `head` at its beginning.
///
/// # Errors
/// What the system says. The segment is unchanged then.
pub(super) fn replace(dir: &Path, spare: u64, number: u64, head: &[u8]) -> io::Result<File> {
    let unfinished = dir.join(UNFINISHED);
    fs::rename(path(dir, spare), &unfinished)?;
    let file = File::options().read(true).write(true).open(&unfinished)?;
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    fs::rename(&unfinished, path(dir, number))?;
    flush_folder(dir)?;
    Ok(file)
}

/// Makes a file of a segment's size, all of it on disk.
fn fill(path: &Path, head: &[u8]) -> io::Result<File> {
    let mut file =
        File::options().create(true).truncate(true).read(true).write(true).mode(FILE_MODE).open(path)?;
    file.write_all(head)?;
    fill_with_zeros(&file, head.len() as u64, SEGMENT_BYTES)?;
    file.sync_all()?;
    Ok(file)
}

/// Opens a segment that is there.
///
/// # Errors
/// What the system says.
pub(super) fn open(dir: &Path, number: u64) -> io::Result<File> {
    File::options().read(true).write(true).open(path(dir, number))
}

/// Has the names of files in `dir` flushed to the disk.
///
/// # Errors
/// What the system says.
pub(super) fn flush_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// True when segment `number` was begun: its header is not blank.
///
/// # Errors
/// What the system says.
pub(crate) fn is_begun(dir: &Path, number: u64) -> io::Result<bool> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    match File::open(path(dir, number))?.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        read => read.map(|()| header.iter().any(|byte| *byte != 0)),
    }
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
    let mut left = to.saturating_sub(from);
    while left > 0 {
        let len = usize::try_from(left.min(ZEROS.len() as u64)).expect("at most the block");
        file.write_all(&ZEROS[..len])?;
        left -= len as u64;
    }
    Ok(())
}
