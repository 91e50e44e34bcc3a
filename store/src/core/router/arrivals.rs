//! How payments come in, to notice when they stop: then the end may be near.
//!
//! A silence is a pause several times as long as the longest of late. Time in which this process itself did not run is not
//! part of it, because no payment could have been heard then.

/// A pause so many times as long as the longest of late is a silence.
const SILENCE_PAUSES: u64 = 3;

/// For how long the longest pause is remembered, and the longest that is: some rounds of users that come each second.
const PAUSE_MEMORY_MS: u64 = 5_000;

/// What one turn may add to a silence: a longer time between two turns is a pause of our own.
const SILENCE_STEP_MS: u64 = 20;

/// What is known about their coming in.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Payments ever accepted.
    pub(super) accepts: u64,
    /// When the last one came.
    pub(super) accept_us: u64,
    turn_us: u64,
    /// Since the last accept, less what this process was not running.
    silent_us: u64,
    /// The longest pause between two accepts, forgotten bit by bit.
    pause_us: u64,
    silence_us_min: u64,
}

impl Arrivals {
    /// None have come; `silence_us_min` is the shortest pause that is called a silence.
    pub(super) fn new(silence_us_min: u64, now_us: u64) -> Self {
        let pause_us = PAUSE_MEMORY_MS * 1000;
        Self { accepts: 0, accept_us: now_us, turn_us: now_us, silent_us: 0, pause_us, silence_us_min }
    }

    /// A turn in which the number of payments ever accepted has become `accepts`.
    pub(super) fn note(&mut self, accepts: u64, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.turn_us);
        self.turn_us = now_us;
        self.pause_us -= self.pause_us * passed_us.min(PAUSE_MEMORY_MS * 1000) / (PAUSE_MEMORY_MS * 1000);
        self.silent_us += passed_us.min(SILENCE_STEP_MS * 1000);
        if accepts != self.accepts {
            let pause_us = now_us.saturating_sub(self.accept_us).min(PAUSE_MEMORY_MS * 1000);
            self.pause_us = self.pause_us.max(pause_us);
            (self.accepts, self.accept_us, self.silent_us) = (accepts, now_us, 0);
        }
    }

    /// The pause that is a silence.
    pub(super) fn silence_us(&self) -> u64 {
        (self.pause_us * SILENCE_PAUSES).max(self.silence_us_min)
    }

    /// True in a silence.
    pub(super) fn have_stopped(&self) -> bool {
        self.silent_us >= self.silence_us()
    }
}
