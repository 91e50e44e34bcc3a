//! The query of `GET /payments-summary`: two bounds, each optional, each at most once, nothing else of interest.

use std::borrow::Cow;
use wire::Bounds;

/// Reads `from` and `to`. `None` when one of them is malformed, empty or given twice, or an escape is broken.
/// Parameters with other names are ignored, as docs/http.md ignores unknown fields.
#[must_use]
pub fn parse(query: Option<&str>) -> Option<Bounds> {
    let mut bounds = Bounds::default();
    let (mut from_seen, mut to_seen) = (false, false);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "from" if !from_seen => {
                bounds.from = Some(Bounds::parse_from(&decode(value)?)?);
                from_seen = true;
            }
            "to" if !to_seen => {
                bounds.to = Some(Bounds::parse_to(&decode(value)?)?);
                to_seen = true;
            }
            "from" | "to" => return None,
            _ => (),
        }
    }
    Some(bounds)
}

/// Undoes percent-encoding (RFC 3986 section 2.1). A `+` stays one: it begins an offset, and no bound has a space.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Timestamp;

    const FROM: Option<Timestamp> = Some(Timestamp(1_594_384_496_000_000));

    #[test]
    fn both_one_or_no_bound_is_a_window() {
        assert_eq!(parse(None), Some(Bounds::default()));
        assert_eq!(parse(Some("")), Some(Bounds::default()));
        assert_eq!(parse(Some("x=1&from")), None);
        let from = "from=2020-07-10T12:34:56.000Z";
        assert_eq!(parse(Some(from)), Some(Bounds { from: FROM, to: None }));
        let both = format!("{from}&to=2020-07-10T12:34:56Z&utm=1");
        assert_eq!(parse(Some(&both)), Some(Bounds { from: FROM, to: FROM }));
    }

    #[test]
    fn a_bound_may_be_percent_encoded() {
        for text in [
            "from=2020-07-10T12%3A34%3a56.000Z",
            "from=2020-07-10T15:34:56%2B03:00",
            "from=2020-07-10T15:34:56+03:00",
            "from=%32020-07-10T12:34:56",
        ] {
            assert_eq!(parse(Some(text)), Some(Bounds { from: FROM, to: None }), "{text}");
        }
    }

    #[test]
    fn a_malformed_empty_or_repeated_bound_is_none() {
        for text in [
            "from=",
            "to=",
            "from=2020-07-10",
            "from=2020-02-30T00:00:00Z",
            "from=nonsense",
            "from=2020-07-10T12:34:56Z&from=2020-07-10T12:34:56Z",
            "from=2020-07-10T12%3",
            "from=2020-07-10T12%zz34:56",
            "from=%ff",
        ] {
            assert_eq!(parse(Some(text)), None, "{text}");
        }
    }
}
