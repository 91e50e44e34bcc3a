//! What a stream of bytes means, read by the grammar of RFC 9112 rule by rule, with nothing of the product in it: the
//! requests that the client has sent, and how what follows them is wrong.
//!
//! Each method of [`Cursor`] is one rule of the grammar and takes its bytes one after the other; where the bytes end
//! inside a rule the request is incomplete, where they do not fit it is malformed, and that ends the reading. A server
//! may refuse more than this does. It must never accept more, nor read the same bytes in another way.
//!
//! A server may go beyond the grammar only here, where no boundary between requests moves:
//!
//! | section | what is taken, too |
//! |---|---|
//! | 2.2 | empty lines before a request; LF alone at the end of a request line or of a field line in a head |
//! | 3.2 | a target with a fragment, which is dropped; bytes beyond ASCII in it; `*` and a whole address for any method |
//! | 6.3 | equal lengths in several fields, which count once |
//!
//! Chunks and trailers (section 7.1) have no such freedom: each byte is what the grammar says.

/// A request as its client has sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: Vec<u8>,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Nothing after it is a request.
    pub(crate) is_last: bool,
}

impl Request {
    /// The values of a field, whose name is given in lower case.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn path(&self) -> &[u8] {
        self.target.split(|byte| *byte == b'?').next().unwrap_or_default()
    }
}

/// What comes after the last whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing that counts.
    Nothing,
    /// The beginning of a request, and whether it is one of `HEAD`.
    Incomplete(bool),
    /// No request, and whether it claims to be one of `HEAD`.
    Malformed(bool),
}

/// A stream that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) requests: Vec<Request>,
    pub(crate) rest: Rest,
}

impl Reading {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut cursor = Cursor { bytes, at: 0 };
        let mut requests: Vec<Request> = Vec::new();
        loop {
            while cursor.skips(b"\r\n") || cursor.skips(b"\n") {}
            let is_over = cursor.rest().is_empty() || requests.last().is_some_and(|request| request.is_last);
            let is_head = cursor.rest().starts_with(b"HEAD ");
            let rest = match if is_over { Err(None) } else { cursor.http_message().map_err(Some) } {
                Ok(request) => {
                    requests.push(request);
                    continue;
                }
                Err(None) => Rest::Nothing,
                Err(Some(Flaw::Incomplete)) => Rest::Incomplete(is_head),
                Err(Some(Flaw::Malformed)) => Rest::Malformed(is_head),
            };
            return Self { requests, rest };
        }
    }

    /// True when the answer with this number has no body whatever its head says.
    pub(crate) fn is_head(&self, number: usize) -> bool {
        match self.requests.get(number) {
            Some(request) => request.method == "HEAD",
            None => {
                number == self.requests.len()
                    && matches!(self.rest, Rest::Incomplete(true) | Rest::Malformed(true))
            }
        }
    }
}

enum Flaw {
    Incomplete,
    Malformed,
}

type Read<T> = Result<T, Flaw>;

/// A class of bytes (RFC 5234, appendix B, and RFC 9110, section 5.6).
type Class = fn(u8) -> bool;

