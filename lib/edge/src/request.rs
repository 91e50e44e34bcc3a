//! A request, and how it is put together from what has come of a connection. Pure: no socket.

use crate::chunks::Chunks;
use crate::head::{self, Flaw, Framing, Head};
use crate::limits::{HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use std::mem;
use std::ops::Range;

/// A request that has passed the checks, with the fields that mean something here.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method, one of the registered ones.
    pub method: Method,
    /// Path and query, as the client wrote them.
    pub target: PathAndQuery,
    /// `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding`.
    pub content_encoding: Option<HeaderValue>,
    /// `X-Rinha-Token`.
    pub token: Option<HeaderValue>,
    /// `Accept` of a request that only reads, as one list (RFC 9110 section 5.3).
    pub accept: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
}

impl Request {
    /// True for a request that may be carried out again although it may have been carried out already: reading changes
    /// nothing, and a payment is known by its id. Never a purge: done twice it would also wipe what was acknowledged in
    /// between.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        is_repeatable(&self.method, self.target.path())
    }

    /// True for a request that must not be carried out once its client has given it up: a purge, which would forget what
    /// was acknowledged since.
    #[must_use]
    pub fn is_for_present_clients(&self) -> bool {
        self.method == Method::POST && self.target.path() == "/purge-payments"
    }
}

fn is_repeatable(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || (*method == Method::POST && path == "/payments")
}

/// What a connection has brought.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing yet.
    More,
    /// A client that waits to be told that it may send the body.
    Continue,
    Complete(Box<Complete>),
}

/// A whole request, and what its answer has to know.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) request: Request,
    /// Its client wants a close after the answer.
    pub(crate) closes: bool,
    /// It is of HTTP/1.0.
    pub(crate) is_http10: bool,
    /// Bytes of memory that the request takes.
    pub(crate) memory: usize,
}

/// What is no request that we take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) flaw: Flaw,
    /// It claims to be one of `HEAD`, and gets no body.
    pub(crate) is_head: bool,
}

/// What a request that comes in pieces gets more memory in.
const GROWTH_BYTES: usize = 512;

/// Finds requests in what has come of a connection.
///
/// Nearly all come whole and are read in one go; one that comes in pieces is looked at when a line of its head ends, then
/// when its body may have.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    held: Vec<u8>,
    /// In so many bytes no head ends.
    seen: usize,
    /// Bytes of empty lines before the request at hand, which are dropped as they come (RFC 9112 section 2.2).
    skipped: usize,
    /// A request whose head has come, and its body has not.
    begun: Option<Box<Begun>>,
}

#[derive(Debug)]
struct Begun {
    head: Head,
    chunks: Chunks,
    /// A part of the body has come, or its client was told to send it.
    has_body: bool,
}

