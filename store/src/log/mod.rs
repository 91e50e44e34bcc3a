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
//! Segments that a snapshot stands for are removed, so the log is as long as what was written since ([`Log::snapshot`]).
//! The next segment is prepared as soon as one is begun; while the disk has no room for it, the log says so
//! ([`Room`]), and what is left of the present one is kept for what must be recorded.
//!
//! An error of a write or a flush ends the process: after it nobody knows what the disk holds, and a second flush may
//! say "done" about pages that the kernel has thrown away. Starting again goes through [`recovery`].

mod flush;
pub mod frame;
pub mod recovery;
pub mod segment;
pub mod snapshot;

use crate::core::Room;
use crate::core::ledger::snapshot::{BYTES_PER_PAYMENT, Fold, Frozen};
use flush::Flusher;
pub use flush::end_process;
use frame::{SegmentHeader, Sequence};
use nix::sys::eventfd::EventFd;
use recovery::{Recovered, RecoveryError};
use segment::{SEGMENT_BYTES, Segment};
use snapshot::Place;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// With less than this left, and no next segment, nothing new is accepted: half a segment settles some 200,000 payments.
const ROOM_FOR_ACCEPTS_BYTES: u64 = SEGMENT_BYTES / 2;

/// With less than this left, and no next segment, no attempt is begun. What the open ones (at most 800, of some 60 bytes
/// with their frame) still have to say takes less than a tenth of it.
const ROOM_FOR_INTENTS_BYTES: u64 = 1 << 20;

/// Between two tries to prepare a segment on a full disk.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// What must have happened to a record before anything that rests on it leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// It was written: survives the death of any process, not a power loss
    Process,
    /// It was flushed to the disk: survives a power loss too
    Always,
    /// Nothing, there is no log: loses everything. Only for measuring
    None,
}

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
    spare: Spare,
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

/// The file that the next segment will be.
#[derive(Debug)]
enum Spare {
    Preparing {
        thread: JoinHandle<io::Result<()>>,
        /// The last try failed: there is no room before this one has shown that there is.
        again: bool,
    },
    Ready,
    /// The disk is full, or worse.
    Failed {
        retry_at: Instant,
    },
}

impl Spare {
    /// For a store that starts. Where little is left of the present segment, nothing is promised before the next one is
    /// there.
    fn begin(dir: &Path, room_bytes: u64) -> Self {
        if segment::is_prepared(dir) {
            Self::Ready
        } else if room_bytes >= ROOM_FOR_ACCEPTS_BYTES {
            Self::prepare(dir, false)
        } else {
            segment::prepare(dir).map_or_else(|error| Self::failed(&error), |()| Self::Ready)
        }
    }

    fn prepare(dir: &Path, again: bool) -> Self {
        let dir = dir.to_owned();
        match thread::Builder::new().name("prepare".to_owned()).spawn(move || segment::prepare(&dir)) {
            Ok(thread) => Self::Preparing { thread, again },
            Err(error) => Self::failed(&error),
        }
    }

