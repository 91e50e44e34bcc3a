//! The paths that every payment takes, each as a function that takes it [`CALLS`] times: `scripts/count-instructions`
//! runs one after the other under callgrind and counts the instructions of that function alone.
//!
//! Everything is prepared before, and given in an order and with contents that are the same in every run: a count is a
//! property of the program and its compiler, not of the machine's load. Without an argument the names are printed.

use api::evidence::{Answer, outcome};
use api::payment::Payment;
use contest::chance::Chance;
use edge::unix::UnixStream;
use edge::{Edge, Reply, Stream};
use http::StatusCode;
use measure::bench::settled_log::{charged, core};
use std::hint::black_box;
use std::rc::Rc;
use store::core::ledger::Ledger;
use store::core::ledger::judgement::Subject;
use store::core::queue::Ordinal;
use store::core::record::{Record, Terms};
use store::core::{ApiId, Effects, Event, Now};
use store::log::frame as log_frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::LocalRuntime;
use wire::frame::{self, AttemptId, CallKind, FromApi, FromStore, Lease, Message};
use wire::{Bounds, Cents, PaymentId, Processor, Timestamp};

/// How often each path is taken; `scripts/count-instructions` divides by it.
const CALLS: usize = 1_000;

/// Payments that are settled before, so that trees and tables have the depth of a busy day.
const SETTLED: usize = 20_000;

/// What becomes of a payment in one frame of the log: three records for each of seven payments.
const PAYMENTS_PER_FRAME: u32 = 7;

const AMOUNT: Cents = Cents(1_990);
const INDEX_KEY: [u64; 2] = [1, 2];
const BEGIN_MS: u64 = 1_750_000_000_000;

