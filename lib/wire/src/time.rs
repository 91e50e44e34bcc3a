//! Points in time as the outside world writes them.
//!
//! [`Timestamp`] counts microseconds since 1970 in UTC, the precision that a processor stores. What the store issues
//! as `requestedAt` is whole milliseconds, so that it equals what the processor keeps. [`Bounds`] is a window of the
//! summary with both ends included; a bound finer than a microsecond is rounded inwards, which no stored time can tell
//! from the bound itself.

use jiff::civil;
use jiff::fmt::rfc2822;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The longest text of a timestamp that is read, in bytes: `2025-07-15T12:34:56.123456789+03:00` and room to spare.
pub const TIMESTAMP_TEXT_BYTES_MAX: usize = 64;

/// The host's monotonic clock, in microseconds: the same in every process and container of a host, and it never goes back.
///
/// # Panics
/// Never: Linux has this clock.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    u64::try_from(now.num_microseconds()).unwrap_or(0)
}

impl Timestamp {
    /// A point in time given in milliseconds since 1970. Saturates beyond the year 294,000.
    #[must_use]
    pub fn from_ms(ms: u64) -> Self {
        Self(i64::try_from(ms).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
    }

    /// Whole milliseconds since 1970, cut towards the past; times before 1970 are 0.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// The present, by the machine's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// The same as HTTP writes it, to the second: `Sat, 21 Nov 2026 12:34:56 GMT` (RFC 9110 section 5.6.7). `None` beyond
    /// the year 9999.
    #[must_use]
    pub fn as_http_date(self) -> Option<[u8; 29]> {
        let time = jiff::Timestamp::from_microsecond(self.0).ok()?;
        let text = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()?;
        text.into_bytes().try_into().ok()
    }

    /// Reads `date T time [.fraction] [Z | offset]` (RFC 3339, and without an offset as UTC), cut to microseconds.
    /// `None` for anything else, a date that does not exist included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (floor, _) = parse_nanoseconds(text)?.floor_and_rest();
        Some(floor)
    }
}

