//! What has come from a client, and how much of it the parser may have. Pure: no socket.
//!
//! A connection can only change hands between two requests if nobody holds a byte of the next one. The parser reads as
//! much as it is given and does not tell how much it has used, so it is never given more than it needs for the request
//! that it is at:
//!
//! | the parser is at | it is lent | it has then |
//! |---|---|---|
//! | a head | up to the next empty line | exactly the head: none ends anywhere else |
//! | a body with a length | that length | exactly the body |
//! | a body in chunks | all but the last byte that has come, then that one alone | exactly the body, if it asked for that byte and for nothing more |
//! | an answer that is not written yet | nothing | |
//!
//! The parser stays the only judge of what a request is: where an empty line or a chunk ends is a guess of ours that
//! costs it one more read when it is wrong. Only a client that sends the next request together with the last chunk
//! leaves the matter open; such a connection is [unsure](Intake::is_sure) and stays with the process that has it.

/// So much of a head may be there before a parser looks at it, which has to say that it is too long. A parser takes some
/// 20 KiB; what a client sends byte by byte takes as much as it has sent.
const UNPARSED_BYTES_MAX: usize = super::REQUEST_LINE_BYTES_MAX + super::HEAD_BYTES_MAX;

/// What the parser is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A head, and which of its lines.
    Head(Line),
    /// A body, of which so many bytes are not lent.
    Length(u64),
    /// A body in chunks, and whether the last loan was the last byte alone.
    Chunks(bool),
    /// Nothing: it has the whole request.
    Complete,
}

/// Where in a head the last byte stands that was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Inside,
    AtStart,
    /// At the start, behind a CR.
    AtReturn,
}

/// What has come and was not lent yet.
#[derive(Debug)]
pub(super) struct Intake {
    waiting: Vec<u8>,
    stage: Stage,
    is_sure: bool,
    has_lent: bool,
}

impl Intake {
    /// Between two requests.
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), stage: Stage::Head(Line::Inside), is_sure: true, has_lent: false }
    }

    /// Takes what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Bytes that have come and were not lent.
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a parser would have something to say: there is a whole request, as far as can be seen, or what is there
    /// will never be one, or more of it than any has.
    pub(super) fn is_worth_parsing(&self) -> bool {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t' | 0x80..);
        let is_empty_line = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let request = &self.waiting[self.waiting.iter().take_while(is_empty_line).count()..];
        match head_end(request, &mut Line::Inside) {
            Some(end) => request.len() - end >= body_len(&request[..end]),
            None => self.waiting.len() > UNPARSED_BYTES_MAX || !self.waiting.iter().all(is_plain),
        }
    }

    /// Gives at most `max` bytes to `out` and tells how many.
    pub(super) fn lend(&mut self, max: usize, out: impl FnOnce(&[u8])) -> usize {
        let max = max.min(self.waiting.len());
        let len = match &mut self.stage {
            _ if max == 0 => 0,
            _ if !self.is_sure => max,
            Stage::Head(line) => head_end(&self.waiting[..max], line).unwrap_or(max),
            Stage::Length(left) => {
                let len = max.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                len
            }
            Stage::Chunks(is_last) => {
                *is_last = self.waiting.len() == 1;
                if *is_last { 1 } else { max.min(self.waiting.len() - 1) }
            }
            Stage::Complete => 0,
        };
        if len > 0 {
            out(&self.waiting[..len]);
            self.waiting.drain(..len);
            self.has_lent = true;
        }
        len
    }

    /// The parser has found a head. `body_bytes` is the length of the body, `None` when it comes in chunks.
    pub(super) fn on_head(&mut self, body_bytes: Option<u64>) {
        self.stage = match body_bytes {
            Some(0) => Stage::Complete,
            Some(len) => Stage::Length(len),
            None => Stage::Chunks(false),
        };
    }

    /// The parser has the whole request, or wants no more of it.
    pub(super) fn on_request(&mut self) {
        self.is_sure &= matches!(self.stage, Stage::Complete | Stage::Length(0) | Stage::Chunks(true));
        self.stage = Stage::Complete;
    }

    /// The answer is written: the next request may come.
    pub(super) fn on_answer(&mut self) {
        self.stage = Stage::Head(Line::Inside);
        self.has_lent = false;
    }

    /// True while an answer is awaited and nothing more is lent.
    pub(super) fn is_complete(&self) -> bool {
        self.is_sure && self.stage == Stage::Complete
    }

    /// True when the parser holds nothing of the next request.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_sure && !self.has_lent
    }

    /// False once it is not known what the parser holds.
    pub(super) fn is_sure(&self) -> bool {
        self.is_sure
    }
}

/// Where the next empty line ends. `line` is where the last byte before `bytes` stood, then where the last one looked at
/// does.
///
/// A line ends with LF, as the parser has it, with or without a CR before that.
fn head_end(bytes: &[u8], line: &mut Line) -> Option<usize> {
    for (at, byte) in bytes.iter().enumerate() {
        *line = match (byte, *line) {
            (b'\n', Line::AtStart | Line::AtReturn) => {
                *line = Line::AtStart;
                return Some(at + 1);
            }
            (b'\n', Line::Inside) => Line::AtStart,
            (b'\r', Line::AtStart) => Line::AtReturn,
            _ => Line::Inside,
        };
    }
    None
}

