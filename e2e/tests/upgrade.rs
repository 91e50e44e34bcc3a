//! Every process is exchanged for the next one under load, and no client notices: no request fails, and no connection
//! ends.

use crate::harness::client::{Connection, End, Way};
use crate::harness::processors::Processors;
use crate::harness::system::{READY_TIMEOUT, System};
use crate::harness::table::Failures;
use crate::harness::{HELD_MIN, HOLD, Held, fresh_id, get, pay, payment, post};
use edge::handoff::{MESSAGE_BYTES_MAX, bind_control, connect_control, control_path, receive, send};
use nix::sys::signal::Signal;
use nix::sys::socket::accept;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wire::socket::{backend_path, bind};

/// How long the processes are restarted in turn; `ESPORA_ROLLING_S` makes it longer.
const ROLLING_DEFAULT: Duration = Duration::from_secs(4);

/// Clients of each balancer that keep their connection, and those that make a new one for each request.
const KEEPING: usize = 12;
const FRESH: usize = 2;

/// A client of this pace posts some 300 payments a second.
const PAUSE: Duration = Duration::from_millis(3);

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    accepted: u64,
    /// Refused or unknown after the hold, and accepted when it was repeated.
    held: u64,
    failed: Vec<String>,
}

/// One client, until it is told to end. One that keeps its connection never makes another.
fn run_client(way: &Way, keeps: bool, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<Connection> = None;
    while !is_over.load(Ordering::Relaxed) {
        let mut connection = match kept.take().map_or_else(|| way.try_connect(), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                seen.failed.push(format!("no connection ({way}): {error}"));
                return seen;
            }
        };
        let request = pay(payment(&fresh_id(), "19.90"));
        loop {
            let asked = Instant::now();
            match connection.ask(&request).map(|answer| answer.status) {
                Ok(200 | 202) => break,
                Ok(503 | 504) if asked.elapsed() >= HELD_MIN => seen.held += 1,
                other => {
                    seen.failed.push(format!("{way}, {} kept: {other:?}", if keeps { "" } else { "not" }));
                    return seen;
                }
            }
        }
        seen.accepted += 1;
        kept = keeps.then_some(connection);
        thread::sleep(PAUSE);
    }
    seen
}

/// Runs clients through both balancers while `change` is at work; what they saw.
fn under_load(system: &mut System, change: impl FnOnce(&mut System)) -> Seen {
    let is_over = AtomicBool::new(false);
    let ways = [system.lb(), system.hand_off()];
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for way in &ways {
            for number in 0..KEEPING + FRESH {
                let is_over = &is_over;
                clients.push(scope.spawn(move || run_client(way, number < KEEPING, is_over)));
            }
        }
        change(system);
        is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in clients {
            let seen = client.join().expect("a client does not panic");
            all.accepted += seen.accepted;
            all.held += seen.held;
            all.failed.extend(seen.failed);
        }
        all
    })
}

#[test]
fn every_process_is_restarted_in_turn_and_no_request_fails() {
    let rolling = std::env::var("ESPORA_ROLLING_S").ok().and_then(|seconds| seconds.parse().ok());
    let rolling = rolling.map_or(ROLLING_DEFAULT, Duration::from_secs);
    let processors = Processors::start();
    let mut system = System::start_as(crate::harness::system::Setup::default(), Some(&processors));
    let (mut rounds, mut away_max) = (0, Duration::ZERO);
    let seen = under_load(&mut system, |system| {
        let began = Instant::now();
        // Each api at least once, whatever that takes.
        while began.elapsed() < rolling || rounds < 2 {
            system.restart_api(rounds % 2);
            system.take_over(false);
            system.take_over(true);
            let stopped = Instant::now();
            system.restart_store();
            away_max = away_max.max(stopped.elapsed());
            rounds += 1;
        }
    });
    println!("{} payments in {rounds} rounds, {} failed", seen.accepted, seen.failed.len());
    assert!(seen.failed.is_empty(), "{:#?}\n{}", seen.failed, system.logs());
    // A store that is back in time costs nothing. One that a slow machine keeps away for longer costs a repetition.
    assert!(seen.held == 0 || away_max >= HOLD / 2, "{} in vain, away for {away_max:?}", seen.held);
    assert!(rounds > 0 && seen.accepted > 0);
    system.until_settled();
    assert_eq!(processors.charged(), seen.accepted);
}

#[test]
fn clients_that_were_taken_over_outlive_their_api_too() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..8).map(|_| system.hand_off().connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.set_timeout(READY_TIMEOUT);
        if number < 4 {
            assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
        } else {
            client.send(&pay(payment(&fresh_id(), "19.90"))[..80]);
        }
    }
    let rests: Vec<Vec<u8>> = clients.iter().map(|_| get("/health")).collect();
    for round in 0..3 {
        system.take_over(true);
        let ended = round % 2;
        system.until_done(ended);
        system.apis[ended].kill();
        for (client, request) in clients[..4].iter_mut().zip(&rests) {
            assert_eq!(client.ask(request).map(|answer| answer.status), Ok(200), "round {round}");
        }
        system.start_api_again(ended);
    }
    // Half of them end while the balancer that has taken them over is there: it finds room for others.
    drop(clients.drain(4..));
    let admin = system.hand_off_admin();
    system.until("the others are forgotten", |_| {
        admin.ask(&get("/metrics")).is_ok_and(|answer| answer.body.contains("\nlb_connections 4\n"))
    });
}

