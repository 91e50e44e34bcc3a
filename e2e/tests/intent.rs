//! The log of the real store has the intent of an attempt before the processor has its first byte (`intent_before_first_byte`).
//!
//! The processors of this test copy what the log holds as soon as the first byte of a request is there, and only then read
//! the request. So that a store which sends first and writes then is found out, strace makes each of its writes late.

use crate::harness::strace::Strace;
use crate::harness::system::{Setup, System};
use crate::harness::{fresh_id, pay, payment};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use store::core::ledger::snapshot::{LoadError, Replay};
use store::core::record::Record;
use store::log::recovery::{Image, Recovered, RecoveryError, recover_segments};
use store::log::segment;
use wire::{PaymentId, PerProcessor, Processor, Timestamp};

/// Clients that pay at the same time, and how often each does.
const CLIENTS: usize = 24;
const PAYMENTS_EACH: usize = 10;

/// As much of the log as all of these payments take, and more.
const COPY_BYTES: usize = 128 << 10;

/// How late a write of the store is.
const WRITE_DELAY: Duration = Duration::from_millis(2);

/// What a processor saw of an attempt.
struct Attempt {
    processor: Processor,
    id: PaymentId,
    requested_at: Timestamp,
    /// What the log held when its first byte came.
    log: Vec<u8>,
}

/// All records of a log.
#[derive(Default)]
struct Records(Vec<Record>);

impl Replay for Records {
    fn load(&mut self, _ledger: impl Read, _len: u64) -> Result<(), LoadError> {
        unreachable!("so short a log has no snapshot")
    }

    fn add(&mut self, record: &Record) {
        self.0.push(*record);
    }
}

impl Records {
    /// Reads a copy up to where it ends, and tells what is said of that: a write that was under way may look like anything.
    fn read(copy: &[u8]) -> (Self, Result<Recovered, RecoveryError>) {
        let image = Image { number: 0, path: PathBuf::from("a copy"), bytes: copy.to_owned() };
        let mut records = Self::default();
        let recovered = recover_segments(None, &mut [image][..], &mut records);
        (records, recovered)
    }

    /// True when an attempt is to be made there, under this time.
    fn have_intent(&self, attempt: &Attempt) -> bool {
        let mut ids = Vec::new();
        self.0.iter().any(|record| match *record {
            Record::Accepted { id, .. } => {
                ids.push(id);
                false
            }
            Record::Intended { ordinal, processor, requested_at, .. } => {
                (ids[ordinal.0 as usize], processor, requested_at)
                    == (attempt.id, attempt.processor, attempt.requested_at)
            }
            _ => false,
        })
    }
}

/// What the log holds now; the read of a moment.
fn copy(log_dir: &Path) -> Vec<u8> {
    let mut bytes = vec![0; COPY_BYTES];
    let mut file = File::open(segment::path(log_dir, 0)).expect("the log is there");
    file.read_exact(&mut bytes).expect("a segment is longer than that");
    bytes
}

/// One connection of a processor, until its other side ends it.
fn serve(
    stream: TcpStream,
    processor: Processor,
    log_dir: &Path,
    seen: &Mutex<Vec<Attempt>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        let log = copy(log_dir);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| {
            let line = line.to_lowercase();
            let length = line.strip_prefix("content-length:")?;
            Some(length.trim().parse().expect("a number"))
        });
        let mut body = vec![0_u8; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let answer = if head.starts_with("POST /payments ") {
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let text = |name: &str| body[name].as_str().expect("a text").to_owned();
            let id = PaymentId::parse(&text("correlationId")).expect("an id");
            let requested_at = Timestamp::parse(&text("requestedAt")).expect("a time");
            seen.lock().expect("no panic").push(Attempt { processor, id, requested_at, log });
            "{}"
        } else {
            r#"{"failing":false,"minResponseTime":0}"#
        };
        let len = answer.len();
        write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{answer}")?;
    }
}

/// A processor on threads that end with this process.
fn start(listener: TcpListener, processor: Processor, log_dir: PathBuf, seen: Arc<Mutex<Vec<Attempt>>>) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (log_dir, seen) = (log_dir.clone(), Arc::clone(&seen));
            thread::spawn(move || serve(stream?, processor, &log_dir, &seen));
        }
    });
}

#[test]
fn the_log_has_every_intent_before_the_processor_has_a_byte_of_its_attempt() {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let listeners = PerProcessor::from_fn(bind);
    let addrs = PerProcessor::from_fn(|processor| listeners[processor].local_addr().expect("an address"));
    let mut system = System::start_at(Setup::default(), Some(addrs));
    let (log_dir, seen) = (system.log_dir(), Arc::default());
    for (processor, listener) in Processor::BOTH.into_iter().zip(listeners.0) {
        start(listener, processor, log_dir.clone(), Arc::clone(&seen));
    }
    let strace = Strace::attach(system.store.pid(), "pwrite64", WRITE_DELAY);
    if strace.is_none() {
        println!("without strace: a store that sends first might not be found out");
    }

    let pay_some = || {
        let mut connection = system.lb().connect();
        for _ in 0..PAYMENTS_EACH {
            let answer = connection.ask(&pay(payment(&fresh_id(), "19.90"))).expect("an answer");
            assert_eq!(answer.status, 202);
        }
    };
    thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(pay_some))));
    system.until_settled();
    drop(strace);

    let seen = seen.lock().expect("no panic");
    let ids: BTreeSet<PaymentId> = seen.iter().map(|attempt| attempt.id).collect();
    assert_eq!(ids.len(), CLIENTS * PAYMENTS_EACH, "every payment was seen");
    let early = seen.iter().filter(|attempt| !Records::read(&attempt.log).0.have_intent(attempt)).count();
    assert_eq!(early, 0, "of {} attempts so many came before their intent", seen.len());
    let (records, recovered) = Records::read(&copy(&log_dir));
    let (records, writes) = (records.0.len() as u64, recovered.expect("a log at rest is whole").frames);
    assert!(2 * writes < records, "{records} records in {writes} writes: what comes at once shares them");
}
