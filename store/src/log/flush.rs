//! The thread that flushes the log: it has one job, so that nothing but the disk itself delays it.
//!
//! In mode `always` it flushes as soon as something was written, and what is written meanwhile shares the next flush; in
//! mode `process` it flushes once in [`FLUSH_INTERVAL`]. An error ends the process ([`end_process`]).

use super::durability::Durability;
use super::frame::Sequence;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// In mode `process`, how long a record may be known to the page cache only.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// What the flushing thread and the store share.
#[derive(Debug)]
pub(super) struct Flusher {
    state: Mutex<FlushState>,
    wake: Condvar,
    /// Counts flushes, for an epoll.
    pub(super) event: EventFd,
}

#[derive(Debug)]
struct FlushState {
    written: Sequence,
    durable: Sequence,
    /// Segments with unflushed writes, the present one last.
    files: Vec<Arc<File>>,
    finishing: bool,
}

impl Flusher {
    /// Starts the thread, behind what is flushed already.
    pub(super) fn start(
        durability: Durability,
        sequence: Sequence,
        file: &Arc<File>,
    ) -> io::Result<Arc<Self>> {
        let state = FlushState {
            written: sequence,
            // What was there is flushed before a start goes on.
            durable: sequence,
            files: vec![Arc::clone(file)],
            finishing: false,
        };
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let flusher = Arc::new(Self { state: Mutex::new(state), wake: Condvar::new(), event });
        let shared = Arc::clone(&flusher);
        thread::Builder::new().name("flush".to_owned()).spawn(move || shared.run(durability))?;
        Ok(flusher)
    }

    /// The last record that is known to be flushed.
    pub(super) fn durable(&self) -> Sequence {
        self.lock().durable
    }

    /// From now on this file is written.
    pub(super) fn begin(&self, file: &Arc<File>) {
        self.lock().files.push(Arc::clone(file));
    }

    /// Waits until this record is flushed.
    pub(super) fn wait_for(&self, sequence: Sequence) {
        let is_missing = |state: &mut FlushState| state.durable < sequence;
        drop(self.wake.wait_while(self.lock(), is_missing).expect("no thread panics with the lock"));
    }

    fn lock(&self) -> MutexGuard<'_, FlushState> {
        self.state.lock().expect("the flushing thread does not panic with the lock")
    }

    /// Records up to this one were written.
    pub(super) fn written(&self, sequence: Sequence) {
        let mut state = self.lock();
        let was_idle = state.written == state.durable;
        state.written = sequence;
        drop(state);
        // While the thread flushes or sleeps it will see the new number by itself.
        if was_idle {
            self.wake.notify_all();
        }
    }

    /// Waits until everything is flushed.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finishing = true;
        self.wake.notify_all();
        while state.durable < state.written {
            state = self.wake.wait(state).expect("the flushing thread does not panic with the lock");
        }
    }

    fn run(&self, durability: Durability) {
        loop {
            let mut state = self.lock();
            while state.written == state.durable {
                state = self.wake.wait(state).expect("the store does not panic with the lock");
            }
            if durability == Durability::Process && !state.finishing {
                // The pace of the flushes, not a wait for an event: an early wake-up finds it asleep again.
                let (slept, _) = self
                    .wake
                    .wait_timeout_while(state, FLUSH_INTERVAL, |state| !state.finishing)
                    .expect("the store does not panic with the lock");
                state = slept;
            }
            let (target, files) = (state.written, state.files.clone());
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
            drop(state);
            self.wake.notify_all();
            if durability == Durability::Always {
                // A full counter means that the store has not looked yet: it will.
                let _ = self.event.write(1);
            }
        }
    }
}

/// `disk_error_ends_the_store`: no further answer, no second try.
pub fn end_process(what: &str, error: &io::Error) -> ! {
    tracing::error!(
        "the log failed to {what}: {error}; the store ends, because what the disk holds is unknown now"
    );
    wire::stderr::flush();
    std::process::exit(74)
}