#[test]
fn clients_of_an_api_that_the_next_balancer_is_not_told_of_are_served_on() {
    let mut system = System::start();
    let admin = system.hand_off_admin();
    let until_held = |system: &mut System, numbers: &[&str]| {
        system.until(&format!("{numbers:?}"), |_| {
            let metrics = admin.ask(&get("/metrics")).map(|answer| answer.body);
            metrics
                .is_ok_and(|metrics| numbers.iter().all(|number| metrics.lines().any(|line| line == *number)))
        });
    };
    until_held(&mut system, &["lb_connections 0"]);
    let pays =
        |client: &mut Connection| client.ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
    let mut old: Vec<Connection> = (0..8).map(|_| system.hand_off().connect()).collect();
    for client in &mut old {
        assert_eq!(pays(client), Ok(202));
    }
    until_held(&mut system, &["lb_held{backend=\"api1\"} 4", "lb_held{backend=\"api2\"} 4"]);
    system.take_over_for(true, "api2");
    let mut new: Vec<Connection> = (0..8).map(|_| system.hand_off().connect()).collect();
    let mut failures = Failures::default();
    for (number, client) in new.iter_mut().enumerate() {
        failures.equal(&format!("client {number} of the new balancer"), Ok(202), pays(client));
    }
    for (number, client) in old.iter_mut().enumerate() {
        failures.equal(&format!("client {number} of the old one"), Ok(202), pays(client));
    }
    // Back to the other one.
    system.take_over_for(true, "api1");
    failures.equal("who comes then", Ok(202), pays(&mut system.hand_off().connect()));
    failures.finish();
}

/// Descriptors of a balancer that has room for itself and a few clients, and clients that are more than that.
const FEW: u64 = 40;
const MANY: usize = 60;

/// Clients that have come and been answered, of a system whose balancer of this mode they came to.
fn answered(way: &Way) -> Vec<Connection> {
    let come = |_| {
        let mut client = way.connect();
        client.set_timeout(READY_TIMEOUT);
        assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
        client
    };
    (0..MANY).map(come).collect()
}

#[test]
fn a_balancer_without_descriptors_for_what_it_takes_over_ends_and_the_one_before_it_goes_on() {
    let mut system = System::start();
    let mut clients = answered(&system.hand_off());
    let mut new = system.start_successor_with(true, FEW);
    new.wait();
    system.until("it is told why", |system| system.hand_off.log().contains("no descriptor is left"));
    let mut answers = |system: &System, when: &str| {
        for client in &mut clients {
            assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200), "{when}");
        }
        assert!(system.hand_off().status("/health") == Some(200), "{when}");
    };
    answers(&system, "the old one goes on");
    system.until_done(0);
    system.apis[0].kill();
    answers(&system, "and has every copy");
    system.start_api_again(0);
    system.take_over(true);
    answers(&system, "until one comes that has room");
}

