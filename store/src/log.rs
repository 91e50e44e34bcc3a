//! The write-ahead log: what it has taken is there again after a crash that its mode covers.
//!
//! One turn of the server appends one frame with one `write`; a thread of its own flushes, so that a slow disk delays
//! acknowledgements and nothing else. Which sequence number an answer has to wait for follows from [`Durability`]:
//!
//! | mode | an answer waits for | survives |
//! |---|---|---|
//! | `process` | the `write` of its records | the death of any process; a power loss may take the last 100 ms |
//! | `always` | the flush of its records, one for many turns | also a power loss |
//! | `none` | nothing; there is no log | nothing. For measuring what the log costs |
//!
//! A group that was flushed gets a witness: a later frame that calls it durable, so that damage to it is never taken for a torn
//! tail. Where no records follow, an empty frame is the witness ([`Log::mark`], [`Log::finish`]).
//!
//! Segments that a snapshot stands for are removed, so the log is as long as what was written since ([`Log::snapshot`]).
//! Threads of their own prepare the next segment and flush the last one, so that appending is never more than a write, also
//! from one segment to the next. While the next one is not ready, the log says so ([`Room`]), and what is left of the present
//! one is kept for what must be recorded.
//!
//! An error of a write or a flush ends the process: after it the contents of the disk are unknown, and a second flush may
//! say "done" about pages that the kernel has thrown away. Starting again goes through [`recovery`].

mod durability;
mod flush;
pub mod frame;
mod prepare;
pub mod recovery;
mod resume;
pub mod segment;
pub mod snapshot;

use crate::core::Room;
use crate::core::ledger::snapshot::{BYTES_PER_PAYMENT, Frozen, Replay};
pub use durability::Durability;
use flush::Flusher;
pub use flush::end_process;
use frame::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, Sequence};
use nix::sys::eventfd::EventFd;
use prepare::Preparer;
use recovery::{Recovered, RecoveryError};
use segment::{SEGMENT_BYTES, Segment};
use snapshot::Place;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

/// With less than this left, and the next segment not ready, nothing new is accepted: half a segment settles some 200,000 payments.
const ROOM_FOR_ACCEPTS_BYTES: u64 = SEGMENT_BYTES / 2;

/// With less than this left, and the next segment not ready, no attempt is begun. What the open ones (at most 800, of some 60 bytes
/// with their frame) still have to say takes less than a tenth of it.
const ROOM_FOR_INTENTS_BYTES: u64 = 1 << 20;

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What it holds cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The folder cannot be used.
    #[error("LOG_DIR {dir}: {source}")]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open log. The store has one, on its only thread.
#[derive(Debug)]
pub struct Log {
    durability: Durability,
    disk: Option<Disk>,
    sequence: Sequence,
}

#[derive(Debug)]
struct Disk {
    dir: PathBuf,
    segment: Segment,
    chain: u32,
    buffer: Vec<u8>,
    flusher: Arc<Flusher>,
    /// The last record that a frame calls durable.
    witnessed: Sequence,
    preparer: Preparer,
    snapshot_log_bytes: u64,
    /// Where the last snapshot stands, how long it is, and when the next one may be tried after one that failed, in bytes of
    /// growth.
    snapshot: Place,
    snapshot_bytes: u64,
    snapshot_retry_bytes: u64,
    snapshotting: Option<(Place, JoinHandle<io::Result<u64>>)>,
    snapshots: u64,
    _lock: nix::fcntl::Flock<File>,
}

impl Log {
    /// Opens the log in `dir`, reads what it holds into `fold`, and starts the flushing thread. It may grow by
    /// `snapshot_log_bytes`, and as much as the ledger takes, until a snapshot is due.
    ///
    /// # Errors
    /// [`OpenError`]; then the store must not serve.
    pub fn open(
        dir: &Path,
        durability: Durability,
        snapshot_log_bytes: u64,
        fold: &mut impl Replay,
    ) -> Result<(Self, Recovered), OpenError> {
        if durability == Durability::None {
            return Ok((Self { durability, disk: None, sequence: 0 }, Recovered::default()));
        }
        let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
        make_folder(dir).map_err(io_error)?;
        let lock = wire::socket::lock(&dir.join("log.lock")).map_err(io_error)?;
        let recovered = recovery::recover(dir, fold)?;
        let Place { sequence, chain, .. } = recovered.end;
        let (segment, spare) = match recovered.is_new {
            true => segment::create(dir, 0, &header(0, 1, 0).encode())
                .map(|file| (Segment::new(0, file, SEGMENT_HEADER_BYTES as u64), None)),
            false => resume::resume(dir, &recovered),
        }
        .map_err(io_error)?;
        if let Some(place) = recovered.snapshot {
            // A crash may have left what this snapshot stands for.
            snapshot::prune(dir, place).map_err(io_error)?;
        }
        let preparer = prepare(dir, &segment, spare).map_err(io_error)?;
        let mut disk = Disk {
            dir: dir.to_owned(),
            chain,
            buffer: Vec::new(),
            flusher: Flusher::start(durability, sequence, &segment.file).map_err(io_error)?,
            witnessed: recovered.witnessed,
            preparer,
            segment,
            snapshot_log_bytes,
            snapshot: recovered.snapshot.unwrap_or_default(),
            snapshot_bytes: recovered.snapshot_bytes,
            snapshot_retry_bytes: 0,
            snapshotting: None,
            snapshots: 0,
            _lock: lock,
        };
        disk.mark(sequence).map_err(io_error)?;
        Ok((Self { durability, disk: Some(disk), sequence }, recovered))
    }

