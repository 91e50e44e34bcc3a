//! Pauses that are not the runtime's.
//!
//! As long as one of tokio's timers is set, every wait of the runtime has a timeout, which the kernel sets and clears, and
//! after every wait the runtime looks for timers that are due. A request that is forwarded is two waits, so what a process
//! does now and then would cost each of them something. A timer that is a descriptor costs nothing until it is due.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// One pause at a time.
#[derive(Debug)]
pub struct Timer {
    /// `None` when there was no descriptor left: then the pauses are the runtime's after all.
    descriptor: Option<AsyncFd<Descriptor>>,
}

impl Timer {
    /// A timer inside a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self { descriptor: descriptor().ok() }
    }

    /// Returns after so long, and not before.
    pub async fn pause(&self, length: Duration) {
        let slept = match &self.descriptor {
            Some(descriptor) => wait(descriptor, length).await.is_ok(),
            None => false,
        };
        if !slept {
            sleep(length).await;
        }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

fn descriptor() -> io::Result<AsyncFd<Descriptor>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    // SAFETY: a `Descriptor` owns the one descriptor that it tells of, and keeps it until it is dropped.
    unsafe { AsyncFd::register_with_interest(Descriptor(timer), Interest::READABLE) }
        .map_err(|error| io::Error::other(error.to_string()))
}

async fn wait(descriptor: &AsyncFd<Descriptor>, length: Duration) -> io::Result<()> {
    // Zero would mean never.
    let length = TimeSpec::from_duration(length.max(Duration::from_nanos(1)));
    // Setting the timer takes back an expiry that was not awaited.
    descriptor.get_ref().0.set(Expiration::OneShot(length), TimerSetTimeFlags::empty())?;
    loop {
        let mut ready = descriptor.readable().await?;
        if let Ok(expired) = ready.try_io(|descriptor| Ok(descriptor.get_ref().0.wait()?)) {
            return expired;
        }
    }
}

/// What the runtime can watch.
#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::time::timeout;

    #[tokio::test(flavor = "local")]
    async fn a_pause_is_as_long_as_was_asked_for_with_a_descriptor_and_without() {
        for timer in [Timer::new(), Timer { descriptor: None }] {
            for length in [Duration::ZERO, Duration::from_millis(20)] {
                let begun = Instant::now();
                timer.pause(length).await;
                assert!(begun.elapsed() >= length, "{timer:?}");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_pause_that_was_given_up_does_not_shorten_the_next_one() {
        let timer = Timer::new();
        assert!(timeout(Duration::ZERO, timer.pause(Duration::from_millis(5))).await.is_err());
        // It has expired, and the expiry was not read.
        std::thread::sleep(Duration::from_millis(10));
        let begun = Instant::now();
        timer.pause(Duration::from_millis(30)).await;
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }
}
