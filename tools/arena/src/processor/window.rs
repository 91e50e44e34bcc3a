//! The rate limit of `GET /payments/service-health`: one call in each fixed window, from all clients together.
//!
//! ```text
//!   call 1   2 3 4
//!        |   | | '--> refused: two wait already
//!        v   v v
//!        [ window, 5 s ][ window, 5 s ][ window, 5 s ]
//!        1 answered      2 answered     3 answered
//! ```
//!
//! Windows follow each other without gap from the first call on; a call early in a window has the window all the same,
//! so two answers may lie closer together than a window is long. A call that hangs up while it waits gives up its
//! place and the windows that would have been its own.

use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// Calls that may wait for later windows (docs/contract.md).
const WAITING_MAX: usize = 2;

/// The shortest window, which keeps the arithmetic defined.
const LENGTH_MIN: Duration = Duration::from_millis(1);

/// The limit and those who wait for it.
#[derive(Debug)]
pub(super) struct HealthWindow {
    grid: Mutex<Grid>,
    /// Held by the call that takes the next window; the semaphore's queue is the order of the others.
    turn: Semaphore,
    queue: Semaphore,
}

impl HealthWindow {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            grid: Mutex::new(Grid { length: length.max(LENGTH_MIN), taken: None }),
            turn: Semaphore::new(1),
            queue: Semaphore::new(WAITING_MAX),
        }
    }

    /// Takes a window, waiting for it if need be; false when too many wait already.
    pub(super) async fn enter(&self) -> bool {
        if let Ok(_turn) = self.turn.try_acquire()
            && self.take().is_ok()
        {
            return true;
        }
        let Ok(_place) = self.queue.try_acquire() else {
            return false;
        };
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        while let Err(opens_at) = self.take() {
            sleep_until(opens_at).await;
        }
        true
    }

    fn take(&self) -> Result<(), Instant> {
        self.grid.lock().expect("no holder panics").take(Instant::now())
    }
}

/// Which window was taken last.
#[derive(Debug)]
struct Grid {
    length: Duration,
    /// The beginning of the window that was taken last.
    taken: Option<Instant>,
}

impl Grid {
    /// Takes the window that `now` lies in, or says when the next one opens.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let begins_at = match self.taken {
            None => now,
            Some(taken) => {
                let elapsed = now.saturating_duration_since(taken);
                if elapsed < self.length {
                    return Err(taken + self.length);
                }
                let into_window = elapsed.as_nanos() % self.length.as_nanos();
                now - Duration::from_nanos(
                    u64::try_from(into_window).expect("a process lives under 584 years"),
                )
            }
        };
        self.taken = Some(begins_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LENGTH: Duration = Duration::from_secs(5);

    #[test]
    fn windows_follow_each_other_from_the_first_call_on() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut grid = Grid { length: LENGTH, taken: None };
        assert_eq!(grid.take(at(0)), Ok(()));
        assert_eq!(grid.take(at(4_999)), Err(at(5_000)));
        assert_eq!(grid.take(at(9_900)), Ok(()));
        assert_eq!(grid.take(at(9_999)), Err(at(10_000)));
        assert_eq!(grid.take(at(10_000)), Ok(()));
        assert_eq!(grid.take(at(62_000)), Ok(()));
        assert_eq!(grid.take(at(64_999)), Err(at(65_000)));
    }

    /// Starts a call and lets it come as far as it can.
    async fn call(window: &Arc<HealthWindow>) -> tokio::task::JoinHandle<(bool, Instant)> {
        let window = Arc::clone(window);
        let call = tokio::spawn(async move { (window.enter().await, Instant::now()) });
        tokio::task::yield_now().await;
        call
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_wait_for_the_next_windows_and_one_more_is_refused() {
        let start = Instant::now();
        let window = Arc::new(HealthWindow::new(LENGTH));
        let calls = [call(&window).await, call(&window).await, call(&window).await, call(&window).await];
        let [first, second, third, fourth] = calls;
        assert_eq!(first.await.unwrap(), (true, start));
        assert_eq!(fourth.await.unwrap(), (false, start));
        assert_eq!(second.await.unwrap(), (true, start + LENGTH));
        assert_eq!(third.await.unwrap(), (true, start + 2 * LENGTH));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_leaves_its_place_and_its_window_to_others() {
        let start = Instant::now();
        let window = Arc::new(HealthWindow::new(LENGTH));
        assert!(window.enter().await);
        let (second, third) = (call(&window).await, call(&window).await);
        second.abort();
        assert!(second.await.is_err());
        let fourth = call(&window).await;
        assert_eq!(third.await.unwrap(), (true, start + LENGTH));
        assert_eq!(fourth.await.unwrap(), (true, start + 2 * LENGTH));
    }
}
