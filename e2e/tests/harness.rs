//! What the tests over real sockets share.
//!
//! [`system`] starts `store`, `api` and `lb` as they are shipped, on a fresh folder; [`client`] writes bytes as they stand
//! and reads what comes back, with a bound on every wait; [`table`] runs rows (an input and the answers that docs/http.md gives it) through the balancer and at an api's own socket, and tells of every row that failed, not of the
//! first. [`processors`] are the two of the arena, in this process.

pub(crate) mod client;
pub(crate) mod processors;
pub(crate) mod strace;
pub(crate) mod system;
pub(crate) mod table;

use client::End;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A place for an id in the bytes of a request, as long as an id: every sending puts a fresh one there.
pub(crate) const ID: &str = "IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID";

/// The same for an id in capital letters.
pub(crate) const UPPER_ID: &str = "UPPERUPP-ERID-ERID-ERID-UPPERUPPERID";

/// What stands in inputs and never in an answer.
pub(crate) const MARK: &str = "Xq7zNeverEchoed";

/// How long lb or an api holds a request while the process that it needs is away (docs/http.md).
pub(crate) const HOLD: Duration = Duration::from_secs(1);

/// No request that is held is given up before this: [`HOLD`] less the grain that it is watched with. How much later is the
/// machine's affair.
pub(crate) const HELD_MIN: Duration = Duration::from_millis(800);

/// A request that is held, from before it was sent until the test lets it go on.
pub(crate) struct Held(Instant);

impl Held {
    /// To be called before the request is sent.
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// To be called when everything is there again. False on a machine that was so slow that the hold is over or nearly so:
    /// then the request may have been refused or given up, through no fault of the system.
    pub(crate) fn is_in_time(&self) -> bool {
        self.0.elapsed() < HOLD / 2
    }
}

/// True for the answer to a payment that was let go on: what is expected, or refused or unknown if the test was not in time.
pub(crate) fn is_due(answer: &Result<u16, End>, expected: &[u16], is_in_time: bool) -> bool {
    match answer {
        Ok(503 | 504) if !is_in_time => true,
        Ok(status) => expected.contains(status),
        Err(_) => false,
    }
}

/// A fresh id.
pub(crate) fn fresh_id() -> String {
    Uuid::new_v4().to_string()
}

/// The bytes with this id in the places made for one.
pub(crate) fn with_id(bytes: &[u8], id: &str) -> Vec<u8> {
    let upper = id.to_uppercase();
    let mut bytes = bytes.to_vec();
    for (place, id) in [(ID, id), (UPPER_ID, &upper)] {
        let places = bytes.windows(place.len()).enumerate();
        let at: Vec<usize> =
            places.filter(|(_, window)| *window == place.as_bytes()).map(|(at, _)| at).collect();
        for at in at {
            bytes[at..at + place.len()].copy_from_slice(id.as_bytes());
        }
    }
    bytes
}

/// The body of an ordinary payment.
pub(crate) fn payment(id: &str, amount: &str) -> String {
    format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#)
}

/// `POST /payments` with this body.
pub(crate) fn pay(body: impl AsRef<[u8]>) -> Vec<u8> {
    pay_with("Content-Type: application/json\r\n", body)
}

/// The same with other fields; `fields` are whole lines.
pub(crate) fn pay_with(fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let len = body.as_ref().len();
    post("/payments", &format!("{fields}Content-Length: {len}\r\n"), body)
}

/// A `POST` without an added length.
pub(crate) fn post(target: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = format!("POST {target} HTTP/1.1\r\nHost: espora\r\n{fields}\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    bytes
}

/// A request without fields of interest and without a body.
pub(crate) fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: espora\r\n\r\n").into_bytes()
}

/// A `GET`.
pub(crate) fn get(target: &str) -> Vec<u8> {
    request("GET", target)
}
