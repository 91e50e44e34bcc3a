//! Makes sure that what a start has read is on the disk, before the store rests on it.
//!
//! What was read came from the page cache, and that may hold what the disk does not: after a failed `fdatasync` the kernel
//! marks the pages as clean, and a later flush says nothing about them (Rebello et al., ATC 2020). So whatever no later frame
//! calls durable is written again, with the same bytes, and then flushed. A torn tail is cut by a copy of the sound part,
//! which takes the file's place: the bytes of the tail never stay on the disk behind a cache that hides them.
//!
//! A crash at any step leaves a log that is read in the same way again.

use super::frame::SEGMENT_HEADER_BYTES;
use super::recovery::Recovered;
use super::segment::{self, FILE_MODE, SEGMENT_BYTES, Segment};
use super::snapshot;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// The segment that goes on, and the file of the next one if there is one.
///
/// # Errors
/// What the system says: then the store must not serve.
pub(super) fn resume(dir: &Path, recovered: &Recovered) -> io::Result<(Segment, Option<File>)> {
    restrict(dir)?;
    let (end, mut spare) = (recovered.end, recovered.spare);
    let (first, offset) = recovered.unflushed.unwrap_or((end.segment, end.offset));
    for number in first..end.segment {
        let file = segment::open(dir, number)?;
        write_again(&file, if number == first { offset } else { 0 }, file.metadata()?.len())?;
    }
    let mut file = segment::open(dir, end.segment)?;
    if recovered.torn_bytes > 0 || file.metadata()?.len() != SEGMENT_BYTES {
        let sound = read(&file, 0, end.offset)?;
        file = match spare.take() {
            // A full disk may have no room for another file.
            Some(spare) => segment::replace(dir, spare, end.segment, &sound)?,
            None => segment::create(dir, end.segment, &sound)?,
        };
    } else {
        write_again(&file, if end.segment == first { offset } else { 0 }, end.offset)?;
    }
    remove_behind(dir, recovered)?;
    // The names of the segments, too, may be known to the page cache only.
    segment::flush_folder(dir)?;
    let spare = spare.map(|number| segment::open(dir, number)).transpose()?;
    Ok((Segment::new(end.segment, file, end.offset), spare))
}

/// Writes what lies from `from` to `to` once more, and flushes the file.
fn write_again(file: &File, from: u64, to: u64) -> io::Result<()> {
    // The header is as new as the first frame.
    let from = if from <= SEGMENT_HEADER_BYTES as u64 { 0 } else { from };
    file.write_all_at(&read(file, from, to)?, from)?;
    file.sync_data()
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).expect("at most a segment")];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Removes segments behind the end: those that were begun and never flushed. The last one first, so that a crash leaves no gap.
fn remove_behind(dir: &Path, recovered: &Recovered) -> io::Result<()> {
    let is_useless = |number: &u64| *number > recovered.end.segment && Some(*number) != recovered.spare;
    for number in segment::list(dir)?.into_iter().rev().filter(is_useless) {
        fs::remove_file(segment::path(dir, number))?;
        segment::flush_folder(dir)?;
    }
    Ok(())
}

/// Payments are for the owner of the log only. An earlier version let all users read its files, and prepared segments under
/// other names.
fn restrict(dir: &Path) -> io::Result<()> {
    for name in ["next.espora", "begun.tmp"] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    let segments = segment::list(dir)?.into_iter().map(|number| segment::path(dir, number));
    let snapshots = snapshot::list(dir)?.into_iter().map(|sequence| snapshot::path(dir, sequence));
    for path in segments.chain(snapshots) {
        if fs::metadata(&path)?.permissions().mode() & 0o777 != FILE_MODE {
            fs::set_permissions(&path, Permissions::from_mode(FILE_MODE))?;
        }
    }
    Ok(())
}
