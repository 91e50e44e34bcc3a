//! A body in chunks (RFC 9112 section 7.1), read byte by byte as it comes. Pure.
//!
//! [`State`] is the grammar: each byte is what the grammar allows at its place, or the request is refused at that byte.
//! So it makes no difference how a body is cut into reads, and nothing but the body itself is held: extensions and
//! trailers must be well-formed, mean nothing, and are dropped.
//!
//! ```text
//! chunk-size *( BWS ";" BWS name [ BWS "=" BWS value ] ) CR LF  data CR LF    any number of times
//! 1*"0"      *( BWS ";" BWS name [ BWS "=" BWS value ] ) CR LF
//! *( name ":" value CR LF ) CR LF
//! ```
//!
//! Every line ends with CR LF. RFC 9112 section 2.2 lets a recipient take a bare LF for the end of a line in a head; for
//! chunks and trailers that would make two readers see two requests where one sees one.
//!
//! Bounds: [`BODY_BYTES_MAX`], [`LINE_BYTES_MAX`], [`FRAMING_BYTES_MAX`], [`TRAILER_BYTES_MAX`], [`FIELDS_MAX`].

use crate::head::{BODY_TOO_LARGE, Flaw};
use crate::limits::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX};
use std::mem;

/// The most bytes around the chunks before the last one: the smallest chunk has five bytes beside its one.
const FRAMING_BYTES_MAX: usize = 6 * BODY_BYTES_MAX;

/// The longest line before a chunk, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// The longest set of trailers, in bytes, the empty line included.
const TRAILER_BYTES_MAX: usize = HEAD_BYTES_MAX;

const BAD_CHUNK: Flaw = Flaw::bad("bad_chunk", "send each chunk as its size says, or a Content-Length");
const BAD_TRAILER: Flaw = Flaw::bad("bad_trailer", "send no trailers");

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    #[default]
    SizeBegin,
    Size,
    /// White space that only another extension may follow, or the value of the extension whose name is before it.
    Gap {
        may_have_value: bool,
    },
    NameBegin,
    Name,
    ValueBegin,
    Value,
    Quoted,
    /// Behind a backslash in a quoted value.
    Escaped,
    QuotedEnd,
    /// The LF of the line before a chunk.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer, or the CR of the empty line.
    TrailerBegin,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// The LF of the empty line.
    EndLf,
    /// The body is whole.
    End,
}

/// A body that comes in chunks.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    body: Vec<u8>,
    state: State,
    /// As far as it has been read. Then what has not come yet of this chunk.
    size: usize,
    /// Bytes of the line at hand.
    line_len: usize,
    /// Bytes that have come around the body; from the last chunk on, bytes of trailers.
    framing_len: usize,
    trailers: usize,
}

impl Chunks {
    /// Reads on in what comes next of it. Tells how much of `bytes` it has read, and the body once it is whole.
    ///
    /// # Errors
    /// What is said to a client that sends something else.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), Flaw> {
        let mut read = 0;
        while read < bytes.len() {
            if self.state == State::Data {
                let len = self.size.min(bytes.len() - read);
                self.body.extend_from_slice(&bytes[read..read + len]);
                self.size -= len;
                read += len;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.next(bytes[read])?;
            read += 1;
            if self.state == State::End {
                return Ok((read, Some(mem::take(&mut self.body))));
            }
        }
        Ok((read, None))
    }

    /// Bytes of memory that it has for the body.
    pub(crate) fn memory(&self) -> usize {
        self.body.capacity()
    }

    /// The state behind a byte that is not of a chunk's data.
    fn next(&mut self, byte: u8) -> Result<State, Flaw> {
        use State::{DataCr, DataLf, SizeBegin, TrailerBegin, TrailerLf, TrailerName, TrailerValue};
        self.framing_len += 1;
        match self.state {
            TrailerBegin | TrailerName | TrailerValue | TrailerLf | State::EndLf => {
                self.next_of_trailers(byte)
            }
            _ if self.framing_len > FRAMING_BYTES_MAX => Err(BAD_CHUNK),
            DataCr if byte == b'\r' => Ok(DataLf),
            DataLf if byte == b'\n' => Ok(SizeBegin),
            DataCr | DataLf => Err(BAD_CHUNK),
            SizeBegin => {
                (self.size, self.line_len) = (0, 0);
                self.next_of_line(byte)
            }
            _ => self.next_of_line(byte),
        }
    }

