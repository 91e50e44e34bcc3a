//! The body of `POST /payments`, read strictly (docs/http.md): one JSON object, each key once, an id and an
//! amount of the right types, anything else ignored. The amount's digits are taken as they stand, never as a float.
//!
//! The body is at most 4 KiB when it comes here, which also bounds how deep the parser can be led.

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use sonic_rs::LazyValue;
use std::borrow::Cow;
use std::fmt;
use wire::money::AmountError;
use wire::{Cents, PaymentId};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its idempotency key.
    pub id: PaymentId,
    /// Its amount.
    pub cents: Cents,
}

/// Why a body is no payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentError {
    /// Not one JSON object with a `correlationId` and a numeric `amount`: 400.
    Malformed,
    /// The `correlationId` is no hyphenated UUID: 400.
    BadId,
    /// The amount is a number that cannot be paid: 422.
    BadAmount(AmountError),
}

impl Payment {
    /// Reads a body.
    ///
    /// # Errors
    /// [`PaymentError`] says what to change.
    pub fn parse(body: &[u8]) -> Result<Self, PaymentError> {
        // The parser takes its input for UTF-8 in places that it skips.
        let text = std::str::from_utf8(body).map_err(|_| PaymentError::Malformed)?;
        if !has_whole_escapes(text) {
            return Err(PaymentError::Malformed);
        }
        let fields: Fields<'_> = sonic_rs::from_str(text).map_err(|_| PaymentError::Malformed)?;
        let id = PaymentId::parse(&fields.id).ok_or(PaymentError::BadId)?;
        let digits = fields.amount.as_raw_str();
        match Cents::from_json_number(digits) {
            Ok(cents) => Ok(Self { id, cents }),
            Err(AmountError::NotANumber) => Err(PaymentError::Malformed),
            Err(error) => Err(PaymentError::BadAmount(error)),
        }
    }
}

/// False when a `\u` is followed by something else than four digits, which the parser does not look at in what it skips.
/// A backslash outside of a text is an error to it.
fn has_whole_escapes(text: &str) -> bool {
    let mut rest = text.as_bytes();
    // Nearly no body has one, and this looks at eight bytes at a time.
    if !rest.contains(&b'\\') {
        return true;
    }
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let is_whole = match &rest[at + 1..] {
            [b'u', digits @ ..] => digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit),
            _ => true,
        };
        if !is_whole {
            return false;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    true
}

struct Fields<'a> {
    id: Cow<'a, str>,
    amount: LazyValue<'a>,
}

