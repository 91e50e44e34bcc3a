//! The head of a request: httparse reads it, and what docs/http.md says about it is checked here. Pure.
//!
//! What counts of a head is its method, its target, how its body is framed, and nine fields ([`Known`]); the others must
//! be well-formed and mean nothing. Nothing is copied: a [`Head`] says where in the bytes things stand.

use crate::limits::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
use crate::reply::Reply;
use http::{Method, StatusCode};
use httparse::Status;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The longest values that lb sends on, all together: what it writes itself beside them must have room in the fields that
/// an api takes.
const PASSED_ON_BYTES_MAX: usize = HEAD_BYTES_MAX - 256;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(usize),
    /// RFC 9112 section 7.1.
    Chunks,
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) target: Range<usize>,
    pub(crate) content_type: Option<Range<usize>>,
    pub(crate) content_encoding: Option<Range<usize>>,
    pub(crate) token: Option<Range<usize>>,
    /// Of a request that only reads.
    pub(crate) accept: Vec<Range<usize>>,
    pub(crate) framing: Framing,
    /// The client waits for a word (`Expect: 100-continue`) before it sends the body.
    pub(crate) expects_continue: bool,
    /// Its client wants a close after the answer.
    pub(crate) closes: bool,
    /// It is of HTTP/1.0.
    pub(crate) is_http10: bool,
    /// Where it ends.
    pub(crate) len: usize,
}

/// A field that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Host,
    Expect,
    Accept,
    Connection,
    ContentType,
    Token,
    ContentLength,
    ContentEncoding,
    TransferEncoding,
}

impl Known {
    fn of(name: &str) -> Option<Self> {
        let (known, known_name) = match name.len() {
            4 => (Self::Host, "host"),
            6 if name.starts_with(['e', 'E']) => (Self::Expect, "expect"),
            6 => (Self::Accept, "accept"),
            10 => (Self::Connection, "connection"),
            12 => (Self::ContentType, "content-type"),
            13 => (Self::Token, TOKEN),
            14 => (Self::ContentLength, "content-length"),
            16 => (Self::ContentEncoding, "content-encoding"),
            17 => (Self::TransferEncoding, "transfer-encoding"),
            _ => return None,
        };
        name.eq_ignore_ascii_case(known_name).then_some(known)
    }
}

/// Why what has come is no request that we take, as its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Flaw {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    pub(crate) const fn bad(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn reply(self) -> Reply {
        let retry_after = self.status == StatusCode::SERVICE_UNAVAILABLE;
        Reply { retry_after, ..Reply::error(self.status, self.code, self.message).closing() }
    }
}

pub(crate) const BODY_TOO_LARGE: Flaw =
    Flaw::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "send a body of at most 4 KiB");
/// What is said instead of an answer when the process has no memory left for the request.
pub(crate) const NO_MEMORY: Flaw =
    Flaw::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "nothing was recorded; retry later");
const LINE_TOO_LONG: Flaw =
    Flaw::new(StatusCode::URI_TOO_LONG, "target_too_long", "send a request line of at most 2 KiB");
pub(crate) const FIELDS_TOO_LARGE: Flaw = Flaw::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    "send at most 64 header fields and 8 KiB of them",
);

/// The field that carries a token, as the processors' own does (docs/contract.md).
pub const TOKEN: &str = "x-rinha-token";

/// Of the fields of one head.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    host: &'a [u8],
    types: usize,
    content_type: Option<&'a [u8]>,
    content_encoding: Option<&'a [u8]>,
    token: Option<&'a [u8]>,
    accept: Vec<&'a [u8]>,
    length: Option<usize>,
    codings: usize,
    is_chunked: bool,
    expects_continue: bool,
    says_close: bool,
    says_keep_alive: bool,
}