/// A path by its name, with what it needs.
type Path = (&'static str, fn());

const PATHS: &[Path] = &[
    ("edge_request", || edge_request(&mut Exchange::new(), &requests())),
    ("parse_payment", || parse_payment(&bodies())),
    ("encode_accept", || encode_frames_of_api(&accepts())),
    ("decode_accept", || decode_frames_of_api(&encoded(&accepts()))),
    ("decode_report", || decode_frames_of_api(&encoded(&reports()))),
    ("encode_lease", || encode_frames_of_store(&leases())),
    ("decode_lease", || decode_frames_of_store(&encoded(&leases()))),
    ("ledger_accept", || ledger_accept(&mut settled(SETTLED), &ids(CALLS))),
    ("ledger_intent", || ledger_intent(&mut queued(CALLS))),
    ("ledger_charge", || ledger_charge(&mut in_flight(CALLS))),
    ("summary_window", || summary_window(&settled(SETTLED), &windows())),
    ("judge_answer", || judge_answer(&answers())),
    ("encode_log_frame", || encode_log_frame(&records())),
    ("core_payment", || core_payment(&ids(CALLS))),
];

fn main() {
    let Some(wanted) = std::env::args().nth(1) else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    match PATHS.iter().find(|(name, _)| *name == wanted) {
        Some((_, take)) => take(),
        None => {
            eprintln!("no path is called {wanted}; without an argument their names are printed");
            std::process::exit(2);
        }
    }
}

// What is counted. Each of these is a function of its own in the program.

#[inline(never)]
fn edge_request(exchange: &mut Exchange, requests: &[Vec<u8>]) {
    for request in requests {
        exchange.ask(black_box(request));
    }
}

#[inline(never)]
fn parse_payment(bodies: &[Vec<u8>]) {
    for body in bodies {
        black_box(Payment::parse(black_box(body))).expect("a payment");
    }
}

#[inline(never)]
fn encode_frames_of_api(frames: &[FromApi]) {
    encode_all(frames);
}

#[inline(never)]
fn encode_frames_of_store(frames: &[FromStore]) {
    encode_all(frames);
}

#[inline(always)]
fn encode_all(frames: &[impl Message]) {
    let mut out = Vec::with_capacity(256);
    for frame in frames {
        out.clear();
        black_box(frame).encode(&mut out);
        black_box(&out);
    }
}

#[inline(never)]
fn decode_frames_of_api(frames: &[Vec<u8>]) {
    for bytes in frames {
        black_box(frame::decode::<FromApi>(black_box(bytes))).expect("a frame");
    }
}

#[inline(never)]
fn decode_frames_of_store(frames: &[Vec<u8>]) {
    for bytes in frames {
        black_box(frame::decode::<FromStore>(black_box(bytes))).expect("a frame");
    }
}

#[inline(never)]
fn ledger_accept(ledger: &mut Ledger, ids: &[PaymentId]) {
    for id in ids {
        black_box(ledger.judge_accept(*id, AMOUNT));
        ledger.apply(&Record::Accepted { id: *id, cents: AMOUNT });
    }
}

#[inline(never)]
fn ledger_intent(ledger: &mut Ledger) {
    for number in 0..CALLS {
        let (record, _) = ledger.intend(ordinal(number), Processor::Default, BEGIN_MS + number as u64);
        ledger.apply(&record);
    }
}

#[inline(never)]
fn ledger_charge(ledger: &mut Ledger) {
    for number in 0..CALLS {
        let lease = lease(number, ledger.id(ordinal(number)));
        let report = charged(&lease, number as u64);
        for record in ledger.judge_report(Subject::Payment(ordinal(number)), &report) {
            ledger.apply(&record);
        }
    }
}

#[inline(never)]
fn summary_window(ledger: &Ledger, windows: &[Bounds]) {
    for window in windows {
        black_box(ledger.summary.window(*black_box(window)));
    }
}

#[inline(never)]
fn judge_answer(answers: &[Answer<'_>]) {
    for answer in answers {
        black_box(outcome(CallKind::Post, PaymentId(7), *black_box(answer)));
    }
}

#[inline(never)]
fn encode_log_frame(records: &[Vec<Record>]) {
    let (mut encoded, mut out) = (Vec::with_capacity(1_024), Vec::with_capacity(2_048));
    for (number, records) in (0..).zip(records) {
        encoded.clear();
        out.clear();
        records.iter().for_each(|record| record.encode(&mut encoded));
        log_frame::encode(&mut out, 1, 2, number, number, 3 * PAYMENTS_PER_FRAME, &encoded);
        black_box(&out);
    }
}

/// A payment's whole way through the store's core: accept, dispatch, report.
#[inline(never)]
fn core_payment(ids: &[PaymentId]) {
    let (api, mut effects) = (ApiId(1), Effects::default());
    let mut now = Now { us: 0, wall_ms: BEGIN_MS };
    let mut core = core(ids.len() as u64, now);
    let hello = FromApi::Hello { instance: 1, calls_max: 1_000, held: Vec::new() };
    core.step(now, Event::Frame(api, hello), &mut effects);
    for (sequence, id) in (1..).zip(ids) {
        let accept = FromApi::Accept { request: sequence, id: *id, cents: AMOUNT };
        core.step(now, Event::Frame(api, accept), &mut effects);
        core.dispatch(now, &mut effects);
        // It goes out in a pause.
        (now.us, now.wall_ms) = (now.us + 1_000, now.wall_ms + 1);
        core.dispatch(now, &mut effects);
        for (_, said) in effects.sends.drain(..) {
            if let FromStore::Lease(lease) = said {
                let report = FromApi::Report(charged(&lease, sequence));
                core.step(now, Event::Frame(api, report), &mut Effects::default());
            }
        }
        effects.records.clear();
    }
    let settled = core.ledger().balance().charged[Processor::Default].count;
    assert_eq!(settled, ids.len() as u64, "every payment went the whole way");
}

// What they work on.

/// A client and the edge that serves it, in one thread.
struct Exchange {
    runtime: LocalRuntime,
    client: UnixStream,
    answer: [u8; 256],
}

impl Exchange {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(Default::default()).expect("a runtime");
        let client = runtime.block_on(async {
            let (client, served) = std::os::unix::net::UnixStream::pair().expect("two sockets");
            let [client, served] = [client, served].map(|socket| {
                socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).expect("a socket")
            });
            let edge = Rc::new(Edge::new(1));
            let handler = |_| async { Reply::empty(StatusCode::ACCEPTED) };
            let serve = edge.serve(Stream::Unix(served), None, handler);
            tokio::task::spawn_local(serve);
            client
        });
        Self { runtime, client, answer: [0; 256] }
    }

    fn ask(&mut self, request: &[u8]) {
        let Self { runtime, client, answer } = self;
        let read = runtime.block_on(async {
            client.write_all(request).await?;
            client.read(answer).await
        });
        let answer = &answer[..read.expect("an answer")];
        assert!(answer.starts_with(b"HTTP/1.1 202 ") && answer.ends_with(b"\r\n\r\n"));
    }
}

