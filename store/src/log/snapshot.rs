//! Snapshots: what the ledger was at one place of the log, so that everything before that place can go.
//!
//! ```text
//!  snapshot-SSSSSSSSSSSSSSSS.espora, S = the last record that it holds, hexadecimal
//!   0          8         12     16        24       32       40      44     48            56     60      64
//!   | ESPORSNP | version | 0000 | segment | offset | S      | chain | crc  | bytes behind | 0000 | crc32 | ledger ...
//! ```
//!
//! The log goes on at `offset` of `segment`, with a frame that repeats `chain` and begins with record S + 1. The first
//! `crc` covers the ledger, the second the header. The file is written under another name by a thread of its own, flushed,
//! renamed, and only then the segments and snapshots before it are removed: a crash at any moment leaves one whole
//! snapshot, or all segments, or both. A snapshot that fails, on a full disk say, costs nothing but a line: the log is
//! whole without it.

use super::frame::{FORMAT_VERSION, Sequence};
use super::segment;
use crate::core::ledger::snapshot::Frozen;
use bytes::BufMut;
use crc32fast::Hasher;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a snapshot's header.
pub const SNAPSHOT_HEADER_BYTES: usize = 64;

/// Read or written with one call to the system.
const BLOCK_BYTES: usize = 1 << 18;

const MAGIC: [u8; 8] = *b"ESPORSNP";
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".espora";
const UNFINISHED: &str = "snapshot.tmp";

/// A place between two frames of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u64,
    /// Where its next frame begins.
    pub offset: u64,
    /// The last record before it.
    pub sequence: Sequence,
    /// The checksum of the frame before it.
    pub chain: u32,
}

/// Why a file is no snapshot that could be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system would not let us read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Written by another version of the format.
    #[error("it has format {0}")]
    Version(u32),
    /// Something else, or damaged.
    #[error("its {0} is damaged")]
    Broken(&'static str),
}

/// Writes `frozen`, which is the ledger at `place`, into `dir`, and tells how many bytes that took. When it returns, the
/// snapshot is on the disk.
///
/// # Errors
/// What the system says. Nothing has changed then.
pub fn write(dir: &Path, place: Place, frozen: &Frozen) -> io::Result<u64> {
    let unfinished = dir.join(UNFINISHED);
    let written = fill(&unfinished, place, frozen).and_then(|len| {
        fs::rename(&unfinished, path(dir, place.sequence))?;
        segment::flush_folder(dir)?;
        Ok(len)
    });
    if written.is_err() {
        // Gives the disk back what it took; that there may be nothing to remove is fine.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn fill(unfinished: &Path, place: Place, frozen: &Frozen) -> io::Result<u64> {
    let mode = segment::FILE_MODE;
    let file = File::options().create(true).truncate(true).write(true).mode(mode).open(unfinished)?;
    let mut out = Checked { inner: &file, hasher: Hasher::new(), len: 0 };
    out.write_all(&[0; SNAPSHOT_HEADER_BYTES])?;
    (out.hasher, out.len) = (Hasher::new(), 0);
    let mut buffered = BufWriter::with_capacity(BLOCK_BYTES, out);
    frozen.put(&mut buffered)?;
    let out = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    let len = out.len;
    file.write_all_at(&header(place, out.hasher.finalize(), len), 0)?;
    file.sync_all()?;
    Ok(len + SNAPSHOT_HEADER_BYTES as u64)
}

fn header(place: Place, crc: u32, len: u64) -> [u8; SNAPSHOT_HEADER_BYTES] {
    let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES);
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(0);
    out.put_u64_le(place.segment);
    out.put_u64_le(place.offset);
    out.put_u64_le(place.sequence);
    out.put_u32_le(place.chain);
    out.put_u32_le(crc);
    out.put_u64_le(len);
    out.put_u32_le(0);
    out.put_u32_le(crc32fast::hash(&out));
    out.try_into().expect("the fields fill the header")
}

