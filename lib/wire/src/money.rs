//! Money in whole cents. There is no floating-point number between the client's digits and the processor's row.
//!
//! [`Cents::from_json_number`] reads the digits of a JSON number as they stand. It accepts every spelling that is
//! exact in cents (`19.9`, `19.900`, `1.99e1`) and names the reason for each that is not. A literal is at most
//! [`LITERAL_BYTES_MAX`] bytes long and an exponent at most four digits, so that no input makes the loop long.

use std::fmt;

/// The largest amount of one payment: 999,999,999.99 (docs/http.md).
pub const AMOUNT_MAX: Cents = Cents(99_999_999_999);

/// The longest number that is read at all, in bytes.
pub const LITERAL_BYTES_MAX: usize = 64;

/// An amount of money in cents. One payment's amount is 1 to [`AMOUNT_MAX`]; sums may be larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(pub i64);

/// Why a well-formed JSON number is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Zero or less.
    #[error("amount must be greater than zero")]
    NotPositive,
    /// A digit other than zero beyond the second decimal.
    #[error("amount must have at most 2 decimals")]
    TooPrecise,
    /// Above [`AMOUNT_MAX`], or written in a way that no client writes an amount.
    #[error("amount must be at most 999999999.99")]
    TooLarge,
    /// Not a JSON number.
    #[error("amount must be a JSON number")]
    NotANumber,
}

impl Cents {
    /// Reads the raw text of a JSON number (RFC 8259 section 6).
    ///
    /// # Errors
    /// [`AmountError`] says which rule of docs/http.md the number breaks.
    pub fn from_json_number(text: &str) -> Result<Self, AmountError> {
        let number = Decimal::parse(text)?;
        number.to_cents()
    }

    /// True for an amount that one payment may have.
    #[must_use]
    pub fn is_payable(self) -> bool {
        self >= Self(1) && self <= AMOUNT_MAX
    }
}

impl fmt::Display for Cents {
    /// Writes a JSON number with two decimals: `19.90`, `-0.05`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", magnitude / 100, magnitude % 100)
    }
}

/// A JSON number taken apart: sign, digits without the point, and the power of ten of the last digit.
struct Decimal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i32,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Result<Self, AmountError> {
        let bytes = text.as_bytes();
        if bytes.len() > LITERAL_BYTES_MAX {
            return Err(if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
                AmountError::TooLarge
            } else {
                AmountError::NotANumber
            });
        }
        let (negative, rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, bytes),
        };
        let (integer, rest) = digits(rest);
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return Err(AmountError::NotANumber);
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match digits(rest) {
                ([], _) => return Err(AmountError::NotANumber),
                found => found,
            },
            _ => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => Self::exponent(rest)?,
            _ => return Err(AmountError::NotANumber),
        };
        Ok(Self { negative, integer, fraction, exponent })
    }

    fn exponent(text: &[u8]) -> Result<i32, AmountError> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let (found, rest) = digits(text);
        if found.is_empty() || !rest.is_empty() {
            return Err(AmountError::NotANumber);
        }
        if found.len() > 4 {
            return Err(AmountError::TooLarge);
        }
        let magnitude = found.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
        Ok(if negative { -magnitude } else { magnitude })
    }

    /// Walks the digits with the weight that each has in cents: 10^n for n >= 0, too precise below that.
    fn to_cents(&self) -> Result<Cents, AmountError> {
        let digits = || self.integer.iter().chain(self.fraction).map(|digit| i64::from(digit - b'0'));
        if digits().all(|digit| digit == 0) || self.negative {
            return Err(AmountError::NotPositive);
        }
        let point = i32::try_from(self.integer.len()).expect("a literal is at most 64 bytes") + self.exponent;
        let mut cents: i64 = 0;
        let mut weight = point + 1;
        for digit in digits() {
            if weight < 0 {
                if digit != 0 {
                    return Err(AmountError::TooPrecise);
                }
            } else if digit != 0 || cents != 0 {
                // The bound is checked before the next digit is taken in, so the product cannot overflow.
                cents = cents * 10 + digit;
                if cents > AMOUNT_MAX.0 {
                    return Err(AmountError::TooLarge);
                }
            }
            weight -= 1;
        }
        for _ in 0..=weight {
            cents *= 10;
            if cents > AMOUNT_MAX.0 {
                return Err(AmountError::TooLarge);
            }
        }
        Ok(Cents(cents))
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_exact_spelling_is_the_same_amount() {
        for text in
            ["19.9", "19.90", "19.900", "1.99e1", "1.990E+1", "199e-1", "1990e-2", "0.00199e4", "199000e-4"]
        {
            assert_eq!(Cents::from_json_number(text), Ok(Cents(1990)), "{text}");
        }
        assert_eq!(Cents::from_json_number("1e1"), Ok(Cents(1000)));
        assert_eq!(Cents::from_json_number("0.01"), Ok(Cents(1)));
        assert_eq!(Cents::from_json_number("999999999.99"), Ok(AMOUNT_MAX));
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        use AmountError::{NotANumber, NotPositive, TooLarge, TooPrecise};
        let long = "1".repeat(65);
        for (text, why) in [
            ("0", NotPositive),
            ("-0", NotPositive),
            ("0.00", NotPositive),
            ("0e9999", NotPositive),
            ("-19.90", NotPositive),
            ("19.905", TooPrecise),
            ("1e-3", TooPrecise),
            ("1e-9999", TooPrecise),
            ("1000000000", TooLarge),
            ("1000000000.00", TooLarge),
            ("999999999.999", TooLarge),
            ("1e400", TooLarge),
            ("1e99999", TooLarge),
            (&long, TooLarge),
            ("", NotANumber),
            ("+1", NotANumber),
            (".5", NotANumber),
            ("5.", NotANumber),
            ("0123", NotANumber),
            ("0x10", NotANumber),
            ("1e", NotANumber),
            ("1e+", NotANumber),
            ("NaN", NotANumber),
            ("\"19.90\"", NotANumber),
            ("1 ", NotANumber),
        ] {
            let found = Cents::from_json_number(text).expect_err(text);
            // A number that breaks two rules may name either.
            let both = text == "999999999.999" && found == TooPrecise;
            assert!(found == why || both, "{text}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn written_bytes_are_read_back(cents in 1..=AMOUNT_MAX.0) {
            prop_assert_eq!(Cents::from_json_number(&Cents(cents).to_string()), Ok(Cents(cents)));
        }

        #[test]
        fn an_exponent_moves_the_point_and_nothing_else(cents in 1..=AMOUNT_MAX.0, shift in 0..20_i32) {
            let text = format!("{cents}{}e-{}", "0".repeat(usize::try_from(shift).unwrap()), shift + 2);
            prop_assert_eq!(Cents::from_json_number(&text), Ok(Cents(cents)));
        }

        #[test]
        fn any_text_is_an_amount_or_an_error(text in "[-+.eE0-9]{0,70}") {
            if let Ok(cents) = Cents::from_json_number(&text) {
                prop_assert!(cents.is_payable());
            }
        }
    }
}