/// A string that borrows from the body unless it had escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut id, mut amount) = (None, None);
                let mut others = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        "correlationId" if id.is_none() => id = Some(map.next_value::<Text<'_>>()?.0),
                        "amount" if amount.is_none() => amount = Some(map.next_value()?),
                        "correlationId" | "amount" => return Err(A::Error::custom("a key twice")),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            others.push(key);
                        }
                    }
                }
                others.sort_unstable();
                if others.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(A::Error::custom("a key twice"));
                }
                match (id, amount) {
                    (Some(id), Some(amount)) => Ok(Fields { id, amount }),
                    _ => Err(A::Error::custom("a key is missing")),
                }
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn parse(text: &str) -> Result<Payment, PaymentError> {
        Payment::parse(text.replace("ID", ID).as_bytes())
    }

    #[test]
    fn every_way_to_write_a_payment_is_read() {
        let payment = Payment { id: PaymentId::parse(ID).unwrap(), cents: Cents(1990) };
        for text in [
            r#"{"correlationId":"ID","amount":19.90}"#,
            r#" { "amount" : 19.9 , "correlationId" : "ID" } "#,
            r#"{"correlationId":"ID","amount":1.99e1,"more":{"a":[1,{"b":null}]},"x":"y"}"#,
            r#"{"\u0063orrelationId":"ID","amoun\u0074":19.900}"#,
            "{\"correlationId\":\"\\u0034a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\",\n\t\"amount\":19.90}",
            r#"{"correlationId":"ID","amount":19.90,"Amount":1,"correlationid":2}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"\\u00zz","y":"\u00E9\ud800"}"#,
        ] {
            assert_eq!(parse(text), Ok(payment), "{text}");
        }
        let upper = parse(r#"{"correlationId":"4A7901B8-7D26-4D9D-AA19-4DC1C7CF60B3","amount":19.90}"#);
        assert_eq!(upper, Ok(payment));
    }

    #[test]
    fn a_body_without_a_payment_is_refused() {
        for text in [
            "",
            " ",
            "null",
            "[]",
            "19.90",
            r#""ID""#,
            "{}",
            "{",
            r#"{"correlationId":"ID"}"#,
            r#"{"amount":19.90}"#,
            r#"{"correlationId":"ID","amount":null}"#,
            r#"{"correlationId":null,"amount":19.90}"#,
            r#"{"correlationId":"ID","amount":"19.90"}"#,
            r#"{"correlationId":"ID","amount":true}"#,
            r#"{"correlationId":"ID","amount":[19.90]}"#,
            r#"{"correlationId":"ID","amount":{"a":1}}"#,
            r#"{"correlationId":7,"amount":19.90}"#,
            r#"{"correlationId":["ID"],"amount":19.90}"#,
            r#"{"CorrelationId":"ID","amount":19.90}"#,
            r#"{"correlationId":"ID","Amount":19.90}"#,
            r#"{"correlationId":"ID","amount":19.90,"amount":19.90}"#,
            r#"{"correlationId":"ID","correlationId":"ID","amount":19.90}"#,
            r#"{"correlationId":"ID","amount":19.90,"\u0061mount":19.90}"#,
            r#"{"correlationId":"ID","amount":19.90,"a":1,"a":2}"#,
            r#"{"correlationId":"ID","amount":19.90}x"#,
            r#"{"correlationId":"ID","amount":19.90}{}"#,
            r#"{"correlationId":"ID","amount":19.90,}"#,
            r#"{"correlationId":"ID" "amount":19.90}"#,
            r#"{"correlationId":"ID","amount":019.90}"#,
            r#"{"correlationId":"ID","amount":+19.90}"#,
            r#"{"correlationId":"ID","amount":.5}"#,
            r#"{"correlationId":"ID","amount":5.}"#,
            r#"{"correlationId":"ID","amount":NaN}"#,
            r#"{"correlationId":"ID","amount":0x10}"#,
            r#"{'correlationId':'ID','amount':19.90}"#,
            r#"{"correlationId":"ID","amount":19.90} // comment"#,
            r#"{"correlationId":"ID","amount":19.90,"x":tru}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"unclosed}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":[1,2}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":01}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"\q"}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"\u00zz"}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"\u+041"}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":"\u00"}"#,
            r#"{"correlationId":"ID","amount":19.90,"x":["\\\u"]}"#,
            "{\"correlationId\":\"ID\",\"amount\":19.90,\"x\":\"a\nb\"}",
            "\u{feff}{\"correlationId\":\"ID\",\"amount\":19.90}",
        ] {
            assert_eq!(parse(text), Err(PaymentError::Malformed), "{text}");
        }
        let mut bytes = format!(r#"{{"correlationId":"{ID}","amount":19.90,"x":"_"}}"#).into_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b'_').unwrap();
        bytes[at] = 0xff;
        assert_eq!(Payment::parse(&bytes), Err(PaymentError::Malformed), "bad UTF-8");
        assert_eq!(parse(r#"{"correlationId":"nonsense","amount":19.90}"#), Err(PaymentError::BadId));
        let zero = parse(r#"{"correlationId":"ID","amount":0}"#);
        assert_eq!(zero, Err(PaymentError::BadAmount(AmountError::NotPositive)));
    }

    #[test]
    fn the_deepest_body_that_fits_is_survived() {
        let open = "[".repeat(edge::limits::BODY_BYTES_MAX);
        assert_eq!(parse(&open), Err(PaymentError::Malformed));
        let junk = format!(r#"{{"junk":{}"#, "[".repeat(4000));
        assert_eq!(parse(&junk), Err(PaymentError::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// What we take is JSON by another parser's measure, with the same meaning.
        #[test]
        fn nothing_is_taken_that_another_parser_refuses(
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..5),
        ) {
            let text = format!(r#"{{"correlationId":"{ID}","amount":19.90,"x":[1,{{"y":"z\n"}},null,true,-1e5]}}"#);
            let mut bytes = text.into_bytes();
            for (at, byte, insert) in hits {
                let at = at.index(bytes.len());
                if insert { bytes.insert(at, byte & 0x7f) } else { bytes[at] = byte }
            }
            if let Ok(payment) = Payment::parse(&bytes) {
                let other: serde_json::Value = serde_json::from_slice(&bytes).expect("we took what is no JSON");
                prop_assert_eq!(other["correlationId"].as_str().and_then(PaymentId::parse), Some(payment.id));
                #[expect(clippy::cast_precision_loss, reason = "an oracle")]
                let ours = payment.cents.0 as f64 / 100.0;
                prop_assert!((other["amount"].as_f64().unwrap() - ours).abs() < 1e-6);
            }
        }
    }
}
