//! An answer: what a handler says, and how it is put to the client.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

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

impl Reply {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { status, body, content_type: JSON, allow: None, retry_after: false, close: false }
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

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let has_body = !self.body.is_empty();
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(header::CONTENT_TYPE, self.content_type);
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
