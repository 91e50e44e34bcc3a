//! Media types, as RFC 9110 writes them: what `Content-Type` says (section 8.3) and what `Accept` asks for (section
//! 12.5.1). Pure, and without allocation: a field of any length costs no memory.
//!
//! ```text
//! media-type = type "/" subtype *( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )
//! Accept     = #( media-type [ weight among its parameters ] )
//! ```
//!
//! Names of types and of parameters are read in any letter case, and so are the values of `charset`. A value means the
//! same with quotes and without.

/// A media type, or a range of them (`text/*`, `*/*`).
#[derive(Clone, Copy, Debug)]
struct Media<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    /// From the first `;` on; well-formed.
    parameters: &'a [u8],
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug)]
struct Value<'a> {
    /// Between its quotes, if it has some.
    text: &'a [u8],
    is_quoted: bool,
}

/// How well a range fits to what we have, and how much its client wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    precision: u8,
    /// Thousandths.
    weight: u16,
}

/// The precision of a range that names type and subtype.
const NAMED: u8 = 3;

const OPENMETRICS: (&str, &str, &str) = ("application", "openmetrics-text", "1.0.0");
const TEXT: (&str, &str, &str) = ("text", "plain", "0.0.4");

/// True for what a `Content-Type` may say of JSON: `application/json`, or a type of `application` that ends in `+json`
/// (RFC 6839), in UTF-8 if it names a charset. `utf8`, which is no registered name, is taken: clients do send it.
#[must_use]
pub fn is_json(content_type: &[u8]) -> bool {
    if content_type == b"application/json" {
        return true;
    }
    let Some((media, b"")) = Media::read(content_type) else { return false };
    let suffix = media.subtype.len().checked_sub(5).map(|at| &media.subtype[at..]);
    let is_json = media.subtype.eq_ignore_ascii_case(b"json")
        || media.subtype.len() > 5 && suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"));
    let is_utf_8 = |(name, value): (&[u8], Value<'_>)| {
        !name.eq_ignore_ascii_case(b"charset") || value.is(b"utf-8") || value.is(b"utf8")
    };
    media.kind.eq_ignore_ascii_case(b"application") && is_json && media.parameters().all(is_utf_8)
}

/// True when a client asks for OpenMetrics by its name and wants nothing more than that: no weight that it gives to
/// Prometheus' older text is higher, and where it names both with one weight, the older text is meant. An `Accept` that
/// is malformed asks for nothing.
#[must_use]
pub fn prefers_openmetrics(accept: &[u8]) -> bool {
    let (mut openmetrics, mut text) = (Wish::default(), Wish::default());
    let mut rest = accept;
    loop {
        rest = skip_blank(rest);
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next;
            continue;
        }
        if rest.is_empty() {
            break;
        }
        let Some((range, behind)) = Media::read(rest) else { return false };
        if !matches!(behind, [] | [b',', ..]) {
            return false;
        }
        rest = behind;
        openmetrics.note(range.wish(OPENMETRICS));
        text.note(range.wish(TEXT));
    }
    let is_named = |wish: Wish| wish.precision >= NAMED;
    let is_preferred =
        openmetrics.weight > text.weight || openmetrics.weight == text.weight && !is_named(text);
    is_named(openmetrics) && openmetrics.weight > 0 && is_preferred
}

impl Wish {
    /// The most precise range counts, and of several the one that is wanted most.
    fn note(&mut self, other: Self) {
        if (other.precision, other.weight) > (self.precision, self.weight) {
            *self = other;
        }
    }
}

