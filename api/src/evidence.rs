//! What an answer of a processor proves (docs/money.md). Pure: no socket, no clock.
//!
//! The line that matters runs between "this call charged nothing, for certain" and everything else. A status proves the
//! former only where the processor gives it before it would insert the row (docs/contract.md).

use wire::frame::{CallKind, Outcome};
use wire::{Cents, PaymentId, Timestamp};

/// An answer, completely read or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its `Content-Length`, if it had one.
    pub content_length: Option<u64>,
    /// Its body as far as it was read; `None` when it broke off or was too long.
    pub body: Option<&'a [u8]>,
}

/// What the answer to a call about this payment proves.
#[must_use]
pub fn outcome(kind: CallKind, id: PaymentId, answer: Answer<'_>) -> Outcome {
    match kind {
        CallKind::Post => of_post(answer),
        CallKind::Get => of_get(id, answer),
    }
}

fn of_post(answer: Answer<'_>) -> Outcome {
    match answer.status {
        // The row is there once the head says so; what the body says, and whether it comes whole, adds nothing.
        200 => Outcome::Charged,
        422 => Outcome::Duplicate,
        429 | 408 => Outcome::Busy,
        400 | 413 | 415 => Outcome::Refused,
        401 | 403 | 404 | 405 => Outcome::Misaddressed,
        // The failure flag answers before the insert and says nothing; a 500 that says something comes from anywhere.
        500 if answer.content_length == Some(0) && answer.body == Some(b"") => Outcome::Failing,
        _ => Outcome::Unclear,
    }
}

fn of_get(id: PaymentId, answer: Answer<'_>) -> Outcome {
    match (answer.status, answer.body) {
        (200, Some(body)) => found(id, body).unwrap_or(Outcome::Unclear),
        (404, _) => Outcome::Absent,
        (429 | 408, _) => Outcome::Busy,
        _ => Outcome::Unclear,
    }
}

/// The row that a processor tells. One of another payment proves nothing about this one, nor does one without a readable
/// id, time and amount.
fn found(id: PaymentId, body: &[u8]) -> Option<Outcome> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        correlation_id: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        amount: sonic_rs::LazyValue<'a>,
        #[serde(borrow)]
        requested_at: std::borrow::Cow<'a, str>,
    }
    let row: Row<'_> = sonic_rs::from_slice(body).ok()?;
    if PaymentId::parse(&row.correlation_id) != Some(id) {
        return None;
    }
    Some(Outcome::Found {
        requested_at: Timestamp::parse(&row.requested_at)?,
        cents: Cents::from_json_number(row.amount.as_raw_str()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(status: u16, content_length: Option<u64>, body: Option<&[u8]>) -> Outcome {
        outcome(CallKind::Post, PaymentId(7), Answer { status, content_length, body })
    }

    #[test]
    fn only_an_explicitly_empty_500_is_a_no() {
        assert_eq!(post(500, Some(0), Some(b"")), Outcome::Failing);
        assert_eq!(
            post(500, None, Some(b"")),
            Outcome::Unclear,
            "an empty body that ended with the connection"
        );
        assert_eq!(post(500, Some(0), None), Outcome::Unclear, "not completely read");
        assert_eq!(post(500, Some(2), Some(b"{}")), Outcome::Unclear);
    }

    #[test]
    fn every_status_is_read_as_the_table_says() {
        for status in 100..=599 {
            let expected = match status {
                200 => Outcome::Charged,
                422 => Outcome::Duplicate,
                408 | 429 => Outcome::Busy,
                400 | 413 | 415 => Outcome::Refused,
                401 | 403 | 404 | 405 => Outcome::Misaddressed,
                _ => Outcome::Unclear,
            };
            assert_eq!(post(status, Some(2), Some(b"{}")), expected, "{status}");
        }
    }

    #[test]
    fn a_row_that_is_told_is_found_with_its_own_values() {
        let id = PaymentId(0xab);
        let body =
            format!(r#"{{"correlationId":"{id}","amount":19.90,"requestedAt":"2025-07-15T12:34:56.000Z"}}"#);
        let (body, upper) = (body.as_bytes(), body.to_uppercase().replace("CORRELATIONID", "correlationId"));
        let upper = upper.replace("AMOUNT", "amount").replace("REQUESTEDAT", "requestedAt");
        let get = |status, body| outcome(CallKind::Get, id, Answer { status, content_length: None, body });
        let found = Outcome::Found { requested_at: Timestamp(1_752_582_896_000_000), cents: Cents(1990) };
        assert_eq!(get(200, Some(body)), found);
        assert_eq!(get(200, Some(upper.as_bytes())), found, "an id is the same in any letter case");
        let answer = Answer { status: 200, content_length: None, body: Some(body) };
        assert_eq!(
            outcome(CallKind::Get, PaymentId(0xac), answer),
            Outcome::Unclear,
            "the row of another payment"
        );
        let nameless = br#"{"amount":19.90,"requestedAt":"2025-07-15T12:34:56.000Z"}"#;
        assert_eq!(get(200, Some(nameless)), Outcome::Unclear, "the row of an unknown payment");
        assert_eq!(get(200, Some(b"{}")), Outcome::Unclear);
        assert_eq!(get(200, None), Outcome::Unclear);
        assert_eq!(get(404, Some(b"")), Outcome::Absent);
        assert_eq!(get(429, Some(b"")), Outcome::Busy);
        assert_eq!(get(500, Some(b"")), Outcome::Unclear);
    }
}
