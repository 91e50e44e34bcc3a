//! Mode forward with the real processes: an api that dies or stops costs no client a request.

use crate::harness::client::Connection;
use crate::harness::system::{READY_TIMEOUT, System};
use crate::harness::{Held, fresh_id, get, is_due, pay, payment};
use nix::sys::signal::Signal;

/// A number of the balancer that forwards.
fn lb_metric(system: &System, name: &str) -> u64 {
    let answer = system.lb_admin().ask(&get("/metrics")).expect("metrics of the balancer");
    let content_type = answer.field("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {}", answer.body))
}

#[test]
fn an_api_that_is_killed_costs_no_request() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..20).map(|_| system.lb().connect()).collect();
    let mut accepted = 0;
    for round in 0..6 {
        let ended = round % 2;
        for client in &mut clients {
            client.set_timeout(READY_TIMEOUT);
            client.send(&pay(payment(&fresh_id(), "19.90")));
        }
        // In the middle of them, whatever each of them is at.
        system.apis[ended].kill();
        for client in &mut clients {
            let answer = client.answer(false).map(|answer| answer.status);
            assert!(matches!(answer, Ok(200 | 202)), "{answer:?} in round {round}\n{}", system.logs());
            accepted += 1;
        }
        system.start_api_again(ended);
    }
    assert_eq!(system.recorded(), accepted);
    assert_eq!(lb_metric(&system, "lb_unknown_total") + lb_metric(&system, "lb_unavailable_total"), 0);
}

#[test]
fn an_api_that_is_stopped_is_passed_over_until_it_answers_again() {
    let mut system = System::start();
    system.apis[0].signal(Signal::SIGSTOP);
    let suspect = "lb_suspect{backend=\"api1\"}";
    system.until("it is suspect, though no client asked it", |system| lb_metric(system, suspect) == 1);
    let mut client = system.lb().connect();
    for _ in 0..50 {
        let paid = client.ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
        assert_eq!(paid, Ok(202));
    }
    assert_eq!(lb_metric(&system, "lb_retries_total"), 0, "none of them was sent to it");
    system.apis[0].signal(Signal::SIGCONT);
    system.until("it is believed again", |system| lb_metric(system, suspect) == 0);
}

#[test]
fn on_sigterm_lb_answers_requests_that_have_begun() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..5).map(|_| system.lb().connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    }
    system.store.signal(Signal::SIGSTOP);
    let since = Held::begin();
    for client in &mut clients {
        client.send(&pay(payment(&fresh_id(), "19.90")));
    }
    // It has them all once it has asked for each.
    system.until("they are in flight", |system| {
        let of = |api| lb_metric(system, &format!("lb_in_flight{{backend=\"{api}\"}}"));
        of("api1") + of("api2") == 5
    });
    system.lb.signal(Signal::SIGTERM);
    system.store.signal(Signal::SIGCONT);
    let is_in_time = since.is_in_time();
    for client in &mut clients {
        let answer = client.answer(false).map(|answer| answer.status);
        assert!(is_due(&answer, &[202], is_in_time), "{answer:?}");
    }
    system.lb.wait();
}
