//! Waits that end when they have lasted too long, without a timer for each.
//!
//! All of them are looked at together now and then ([`Deadlines::sweep`]), so a wait lasts up to one such interval longer
//! than it may. Nearly all end long before that, and cost a place in a list.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use tokio::time::Instant;

/// The waits of a process.
#[derive(Debug, Default)]
pub struct Deadlines {
    waits: RefCell<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    places: Vec<Option<Wait>>,
    /// Places without a wait.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Wait {
    until: Instant,
    waker: Waker,
}

impl Deadlines {
    /// Waits for `answer`, and gives it up when a sweep finds that it is later than `until`: `None`.
    pub async fn wait<T>(&self, until: Instant, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        let mut place: Option<Place<'_>> = None;
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            match &place {
                None => place = Some(self.enter(Wait { until, waker: cx.waker().clone() })),
                Some(place) => match &mut self.waits.borrow_mut().places[place.at] {
                    None => return Poll::Ready(None),
                    Some(wait) => wait.waker.clone_from(cx.waker()),
                },
            }
            Poll::Pending
        })
        .await
    }

    /// Ends the waits that are over at `now`. To be called a few times a second.
    pub fn sweep(&self, now: Instant) {
        for place in &mut self.waits.borrow_mut().places {
            // What is woken is polled later, not in here.
            if let Some(wait) = place.take_if(|wait| wait.until <= now) {
                wait.waker.wake();
            }
        }
    }

    fn enter(&self, wait: Wait) -> Place<'_> {
        let waits = &mut *self.waits.borrow_mut();
        let at = waits.free.pop().unwrap_or_else(|| {
            waits.places.push(None);
            waits.places.len() - 1
        });
        waits.places[at] = Some(wait);
        Place { timeout: self, at }
    }
}

/// The place of a wait in the list, until it is dropped. A sweep has been there when it is empty.
struct Place<'a> {
    timeout: &'a Deadlines,
    at: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waits = &mut *self.timeout.waits.borrow_mut();
        waits.places[self.at] = None;
        waits.free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::task::{spawn_local, yield_now};

    #[tokio::test(flavor = "local")]
    async fn a_known_entry_needs_no_place_and_a_place_is_used_again() {
        let timeout = Deadlines::default();
        assert_eq!(timeout.wait(Instant::now(), ready(1)).await, Some(1));
        assert!(timeout.waits.borrow().places.is_empty());
        for _ in 0..3 {
            // Pending once.
            assert_eq!(timeout.wait(Instant::now(), yield_now()).await, Some(()));
        }
        assert_eq!((timeout.waits.borrow().places.len(), timeout.waits.borrow().free.len()), (1, 1));
    }

    #[tokio::test(flavor = "local")]
    async fn only_a_wait_that_is_over_is_given_up() {
        let timeout = Rc::new(Deadlines::default());
        let now = Instant::now();
        let (answer, answered) = oneshot::channel();
        let wait = |until, answer| {
            let timeout = Rc::clone(&timeout);
            spawn_local(async move { timeout.wait(until, answer).await })
        };
        let short = spawn_local({
            let timeout = Rc::clone(&timeout);
            async move { timeout.wait(now + Duration::from_secs(3), pending::<()>()).await }
        });
        let long = wait(now + Duration::from_secs(4), answered);
        yield_now().await;
        timeout.sweep(now + Duration::from_millis(2_999));
        yield_now().await;
        assert!(!short.is_finished() && !long.is_finished());
        timeout.sweep(now + Duration::from_secs(3));
        assert_eq!(short.await.unwrap(), None);
        assert!(!long.is_finished());
        answer.send(7).unwrap();
        assert_eq!(long.await.unwrap(), Some(Ok(7)));
        assert_eq!(timeout.waits.borrow().free.len(), 2);
    }

    #[tokio::test(flavor = "local")]
    async fn a_wait_that_is_dropped_leaves_its_place() {
        let timeout = Rc::new(Deadlines::default());
        let waits = Rc::clone(&timeout);
        let wait = spawn_local(async move { waits.wait(Instant::now(), pending::<()>()).await });
        yield_now().await;
        wait.abort();
        assert!(wait.await.unwrap_err().is_cancelled());
        timeout.sweep(Instant::now());
        assert_eq!(timeout.waits.borrow().free.len(), 1);
    }
}
