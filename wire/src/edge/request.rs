//! A request: what is checked of its head (CONTRACT section 5), and what is left of it for a handler.

use super::reply::Reply;
use super::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Version, http};

/// A request that has passed the checks, with the fields that mean something here.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method, one of the registered ones.
    pub method: Method,
    /// Path and query, as the client wrote them.
    pub target: http::uri::PathAndQuery,
    /// `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding`.
    pub content_encoding: Option<HeaderValue>,
    /// `X-Rinha-Token`.
    pub token: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
}

impl Request {
    /// True for a request that may be carried out again although somebody may have done so already: reading changes
    /// nothing, and a payment is known by its id. Never a purge: done twice it would also wipe what was acknowledged in
    /// between.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        is_repeatable(&self.method, self.target.path())
    }
}

fn is_repeatable(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || (*method == Method::POST && path == "/payments")
}

/// True when the client wants the connection to close after the answer.
pub(super) fn is_last(request: &hyper::Request<Incoming>) -> bool {
    let mut options = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    let mut has = |option: &[u8]| options.any(|each| each.eq_ignore_ascii_case(option));
    match request.version() {
        Version::HTTP_11 => has(b"close"),
        _ => !has(b"keep-alive"),
    }
}

/// Checks the head and reads the body.
pub(super) async fn receive(request: hyper::Request<Incoming>) -> Result<Request, Reply> {
    let (head, body) = request.into_parts();
    check_head(&head)?;
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .ok_or_else(|| Reply::error(StatusCode::BAD_REQUEST, "bad_target", "send a path"))?;
    let body = read_body(body).await?;
    let mut headers = head.headers;
    Ok(Request {
        method: head.method,
        target,
        content_type: headers.remove(header::CONTENT_TYPE),
        content_encoding: headers.remove(header::CONTENT_ENCODING),
        token: headers.remove(TOKEN),
        body,
    })
}

/// The header that carries a token, as the processors' own does (CONTRACT section 2).
pub const TOKEN: header::HeaderName = header::HeaderName::from_static("x-rinha-token");

fn check_head(head: &http::request::Parts) -> Result<(), Reply> {
    let bad = |code, message| Err(Reply::error(StatusCode::BAD_REQUEST, code, message));
    if !is_registered(&head.method) {
        return Err(Reply::error(
            StatusCode::NOT_IMPLEMENTED,
            "unknown_method",
            "use GET, HEAD, POST or OPTIONS",
        ));
    }
    let target_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len())
        + head.uri.authority().map_or(0, |authority| authority.as_str().len() + "http://".len());
    // Method, target, two spaces, version, CR LF.
    if head.method.as_str().len() + target_bytes + 12 > REQUEST_LINE_BYTES_MAX {
        return Err(Reply::error(
            StatusCode::URI_TOO_LONG,
            "target_too_long",
            "send a request line of at most 2 KiB",
        ));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head.headers.len() > FIELDS_MAX || bytes > HEAD_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Reply::error(
            status,
            "head_too_large",
            "send at most 64 header fields and 8 KiB of them",
        ));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let is_addressed = match (hosts.next(), hosts.next()) {
        (None, _) => head.version != Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    if !is_addressed {
        return bad("bad_host", "send exactly one Host field: a name or an address, and a port if need be");
    }
    if head.headers.get_all(header::CONTENT_TYPE).iter().nth(1).is_some() {
        return bad("repeated_type", "send Content-Type at most once");
    }
    check_transfer_coding(&head.headers)
}

/// What RFC 9112 section 3.2 wants in a `Host` field, and refused otherwise: RFC 3986's host, and a port or none.
fn is_host(host: &[u8]) -> bool {
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let (is_complete, port) = match host {
        [b'[', address @ ..] => {
            let len = address.iter().take_while(|byte| is_in_name(byte) || **byte == b':').count();
            let (_, rest) = address.split_at(len);
            (rest.starts_with(b"]"), rest.get(1..).unwrap_or_default())
        }
        name => (true, name.split_at(name.iter().take_while(|byte| is_in_name(byte)).count()).1),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_complete && is_port
}

/// hyper reads a body whose last coding is chunked; anything before that one is a coding that nobody here undoes.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Reply> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Reply::error(
            StatusCode::NOT_IMPLEMENTED,
            "unknown_coding",
            "use Transfer-Encoding: chunked or none",
        )),
    }
}

fn is_registered(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ]
    .contains(method)
}

async fn read_body(mut body: Incoming) -> Result<Bytes, Reply> {
    let too_large =
        || Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "send a body of at most 4 KiB");
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken =
            |_| Reply::error(StatusCode::BAD_REQUEST, "bad_body", "send the body as it was announced");
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if first.len() + whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        // Nearly every body comes in one piece.
        if first.is_empty() {
            first = data;
        } else {
            whole.extend_from_slice(&data);
        }
    }
    if whole.is_empty() {
        return Ok(first);
    }
    Ok([first, whole.freeze()].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for host in ["espora", "", "a_b-c.example:9999", "10.0.0.1:80", "[::1]", "[::1]:9999", "espora:"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a\tb", "a, b", "a/b", "a?b", "a#b", "a@b", "a\\b", "<a>", "a:http", "a:-1", "a:80:80",
            "[::1", "::1", "[::1]a", "]", "é",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_purge_is_never_carried_out_twice() {
        assert!(is_repeatable(&Method::POST, "/payments"));
        assert!(is_repeatable(&Method::GET, "/payments-summary"));
        assert!(!is_repeatable(&Method::POST, "/purge-payments"));
        assert!(!is_repeatable(&Method::POST, "/payments/"));
        assert!(!is_repeatable(&Method::PUT, "/payments"));
    }
}