/// Finds the head that `bytes` begin with, empty lines before it included. `None` while it is not complete.
///
/// # Errors
/// The refusal of bytes that are no head, or a bad one.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, Flaw> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return check_beginning(bytes).map(|()| None),
        // The rest of its line decides what is wrong with it.
        Err(httparse::Error::Version) if !request_line(bytes).ends_with(b"\n") => {
            return check_beginning(bytes).map(|()| None);
        }
        Err(error) => return Err(refuse(error, bytes)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Flaw::bad("bad_request", "send an HTTP/1.1 request"));
    };
    // Method, target, two spaces, version, CR LF.
    let line_len = method.len() + target.len() + 12;
    if line_len > REQUEST_LINE_BYTES_MAX {
        return Err(LINE_TOO_LONG);
    }
    let line_at = method.as_ptr().addr() - bytes.as_ptr().addr();
    if len.saturating_sub(line_at + line_len + 2) > HEAD_BYTES_MAX {
        return Err(FIELDS_TOO_LARGE);
    }
    let is_http10 = version == 0;
    let fields = Fields::read(request.headers, matches!(method, "GET" | "HEAD"))?;
    let passed_on = [fields.content_type, fields.content_encoding, fields.token].into_iter().flatten();
    let passed_on_len = passed_on.map(<[u8]>::len).sum::<usize>();
    if passed_on_len + fields.accept.iter().map(|value| value.len() + 2).sum::<usize>() > PASSED_ON_BYTES_MAX
    {
        return Err(FIELDS_TOO_LARGE);
    }
    let framing = fields.framing(is_http10)?;
    let method = registered(method)?;
    let is_addressed = match fields.hosts {
        0 => is_http10,
        1 => is_host(fields.host),
        _ => false,
    };
    if !is_addressed {
        return Err(Flaw::bad(
            "bad_host",
            "send exactly one Host field: a name or an address, and a port if need be",
        ));
    }
    if fields.types > 1 {
        return Err(Flaw::bad("repeated_type", "send Content-Type at most once"));
    }
    let place = |part: &[u8]| {
        let at = part.as_ptr().addr() - bytes.as_ptr().addr();
        at..at + part.len()
    };
    Ok(Some(Head {
        method,
        target: place(target.as_bytes()),
        content_type: fields.content_type.map(place),
        content_encoding: fields.content_encoding.map(place),
        token: fields.token.map(place),
        accept: fields.accept.into_iter().map(place).collect(),
        framing,
        expects_continue: fields.expects_continue && !is_http10,
        closes: fields.says_close || is_http10 && !fields.says_keep_alive,
        is_http10,
        len,
    }))
}

impl<'a> Fields<'a> {
    /// What a client wants to get counts for a request that `is_reading`: no other has an answer of several forms.
    fn read(headers: &[httparse::Header<'a>], is_reading: bool) -> Result<Self, Flaw> {
        let mut fields = Self::default();
        for header in headers {
            let value = header.value.trim_ascii();
            match Known::of(header.name) {
                None => (),
                Some(Known::Host) => {
                    fields.hosts += 1;
                    fields.host = value;
                }
                Some(Known::ContentType) => {
                    fields.types += 1;
                    fields.content_type = Some(value);
                }
                Some(Known::Accept) if is_reading => fields.accept.push(value),
                Some(Known::Accept) => (),
                Some(Known::ContentEncoding) => fields.content_encoding = Some(value),
                Some(Known::Token) => fields.token = fields.token.or(Some(value)),
                Some(Known::ContentLength) => {
                    let length = length(value)?;
                    // RFC 9112 section 6.3: as good as once, if they agree.
                    if fields.length.is_some_and(|other| other != length) {
                        return Err(Flaw::bad("bad_length", "send one Content-Length"));
                    }
                    fields.length = Some(length);
                }
                Some(Known::TransferEncoding) => {
                    fields.codings += 1;
                    fields.is_chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                Some(Known::Expect) => fields.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
                Some(Known::Connection) => {
                    for wish in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        fields.says_close |= wish.eq_ignore_ascii_case(b"close");
                        fields.says_keep_alive |= wish.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
            }
        }
        Ok(fields)
    }

    fn framing(&self, is_http10: bool) -> Result<Framing, Flaw> {
        match (self.codings, self.length) {
            (0, length) => match length.unwrap_or(0) {
                length @ ..=BODY_BYTES_MAX => Ok(Framing::Length(length)),
                _ => Err(BODY_TOO_LARGE),
            },
            (_, Some(_)) => {
                Err(Flaw::bad("two_framings", "send Content-Length or Transfer-Encoding, not both"))
            }
            (_, None) if is_http10 => Err(Flaw::bad("bad_framing", "HTTP/1.0 has no Transfer-Encoding")),
            (1, None) if self.is_chunked => Ok(Framing::Chunks),
            _ => Err(Flaw::new(
                StatusCode::NOT_IMPLEMENTED,
                "unknown_coding",
                "use Transfer-Encoding: chunked or none",
            )),
        }
    }
}

/// RFC 9110 section 8.6: digits. A length beyond all numbers is one over the limit.
fn length(value: &[u8]) -> Result<usize, Flaw> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Flaw::bad("bad_length", "send the length in decimal digits"));
    }
    let digit = |length: usize, byte: &u8| length.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
    Ok(value.iter().fold(0, digit))
}

