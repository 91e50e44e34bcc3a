//! One user of the judge: posts a payment, waits for the answer, sleeps a second, and again (docs/contract.md).
//!
//! A user has a connection of its own and keeps it. Its request is made once; only the id in it changes. A user that
//! has begun a payment finishes it, and its sleep, even when the run is over meanwhile: the judge ends with its last
//! user, and the second of that sleep is all the time that the last payments have to be settled.

use crate::client::{Client, request};
use crate::tally::Tally;
use contest::rules::USER_PAUSE;
use std::rc::Rc;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;
use wire::id::ID_TEXT_BYTES;
use wire::{Cents, PaymentId};

/// A `POST /payments` in which the id can be exchanged.
#[derive(Clone, Debug)]
pub struct PaymentRequest {
    bytes: Vec<u8>,
    id_at: usize,
}

impl PaymentRequest {
    /// A request for payments of `amount` to the server that calls itself `host`.
    #[must_use]
    pub fn new(host: &str, amount: Cents) -> Self {
        let before_id = r#"{"correlationId":""#;
        let body = format!(r#"{before_id}{}","amount":{}}}"#, Uuid::nil(), shortest(amount));
        let bytes = request("POST", "/payments", host, None, &body);
        let id_at = bytes.len() - body.len() + before_id.len();
        Self { bytes, id_at }
    }

    /// The request for this id.
    pub fn with_id(&mut self, id: PaymentId) -> &[u8] {
        let place = &mut self.bytes[self.id_at..self.id_at + ID_TEXT_BYTES];
        Uuid::from_u128(id.0).hyphenated().encode_lower(place);
        &self.bytes
    }
}

/// An amount as JavaScript writes it, without zeros at its end: `19.9`.
fn shortest(amount: Cents) -> String {
    amount.to_string().trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A user and what it works with.
#[derive(Debug)]
pub struct User {
    /// Its connection.
    pub client: Client,
    /// Its request.
    pub request: PaymentRequest,
    /// Where it enters what it sees.
    pub tally: Rc<Tally>,
}

impl User {
    /// Posts from `begin` on; the last payment begins before `end`.
    pub async fn run(mut self, begin: Instant, end: Instant) {
        sleep_until(begin).await;
        if begin < end {
            self.tally.users.set(self.tally.users.get() + 1);
        }
        while Instant::now() < end {
            self.post().await;
            sleep(USER_PAUSE).await;
        }
    }

    async fn post(&mut self) {
        let connects = self.client.connects;
        let (ticket, id) = self.tally.post();
        match self.client.exchange(self.request.with_id(id)).await {
            Ok(answer) => self.tally.answered(ticket, answer.status, answer.took),
            Err(failure) => self.tally.failed(&failure),
        }
        self.tally.connects.set(self.tally.connects.get() + self.client.connects - connects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_id_and_the_amount() {
        let mut request = PaymentRequest::new("127.0.0.1:9999", Cents(1_990));
        let id = PaymentId::parse("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap();
        let text = String::from_utf8(request.with_id(id).to_vec()).unwrap();
        let body = r#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.9}"#;
        assert!(text.ends_with(&format!("Content-Length: {}\r\n\r\n{body}", body.len())), "{text}");
    }

    #[test]
    fn amounts_are_written_as_javascript_does() {
        for (cents, text) in
            [(1_990, "19.9"), (2_005, "20.05"), (2_000, "20"), (5, "0.05"), (100_000, "1000")]
        {
            assert_eq!(shortest(Cents(cents)), text);
        }
    }
}
