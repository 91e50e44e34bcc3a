//! What a stream of bytes means, read by the rules of RFC 9112 and in the simplest way, with nothing of the product in
//! it: the requests that the client has sent, and how what follows them is wrong.
//!
//! Where the RFC lets a recipient be lenient this is lenient, because the server may be: a line may end with LF alone,
//! empty lines may come before a request, a transfer coding beats a length, equal lengths count once. What the RFC wants
//! refused ends the reading. A server may always refuse more than this does; it must never read the same bytes in another
//! way.

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
        let mut stream = Bytes(bytes);
        let mut requests: Vec<Request> = Vec::new();
        loop {
            stream.skip_empty_lines();
            if stream.0.is_empty() || requests.last().is_some_and(|request| request.is_last) {
                return Self { requests, rest: Rest::Nothing };
            }
            let is_head = stream.0.starts_with(b"HEAD ");
            match stream.request() {
                Ok(request) => requests.push(request),
                Err(Flaw::Incomplete) => return Self { requests, rest: Rest::Incomplete(is_head) },
                Err(Flaw::Malformed) => return Self { requests, rest: Rest::Malformed(is_head) },
            }
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

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn skip_empty_lines(&mut self) {
        while let Some(rest) = self.0.strip_prefix(b"\r\n").or(self.0.strip_prefix(b"\n")) {
            self.0 = rest;
        }
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Flaw::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A line without its end. One with a bare CR or a control character is none, whether it ends or not.
    fn line(&mut self) -> Read<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let line = &self.0[..end.unwrap_or(self.0.len())];
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Flaw::Malformed);
        }
        self.0 = &self.0[end.ok_or(Flaw::Incomplete)? + 1..];
        Ok(text)
    }

    fn request(&mut self) -> Read<Request> {
        let line = self.line()?;
        let [method, target, version] = line.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] else {
            return Err(Flaw::Malformed);
        };
        let is_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Flaw::Malformed),
        };
        let method = token(method)?;
        let target = path_and_query(target)?;
        let fields = self.fields()?;
        let mut request = Request { method, target, fields, body: Vec::new(), is_last: false };
        let hosts: Vec<&[u8]> = request.values("host").collect();
        let is_addressed = match hosts[..] {
            [] => !is_1_1,
            [host] => is_host(host),
            _ => false,
        };
        let codings: Vec<Vec<u8>> =
            request.values("transfer-encoding").map(<[u8]>::to_ascii_lowercase).collect();
        let is_coded = !codings.is_empty();
        if !is_addressed || is_coded && (!is_1_1 || codings != [b"chunked"]) {
            return Err(Flaw::Malformed);
        }
        let lengths: Vec<&[u8]> = request.values("content-length").collect();
        let has_length = !lengths.is_empty();
        request.body = match length(&lengths) {
            _ if is_coded => self.chunks()?,
            Some(len) => self.take(len)?.to_vec(),
            None => return Err(Flaw::Malformed),
        };
        let wishes: Vec<u8> =
            request.values("connection").collect::<Vec<_>>().join(&b',').to_ascii_lowercase();
        let has = |wish: &[u8]| wishes.split(|byte| *byte == b',').any(|each| each.trim_ascii() == wish);
        request.is_last = has(b"close") || !is_1_1 && !has(b"keep-alive") || is_coded && has_length;
        Ok(request)
    }

    /// Fields up to an empty line.
    fn fields(&mut self) -> Read<Vec<(String, Vec<u8>)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(Flaw::Malformed)?;
            fields
                .push((token(&line[..colon])?.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()));
        }
    }

    fn chunks(&mut self) -> Read<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let len = self.chunk_size()?;
            if len == 0 {
                self.fields()?;
                return Ok(body);
            }
            body.extend_from_slice(self.take(len)?);
            self.expect(b"\r\n")?;
        }
    }

    /// The line before a chunk. What is in an extension means nothing, but it ends where the line does.
    fn chunk_size(&mut self) -> Read<usize> {
        let end = self.0.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(self.0.len());
        let line = self.take(end)?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_whole = !self.0.is_empty();
        if size.is_empty() && !is_whole {
            return Err(Flaw::Incomplete);
        }
        let size = std::str::from_utf8(size).map_err(|_| Flaw::Malformed)?.trim_end_matches([' ', '\t']);
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Flaw::Malformed);
        }
        self.expect(b"\r\n")?;
        usize::from_str_radix(size, 16).map_err(|_| Flaw::Malformed)
    }

    fn expect(&mut self, bytes: &[u8]) -> Read<()> {
        if let Some(rest) = self.0.strip_prefix(bytes) {
            self.0 = rest;
            return Ok(());
        }
        Err(if bytes.starts_with(self.0) { Flaw::Incomplete } else { Flaw::Malformed })
    }
}

fn token(bytes: &[u8]) -> Read<String> {
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if bytes.is_empty() || !bytes.iter().all(is_good) {
        return Err(Flaw::Malformed);
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Of a path, a whole address, or `*`; without a fragment.
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

/// RFC 3986: a name or an address, and a port.
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

/// `None` when it is malformed or when there are several; 0 without one.
fn length(values: &[&[u8]]) -> Option<usize> {
    let Some((first, others)) = values.split_first() else { return Some(0) };
    let parse = |value: &[u8]| {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(value).ok().filter(|_| is_number)?.parse::<usize>().ok()
    };
    let len = parse(first)?;
    others.iter().all(|other| parse(other) == Some(len)).then_some(len)
}
