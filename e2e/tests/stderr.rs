//! Standard error that takes nothing: full, closed, or a pipe that nothing drains. No process ends or waits because of it,
//! and each counts the lines that it could not write.

use crate::harness::client::Way;
use crate::harness::system::{Process, READY_TIMEOUT, Setup, Stderr, System};
use crate::harness::{fresh_id, get, pay, payment};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use wire::{PerProcessor, Processor};

/// More lines than a process keeps for standard error.
const LINES: usize = 1_500;

#[test]
fn a_full_standard_error_costs_nothing_but_lines() {
    serves_and_ends(Stderr::Full);
}

#[test]
fn a_closed_standard_error_costs_nothing_but_lines() {
    serves_and_ends(Stderr::Closed);
}

#[test]
fn a_standard_error_that_is_never_read_costs_nothing_but_lines() {
    serves_and_ends(Stderr::Unread);
}

/// Payments are accepted and settled, also after many log lines, and SIGTERM ends every process in good order.
fn serves_and_ends(stderr: Stderr) {
    let dir = tempfile::tempdir().unwrap();
    let mut processors = PerProcessor([Processor::Default, Processor::Fallback].map(|processor| {
        let args = ["processors", "--only", processor.name(), "--listen", "127.0.0.1:0"].map(str::to_owned);
        Process::spawn(dir.path(), processor.name(), "arena", &args, None, stderr)
    }));
    let addrs = PerProcessor(processors.0.each_ref().map(listening));
    let setup = Setup { stderr, api_args: vec!["--purge", "open"], ..Setup::default() };
    let mut system = System::start_at(setup, Some(addrs));

    pay_every_way(&mut system);
    make_lines(&system.store_path());
    system.restart_store();
    make_lines(&system.store_path());
    pay_every_way(&mut system);

    assert!(system.metric("store_log_lines_dropped_total") > 0);
    if stderr != Stderr::Unread {
        // What was said at the start was lost; a pipe that is not read loses nothing before the queue is full.
        assert!(system.metric("api_log_lines_dropped_total{api=\"api1\"}") > 0);
        for admin in [system.lb_admin(), system.hand_off_admin()] {
            let dropped = number(&admin, "lb_log_lines_dropped_total");
            assert!(dropped > 0, "{dropped}");
        }
    }
    let System { lb, hand_off, apis, store, .. } = &mut system;
    let ours = [lb, hand_off].into_iter().chain(apis).chain([store]);
    for process in ours.chain(&mut processors.0) {
        let status = process.terminate();
        assert!(status.success(), "{status}: {}", process.log());
    }
}

#[test]
fn a_process_that_cannot_start_says_so_or_not_and_ends_with_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let socket_dir = dir.path().join("no-folder");
    std::fs::write(&socket_dir, "a file").unwrap();
    let socket_dir = socket_dir.display().to_string();
    for stderr in [Stderr::Full, Stderr::Closed, Stderr::Unread] {
        for (program, args, code) in [
            ("lb", vec!["--socket-dir", &socket_dir, "--listen", "127.0.0.1:0"], 1),
            ("api", vec!["--socket-dir", &socket_dir], 1),
            ("store", vec!["--socket-dir", &socket_dir, "--log-dir", &socket_dir], 1),
            ("arena", vec!["processors", "--only", "default", "--listen", "192.0.2.1:1"], 1),
            ("lb", vec!["--no-such-flag"], 2),
            ("api", vec!["--no-such-flag"], 2),
            ("store", vec!["--no-such-flag"], 2),
            ("arena", vec!["--no-such-flag"], 2),
        ] {
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            let mut process = Process::spawn(dir.path(), program, program, &args, None, stderr);
            let status = process.wait_for(READY_TIMEOUT);
            let code_seen = status.and_then(|status| status.code());
            assert_eq!(code_seen, Some(code), "{program} {args:?} with {stderr:?}: {status:?}");
        }
    }
}

/// One payment through each way, settled.
fn pay_every_way(system: &mut System) {
    for way in system.ways() {
        let answer = way.ask(&pay(payment(&fresh_id(), "19.90"))).expect("an answer");
        assert_eq!(answer.status, 202, "{way}: {}", answer.body);
    }
    system.until_settled();
}

/// Lets the store say more than its queue of lines holds: once for each connection that is broken.
fn make_lines(store: &Path) {
    for _ in 0..LINES {
        let mut stream = UnixStream::connect(store).expect("the store listens");
        stream.set_read_timeout(Some(READY_TIMEOUT)).unwrap();
        stream.write_all(&[0xff; 16]).unwrap();
        // The end, which may be a reset because the store has not read everything.
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}

/// Where a processor's process says that it listens.
fn listening(process: &Process) -> SocketAddr {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some((_, addr)) = process.log().trim_end().rsplit_once(" listening on ") {
            return addr.parse().expect("an address");
        }
        assert!(Instant::now() < deadline, "no address in {:?}", process.log());
        thread::sleep(Duration::from_millis(3));
    }
}

/// One number without labels of a balancer.
fn number(way: &Way, name: &str) -> u64 {
    let answer = way.ask(&get("/metrics")).expect("metrics");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", answer.body));
    line.trim().parse().expect("a number")
}
