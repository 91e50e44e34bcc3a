//! Silent clients, slow clients and too many clients cost what they may cost: the others are answered, memory is
//! bounded, and a process without descriptors goes on once it has some.

use crate::harness::client::{Connection, End, Way};
use crate::harness::strace::Strace;
use crate::harness::system::{READY_TIMEOUT, Setup, System};
use crate::harness::{fresh_id, get, pay, payment};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::frame::{Frames, FromApi, FromStore, Message};
use wire::{Bounds, Cents, PaymentId};

/// Silent and slow clients of each balancer; `ESPORA_IDLE` and `ESPORA_SLOW` make it more. A test has some thousand
/// descriptors, and an idle client takes one here, one or two at a balancer, and one at an api.
const IDLE_DEFAULT: usize = 1_000;
const SLOW_DEFAULT: usize = 500;

/// Silent clients that come at once: fewer than the kernel keeps before it remembers nothing of them (`lib/edge/src/tcp.rs`).
const SILENT_AT_ONCE: usize = 2_000;

/// What a silent connection may cost in lb or in an api. The goal is 1 KiB; a debug build and the grain of pages and
/// of the allocator are a part of what is measured here.
const IDLE_BYTES_MAX: u64 = 2 * 1024;

/// Between two tries to accept without a descriptor: 50 ms, less what a clock of whole milliseconds cuts off.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(49);

fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn connect(way: &Way) -> Connection {
    let connection = way.connect();
    connection.set_timeout(READY_TIMEOUT);
    connection
}

fn is_answered(way: &Way) -> bool {
    connect(way).ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status) == Ok(202)
}