impl<'a> Media<'a> {
    /// The one that `bytes` begin with, and what follows it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (kind, rest) = token(skip_blank(bytes))?;
        let (subtype, behind) = token(rest.strip_prefix(b"/")?)?;
        let mut rest = behind;
        while let Some(next) = skip_blank(rest).strip_prefix(b";") {
            rest = skip_blank(next);
            if token(rest).is_some() {
                (_, _, rest) = parameter(rest)?;
            }
        }
        let parameters = &behind[..behind.len() - rest.len()];
        Some((Self { kind, subtype, parameters }, skip_blank(rest)))
    }

    fn parameters(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let mut rest = self.parameters;
        std::iter::from_fn(move || {
            while let [b';' | b' ' | b'\t', behind @ ..] = rest {
                rest = behind;
            }
            let (name, value, behind) = parameter(rest)?;
            rest = behind;
            Some((name, value))
        })
    }

    /// What this range says about a type of ours, which is in UTF-8 and of this version.
    fn wish(self, (kind, subtype, version): (&str, &str, &str)) -> Wish {
        let is = |part: &[u8], ours: &str| part.eq_ignore_ascii_case(ours.as_bytes());
        let mut precision = match (self.kind, self.subtype) {
            (b"*", b"*") => 1,
            (part, b"*") if is(part, kind) => 2,
            (part, other) if is(part, kind) && is(other, subtype) => NAMED,
            _ => return Wish::default(),
        };
        let mut weight = 1_000;
        for (name, value) in self.parameters() {
            if is(name, "q") {
                // What follows it is no parameter of the type.
                weight = value.weight().unwrap_or(0);
                break;
            }
            if is(name, "version") && !value.is(version.as_bytes())
                || is(name, "charset") && !value.is(b"utf-8")
            {
                return Wish::default();
            }
            precision = u8::min(precision + 1, u8::MAX - 1);
        }
        Wish { precision, weight }
    }
}

impl Value<'_> {
    /// True for a value that says this, in any letter case.
    fn is(self, text: &[u8]) -> bool {
        let (mut bytes, mut expected) = (self.text.iter(), text.iter());
        loop {
            let byte = match bytes.next() {
                Some(b'\\') if self.is_quoted => bytes.next(),
                byte => byte,
            };
            match (byte, expected.next()) {
                (None, None) => return true,
                (Some(byte), Some(other)) if byte.eq_ignore_ascii_case(other) => (),
                _ => return false,
            }
        }
    }

    /// `q` in thousandths (RFC 9110 section 12.4.2).
    fn weight(self) -> Option<u16> {
        let (whole, decimals) = match self.text {
            [whole @ (b'0' | b'1')] => (whole, &[][..]),
            [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
            _ => return None,
        };
        let mut weight = u16::from(whole - b'0') * 1_000;
        let mut unit = 100;
        for digit in decimals {
            weight += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * unit;
            unit /= 10;
        }
        (weight <= 1_000).then_some(weight)
    }
}

fn skip_blank(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[len..]
}

/// RFC 9110 section 5.6.2.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_in_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let len = bytes.iter().take_while(is_in_token).count();
    (len > 0).then(|| bytes.split_at(len))
}

/// Name, value, and what follows. There is no white space around `=` (RFC 9110 section 5.6.6).
fn parameter(bytes: &[u8]) -> Option<(&[u8], Value<'_>, &[u8])> {
    let (name, rest) = token(bytes)?;
    let rest = rest.strip_prefix(b"=")?;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let len = quoted_len(quoted)?;
        let value = Value { text: &quoted[..len], is_quoted: true };
        return Some((name, value, &quoted[len + 1..]));
    }
    let (text, rest) = token(rest)?;
    Some((name, Value { text, is_quoted: false }, rest))
}

