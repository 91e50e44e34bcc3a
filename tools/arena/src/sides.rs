//! The sides that are compared: ours, and each processor, asked over HTTP.
//!
//! [`Ours`] is the entry under test at its public port; [`Theirs`] is one processor, with the token that everything
//! under its `/admin/` wants. Both keep one connection. A side that was given the judge's tally enters there how long
//! each answer took, because the judge's percentile counts all its requests (docs/contract.md).
//!
//! Sums of money are read as JSON numbers in double precision and rounded to cents, which is exact up to 2^53 cents.

use crate::client::{Answer, Client, Failure, request};
use crate::endpoint::Endpoint;
use crate::processor::{Misbehaviour, Observed};
use crate::tally::Tally;
use contest::score::Settled;
use serde::Deserialize;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;
use wire::{Bounds, Cents, PaymentId, PerProcessor, Timestamp};

/// Rows of one page: the most that a simulated processor hands out.
const PAGE_ROWS: usize = 10_000;

/// Why a side did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no answer.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The answer is a refusal.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not what was asked for.
    #[error("unexpected body: {0}")]
    Body(#[from] serde_json::Error),
}

/// The entry under test.
#[derive(Debug)]
pub struct Ours {
    client: Client,
    tally: Option<Rc<Tally>>,
}

/// One processor.
#[derive(Debug)]
pub struct Theirs {
    client: Client,
    token: String,
    tally: Option<Rc<Tally>>,
}

/// What a processor says of its payments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TheirSum {
    /// Number and amount.
    pub settled: Settled,
    /// What it keeps of an amount, in per cent.
    pub fee_percent: f64,
}

/// A part of a processor's rows, in the order of their recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Calls that the processor has taken in and not finished: they may still become rows.
    pub unfinished: usize,
    /// More rows are there.
    pub is_partial: bool,
}

/// One payment as a processor recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which payment.
    pub id: PaymentId,
    /// What was charged.
    pub amount: Cents,
    /// When we said that it was requested.
    pub requested_at: Timestamp,
}

impl Ours {
    /// The entry at `endpoint`, asked with this timeout.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration, tally: Option<Rc<Tally>>) -> Self {
        Self { client: Client::new(endpoint, timeout), tally }
    }

    /// `GET /payments-summary`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn summary(&mut self, bounds: Bounds) -> Result<PerProcessor<Settled>, AskError> {
        let answer = self.ask("GET", &format!("/payments-summary{}", query(bounds))).await?;
        let summary: SummaryBody = serde_json::from_slice(answer.body)?;
        Ok(PerProcessor([summary.default.settled(), summary.fallback.settled()]))
    }

    /// `POST /purge-payments`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn purge(&mut self) -> Result<(), AskError> {
        self.ask("POST", "/purge-payments").await.map(drop)
    }

    /// `GET /health`.
    ///
    /// # Errors
    /// [`AskError`], also when it answers that it is not well.
    pub async fn health(&mut self) -> Result<(), AskError> {
        self.ask("GET", "/health").await.map(drop)
    }

    async fn ask(&mut self, method: &str, target: &str) -> Result<Answer<'_>, AskError> {
        let request = request(method, target, self.client.host(), None, "");
        let answer = self.client.exchange(&request).await?;
        accept(answer, self.tally.as_deref())
    }
}

impl Theirs {
    /// The processor at `endpoint`, asked with this timeout.
    #[must_use]
    pub fn new(endpoint: Endpoint, token: &str, timeout: Duration, tally: Option<Rc<Tally>>) -> Self {
        Self { client: Client::new(endpoint, timeout), token: token.into(), tally }
    }

