//! Malformed and hostile requests, and mutants of those and of valid ones, over real sockets, through a balancer of
//! either mode and at an api's own socket.
//!
//! Every stream of bytes is read by a reference parser, too, and whatever a server answers must fit to that: an answer to
//! each request in its order, and to nothing else; no payment accepted that is none; no answer that is not HTTP, that
//! echoes, or that never comes; the same decisions in all ways. The store's own count says what was recorded, and in the
//! place of an api a witness says what lb has sent on.

mod answers;
mod edge;
mod kinds;
mod mutants;
mod payment;
mod reference;
mod witness;

use self::kinds::{Kind, hostile, malformed as malformed_kinds};
use self::mutants::Mutants;
use self::payment::is_payment;
use self::reference::{Reading, Request, Rest};
use self::witness::{Seen, digest};
use crate::harness::client::{Answer, Connection, Way};
use crate::harness::system::{READY_TIMEOUT, System};
use crate::harness::table::Failures;
use crate::harness::{MARK, fresh_id, pay, payment, with_id};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The kinds that there are at least.
const KINDS_MIN: usize = 200;

/// `ESPORA_MUTANTS` and `ESPORA_SEED` make it more of them, and others.
const MUTANTS_DEFAULT: u64 = 5_000;
const SEED_DEFAULT: u64 = 1;

/// Streams between two looks at the store's count.
const ROUND: usize = 250;

/// Clients at a time.
const CLIENTS: usize = 6;

/// Far more than all answers of one stream.
const ANSWERS_BYTES_MAX: u64 = 4 << 20;

/// The texts that errors have. More of them means that one depends on the request.
const ERRORS_MAX: usize = 30;

fn from_env(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// What a client sends on one connection.
struct Stream {
    name: String,
    bytes: Vec<u8>,
    /// Where it is cut into writes.
    cuts: Vec<usize>,
    /// No payment in it may be accepted, whatever the reference says.
    is_malformed: bool,
    reading: Reading,
}

impl Stream {
    fn new(name: String, bytes: Vec<u8>, is_malformed: bool) -> Self {
        let reading = Reading::of(&bytes);
        Self { name, bytes, cuts: Vec::new(), is_malformed, reading }
    }

    /// Sends all of it.
    fn send(&self, connection: &mut Connection) {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let mut from = 0;
        for to in ends {
            connection.send(&self.bytes[from..to]);
            from = to;
        }
    }

    /// What comes back until the server has closed.
    fn exchange(&self, way: &Way) -> Result<Vec<Answer>, String> {
        let mut connection = way.connect();
        connection.set_timeout(READY_TIMEOUT);
        self.send(&mut connection);
        connection.half_close();
        self.answers(&connection)
    }

    fn answers(&self, connection: &Connection) -> Result<Vec<Answer>, String> {
        let mut bytes = Vec::new();
        let outcome = connection.writer().take(ANSWERS_BYTES_MAX).read_to_end(&mut bytes);
        let answers = answers::read_all(&bytes, |number| self.reading.is_head(number));
        match outcome {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                Err(format!("no end: {error}"))
            }
            _ => answers,
        }
    }

    fn is_payment(&self, number: usize) -> bool {
        !self.is_malformed && self.reading.requests.get(number).is_some_and(is_payment)
    }

    /// What is wrong with the answers to it.
    fn flaws(&self, answers: &[Answer]) -> Vec<String> {
        let mut flaws = Vec::new();
        let requests = &self.reading.requests;
        let finals: Vec<&Answer> = answers.iter().filter(|answer| answer.status >= 200).collect();
        let may_be_more = usize::from(self.reading.rest != Rest::Nothing);
        if finals.len() > requests.len() + may_be_more {
            flaws.push(format!("{} answers to {} requests", finals.len(), requests.len()));
        }
        for (number, answer) in finals.iter().enumerate() {
            let request = requests.get(number);
            let is_post = request.is_some_and(|request| request.method == "POST");
            if answer.status < 300 && (request.is_none() || is_post && !self.is_payment(number)) {
                flaws.push(format!("{} to what is number {number}", answer.status));
            }
            // 503 is for a purge whose client has left: each of these shuts its side down.
            let may_be_said = answer.status == 501
                || answer.status == 505 && request.is_none()
                || answer.status == 503 && request.is_some_and(is_purge);
            if answer.status >= 500 && !may_be_said {
                flaws.push(format!("{} to number {number}", answer.status));
            }
            let is_ours = !answer.body.is_empty() && answer.status >= 400;
            flaws.extend(is_ours.then(|| answer.error_flaw()).flatten());
            if answer.contains(MARK) {
                flaws.push("an echo".into());
            }
        }
        flaws
    }

    /// The decisions about its requests. To what is none, a refusal is as good as an end, and when its end comes
    /// together with it chance decides. Chance decides about a purge and what is behind it, too: the client shuts its side
    /// down, and a purge is only carried out, and answered, if the server reads it before that.
    fn decisions(&self, answers: &[Answer]) -> Vec<u16> {
        let requests = &self.reading.requests;
        let certain = requests.iter().position(is_purge).unwrap_or(requests.len());
        let finals = answers.iter().map(|answer| answer.status).filter(|status| *status >= 200);
        let decision = |(number, status)| if self.is_payment(number) && status == 200 { 202 } else { status };
        finals.enumerate().take(certain).map(decision).collect()
    }

    fn shown(&self) -> String {
        let shown = &self.bytes[..self.bytes.len().min(700)];
        format!("{}\n    \"{}\"\n   ", self.name, shown.escape_ascii())
    }
}

