//! Which backend gets a request, what is believed of it, and how much may be repeated. Pure: no socket, no clock.
//!
//! The backend with the fewest requests in flight gets the next one; among equals it goes round. One that did not take
//! a connection is passed over for [`DOWN_MS`], one that took a request or a check and did not answer until it answers
//! something. But never the last: trying it costs less than refusing a client.
//!
//! A backend that has said nothing for [`SILENCE_MS`] is checked (asked for its health, whatever it says counts): one
//! that gets no request, so that a stopped one is known before a client's request finds out, and one that is
//! suspect, so that it is known when it is back. The checks cost nothing while requests do the same.
//!
//! Repeating is paid for: each request earns a tenth of a repetition, up to [`REPEATS_MAX`]. When all goes wrong, the
//! backends that are left get at most a tenth more than what clients send.

/// How long a backend that refused a connection is passed over. A Unix socket refuses at once, so this only saves
/// system calls.
pub const DOWN_MS: u64 = 50;

/// After so long without an answer a backend is checked, and as often.
pub const SILENCE_MS: u64 = 1_000;

/// A suspect is checked so often.
pub const SUSPECT_CHECK_MS: u64 = 250;

/// Requests that may be repeated at once after a long quiet: what one backend may have in flight when it is killed. The
/// judge has 603 clients, and each asks one thing at a time.
pub const REPEATS_MAX: u32 = 1_000;

/// A repetition costs as much as so many requests earn.
const REQUESTS_PER_REPEAT: u32 = 10;

/// What the balancer knows of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendState {
    /// Requests that it has not answered yet.
    pub in_flight: usize,
    /// Until when it is passed over, in monotonic milliseconds.
    pub down_until_ms: u64,
    /// It took something and did not answer.
    pub is_suspect: bool,
    /// When it last said anything.
    pub heard_ms: u64,
    /// When it was last checked.
    pub checked_ms: u64,
}

impl BackendState {
    /// It has answered something.
    pub fn on_answer(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.is_suspect = false;
        self.down_until_ms = 0;
    }

    /// It took no connection.
    pub fn on_refusal(&mut self, now_ms: u64) {
        self.down_until_ms = now_ms + DOWN_MS;
    }

    /// It took something and did not answer in time.
    pub fn on_silence(&mut self) {
        self.is_suspect = true;
    }

    /// Whether it is to be checked now.
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        let since_check = now_ms.saturating_sub(self.checked_ms);
        let is_silent = now_ms.saturating_sub(self.heard_ms) >= SILENCE_MS;
        since_check >= SILENCE_MS && is_silent || since_check >= SUSPECT_CHECK_MS && self.is_suspect
    }
}

/// Picks one of `backends` that is not in `tried`. `turn` breaks ties and should grow by one each time.
#[must_use]
pub fn pick<B>(
    backends: &[B],
    load: impl Fn(&B) -> BackendState,
    tried: &[usize],
    turn: usize,
    now_ms: u64,
) -> Option<usize> {
    let count = backends.len();
    let least = |may_be_down: bool| {
        (0..count)
            .map(|step| (turn + step) % count)
            .filter(|at| !tried.contains(at))
            .map(|at| (at, load(&backends[at])))
            .filter(|(_, load)| may_be_down || load.down_until_ms <= now_ms && !load.is_suspect)
            .min_by_key(|(_, load)| load.in_flight)
    };
    least(false).or_else(|| least(true)).map(|(at, _)| at)
}

/// How much may be repeated: a bucket of tokens, counted in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    requests: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { requests: REPEATS_MAX * REQUESTS_PER_REPEAT }
    }
}

impl RetryBudget {
    /// A request has come.
    pub fn earn(&mut self) {
        self.requests = (self.requests + 1).min(REPEATS_MAX * REQUESTS_PER_REPEAT);
    }

    /// Pays for one repetition. False when there is nothing left.
    #[must_use]
    pub fn spend(&mut self) -> bool {
        let left = self.requests.checked_sub(REQUESTS_PER_REPEAT);
        self.requests = left.unwrap_or(self.requests);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: usize, down_until_ms: u64) -> BackendState {
        BackendState { in_flight, down_until_ms, ..BackendState::default() }
    }

    fn pick(loads: &[BackendState], tried: &[usize], turn: usize, now_ms: u64) -> Option<usize> {
        super::pick(loads, |load| *load, tried, turn, now_ms)
    }

    #[test]
    fn the_least_loaded_gets_it_and_equals_take_turns() {
        assert_eq!(pick(&[load(3, 0), load(1, 0)], &[], 0, 0), Some(1));
        let equals = [load(0, 0), load(0, 0)];
        assert_eq!([0, 1, 2].map(|turn| pick(&equals, &[], turn, 0)), [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn one_that_is_down_is_passed_over_but_never_the_last() {
        let loads = [load(0, 100), load(9, 0)];
        assert_eq!(pick(&loads, &[], 0, 99), Some(1));
        assert_eq!(pick(&loads, &[], 0, 100), Some(0));
        assert_eq!(pick(&loads, &[1], 0, 99), Some(0));
        assert_eq!(pick(&loads, &[0, 1], 0, 99), None);
        assert_eq!(pick(&[], &[], 0, 0), None);
    }

    #[test]
    fn a_suspect_is_passed_over_until_it_answers_but_never_the_last() {
        let mut suspect = load(0, 0);
        suspect.on_silence();
        assert_eq!(pick(&[suspect, load(9, 0)], &[], 0, 1_000_000), Some(1));
        assert_eq!(pick(&[suspect, suspect], &[], 0, 0), Some(0));
        suspect.on_answer(7);
        assert_eq!(pick(&[suspect, load(9, 0)], &[], 0, 8), Some(0));
    }

    #[test]
    fn a_backend_that_answers_is_not_checked() {
        let mut load = BackendState::default();
        load.on_answer(5_000);
        assert!(!load.is_due(5_000 + SILENCE_MS - 1) && load.is_due(5_000 + SILENCE_MS));
        load.checked_ms = 6_000;
        assert!(!load.is_due(6_999));
        load.on_silence();
        assert!(!load.is_due(6_000 + SUSPECT_CHECK_MS - 1) && load.is_due(6_000 + SUSPECT_CHECK_MS));
    }

    #[test]
    fn repetitions_are_a_burst_and_then_a_tenth() {
        let mut budget = RetryBudget::default();
        assert_eq!((0..5_000).filter(|_| budget.spend()).count(), REPEATS_MAX as usize);
        let mut repeated = 0;
        for _ in 0..5_000 {
            budget.earn();
            repeated += usize::from(budget.spend());
        }
        assert_eq!(repeated, 500);
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(budget, RetryBudget::default());
    }
}
