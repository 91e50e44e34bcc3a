//! A body in chunks (RFC 9112 section 7.1), put together as it comes. Pure.
//!
//! A chunk is taken once all of it is there: it is short, as the body is. Line ends around it are CR LF and nothing else;
//! extensions and trailers must be well-formed and mean nothing.

use super::head::{BODY_TOO_LARGE, Flaw};
use super::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX};
use httparse::Status;
use std::mem;

/// What may be around the body: the smallest chunk has five bytes beside its one.
const FRAMING_BYTES_MAX: usize = 6 * BODY_BYTES_MAX;

/// The longest line before a chunk.
const LINE_BYTES_MAX: usize = 1024;

const BAD_CHUNK: Flaw = Flaw::bad("bad_chunk", "send each chunk as its size says, or a Content-Length");

/// A body that comes in chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    body: Vec<u8>,
    /// What has come around it.
    framing: usize,
    /// The last chunk has come, and the trailers have not.
    is_at_trailers: bool,
}

impl Chunks {
    /// Reads on in what comes next of it. Tells how much of `bytes` it has read, and the body once it is whole.
    ///
    /// # Errors
    /// What is said to who sends something else.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), Flaw> {
        let mut read = 0;
        loop {
            let rest = &bytes[read..];
            if self.is_at_trailers {
                return Ok(match trailers(rest)? {
                    Some(len) => (read + len, Some(mem::take(&mut self.body))),
                    None => (read, None),
                });
            }
            let Some((line_len, chunk_len)) = chunk_line(rest)? else { return Ok((read, None)) };
            if chunk_len > BODY_BYTES_MAX - self.body.len() {
                return Err(BODY_TOO_LARGE);
            }
            if chunk_len == 0 {
                self.is_at_trailers = true;
                read += line_len;
                continue;
            }
            match rest[line_len..].split_at_checked(chunk_len) {
                Some((chunk, [b'\r', b'\n', ..])) => self.body.extend_from_slice(chunk),
                Some((_, [] | [b'\r'])) | None => return Ok((read, None)),
                Some(_) => return Err(BAD_CHUNK),
            }
            read += line_len + chunk_len + 2;
            self.framing += line_len + 2;
            if self.framing > FRAMING_BYTES_MAX {
                return Err(BAD_CHUNK);
            }
        }
    }
}

/// The line before a chunk: how long it is, and how long the chunk.
fn chunk_line(bytes: &[u8]) -> Result<Option<(usize, usize)>, Flaw> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let is_digit = bytes.first().is_none_or(u8::is_ascii_hexdigit);
        return if is_digit && bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(BAD_CHUNK) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(BAD_CHUNK)?;
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if line.contains(&b'\r') || size.is_empty() || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err(BAD_CHUNK);
    }
    let size = str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
    Ok(Some((end + 1, size.ok_or(BAD_CHUNK)?)))
}

/// How long the trailers are, the empty line included.
fn trailers(bytes: &[u8]) -> Result<Option<usize>, Flaw> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((len, _))) if len <= HEAD_BYTES_MAX => Ok(Some(len)),
        Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(None),
        _ => Err(Flaw::bad("bad_trailer", "send no trailers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads what comes in pieces of so many bytes: the body, and where it ends.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let mut chunks = Chunks::default();
        let mut from = 0;
        let ends = (0..bytes.len()).step_by(piece).chain([bytes.len()]);
        for end in ends {
            let (read, body) = chunks.read(&bytes[from..end]).map_err(|flaw| flaw.status.as_u16())?;
            from += read;
            if let Some(body) = body {
                return Ok(Some((body, from)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_body_is_put_together_and_what_follows_it_is_left() {
        let whole: [(&[u8], &[u8]); 6] = [
            (b"0\r\n\r\n", b""),
            (b"4\r\nbody\r\n0\r\n\r\n", b"body"),
            (b"02\r\nbo\r\n2;a=\"b\"\r\ndy\r\n000\r\n\r\n", b"body"),
            (b"A \t\r\n0123456789\r\n0\r\nX: y\r\nZ: 1\r\n\r\n", b"0123456789"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
            (b"1;;;\xff\r\na\r\n0;x\r\n\r\n", b"a"),
        ];
        for (bytes, body) in whole {
            for piece in [1, 2, 3, 1000] {
                for rest in [&b""[..], b"GET", b"\r\n"] {
                    let bytes = [bytes, rest].concat();
                    let expected = Ok(Some((body.to_vec(), bytes.len() - rest.len())));
                    assert_eq!(read(&bytes, piece), expected, "{} by {piece}", bytes.escape_ascii());
                }
                assert_eq!(read(&bytes[..bytes.len() - 1], piece), Ok(None));
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_however_it_comes() {
        let long =
            |line: &str, len: usize| format!("{line}{}\r\na\r\n0\r\n\r\n", "a".repeat(len)).into_bytes();
        let many = "1\r\na\r\n".repeat(BODY_BYTES_MAX);
        let cases = [
            (b"\r\n\r\n".to_vec(), 400),
            (b"x\r\n".to_vec(), 400),
            (b" 1\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"+1\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"0x1\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a\nb\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a\rb\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\r\nab\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\r\na\n0\r\n\r\n".to_vec(), 400),
            (b"0\r\nno field\r\n\r\n".to_vec(), 400),
            (b"0\r\nX : y\r\n\r\n".to_vec(), 400),
            (b"10000000000000001\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"ffffffffffffffff\r\na\r\n0\r\n\r\n".to_vec(), 413),
            (b"1001\r\n".to_vec(), 413),
            (format!("{many}1\r\na\r\n0\r\n\r\n").into_bytes(), 413),
            (long("1;", LINE_BYTES_MAX), 400),
            (long("0\r\nX: ", HEAD_BYTES_MAX), 400),
            (format!("1;{}\r\na\r\n", "a".repeat(900)).repeat(30).into_bytes(), 400),
        ];
        for (bytes, status) in cases {
            for piece in [1, 5, 100_000] {
                assert_eq!(
                    read(&bytes, piece),
                    Err(status),
                    "{} by {piece}",
                    bytes[..20.min(bytes.len())].escape_ascii()
                );
            }
        }
        assert!(
            matches!(read(format!("{many}0\r\n\r\n").as_bytes(), 999), Ok(Some((body, _))) if body.len() == BODY_BYTES_MAX)
        );
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_makes_no_difference(
            pieces in prop::collection::vec(prop::sample::select(vec![
                &b"1\r\na\r\n"[..], b"3;e\r\nabc\r\n", b"0\r\n", b"\r\n", b"X: y\r\n", b"\n", b"\r", b"2", b";", b"g",
            ]), 0..10),
            piece in 1_usize..9,
        ) {
            let bytes = pieces.concat();
            prop_assert_eq!(read(&bytes, piece), read(&bytes, 1000));
        }
    }
}