/// True for a request to purge, however it is answered.
fn is_purge(request: &Request) -> bool {
    request.method == "POST" && request.target.starts_with(b"/purge-payments")
}

/// What a run has seen.
#[derive(Default)]
struct Tally {
    failures: Failures,
    errors: BTreeSet<String>,
    statuses: BTreeMap<u16, usize>,
    /// Payments that were told to be recorded.
    recorded: u64,
}

/// Sends every stream in every way, and looks after each round whether all is well.
fn try_all(system: &System, streams: &[Stream]) {
    let mut tally = Tally::default();
    for round in streams.chunks(ROUND) {
        let before = system.recorded() - tally.recorded;
        let shared = Mutex::new(std::mem::take(&mut tally));
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let Some(stream) = round.get(next.fetch_add(1, Ordering::Relaxed)) {
                        try_one(&system.ways(), stream, &shared);
                    }
                });
            }
        });
        tally = shared.into_inner().expect("no thread panics");
        let name = format!("the round from {:?} to {:?}", round[0].name, round[round.len() - 1].name);
        for way in system.ways() {
            let paid = way.ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
            tally.recorded += u64::from(paid == Ok(202));
            tally.failures.equal(&format!("a payment after {name} ({way})"), Ok(202), paid);
        }
        let recorded = system.recorded();
        tally.failures.equal(&format!("recorded in {name}"), before + tally.recorded, recorded);
        tally.recorded = recorded - before;
    }
    println!("{} streams, statuses of all answers: {:?}", streams.len(), tally.statuses);
    tally.failures.equal("some are accepted", true, tally.statuses.contains_key(&202));
    if tally.errors.len() > ERRORS_MAX {
        tally.failures.note("the texts of errors", "few of them", format!("{:#?}", tally.errors));
    }
    all_are_well(system, &mut tally.failures);
    tally.failures.finish();
}

fn all_are_well(system: &System, failures: &mut Failures) {
    let processes = system.apis.iter().chain([&system.store, &system.lb, &system.hand_off]);
    // One that has ended has no memory.
    let is_well =
        processes.clone().all(|process| process.resident_bytes() > 0 && !process.log().contains("panic"));
    failures.equal(&format!("all processes are well\n{}", system.logs()), true, is_well);
}

