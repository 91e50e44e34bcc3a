//! Kinds of malformed and hostile requests. Each is an ordinary payment with one thing wrong with it, as far as that can
//! be, so that a reader that overlooks the one flaw accepts the payment.
//!
//! Those of [`malformed`] are never accepted. Those of [`hostile`] are legal, or may be read by the RFC, and are made for
//! parsers that disagree; the reference says what they mean.

use crate::harness::{ID, MARK, UPPER_ID, get, pay, pay_with, payment, post, request};

/// One kind.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What becomes of a body or line in the kinds of one group.
type Make = fn(&[u8]) -> Vec<u8>;

fn group<T: AsRef<[u8]> + ?Sized>(what: &str, make: Make, of: &[(&str, &T)]) -> Vec<Kind> {
    of.iter().map(|(name, part)| kind(what, name, make(part.as_ref()))).collect()
}

fn kind(what: &str, name: &str, bytes: Vec<u8>) -> Kind {
    Kind { name: format!("{what}: {name}"), bytes }
}

fn body() -> Vec<u8> {
    payment(ID, "19.90").into_bytes()
}

/// The fields that an ordinary payment has besides `Host`, and its body.
fn tail() -> Vec<u8> {
    let (fields, body) = ("Content-Type: application/json\r\nContent-Length:", body());
    [format!("{fields} {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
}

/// A payment with this request line.
fn with_line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: espora\r\n", &tail()].concat()
}

/// A payment with these bytes in the place of the field `Host`.
fn with_host(lines: &[u8]) -> Vec<u8> {
    [b"POST /payments HTTP/1.1\r\n", lines, &tail()].concat()
}

/// A payment with these bytes among its fields.
fn with_fields(lines: &[u8]) -> Vec<u8> {
    [b"POST /payments HTTP/1.1\r\nHost: espora\r\n", lines, &tail()].concat()
}

/// A payment with another target.
fn with_target(target: &[u8]) -> Vec<u8> {
    with_line(&[b"POST ", target, b" HTTP/1.1"].concat())
}

/// A payment that calls its type this.
fn with_type(fields: &[u8]) -> Vec<u8> {
    pay_with(&format!("{}\r\n", String::from_utf8_lossy(fields)), body())
}

/// A payment with these lines for its framing.
fn with_framing(lines: &[u8]) -> Vec<u8> {
    [b"POST /payments HTTP/1.1\r\nHost: espora\r\n", lines, b"\r\n", &body()].concat()
}

/// The same in a chunk.
fn with_coding(lines: &[u8]) -> Vec<u8> {
    [b"POST /payments HTTP/1.1\r\nHost: espora\r\n", lines, b"\r\n", &one_chunk(&body())].concat()
}

fn one_chunk(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

/// What comes in the place of well-formed chunks.
fn with_chunks(chunks: &[u8]) -> Vec<u8> {
    post("/payments", "Transfer-Encoding: chunked\r\n", chunks)
}

/// A payment with this body, framed well.
fn with_body(body: &[u8]) -> Vec<u8> {
    pay(body)
}

/// A payment whose amount is written so.
fn with_amount(amount: &[u8]) -> Vec<u8> {
    pay(payment(ID, &String::from_utf8_lossy(amount)))
}

/// A payment whose id is written so, quotes included.
fn with_id_as(id: &[u8]) -> Vec<u8> {
    pay([b"{\"correlationId\":", id, b",\"amount\":19.90}"].concat())
}

/// A payment with one field more.
fn with_extra(field: &[u8]) -> Vec<u8> {
    let body = body();
    pay([&body[..body.len() - 1], b",", field, b"}"].concat())
}

/// What never was HTTP.
fn raw(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// A request that is answered, and behind it a payment with these bytes for its request line.
fn behind_another(line: &[u8]) -> Vec<u8> {
    [get("/health"), with_line(line)].concat()
}

/// Kinds that are never accepted.
pub(crate) fn malformed() -> Vec<Kind> {
    [
        request_lines(),
        versions(),
        targets(),
        line_ends(),
        fields(),
        hosts(),
        lengths(),
        codings(),
        both_framings(),
        chunks(),
        objects(),
        texts(),
        ids(),
        amounts(),
        types(),
        sizes(),
        truncations(),
        second_requests(),
        other_protocols(),
    ]
    .concat()
}

fn request_lines() -> Vec<Kind> {
    group::<[u8]>(
        "request line",
        with_line,
        &[
            ("no method", b" /payments HTTP/1.1"),
            ("no target", b"POST HTTP/1.1"),
            ("an empty target", b"POST  HTTP/1.1"),
            ("only a method", b"POST"),
            ("two spaces before the target", b"POST  /payments HTTP/1.1"),
            ("two spaces before the version", b"POST /payments  HTTP/1.1"),
            ("a space behind", b"POST /payments HTTP/1.1 "),
            ("a word behind", b"POST /payments HTTP/1.1 HTTP/1.1"),
            ("a tab before the target", b"POST\t/payments HTTP/1.1"),
            ("a tab before the version", b"POST /payments\tHTTP/1.1"),
            ("a vertical tab", b"POST\x0b/payments HTTP/1.1"),
            ("a form feed", b"POST\x0c/payments HTTP/1.1"),
            ("a bare CR", b"POST\r/payments HTTP/1.1"),
            ("a bare CR before the version", b"POST /payments \rHTTP/1.1"),
            ("a bare CR behind", b"POST /payments HTTP/1.1\r"),
            ("a no-break space", b"POST\xa0/payments HTTP/1.1"),
            ("a space before", b" POST /payments HTTP/1.1"),
            ("a tab before", b"\tPOST /payments HTTP/1.1"),
            ("a bare CR before", b"\rPOST /payments HTTP/1.1"),
            ("a NUL before", b"\0POST /payments HTTP/1.1"),
            ("a BOM before", b"\xef\xbb\xbfPOST /payments HTTP/1.1"),
            ("a NUL in the method", b"PO\0ST /payments HTTP/1.1"),
            ("a NUL behind the method", b"POST\0 /payments HTTP/1.1"),
            ("an escape character", b"\x1b[APOST /payments HTTP/1.1"),
            ("a method outside ASCII", b"P\xd6ST /payments HTTP/1.1"),
            ("a method in small letters", b"post /payments HTTP/1.1"),
            ("a method in mixed letters", b"Post /payments HTTP/1.1"),
            ("a method that is unknown", b"BREW /payments HTTP/1.1"),
            ("a method longer than it", b"POSTS /payments HTTP/1.1"),
            ("a method cut", b"POS /payments HTTP/1.1"),
            ("a method in quotes", b"\"POST\" /payments HTTP/1.1"),
            ("a method with a comma", b"POST, /payments HTTP/1.1"),
            ("a method with a colon", b"POST: /payments HTTP/1.1"),
            ("a method with a bracket", b"POST( /payments HTTP/1.1"),
            ("a method with a slash", b"POST/ /payments HTTP/1.1"),
            ("another method", b"PUT /payments HTTP/1.1"),
            ("a method without effects", b"GET /payments HTTP/1.1"),
            ("CONNECT", b"CONNECT /payments HTTP/1.1"),
            ("TRACE", b"TRACE /payments HTTP/1.1"),
            ("a method of WebDAV", b"PROPFIND /payments HTTP/1.1"),
        ],
    )
}

fn versions() -> Vec<Kind> {
    let make: Make = |version| with_line(&[b"POST /payments ", version].concat());
    let line: Make = with_line;
    let mut kinds = group::<[u8]>(
        "version",
        make,
        &[
            ("0.9", b"HTTP/0.9"),
            ("1.2", b"HTTP/1.2"),
            ("2", b"HTTP/2"),
            ("2.0", b"HTTP/2.0"),
            ("3", b"HTTP/3"),
            ("9.9", b"HTTP/9.9"),
            ("small letters", b"http/1.1"),
            ("two digits behind the point", b"HTTP/1.10"),
            ("two digits before the point", b"HTTP/01.1"),
            ("a comma", b"HTTP/1,1"),
            ("a space inside", b"HTTP/ 1.1"),
            ("a space before the slash", b"HTTP /1.1"),
            ("no minor number", b"HTTP/1"),
            ("no digit behind the point", b"HTTP/1."),
            ("no digit before the point", b"HTTP/.1"),
            ("no point", b"HTTP/11"),
            ("a sign", b"HTTP/-1.1"),
            ("a letter behind", b"HTTP/1.1x"),
            ("other digits", "HTTP/１.１".as_bytes()),
            ("another name", b"HTTPS/1.1"),
            ("a typing error", b"HTPT/1.1"),
            ("a backslash", b"HTTP\\1.1"),
            ("a NUL behind", b"HTTP/1.1\0"),
            ("1 in another base", b"HTTP/0x1.1"),
        ],
    );
    kinds.extend(group::<[u8]>(
        "version",
        line,
        &[("none", b"POST /payments"), ("a space for it", b"POST /payments ")],
    ));
    kinds
}

fn targets() -> Vec<Kind> {
    let mut kinds = group::<[u8]>(
        "target",
        with_target,
        &[
            ("no slash", b"payments"),
            ("a point before the slash", b"./payments"),
            ("a backslash", b"\\payments"),
            ("the slash encoded", b"%2Fpayments"),
            ("a letter encoded", b"/%70ayments"),
            ("two slashes", b"//payments"),
            ("a slash behind", b"/payments/"),
            ("a capital letter", b"/Payments"),
            ("an encoded NUL behind", b"/payments%00"),
            ("an encoded line end", b"/payments%0d%0a"),
            ("an encoded question mark", b"/payments%3f"),
            ("half an encoding", b"/payments%"),
            ("no encoding", b"/payments%zz"),
            ("a point", b"/./payments"),
            ("two points", b"/x/../payments"),
            ("points encoded", b"/x/%2e%2e/payments"),
            ("a parameter", b"/payments;a=b"),
            ("a host and a port", b"espora:80"),
            ("a host", b"espora"),
            ("an asterisk", b"*"),
            ("an asterisk behind a slash", b"/*"),
            ("a whole address without a path", b"http://espora"),
            ("a whole address with a query alone", b"http://espora?/payments"),
            ("a whole address without a host", b"http:///payments"),
            ("a scheme without slashes", b"http:/payments"),
            ("a scheme alone", b"http://"),
            ("a space", b"/pay ments"),
            ("a tab", b"/pay\tments"),
            ("a NUL", b"/payments\0"),
            ("DEL", b"/payments\x7f"),
            ("a control character", b"/payments\x01"),
            ("a letter of Latin 1", b"/p\xe4yments"),
            ("a letter of UTF-8", "/päyments".as_bytes()),
            ("a slash in too many bytes", b"\xc0\xafpayments"),
            ("another path", b"/payment"),
            ("a path that does not echo", b"/Xq7zNeverEchoed"),
            ("a script", b"/<script>alert(1)</script>"),
            ("a question mark before it", b"?/payments"),
            ("a number sign before it", b"#/payments"),
            ("a number sign in it", b"/pay#ments"),
            ("files of the system", b"/../../../../etc/passwd"),
        ],
    );
    let long = |len: usize| with_target(format!("/payments?{}", "a".repeat(len)).as_bytes());
    kinds.push(kind("target", "3 KiB", long(3 << 10)));
    kinds.push(kind("target", "14 KiB", long(14 << 10)));
    kinds.push(kind("target", "100 KiB", long(100 << 10)));
    kinds
}

fn line_ends() -> Vec<Kind> {
    let replaced = |end: &str| {
        let head = String::from_utf8(with_line(b"POST /payments HTTP/1.1")).expect("it is text");
        head.replace("\r\n", end).into_bytes()
    };
    let mut kinds: Vec<Kind> = [
        ("CR alone", "\r"),
        ("LF CR", "\n\r"),
        ("CR CR LF", "\r\r\n"),
        ("CR NUL LF", "\r\0\n"),
        ("CR SP LF", "\r \n"),
        ("a line separator", "\u{2028}"),
        ("a next line", "\u{85}"),
        ("a vertical tab", "\x0b"),
        ("a form feed", "\x0c"),
        ("the letters of an escape", "\\r\\n"),
        ("none", ""),
    ]
    .map(|(name, end)| kind("line ends", name, replaced(end)))
    .into();
    let whole = replaced("\r\n");
    let at = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("the empty line");
    let instead = |end: &[u8]| [&whole[..at], end, &whole[at + 4..]].concat();
    let ends: [(&str, &[u8]); 6] = [
        ("one line end before the body", b"\r\n"),
        ("CR alone before the body", b"\r\n\r"),
        ("a space in the empty line", b"\r\n \r\n"),
        ("a tab in the empty line", b"\r\n\t\r\n"),
        ("a NUL in the empty line", b"\r\n\0\r\n"),
        ("two CRs before the body", b"\r\r"),
    ];
    kinds.extend(ends.map(|(name, end)| kind("line ends", name, instead(end))));
    kinds
}

fn fields() -> Vec<Kind> {
    group::<[u8]>(
        "field",
        with_fields,
        &[
            ("a space before the colon", b"X-A : b\r\n"),
            ("a tab before the colon", b"X-A\t: b\r\n"),
            ("a space before the name", b" X-A: b\r\n"),
            ("a line folded by a space", b"X-A: b\r\n c\r\n"),
            ("a line folded by a tab", b"X-A: b\r\n\tc\r\n"),
            ("a line folded twice", b"X-A: b\r\n c\r\n d\r\n"),
            ("a folded line that looks like a field", b"X-A: b\r\n Content-Length: 0\r\n"),
            ("a fold of white space alone", b"X-A: b\r\n \r\n"),
            ("a space inside a name", b"X A: b\r\n"),
            ("no colon", b"Xq7zNeverEchoed\r\n"),
            ("a colon alone", b":\r\n"),
            ("no name", b": b\r\n"),
            ("an equals sign", b"X-A = b\r\n"),
            ("a name in quotes", b"\"X-A\": b\r\n"),
            ("a name in brackets", b"(X-A): b\r\n"),
            ("a name with a slash", b"X/A: b\r\n"),
            ("a name with an at sign", b"X@A: b\r\n"),
            ("a name outside ASCII", b"X-\xc3\xa4: b\r\n"),
            ("a NUL in a name", b"X\0A: b\r\n"),
            ("DEL in a name", b"X\x7fA: b\r\n"),
            ("a NUL in a value", b"X-A: b\0c\r\n"),
            ("a NUL for a value", b"X-A: \0\r\n"),
            ("DEL in a value", b"X-A: b\x7fc\r\n"),
            ("a bell in a value", b"X-A: \x07\r\n"),
            ("an escape character in a value", b"X-A: \x1b[31m\r\n"),
            ("a vertical tab in a value", b"X-A: b\x0bc\r\n"),
            ("a bare CR in a value", b"X-A: b\rc\r\n"),
            ("a bare CR at the end of a value", b"X-A: b\r\r\n"),
            ("a bare CR that hides a field", b"X-A: b\rTransfer-Encoding: chunked\r\n"),
            ("a bare CR before a name", b"\rX-A: b\r\n"),
            ("a NUL that hides a field", b"X-A: b\0\r\nTransfer-Encoding: chunked\r\n"),
            ("a request line among them", b"POST /payments HTTP/1.1\r\n"),
            ("a response line among them", b"HTTP/1.1 200 OK\r\n"),
            ("a body among them", b"{\"correlationId\":1}\r\n"),
            ("random bytes", b"\x80\x81\xfe\xff: b\r\n"),
            ("a chunk among them", b"5\r\nhello\r\n"),
        ],
    )
}

fn hosts() -> Vec<Kind> {
    group::<[u8]>(
        "Host",
        with_host,
        &[
            ("none", b""),
            ("two equal ones", b"Host: espora\r\nHost: espora\r\n"),
            ("two", b"Host: espora\r\nHost: Xq7zNeverEchoed\r\n"),
            ("two, one in small letters", b"Host: espora\r\nhost: espora\r\n"),
            ("two, one empty", b"Host: espora\r\nHost:\r\n"),
            ("three", b"Host: a\r\nHost: b\r\nHost: c\r\n"),
            ("a space before the colon", b"Host : espora\r\n"),
            ("a space before it", b" Host: espora\r\n"),
            ("folded", b"Host:\r\n espora\r\n"),
            ("a space inside", b"Host: espora espora\r\n"),
            ("a tab inside", b"Host: espora\tespora\r\n"),
            ("a list", b"Host: espora, other\r\n"),
            ("a path", b"Host: espora/payments\r\n"),
            ("a query", b"Host: espora?a\r\n"),
            ("a fragment", b"Host: espora#a\r\n"),
            ("a whole address", b"Host: http://espora\r\n"),
            ("a user", b"Host: admin@espora\r\n"),
            ("a backslash", b"Host: espora\\payments\r\n"),
            ("quotes", b"Host: \"espora\"\r\n"),
            ("angle brackets", b"Host: <espora>\r\n"),
            ("braces", b"Host: {espora}\r\n"),
            ("a port that is no number", b"Host: espora:http\r\n"),
            ("a negative port", b"Host: espora:-1\r\n"),
            ("two ports", b"Host: espora:80:80\r\n"),
            ("half an address of version 6", b"Host: [::1\r\n"),
            ("letters outside ASCII", "Host: espóra\r\n".as_bytes()),
            ("a NUL", b"Host: espora\0\r\n"),
            ("a bare CR", b"Host: espora\r.org\r\n"),
            ("another name for it", b"X-Forwarded-Host: espora\r\n"),
        ],
    )
}

fn lengths() -> Vec<Kind> {
    let right = body().len();
    let fields: Vec<(&str, String)> = vec![
        ("a plus", format!("+{right}")),
        ("a minus", format!("-{right}")),
        ("minus zero", "-0".into()),
        ("minus one", "-1".into()),
        ("a fraction", format!("{right}.0")),
        ("an exponent", "8e1".into()),
        ("hexadecimal", format!("0x{right:x}")),
        ("hexadecimal digits", format!("{right:x}h")),
        ("octal", format!("0o{right:o}")),
        ("an underscore", "7_1".into()),
        ("a thousands separator", "7,1".into()),
        ("a space inside", "7 1".into()),
        ("a NUL behind", format!("{right}\0")),
        ("a vertical tab before", format!("\x0b{right}")),
        ("a form feed behind", format!("{right}\x0c")),
        ("a bare CR before", format!("\r{right}")),
        ("a bare CR behind", format!("{right}\r")),
        ("a no-break space before", format!("\u{a0}{right}")),
        ("quotes", format!("\"{right}\"")),
        ("a semicolon", format!("{right};")),
        ("other digits", "７１".into()),
        ("a list of equal ones", format!("{right}, {right}")),
        ("a list that ends early", format!("{right},")),
        ("a list of others", format!("{right}, 0")),
        ("nothing", String::new()),
        ("a word", MARK.into()),
        ("NaN", "NaN".into()),
        ("infinity", "inf".into()),
        ("2^63", (1_u64 << 63).to_string()),
        ("2^64 - 1", u64::MAX.to_string()),
        ("2^64 and the right one", (u128::from(u64::MAX) + 1 + right as u128).to_string()),
        ("2^32 and the right one", ((1_u64 << 32) + right as u64).to_string()),
        ("a hundred digits", "9".repeat(100)),
        ("a megabyte", "1000000".into()),
        ("too large by one", (right + 1).to_string()),
        ("too small by one", (right - 1).to_string()),
        ("zero", "0".into()),
    ];
    let mut kinds: Vec<Kind> = fields
        .into_iter()
        .map(|(name, len)| {
            kind("length", name, with_framing(format!("Content-Length: {len}\r\n").as_bytes()))
        })
        .collect();
    let lines: Vec<(&str, String)> = vec![
        ("two, the right one first", format!("Content-Length: {right}\r\nContent-Length: 5\r\n")),
        ("two, the right one last", format!("Content-Length: 5\r\nContent-Length: {right}\r\n")),
        ("two, one in other letters", format!("Content-Length: {right}\r\ncontent-LENGTH: 0\r\n")),
        ("two, one of them no number", format!("Content-Length: {right}\r\nContent-Length: x\r\n")),
        (
            "three, one of them wrong",
            format!("Content-Length: {right}\r\n").repeat(2) + "Content-Length: 1\r\n",
        ),
        ("a space before the colon", format!("Content-Length : {right}\r\n")),
        ("a tab before the colon", format!("Content-Length\t: {right}\r\n")),
        ("a space before it", format!(" Content-Length: {right}\r\n")),
        ("folded", format!("Content-Length:\r\n {right}\r\n")),
        ("half of it folded", format!("Content-Length: 7\r\n {right}\r\n")),
        ("no colon", format!("Content-Length {right}\r\n")),
        ("an underscore for the hyphen", format!("Content_Length: {right}\r\n")),
        ("a NUL in the name", format!("Content-\0Length: {right}\r\n")),
        ("a Kelvin sign in the name", format!("Content-Lengt\u{212a}: {right}\r\n")),
        ("hidden behind a bare CR", format!("X: a\rContent-Length: {right}\r\n")),
        ("none", String::new()),
    ];
    kinds.extend(lines.into_iter().map(|(name, lines)| kind("length", name, with_framing(lines.as_bytes()))));
    kinds
}

fn codings() -> Vec<Kind> {
    group::<[u8]>(
        "coding",
        with_coding,
        &[
            ("gzip", b"Transfer-Encoding: gzip\r\n"),
            ("identity", b"Transfer-Encoding: identity\r\n"),
            ("nothing", b"Transfer-Encoding:\r\n"),
            ("a word", b"Transfer-Encoding: Xq7zNeverEchoed\r\n"),
            ("a letter before", b"Transfer-Encoding: xchunked\r\n"),
            ("a letter behind", b"Transfer-Encoding: chunkedx\r\n"),
            ("a letter missing", b"Transfer-Encoding: chunke\r\n"),
            ("quotes", b"Transfer-Encoding: \"chunked\"\r\n"),
            ("single quotes", b"Transfer-Encoding: 'chunked'\r\n"),
            ("a parameter", b"Transfer-Encoding: chunked;a=b\r\n"),
            ("a comma before", b"Transfer-Encoding: ,chunked\r\n"),
            ("a comma behind", b"Transfer-Encoding: chunked,\r\n"),
            ("two in one field", b"Transfer-Encoding: chunked, chunked\r\n"),
            ("two fields", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            ("identity in a second field", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            ("identity in a first field", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
            ("an empty first field", b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
            ("gzip, then chunked", b"Transfer-Encoding: gzip, chunked\r\n"),
            ("chunked, then gzip", b"Transfer-Encoding: chunked, gzip\r\n"),
            ("chunked, then identity", b"Transfer-Encoding: chunked, identity\r\n"),
            ("a vertical tab before", b"Transfer-Encoding: \x0bchunked\r\n"),
            ("a form feed behind", b"Transfer-Encoding: chunked\x0c\r\n"),
            ("a NUL behind", b"Transfer-Encoding: chunked\0\r\n"),
            ("a bare CR before", b"Transfer-Encoding: \rchunked\r\n"),
            ("a bare CR in the name's line", b"X: a\rTransfer-Encoding: chunked\r\n"),
            ("a no-break space before", "Transfer-Encoding: \u{a0}chunked\r\n".as_bytes()),
            ("a Kelvin sign", "Transfer-Encoding: chun\u{212a}ed\r\n".as_bytes()),
            ("a space before the colon", b"Transfer-Encoding : chunked\r\n"),
            ("a tab before the colon", b"Transfer-Encoding\t: chunked\r\n"),
            ("a space before it", b" Transfer-Encoding: chunked\r\n"),
            ("folded", b"Transfer-Encoding:\r\n chunked\r\n"),
            ("folded by a tab", b"Transfer-Encoding:\r\n\tchunked\r\n"),
            ("an underscore for the hyphen", b"Transfer_Encoding: chunked\r\n"),
            ("no hyphen", b"TransferEncoding: chunked\r\n"),
            ("a space for the hyphen", b"Transfer Encoding: chunked\r\n"),
            ("no colon", b"Transfer-Encoding chunked\r\n"),
            ("in another field", b"TE: chunked\r\n"),
            ("as the type of the content", b"Content-Encoding: chunked\r\n"),
        ],
    )
    .into_iter()
    .chain([kind("coding", "in HTTP/1.0", {
        let head = b"POST /payments HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        [&head[..], &one_chunk(&body())].concat()
    })])
    .collect()
}

/// Requests that are one to a reader of lengths and two to a reader of chunks, or the other way round.
fn both_framings() -> Vec<Kind> {
    let hidden = pay(body());
    let coding = "Transfer-Encoding: chunked\r\n";
    let framed = |fields: &str, body: &[u8]| post("/payments", fields, body);
    let zero_first = [b"0\r\n\r\n", &hidden[..]].concat();
    let len = zero_first.len();
    let is_smuggled_by_length = format!("Content-Length: {len}\r\n");
    let body = body();
    let plain = format!("Content-Length: {}\r\n", body.len());
    [
        ("a payment behind the last chunk", format!("{is_smuggled_by_length}{coding}"), zero_first.clone()),
        ("the same, the coding first", format!("{coding}{is_smuggled_by_length}"), zero_first.clone()),
        ("a payment by its length", format!("{plain}{coding}"), body.clone()),
        ("a payment by its length, the coding first", format!("{coding}{plain}"), body.clone()),
        ("a coding that is none", format!("{plain}Transfer-Encoding: xchunked\r\n"), body.clone()),
        ("a coding that is none, first", format!("Transfer-Encoding: xchunked\r\n{plain}"), body.clone()),
        ("identity", format!("{plain}Transfer-Encoding: identity\r\n"), body.clone()),
        (
            "a coding with a space before the colon",
            format!("{plain}Transfer-Encoding : chunked\r\n"),
            body.clone(),
        ),
        ("a coding that is folded", format!("{plain}Transfer-Encoding:\r\n chunked\r\n"), body.clone()),
        ("a coding behind a bare CR", format!("{plain}X: a\rTransfer-Encoding: chunked\r\n"), body.clone()),
        ("a coding with a NUL", format!("{plain}Transfer-Encoding: chunked\0\r\n"), body.clone()),
        ("an empty coding", format!("{plain}Transfer-Encoding:\r\n"), body.clone()),
        ("two codings", format!("{plain}{coding}Transfer-Encoding: x\r\n"), one_chunk(&body)),
        ("a length that is none", format!("Content-Length: x\r\n{coding}"), one_chunk(&body)),
        (
            "two lengths that differ",
            format!("Content-Length: 4\r\nContent-Length: 5\r\n{coding}"),
            one_chunk(&body),
        ),
        ("a negative length", format!("Content-Length: -1\r\n{coding}"), one_chunk(&body)),
    ]
    .map(|(name, fields, body)| kind("two framings", name, framed(&fields, &body)))
    .into()
}

fn chunks() -> Vec<Kind> {
    let body = String::from_utf8(body()).expect("it is text");
    let size = body.len();
    let end = "0\r\n\r\n";
    let whole = format!("{size:x}\r\n{body}\r\n");
    let hidden = String::from_utf8(pay(&body)).expect("it is text");
    let chunks: Vec<(&str, String)> = vec![
        ("the last one alone", end.into()),
        ("no size", format!("\r\n{body}\r\n{end}")),
        ("no chunk at all", body.clone()),
        ("a size that is none", format!("xyz\r\n{body}\r\n{end}")),
        ("a size in decimal", format!("{size}\r\n{body}\r\n{end}")),
        ("a prefix", format!("0x{size:x}\r\n{body}\r\n{end}")),
        ("a plus", format!("+{size:x}\r\n{body}\r\n{end}")),
        ("a minus", format!("-{size:x}\r\n{body}\r\n{end}")),
        ("an underscore", format!("0_{size:x}\r\n{body}\r\n{end}")),
        ("an h behind", format!("{size:x}h\r\n{body}\r\n{end}")),
        ("a fraction", format!("{size:x}.0\r\n{body}\r\n{end}")),
        ("a space before", format!(" {size:x}\r\n{body}\r\n{end}")),
        ("a tab before", format!("\t{size:x}\r\n{body}\r\n{end}")),
        ("a space inside", format!("4 7\r\n{body}\r\n{end}")),
        ("a NUL before", format!("\0{size:x}\r\n{body}\r\n{end}")),
        ("a NUL behind", format!("{size:x}\0\r\n{body}\r\n{end}")),
        ("a comma", format!("{size:x},\r\n{body}\r\n{end}")),
        ("quotes", format!("\"{size:x}\"\r\n{body}\r\n{end}")),
        ("other digits", format!("４７\r\n{body}\r\n{end}")),
        ("2^64 and the right one", format!("1{size:016x}\r\n{body}\r\n{end}")),
        ("2^32 and the right one", format!("1{size:08x}\r\n{body}\r\n{end}")),
        ("2^64 - 1", format!("{:x}\r\n{body}\r\n{end}", u64::MAX)),
        ("2^63", format!("{:x}\r\n{body}\r\n{end}", 1_u64 << 63)),
        ("a hundred digits", format!("{}\r\n{body}\r\n{end}", "f".repeat(100))),
        ("longer than its size", format!("{:x}\r\n{body}\r\n{end}", size - 1)),
        ("shorter than its size", format!("{:x}\r\n{body}\r\n{end}", size + 1)),
        ("no line end behind", format!("{size:x}\r\n{body}{end}")),
        ("LF behind", format!("{size:x}\r\n{body}\n{end}")),
        ("CR behind", format!("{size:x}\r\n{body}\r{end}")),
        ("two line ends behind", format!("{size:x}\r\n{body}\r\n\r\n{end}")),
        ("LF after a size", format!("{size:x}\n{body}\r\n{end}")),
        ("CR after a size", format!("{size:x}\r{body}\r\n{end}")),
        ("CR CR LF after a size", format!("{size:x}\r\r\n{body}\r\n{end}")),
        ("LF everywhere", format!("{size:x}\n{body}\n0\n\n")),
        ("an extension that ends with LF", format!("{size:x};a=b\n{body}\r\n{end}")),
        ("an extension with a bare CR", format!("{size:x};a\rb\r\n{body}\r\n{end}")),
        ("an extension of 64 KiB", format!("{size:x};{}\r\n{body}\r\n{end}", "a".repeat(64 << 10))),
        ("extensions of 64 KiB", {
            body.chars().map(|c| format!("1;{}\r\n{c}\r\n", "a".repeat(1_000))).collect::<String>() + end
        }),
        ("a space behind", format!("{size:x} \r\n{body}\r\n{end}")),
        ("a tab behind", format!("{size:x}\t\r\n{body}\r\n{end}")),
        ("a form feed behind", format!("{size:x}\x0c\r\n{body}\r\n{end}")),
        ("a vertical tab behind", format!("{size:x}\x0b\r\n{body}\r\n{end}")),
        ("a form feed before an extension", format!("{size:x}\x0c;a=b\r\n{body}\r\n{end}")),
        ("a form feed behind the last one", format!("{whole}0\x0c\r\n\r\n")),
        ("a space behind the last one", format!("{whole}0 \r\n\r\n")),
        ("an extension without a name", format!("{size:x};\r\n{body}\r\n{end}")),
        ("two semicolons", format!("{size:x};;a\r\n{body}\r\n{end}")),
        ("an extension with an empty value", format!("{size:x};a=\r\n{body}\r\n{end}")),
        ("an extension with a value alone", format!("{size:x};=a\r\n{body}\r\n{end}")),
        ("an extension of two words", format!("{size:x};a b\r\n{body}\r\n{end}")),
        ("an extension with two values", format!("{size:x};a=b=c\r\n{body}\r\n{end}")),
        ("an extension with a space behind", format!("{size:x};a=b \r\n{body}\r\n{end}")),
        ("an extension with an open quote", format!("{size:x};a=\"b\r\n{body}\r\n{end}")),
        ("an extension with more behind a quote", format!("{size:x};a=\"b\"c\r\n{body}\r\n{end}")),
        ("an extension with a quoted line end", format!("{size:x};a=\"\\\r\n\"\r\n{body}\r\n{end}")),
        ("an extension outside ASCII", format!("{size:x};\u{e9}\r\n{body}\r\n{end}")),
        ("an extension with a NUL", format!("{size:x};a\0\r\n{body}\r\n{end}")),
        ("another last one", format!("{whole}00x\r\n\r\n")),
        ("a trailer that is none", format!("{whole}0\r\nno field\r\n\r\n")),
        ("a trailer with a space before the colon", format!("{whole}0\r\nX : a\r\n\r\n")),
        ("a trailer that is folded", format!("{whole}0\r\nX: a\r\n b\r\n\r\n")),
        ("a trailer with a NUL", format!("{whole}0\r\nX: \0\r\n\r\n")),
        ("a trailer with a bare CR", format!("{whole}0\r\nX: a\rb\r\n\r\n")),
        ("a trailer that ends with LF", format!("{whole}0\r\nX: a\n\r\n")),
        ("a trailer that ends with CR", format!("{whole}0\r\nX: a\r\r\n")),
        ("a trailer without a name", format!("{whole}0\r\n: a\r\n\r\n")),
        ("a trailer with a form feed", format!("{whole}0\r\nX: \x0c\r\n\r\n")),
        ("trailers that end with LF", format!("{whole}0\r\nX: a\r\n\n")),
        ("trailers that end with CR", format!("{whole}0\r\nX: a\r\n\r")),
        ("a trailer and its end by LF, then a payment", format!("{whole}0\r\nX: a\n\n{hidden}")),
        ("no trailer and its end by LF, then a payment", format!("{whole}0\r\n\n{hidden}")),
        ("the last one ends with LF", format!("{whole}0\n\r\n")),
        ("the last one ends with LF, and all with LF", format!("{whole}0\n\n")),
        ("the last one ends with CR", format!("{whole}0\r\r\n")),
        ("a thousand trailers", format!("{whole}0\r\n{}\r\n", "X: a\r\n".repeat(1_000))),
        ("a request for a trailer", format!("{whole}0\r\n{hidden}")),
        ("a request for a size", hidden.clone()),
        ("over 4 KiB in small ones", format!("10\r\n{}\r\n", " ".repeat(16)).repeat(300) + &whole + end),
        ("a body twice", format!("{whole}{whole}{end}")),
    ];
    chunks.into_iter().map(|(name, chunks)| kind("chunks", name, with_chunks(chunks.as_bytes()))).collect()
}

fn objects() -> Vec<Kind> {
    let texts: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("white space", " \r\n\t".into()),
        ("an array", format!("[{}]", payment(ID, "19.90"))),
        ("a text", "\"19.90\"".into()),
        ("a number", "19.90".into()),
        ("null", "null".into()),
        ("an empty object", "{}".into()),
        ("an open object", "{".into()),
        ("no id", "{\"amount\":19.90}".into()),
        ("no amount", format!("{{\"correlationId\":\"{ID}\"}}")),
        ("not closed", payment(ID, "19.90").trim_end_matches('}').into()),
        ("closed twice", payment(ID, "19.90") + "}"),
        ("two objects", payment(ID, "19.90").repeat(2)),
        ("something behind", payment(ID, "19.90") + "x"),
        ("a NUL behind", payment(ID, "19.90") + "\0"),
        ("a comma behind", payment(ID, "19.90") + ","),
        ("a comment behind", payment(ID, "19.90") + " // done"),
        ("a comment inside", payment(ID, "/* cheap */ 19.90")),
        ("a comma at the end", payment(ID, "19.90,")),
        ("two commas", format!("{{\"correlationId\":\"{ID}\",,\"amount\":19.90}}")),
        ("no comma", format!("{{\"correlationId\":\"{ID}\" \"amount\":19.90}}")),
        ("no colon", format!("{{\"correlationId\" \"{ID}\",\"amount\":19.90}}")),
        ("two colons", format!("{{\"correlationId\"::\"{ID}\",\"amount\":19.90}}")),
        ("an equals sign", format!("{{\"correlationId\"=\"{ID}\",\"amount\"=19.90}}")),
        ("single quotes", format!("{{'correlationId':'{ID}','amount':19.90}}")),
        ("no quotes around the names", format!("{{correlationId:\"{ID}\",amount:19.90}}")),
        ("other quotes", format!("{{“correlationId”:“{ID}”,“amount”:19.90}}")),
        ("a capital letter in a name", format!("{{\"CorrelationId\":\"{ID}\",\"amount\":19.90}}")),
        ("small letters in a name", format!("{{\"correlationid\":\"{ID}\",\"amount\":19.90}}")),
        ("a space in a name", format!("{{\"correlationId \":\"{ID}\",\"amount\":19.90}}")),
        ("a NUL in a name", format!("{{\"correlationId\\u0000\":\"{ID}\",\"amount\":19.90}}")),
        ("the amount twice", payment(ID, "19.90,\"amount\":19.90")),
        ("another amount at the end", payment(ID, "19.90,\"amount\":0.01")),
        ("the amount twice, once escaped", payment(ID, "19.90,\"\\u0061mount\":0.01")),
        ("the id twice", payment(ID, &format!("19.90,\"correlationId\":\"{ID}\""))),
        ("another id at the end", payment(ID, &format!("19.90,\"correlationId\":\"{UPPER_ID}\""))),
        ("a name of no meaning twice", payment(ID, "19.90,\"a\":1,\"a\":2")),
        ("one inside the other", format!("{{\"payment\":{}}}", payment(ID, "19.90"))),
        ("a form", format!("correlationId={ID}&amount=19.90")),
        ("XML", format!("<p><correlationId>{ID}</correlationId><amount>19.90</amount></p>")),
        ("YAML", format!("correlationId: {ID}\namount: 19.90\n")),
        ("a line of JSON before", format!("{{}}\n{}", payment(ID, "19.90"))),
        ("a prefix against hijacking", format!(")]}}',\n{}", payment(ID, "19.90"))),
        ("4,000 open brackets", "[".repeat(4_000)),
        ("4,000 open braces", "{\"a\":".repeat(800)),
        ("a vertical tab as white space", format!("\x0b{}", payment(ID, "19.90"))),
        ("a form feed as white space", payment(ID, "19.90") + "\x0c"),
        ("a no-break space", format!("\u{a0}{}", payment(ID, "19.90"))),
        ("a BOM", format!("\u{feff}{}", payment(ID, "19.90"))),
        ("a BOM behind", payment(ID, "19.90") + "\u{feff}"),
    ];
    let mut kinds: Vec<Kind> =
        texts.into_iter().map(|(name, text)| kind("object", name, with_body(text.as_bytes()))).collect();
    kinds.extend(group::<str>(
        "value",
        with_extra,
        &[
            ("half of true", "\"x\":tru"),
            ("True", "\"x\":True"),
            ("undefined", "\"x\":undefined"),
            ("nothing", "\"x\":"),
            ("no value", "\"x\""),
            ("an open array", "\"x\":[1,2"),
            ("an array closed by a brace", "\"x\":[1,2}"),
            ("an array with a comma behind", "\"x\":[1,]"),
            ("an object with a comma behind", "\"x\":{\"a\":1,}"),
            ("a name that is a number", "1:1"),
            ("a zero before a number", "\"x\":01"),
            ("a plus before a number", "\"x\":+1"),
            ("a point without digits", "\"x\":1."),
            ("hexadecimal", "\"x\":0x1"),
            ("infinity", "\"x\":Infinity"),
            ("an open text", "\"x\":\"open"),
        ],
    ));
    kinds
}

fn texts() -> Vec<Kind> {
    let quoted: Make = |text| with_extra(&[b"\"x\":\"", text, b"\""].concat());
    let mut kinds = group::<[u8]>(
        "text",
        quoted,
        &[
            ("an unknown escape", b"\\q"),
            ("a hexadecimal escape", b"\\x41"),
            ("an octal escape", b"\\101"),
            ("half an escape", b"\\u00"),
            ("an escape that is none", b"\\u00zz"),
            ("a sign in an escape", b"\\u+041"),
            ("a line end", b"a\nb"),
            ("a tab", b"a\tb"),
            ("a NUL", b"a\0b"),
            ("a control character", b"a\x1fb"),
            ("a byte that is no UTF-8", b"\xff"),
            ("a byte that continues nothing", b"\x80"),
            ("a letter cut", b"\xc3"),
            ("a long letter cut", b"\xf0\x9f\x98"),
            ("a slash in two bytes", b"\xc0\xaf"),
            ("a slash in three bytes", b"\xe0\x80\xaf"),
            ("a NUL in two bytes", b"\xc0\x80"),
            ("half of a pair", b"\xed\xa0\x80"),
            ("a letter beyond Unicode", b"\xf4\x90\x80\x80"),
            ("five bytes", b"\xf8\x88\x80\x80\x80"),
            ("Latin 1", b"pag\xf3"),
        ],
    );
    let body = String::from_utf8(body()).expect("it is text");
    let wide = |unit: fn(u16) -> [u8; 2]| with_body(&body.encode_utf16().flat_map(unit).collect::<Vec<u8>>());
    kinds.push(kind("text", "UTF-16, big end first", wide(u16::to_be_bytes)));
    kinds.push(kind("text", "UTF-16, little end first", wide(u16::to_le_bytes)));
    kinds.push(kind(
        "text",
        "a byte of the name changed",
        with_body(&body.replacen('c', "\u{441}", 1).into_bytes()),
    ));
    kinds
}

fn ids() -> Vec<Kind> {
    group::<str>(
        "id",
        with_id_as,
        &[
            ("null", "null"),
            ("a number", "7"),
            ("an array", "[\"IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID\"]"),
            ("no text around it", "IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID"),
            ("empty", "\"\""),
            ("a word", "\"Xq7zNeverEchoed\""),
            ("no hyphens", "\"4a7901b87d264d9daa194dc1c7cf60b3\""),
            ("braces", "\"{IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID}\""),
            ("brackets", "\"(IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID)\""),
            ("a name before", "\"urn:uuid:IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID\""),
            ("a space before", "\" IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID\""),
            ("a space behind", "\"IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID \""),
            ("a line end behind", "\"IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID\\n\""),
            ("a NUL behind", "\"IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID\\u0000\""),
            ("a digit behind", "\"IDIDIDID-IDID-IDID-IDID-IDIDIDIDIDID0\""),
            ("a digit missing", "\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b\""),
            ("a letter that is no digit", "\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg\""),
            ("hyphens elsewhere", "\"4a7901b8-7d264-d9d-aa19-4dc1c7cf60b3\""),
            ("other hyphens", "\"4a7901b8–7d26–4d9d–aa19–4dc1c7cf60b3\""),
            ("a plus", "\"+a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\""),
            ("4,000 digits", &format!("\"{}\"", "a".repeat(4_000))),
        ],
    )
}

fn amounts() -> Vec<Kind> {
    group::<str>(
        "amount",
        with_amount,
        &[
            ("null", "null"),
            ("true", "true"),
            ("a text", "\"19.90\""),
            ("an array", "[19.90]"),
            ("an object", "{\"value\":19.90}"),
            ("nothing", ""),
            ("zero", "0"),
            ("zero with decimals", "0.00"),
            ("minus zero", "-0"),
            ("negative", "-19.90"),
            ("barely negative", "-0.01"),
            ("three decimals", "19.905"),
            ("less than a cent", "0.001"),
            ("a tenth of a cent behind zeros", "19.9000000000000000000000001"),
            ("the smallest double", "5e-324"),
            ("a cent and a little", "1.00e-2001"),
            ("above the limit by a cent", "1000000000.00"),
            ("a billion", "1e9"),
            ("2^63 cents", "92233720368547758.08"),
            ("2^64 cents and 1.00", "184467440737095517.16"),
            ("beyond a double", "1e400"),
            ("an absurd exponent", "1e999999999999999999"),
            ("an absurd negative exponent", "1e-999999999999999999"),
            ("zero to an absurd power", "0e999999999"),
            ("a thousand digits", &"9".repeat(1_000)),
            ("3,000 decimals", &format!("1.{}1", "0".repeat(3_000))),
            ("a plus", "+19.90"),
            ("two signs", "--19.90"),
            ("a sign behind", "19.90-"),
            ("a minus alone", "-"),
            ("a zero before", "019.90"),
            ("zeros before", "0019.90"),
            ("no digit before the point", ".90"),
            ("no digit behind the point", "19."),
            ("two points", "19.9.0"),
            ("a comma", "19,90"),
            ("an underscore", "1_9.90"),
            ("a space inside", "19 .90"),
            ("no exponent", "19e"),
            ("a sign for an exponent", "19e+"),
            ("a fraction for an exponent", "19e1.0"),
            ("hexadecimal", "0x13"),
            ("octal", "0o23"),
            ("a currency", "R$19.90"),
            ("a percent sign", "19.90%"),
            ("a suffix", "19.90f"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("minus Infinity", "-Infinity"),
            ("other digits", "１９.９０"),
            ("a NUL behind", "19.90\0"),
            ("a sum", "19+0.90"),
        ],
    )
}

fn types() -> Vec<Kind> {
    group::<str>(
        "type",
        with_type,
        &[
            ("text", "Content-Type: text/plain"),
            ("a form", "Content-Type: application/x-www-form-urlencoded"),
            ("a form in parts", "Content-Type: multipart/form-data; boundary=a"),
            ("XML", "Content-Type: application/xml"),
            ("JSON and half a parameter", "Content-Type: application/json; charset"),
            ("JSON and an open quote", "Content-Type: application/json; charset=\"utf-8"),
            ("JSON and white space around =", "Content-Type: application/json; charset = utf-8"),
            ("JSON and two charsets", "Content-Type: application/json; charset=utf-8; charset=utf-16"),
            ("JSON by another name", "Content-Type: text/json"),
            ("JSON and a letter", "Content-Type: application/jsonx"),
            ("nothing", "Content-Type:"),
            ("a list", "Content-Type: text/plain, application/json"),
            ("a second one", "Content-Type: application/json\r\nContent-Type: text/plain"),
            ("a first one", "Content-Type: text/plain\r\nContent-Type: application/json"),
            ("another charset", "Content-Type: application/json; charset=utf-16"),
            ("letters outside ASCII", "Content-Type: application/jsön"),
            ("gzip", "Content-Encoding: gzip"),
            ("identity", "Content-Encoding: identity"),
            ("an empty encoding", "Content-Encoding:"),
        ],
    )
}

fn sizes() -> Vec<Kind> {
    let padded = |len: usize| {
        let body = payment(ID, "19.90");
        pay(format!("{body}{}", " ".repeat(len - body.len())))
    };
    let fields = |count: usize| {
        with_fields((0..count).map(|number| format!("X-{number}: a\r\n")).collect::<String>().as_bytes())
    };
    let field = |len: usize| with_fields(format!("X-A: {}\r\n", "a".repeat(len)).as_bytes());
    [
        ("a body over 4 KiB by one", padded((4 << 10) + 1)),
        ("a body of 64 KiB", padded(64 << 10)),
        ("a body of 300 KiB", padded(300 << 10)),
        ("a long text", with_extra(format!("\"x\":\"{}\"", "a".repeat(5_000)).as_bytes())),
        ("65 fields", fields(62)),
        ("100 fields", fields(97)),
        ("101 fields", fields(98)),
        ("1,000 fields", fields(997)),
        ("5,000 empty values", with_fields("X:\r\n".repeat(5_000).as_bytes())),
        ("a field of 9 KiB", field(9 << 10)),
        ("a field of 15 KiB", field(15 << 10)),
        ("a field of 17 KiB", field(17 << 10)),
        ("a field of 100 KiB", field(100 << 10)),
        ("a name of 9 KiB", with_fields(format!("{}: a\r\n", "a".repeat(9 << 10)).as_bytes())),
        ("a name of 70 KiB", with_fields(format!("{}: a\r\n", "a".repeat(70 << 10)).as_bytes())),
        ("a method of 3 KiB", with_line(format!("{} /payments HTTP/1.1", "P".repeat(3 << 10)).as_bytes())),
        ("a method of 20 KiB", with_line(format!("{} /payments HTTP/1.1", "P".repeat(20 << 10)).as_bytes())),
    ]
    .into_iter()
    .map(|(name, bytes)| kind("size", name, bytes))
    .collect()
}

/// A payment, once with a length and once in chunks, that ends too early in each of its parts.
fn truncations() -> Vec<Kind> {
    let with_length = pay(body());
    let in_chunks = with_chunks(&one_chunk(&body()));
    let mut kinds = Vec::new();
    for (what, whole, from) in [("cut", &with_length, 0), ("cut chunks", &in_chunks, 40)] {
        let head_len = whole.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let cuts = [1, 4, 5, 14, 20, 23, 24, 25, 30, head_len - 3, head_len - 2, head_len - 1, head_len];
        let ends = [1, 2, 3, 4, 5, 6, 10, 40].map(|left| whole.len() - left);
        for len in cuts.into_iter().chain(ends).filter(|len| *len > from) {
            kinds.push(kind(what, &format!("after {len} bytes"), whole[..len].to_vec()));
        }
    }
    kinds
}

/// What is wrong comes behind a request that is answered.
fn second_requests() -> Vec<Kind> {
    let mut kinds = group::<[u8]>(
        "second request",
        behind_another,
        &[
            ("a space before", b" POST /payments HTTP/1.1"),
            ("a NUL before", b"\0POST /payments HTTP/1.1"),
            ("a chunk before", b"0\r\n\r\nPOST /payments HTTP/1.1"),
            ("a bare CR before", b"\rPOST /payments HTTP/1.1"),
            ("no version", b"POST /payments"),
            ("another version", b"POST /payments HTTP/2.0"),
            ("another method", b"BREW /payments HTTP/1.1"),
            ("a field before", b"X: a\r\nPOST /payments HTTP/1.1"),
            ("a body before", b"{}POST /payments HTTP/1.1"),
            ("a length twice", b"POST /payments HTTP/1.1\r\nContent-Length: 1"),
            ("a host twice", b"POST /payments HTTP/1.1\r\nHost: espora"),
            ("a coding that is none", b"POST /payments HTTP/1.1\r\nTransfer-Encoding: x"),
            ("a folded line", b"POST /payments HTTP/1.1\r\n folded: a"),
        ],
    );
    let asked = |fields: &str| post("/nowhere", fields, pay(body()));
    let len = pay(body()).len();
    let whole = |name: &str, bytes: Vec<u8>| kind("second request", name, bytes);
    kinds.extend([
        whole("a payment that is the body of another request", asked(&format!("Content-Length: {len}\r\n"))),
        whole("the same, with a length short by one", asked(&format!("Content-Length: {}\r\n", len + 1))),
        whole("a payment behind one that wants the end", {
            [&b"GET /health HTTP/1.1\r\nHost: espora\r\nConnection: close\r\n\r\n"[..], &pay(body())].concat()
        }),
        whole("a payment behind HTTP/1.0", [&b"GET /health HTTP/1.0\r\n\r\n"[..], &pay(body())].concat()),
        whole("a payment behind a method that is unknown", [request("BREW", "/"), pay(body())].concat()),
        whole("a payment behind CONNECT", [request("CONNECT", "espora:80"), pay(body())].concat()),
        whole("a payment cut, behind 20 others", {
            let whole = pay(body());
            [get("/health").repeat(20), whole[..whole.len() - 1].to_vec()].concat()
        }),
        whole("a payment behind a body over 4 KiB", [pay(" ".repeat(5_000)), pay(body())].concat()),
        whole("a payment behind a bad chunk", [with_chunks(b"z\r\n\r\n0\r\n\r\n"), pay(body())].concat()),
        whole("a payment behind a length that is none", {
            [with_framing(b"Content-Length: -5\r\n"), pay(body())].concat()
        }),
    ]);
    kinds
}

fn other_protocols() -> Vec<Kind> {
    let pri: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut kinds = group::<[u8]>(
        "protocol",
        raw,
        &[
            ("nothing", &b""[..]),
            ("line ends alone", b"\r\n\r\n\r\n\r\n"),
            ("one byte", b"G"),
            ("a NUL", b"\0"),
            ("zeros", &[0; 300]),
            ("ones", &[0xff; 300]),
            ("HTTP/0.9", b"GET /payments\r\n"),
            ("HTTP/2", pri),
            ("TLS", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03\r\n\r\n"),
            ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
            ("Redis", b"*1\r\n$4\r\nPING\r\n"),
            ("memcached", b"get payments\r\n"),
            ("SMTP", b"EHLO espora\r\nMAIL FROM:<a@b>\r\n"),
            ("SIP", b"REGISTER sip:espora SIP/2.0\r\nVia: a\r\n\r\n"),
            ("RTSP", b"OPTIONS rtsp://espora/payments RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
            ("SOCKS", b"\x05\x01\x00"),
            ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
            ("an answer", b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
            ("a fragment of TLS 1.3", b"\x17\x03\x03\x00\x05hello"),
        ],
    );
    let payment = pay(body());
    let prefixed = |prefix: &[u8]| [prefix, &payment].concat();
    kinds.extend([
        kind("protocol", "a line of PROXY before", prefixed(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")),
        kind(
            "protocol",
            "PROXY in bytes before",
            prefixed(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c127.0.0.1..."),
        ),
        kind("protocol", "JSON alone", body()),
        kind("protocol", "HTTP/2 before", prefixed(pri)),
        kind("protocol", "an interim answer before", prefixed(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ]);
    kinds
}

/// Kinds that may be accepted.
pub(crate) fn hostile() -> Vec<Kind> {
    let body = body();
    let len = body.len();
    let text = String::from_utf8(body.clone()).expect("it is text");
    let coded = one_chunk(&body);
    let coding = "Transfer-Encoding: chunked\r\n";
    let framed = |fields: &str, body: &[u8]| post("/payments", fields, body);
    let hidden = pay(&body);
    let escaped: String = "correlationId".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let lf =
        |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text").replace("\r\n", "\n").into_bytes();
    let with = |name: &str, lines: &str| kind("hostile", name, with_fields(lines.as_bytes()));
    let other = |name: &str, bytes: Vec<u8>| kind("hostile", name, bytes);
    let mut kinds = vec![
        other("an ordinary payment", pay(&body)),
        other(
            "a length, then the coding",
            framed(&format!("Content-Length: {}\r\n{coding}", coded.len()), &coded),
        ),
        other(
            "the coding, then a length",
            framed(&format!("{coding}Content-Length: {}\r\n", coded.len()), &coded),
        ),
        other("a length of zero, then the coding", framed(&format!("Content-Length: 0\r\n{coding}"), &coded)),
        other("a length of the size line, then the coding", {
            framed(&format!("Content-Length: 4\r\n{coding}"), &coded)
        }),
        other(
            "the coding, then a length that is none",
            framed(&format!("{coding}Content-Length: x\r\n"), &coded),
        ),
        other("two framings, then another request", {
            [framed(&format!("Content-Length: 4\r\n{coding}"), &coded), get("/nowhere")].concat()
        }),
        other(
            "the same length twice",
            with_framing(format!("Content-Length: {len}\r\n").repeat(2).as_bytes()),
        ),
        other("a length with zeros", with_framing(format!("Content-Length: 000{len}\r\n").as_bytes())),
        other("LF at the ends of lines", lf(hidden.clone())),
        other("empty lines before", [&b"\r\n\n\r\n"[..], &hidden].concat()),
        other("the coding in capitals", with_coding(b"TRANSFER-ENCODING: CHUNKED\r\n")),
        other("the coding with white space", with_coding(b"Transfer-Encoding:\t chunked \t\r\n")),
        other("chunks with extensions", {
            with_chunks(format!("{len:x} ; a = \"b;\\\"\" ;c\r\n{text}\r\n0;d\r\n\r\n").as_bytes())
        }),
        other("chunks with a length for a trailer", {
            with_chunks(format!("{len:x}\r\n{text}\r\n0\r\nContent-Length: 5\r\n\r\n").as_bytes())
        }),
        other("chunks, then a request", [with_chunks(&coded), get("/nowhere")].concat()),
        other("chunks that look like a request", {
            with_chunks(&one_chunk(&[b" ".repeat(10), hidden.clone()].concat()))
        }),
        other("a whole address", with_target(b"http://espora/payments")),
        other("a whole address of another host", with_target(b"http://other.example:99/payments?a=b")),
        other("a whole address of another scheme", with_target(b"ftp://espora/payments")),
        other("a whole address with a user", with_target(b"http://a:b@espora/payments")),
        other("a query", with_target(b"/payments?amount=0.01")),
        other("a fragment", with_target(b"/payments#Xq7zNeverEchoed")),
        other("a query outside ASCII", with_target("/payments?ä".as_bytes())),
        other("a payment by HTTP/1.0", {
            [format!("POST /payments HTTP/1.0\r\nContent-Length: {len}\r\n\r\n").as_bytes(), &body, &hidden]
                .concat()
        }),
        other("HTTP/1.0 that wants to stay", {
            let head =
                format!("POST /payments HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), &body, &get("/nowhere")].concat()
        }),
        other("a payment in a GET", {
            let head =
                format!("GET /health HTTP/1.1\r\nHost: espora\r\nContent-Length: {}\r\n\r\n", hidden.len());
            [head.as_bytes(), &hidden].concat()
        }),
        other("a payment in a HEAD", {
            let head =
                format!("HEAD /health HTTP/1.1\r\nHost: espora\r\nContent-Length: {}\r\n\r\n", hidden.len());
            [head.as_bytes(), &hidden].concat()
        }),
        other("HEAD, then a payment", [request("HEAD", "/payments-summary"), hidden.clone()].concat()),
        other("HEAD that is refused, then a payment", [request("HEAD", "/nowhere"), hidden.clone()].concat()),
        other("OPTIONS of everything, then a payment", [request("OPTIONS", "*"), hidden.clone()].concat()),
        other("a GET without a length, then a payment", [get("/health"), hidden.clone()].concat()),
        other("a DELETE with a length of zero", {
            [&b"DELETE /payments HTTP/1.1\r\nHost: espora\r\nContent-Length: 0\r\n\r\n"[..], &hidden].concat()
        }),
        other("a payment in a TRACE, then one", {
            let head = format!("TRACE /payments HTTP/1.1\r\nHost: espora\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), &body, &hidden].concat()
        }),
        other("40 at once", [get("/nowhere").repeat(39), hidden.clone()].concat()),
        other("a purge", post("/purge-payments", "Content-Length: 0\r\n", "")),
        other(
            "a purge with a token",
            post("/purge-payments", "X-Rinha-Token: 123\r\nContent-Length: 0\r\n", ""),
        ),
        other("a token outside ASCII", post("/purge-payments", "X-Rinha-Token: a\u{e9}\r\n", "")),
        other("escaped names", {
            pay(format!("{{\"{escaped}\":\"{ID}\",\"\\u0061mount\":1.99e1,\"x\":\"\\ud800\"}}"))
        }),
        other("half of a pair as a name", pay(payment(ID, "19.90,\"\\ud800\":1"))),
        other("an id in capitals", pay(payment(UPPER_ID, "19.900"))),
        other(
            "1,500 brackets",
            with_extra(format!("\"x\":{}{}", "[".repeat(1_500), "]".repeat(1_500)).as_bytes()),
        ),
        other("white space everywhere", {
            pay(format!(" \r\n\t{{ \"amount\" :\t1e1 ,\n\"correlationId\" : \"{ID}\" }} \n"))
        }),
        other("an unknown host", with_host("Host: xn--espra-3ta.example:65535\r\n".as_bytes())),
        other("an address of version 6", with_host(b"Host: [::1]:9999\r\n")),
        other("an empty host", with_host(b"Host:\r\n")),
        other("a summary with half a bound", get("/payments-summary?from=2020-07-10T12:34")),
        other(
            "a summary with what does not echo",
            get("/payments-summary?from=Xq7zNeverEchoed&to=%00%0d%0a"),
        ),
        other("a summary with the 30th of February", get("/payments-summary?from=2024-02-30T00:00:00Z")),
        other("the metrics", get("/metrics?Xq7zNeverEchoed")),
        other("the metrics in a form", {
            let fields =
                "Accept: text/plain;q=0.5\r\nAccept:\taCCEPT/x\r\naccept: a, b;Xq7zNeverEchoed=\"\r\n";
            format!("GET /metrics HTTP/1.1\r\nHost: espora\r\n{fields}\r\n").into_bytes()
        }),
        other("a payment that asks for a form", pay_with("Accept: application/openmetrics-text\r\n", &body)),
    ];
    kinds.extend([
        with("fields to be dropped", "Connection: Host, Content-Length, Transfer-Encoding, Content-Type\r\n"),
        with("a wish to close", "Connection: close\r\n"),
        with("a wish to close in a list", "Connection: keep-alive, Close\r\n"),
        with("a wish to close beside what is no text", "Connection: \u{e9}, close\r\n"),
        with("a wish to close and one to stay", "Connection: close\r\nConnection: keep-alive\r\n"),
        with(
            "an upgrade to HTTP/2",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        ),
        with("an upgrade to WebSocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        with("an expectation", "Expect: 100-continue\r\n"),
        with("an expectation that is unknown", "Expect: a-miracle\r\n"),
        with("another method in a field", "X-HTTP-Method-Override: DELETE\r\n"),
        with(
            "another target in fields",
            "X-Original-URL: /purge-payments\r\nX-Rewrite-URL: /purge-payments\r\n",
        ),
        with("another host in a field", "X-Forwarded-Host: Xq7zNeverEchoed\r\nForwarded: host=a\r\n"),
        with("a coding in another field", "TE: trailers, chunked\r\n"),
        with("names that are nearly others", "Content-Length-: 5\r\nXTransfer-Encoding: chunked\r\n"),
        with("an underscore for the hyphen", "Transfer_Encoding: chunked\r\nContent_Length: 0\r\n"),
        with("a name that looks like one of HTTP/2", "X-:method: GET\r\n"),
        with("a range", "Range: bytes=0-0\r\nIf-None-Match: *\r\n"),
        with("a value outside ASCII", "X-A: \u{e9}\u{1f600}\r\n"),
        with("an empty value", "X-A:\r\n"),
        with("white space of 12 KiB around a value", &format!("X:{}a\r\n", " ".repeat(12 << 10))),
        with("60 fields", &"X-A: a\r\n".repeat(60)),
    ]);
    kinds
}