fn registered(method: &str) -> Result<Method, Flaw> {
    Ok(match method {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "POST" => Method::POST,
        "OPTIONS" => Method::OPTIONS,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        "PATCH" => Method::PATCH,
        "TRACE" => Method::TRACE,
        "CONNECT" => Method::CONNECT,
        _ => {
            let status = StatusCode::NOT_IMPLEMENTED;
            return Err(Flaw::new(status, "unknown_method", "use GET, HEAD, POST or OPTIONS"));
        }
    })
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

/// The request line that `bytes` begin with behind empty lines, its LF included; all of them while it is not complete.
fn request_line(bytes: &[u8]) -> &[u8] {
    let is_empty_line = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let request = &bytes[bytes.iter().take_while(is_empty_line).count()..];
    &request[..request.iter().position(|byte| *byte == b'\n').map_or(request.len(), |at| at + 1)]
}

/// Whether what is not a head yet can still become one that is short enough.
fn check_beginning(bytes: &[u8]) -> Result<(), Flaw> {
    let line_len = request_line(bytes).len();
    if line_len > REQUEST_LINE_BYTES_MAX {
        return Err(LINE_TOO_LONG);
    }
    // Empty lines before a request are borne, but not for ever.
    if bytes.len() - line_len > HEAD_BYTES_MAX {
        return Err(FIELDS_TOO_LARGE);
    }
    Ok(())
}

fn refuse(error: httparse::Error, bytes: &[u8]) -> Flaw {
    match error {
        httparse::Error::TooManyHeaders => FIELDS_TOO_LARGE,
        httparse::Error::Version if is_of_another_version(bytes) => {
            Flaw::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "bad_version", "use HTTP/1.1")
        }
        _ => Flaw::bad("bad_request", "send an HTTP/1.1 request, each line of it with CR LF at its end"),
    }
}