fn requests() -> Vec<Vec<u8>> {
    let head = "POST /payments HTTP/1.1\r\nHost: localhost:9999\r\nContent-Type: application/json\r\nContent-Length: ";
    let request = |body: Vec<u8>| [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    bodies().into_iter().map(request).collect()
}

fn ordinal(number: usize) -> Ordinal {
    Ordinal(u32::try_from(number).expect("a few thousand"))
}

fn ids(count: usize) -> Vec<PaymentId> {
    let mut chance = Chance::new(count as u64);
    (0..count).map(|_| chance.payment_id()).collect()
}

fn bodies() -> Vec<Vec<u8>> {
    let body = |id| format!(r#"{{"correlationId":"{id}","amount":19.90}}"#).into_bytes();
    ids(CALLS).into_iter().map(body).collect()
}

fn encoded(frames: &[impl Message]) -> Vec<Vec<u8>> {
    let encode = |frame: &_| {
        let mut out = Vec::new();
        Message::encode(frame, &mut out);
        out
    };
    frames.iter().map(encode).collect()
}

fn accepts() -> Vec<FromApi> {
    let accept = |(request, id)| FromApi::Accept { request, id, cents: AMOUNT };
    (1..).zip(ids(CALLS)).map(accept).collect()
}

fn lease(number: usize, id: PaymentId) -> Lease {
    Lease {
        attempt: AttemptId(number as u64 + 1),
        id,
        cents: AMOUNT,
        processor: Processor::Default,
        requested_at: Timestamp::from_ms(BEGIN_MS + number as u64),
        kind: CallKind::Post,
        begin_until_us: Some(1),
    }
}

fn leases() -> Vec<FromStore> {
    ids(CALLS).into_iter().enumerate().map(|(number, id)| FromStore::Lease(lease(number, id))).collect()
}

fn reports() -> Vec<FromApi> {
    let report = |(number, id)| FromApi::Report(charged(&lease(number, id), number as u64));
    ids(CALLS).into_iter().enumerate().map(report).collect()
}

fn queued(count: usize) -> Ledger {
    let mut ledger = Ledger::new(count + CALLS, INDEX_KEY);
    ids(count).into_iter().for_each(|id| ledger.apply(&Record::Accepted { id, cents: AMOUNT }));
    ledger
}

fn in_flight(count: usize) -> Ledger {
    let mut ledger = queued(count);
    for number in 0..count {
        let (record, _) = ledger.intend(ordinal(number), Processor::Default, BEGIN_MS + number as u64);
        ledger.apply(&record);
    }
    ledger
}

fn settled(count: usize) -> Ledger {
    let mut ledger = in_flight(count);
    for number in 0..count {
        let (ordinal, processor) = (ordinal(number), Processor::Default);
        ledger.apply(&Record::Charged { ordinal, processor, terms: Terms::Ours });
    }
    ledger
}

fn windows() -> Vec<Bounds> {
    let mut chance = Chance::new(1);
    let mut bound = || BEGIN_MS + chance.between(0, SETTLED as u64);
    let window = |[one, other]: [u64; 2]| Bounds {
        from: Some(Timestamp::from_ms(one.min(other))),
        to: Some(Timestamp::from_ms(one.max(other))),
    };
    (0..CALLS).map(|_| window([bound(), bound()])).collect()
}

fn answers() -> Vec<Answer<'static>> {
    // What a processor says most of the time, and now and then what it says while it fails.
    let charged = Answer { status: 200, content_length: Some(44), body: Some(b"{}") };
    let failing = Answer { status: 500, content_length: Some(0), body: Some(b"") };
    (0..CALLS).map(|number| if number % 10 == 0 { failing } else { charged }).collect()
}

fn records() -> Vec<Vec<Record>> {
    let of_payment = |(number, id): (u32, PaymentId)| {
        let (ordinal, processor) = (Ordinal(number), Processor::Default);
        let requested_at = Timestamp::from_ms(BEGIN_MS + u64::from(number));
        let attempt = AttemptId(u64::from(number) + 1);
        let intended = Record::Intended { ordinal, attempt, processor, requested_at };
        let charged = Record::Charged { ordinal, processor, terms: Terms::Ours };
        [Record::Accepted { id, cents: AMOUNT }, intended, charged]
    };
    let all: Vec<Record> = (0..).zip(ids(CALLS * PAYMENTS_PER_FRAME as usize)).flat_map(of_payment).collect();
    all.chunks(3 * PAYMENTS_PER_FRAME as usize).map(<[Record]>::to_vec).collect()
}