#[test]
fn a_client_that_the_next_balancer_has_no_descriptor_for_is_lost_and_no_other() {
    let mut system = System::start();
    let clients = answered(&system.lb());
    let new = system.start_successor_with(false, FEW);
    system.succeed(false, new);
    system.until("what it had no room for", |system| system.lb.log().contains("no descriptor is left"));
    let (mut kept, mut lost) = (0_usize, 0_usize);
    for mut client in clients {
        // One that is kept may find no descriptor for a connection to a backend, and is told so.
        match client.ask(&get("/health")) {
            Ok(_) => kept += 1,
            Err(End::Closed | End::Reset) => lost += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let told = system.lb.log().matches("no descriptor is left").count();
    assert!(kept > 0 && lost == told, "{kept} kept, {lost} lost, {told} told of\n{}", system.logs());
    system.until("others are served", |system| system.lb().status("/health") == Some(200));
}

#[test]
fn a_purge_under_way_is_taken_over_and_not_repeated() {
    let setup = crate::harness::system::Setup { api_args: vec!["--purge", "open"], ..Default::default() };
    let mut system = System::start_as(setup, None);
    let admin = system.hand_off_admin();
    let has = |line: &str| {
        admin.ask(&get("/metrics")).is_ok_and(|answer| answer.body.lines().any(|other| other == line))
    };
    system.until("no client is left", |_| has("lb_connections 0"));
    let mut client = system.hand_off().connect();
    system.store.signal(Signal::SIGSTOP);
    let since = Held::begin();
    client.send(&post("/purge-payments", "Content-Length: 0\r\n", ""));
    system.until("an api has the purge", |_| {
        ["api1", "api2"].iter().any(|api| has(&format!("lb_held{{backend=\"{api}\"}} 1")))
    });
    (0..2).for_each(|api| system.until_done(api));
    // A new balancer takes its time to start: a stopped api gives nothing up meanwhile.
    system.apis.iter().for_each(|api| api.signal(Signal::SIGSTOP));
    let is_in_time = since.is_in_time();
    system.take_over(true);
    system.apis[0].kill();
    system.apis[1].kill();
    let seen = client.answer(false).map(|answer| answer.status);
    assert!(seen == Err(End::Reset) || (seen == Ok(504) && !is_in_time), "{seen:?}");
}

#[test]
fn on_sigterm_lb_answers_clients_in_the_accept_queue() {
    // Whether it looks at the signal or at the clients first is chance.
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 20;
    let mut failures = Failures::default();
    for round in 0..ROUNDS {
        let mut system = System::start();
        let balancers = |system: &System, signal: Signal| {
            system.lb.signal(signal);
            system.hand_off.signal(signal);
        };
        balancers(&system, Signal::SIGSTOP);
        system.until("they are stopped", |system| system.lb.is_stopped() && system.hand_off.is_stopped());
        let come = |way: Way| {
            let clients = (0..CLIENTS).map(|number| {
                let mut client = way.connect();
                client.send(&if number % 2 == 0 {
                    get("/health")
                } else {
                    pay(payment(&fresh_id(), "19.90"))
                });
                client
            });
            let clients: Vec<Connection> = clients.collect();
            (way, clients)
        };
        let all = [system.lb(), system.hand_off()].map(come);
        // It is told once it goes on, when all of them wait to be accepted.
        balancers(&system, Signal::SIGTERM);
        balancers(&system, Signal::SIGCONT);
        for (way, mut clients) in all {
            let answers = clients.iter_mut().map(|client| client.answer(false).map(|answer| answer.status));
            let failed: Vec<Result<u16, End>> =
                answers.filter(|answer| !matches!(answer, Ok(200 | 202 | 503))).collect();
            if let Some(first) = failed.first() {
                let got = format!("{} without one, the first {first:?}", failed.len());
                failures.note(&format!("{way} in round {round}"), format_args!("{CLIENTS} answers"), got);
            }
        }
        system.lb.wait();
        system.hand_off.wait();
    }
    failures.finish();
}

/// A message between two balancers that has a kind and nothing else.
fn message(kind: u8) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..5].copy_from_slice(&[b'e', b'l', b'b', b'3', kind]);
    bytes
}

#[test]
fn a_balancer_that_is_not_told_to_go_ends_and_the_one_before_it_keeps_its_lock() {
    let dir = tempfile::TempDir::new().unwrap();
    let (admin, lock) = bind(&backend_path(dir.path(), "lb")).unwrap();
    let control = bind_control(&control_path(dir.path(), "lb")).unwrap();
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(crate::harness::system::binaries().join("lb"));
    command.args(["--take-over", "--backends", "api1", "--socket-dir"]).arg(dir.path());
    let new = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + READY_TIMEOUT;
    let passage = loop {
        if let Ok(passage) = accept(&control) {
            break passage;
        }
        assert!(Instant::now() < deadline, "no balancer wants to take over");
        thread::sleep(PAUSE);
    };
    let said = || loop {
        let mut said = [0; MESSAGE_BYTES_MAX];
        match receive(passage.as_fd(), &mut said) {
            Ok(received) => return said[..received.len].to_vec(),
            Err(_) => assert!(Instant::now() < deadline, "it says nothing"),
        }
        thread::sleep(PAUSE);
    };
    assert_eq!(said()[..5], message(1)[..5], "it wants to take over");
    let sockets = [(2, lock.as_fd()), (3, admin.as_fd()), (4, control.as_fd()), (5, clients.as_fd())];
    for (kind, socket) in sockets {
        send(passage.as_fd(), &message(kind), Some(socket)).unwrap();
    }
    send(passage.as_fd(), &message(9), None).unwrap();
    assert_eq!(said(), message(10), "it could serve");
    drop(passage);
    let output = new.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("start this one again"), "{told}");
    let error = wire::socket::lock(&dir.path().join("lb.lock")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_balancer_without_a_successor_goes_on() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..4).map(|_| system.hand_off().connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    }
    let path = control_path(&system.hand_off_dir(), "lb");
    let take_over = b"elb3\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    for said in [&b""[..], b"what is no message", take_over] {
        let applicant = connect_control(&path).unwrap();
        if !said.is_empty() {
            send(applicant.as_fd(), said, None).unwrap();
        }
        if said == take_over {
            let mut message = [0; MESSAGE_BYTES_MAX];
            system.until("it is sent the sockets", |_| {
                receive(applicant.as_fd(), &mut message).is_ok_and(|received| received.passed.is_some())
            });
        }
        drop(applicant);
    }
    for client in &mut clients {
        assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    }
    system.until_done(0);
    system.apis[0].kill();
    for client in &mut clients {
        assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    }
    assert_eq!(system.hand_off().status("/health"), Some(200));
}
