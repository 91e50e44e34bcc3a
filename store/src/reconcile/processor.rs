//! A processor's own books, asked over HTTP (docs/contract.md): `GET /admin/payments-summary` for a window and
//! `GET /payments/{id}` for a payment. Both answer while the processor fails its payments.
//!
//! A call that gets no answer, or one that is about the moment (408, 429, 5xx), is repeated up to [`TRIES_MAX`] times.
//! Numbers are read from their digits. What cannot be understood is an error and never a difference.

use super::report::{Row, Span};
use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::thread;
use std::time::Duration;
use ureq::Agent;
use ureq::http::StatusCode;
use wire::frame::Totals;
use wire::{Cents, PaymentId, PerProcessor, Processor, Timestamp};

/// How long an answer is waited for. A sum over a long time takes a database a while.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Tries of one call, and the pause between two.
const TRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest answer that is read; a row has some 150 bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Both processors.
#[derive(Debug)]
pub struct Processors {
    agent: Agent,
    urls: PerProcessor<String>,
    token: String,
}

/// A status and a body.
struct Reply {
    status: StatusCode,
    body: Vec<u8>,
}

impl Processors {
    /// Those at `urls`, without a path. Connects to nothing yet.
    #[must_use]
    pub fn new(urls: PerProcessor<String>, token: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The processors are where the settings say.
            .proxy(None)
            .timeout_global(Some(ANSWER_TIMEOUT));
        Self { agent: config.build().into(), urls, token: token.to_owned() }
    }

    /// What a processor counts inside a window. `pace` comes before each call.
    ///
    /// # Errors
    /// When it does not answer, refuses the token, or says something else.
    pub fn sum(&self, processor: Processor, span: Span, pace: impl FnMut()) -> anyhow::Result<Totals> {
        let target = format!("/admin/payments-summary?from={}&to={}", span.from, span.to);
        let Reply { status, body } = self.get(processor, &target, pace)?;
        match status.as_u16() {
            200 => sum(&body).ok_or_else(|| self.unreadable(processor, &target, &body)),
            401 | 403 => {
                bail!("the {processor} processor refuses the token: set PROCESSOR_TOKEN to its X-Rinha-Token")
            }
            status => {
                bail!("{} answers {status} to GET {target}: {}", self.name(processor), advice(processor))
            }
        }
    }

    /// What a processor holds of a payment; `None` when it says 404. `pace` comes before each call.
    ///
    /// # Errors
    /// When it does not answer, or says something else.
    pub fn row(
        &self,
        processor: Processor,
        id: PaymentId,
        pace: impl FnMut(),
    ) -> anyhow::Result<Option<Row>> {
        let target = format!("/payments/{id}");
        let Reply { status, body } = self.get(processor, &target, pace)?;
        match status.as_u16() {
            200 => row(&body, id).map(Some).ok_or_else(|| self.unreadable(processor, &target, &body)),
            404 => Ok(None),
            status => bail!("{} answers {status} to GET {target}", self.name(processor)),
        }
    }

    fn get(&self, processor: Processor, target: &str, mut pace: impl FnMut()) -> anyhow::Result<Reply> {
        let mut tries = 1;
        loop {
            pace();
            let reply = self.try_get(processor, target);
            let is_for_now = match &reply {
                Ok(reply) => reply.status.is_server_error() || matches!(reply.status.as_u16(), 408 | 429),
                Err(_) => true,
            };
            if !is_for_now || tries == TRIES_MAX {
                let what = || format!("{} cannot be asked: {}", self.name(processor), advice(processor));
                return reply.with_context(what);
            }
            tries += 1;
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn try_get(&self, processor: Processor, target: &str) -> Result<Reply, ureq::Error> {
        let call = self.agent.get(format!("{}{target}", self.urls[processor]));
        let mut response = call.header("X-Rinha-Token", &self.token).call()?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Reply { status: response.status(), body })
    }

    fn name(&self, processor: Processor) -> String {
        format!("the {processor} processor at {}", self.urls[processor])
    }

    fn unreadable(&self, processor: Processor, target: &str, body: &[u8]) -> anyhow::Error {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        anyhow!("{} answers GET {target} with {text:?}, which is no answer to it", self.name(processor))
    }
}

fn advice(processor: Processor) -> &'static str {
    match processor {
        Processor::Default => "PROCESSOR_DEFAULT_URL says where it is",
        Processor::Fallback => "PROCESSOR_FALLBACK_URL says where it is",
    }
}

fn sum(body: &[u8]) -> Option<Totals> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sum<'a> {
        total_requests: u64,
        #[serde(borrow)]
        total_amount: &'a RawValue,
    }
    let sum: Sum<'_> = serde_json::from_slice(body).ok()?;
    Some(Totals { count: sum.total_requests, cents: cents(sum.total_amount.get())? })
}

/// A row, if it is this payment's.
fn row(body: &[u8], id: PaymentId) -> Option<Row> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stored<'a> {
        #[serde(borrow)]
        correlation_id: Cow<'a, str>,
        #[serde(borrow)]
        amount: &'a RawValue,
        #[serde(borrow)]
        requested_at: Cow<'a, str>,
    }
    let stored: Stored<'_> = serde_json::from_slice(body).ok()?;
    if PaymentId::parse(&stored.correlation_id) != Some(id) {
        return None;
    }
    let requested_at = Timestamp::parse(&stored.requested_at)?;
    Some(Row { cents: cents(stored.amount.get())?, requested_at })
}

/// A decimal number in cents. Decimals beyond the second, which a sum of binary fractions has, are rounded.
fn cents(text: &str) -> Option<Cents> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let decimal = |at: usize| fraction.as_bytes().get(at).map_or(0, |digit| i64::from(digit - b'0'));
    let rounded = i64::from(decimal(2) >= 5);
    let cents = whole.parse::<i64>().ok()?.checked_mul(100)?;
    cents.checked_add(decimal(0) * 10 + decimal(1) + rounded)?.checked_mul(sign).map(Cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_rows_are_read_from_their_digits() {
        let body =
            br#"{"totalRequests":43236,"totalAmount":415542345.98,"totalFee":1.5,"feePerTransaction":0.05}"#;
        assert_eq!(sum(body), Some(Totals { count: 43_236, cents: Cents(41_554_234_598) }));
        let id = PaymentId::parse("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap();
        let body = br#"{"correlationId":"4A7901B8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.9,"requestedAt":"2025-07-15T12:34:56.123"}"#;
        let stored = Row { cents: Cents(1_990), requested_at: Timestamp(1_752_582_896_123_000) };
        assert_eq!(row(body, id), Some(stored));
        assert_eq!(row(body, PaymentId(1)), None, "the row of another payment");
    }

    #[test]
    fn amounts_are_exact_in_cents_and_anything_else_is_none() {
        for (text, expected) in [
            ("0", Some(0)),
            ("19.9", Some(1_990)),
            ("19.90", Some(1_990)),
            ("-0.05", Some(-5)),
            ("59.699999999999996", Some(5_970)),
            ("9007199254740993.01", Some(900_719_925_474_099_301)),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("\"19.90\"", None),
            ("99999999999999999999", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(cents(text), expected.map(Cents), "{text}");
        }
    }

    #[test]
    fn foreign_bytes_are_not_read_as_an_answer() {
        let texts: [&[u8]; 5] = [b"", b"{}", b"<html>", b"[1]", br#"{"totalRequests":-1,"totalAmount":1}"#];
        for text in texts {
            assert_eq!((sum(text), row(text, PaymentId(1))), (None, None));
        }
    }
}
