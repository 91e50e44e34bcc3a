//! Rows of CONTRACT section 5 and how they are run: an input, the answer that the table gives it, and whatever else is
//! as good, with the reason.
//!
//! A row is sent on a connection of its own, through a balancer of either mode and at an api's socket, and all must do
//! the same.
//! Afterwards a connection that stays must serve another request, and one that closes must be closed in order; to the
//! latter the row is sent once more by a client that goes on writing payments, none of which may count. The store's
//! own count says what was recorded.

use super::client::{Answer, Connection, End, Way};
use super::system::System;
use super::{MARK, fresh_id, get, pay, payment, with_id};
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write as _};
use std::thread;
use std::time::{Duration, Instant};

/// What a client that does not stop writes at most: far more than the system's and the server's buffers hold.
const FLOOD_BYTES: usize = 64 << 20;

/// A server that closes reads for at least so long, and so much, of what the client had begun to write: closing with
/// unread bytes is a reset, and a reset may overtake the answer.
const LINGER_MIN: Duration = Duration::from_millis(500);
const LINGER_BYTES_MIN: usize = 32 << 10;

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer of ours; from 400 up it explains itself in JSON.
    Ours(u16),
    /// An answer of the HTTP library, which has no body.
    Library(u16),
    /// The connection ends without an answer.
    Close,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(status) => write!(f, "{status}"),
            Self::Library(status) => write!(f, "{status} without a body"),
            Self::Close => f.write_str("a plain close"),
        }
    }
}

/// An input with its answers.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    request: Vec<u8>,
    expected: Outcome,
    after: After,
    allow: Option<&'static str>,
    as_good: Vec<Outcome>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It serves the next request.
    Stays,
    /// It is closed.
    Closes,
    /// The `x` of the contract: it is closed so that the answer arrives whatever the client still writes.
    Lingers,
}

/// A row that is answered with `status`, and the connection stays.
pub(crate) fn row(name: impl Into<String>, request: impl Into<Vec<u8>>, status: u16) -> Row {
    let (name, request, expected) = (name.into(), request.into(), Outcome::Ours(status));
    Row { name, request, expected, after: After::Stays, allow: None, as_good: Vec::new() }
}

impl Row {
    /// The `x` of the contract: the connection closes after the answer.
    pub(crate) fn x(mut self) -> Self {
        self.after = After::Lingers;
        self
    }

    /// The connection closes after the answer, which is the request's own wish.
    pub(crate) fn then_closes(mut self) -> Self {
        self.after = After::Closes;
        self
    }

    /// The methods that `Allow` lists, besides `OPTIONS`.
    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// What the last paragraph of the contract permits instead, and why this row needs it.
    pub(crate) fn or(mut self, as_good: impl IntoIterator<Item = Outcome>, _why: &'static str) -> Self {
        self.as_good.extend(as_good);
        self
    }

    fn is_good(&self, outcome: Outcome) -> bool {
        self.expected == outcome || self.as_good.contains(&outcome)
    }

    fn is_head(&self) -> bool {
        self.request.starts_with(b"HEAD ")
    }
}

/// What went wrong, row by row.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Notes a row that did not do what it should.
    pub(crate) fn note(&mut self, name: &str, expected: impl fmt::Display, got: impl fmt::Display) {
        self.0.push(format!("{name}: expected {expected}, got {got}"));
    }

    /// The same unless they are equal.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(&mut self, name: &str, expected: T, got: T) {
        if expected != got {
            self.note(name, format_args!("{expected:?}"), format_args!("{got:?}"));
        }
    }

    /// Fails with all of them.
    pub(crate) fn finish(self) {
        let rows = self.0.iter().fold(String::new(), |mut text, row| {
            let _ = write!(text, "\n  {row}");
            text
        });
        assert!(self.0.is_empty(), "{} of the rows failed:{rows}\n", self.0.len());
    }
}

/// Runs all rows in every way.
pub(crate) fn run(system: &System, rows: &[Row]) {
    let mut failures = Failures::default();
    for row in rows {
        let seen: Vec<(Way, Outcome)> = system
            .ways()
            .into_iter()
            .filter_map(|way| run_row(system, &way, row, &mut failures).map(|outcome| (way, outcome)))
            .collect();
        for pair in seen.windows(2) {
            let [(way, outcome), (other_way, other)] = pair else { continue };
            if outcome != other {
                let got = format_args!("{outcome} of {way}, {other} of {other_way}");
                failures.note(&row.name, "all ways to agree", got);
            }
        }
    }
    failures.finish();
}

