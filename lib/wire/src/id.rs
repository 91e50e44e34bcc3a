//! The idempotency key of a payment: the client's `correlationId`, a UUID, held as its 128-bit value.
//!
//! Only the hyphenated form is read (docs/http.md), in any letter case, of any version, the nil UUID included.
//! It is written in lower case, so that one payment has one spelling at the processors.

use std::fmt;
use uuid::Uuid;

/// Identifies one payment for ever. Two spellings of one UUID are one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(pub u128);

/// The length of a hyphenated UUID in bytes.
pub const ID_TEXT_BYTES: usize = 36;

impl PaymentId {
    /// Reads `8-4-4-4-12` hexadecimal digits. `None` for every other form, braces and missing hyphens included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The length singles out the hyphenated form among those that the library reads.
        if text.len() != ID_TEXT_BYTES {
            return None;
        }
        Uuid::try_parse_ascii(text.as_bytes()).ok().map(|uuid| Self(uuid.as_u128()))
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ID_TEXT_BYTES];
        f.write_str(Uuid::from_u128(self.0).hyphenated().encode_lower(&mut buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_does_not_make_another_payment() {
        let lower = PaymentId::parse("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap();
        assert_eq!(PaymentId::parse("4A7901B8-7D26-4D9D-AA19-4DC1C7CF60B3"), Some(lower));
        assert_eq!(lower.to_string(), "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
        assert_eq!(PaymentId::parse("00000000-0000-0000-0000-000000000000"), Some(PaymentId(0)));
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for text in [
            "",
            "4a7901b87d264d9daa194dc1c7cf60b3",
            "{4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3}",
            "urn:uuid:4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b33",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg",
            "4a7901b8 7d26 4d9d aa19 4dc1c7cf60b3",
            "4a7901b8-7d264-d9d-aa19-4dc1c7cf60b3",
            "+a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3",
        ] {
            assert_eq!(PaymentId::parse(text), None, "{text}");
        }
    }
}