impl Reader {
    /// Takes what has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // What comes in small pieces takes little more memory than it has bytes.
        if !self.held.is_empty() && self.held.capacity() - self.held.len() < bytes.len() {
            self.held.reserve_exact(bytes.len().max(GROWTH_BYTES));
        }
        self.held.extend_from_slice(bytes);
        if self.begun.is_none() {
            self.skip_empty_lines();
        }
    }

    /// Drops empty lines before a request. A CR whose LF has not come stays.
    fn skip_empty_lines(&mut self) {
        let mut len = 0;
        loop {
            match &self.held[len..] {
                [b'\r', b'\n', ..] => len += 2,
                [b'\n', ..] => len += 1,
                _ => break,
            }
        }
        if len > 0 {
            self.held.drain(..len);
            if self.held.is_empty() {
                self.held = Vec::new();
            }
            self.skipped += len;
            self.seen = 0;
        }
    }

    /// Bytes of memory that it has for what has come.
    pub(crate) fn memory(&self) -> usize {
        let begun = self.begun.as_ref().map_or(0, |begun| size_of::<Begun>() + begun.chunks.memory());
        self.held.capacity() + begun
    }

    /// True when a part of a request has come; an empty line, or its CR, is none.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some() || !matches!(self.held[..], [] | [b'\r'])
    }

    /// Bytes that have come and belong to no whole request yet.
    pub(crate) fn held_len(&self) -> usize {
        self.held.len()
    }

    /// The next request.
    ///
    /// # Errors
    /// The refusal of anything else. Nothing that comes after it is a request.
    pub(crate) fn next(&mut self) -> Result<Next, Refused> {
        let is_head = self.held.starts_with(b"HEAD ");
        self.read().map_err(|flaw| Refused { flaw, is_head })
    }

    fn read(&mut self) -> Result<Next, Flaw> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => match self.head()? {
                None => return Ok(Next::More),
                Some(head) => {
                    if let Framing::Length(len) = head.framing
                        && self.held.len() >= head.len + len
                    {
                        return self.cut(&head, head.len + len, None);
                    }
                    Box::new(Begun { head, chunks: Chunks::default(), has_body: false })
                }
            },
        };
        let at = begun.head.len;
        match begun.head.framing {
            Framing::Length(len) if self.held.len() >= at + len => {
                return self.cut(&begun.head, at + len, None);
            }
            Framing::Length(_) => (),
            Framing::Chunks => {
                let (len, body) = begun.chunks.read(&self.held[at..])?;
                if body.is_some() {
                    return self.cut(&begun.head, at + len, body);
                }
                // It is not needed any more.
                self.held.drain(at..at + len);
                begun.has_body |= len > 0;
            }
        }
        begun.has_body |= self.held.len() > at;
        let wants_continue = begun.head.expects_continue && !begun.has_body;
        // Once is enough.
        begun.has_body |= wants_continue;
        self.begun = Some(begun);
        Ok(if wants_continue { Next::Continue } else { Next::More })
    }

    fn head(&mut self) -> Result<Option<Head>, Flaw> {
        // Empty lines are borne, but not for ever.
        if self.skipped > HEAD_BYTES_MAX {
            return Err(head::FIELDS_TOO_LARGE);
        }
        // A head ends with a line, and one that never can is known by a byte that no head has.
        let decides = |byte: &u8| *byte == b'\n' || byte.is_ascii_control() && !matches!(byte, b'\r' | b'\t');
        let is_long = self.held.len() > REQUEST_LINE_BYTES_MAX && self.seen <= REQUEST_LINE_BYTES_MAX
            || self.held.len() > REQUEST_LINE_BYTES_MAX + HEAD_BYTES_MAX;
        if !is_long && !self.held[self.seen..].iter().any(decides) {
            self.seen = self.held.len();
            return Ok(None);
        }
        self.seen = self.held.len();
        head::parse(&self.held)
    }

    /// Takes a request out that ends at `end`; a body in chunks is put together already.
    fn cut(&mut self, head: &Head, end: usize, body: Option<Vec<u8>>) -> Result<Next, Flaw> {
        // What follows keeps its memory: a short request would else hold that of all that came together with it.
        let held =
            if self.held.len() == end { mem::take(&mut self.held) } else { self.held.drain(..end).collect() };
        let memory = held.capacity() + body.as_ref().map_or(0, Vec::capacity);
        let bytes = Bytes::from(held);
        (self.seen, self.skipped) = (0, 0);
        self.skip_empty_lines();
        let part = |range: &Range<usize>| bytes.slice(range.clone());
        let field = |range: &Option<Range<usize>>| {
            range.as_ref().and_then(|range| HeaderValue::from_maybe_shared(part(range)).ok())
        };
        let request = Request {
            method: head.method.clone(),
            target: path_and_query(part(&head.target))?,
            content_type: field(&head.content_type),
            content_encoding: field(&head.content_encoding),
            token: field(&head.token),
            accept: accept(&bytes, &head.accept),
            body: body.map_or_else(|| bytes.slice(head.len..), Bytes::from),
        };
        Ok(Next::Complete(Box::new(Complete {
            request,
            closes: head.closes,
            is_http10: head.is_http10,
            memory,
        })))
    }
}

/// Several fields are one list.
fn accept(bytes: &Bytes, fields: &[Range<usize>]) -> Option<HeaderValue> {
    let list = match fields {
        [] => return None,
        [one] => bytes.slice(one.clone()),
        several => {
            several.iter().map(|range| &bytes[range.clone()]).collect::<Vec<_>>().join(&b", "[..]).into()
        }
    };
    HeaderValue::from_maybe_shared(list).ok()
}

