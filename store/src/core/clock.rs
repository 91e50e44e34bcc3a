//! The time that payments are issued under: the wall clock, except where it jumps.
//!
//! `requestedAt` never goes back (`time_never_goes_back`), so one wrong look at a clock that is an hour ahead would hold it there for
//! an hour. A jump of the wall clock against the monotonic one is therefore not followed before it has lasted for
//! [`CONFIRM_MS`]. Until then time goes on from where it was, at the pace of the monotonic clock.
//!
//! ```text
//!   FOLLOWS --jump of more than JUMP_MS--> DOUBTS --the same jump for CONFIRM_MS--> FOLLOWS, at the new time
//!      ^                                     |
//!      '------- the clock is back -----------'         another jump: doubts anew
//! ```
//!
//! What a suspended machine sees is a jump as well, and confirmed like one. Both sums of an audit use `requestedAt`, so they
//! agree in any of these states.

use super::event::Now;

/// A difference of so much between two looks is no jump but a clock that is being set right, in milliseconds.
const JUMP_MS: i64 = 1_000;

/// How long a jump must last, in milliseconds: longer than a clock that is set wrong by mistake is left so, and shorter than
/// anything waits for.
const CONFIRM_MS: u64 = 60_000;

/// What is to be told of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// It is so much ahead of where it should be, in milliseconds, or behind: not believed yet.
    Doubted(i64),
    /// The jump has lasted: it is followed.
    Followed(i64),
    /// It is back.
    Back,
}

/// What is believed of the wall clock.
#[derive(Debug)]
pub struct Clock {
    /// The wall clock less the monotonic one, in milliseconds.
    offset_ms: i64,
    /// Another offset, and since when the wall clock has had it, in monotonic microseconds.
    doubted: Option<(i64, u64)>,
}

fn offset_ms(now: Now) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(now.wall_ms) - signed(now.us / 1000)
}

impl Clock {
    /// A clock that is believed as it is.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { offset_ms: offset_ms(now), doubted: None }
    }

    /// Looks at the clocks; tells what has changed.
    pub fn look(&mut self, now: Now) -> Option<ClockChange> {
        let seen_ms = offset_ms(now);
        let jump_ms = seen_ms.saturating_sub(self.offset_ms);
        if jump_ms.abs() <= JUMP_MS {
            self.offset_ms = seen_ms;
            return self.doubted.take().map(|_| ClockChange::Back);
        }
        match self.doubted {
            Some((doubted_ms, since_us)) if seen_ms.abs_diff(doubted_ms) <= JUMP_MS.unsigned_abs() => {
                // It may be set right bit by bit meanwhile.
                self.doubted = Some((seen_ms, since_us));
                if now.us.saturating_sub(since_us) < CONFIRM_MS * 1000 {
                    return None;
                }
                (self.offset_ms, self.doubted) = (seen_ms, None);
                Some(ClockChange::Followed(jump_ms))
            }
            _ => {
                self.doubted = Some((seen_ms, now.us));
                Some(ClockChange::Doubted(jump_ms))
            }
        }
    }

    /// The time to issue, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self, now: Now) -> u64 {
        (now.us / 1000).saturating_add_signed(self.offset_ms)
    }

    /// How far the wall clock is from what is believed, in milliseconds; 0 while it is believed.
    #[must_use]
    pub fn doubted_ms(&self) -> i64 {
        self.doubted.map_or(0, |(doubted_ms, _)| doubted_ms.saturating_sub(self.offset_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_760_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    /// So long after the start, with a wall clock that is so much off.
    fn at(ms: u64, off_ms: i64) -> Now {
        Now { us: 5_000_000 + ms * 1000, wall_ms: (START_MS + ms).saturating_add_signed(off_ms) }
    }

    /// Looks each 250 ms; tells what was told, and by how much the issued time was off at each look.
    fn live(off_ms: impl Fn(u64) -> i64, until_ms: u64) -> (Vec<ClockChange>, Vec<i64>) {
        let mut clock = Clock::new(at(0, 0));
        let mut told = Vec::new();
        let mut off = Vec::new();
        for ms in (0..=until_ms).step_by(250) {
            let now = at(ms, off_ms(ms));
            told.extend(clock.look(now));
            off.push(i64::try_from(clock.time_ms(now)).unwrap() - i64::try_from(START_MS + ms).unwrap());
        }
        (told, off)
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_while_moves_nothing() {
        for wrong_ms in [HOUR_MS, -HOUR_MS, 1_001] {
            let wrong = |ms| if (10_000..60_000).contains(&ms) { wrong_ms } else { 0 };
            let (told, off) = live(wrong, 200_000);
            assert_eq!(told, [ClockChange::Doubted(wrong_ms), ClockChange::Back]);
            assert!(off.iter().all(|off| *off == 0), "{wrong_ms}");
        }
    }

    #[test]
    fn a_jump_that_lasts_is_followed_after_a_minute() {
        for jump_ms in [HOUR_MS, -HOUR_MS] {
            let (told, off) = live(|ms| if ms >= 10_000 { jump_ms } else { 0 }, 100_000);
            assert_eq!(told, [ClockChange::Doubted(jump_ms), ClockChange::Followed(jump_ms)]);
            let followed = off.iter().filter(|off| **off == jump_ms).count();
            assert_eq!(followed, (100_000 - 70_000) / 250 + 1);
            assert!(off.iter().all(|off| *off == 0 || *off == jump_ms));
        }
    }

    #[test]
    fn a_clock_that_jumps_about_is_not_followed() {
        let (told, off) = live(|ms| i64::try_from(ms / 20_000).unwrap() * HOUR_MS, 300_000);
        assert!(told.iter().all(|change| matches!(change, ClockChange::Doubted(_))) && !told.is_empty());
        assert!(off.iter().all(|off| *off == 0));
    }

    #[test]
    fn a_clock_that_is_set_right_bit_by_bit_is_followed_at_once() {
        let slewed = |ms: u64| i64::try_from(ms / 100).unwrap();
        let (told, off) = live(slewed, 100_000);
        assert_eq!(told, []);
        assert_eq!(off.last(), Some(&1_000));
    }
}
