//! The thread that prepares the next segment, so that the thread that decides never waits for a file to be made.
//!
//! As soon as a segment is begun, this thread makes the file of the one after it: zeros on the disk, under its final name, with
//! the folder flushed. To begin a segment is then to take that file and to write into it. While a file cannot be made (a
//! full disk), [`Preparer::is_ready`] is false, and a try follows each [`RETRY`].

use super::segment;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two tries to prepare a segment on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// The thread, and the file that it has prepared.
#[derive(Debug)]
pub(super) struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The number of the segment that `file` is, or will be.
    number: u64,
    file: Option<File>,
    /// Why the last try failed.
    failed: Option<io::Error>,
    has_ended: bool,
}

impl Preparer {
    /// Starts the thread. `file` is segment `number` if it is prepared already.
    pub(super) fn start(dir: PathBuf, number: u64, file: Option<File>) -> io::Result<Self> {
        let state = Mutex::new(State { number, file, failed: None, has_ended: false });
        let shared = Arc::new(Shared { dir, state, changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("prepare".to_owned()).spawn(move || own.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// True when [`Preparer::take`] has a file at once.
    pub(super) fn is_ready(&self) -> bool {
        self.shared.lock().file.is_some()
    }

    /// The file of the next segment. Waits for it while it is being made: the store stops accepting, and then dispatching,
    /// long before that.
    ///
    /// # Errors
    /// Why it could not be made.
    pub(super) fn take(&self) -> io::Result<File> {
        let mut state = self.shared.lock();
        loop {
            if let Some(file) = state.file.take() {
                state.number += 1;
                self.shared.changed.notify_all();
                return Ok(file);
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            state =
                self.shared.changed.wait(state).expect("the preparing thread does not panic with the lock");
        }
    }
}

impl Drop for Preparer {
    /// When it returns, the thread makes no file any more.
    fn drop(&mut self) {
        self.shared.lock().has_ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn run(&self) {
        while let Some(number) = self.next_number() {
            let made = segment::create(&self.dir, number, &[]);
            let mut state = self.lock();
            match made {
                Ok(file) => (state.file, state.failed) = (Some(file), None),
                Err(error) => {
                    tracing::warn!(
                        "cannot prepare the next segment of the log: {error}; make room in LOG_DIR"
                    );
                    state.failed = Some(error);
                }
            }
            let must_pause = state.failed.is_some();
            self.changed.notify_all();
            if must_pause {
                let paused = self.changed.wait_timeout_while(state, RETRY, |state| !state.has_ended);
                drop(paused.expect("no thread panics with the lock"));
            }
        }
    }

    /// Waits until a segment is missing. `None` at the end.
    fn next_number(&self) -> Option<u64> {
        let has_nothing_to_do = |state: &mut State| state.file.is_some() && !state.has_ended;
        let state = self.changed.wait_while(self.lock(), has_nothing_to_do);
        let state = state.expect("no thread panics with the lock");
        (!state.has_ended).then_some(state.number)
    }
}