/// Of a path, a whole address, or `*`.
fn path_and_query(target: Bytes) -> Result<PathAndQuery, Flaw> {
    let target = Uri::from_maybe_shared(target).ok().and_then(|uri| uri.into_parts().path_and_query);
    match target {
        // RFC 9110 section 4.2.3: an empty path is as good as `/`, and is shown so.
        Some(target) if target.as_str().starts_with('?') => PathAndQuery::try_from(target.to_string()).ok(),
        target => target,
    }
    .ok_or(Flaw::bad("bad_target", "send a path"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::read;
    use proptest::prelude::*;

    const PAYMENT: &str =
        "POST /payments?a HTTP/1.1\r\nHost: a\r\nContent-Type: x/y\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn requests_are_found_one_behind_the_other_however_they_come() {
        let coded = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        let bytes = [PAYMENT, coded, "GET http://a?/b HTTP/1.0\r\n\r\n", PAYMENT, "GET"].concat();
        for piece in [1, 2, 7, 100, 1000] {
            let (requests, rest) = read(bytes.as_bytes(), piece);
            assert_eq!((requests.len(), rest), (4, Ok(3)), "by {piece}");
            assert!(
                requests[0].contains("/payments?a") && requests[0].contains("b\"body\""),
                "{}",
                requests[0]
            );
            assert!(requests[1].contains("b\"a\""), "{}", requests[1]);
            assert!(
                requests[2].contains("target: /?/b,") && requests[2].contains("is_http10: true"),
                "{}",
                requests[2]
            );
            assert_eq!(requests[3], requests[0]);
        }
    }

    #[test]
    fn the_whole_request_line_decides_how_it_is_refused() {
        for (line, status) in
            [("GET / HTTP/2.0", 505), ("GET / HTTP/2.0\x0c\x03", 400), ("GET / HTTP/2.0 x", 400)]
        {
            let bytes = format!("\n\n{line}\r\nt:\n\n");
            for piece in 1..bytes.len() {
                assert_eq!(read(bytes.as_bytes(), piece), (Vec::new(), Err(status)), "{line:?} by {piece}");
            }
        }
    }

    #[test]
    fn nothing_is_read_behind_what_is_refused() {
        for (bad, status) in [
            ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\x16\x03\x01", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ] {
            for piece in [1, 5, 1000] {
                let bytes = [PAYMENT, bad, PAYMENT].concat();
                let (requests, rest) = read(bytes.as_bytes(), piece);
                assert_eq!((requests.len(), rest), (1, Err(status)), "{bad:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_as_soon_as_it_is_too_long() {
        for (beginning, max, status) in [
            ("GET /", REQUEST_LINE_BYTES_MAX, 414),
            ("GET / HTTP/1.1\r\nA: ", REQUEST_LINE_BYTES_MAX + HEAD_BYTES_MAX, 431),
        ] {
            let mut reader = Reader::default();
            reader.push(beginning.as_bytes());
            let mut held = beginning.len();
            let refusal = loop {
                match reader.next() {
                    Ok(_) => reader.push(b"a"),
                    Err(refused) => break refused.flaw.status.as_u16(),
                }
                held += 1;
                assert!(held <= max + 1, "{held} bytes are held");
            };
            assert_eq!(refusal, status);
        }
    }

    #[test]
    fn an_empty_line_alone_is_no_request_and_is_not_held() {
        let mut reader = Reader::default();
        for piece in ["", "\r\n", "\n", "\r", "\n\r\n", "\r"] {
            reader.push(piece.as_bytes());
            assert!(matches!(reader.next(), Ok(Next::More)));
            assert!(!reader.has_begun() && reader.held_len() <= 1);
        }
        reader.push(b"\nG");
        assert!(reader.has_begun());
        let mut reader = Reader::default();
        reader.push([PAYMENT, "\r\n\r"].concat().as_bytes());
        assert!(matches!(reader.next(), Ok(Next::Complete(_))));
        assert!(!reader.has_begun() && reader.held_len() == 1);
        reader.push(b"\n\r\n");
        reader.push(PAYMENT.as_bytes());
        assert!(matches!(reader.next(), Ok(Next::Complete(_))));
        // Another byte behind a CR is no empty line.
        reader.push(b"\r");
        reader.push(b"G");
        assert!(reader.has_begun());
        let (requests, rest) = read("\r\n".repeat(HEAD_BYTES_MAX).as_bytes(), 100);
        assert_eq!((requests.len(), rest), (0, Err(431)));
    }

    #[test]
    fn of_a_body_in_chunks_only_what_is_not_read_is_held() {
        let mut reader = Reader::default();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        reader.push(head);
        for _ in 0..1_000 {
            assert!(matches!(reader.next(), Ok(Next::More)));
            assert!(reader.held_len() < head.len() + 10);
            reader.push(b"1;aa\r\na\r\n2");
            assert!(matches!(reader.next(), Ok(Next::More)));
            reader.push(b"\r\nab\r\n");
        }
        reader.push(b"0\r\n\r\nGET");
        assert!(matches!(reader.next(), Ok(Next::Complete(whole)) if whole.request.body.len() == 3_000));
        assert_eq!(reader.held_len(), 3);
    }

    #[test]
    fn a_client_that_expects_100_gets_it_once_unless_it_goes_on() {
        let head = PAYMENT.replace("\r\n\r\nbody", "\r\nExpect: 100-continue\r\n\r\n");
        let mut reader = Reader::default();
        reader.push(head.as_bytes());
        assert!(matches!(reader.next(), Ok(Next::Continue)));
        assert!(matches!(reader.next(), Ok(Next::More)));
        reader.push(b"body");
        assert!(matches!(reader.next(), Ok(Next::Complete(_))));
        reader.push(head.as_bytes());
        reader.push(b"b");
        assert!(matches!(reader.next(), Ok(Next::More)));
    }

    #[test]
    fn a_purge_is_never_carried_out_twice() {
        assert!(is_repeatable(&Method::POST, "/payments"));
        assert!(is_repeatable(&Method::GET, "/payments-summary"));
        assert!(!is_repeatable(&Method::POST, "/purge-payments"));
        assert!(!is_repeatable(&Method::POST, "/payments/"));
        assert!(!is_repeatable(&Method::PUT, "/payments"));
    }

    proptest! {
        /// Requests, what is left of the stream, and whether it is refused.
        #[test]
        fn how_a_stream_is_cut_makes_no_difference(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    PAYMENT, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "1\r\na\r\n", "0\r\n\r\n", "A: b\r\n", "\n", "\r", "\0", "x", " ", "Content-Length: 2\r\n\r\nab",
                    "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n",
                ]),
                0..7,
            ),
            piece in 1_usize..40,
        ) {
            // Only where a line ends it is looked whether there is a head.
            let bytes = (parts.concat() + "\n").into_bytes();
            prop_assert_eq!(read(&bytes, piece), read(&bytes, 10_000));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..60) {
            let _ = read(&bytes, piece);
        }
    }
}