    /// Appends the records of one turn with one write.
    ///
    /// # Errors
    /// What the system says: the caller must end the process without another answer (`disk_error_ends_the_store`).
    pub fn append(&mut self, records: &[u8], count: u32) -> io::Result<()> {
        let first = self.sequence + 1;
        self.sequence += u64::from(count);
        let Some(disk) = &mut self.disk else { return Ok(()) };
        // Behind each frame there is room for an empty one, its witness.
        if !disk.segment.has_room(frame::frame_bytes(records.len()) + FRAME_HEADER_BYTES) {
            disk.rotate(first)?;
        }
        disk.append(first, disk.flusher.durable(), count, records)?;
        disk.flusher.written(self.sequence);
        Ok(())
    }

    /// In mode `always`, appends an empty frame when all records are flushed and no frame says so yet: damage to the last group
    /// is then known from a torn tail even if the process is killed now. To be called when all that could be said was said. An
    /// error ends the process.
    pub fn mark(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if self.durability == Durability::Always
            && disk.witnessed < self.sequence
            && disk.flusher.durable() == self.sequence
        {
            disk.mark(self.sequence).unwrap_or_else(|error| end_process("append", &error));
        }
    }

    /// The last record that was appended.
    #[must_use]
    pub fn appended(&self) -> Sequence {
        self.sequence
    }

    /// The last record on which an answer may rest in this mode.
    #[must_use]
    pub fn settled(&self) -> Sequence {
        match (&self.disk, self.durability) {
            (Some(disk), Durability::Always) => disk.flusher.durable(),
            _ => self.sequence,
        }
    }

    /// The last record that is known to be flushed.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        self.disk.as_ref().map_or(0, |disk| disk.flusher.durable())
    }

    /// Becomes readable when [`Log::settled`] has grown by a flush.
    #[must_use]
    pub fn flushed(&self) -> Option<&EventFd> {
        self.disk.as_ref().map(|disk| &disk.flusher.event)
    }

    /// Waits until everything is flushed, and the frame that says so: for an orderly end. An error ends the process.
    pub fn finish(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        disk.flusher.finish();
        let sealed = disk.mark(self.sequence).and_then(|()| disk.segment.file.sync_data());
        sealed.unwrap_or_else(|error| end_process("flush", &error));
    }

    /// Looks after the thread that writes a snapshot. To be called now and then.
    pub fn tend(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.tend_snapshot(self.sequence);
        }
    }

    /// For what there is room.
    #[must_use]
    pub fn room(&self) -> Room {
        let Some(disk) = &self.disk else { return Room::Ample };
        match disk.segment.room_bytes() {
            room if room >= ROOM_FOR_ACCEPTS_BYTES => Room::Ample,
            _ if disk.preparer.is_ready() => Room::Ample,
            room if room >= ROOM_FOR_INTENTS_BYTES => Room::NoAccepts,
            _ => Room::NoIntents,
        }
    }

    /// True when the log has grown since the last snapshot by what it may, and by as much as that one is long (unless a purge
    /// has made the ledger shorter): so what is written for snapshots stays below what is written for records.
    #[must_use]
    pub fn is_snapshot_due(&self, payments: usize) -> bool {
        self.disk.as_ref().is_some_and(|disk| {
            let grown = disk.grown_bytes();
            disk.snapshotting.is_none()
                && grown >= disk.snapshot_retry_bytes
                && grown
                    >= disk.snapshot_log_bytes
                        + disk.snapshot_bytes.min((payments * BYTES_PER_PAYMENT) as u64)
        })
    }

    /// Has a snapshot written by a thread of its own, and everything removed that it stands for. `frozen` is the fold of all
    /// records that were appended.
    pub fn snapshot(&mut self, frozen: Frozen) {
        let Some(disk) = &mut self.disk else { return };
        let place = disk.place(self.sequence);
        let (dir, flusher) = (disk.dir.clone(), Arc::clone(&disk.flusher));
        let work = move || {
            // A start reads the log from this place on: what leads there has to be on the disk.
            flusher.wait_for(place.sequence);
            let bytes = snapshot::write(&dir, place, &frozen)?;
            snapshot::prune(&dir, place)?;
            Ok(bytes)
        };
        match thread::Builder::new().name("snapshot".to_owned()).spawn(work) {
            Ok(thread) => disk.snapshotting = Some((place, thread)),
            Err(error) => disk.put_snapshot_off(&error),
        }
    }

    /// Snapshots written since the start.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.snapshots)
    }

    /// Bytes that a start would have to read behind the last snapshot.
    #[must_use]
    pub fn grown_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::grown_bytes)
    }
}

