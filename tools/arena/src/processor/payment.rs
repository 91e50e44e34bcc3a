//! What a processor can bind: the body of `POST /payments`, read the way the real one reads it.
//!
//! The amount is rounded to cents, half to even, from its digits; there is no floating-point number on the way. A time
//! that is well formed but does not end in `Z` binds, and only the database refuses it, later and with a 500 that has
//! a body. That is why [`Payment`] carries a flag for it and not an error.
//!
//! Stricter than the real one, for inputs that no entry of the competition sends: a missing or repeated field, another
//! letter case of a key, an amount in a string, and an amount beyond [`AMOUNT_MAX`] are all unbindable here.

use super::rows::Row;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use wire::money::{AMOUNT_MAX, LITERAL_BYTES_MAX};
use wire::{Cents, PaymentId, Timestamp};

/// Digits after the point that are looked at; the real one's decimal type holds 28 in all.
const FRACTION_DIGITS_MAX: usize = 28;

/// A body that could be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payment {
    pub(super) row: Row,
    /// `requestedAt` ended in `Z`; the database refuses any other.
    pub(super) is_utc: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    amount: &'a RawValue,
    #[serde(borrow)]
    requested_at: Cow<'a, str>,
}

impl Payment {
    /// Reads a whole body; `None` is a 400.
    pub(super) fn bind(body: &[u8]) -> Option<Self> {
        let body: Body<'_> = serde_json::from_slice(body).ok()?;
        let time = body.requested_at.as_bytes();
        // The contract's reader is kinder than the real one, which knows the capital letters only.
        if time.get(10) != Some(&b'T') || time.last() == Some(&b'z') {
            return None;
        }
        let row = Row {
            id: PaymentId::parse(&body.correlation_id)?,
            amount: round_to_cents(body.amount.get())?,
            requested_at: Timestamp::parse(&body.requested_at)?,
        };
        Some(Self { row, is_utc: time.last() == Some(&b'Z') })
    }
}

/// Rounds a JSON number to whole cents, half to even. `None` for another JSON value and for absurd sizes.
fn round_to_cents(text: &str) -> Option<Cents> {
    // What serde_json handed over is one well-formed value: with this first byte it is a number.
    let is_number = matches!(text.as_bytes(), [b'-' | b'0'..=b'9', ..]);
    if !is_number || text.len() > LITERAL_BYTES_MAX {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let digits: i128 = format!("{integer}{fraction}").parse().ok()?;
    let beyond_cents = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?.checked_sub(2)?;
    let scale = 10_i128.checked_pow(beyond_cents.unsigned_abs())?;
    let cents = if beyond_cents > 0 { divide_half_even(digits, scale) } else { digits.checked_mul(scale)? };
    let cents = i64::try_from(cents).ok()?;
    (cents.checked_abs()? <= AMOUNT_MAX.0).then_some(Cents(cents))
}

fn divide_half_even(number: i128, divisor: i128) -> i128 {
    let (floor, rest) = (number.div_euclid(divisor), number.rem_euclid(divisor));
    let above = divisor - rest;
    let up = rest > above || (rest == above && floor % 2 != 0);
    floor + i128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn bind(id: &str, amount: &str, time: &str) -> Option<Payment> {
        let body = format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{time}"}}"#);
        Payment::bind(body.as_bytes())
    }

    #[test]
    fn a_payment_binds_to_the_microsecond_and_the_cent() {
        let payment = bind(&ID.to_uppercase(), "19.9", "2025-07-15T12:34:56.1234567Z").unwrap();
        assert_eq!(payment.row.id, PaymentId::parse(ID).unwrap());
        assert_eq!(payment.row.amount, Cents(1990));
        assert_eq!(payment.row.requested_at, Timestamp(1_752_582_896_123_456));
        assert!(payment.is_utc);
    }

    #[test]
    fn a_time_without_z_binds_but_is_not_utc() {
        for time in ["2025-07-15T12:34:56.000", "2025-07-15T12:34:56+00:00"] {
            assert!(!bind(ID, "1", time).unwrap().is_utc, "{time}");
        }
    }

    #[test]
    fn amounts_are_rounded_half_to_even() {
        for (text, cents) in [
            ("19.90", 1990),
            ("1.99e1", 1990),
            ("0.125", 12),
            ("0.135", 14),
            ("0.1350001", 14),
            ("0.1249", 12),
            ("-0.125", -12),
            ("-0.135", -14),
            ("0", 0),
            ("1e-9", 0),
            ("5e2", 50_000),
            ("77.8299999999999982946934741757595539093017578125", 7783),
            ("999999999.99", AMOUNT_MAX.0),
        ] {
            assert_eq!(round_to_cents(text), Some(Cents(cents)), "{text}");
        }
    }

    #[test]
    fn a_body_without_a_payment_does_not_bind() {
        let time = "2025-07-15T12:34:56.000Z";
        for amount in
            ["\"19.90\"", "null", "true", "[]", "1e9", "1e400", "1e-400", "1e2147483648", "-1e-2147483648"]
        {
            assert_eq!(bind(ID, amount, time), None, "{amount}");
        }
        for time in
            ["", "now", "2025-07-15", "2025-07-15t12:34:56Z", "2025-07-15T12:34:56z", "2025-02-30T12:34:56Z"]
        {
            assert_eq!(bind(ID, "1", time), None, "{time}");
        }
        for id in ["", "4a7901b87d264d9daa194dc1c7cf60b3", "{4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3}"] {
            assert_eq!(bind(id, "1", time), None, "{id}");
        }
        for body in ["", "{}", "[]", "null", "{\"amount\":1}", "\u{feff}{}"] {
            assert_eq!(Payment::bind(body.as_bytes()), None, "{body}");
        }
    }
}