    /// In the line before a chunk.
    fn next_of_line(&mut self, byte: u8) -> Result<State, Flaw> {
        use State::{
            Escaped, Gap, Name, NameBegin, Quoted, QuotedEnd, Size, SizeBegin, SizeLf, Value, ValueBegin,
        };
        self.line_len += 1;
        if self.line_len > LINE_BYTES_MAX {
            return Err(BAD_CHUNK);
        }
        Ok(match (self.state, byte) {
            (SizeBegin | Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, |digit| digit as usize);
                self.size = self.size.checked_mul(16).ok_or(BAD_CHUNK)? + digit;
                Size
            }
            (NameBegin | ValueBegin | Gap { .. }, b' ' | b'\t') => self.state,
            (Size | Value | QuotedEnd, b' ' | b'\t') => Gap { may_have_value: false },
            (Name, b' ' | b'\t') => Gap { may_have_value: true },
            (Size | Gap { .. } | Name | Value | QuotedEnd, b';') => NameBegin,
            (Name | Gap { may_have_value: true }, b'=') => ValueBegin,
            (Size | Name | Value | QuotedEnd, b'\r') => SizeLf,
            (NameBegin | Name, _) if is_token_byte(byte) => Name,
            (ValueBegin, b'"') => Quoted,
            (ValueBegin | Value, _) if is_token_byte(byte) => Value,
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_text_byte(byte) => Quoted,
            (SizeLf, b'\n') => return self.begin_data(),
            _ => return Err(BAD_CHUNK),
        })
    }

    /// The size is known.
    fn begin_data(&mut self) -> Result<State, Flaw> {
        if self.size == 0 {
            self.framing_len = 0;
            return Ok(State::TrailerBegin);
        }
        if self.size > BODY_BYTES_MAX - self.body.len() {
            return Err(BODY_TOO_LARGE);
        }
        Ok(State::Data)
    }

    fn next_of_trailers(&mut self, byte: u8) -> Result<State, Flaw> {
        use State::{End, EndLf, TrailerBegin, TrailerLf, TrailerName, TrailerValue};
        if self.framing_len > TRAILER_BYTES_MAX {
            return Err(BAD_TRAILER);
        }
        Ok(match (self.state, byte) {
            (TrailerBegin, b'\r') => EndLf,
            (TrailerBegin, _) if is_token_byte(byte) && self.trailers < FIELDS_MAX => {
                self.trailers += 1;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_text_byte(byte) => TrailerValue,
            (TrailerLf, b'\n') => TrailerBegin,
            (EndLf, b'\n') => End,
            _ => return Err(BAD_TRAILER),
        })
    }
}

/// RFC 9110 section 5.6.2: `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.5: what a field's value is made of, and a quoted text beside its quotes and backslashes.
fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
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
            (b"A\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"0123456789"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
            (b"1 \t; x\t=\ty ;z=\"\\\"\t\xff;\" ;w\r\na\r\n0;x\r\n\r\n", b"a"),
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
    fn of_chunks_nothing_is_held_but_the_body() {
        let mut chunks = Chunks::default();
        let line = [b"2;", &b"a".repeat(900)[..], b"\r\nab\r\n"].concat();
        let trailer = [b"0\r\nX: ", &b"a".repeat(8_000)[..]].concat();
        for piece in [&line[..3], &line[3..800], &line[800..], &trailer[..]] {
            assert_eq!(chunks.read(piece), Ok((piece.len(), None)));
            assert!(chunks.memory() <= 8);
        }
        assert_eq!(chunks.read(b"\r\n\r\nGET"), Ok((4, Some(b"ab".to_vec()))));
    }

    #[test]
    fn a_bad_chunk_is_refused_however_it_is_cut() {
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
            // Line ends of trailers, white space, extensions: each was taken once.
            (b"0\n\r\n".to_vec(), 400),
            (b"0\r\n\n".to_vec(), 400),
            (b"0\r\nX: a\n\r\n".to_vec(), 400),
            (b"0\r\nX: a\n\nGET / HTTP/1.1\r\n".to_vec(), 400),
            (b"0\r\nX: a\r\n\n".to_vec(), 400),
            (b"0\r\nX: a\rb\r\n\r\n".to_vec(), 400),
            (b"0\r\nX: a\r\n b\r\n\r\n".to_vec(), 400),
            (b"0\r\nX: \x0c\r\n\r\n".to_vec(), 400),
            (b"0\r\n: a\r\n\r\n".to_vec(), 400),
            (b"1\x0c\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\x0b\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1 \r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\t\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1\x0c;a\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"0 \r\n\r\n".to_vec(), 400),
            (b"1;\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;;a\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;=a\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a b\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=b c\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=b=c\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=b \r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=\"b\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=\"b\"c\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a=\"\\\r\n\"\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;\xff\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"1;a\0\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"10000000000000001\r\na\r\n0\r\n\r\n".to_vec(), 400),
            (b"ffffffffffffffff\r\na\r\n0\r\n\r\n".to_vec(), 413),
            (b"1001\r\n".to_vec(), 413),
            (format!("{many}1\r\na\r\n0\r\n\r\n").into_bytes(), 413),
            (long("1;", LINE_BYTES_MAX), 400),
            (long("0\r\nX: ", HEAD_BYTES_MAX), 400),
            ([b"0\r\n", &b"X: aaaaaaa\r\n".repeat(FIELDS_MAX + 1)[..]].concat(), 400),
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
                b" ", b"\t", b"\x0c", b"=", b"\"", b"\\",
            ]), 0..10),
            piece in 1_usize..9,
        ) {
            let bytes = pieces.concat();
            prop_assert_eq!(read(&bytes, piece), read(&bytes, 1000));
        }
    }
}