const SP: Class = |byte| byte == 0x20;
const BLANK: Class = |byte| byte == 0x20 || byte == 0x09;
const HEXDIG: Class = |byte| char::from(byte).is_ascii_hexdigit();
const TCHAR: Class = |byte| match char::from(byte) {
    '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '.' | '^' | '_' | '`' | '|' | '~' => true,
    char => char.is_ascii_digit() || char.is_ascii_alphabetic(),
};
const VCHAR: Class = |byte| (0x21..=0x7e).contains(&byte);
const OBS_TEXT: Class = |byte| byte >= 0x80;
const FIELD_CONTENT: Class = |byte| BLANK(byte) || VCHAR(byte) || OBS_TEXT(byte);
const QDTEXT: Class = |byte| FIELD_CONTENT(byte) && byte != 0x22 && byte != 0x5c;
const IN_TARGET: Class = |byte| VCHAR(byte) || OBS_TEXT(byte);

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    // What rules are made of.

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Takes these bytes if they are there.
    fn skips(&mut self, bytes: &[u8]) -> bool {
        let is_there = self.rest().starts_with(bytes);
        self.at += if is_there { bytes.len() } else { 0 };
        is_there
    }

    /// Takes the byte that comes next if it is this one. Something must come.
    fn takes(&mut self, byte: u8) -> Read<bool> {
        if self.rest().is_empty() { Err(Flaw::Incomplete) } else { Ok(self.skips(&[byte])) }
    }

    /// These bytes and no others.
    fn literal(&mut self, bytes: &[u8]) -> Read<()> {
        bytes.iter().try_for_each(|byte| if self.takes(*byte)? { Ok(()) } else { Err(Flaw::Malformed) })
    }

    /// `*class`
    fn any(&mut self, class: Class) -> &'a [u8] {
        let len = self.rest().iter().take_while(|byte| class(**byte)).count();
        self.at += len;
        &self.bytes[self.at - len..self.at]
    }

    /// `1*class`
    fn some(&mut self, class: Class) -> Read<&'a [u8]> {
        match self.any(class) {
            [] if self.rest().is_empty() => Err(Flaw::Incomplete),
            [] => Err(Flaw::Malformed),
            run => Ok(run),
        }
    }

    /// So many bytes of any kind.
    fn octets(&mut self, len: usize) -> Read<&'a [u8]> {
        let octets = self.rest().get(..len).ok_or(Flaw::Incomplete)?;
        self.at += len;
        Ok(octets)
    }

    // RFC 9112 section 2: messages.

    /// `HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]`
    fn http_message(&mut self) -> Read<Request> {
        let method = text(self.some(TCHAR)?);
        self.some_once(SP)?;
        let target = path_and_query(self.some(IN_TARGET)?)?;
        self.some_once(SP)?;
        self.literal(b"HTTP/1.")?;
        let is_1_1 = self.takes(b'1')?;
        if !is_1_1 {
            self.literal(b"0")?;
        }
        self.end_of_head_line()?;
        let mut fields = Vec::new();
        while !self.ends_head()? {
            fields.push(self.field_line()?);
            self.end_of_head_line()?;
        }
        let mut request = Request { method, target, fields, body: Vec::new(), is_last: false };
        request.is_last = check_head(&request, is_1_1)?;
        request.body = self.message_body(&request, is_1_1)?;
        Ok(request)
    }

    /// One byte of a class.
    fn some_once(&mut self, class: Class) -> Read<()> {
        match self.rest().first() {
            None => Err(Flaw::Incomplete),
            Some(byte) if !class(*byte) => Err(Flaw::Malformed),
            Some(_) => {
                self.at += 1;
                Ok(())
            }
        }
    }

    /// CRLF, or LF by the freedom of section 2.2.
    fn end_of_head_line(&mut self) -> Read<()> {
        if self.takes(b'\n')? { Ok(()) } else { self.literal(b"\r\n") }
    }

    /// The empty line behind the fields, if it comes next.
    fn ends_head(&mut self) -> Read<bool> {
        if self.rest().first().is_some_and(|byte| TCHAR(*byte)) {
            return Ok(false);
        }
        self.end_of_head_line().map(|()| true)
    }

    /// `field-line = field-name ":" OWS field-value OWS` (section 5)
    fn field_line(&mut self) -> Read<(String, Vec<u8>)> {
        let name = text(self.some(TCHAR)?).to_ascii_lowercase();
        self.literal(b":")?;
        self.any(BLANK);
        let value = self.any(FIELD_CONTENT);
        let len = value.iter().rposition(|byte| !BLANK(*byte)).map_or(0, |last| last + 1);
        Ok((name, value[..len].to_vec()))
    }

    /// Section 6.3, the numbered list.
    fn message_body(&mut self, request: &Request, is_1_1: bool) -> Read<Vec<u8>> {
        let codings: Vec<&[u8]> = request.values("transfer-encoding").collect();
        let lengths: Vec<&[u8]> = request.values("content-length").collect();
        match (&codings[..], &lengths[..]) {
            ([], []) => Ok(Vec::new()),
            ([], [first, others @ ..]) => {
                let len = content_length(first)?;
                for other in others {
                    if content_length(other)? != len {
                        return Err(Flaw::Malformed);
                    }
                }
                Ok(self.octets(len)?.to_vec())
            }
            ([coding], []) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => self.chunked_body(),
            // A length beside a coding "ought to be handled as an error", and no other coding is known here.
            _ => Err(Flaw::Malformed),
        }
    }

    // RFC 9112 section 7.1: chunks.

    /// `chunked-body = *chunk last-chunk trailer-section CRLF`
    fn chunked_body(&mut self) -> Read<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.chunk_size()?;
            self.chunk_ext()?;
            self.literal(b"\r\n")?;
            if size == 0 {
                self.trailer_section()?;
                return Ok(body);
            }
            body.extend_from_slice(self.octets(size)?);
            self.literal(b"\r\n")?;
        }
    }

    /// `chunk-size = 1*HEXDIG`. One beyond all numbers never comes whole.
    fn chunk_size(&mut self) -> Read<usize> {
        let digits = self.some(HEXDIG)?;
        Ok(digits.iter().fold(0_usize, |size, digit| {
            let digit = char::from(*digit).to_digit(16).unwrap_or_default();
            size.saturating_mul(16).saturating_add(digit as usize)
        }))
    }

    /// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
    fn chunk_ext(&mut self) -> Read<()> {
        loop {
            let before = self.at;
            self.any(BLANK);
            if !self.takes(b';')? {
                // White space belongs to an extension or to nothing.
                return if self.at == before { Ok(()) } else { Err(Flaw::Malformed) };
            }
            self.any(BLANK);
            self.some(TCHAR)?;
            let behind_name = self.at;
            self.any(BLANK);
            if self.takes(b'=')? {
                self.any(BLANK);
                if self.takes(b'"')? {
                    self.end_of_quoted_string()?;
                } else {
                    self.some(TCHAR)?;
                }
            } else {
                self.at = behind_name;
            }
        }
    }

    /// `quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE`, behind its first quote.
    fn end_of_quoted_string(&mut self) -> Read<()> {
        loop {
            self.any(QDTEXT);
            if self.takes(b'"')? {
                return Ok(());
            }
            self.literal(b"\\")?;
            self.some_once(FIELD_CONTENT)?;
        }
    }

    /// `trailer-section = *( field-line CRLF )`, and the CRLF behind it.
    fn trailer_section(&mut self) -> Read<()> {
        while !self.takes(b'\r')? {
            self.field_line()?;
            self.literal(b"\r\n")?;
        }
        self.literal(b"\n")
    }
}

fn text(token: &[u8]) -> String {
    token.iter().map(|byte| char::from(*byte)).collect()
}

/// Sections 3.2 and 9.3: exactly one `Host` in HTTP/1.1. Tells whether nothing follows.
fn check_head(request: &Request, is_1_1: bool) -> Read<bool> {
    let hosts: Vec<&[u8]> = request.values("host").collect();
    let is_addressed = match hosts[..] {
        [] => !is_1_1,
        [host] => is_host(host),
        _ => false,
    };
    let mut options = request
        .values("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|option| text(option).trim_matches([' ', '\t']).to_ascii_lowercase());
    let (is_kept, is_closed) = options.by_ref().fold((false, false), |(is_kept, is_closed), option| {
        (is_kept || option == "keep-alive", is_closed || option == "close")
    });
    if is_addressed { Ok(is_closed || !is_1_1 && !is_kept) } else { Err(Flaw::Malformed) }
}

/// `Content-Length = 1*DIGIT` (RFC 9110 section 8.6)
fn content_length(value: &[u8]) -> Read<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    text(value).parse().ok().filter(|_| is_number).ok_or(Flaw::Malformed)
}

/// Of `origin-form`, `absolute-form` or `asterisk-form` (section 3.2); without a fragment.
fn path_and_query(target: &[u8]) -> Read<Vec<u8>> {
    let target = target.split(|byte| *byte == b'#').next().unwrap_or_default();
    if target == b"*" || target.starts_with(b"/") {
        return Ok(target.to_vec());
    }
    let address = target.windows(3).position(|part| part == b"://").ok_or(Flaw::Malformed)?;
    let address = &target[address + 3..];
    let path = address.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(address.len());
    if path == 0 {
        return Err(Flaw::Malformed);
    }
    let slash: &[u8] = if address[path..].starts_with(b"/") { b"" } else { b"/" };
    Ok([slash, &address[path..]].concat())
}

/// `uri-host [ ":" port ]` (RFC 3986 section 3.2.2)
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let is_address = name.starts_with(b"[") && name.ends_with(b"]");
    let name = if is_address { &name[1..name.len() - 1] } else { name };
    let is_good = |byte: &u8| {
        byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte) || is_address && *byte == b':'
    };
    name.iter().all(is_good) && port.iter().all(u8::is_ascii_digit)
}
