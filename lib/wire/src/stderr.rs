//! Standard error that can neither end nor block a process.
//!
//! A line goes into a queue, and a thread of its own writes it to descriptor 2. A disk that is full and a reader that is
//! gone cost the line; a reader that does not read costs what the queue cannot hold. Both are counted ([`dropped`]).
//! Nothing else may write to standard error: `eprintln!` panics where a write fails, and every macro of that family
//! waits for the lock of `std::io::stderr` while another thread is blocked in a write.
//!
//! `tracing-appender` does the same with a channel and a date library more, but its guard reports a full queue with
//! `println!` when the process ends, which can block or panic itself.
//!
//! Bounds: [`LINES_MAX`] lines of [`LINE_BYTES_MAX`] bytes wait, 4 MiB at most and nothing when all is well. A longer line
//! is cut. The end of a process waits [`FLUSH_TIMEOUT`] for what is still in the queue.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for standard error. Further ones are dropped.
pub const LINES_MAX: usize = 1_024;

/// The longest line, in bytes. More is cut off.
pub const LINE_BYTES_MAX: usize = 4_096;

/// How long the end of a process waits for lines that are not written yet.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two looks at the queue while it is waited for.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

static QUEUE: LazyLock<Queue> = LazyLock::new(|| Queue::start(io::stderr()));

/// Writes `text` as a line of its own, or drops it.
pub fn say(text: &str) {
    QUEUE.put([text.as_bytes(), b"\n"].concat());
}

/// Lines of this process that were not written.
#[must_use]
pub fn dropped() -> u64 {
    QUEUE.counts.dropped.load(Relaxed)
}

/// Waits until everything said so far is written or dropped, for at most [`FLUSH_TIMEOUT`].
pub fn flush() {
    QUEUE.flush(FLUSH_TIMEOUT);
}

/// A writer for [`tracing_subscriber`]: what one call of `write` is given is one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines put into the queue.
    queued: AtomicU64,
    /// Lines taken out of it, and written if that was possible.
    done: AtomicU64,
    dropped: AtomicU64,
}

/// The queue of one descriptor.
#[derive(Debug)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Queue {
    /// Starts the thread that writes to `fd`. Without a thread, every line is dropped.
    fn start(fd: impl AsFd + Send + 'static) -> Self {
        let (lines, queued) = sync_channel(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        // The thread inherits the mask of its maker: a signal must never choose it, because its default action would end
        // the process, and the store reads its signals from a descriptor.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
        // The thread ends with the process, at the latest. When there is none, the receiver is gone and every line counts
        // as dropped.
        let _ = thread::Builder::new().name("stderr".to_owned()).spawn(move || write(&queued, &fd, &theirs));
        if let Ok(mask) = mask {
            let _ = mask.thread_set_mask();
        }
        Self { lines, counts }
    }

    fn put(&self, mut line: Vec<u8>) {
        if line.len() > LINE_BYTES_MAX {
            line.truncate(LINE_BYTES_MAX - 1);
            line.push(b'\n');
        }
        // Counted first, so that a flush never sees more lines done than queued.
        self.counts.queued.fetch_add(1, Relaxed);
        if self.lines.try_send(line).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
            self.counts.done.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.counts.done.load(Relaxed) < self.counts.queued.load(Relaxed) && Instant::now() < deadline {
            thread::sleep(FLUSH_PAUSE);
        }
    }
}

/// Writes line after line until the queue is gone.
fn write(lines: &Receiver<Vec<u8>>, fd: &impl AsFd, counts: &Counts) {
    for line in lines {
        if write_whole(fd, &line).is_err() {
            counts.dropped.fetch_add(1, Relaxed);
        }
        counts.done.fetch_add(1, Relaxed);
    }
}

fn write_whole(fd: &impl AsFd, mut rest: &[u8]) -> nix::Result<()> {
    while !rest.is_empty() {
        match unistd::write(fd, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => (),
            // Another process that shares the pipe may have set it so.
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, pipe};

    /// Longer than anything here takes on a busy machine.
    const LONG: Duration = Duration::from_secs(120);

    fn put(queue: &Queue, text: &str) {
        queue.put(text.as_bytes().to_vec());
    }

    #[test]
    fn lines_are_written_in_order() {
        let (mut reader, writer) = pipe().unwrap();
        let queue = Queue::start(writer);
        ["a\n", "b\n", "c\n"].iter().for_each(|line| put(&queue, line));
        let mut read = [0; 6];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"a\nb\nc\n");
        queue.flush(LONG);
        assert_eq!(queue.counts.dropped.load(Relaxed), 0);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_one_is_tried() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (reader, closed) = pipe().unwrap();
        drop(reader);
        for queue in [Queue::start(full), Queue::start(closed)] {
            put(&queue, "lost\n");
            put(&queue, "lost too\n");
            queue.flush(LONG);
            assert_eq!(queue.counts.dropped.load(Relaxed), 2);
        }
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_never_blocks() {
        let (reader, writer) = pipe().unwrap();
        let queue = Queue::start(writer);
        let line = "x".repeat(LINE_BYTES_MAX);
        // A pipe holds 64 KiB, so the rest waits for ever.
        let lines = 4 * LINES_MAX as u64;
        (0..lines).for_each(|_| put(&queue, &line));
        queue.flush(Duration::ZERO);
        let dropped = queue.counts.dropped.load(Relaxed);
        assert!(dropped >= lines - LINES_MAX as u64 - 32, "{dropped}");
        // With the reader gone, what is still queued is dropped, and nothing waits any more.
        drop(reader);
        queue.flush(LONG);
        assert_eq!(queue.counts.done.load(Relaxed), lines);
    }

    #[test]
    fn a_long_line_is_cut_and_stays_a_line() {
        let (mut reader, writer) = pipe().unwrap();
        let queue = Queue::start(writer);
        put(&queue, &"y".repeat(3 * LINE_BYTES_MAX));
        put(&queue, "end\n");
        let mut read = vec![0; LINE_BYTES_MAX + 4];
        reader.read_exact(&mut read).unwrap();
        assert!(read.ends_with(b"y\nend\n"));
    }

    #[test]
    fn the_thread_takes_no_signal() {
        let queue = Queue::start(File::options().write(true).open("/dev/null").unwrap());
        put(&queue, "x\n");
        queue.flush(LONG);
        let blocked = std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
            let task = task.ok()?.path();
            let is_ours = std::fs::read_to_string(task.join("comm")).ok()?.trim() == "stderr";
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?.trim().to_owned();
            is_ours.then(|| u64::from_str_radix(&mask, 16).unwrap())
        });
        let terminate = 1 << (nix::sys::signal::Signal::SIGTERM as u64 - 1);
        assert_eq!(blocked.unwrap() & terminate, terminate);
    }
}
