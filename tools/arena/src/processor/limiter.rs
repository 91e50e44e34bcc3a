//! The limiter that stands before payments and look-ups: so many calls run, so many wait in order, the rest get 429.
//!
//! A call that is dropped while it waits leaves the queue, as a caller that hangs up does at the real one. Two
//! semaphores are the whole of it: tokio's is fair, so a place that becomes free goes to the call that waited longest
//! and none that arrives meanwhile can take it.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of running calls and a bounded queue before them.
#[derive(Debug)]
pub(super) struct Limiter {
    running: Arc<Semaphore>,
    running_max: usize,
    queue: Semaphore,
    waiting_max: usize,
}

impl Limiter {
    pub(super) fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running_max)),
            running_max,
            queue: Semaphore::new(waiting_max),
            waiting_max,
        }
    }

    /// The right to run until it is dropped, waited for if need be; `None` when the queue is full too.
    ///
    /// The place in the queue is taken when the future is first polled.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Some(permit);
        }
        let _place = self.queue.try_acquire().ok()?;
        Some(Arc::clone(&self.running).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Calls that run now.
    pub(super) fn running(&self) -> usize {
        self.running_max - self.running.available_permits()
    }

    /// Calls that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting_max - self.queue.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn waiting_calls_run_in_the_order_of_arrival_and_the_rest_is_refused() {
        let limiter = Arc::new(Limiter::new(1, 3));
        let running = limiter.enter().await.unwrap();
        let (sender, mut entered) = mpsc::unbounded_channel();
        let mut waiters = Vec::new();
        for number in 0..3 {
            let (limiter, sender) = (Arc::clone(&limiter), sender.clone());
            waiters.push(tokio::spawn(async move {
                let permit = limiter.enter().await.unwrap();
                sender.send((number, permit)).unwrap();
            }));
            tokio::task::yield_now().await;
        }
        assert_eq!((limiter.running(), limiter.waiting()), (1, 3));
        assert!(limiter.enter().await.is_none());

        waiters[1].abort();
        assert!((&mut waiters[1]).await.is_err());
        assert_eq!((limiter.running(), limiter.waiting()), (1, 2));

        drop(running);
        let (first, permit) = entered.recv().await.unwrap();
        assert_eq!(first, 0);
        drop(permit);
        let (second, permit) = entered.recv().await.unwrap();
        assert_eq!(second, 2);
        drop(permit);
        assert_eq!((limiter.running(), limiter.waiting()), (0, 0));
    }
}