    /// True when nobody knows of room for the next segment.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Preparing { again: true, .. })
    }

    fn failed(error: &io::Error) -> Self {
        tracing::warn!("cannot prepare the next segment of the log: {error}; make room in LOG_DIR");
        Self::Failed { retry_at: Instant::now() + SPARE_RETRY }
    }

    fn tend(&mut self, dir: &Path) {
        let next = match std::mem::replace(self, Self::Ready) {
            Self::Preparing { thread, .. } if thread.is_finished() => match thread.join() {
                // A rotation may have been faster, and have taken it.
                Ok(Ok(())) if !segment::is_prepared(dir) => Self::prepare(dir, false),
                Ok(Ok(())) => Self::Ready,
                Ok(Err(error)) => Self::failed(&error),
                Err(_) => unreachable!("a panic ends the process"),
            },
            Self::Failed { retry_at } if Instant::now() >= retry_at => Self::prepare(dir, true),
            other => other,
        };
        *self = next;
    }
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
        fold: &mut impl Fold,
    ) -> Result<(Self, Recovered), OpenError> {
        if durability == Durability::None {
            return Ok((Self { durability, disk: None, sequence: 0 }, Recovered::default()));
        }
        let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io_error)?;
        let lock = wire::socket::lock(&dir.join("log.lock")).map_err(io_error)?;
        let recovered = recovery::recover(dir, fold)?;
        let Place { segment: number, offset, sequence, chain } = recovered.end;
        let segment = match recovered.is_new {
            true => Segment::begin(dir, &header(0, 1, 0)),
            false => Segment::resume(dir, number, offset, recovered.torn_bytes == 0),
        }
        .map_err(io_error)?;
        if let Some(place) = recovered.snapshot {
            // A crash may have left what this snapshot stands for.
            snapshot::prune(dir, place).map_err(io_error)?;
        }
        let disk = Disk {
            dir: dir.to_owned(),
            chain,
            buffer: Vec::new(),
            flusher: Flusher::start(durability, sequence, &segment.file).map_err(io_error)?,
            spare: Spare::begin(dir, segment.room_bytes()),
            segment,
            snapshot_log_bytes,
            snapshot: recovered.snapshot.unwrap_or_default(),
            snapshot_bytes: recovered.snapshot_bytes,
            snapshot_retry_bytes: 0,
            snapshotting: None,
            snapshots: 0,
            _lock: lock,
        };
        Ok((Self { durability, disk: Some(disk), sequence }, recovered))
    }

    /// Appends the records of one turn with one write.
    ///
    /// # Errors
    /// What the system says: the caller must end the process without another answer (invariant 24).
    pub fn append(&mut self, records: &[u8], count: u32) -> io::Result<()> {
        let first = self.sequence + 1;
        self.sequence += u64::from(count);
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if !disk.segment.has_room(frame::frame_bytes(records.len())) {
            disk.rotate(first)?;
        }
        disk.buffer.clear();
        let (number, durable) = (disk.segment.number, disk.flusher.durable());
        disk.chain = frame::encode(&mut disk.buffer, number, disk.chain, first, durable, count, records);
        disk.segment.append(&disk.buffer)?;
        disk.flusher.written(self.sequence);
        Ok(())
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

    /// Waits until everything is flushed: for an orderly end.
    pub fn finish(&self) {
        if let Some(disk) = &self.disk {
            disk.flusher.finish();
        }
    }

    /// Looks after the threads that prepare segments and write snapshots. To be called now and then.
    pub fn tend(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.spare.tend(&disk.dir);
            disk.tend_snapshot(self.sequence);
        }
    }

    /// For what there is room.
    #[must_use]
    pub fn room(&self) -> Room {
        let Some(disk) = &self.disk else { return Room::Ample };
        match disk.segment.room_bytes() {
            _ if !disk.spare.is_missing() => Room::Ample,
            room if room >= ROOM_FOR_ACCEPTS_BYTES => Room::Ample,
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
        let dir = disk.dir.clone();
        let work = move || {
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
    fn rotate(&mut self, first_sequence: Sequence) -> io::Result<()> {
        // A segment that another one follows is whole on disk: only the last one may have a torn tail.
        self.segment.file.sync_data()?;
        self.spare.tend(&self.dir);
        let number = self.segment.number + 1;
        self.segment = Segment::begin(&self.dir, &header(number, first_sequence, self.chain))?;
        self.flusher.begin(&self.segment.file);
        if matches!(self.spare, Spare::Ready) {
            self.spare = Spare::prepare(&self.dir, false);
        }
        Ok(())
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

fn header(segment: u64, first_sequence: Sequence, chain: u32) -> SegmentHeader {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_ms = u64::try_from(created.as_millis()).unwrap_or(0);
    SegmentHeader { segment, first_sequence, chain, created_ms }
}
