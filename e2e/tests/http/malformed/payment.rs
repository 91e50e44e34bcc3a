//! Whether a request is a payment that may be accepted: docs/http.md once more, by a JSON recogniser and an
//! arithmetic that have nothing of the product in them.

use super::reference::Request;

/// The longest body, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// The digits of 999,999,999.99 in cents.
const CENTS_DIGITS_MAX: i64 = 11;

/// True for `POST /payments` with a body that is one.
pub(crate) fn is_payment(request: &Request) -> bool {
    let types: Vec<&[u8]> = request.values("content-type").collect();
    let is_plain =
        request.values("content-encoding").next().is_none() && types.iter().all(|kind| is_json(kind));
    let is_one = request.method == "POST" && request.path() == b"/payments" && types.len() <= 1;
    is_one && is_plain && is_payment_body(&request.body)
}

/// RFC 9110 section 8.3.1: `application/json` or `application/...+json`, well-formed, in UTF-8 if it names a charset.
fn is_json(kind: &[u8]) -> bool {
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    let (media, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
    let media = media.trim_matches([' ', '\t']);
    let Some(subtype) = media.strip_prefix("application/") else { return false };
    let is_json = subtype == "json" || subtype.strip_suffix("+json").is_some_and(is_token);
    is_json && are_parameters(parameters)
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char))
}

/// What follows a semicolon.
fn are_parameters(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    if text.is_empty() {
        return true;
    }
    if let Some(rest) = text.strip_prefix(';') {
        return are_parameters(rest);
    }
    let Some((name, rest)) = text.split_once('=') else { return false };
    let (value, rest, is_whole) = if let Some(quoted) = rest.strip_prefix('"') {
        let (mut value, mut chars) = (String::new(), quoted.chars());
        loop {
            match chars.next() {
                None => return false,
                Some('"') => break (value, chars.as_str(), true),
                Some('\\') => value.extend(chars.next()),
                Some(char) => value.push(char),
            }
        }
    } else {
        let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
        (rest[..end].to_owned(), &rest[end..], is_token(&rest[..end]))
    };
    let is_utf_8 = name != "charset" || value == "utf-8" || value == "utf8";
    let rest = rest.trim_matches([' ', '\t']);
    is_token(name)
        && is_whole
        && is_utf_8
        && (rest.is_empty() || rest.starts_with(';'))
        && are_parameters(rest)
}

fn is_payment_body(body: &[u8]) -> bool {
    let Some(fields) = std::str::from_utf8(body).ok().and_then(object) else { return false };
    let is_twice = |name: &Units| fields.iter().filter(|(other, _)| other == name).count() > 1;
    let value = |name: &str| fields.iter().find(|(other, _)| *other == units(name)).map(|(_, value)| value);
    let (Some(Value::Text(id)), Some(Value::Number(amount))) = (value("correlationId"), value("amount"))
    else {
        return false;
    };
    let is_each_once = !fields.iter().any(|(name, _)| is_twice(name));
    is_each_once && body.len() <= BODY_BYTES_MAX && is_id(id) && is_amount(amount)
}

/// Hexadecimal digits, 8-4-4-4-12.
fn is_id(id: &Units) -> bool {
    let is_good = |(at, unit): (usize, &u16)| match at {
        8 | 13 | 18 | 23 => *unit == u16::from(b'-'),
        _ => u8::try_from(*unit).is_ok_and(|byte| byte.is_ascii_hexdigit()),
    };
    id.len() == 36 && id.iter().enumerate().all(is_good)
}

/// Above zero, with at most two decimals, at most 999,999,999.99.
fn is_amount(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    let significant = digits.trim_end_matches('0');
    let decimals = fraction.len() as i64 - (digits.len() - significant.len()) as i64 - exponent;
    let significant = significant.trim_start_matches('0');
    let cents_digits = significant.len() as i64 - decimals + 2;
    !number.starts_with('-') && !significant.is_empty() && decimals <= 2 && cents_digits <= CENTS_DIGITS_MAX
}

/// A text in UTF-16, as JSON escapes it: half of a pair can stand alone.
type Units = Vec<u16>;

fn units(text: &str) -> Units {
    text.encode_utf16().collect()
}

/// A value, as far as it matters.
enum Value {
    Text(Units),
    Number(String),
    Other,
}

/// The fields of a JSON object with nothing around it but white space.
fn object(text: &str) -> Option<Vec<(Units, Value)>> {
    let mut json = Json { text: text.as_bytes(), at: 0 };
    json.skip_space();
    let fields = json.object()?;
    json.skip_space();
    (json.at == json.text.len()).then_some(fields)
}

/// RFC 8259, one method for each rule of its grammar. It recurses as deep as 4 KiB of brackets go.
struct Json<'a> {
    text: &'a [u8],
    at: usize,
}

impl Json<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn skip_while(&mut self, is_skipped: impl Fn(u8) -> bool) -> usize {
        let from = self.at;
        while self.at < self.text.len() && is_skipped(self.peek()) {
            self.at += 1;
        }
        self.at - from
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| b" \t\r\n".contains(&byte));
    }

    fn take(&mut self, literal: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(literal).then(|| self.at += literal.len())
    }

    fn object(&mut self) -> Option<Vec<(Units, Value)>> {
        let mut fields = Vec::new();
        self.list(b'{', b'}', |json| {
            let name = json.string()?;
            json.skip_space();
            json.take(b":")?;
            json.skip_space();
            fields.push((name, json.value()?));
            Some(())
        })?;
        Some(fields)
    }

    /// Elements with commas between them.
    fn list(&mut self, open: u8, close: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(&[open])?;
        self.skip_space();
        if self.take(&[close]).is_some() {
            return Some(());
        }
        loop {
            self.skip_space();
            element(self)?;
            self.skip_space();
            if self.take(&[close]).is_some() {
                return Some(());
            }
            self.take(b",")?;
        }
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.peek() {
            b'"' => Value::Text(self.string()?),
            b'{' => self.object().map(|_| Value::Other)?,
            b'[' => self.list(b'[', b']', |json| json.value().map(drop)).map(|()| Value::Other)?,
            b'-' | b'0'..=b'9' => Value::Number(self.number()?),
            _ => {
                let names: [&[u8]; 3] = [b"null", b"true", b"false"];
                names.into_iter().find_map(|name| self.take(name)).map(|()| Value::Other)?
            }
        })
    }

    fn number(&mut self) -> Option<String> {
        let from = self.at;
        let _ = self.take(b"-");
        let is_digit = |byte: u8| byte.is_ascii_digit();
        if self.take(b"0").is_none() && self.skip_while(is_digit) == 0 {
            return None;
        }
        if self.take(b".").is_some() && self.skip_while(is_digit) == 0 {
            return None;
        }
        if self.take(b"e").or_else(|| self.take(b"E")).is_some() {
            let _ = self.take(b"+").or_else(|| self.take(b"-"));
            if self.skip_while(is_digit) == 0 {
                return None;
            }
        }
        Some(String::from_utf8_lossy(&self.text[from..self.at]).into_owned())
    }

    fn string(&mut self) -> Option<Units> {
        self.take(b"\"")?;
        let mut text = Units::new();
        loop {
            let from = self.at;
            self.skip_while(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            text.extend(units(std::str::from_utf8(&self.text[from..self.at]).ok()?));
            if self.take(b"\"").is_some() {
                return Some(text);
            }
            self.take(b"\\")?;
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Option<u16> {
        let byte = self.peek();
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
                return u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| is_hex);
            }
            _ => return None,
        };
        Some(u16::from(plain))
    }
}