    /// `GET /admin/payments-summary`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn summary(&mut self, bounds: Bounds) -> Result<TheirSum, AskError> {
        let target = format!("/admin/payments-summary{}", query(bounds));
        let answer = self.ask("GET", &target, "").await?;
        let sum: TheirSumBody = serde_json::from_slice(answer.body)?;
        Ok(TheirSum { settled: sum.settled.settled(), fee_percent: sum.fee_per_transaction * 100.0 })
    }

    /// `POST /admin/purge-payments`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn purge(&mut self) -> Result<(), AskError> {
        self.ask("POST", "/admin/purge-payments", "").await.map(drop)
    }

    /// `PUT /admin/configurations/delay`; the change is made between the two instants.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn set_delay(&mut self, delay_ms: u64) -> Result<(Instant, Instant), AskError> {
        self.put("delay", &format!(r#"{{"delay":{delay_ms}}}"#)).await
    }

    /// `PUT /admin/configurations/failure`; the change is made between the two instants.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn set_failing(&mut self, is_failing: bool) -> Result<(Instant, Instant), AskError> {
        self.put("failure", &format!(r#"{{"failure":{is_failing}}}"#)).await
    }

    /// `GET /admin/payments`, which the simulated processors have and the competition's do not: rows after the first
    /// `after`.
    ///
    /// # Errors
    /// [`AskError`]; `Status(404)` from a processor that does not have it.
    pub async fn page(&mut self, after: usize) -> Result<Page, AskError> {
        self.page_of("payments", after).await
    }

    /// Its rows and those that it has lost on purpose, read through [`Theirs::page`] and its like to their ends; true when
    /// no call is under way there any more.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn everything(&mut self) -> Result<(Vec<Row>, Vec<Row>, bool), AskError> {
        let mut lists = [Vec::new(), Vec::new()];
        let mut is_at_rest = true;
        for (what, rows) in ["payments", "lost-payments"].into_iter().zip(&mut lists) {
            loop {
                let page = self.page_of(what, rows.len()).await?;
                rows.extend(page.rows);
                is_at_rest &= page.unfinished == 0;
                if !page.is_partial {
                    break;
                }
            }
        }
        let [rows, lost] = lists;
        Ok((rows, lost, is_at_rest))
    }

    async fn page_of(&mut self, what: &str, after: usize) -> Result<Page, AskError> {
        let target = format!("/admin/{what}?after={after}&limit={PAGE_ROWS}");
        let page: PageBody = serde_json::from_slice(self.ask("GET", &target, "").await?.body)?;
        let rows = page.payments.into_iter().map(RowBody::row).collect::<Result<Vec<_>, _>>()?;
        Ok(Page { rows, unfinished: page.running + page.waiting, is_partial: page.next.is_some() })
    }

    /// `PUT /admin/misbehaviour`, of the simulated processors.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn misbehave(&mut self, how: &Misbehaviour) -> Result<(), AskError> {
        let body = serde_json::to_string(how)?;
        self.ask("PUT", "/admin/misbehaviour", &body).await.map(drop)
    }

    /// `GET /admin/misbehaviour`: what it did wrong and saw.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn observed(&mut self) -> Result<Observed, AskError> {
        let conduct: ConductBody =
            serde_json::from_slice(self.ask("GET", "/admin/misbehaviour", "").await?.body)?;
        Ok(conduct.observed)
    }

    /// `POST /admin/lose-payments`: that share of its rows is gone.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn lose(&mut self, share_percent: u8) -> Result<(), AskError> {
        let body = format!(r#"{{"share_percent":{share_percent}}}"#);
        self.ask("POST", "/admin/lose-payments", &body).await.map(drop)
    }

    async fn put(&mut self, what: &str, body: &str) -> Result<(Instant, Instant), AskError> {
        let sent = Instant::now();
        self.ask("PUT", &format!("/admin/configurations/{what}"), body).await?;
        Ok((sent, Instant::now()))
    }

    async fn ask(&mut self, method: &str, target: &str, body: &str) -> Result<Answer<'_>, AskError> {
        let request = request(method, target, self.client.host(), Some(&self.token), body);
        let answer = self.client.exchange(&request).await?;
        accept(answer, self.tally.as_deref())
    }
}

fn accept<'a>(answer: Answer<'a>, tally: Option<&Tally>) -> Result<Answer<'a>, AskError> {
    if let Some(tally) = tally {
        tally.judged(answer.status, answer.took);
    }
    if (200..300).contains(&answer.status) { Ok(answer) } else { Err(AskError::Status(answer.status)) }
}

fn query(bounds: Bounds) -> String {
    let from = bounds.from.map(|time| format!("from={time}"));
    let to = bounds.to.map(|time| format!("to={time}"));
    let given: Vec<String> = [from, to].into_iter().flatten().collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SumBody {
    total_requests: u64,
    total_amount: f64,
}

#[derive(Deserialize)]
struct SummaryBody {
    default: SumBody,
    fallback: SumBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TheirSumBody {
    #[serde(flatten)]
    settled: SumBody,
    fee_per_transaction: f64,
}

#[derive(Deserialize)]
struct ConductBody {
    observed: Observed,
}

#[derive(Deserialize)]
struct PageBody {
    running: usize,
    waiting: usize,
    next: Option<usize>,
    payments: Vec<RowBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowBody {
    correlation_id: String,
    amount: f64,
    requested_at: String,
}

impl SumBody {
    fn settled(&self) -> Settled {
        Settled { count: self.total_requests, amount: cents(self.total_amount) }
    }
}

impl RowBody {
    fn row(self) -> Result<Row, serde_json::Error> {
        let refusal = |field| serde::de::Error::custom(format!("{field} of a row"));
        let id = PaymentId::parse(&self.correlation_id).ok_or_else(|| refusal("correlationId"))?;
        let requested_at = Timestamp::parse(&self.requested_at).ok_or_else(|| refusal("requestedAt"))?;
        Ok(Row { id, amount: cents(self.amount), requested_at })
    }
}

fn cents(amount: f64) -> Cents {
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and no sum comes near")]
    let cents = (amount * 100.0).round() as i64;
    Cents(cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_asked_for_by_the_bounds_that_it_has() {
        let (from, to) = (Some(Timestamp::from_ms(0)), Some(Timestamp::from_ms(1_500)));
        assert_eq!(query(Bounds { from: None, to: None }), "");
        let whole = "?from=1970-01-01T00:00:00.000Z&to=1970-01-01T00:00:01.500Z";
        assert_eq!(query(Bounds { from, to }), whole);
        assert_eq!(query(Bounds { from: None, to }), "?to=1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn sums_are_read_to_the_cent() {
        for (text, expected) in
            [("19.90", 1_990), ("415542345.98", 41_554_234_598), ("0", 0), ("1816349.55", 181_634_955)]
        {
            assert_eq!(cents(text.parse().unwrap()), Cents(expected));
        }
    }

    #[test]
    fn a_row_without_an_id_is_not_read() {
        let body = |id: &str| {
            format!(r#"{{"correlationId":"{id}","amount":19.9,"requestedAt":"2025-07-15T12:34:56.000Z"}}"#)
        };
        let read = |id| serde_json::from_str::<RowBody>(&body(id)).unwrap().row();
        assert!(read("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").is_ok());
        assert!(read("4a7901b8").unwrap_err().to_string().contains("correlationId"));
    }
}