/// How many bytes of a body to wait for before a parser is called: its length where it is written plainly, else none.
/// Only a guess, which saves the memory of a parser; what the length is, the parser decides.
fn body_len(head: &[u8]) -> usize {
    let mut len = None;
    for line in head.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("transfer-encoding") || is("expect") || is("content-length") && len.is_some() {
            return 0;
        }
        if is("content-length") {
            let digits = str::from_utf8(value.trim_ascii()).ok();
            len = digits.and_then(|digits| digits.parse().ok()).filter(|len| *len <= super::BODY_BYTES_MAX);
        }
    }
    len.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a parser is given that asks until `is_enough`, from an intake that gets everything at once or byte by byte.
    fn ask(
        intake: &mut Intake,
        coming: &mut Vec<u8>,
        piece: usize,
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        let mut held = Vec::new();
        while !is_enough(&held) {
            if intake.lend(4096, |bytes| held.extend_from_slice(bytes)) == 0 {
                let len = piece.min(coming.len());
                if len == 0 {
                    break;
                }
                intake.push(&coming[..len]);
                coming.drain(..len);
            }
        }
        held
    }

    #[test]
    fn a_parser_gets_its_request_and_nothing_of_the_next() {
        let head = b"\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n";
        for piece in [1, 7, 1000] {
            let mut coming = [&head[..], b"body", head, b"2\r\nab\r\n0\r\n\r\n"].concat();
            let mut intake = Intake::new();
            let first = ask(&mut intake, &mut coming, piece, |held| held.ends_with(b"\r\n\r\n"));
            assert_eq!(first, head);
            intake.on_head(Some(4));
            assert_eq!(ask(&mut intake, &mut coming, piece, |held| held.len() == 4), b"body");
            intake.on_request();
            assert!(intake.is_complete() && !intake.is_at_rest());
            assert_eq!(ask(&mut intake, &mut coming.clone(), piece, |_| false), b"", "not before the answer");
            intake.on_answer();
            assert!(intake.is_at_rest());
            assert_eq!(ask(&mut intake, &mut coming, piece, |held| held.len() >= head.len()), head);
            intake.on_head(None);
            assert_eq!(
                ask(&mut intake, &mut coming, piece, |held| held.ends_with(b"0\r\n\r\n")),
                b"2\r\nab\r\n0\r\n\r\n"
            );
            intake.on_request();
            intake.on_answer();
            assert!(intake.is_at_rest());
        }
    }

    #[test]
    fn a_request_behind_the_last_chunk_leaves_it_open_what_the_parser_holds() {
        let mut intake = Intake::new();
        intake.on_head(None);
        let mut coming = b"0\r\n\r\nGET".to_vec();
        ask(&mut intake, &mut coming, 100, |held| held.starts_with(b"0\r\n\r\n"));
        intake.on_request();
        intake.on_answer();
        assert!(!intake.is_at_rest() && !intake.is_sure());
    }

    #[test]
    fn a_request_that_is_not_read_to_its_end_leaves_it_open() {
        let mut intake = Intake::new();
        intake.on_head(Some(10));
        intake.push(b"abc");
        assert_eq!(intake.lend(100, |_| ()), 3);
        intake.on_request();
        assert!(!intake.is_sure());
    }

    #[test]
    fn a_parser_is_called_for_a_whole_request_and_for_what_will_never_be_one() {
        let is_worth = |bytes: &[u8]| {
            let mut intake = Intake::new();
            intake.push(bytes);
            intake.is_worth_parsing()
        };
        let open: [&[u8]; 7] = [
            b"",
            b"\r\n",
            b"\r\n\r\n",
            b"P",
            b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n",
            b"POST / HTTP/1.1\r\ncontent-Length: 5 \r\n\r\n1234",
            &[b'a'; UNPARSED_BYTES_MAX],
        ];
        let worth: [&[u8]; 9] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\r\nx\n\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n",
            b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            b"\x16\x03\x01",
            &[b'a'; UNPARSED_BYTES_MAX + 1],
        ];
        for bytes in open {
            assert!(!is_worth(bytes), "{}", bytes.escape_ascii());
        }
        for bytes in worth {
            assert!(is_worth(bytes), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// The parser's own opinion of where a head ends, on everything that looks a little like one.
        #[test]
        fn a_head_ends_where_a_loan_ends(
            parts in prop::collection::vec(
                prop::sample::select(vec!["GET / HTTP/1.1", "\r", "\n", "\r\n", "\n\n", "\r\n\r\n", "A: b", ":", " ", "\t", "\0", "x"]),
                0..14,
            ),
            prefix in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "\r\n\nPOST /a HTTP/1.0\nHost: x\n"]),
            piece in 1_usize..9,
        ) {
            let mut coming = (prefix.to_owned() + &parts.concat()).into_bytes();
            let mut intake = Intake::new();
            let parse = |held: &[u8]| {
                let mut fields = [httparse::EMPTY_HEADER; 32];
                httparse::Request::new(&mut fields).parse(held)
            };
            let held = ask(&mut intake, &mut coming, piece, |held| !matches!(parse(held), Ok(httparse::Status::Partial)));
            if let Ok(httparse::Status::Complete(len)) = parse(&held) {
                prop_assert_eq!(len, held.len(), "{:?}", String::from_utf8_lossy(&held));
            }
        }
    }
}