impl fmt::Display for Timestamp {
    /// `2025-07-15T12:34:56.123Z`: three decimals, six where the time is not whole milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 % 1000 == 0 { 3 } else { 6 };
        match EPOCH.checked_add(jiff::SignedDuration::from_micros(self.0)) {
            Ok(time) => write!(f, "{time:.decimals$}Z"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// 1970-01-01T00:00:00, from which the calendar counts. The library's own points in time end 26 hours before the year
/// 9999 does, so that each of them exists in every time zone; its calendar has all of that year.
const EPOCH: civil::DateTime = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A time that may be finer than what is stored.
struct Nanoseconds(i128);

impl Nanoseconds {
    fn floor_and_rest(&self) -> (Timestamp, bool) {
        let floor =
            i64::try_from(self.0.div_euclid(1000)).expect("the years 0 to 10,000 fit in i64 microseconds");
        (Timestamp(floor), self.0.rem_euclid(1000) != 0)
    }
}

/// Checks the shape by hand, because the library is kinder than docs/http.md (a space for `T`, a leap second,
/// a date without a time), and leaves the calendar to the library.
fn parse_nanoseconds(text: &str) -> Option<Nanoseconds> {
    let bytes = text.as_bytes();
    if bytes.len() > TIMESTAMP_TEXT_BYTES_MAX || bytes.len() < 19 {
        return None;
    }
    let separators = [(4, b"--"), (7, b"--"), (10, b"Tt"), (13, b"::"), (16, b"::")];
    if separators.iter().any(|(at, either)| !either.contains(&bytes[*at])) {
        return None;
    }
    let year = i16::try_from(number(&bytes[0..4])?).ok()?;
    let small = |from: usize| number(&bytes[from..from + 2]).and_then(|n| i8::try_from(n).ok());
    if year == 0 {
        return None;
    }
    let (fraction_ns, rest) = fraction(&bytes[19..])?;
    let local =
        civil::DateTime::new(year, small(5)?, small(8)?, small(11)?, small(14)?, small(17)?, fraction_ns)
            .ok()?;
    let since_epoch = local.duration_since(EPOCH).as_nanos();
    Some(Nanoseconds(since_epoch - i128::from(offset_s(rest)?) * 1_000_000_000))
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0')))
}

/// Up to nine digits after a point, as nanoseconds.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let [b'.', rest @ ..] = text else {
        return Some((0, text));
    };
    let len = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    if !(1..=9).contains(&len) {
        return None;
    }
    let scale = 10_i32.pow(9 - u32::try_from(len).expect("at most nine"));
    Some((number(&rest[..len])? * scale, &rest[len..]))
}

/// Seconds east of UTC; none given is UTC.
fn offset_s(text: &[u8]) -> Option<i64> {
    match text {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// A window of the summary. Both ends are included; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first time inside the window.
    pub from: Option<Timestamp>,
    /// The last time inside the window.
    pub to: Option<Timestamp>,
}

impl Bounds {
    /// Reads a lower bound, rounded up to a microsecond.
    #[must_use]
    pub fn parse_from(text: &str) -> Option<Timestamp> {
        let (floor, rest) = parse_nanoseconds(text)?.floor_and_rest();
        Some(Timestamp(floor.0 + i64::from(rest)))
    }

    /// Reads an upper bound, rounded down to a microsecond.
    #[must_use]
    pub fn parse_to(text: &str) -> Option<Timestamp> {
        Timestamp::parse(text)
    }

    /// True for a time inside the window.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_as_http_has_it_is_that_of_its_specification() {
        let date = Timestamp::from_ms(784_111_777_999).as_http_date();
        assert_eq!(date.as_ref(), Some(b"Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(Timestamp(i64::MAX).as_http_date(), None);
    }

    #[test]
    fn every_form_of_the_contract_is_read() {
        let expected = Some(Timestamp(1_752_582_896_123_000));
        for text in [
            "2025-07-15T12:34:56.123Z",
            "2025-07-15t12:34:56.123z",
            "2025-07-15T12:34:56.123",
            "2025-07-15T12:34:56.123000",
            "2025-07-15T12:34:56.123000999Z",
            "2025-07-15T15:34:56.123+03:00",
            "2025-07-15T09:04:56.123-03:30",
        ] {
            assert_eq!(Timestamp::parse(text), expected, "{text}");
        }
        assert_eq!(Timestamp::parse("2025-07-15T12:34:56"), Some(Timestamp(1_752_582_896_000_000)));
        assert_eq!(Timestamp::parse("2024-02-29T00:00:00Z").map(Timestamp::as_ms), Some(1_709_164_800_000));
    }

    #[test]
    fn the_last_hours_of_the_last_year_are_read_and_written() {
        for (text, us) in [
            ("9999-12-30T22:00:00.999999Z", 253_402_207_200_999_999),
            ("9999-12-30T22:00:01Z", 253_402_207_201_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(Timestamp::parse(text), Some(Timestamp(us)), "{text}");
            assert_eq!(Timestamp::parse(&Timestamp(us).to_string()), Some(Timestamp(us)), "{text}");
        }
        // An offset may lead into the year before the first one, or behind the last one.
        let minutes = |count: i64| count * 60 * 1_000_000;
        assert_eq!(
            Timestamp::parse("9999-12-31T23:59:59-23:59"),
            Some(Timestamp(253_402_300_799_000_000 + minutes(23 * 60 + 59)))
        );
        assert_eq!(
            Timestamp::parse("0001-01-01T00:00:00+23:59"),
            Some(Timestamp(-62_135_596_800_000_000 - minutes(23 * 60 + 59)))
        );
        let to = "9999-12-31T23:59:59.999999999";
        assert_eq!(Bounds::parse_to(to), Some(Timestamp(253_402_300_799_999_999)));
        assert_eq!(Bounds::parse_from(to), Some(Timestamp(253_402_300_800_000_000)));
    }

    #[test]
    fn a_malformed_time_is_refused() {
        for text in [
            "",
            "2025-07-15",
            "2025-07-15 12:34:56Z",
            "2025-02-30T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-07-15T24:00:00Z",
            "2025-07-15T12:34:60Z",
            "2025-07-15T12:34:56.Z",
            "2025-07-15T12:34:56.1234567890Z",
            "2025-07-15T12:34:56+3",
            "2025-07-15T12:34:56+24:00",
            "2025-07-15T12:34:56ZZ",
            "2025-07-15T12:34",
            "0000-07-15T12:34:56Z",
            "12025-07-15T12:34:56Z",
            "+025-07-15T12:34:56Z",
            "2025-07-15T12:34:56\u{e9}",
            "now",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_bound_finer_than_a_microsecond_is_rounded_inwards() {
        let text = "2025-07-15T12:34:56.123456001Z";
        assert_eq!(Bounds::parse_from(text), Some(Timestamp(1_752_582_896_123_457)));
        assert_eq!(Bounds::parse_to(text), Some(Timestamp(1_752_582_896_123_456)));
    }

    proptest! {
        #[test]
        fn written_bytes_are_read_back(us in 0..253_402_300_799_999_999_i64) {
            let time = Timestamp(us);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
            prop_assert!(time.to_string().ends_with('Z'));
        }

        #[test]
        fn where_both_read_a_time_the_library_reads_the_same(text in "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])") {
            let theirs = text.parse::<jiff::Timestamp>().ok().map(|time| time.as_nanosecond().div_euclid(1000));
            prop_assert_eq!(Timestamp::parse(&text).map(|time| i128::from(time.0)), theirs);
        }

        #[test]
        fn any_text_is_a_time_or_nothing(text in "\\PC{0,70}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