/// A request line that is one but for its version: `HTTP/2.0`.
fn is_of_another_version(bytes: &[u8]) -> bool {
    let line = request_line(bytes);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The status that a whole head is refused with, or its body's framing.
    fn read(head: &str) -> Result<Framing, u16> {
        match parse(head.as_bytes()) {
            Ok(Some(head)) => Ok(head.framing),
            Ok(None) => panic!("{head:?} is not complete"),
            Err(flaw) => Err(flaw.status.as_u16()),
        }
    }

    fn with(fields: &str) -> Result<Framing, u16> {
        read(&format!("POST /payments HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn a_body_is_framed_in_one_way_or_refused() {
        for (fields, expected) in [
            ("", Ok(Framing::Length(0))),
            ("Content-Length: 4096\r\n", Ok(Framing::Length(4096))),
            ("content-length:007 \r\nCONTENT-LENGTH: 7\r\n", Ok(Framing::Length(7))),
            ("Content-Length: 4097\r\n", Err(413)),
            ("Content-Length: 99999999999999999999999\r\n", Err(413)),
            ("Content-Length: 7\r\nContent-Length: 8\r\n", Err(400)),
            ("Content-Length: 7, 7\r\n", Err(400)),
            ("Content-Length: +7\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunks)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(400)),
            ("Content-Length: 5\r\nTransfer-Encoding: gzip\r\n", Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(501)),
            ("Transfer-Encoding:\r\n", Err(501)),
        ] {
            assert_eq!(with(fields), expected, "{fields:?}");
        }
        assert_eq!(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
    }

    #[test]
    fn fields_of_a_head_are_found_where_they_stand() {
        let bytes =
            b"\r\nPOST /a?b HTTP/1.1\r\nX: y\r\nHost: a\r\ncontent-TYPE:  text/x \r\nX-Rinha-Token: t\r\n\
            Content-Encoding: br\r\nExpect: 100-continue\r\nConnection: a, Close\r\n\r\nbody";
        let head = parse(bytes).unwrap().unwrap();
        let part = |range: Range<usize>| str::from_utf8(&bytes[range]).unwrap();
        assert_eq!(part(head.target.clone()), "/a?b");
        let fields = [head.content_type.clone(), head.token.clone(), head.content_encoding.clone()];
        assert_eq!(fields.map(|field| part(field.unwrap())), ["text/x", "t", "br"]);
        assert_eq!(&bytes[head.len..], b"body");
        assert!(head.expects_continue && head.closes && !head.is_http10);
    }

    #[test]
    fn a_client_of_http_1_0_says_when_it_stays_and_expects_nothing() {
        let old =
            |fields: &str| parse(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        assert!(old("").closes && old("").is_http10);
        assert!(!old("Connection: Keep-Alive\r\n").closes);
        assert!(old("Connection: keep-alive, close\r\n").closes);
        assert!(!old("Expect: 100-continue\r\n").expects_continue);
    }

    #[test]
    fn a_head_that_grows_too_long_is_refused_before_its_end() {
        let beginning = |bytes: &[u8]| parse(bytes).map_err(|flaw| flaw.status.as_u16());
        let line = "GET /".to_owned() + &"a".repeat(REQUEST_LINE_BYTES_MAX - 5);
        assert_eq!(beginning(line.as_bytes()), Ok(None));
        assert_eq!(beginning((line + "a").as_bytes()), Err(414));
        let field = "GET / HTTP/1.1\r\nA: ".to_owned() + &"a".repeat(HEAD_BYTES_MAX - 3);
        assert_eq!(beginning(field.as_bytes()), Ok(None));
        assert_eq!(beginning((field + "a").as_bytes()), Err(431));
        assert_eq!(beginning("\r\n".repeat(HEAD_BYTES_MAX).as_bytes()), Err(431));
        assert_eq!(beginning("GET / HTTP/1.1\r\n".repeat(70).as_bytes()), Err(400));
        let passed_on = |len| format!("GET / HTTP/1.1\r\nHost:\r\nContent-Type:{}\r\n\r\n", "a".repeat(len));
        assert!(matches!(beginning(passed_on(PASSED_ON_BYTES_MAX).as_bytes()), Ok(Some(_))));
        assert_eq!(beginning(passed_on(PASSED_ON_BYTES_MAX + 1).as_bytes()), Err(431));
        let fields = |count| "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"A: b\r\n".repeat(count);
        assert_eq!(beginning(fields(FIELDS_MAX - 1).as_bytes()), Ok(None));
        assert_eq!(beginning(fields(FIELDS_MAX).as_bytes()), Err(431));
    }

    #[test]
    fn another_version_is_not_supported_and_another_protocol_is_no_request() {
        for (line, expected) in [
            ("PRI * HTTP/2.0", 505),
            ("GET / HTTP/1.2", 505),
            ("GET / HTTP/0.9", 505),
            ("GET /a b HTTP/1.1", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.10", 400),
            ("GET / SIP/2.0", 400),
            ("GET /", 400),
            ("\x16\x03\x01", 400),
        ] {
            assert_eq!(read(&format!("{line}\r\n\r\n")), Err(expected), "{line:?}");
        }
    }

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

    proptest! {
        #[test]
        fn whatever_comes_is_a_head_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        /// A head is the same however much of the next request is there already.
        #[test]
        fn bytes_behind_a_head_change_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec!["A: b\r\n", "Host: x\r\n", "\n", "\r\n", "Content-Length: 3\r\n", "\t", "\0", "x"]),
                0..8,
            ),
            rest in prop::sample::select(vec!["", "a", "\r\n", "GET / HTTP/1.1\r\n\r\n", "\0"]),
        ) {
            let bytes = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &parts.concat();
            if let Ok(Some(head)) = parse(bytes.as_bytes()) {
                let longer = bytes + rest;
                prop_assert_eq!(parse(longer.as_bytes()).unwrap().unwrap(), head);
            }
        }
    }
}
