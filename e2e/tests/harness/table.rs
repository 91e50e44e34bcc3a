//! Rows of docs/http.md and how they are run: an input, the answer that the table gives it, and whatever else is
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

/// An input with its answers.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    request: Vec<u8>,
    expected: u16,
    after: After,
    allow: Option<&'static str>,
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
    Row { name: name.into(), request: request.into(), expected: status, after: After::Stays, allow: None }
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
        for way in system.ways() {
            run_row(system, &way, row, &mut failures);
        }
    }
    failures.finish();
}

fn run_row(system: &System, way: &Way, row: &Row, failures: &mut Failures) {
    let name = format!("{} ({way})", row.name);
    let recorded_before = system.recorded();
    let (status, flaws) = match send_once(way, row) {
        Ok(seen) => seen,
        Err(end) => return failures.note(&name, row.expected, end),
    };
    failures.equal(&name, row.expected, status);
    for flaw in flaws {
        failures.note(&name, format_args!("{status} in good order"), flaw);
    }
    let mut accepted = u64::from(status == 202);
    failures.equal(&format!("{name}, recorded"), accepted, system.recorded() - recorded_before);
    if row.after == After::Lingers {
        let name = format!("{name}, by a client that goes on writing");
        match send_without_end(way, row) {
            Ok(status) => accepted += u64::from(status == 202),
            Err(flaw) => failures.note(&name, row.expected, flaw),
        }
        failures.equal(&format!("{name}, recorded"), accepted, system.recorded() - recorded_before);
    }
}

/// Sends the row; the status that came back, and what is wrong about the answer.
fn send_once(way: &Way, row: &Row) -> Result<(u16, Vec<String>), String> {
    let id = fresh_id();
    let mut connection = way.connect();
    let began = Instant::now();
    connection.send(&with_id(&row.request, &id));
    let answer = answer(&mut connection, row)?;
    let mut flaws = flaws_of(&answer, row, &id);
    // Later, or with more to read, the server may have had enough.
    let is_read = row.request.len() < LINGER_BYTES_MIN;
    flaws.extend(flaw_after(&mut connection, row.after, is_read || !matches!(way, Way::Api(_))));
    let is_left = row.after == After::Lingers && is_read && !connection.is_heard();
    // The time is taken after the look: a test that was slow in between looks too late.
    if is_left && began.elapsed() < LINGER_MIN {
        flaws.push("a close that does not linger".to_owned());
    }
    Ok((answer.status, flaws))
}

/// The answer, interim ones passed over.
fn answer(connection: &mut Connection, row: &Row) -> Result<Answer, String> {
    loop {
        match connection.answer(row.is_head()) {
            Ok(answer) if answer.status == 100 => (),
            Ok(answer) => return Ok(answer),
            Err(end) => return Err(end.to_string()),
        }
    }
}

fn flaws_of(answer: &Answer, row: &Row, id: &str) -> Vec<String> {
    let mut flaws = Vec::new();
    if answer.status >= 400 && !row.is_head() {
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

/// What is wrong with the connection after the answer. A Unix socket with unread bytes in it may tell the writer's reset
/// before the end that came first: then its end need not be `orderly`.
fn flaw_after(connection: &mut Connection, after: After, orderly: bool) -> Option<String> {
    if after != After::Stays {
        return match connection.end() {
            End::Closed => None,
            End::Reset if !orderly => None,
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
pub(crate) fn send_without_end(way: &Way, row: &Row) -> Result<u16, String> {
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
    let status = answer(&mut connection, row)?.status;
    if status != row.expected {
        return Err(status.to_string());
    }
    match (connection.end(), way) {
        // As above.
        (End::Closed, _) | (End::Reset, Way::Api(_)) => (),
        (end, _) => return Err(format!("{end} after the answer {status}")),
    }
    flood.join().expect("the writer does not panic")?;
    Ok(status)
}
