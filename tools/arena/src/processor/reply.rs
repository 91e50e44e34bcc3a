//! What a processor says: each answer with its status, headers and text.
//!
//! Numbers are written from integers, money in cents and fees in basis points, and so are exact. Texts that the real
//! one has and no client depends on are shorter here.

use super::rows::{Row, Sum};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use std::fmt::{self, Display};

pub(super) type Reply = Response<Full<Bytes>>;

/// What one payment costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fee {
    pub(super) basis_points: u32,
}

impl Fee {
    pub(super) fn summary(self, sum: Sum) -> String {
        // Cents are 10^-2 and basis points 10^-4, so their product is in units of 10^-6.
        let total_fee = Millionths(i128::from(sum.amount.0) * i128::from(self.basis_points));
        let per_payment = Millionths(i128::from(self.basis_points) * 100);
        let Sum { count, amount } = sum;
        format!(
            r#"{{"totalRequests":{count},"totalAmount":{amount},"totalFee":{total_fee},"feePerTransaction":{per_payment}}}"#
        )
    }
}

/// A number that prints with as many decimals as it needs, at least two.
struct Millionths(i128);

impl Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        let decimals = format!("{rest:06}");
        let beyond_second = decimals[2..].trim_end_matches('0');
        write!(f, "{sign}{whole}.{}{beyond_second}", &decimals[..2])
    }
}

/// A row as `GET /payments/{id}` gives it. The real one's column knows no time zone, hence the time comes back without
/// the `Z` with which it was sent, and without zeros at its end.
pub(super) struct Stored<'a>(pub(super) &'a Row);

impl Display for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { id, amount, requested_at } = self.0;
        let time = requested_at.to_string();
        let time = time.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        write!(f, r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{time}"}}"#)
    }
}

pub(super) fn status(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    // "Empty" is what tells a caller that nothing was recorded, so it is said and not left to the framing.
    if status != StatusCode::NO_CONTENT {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    reply
}

pub(super) fn json(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(text.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    reply
}

pub(super) fn unbindable() -> Reply {
    json(StatusCode::BAD_REQUEST, r#"{"message":"The request cannot be bound."}"#)
}

pub(super) fn too_many_requests() -> Reply {
    let mut reply =
        json(StatusCode::TOO_MANY_REQUESTS, r#"{"message":"Too many requests. Try again later."}"#);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    reply
}

pub(super) fn method_not_allowed(allowed: &str) -> Reply {
    let mut reply = status(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = HeaderValue::from_str(allowed).expect("a method is a header value");
    reply.headers_mut().insert(ALLOW, allowed);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Cents;

    #[test]
    fn sums_and_fees_are_exact_and_keep_two_decimals() {
        let text =
            |count, cents, basis_points| Fee { basis_points }.summary(Sum { count, amount: Cents(cents) });
        let expected = r#"{"totalRequests":3,"totalAmount":59.70,"totalFee":2.985,"feePerTransaction":0.05}"#;
        assert_eq!(text(3, 5_970, 500), expected);
        let expected = r#"{"totalRequests":0,"totalAmount":0.00,"totalFee":0.00,"feePerTransaction":0.15}"#;
        assert_eq!(text(0, 0, 1_500), expected);
        let expected =
            r#"{"totalRequests":1,"totalAmount":-0.01,"totalFee":-0.000725,"feePerTransaction":0.0725}"#;
        assert_eq!(text(1, -1, 725), expected);
    }
}