/// How long a quoted text is whose first quote has been read (RFC 9110 section 5.6.4).
fn quoted_len(bytes: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if !is_escaped => return Some(at),
            b'\t' | b' '..=b'~' | 0x80.. => is_escaped = *byte == b'\\' && !is_escaped,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn real_content_types_of_json_are_json() {
        for (client, text, expected) in [
            ("curl --json, requests json=, axios, k6 and Go as told, HTTPie", "application/json", true),
            ("axios before 1.0", "application/json;charset=utf-8", true),
            ("fetch and XMLHttpRequest as told, Spring", "application/json;charset=UTF-8", true),
            (".NET StringContent and JsonContent, okhttp", "application/json; charset=utf-8", true),
            (".NET with quotes", "application/json; charset=\"utf-8\"", true),
            ("Java HttpClient and libraries as told", "Application/JSON", true),
            ("OData", "application/json;odata=verbose;IEEE754Compatible=true", true),
            ("JSON:API", "application/vnd.api+json", true),
            ("a browser's problem report", "application/problem+json; charset=utf-8", true),
            ("libraries that know no registry", "application/json; charset=utf8", true),
            ("white space of every kind", "application/json \t;\tcharset=utf-8 \t", true),
            ("an empty parameter", "application/json; ;", true),
            ("a semicolon at its end", "application/json;", true),
            ("escapes in quotes", "application/json; Charset=\"ut\\f-8\"; a=\";,\\\"\"", true),
            ("curl -d", "application/x-www-form-urlencoded", false),
            ("fetch of a text", "text/plain;charset=UTF-8", false),
            ("requests files=", "multipart/form-data; boundary=a", false),
            ("no client of today", "text/json", false),
            ("another charset", "application/json; charset=utf-16", false),
            ("another charset among two", "application/json; charset=utf-8; charset=latin1", false),
            ("another charset in capitals", "application/json; CHARSET=ISO-8859-1", false),
            ("a letter more", "application/jsonx", false),
            ("a letter more behind a plus", "application/a+jsonx", false),
            ("nothing before the plus", "application/+json", false),
            ("no subtype", "application", false),
            ("no subtype behind a slash", "application/", false),
            ("no type", "/json", false),
            ("nothing", "", false),
            ("a list", "application/json, application/json", false),
            ("white space inside", "application / json", false),
            ("white space around an equals sign", "application/json; charset = utf-8", false),
            ("a parameter without a value", "application/json; charset", false),
            ("an empty value", "application/json; charset=", false),
            ("an open quote", "application/json; charset=\"utf-8", false),
            ("more behind a quote", "application/json; charset=\"utf-8\"x", false),
            ("a form feed", "application/json\x0c", false),
        ] {
            assert_eq!(is_json(text.as_bytes()), expected, "{client}: {text}");
        }
    }

    #[test]
    fn openmetrics_is_for_clients_that_ask_for_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.75,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.25,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_2, true),
            (prometheus_3, true),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; Version=1.0.0; Charset=UTF-8", true),
            ("application/openmetrics-text; version=\"1.0.0\"", true),
            ("application/openmetrics-text, */*", true),
            ("application/openmetrics-text;q=0.5, text/*;q=0.5", true),
            (", application/openmetrics-text ,, text/plain;q=0.9", true),
            ("text/plain;q=0.1, application/openmetrics-text;q=0.101", true),
            ("text/plain, application/openmetrics-text;q=1.000;a=b", false),
            ("", false),
            ("*/*", false),
            ("application/*", false),
            ("text/plain", false),
            ("text/plain; version=0.0.4", false),
            ("text/html, application/xhtml+xml, */*;q=0.8", false),
            ("application/json, text/plain, */*", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=0.0, */*;q=0", false),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.3", false),
            ("application/openmetrics-text;q=0.2, */*;q=0.3", false),
            ("application/openmetrics-text; version=2.0.0", false),
            ("application/openmetrics-text; charset=utf-16", false),
            ("text/plain, application/openmetrics-text", false),
            ("application/openmetrics-text;q=2", false),
            ("application/openmetrics-text;q=0.1234", false),
            ("application/openmetrics-text;q=1.001", false),
            ("application/openmetrics-text;q=x", false),
            ("application/openmetrics-text text/plain", false),
            ("application/openmetrics-text;a=\"", false),
            ("\"application/openmetrics-text\"", false),
            ("text/plain;a=\"b, application/openmetrics-text\"", false),
        ] {
            assert_eq!(prefers_openmetrics(accept.as_bytes()), expected, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_media_type_or_none(
            parts in prop::collection::vec(prop::sample::select(vec![
                "application/json", "text/plain", ";", ",", "q", "=", "\"", "\\", "charset", "utf-8", " ", "*/*", "\u{e9}", "1.0",
            ]), 0..12),
        ) {
            let text = parts.concat();
            let _ = (is_json(text.as_bytes()), prefers_openmetrics(text.as_bytes()));
        }
    }
}