/// Clients that a balancer has, by its own count.
fn connections(admin: &Way) -> u64 {
    let answer = admin.ask(&get("/metrics")).expect("metrics of the balancer");
    let line = answer.body.lines().find_map(|line| line.strip_prefix("lb_connections "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn silent_and_slow_clients_cost_a_slot_and_nothing_else() {
    let mut system = System::start();
    let (idle, slow) = (count("ESPORA_IDLE", IDLE_DEFAULT), count("ESPORA_SLOW", SLOW_DEFAULT));
    let balancers = [
        (system.lb(), system.lb_admin(), "forward"),
        (system.hand_off(), system.hand_off_admin(), "hand-off"),
    ];
    for (way, admin, name) in balancers {
        // What is measured are the balancer and one of the apis, each with its share of the clients.
        let resident = |system: &System| {
            let lb = if matches!(way, Way::Lb(_)) { &system.lb } else { &system.hand_off };
            [lb.resident_bytes(), system.apis[0].resident_bytes()]
        };
        let cost = |system: &System, before: [u64; 2], count: usize, what: &str| {
            let now = resident(system);
            let [lb, api] = [0, 1].map(|at| now[at].saturating_sub(before[at]));
            let (lb, api) = (lb / count as u64, api / (count as u64 / 2));
            println!("{name}, {what}: {lb} bytes in lb, {api} in an api");
            [lb, api]
        };
        assert!((0..50).all(|_| is_answered(&way)), "{name}");

        let before = resident(&system);
        let mut silent: Vec<Connection> = Vec::new();
        while silent.len() < idle {
            silent.extend((silent.len()..idle).take(SILENT_AT_ONCE).map(|_| connect(&way)));
            system.until("all are there", |_| connections(&admin) >= silent.len() as u64);
        }
        assert!((0..50).all(|_| is_answered(&way)), "{name}, beside silent clients");
        let each = cost(&system, before, idle, "a silent connection");
        assert!(each.iter().all(|bytes| *bytes < IDLE_BYTES_MAX), "{each:?}, {name}");

        let before = resident(&system);
        let asking = idle / 4;
        for client in &mut silent[..asking] {
            assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
        }
        cost(&system, before, asking, "more for one that has just been answered");

        let before = resident(&system);
        let request = pay(payment(&fresh_id(), "19.90"));
        let trickle = |cut: usize| -> Vec<Connection> {
            let mut clients: Vec<Connection> = (0..slow).map(|_| connect(&way)).collect();
            clients.iter_mut().for_each(|client| client.send(&request[..cut]));
            assert!((0..50).all(|_| is_answered(&way)), "{name}, beside slow clients");
            clients
        };
        let in_head = trickle(40);
        cost(&system, before, slow, "a head that is not complete");
        let before = resident(&system);
        let in_body = trickle(request.len() - 10);
        cost(&system, before, slow, "a body that is not complete");
        drop((silent, in_head, in_body));
        system.until("all are gone", |_| connections(&admin) < 10);
    }
}

#[test]
fn a_balancer_without_descriptors_accepts_again_once_it_has_some() {
    let setup = Setup { lb_descriptors: Some(64), ..Setup::default() };
    let mut system = System::start_as(setup, None);
    for way in [system.lb(), system.hand_off()] {
        let began = Instant::now();
        let silent: Vec<Connection> = (0..150).map(|_| way.connect()).collect();
        let mut tries = 0;
        system.until("it has none left, and has tried again", |system| {
            let process = if matches!(way, Way::Lb(_)) { &system.lb } else { &system.hand_off };
            tries = process.log().matches("cannot accept").count();
            tries >= 3
        });
        let tries_max = began.elapsed().div_duration_f64(ACCEPT_PAUSE_MIN) + 1.0;
        assert!(tries as f64 <= tries_max, "{tries} tries, without a pause; {way}");
        let mut waiting = connect(&way);
        waiting.send(&get("/health"));
        drop(silent);
        // It has waited in the backlog.
        let status = waiting.answer(false).map(|answer| answer.status);
        assert_eq!(status, Ok(200), "{way}\n{}", system.logs());
        assert!((0..50).all(|_| is_answered(&way)), "{way}");
    }
}

#[test]
fn an_api_without_descriptors_takes_clients_again_once_it_has_some() {
    let setup = Setup { api_descriptors: Some(64), ..Setup::default() };
    let mut system = System::start_as(setup, None);
    let (direct, handed_off) = (system.api(0), system.hand_off());
    for way in [direct, handed_off] {
        let silent: Vec<Connection> = (0..200).map(|_| way.connect()).collect();
        if matches!(way, Way::HandOff(_)) {
            // Silent clients are accepted after those with a request.
            system.until("they are there", |system| connections(&system.hand_off_admin()) == 200);
        }
        let mut waiting = connect(&way);
        waiting.send(&get("/health"));
        if matches!(way, Way::HandOff(_)) {
            // No api takes it for a second.
            assert_eq!(waiting.answer(false).map(|answer| answer.status), Ok(503));
            assert_eq!(connections(&system.hand_off_admin()), 200);
        } else {
            system.until("it has none left", |system| system.apis[0].log().contains("cannot accept"));
        }
        drop(silent);
        system.until("it takes clients again", |_| way.status("/health") == Some(200));
        assert!((0..50).all(|_| is_answered(&way)), "{way}");
    }
}

#[test]
fn a_client_that_has_left_frees_its_slot_and_descriptor() {
    let few_slots = Setup { lb_args: vec!["--connections-max", "5"], ..Setup::default() };
    let few_descriptors = Setup { lb_descriptors: Some(64), ..Setup::default() };
    let last = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for setup in [few_slots, few_descriptors] {
        let system = System::start_as(setup, None);
        for way in [system.lb(), system.hand_off()] {
            for number in 0..200 {
                let mut client = connect(&way);
                let status = client.ask(last).map(|answer| answer.status);
                assert_eq!(status, Ok(200), "client {number}, {way}\n{}", system.logs());
                assert_eq!(client.end(), End::Closed);
            }
        }
        assert!(!system.hand_off.log().contains("cannot accept"), "{}", system.logs());
    }
}

/// Clients of each balancer that hold all they can, and how many bytes their process may hold.
const HOSTILE: usize = 300;
const HELD_BYTES_MAX: &str = "400000";

/// All that a client can make a process hold without being refused: most of a head, most of a chunk, trailers, a body
/// that does not come whole, and many answers that it does not read.
fn hostile_requests() -> [Vec<u8>; 5] {
    let line = format!("POST /payments?{} HTTP/1.1\r\nHost: espora\r\n", "a".repeat(1_900));
    let head = format!("{line}A: {}\r\n", "a".repeat(7_500));
    let chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\nfff\r\n{}", "a".repeat(4_095));
    let trailers = format!("{chunk}\r\n0\r\nX: {}", "a".repeat(8_000));
    let body = format!("{head}Content-Length: 4096\r\n\r\n{}", "a".repeat(4_095));
    let unread = String::from_utf8(get("/metrics").repeat(500)).expect("it is text");
    [head, chunk, trailers, body, unread].map(String::into_bytes)
}

/// What the processes behind a balancer say of the bytes that they hold: the most, the bound, and connections ended.
fn held_bytes(ways: &[Way], process: &str) -> Vec<[u64; 3]> {
    let of = |way: &Way| {
        let answer = way.ask(&get("/metrics")).expect("metrics");
        let number = |name: &str| {
            let is_it = |line: &&str| {
                line.strip_prefix(process)
                    .and_then(|line| line.strip_prefix(name))
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let line = answer.body.lines().find(is_it).and_then(|line| line.rsplit(' ').next());
            line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {}", answer.body))
        };
        ["_held_bytes_peak", "_held_bytes_max", "_held_bytes_ended_total"].map(number)
    };
    ways.iter().map(of).collect()
}

#[test]
fn clients_that_hold_all_they_can_end_before_others_lack_memory() {
    let args = vec!["--held-bytes-max", HELD_BYTES_MAX];
    let setup = Setup { api_args: args.clone(), lb_args: args, ..Setup::default() };
    let system = System::start_as(setup, None);
    let apis = [system.api(0), system.api(1)];
    let balancers = [(system.lb(), vec![system.lb_admin()], "lb"), (system.hand_off(), apis.to_vec(), "api")];
    for (way, holders, process) in balancers {
        let mut hostile = Vec::new();
        for (number, request) in hostile_requests().iter().cycle().take(HOSTILE).enumerate() {
            let client = way.connect();
            // Some have been ended before they have sent all.
            let _ = client.writer().write_all(request);
            hostile.push(client);
            if number % 10 == 0 {
                assert!(is_answered(&way), "beside {number} of them, {way}\n{}", system.logs());
            }
        }
        assert!((0..50).all(|_| is_answered(&way)), "{way}\n{}", system.logs());
        let seen = held_bytes(&holders, process);
        println!("{way}: the most, the bound, connections ended: {seen:?}");
        for [peak, max, ended] in seen {
            assert!(max / 2 < peak && peak <= max && ended > 0, "{peak} of {max}, {ended} ended, {way}");
        }
    }
}

/// How long a disk takes that stands still: longer than the test, which lets it go on. And how long nothing is taken until
/// that is no accident.
const FLUSH_DELAY: Duration = Duration::from_secs(600);
const NOTHING_TAKEN: Duration = Duration::from_secs(2);

/// Asks for the sum for as long as the store takes it, up to so often; tells how often.
fn ask_for_sums(stream: &mut UnixStream, most: usize) -> usize {
    let mut bytes = Vec::new();
    for request in 0..most as u64 {
        FromApi::Summary { request, bounds: Bounds::default() }.encode(&mut bytes);
    }
    stream.set_write_timeout(Some(NOTHING_TAKEN)).expect("a time");
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(taken) => written += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("the store takes no more: {error}"),
        }
    }
    // The last one may have been cut.
    written / (bytes.len() / most)
}

/// Reads so many sums.
fn read_sums(stream: &mut UnixStream, until: usize) {
    let (mut frames, mut block, mut sums) = (Frames::default(), vec![0; 64 << 10], 0);
    stream.set_read_timeout(Some(READY_TIMEOUT)).expect("a time");
    while sums < until {
        let read = stream.read(&mut block).expect("the store answers");
        assert!(read > 0, "the store hung up after {sums} sums");
        let count = |message| sums += usize::from(matches!(message, FromStore::Summary { .. }));
        frames.take(&block[..read], count).expect("frames");
    }
}

#[test]
fn answers_that_wait_for_the_disk_are_bounded_and_sent_once_it_is_flushed() {
    const ASKED: usize = 200_000;
    let system = System::start_as(Setup { is_flushed: true, ..Setup::default() }, None);
    let mut stream = UnixStream::connect(system.store_path()).expect("the store listens");
    let Some(strace) = Strace::attach(system.store.pid(), "fdatasync", FLUSH_DELAY) else {
        return println!("without strace no disk stands still");
    };
    let mut bytes = Vec::new();
    FromApi::Hello { instance: 99, calls_max: 0, held: Vec::new() }.encode(&mut bytes);
    FromApi::Accept { request: 0, id: PaymentId(1), cents: Cents(1) }.encode(&mut bytes);
    stream.write_all(&bytes).expect("the store reads");
    let asked = ask_for_sums(&mut stream, ASKED);
    assert!(asked < ASKED, "all of {ASKED} questions were taken while nothing was flushed");
    drop(strace);
    read_sums(&mut stream, asked);
}