fn try_one(ways: &[Way], stream: &Stream, tally: &Mutex<Tally>) {
    let seen: Vec<_> = ways.iter().map(|way| (way, stream.exchange(way))).collect();
    let mut tally = tally.lock().expect("no thread panics");
    let mut decisions: Vec<(&Way, Vec<u16>)> = Vec::new();
    for (way, seen) in &seen {
        let name = format!("{} ({way})", stream.shown());
        let answers = match seen {
            Ok(answers) => answers,
            Err(flaw) => {
                tally.failures.note(&name, "answers in good order", flaw);
                continue;
            }
        };
        for flaw in stream.flaws(answers) {
            tally.failures.note(
                &name,
                "what fits to its requests",
                format!("{flaw} in {:?}", statuses(answers)),
            );
        }
        for answer in answers {
            *tally.statuses.entry(answer.status).or_default() += 1;
            tally.recorded += u64::from(answer.status == 202);
            if answer.status >= 400 {
                tally.errors.insert(format!("{} {}", answer.status, answer.body));
            }
        }
        decisions.push((way, stream.decisions(answers)));
    }
    for pair in decisions.windows(2) {
        if pair[0].1 != pair[1].1 {
            let got = format!("{:?} of {}, {:?} of {}", pair[0].1, pair[0].0, pair[1].1, pair[1].0);
            tally.failures.note(&stream.shown(), "all ways to agree", got);
        }
    }
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

/// An ordinary payment, to come behind another request.
fn follower() -> Vec<u8> {
    pay(payment(&fresh_id(), "77.77"))
}

/// All kinds, and whether they are malformed.
fn kinds() -> impl Iterator<Item = (Kind, bool)> {
    malformed_kinds()
        .into_iter()
        .map(|kind| (kind, true))
        .chain(hostile().into_iter().map(|kind| (kind, false)))
}

#[test]
fn there_are_many_kinds_and_each_once() {
    let names: BTreeSet<String> = kinds().map(|(kind, _)| kind.name).collect();
    println!("{} kinds, {} of them malformed", names.len(), malformed_kinds().len());
    assert_eq!(names.len(), kinds().count(), "names are unique");
    assert!(malformed_kinds().len() >= KINDS_MIN);
    let mut failures = Failures::default();
    let mut by_bytes: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for (kind, _) in kinds() {
        let other = by_bytes.insert(kind.bytes, kind.name.clone());
        failures.equal(&kind.name, None, other);
    }
    failures.finish();
}

#[test]
fn nothing_malformed_is_accepted_and_all_ways_agree() {
    let streams: Vec<Stream> = kinds()
        .map(|(kind, is_malformed)| Stream::new(kind.name, with_id(&kind.bytes, &fresh_id()), is_malformed))
        .collect();
    try_all(&System::start(), &streams);
}

#[test]
fn a_payment_behind_a_hostile_request_is_answered_as_itself_or_not_at_all() {
    let streams: Vec<Stream> = kinds()
        .map(|(kind, _)| {
            let bytes = [with_id(&kind.bytes, &fresh_id()), follower()].concat();
            Stream::new(format!("{}, then a payment", kind.name), bytes, false)
        })
        .collect();
    try_all(&System::start(), &streams);
}

#[test]
fn no_mutant_is_read_as_something_else_than_it_is() {
    try_all(&System::start(), &mutant_streams());
}

fn mutant_streams() -> Vec<Stream> {
    let seed = from_env("ESPORA_SEED", SEED_DEFAULT);
    println!("ESPORA_SEED={seed}");
    let mutants = Mutants::new(seed);
    (0..from_env("ESPORA_MUTANTS", MUTANTS_DEFAULT))
        .map(|number| {
            let (kind, mut chance) = mutants.get(number);
            let mut bytes = kind.bytes;
            if chance.percent(50) {
                bytes.extend(follower());
            }
            let mut stream = Stream::new(kind.name, bytes, false);
            for _ in 0..chance.between(0, 3) {
                let cut = chance.between(0, stream.bytes.len() as u64 + 1);
                stream.cuts.push(usize::try_from(cut).expect("an index"));
            }
            stream.cuts.sort_unstable();
            stream
        })
        .collect()
}

/// The client does not shut its side down.
#[test]
fn a_client_that_stays_is_answered_or_left_in_time() {
    let system = System::start();
    let mut failures = Failures::default();
    let recorded = system.recorded();
    let streams: Vec<Stream> = malformed_kinds()
        .into_iter()
        .map(|kind| Stream::new(kind.name, with_id(&kind.bytes, &fresh_id()), true))
        .collect();
    let ways = system.ways();
    let mut accepted = 0;
    thread::scope(|scope| {
        let staying: Vec<_> = ways.iter().map(|way| scope.spawn(|| stay(way, &streams))).collect();
        for seen in staying {
            let (flaws, recorded) = seen.join().expect("no thread panics");
            flaws.iter().for_each(|(name, flaw)| failures.note(name, "an answer that fits or an end", flaw));
            accepted += recorded;
        }
    });
    failures.equal("recorded", recorded + accepted, system.recorded());
    all_are_well(&system, &mut failures);
    failures.finish();
}

/// One client for each stream, all at a time: what is wrong, and how many payments were recorded.
fn stay(way: &Way, streams: &[Stream]) -> (Vec<(String, String)>, u64) {
    let (mut flaws, mut recorded) = (Vec::new(), 0);
    let connect = |stream: &Stream| {
        let mut connection = way.connect();
        connection.set_timeout(READY_TIMEOUT);
        stream.send(&mut connection);
        connection
    };
    let clients: Vec<Connection> = streams.iter().map(connect).collect();
    for (stream, mut connection) in streams.iter().zip(clients) {
        let name = format!("{} ({way})", stream.shown());
        // Where all of it are requests, the connection may stay and serve one more.
        let behind = if stream.reading.rest == Rest::Nothing { follower() } else { Vec::new() };
        let both = Stream::new(String::new(), [&stream.bytes[..], &behind].concat(), false);
        if !behind.is_empty() {
            connection.send(&behind);
            connection.half_close();
        }
        match both.answers(&connection) {
            Ok(answers) => {
                recorded += answers.iter().filter(|answer| answer.status == 202).count() as u64;
                let found = both.flaws(&answers);
                flaws.extend(
                    found
                        .into_iter()
                        .map(|flaw| (name.clone(), format!("{flaw} in {:?}", statuses(&answers)))),
                );
            }
            Err(flaw) => flaws.push((name, flaw)),
        }
    }
    (flaws, recorded)
}

/// Behind lb there is a witness in the place of each api.
#[test]
fn lb_sends_on_what_its_clients_have_sent_and_nothing_else() {
    let mut system = System::start();
    let seen = Arc::new(Mutex::new(Seen::default()));
    for at in 0..system.apis.len() {
        system.apis[at].kill();
        let Way::Api(path) = system.api(at) else { unreachable!("an api has a path") };
        witness::listen(&path, &seen);
    }
    let lb = system.lb();
    let mut streams: Vec<Stream> = kinds()
        .flat_map(|(kind, _)| {
            let alone = with_id(&kind.bytes, &fresh_id());
            let followed = [&alone[..], &follower()].concat();
            [("", alone), (", then a payment", followed)]
                .map(|(more, bytes)| Stream::new(format!("{}{more}", kind.name), bytes, false))
        })
        .collect();
    streams.extend(mutant_streams());
    let failures = Mutex::new(Failures::default());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some(stream) = streams.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = stream.shown();
                    let flaw = match stream.exchange(&lb) {
                        Ok(answers) => misdirected(stream, &answers),
                        Err(flaw) => Some(flaw),
                    };
                    if let Some(flaw) = flaw {
                        failures.lock().expect("no thread panics").note(
                            &name,
                            "the answers to its requests",
                            flaw,
                        );
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no thread panics");
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for request in streams.iter().flat_map(|stream| &stream.reading.requests) {
        *sent.entry(digest(request)).or_default() += 1;
    }
    let seen = seen.lock().expect("no thread panics");
    println!("{} streams, {} requests, {} of them seen", streams.len(), sent.len(), seen.requests.len());
    for flaw in &seen.flaws {
        failures.note("the witness", "a request as lb writes it", flaw);
    }
    for (digest, (count, text)) in &seen.requests {
        // lb itself asks for the health.
        let is_check = text.starts_with("GET /health HTTP/1.1\\r\\nhost: espora\\r\\n\\r\\n");
        if !is_check && *count > sent.get(digest).copied().unwrap_or(0) {
            failures.note("the witness", "what a client has sent", format!("{count} times {text}"));
        }
    }
    failures.equal("many requests were seen", true, seen.requests.len() > KINDS_MIN);
    failures.finish();
}

/// An answer of the witness, which allows a digest, that is not the one to its request.
fn misdirected(stream: &Stream, answers: &[Answer]) -> Option<String> {
    let finals = answers.iter().filter(|answer| answer.status >= 200);
    for (number, answer) in finals.enumerate() {
        let expected = stream.reading.requests.get(number).map(digest);
        let is_refused_by_lb = answer.status >= 400 && answer.field("allow").is_none();
        if !is_refused_by_lb && expected.as_deref() != answer.field("allow") {
            return Some(format!(
                "{:?} to number {number} of {:?}",
                answer.field("allow"),
                statuses(answers)
            ));
        }
    }
    None
}