fn run_row(system: &System, way: &Way, row: &Row, failures: &mut Failures) -> Option<Outcome> {
    let name = format!("{} ({way})", row.name);
    let recorded_before = system.recorded();
    let (outcome, flaws) = match send_once(way, row) {
        Ok(seen) => seen,
        Err(end) => {
            failures.note(&name, row.expected, end);
            return None;
        }
    };
    if row.expected != outcome {
        eprintln!("ALT {name}: {} -> {outcome}", row.expected);
    }
    if !row.is_good(outcome) {
        failures.note(&name, row.expected, outcome);
    }
    for flaw in flaws {
        failures.note(&name, format_args!("{outcome} in good order"), flaw);
    }
    let mut accepted = u64::from(outcome == Outcome::Ours(202));
    failures.equal(&format!("{name}, recorded"), accepted, system.recorded() - recorded_before);
    if row.after == After::Lingers {
        let name = format!("{name}, by a client that goes on writing");
        match send_without_end(way, row) {
            Ok(outcome) => accepted += u64::from(outcome == Outcome::Ours(202)),
            Err(flaw) => failures.note(&name, row.expected, flaw),
        }
        failures.equal(&format!("{name}, recorded"), accepted, system.recorded() - recorded_before);
    }
    Some(outcome)
}

/// Sends the row; what came back, and what is wrong about it.
fn send_once(way: &Way, row: &Row) -> Result<(Outcome, Vec<String>), String> {
    let id = fresh_id();
    let mut connection = way.connect();
    let began = Instant::now();
    connection.send(&with_id(&row.request, &id));
    let mut flaws = Vec::new();
    let outcome = match answer(&mut connection, row)? {
        Some((outcome, answer)) => {
            flaws.extend(flaws_of(&answer, outcome, row, &id));
            flaws.extend(flaw_after(&mut connection, row.after));
            // Later, or with more to read, the server may have had enough.
            let is_watched = began.elapsed() < LINGER_MIN && row.request.len() < LINGER_BYTES_MIN;
            if row.after == After::Lingers && is_watched && !connection.is_heard() {
                flaws.push("a close that does not linger".to_owned());
            }
            outcome
        }
        None => Outcome::Close,
    };
    Ok((outcome, flaws))
}

/// The answer, interim ones passed over. `None` when the connection ended instead.
fn answer(connection: &mut Connection, row: &Row) -> Result<Option<(Outcome, Answer)>, String> {
    loop {
        match connection.answer(row.is_head()) {
            Ok(answer) if answer.status == 100 => (),
            Ok(answer) if answer.status >= 400 && answer.body.is_empty() && !row.is_head() => {
                return Ok(Some((Outcome::Library(answer.status), answer)));
            }
            Ok(answer) => return Ok(Some((Outcome::Ours(answer.status), answer))),
            Err(End::Closed | End::Reset) => return Ok(None),
            Err(end) => return Err(end.to_string()),
        }
    }
}

fn flaws_of(answer: &Answer, outcome: Outcome, row: &Row, id: &str) -> Vec<String> {
    let mut flaws = Vec::new();
    if matches!(outcome, Outcome::Ours(400..)) && !row.is_head() {
        flaws.extend(answer.error_flaw());
    }
    flaws.extend(
        [id, MARK].iter().filter(|text| answer.contains(text)).map(|text| format!("an echo of {text}")),
    );
    if let Some(methods) = row.allow {
        let sorted = |list: &str| {
            let mut methods: Vec<String> = list.split(',').map(|method| method.trim().to_owned()).collect();
            methods.sort_unstable();
            methods
        };
        let allow = answer.field("allow").unwrap_or_default();
        if sorted(allow) != sorted(&format!("{methods}, OPTIONS")) {
            flaws.push(format!("Allow: {allow:?}"));
        }
    }
    flaws
}

/// What is wrong with the connection after the answer.
fn flaw_after(connection: &mut Connection, after: After) -> Option<String> {
    if after != After::Stays {
        return match connection.end() {
            End::Closed => None,
            end => Some(format!("{end} instead of an orderly close")),
        };
    }
    match connection.ask(&get("/health")) {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("{} to the next request", answer.status)),
        Err(end) => Some(format!("{end} after the next request")),
    }
}

/// Sends the row, then payments until the server takes no more: the answer must arrive whole, the stream must end in
/// order, and the server must be gone although there is more to read.
pub(crate) fn send_without_end(way: &Way, row: &Row) -> Result<Outcome, String> {
    let mut connection = way.connect();
    let mut writer = connection.writer();
    let request = with_id(&row.request, &fresh_id());
    let follower = pay(payment(&fresh_id(), "19.90"));
    let flood = thread::spawn(move || {
        let _ = writer.write_all(&request);
        let block = follower.repeat(16);
        let mut written = 0;
        while written < FLOOD_BYTES {
            match writer.write(&block) {
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err("it neither reads nor closes");
                }
                Err(_) => return Ok(()),
            }
        }
        Err("it reads for ever")
    });
    let Some((outcome, _)) = answer(&mut connection, row)? else {
        flood.join().expect("the writer does not panic")?;
        return Ok(Outcome::Close);
    };
    if !row.is_good(outcome) {
        return Err(outcome.to_string());
    }
    match (connection.end(), way) {
        // A Unix socket tells the writer's reset before the end that came first.
        (End::Closed, _) | (End::Reset, Way::Api(_)) => (),
        (end, _) => return Err(format!("{end} after the answer {outcome}")),
    }
    flood.join().expect("the writer does not panic")?;
    Ok(outcome)
}