/// A snapshot whose checksums are right.
#[derive(Debug)]
pub struct Snapshot<R> {
    /// Where the log goes on.
    pub place: Place,
    /// The frozen ledger.
    pub ledger: R,
    /// Its length.
    pub len: u64,
}

impl Snapshot<BufReader<File>> {
    /// Opens a snapshot and reads it once, for its checksums. It is never held in memory as a whole: it may be larger than
    /// what the process is allowed.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let open = || -> io::Result<_> { Ok(BufReader::with_capacity(BLOCK_BYTES, File::open(path)?)) };
        let found = Self::check(open()?)?;
        let mut ledger = open()?;
        ledger.read_exact(&mut [0; SNAPSHOT_HEADER_BYTES])?;
        Ok(Self { ledger, ..found })
    }
}

impl<R: Read> Snapshot<R> {
    /// Reads a snapshot to its end and compares its checksums.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn check(mut bytes: R) -> Result<Self, SnapshotError> {
        let mut header = [0; SNAPSHOT_HEADER_BYTES];
        bytes.read_exact(&mut header).map_err(|_| SnapshotError::Broken("header"))?;
        let (place, crc, len) = decode(&header)?;
        let mut check = Checked { inner: io::sink(), hasher: Hasher::new(), len: 0 };
        io::copy(&mut bytes, &mut check)?;
        if check.len != len || check.hasher.finalize() != crc {
            return Err(SnapshotError::Broken("ledger"));
        }
        Ok(Self { place, ledger: bytes, len })
    }
}

fn decode(header: &[u8; SNAPSHOT_HEADER_BYTES]) -> Result<(Place, u32, u64), SnapshotError> {
    let number_32 = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if header[..8] != MAGIC || number_32(60) != crc32fast::hash(&header[..60]) {
        return Err(SnapshotError::Broken("header"));
    }
    if number_32(8) != FORMAT_VERSION {
        return Err(SnapshotError::Version(number_32(8)));
    }
    let place = Place { segment: number(16), offset: number(24), sequence: number(32), chain: number_32(40) };
    Ok((place, number_32(44), number(48)))
}

/// Passes bytes on and keeps their checksum and count.
#[derive(Debug)]
struct Checked<W> {
    inner: W,
    hasher: Hasher,
    len: u64,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The last records of the snapshots in `dir`, sorted.
///
/// # Errors
/// What the system says.
pub fn list(dir: &Path) -> io::Result<Vec<Sequence>> {
    segment::numbered(dir, PREFIX, SUFFIX)
}

/// Where a snapshot lies.
#[must_use]
pub fn path(dir: &Path, sequence: Sequence) -> PathBuf {
    dir.join(format!("{PREFIX}{sequence:016x}{SUFFIX}"))
}

/// Removes what the snapshot at `place` stands for: snapshots and segments before it. Oldest first, so that what a crash
/// leaves is without a gap.
///
/// # Errors
/// What the system says. Nothing is lost then but space.
pub fn prune(dir: &Path, place: Place) -> io::Result<()> {
    let old = segment::list(dir)?.into_iter().filter(|number| *number < place.segment);
    old.map(|number| segment::path(dir, number)).try_for_each(fs::remove_file)?;
    let older = list(dir)?.into_iter().filter(|sequence| *sequence < place.sequence);
    older.map(|sequence| path(dir, sequence)).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Ledger;
    use crate::core::record::Record;
    use wire::{Cents, PaymentId};

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(10, [1, 2]);
        ledger.apply(&Record::Accepted { id: PaymentId(7), cents: Cents(1990) });
        let place = Place { segment: 3, offset: 128, sequence: 9, chain: 0xdead_beef };
        write(dir.path(), place, &ledger.freeze()).unwrap();
        let bytes = fs::read(path(dir.path(), 9)).unwrap();
        assert_eq!(Snapshot::check(&bytes[..]).unwrap().place, place);
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::check(&broken[..]).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Snapshot::check(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(list(dir.path()).unwrap(), [9]);
    }
}
