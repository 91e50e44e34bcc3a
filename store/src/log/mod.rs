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
//! An error of a write or a flush ends the process: after it nobody knows what the disk holds, and a second flush may
//! say "done" about pages that the kernel has thrown away. Starting again goes through [`recovery`].

pub mod frame;
pub mod recovery;
pub mod segment;

use frame::{SegmentHeader, Sequence};
use nix::sys::eventfd::{EfdFlags, EventFd};
use recovery::{Recovered, RecoveryError};
use segment::Segment;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// In mode `process`, how long a record may be known to the page cache only.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

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
    _lock: nix::fcntl::Flock<File>,
}

impl Log {
    /// Opens the log in `dir`, replays what it holds, and starts the flushing thread.
    ///
    /// # Errors
    /// [`OpenError`]; then the store must not serve.
    pub fn open(
        dir: &Path,
        durability: Durability,
        replay: impl FnMut(&crate::core::record::Record),
    ) -> Result<(Self, Recovered), OpenError> {
        if durability == Durability::None {
            return Ok((Self { durability, disk: None, sequence: 0 }, Recovered::default()));
        }
        let io_error = |source| OpenError::Io { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io_error)?;
        let lock = wire::socket::lock(&dir.join("log.lock")).map_err(io_error)?;
        let recovered = recovery::recover(dir, replay)?;
        let segment = match recovered.end {
            Some((number, end)) => Segment::resume(dir, number, end),
            None => Segment::begin(dir, &header(0, 1, 0)),
        }
        .map_err(io_error)?;
        let flusher = Flusher::start(dir, durability, recovered.sequence, &segment.file).map_err(io_error)?;
        let dir = dir.to_owned();
        let disk = Disk { dir, segment, chain: recovered.chain, buffer: Vec::new(), flusher, _lock: lock };
        Ok((Self { durability, disk: Some(disk), sequence: recovered.sequence }, recovered))
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
        let durable = disk.flusher.lock().durable;
        let number = disk.segment.number;
        disk.chain = frame::encode(&mut disk.buffer, number, disk.chain, first, durable, count, records);
        disk.segment.append(&disk.buffer)?;
        disk.flusher.written(self.sequence, disk.segment.is_half_full());
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
            (Some(disk), Durability::Always) => disk.flusher.lock().durable,
            _ => self.sequence,
        }
    }

    /// The last record that is known to be flushed.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        self.disk.as_ref().map_or(0, |disk| disk.flusher.lock().durable)
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
}

impl Disk {
    fn rotate(&mut self, first_sequence: Sequence) -> io::Result<()> {
        // A segment that another one follows is whole on disk: only the last one may have a torn tail.
        self.segment.file.sync_data()?;
        let number = self.segment.number + 1;
        self.segment = Segment::begin(&self.dir, &header(number, first_sequence, self.chain))?;
        self.flusher.lock().files.push(Arc::clone(&self.segment.file));
        Ok(())
    }
}

fn header(segment: u64, first_sequence: Sequence, chain: u32) -> SegmentHeader {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_ms = u64::try_from(created.as_millis()).unwrap_or(0);
    SegmentHeader { segment, first_sequence, chain, created_ms }
}

/// What the flushing thread and the store share.
#[derive(Debug)]
struct Flusher {
    state: Mutex<FlushState>,
    wake: Condvar,
    event: EventFd,
}

#[derive(Debug)]
struct FlushState {
    written: Sequence,
    durable: Sequence,
    /// Segments with unflushed writes, the present one last.
    files: Vec<Arc<File>>,
    prepare_next: bool,
    finishing: bool,
}

impl Flusher {
    fn start(
        dir: &Path,
        durability: Durability,
        sequence: Sequence,
        file: &Arc<File>,
    ) -> io::Result<Arc<Self>> {
        let state = FlushState {
            written: sequence,
            // Segment::resume and Segment::begin flushed what was there.
            durable: sequence,
            files: vec![Arc::clone(file)],
            prepare_next: false,
            finishing: false,
        };
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let flusher = Arc::new(Self { state: Mutex::new(state), wake: Condvar::new(), event });
        let (shared, dir) = (Arc::clone(&flusher), dir.to_owned());
        thread::Builder::new().name("flush".to_owned()).spawn(move || shared.run(&dir, durability))?;
        Ok(flusher)
    }

    fn lock(&self) -> MutexGuard<'_, FlushState> {
        self.state.lock().expect("the flushing thread does not panic with the lock")
    }

    fn written(&self, sequence: Sequence, prepare_next: bool) {
        let mut state = self.lock();
        let was_idle = state.written == state.durable;
        state.written = sequence;
        state.prepare_next |= prepare_next;
        drop(state);
        // While the thread flushes or sleeps it will see the new number by itself.
        if was_idle {
            self.wake.notify_all();
        }
    }

    fn finish(&self) {
        let mut state = self.lock();
        state.finishing = true;
        self.wake.notify_all();
        while state.durable < state.written {
            state = self.wake.wait(state).expect("the flushing thread does not panic with the lock");
        }
    }

    fn run(&self, dir: &Path, durability: Durability) {
        loop {
            let mut state = self.lock();
            while state.written == state.durable {
                state = self.wake.wait(state).expect("the store does not panic with the lock");
            }
            if durability == Durability::Process && !state.finishing {
                // The pace of the flushes, not a wait for an event: whoever wakes it early finds it asleep again.
                let (slept, _) = self
                    .wake
                    .wait_timeout_while(state, FLUSH_INTERVAL, |state| !state.finishing)
                    .expect("the store does not panic with the lock");
                state = slept;
            }
            let (target, files, prepare_next) = (state.written, state.files.clone(), state.prepare_next);
            drop(state);
            for file in &files {
                if let Err(error) = file.sync_data() {
                    end_process("flush", &error);
                }
            }
            let mut state = self.lock();
            state.durable = target;
            // What was flushed before the present segment began never changes again.
            let done = files.len().saturating_sub(1);
            state.files.drain(..done);
            state.prepare_next = false;
            drop(state);
            self.wake.notify_all();
            if durability == Durability::Always {
                // A full counter means that the store has not looked yet: it will.
                let _ = self.event.write(1);
            }
            if prepare_next && let Err(error) = segment::prepare(dir) {
                // Not yet needed: when it is, the store tries again and ends if it must.
                tracing::warn!("cannot prepare the next segment of the log: {error}");
            }
        }
    }
}

/// Invariant 24: no further answer, no second try.
pub fn end_process(what: &str, error: &io::Error) -> ! {
    tracing::error!(
        "the log failed to {what}: {error}; the store ends, because nobody knows what the disk holds now"
    );
    std::process::exit(74)
}
