//! An answer: what a handler says, and how it is put to the client.

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};
use wire::time::Timestamp;
use wire::{media, metrics};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// `Content-Type`, where there is a body.
    pub content_type: HeaderValue,
    /// `Allow`.
    pub allow: Option<HeaderValue>,
    /// `Retry-After: 1`.
    pub retry_after: bool,
    /// The connection closes after it.
    pub close: bool,
}

/// `Content-Type` of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Prometheus' name for OpenMetrics ...
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// ... and for its own older text.
const METRICS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// All that an answer says beside its body, a long `Allow` excepted.
const HEAD_BYTES_MAX: usize = 256;

/// The client of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplyFor {
    /// It asked with `HEAD`: it gets no body.
    pub(crate) is_head: bool,
    /// It speaks HTTP/1.0: it must be told that the connection stays.
    pub(crate) is_http10: bool,
}

impl Reply {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { status, body, content_type: JSON, allow: None, retry_after: false, close: false }
    }

    /// Numbers for Prometheus, which are given as OpenMetrics: in that form for a client that asks for it, else as text
    /// 0.0.4, which every reader of metrics knows.
    #[must_use]
    pub fn metrics(openmetrics: String, accept: Option<&HeaderValue>) -> Self {
        let accept = accept.map(HeaderValue::as_bytes).unwrap_or_default();
        let (content_type, text) = if media::prefers_openmetrics(accept) {
            (OPENMETRICS, openmetrics)
        } else {
            (METRICS_TEXT, metrics::as_text(&openmetrics))
        };
        Self { content_type, ..Self::json(StatusCode::OK, text) }
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self::json(status, Bytes::new())
    }

    /// An error: a code for machines and a sentence that says what to change. Neither echoes the input.
    #[must_use]
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, format!(r#"{{"error":"{code}","message":"{message}"}}"#))
    }

    /// The same, and the connection closes after it.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// 503: nothing was recorded.
    #[must_use]
    pub fn unavailable(code: &str, message: &str) -> Self {
        Self { retry_after: true, ..Self::error(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    /// 504: a process that is gone, or does not answer, may have recorded the request.
    #[must_use]
    pub fn unknown() -> Self {
        let message = "the outcome is unknown; repeating a payment with the same correlationId is safe";
        Self::error(StatusCode::GATEWAY_TIMEOUT, "unknown", message)
    }

    /// True when this says that nothing was recorded, which the process that says it knows of itself only.
    #[must_use]
    pub fn denies_a_record(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The answer as it is written.
    pub(crate) fn encode(&self, asker: ReplyFor) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES_MAX + self.body.len());
        let mut put = |part: &[u8]| out.extend_from_slice(part);
        put(b"HTTP/1.1 ");
        put(self.status.as_str().as_bytes());
        put(b" ");
        put(self.status.canonical_reason().unwrap_or_default().as_bytes());
        // An answer to HEAD that comes from a backend has its type, and lost its body there.
        if !self.body.is_empty() || asker.is_head {
            put(b"\r\ncontent-type: ");
            put(self.content_type.as_bytes());
        }
        if let Some(allow) = &self.allow {
            put(b"\r\nallow: ");
            put(allow.as_bytes());
        }
        if self.retry_after {
            put(b"\r\nretry-after: 1");
        }
        if self.close {
            put(b"\r\nconnection: close");
        } else if asker.is_http10 {
            put(b"\r\nconnection: keep-alive");
        }
        // RFC 9110 section 8.6. The length of a body is unknown where a backend left it out for HEAD.
        if self.status != StatusCode::NO_CONTENT && !(asker.is_head && self.body.is_empty()) {
            put(b"\r\ncontent-length: ");
            put(itoa::Buffer::new().format(self.body.len()).as_bytes());
        }
        put(b"\r\ndate: ");
        put(&date());
        put(b"\r\n\r\n");
        if !asker.is_head {
            put(&self.body);
        }
        out
    }
}

/// `Sat, 21 Nov 2026 12:34:56 GMT`
type Date = [u8; 29];

/// The present, as RFC 9110 section 5.6.7 writes it. The text is made once a second.
fn date() -> Date {
    thread_local! {
        static LAST: Cell<(u64, Date)> = const { Cell::new((0, *b"Thu, 01 Jan 1970 00:00:00 GMT")) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (second, date) = LAST.get();
    if now == second {
        return date;
    }
    let date = Timestamp::from_ms(now.saturating_mul(1_000)).as_http_date().unwrap_or(date);
    LAST.set((now, date));
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply, asker: ReplyFor) -> String {
        let text = String::from_utf8(reply.encode(asker)).unwrap();
        let (before, rest) = text.split_once("\r\ndate: ").unwrap();
        let (date, after) = rest.split_at(29);
        assert!(date.ends_with(" GMT") && !date.contains("1970"), "{date}");
        format!("{before}{after}")
    }

    #[test]
    fn an_answer_has_the_fields_that_its_client_needs() {
        let here = ReplyFor::default();
        assert_eq!(
            text(&Reply::json(StatusCode::OK, "{}"), here),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert_eq!(
            text(&Reply::empty(StatusCode::ACCEPTED), here),
            "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
        );
        let allow = Some(HeaderValue::from_static("GET"));
        assert_eq!(
            text(&Reply { allow, ..Reply::empty(StatusCode::NO_CONTENT) }, here),
            "HTTP/1.1 204 No Content\r\nallow: GET\r\n\r\n"
        );
        assert_eq!(
            text(&Reply::unavailable("a", "b").closing(), here),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
             connection: close\r\ncontent-length: 27\r\n\r\n{\"error\":\"a\",\"message\":\"b\"}"
        );
    }

    #[test]
    fn an_answer_to_head_has_no_body_and_one_of_http_1_0_says_that_it_stays() {
        let head = ReplyFor { is_head: true, is_http10: false };
        assert_eq!(
            text(&Reply::json(StatusCode::OK, "{}"), head),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        );
        assert_eq!(
            text(&Reply::empty(StatusCode::OK), head),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
        );
        let old = ReplyFor { is_head: false, is_http10: true };
        assert_eq!(
            text(&Reply::empty(StatusCode::OK), old),
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n"
        );
        assert!(text(&Reply::empty(StatusCode::OK).closing(), old).contains("connection: close"));
    }
}