impl Disk {
    /// Only writes: the thread that flushes has the old segment as well.
    fn rotate(&mut self, first_sequence: Sequence) -> io::Result<()> {
        let header = header(self.segment.number + 1, first_sequence, self.chain);
        self.segment = Segment::begin(self.preparer.take()?, &header)?;
        self.flusher.begin(&self.segment.file);
        Ok(())
    }

    fn append(&mut self, first: Sequence, durable: Sequence, count: u32, records: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        let number = self.segment.number;
        self.chain = frame::encode(&mut self.buffer, number, self.chain, first, durable, count, records);
        self.segment.append(&self.buffer)?;
        self.witnessed = durable;
        Ok(())
    }

    /// Says that everything up to `sequence`, the last record, is flushed, unless a frame says so already.
    fn mark(&mut self, sequence: Sequence) -> io::Result<()> {
        if self.witnessed == sequence || !self.segment.has_room(FRAME_HEADER_BYTES) {
            return Ok(());
        }
        self.append(sequence + 1, sequence, 0, &[])
    }

    fn place(&self, sequence: Sequence) -> Place {
        Place { segment: self.segment.number, offset: self.segment.position, sequence, chain: self.chain }
    }

    fn grown_bytes(&self) -> u64 {
        let segments = self.segment.number - self.snapshot.segment;
        (segments * SEGMENT_BYTES + self.segment.position).saturating_sub(self.snapshot.offset)
    }

    fn tend_snapshot(&mut self, sequence: Sequence) {
        let Some((place, thread)) = self.snapshotting.take_if(|(_, thread)| thread.is_finished()) else {
            return;
        };
        match thread.join() {
            Ok(Ok(bytes)) => {
                let records = sequence - place.sequence;
                tracing::info!(
                    "snapshot of {bytes} bytes at record {}, {records} came meanwhile",
                    place.sequence
                );
                (self.snapshot, self.snapshot_bytes, self.snapshot_retry_bytes) = (place, bytes, 0);
                self.snapshots += 1;
            }
            Ok(Err(error)) => self.put_snapshot_off(&error),
            Err(_) => unreachable!("a panic ends the process"),
        }
    }

    /// The log is whole without it.
    fn put_snapshot_off(&mut self, error: &io::Error) {
        tracing::warn!("cannot write a snapshot: {error}; the log goes on growing. Make room in LOG_DIR");
        self.snapshot_retry_bytes = self.grown_bytes() + SEGMENT_BYTES;
    }
}

/// Makes the log's folder if there is none. Its name is on the disk then, like those of the files in it.
///
/// # Errors
/// What the system says.
pub fn make_folder(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    segment::flush_folder(parent.unwrap_or(Path::new(".")))
}

/// Has the segment after `segment` prepared. Where little is left of that one, a start waits for it once, lest it refuses
/// payments that it could take in a moment.
fn prepare(dir: &Path, segment: &Segment, mut spare: Option<File>) -> io::Result<Preparer> {
    let number = segment.number + 1;
    if spare.is_none() && segment.room_bytes() < ROOM_FOR_ACCEPTS_BYTES {
        // The thread tries again, and says why it fails.
        spare = segment::create(dir, number, &[]).ok();
    }
    Preparer::start(dir.to_owned(), number, spare)
}

fn header(segment: u64, first_sequence: Sequence, chain: u32) -> SegmentHeader {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_ms = u64::try_from(created.as_millis()).unwrap_or(0);
    SegmentHeader { segment, first_sequence, chain, created_ms }
}
