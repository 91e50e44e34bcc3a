//! What the system has no more of ends no process: descriptors, threads, ports. Each is taken away from a process that runs,
//! and given back.

use crate::harness::processors::Processors;
use crate::harness::strace::Strace;
use crate::harness::system::{Setup, System};
use crate::harness::{fresh_id, pay, payment};
use nix::libc;
use std::os::unix::net::UnixStream;
use wire::Processor;

/// Sets how many descriptors a process may have, and returns how many it could have before.
fn set_descriptors(pid: u32, descriptors: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: both structures are ours and live as long as the calls.
    unsafe {
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut old), 0);
        let new = libc::rlimit { rlim_cur: descriptors, ..old };
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()), 0);
    }
    old.rlim_cur
}

fn paid(system: &System) -> Option<u16> {
    system.hand_off().ask(&pay(payment(&fresh_id(), "19.90"))).ok().map(|answer| answer.status)
}

/// Payments that both sides know: nothing accepted is lost, and nothing is there twice.
fn until_equal(system: &mut System, processors: &Processors, accepted: u64) {
    system.until("every payment is charged", |_| {
        Processor::BOTH.into_iter().map(|processor| processors.totals(processor).0).sum::<u64>() == accepted
    });
    system.until_settled();
}

#[test]
fn a_store_without_descriptors_serves_its_apis_and_takes_connections_later() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    assert_eq!(paid(&system), Some(202));
    let pid = system.store.pid();
    let before = set_descriptors(pid, 8);
    let path = system.store_path();
    let waiting: Vec<UnixStream> =
        (0..4).map(|_| UnixStream::connect(&path).expect("the backlog takes it")).collect();
    system.until("it has noticed", |system| system.store.log().contains("cannot accept"));
    for _ in 0..20 {
        assert_eq!(paid(&system), Some(202), "{}", system.logs());
    }
    set_descriptors(pid, before);
    drop(waiting);
    system.restart_api(0);
    assert_eq!(system.store.pid(), pid);
    until_equal(&mut system, &processors, 21);
}

#[test]
fn an_api_that_gets_no_thread_and_no_port_lives_and_settles_later() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup { is_by_name: true, ..Setup::default() }, Some(&processors));
    let pids = [system.apis[0].pid(), system.apis[1].pid()];
    for (call, error) in [("clone,clone3", "EAGAIN"), ("connect", "EADDRNOTAVAIL"), ("socket", "EMFILE")] {
        let injected: Option<Vec<Strace>> = pids.iter().map(|pid| Strace::fail(*pid, call, error)).collect();
        if injected.is_none() {
            println!("strace is not here, or may not trace: {call} was not taken away");
        }
        for _ in 0..5 {
            assert_eq!(paid(&system), Some(202), "{call}: {}", system.logs());
        }
        system
            .until("they are tried", |system| system.metric("store_leases_total{processor=\"default\"}") > 0);
        drop(injected);
    }
    until_equal(&mut system, &processors, 15);
    assert_eq!(pids, [system.apis[0].pid(), system.apis[1].pid()]);
}
