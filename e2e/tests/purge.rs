//! A purge wipes nothing that was acknowledged after its client gave it up, whichever process was stopped with it in hand.

use crate::harness::client::{Connection, Way};
use crate::harness::system::{READY_TIMEOUT, Setup, System};
use crate::harness::{fresh_id, get, pay, payment, post};
use nix::sys::signal::Signal;

/// Payments that are acknowledged, and must be there at the end.
const PAYMENTS: u64 = 20;

fn system() -> System {
    System::start_as(Setup { api_args: vec!["--purge", "open"], ..Setup::default() }, None)
}

fn purge() -> Vec<u8> {
    post("/purge-payments", "Content-Length: 0\r\n", "")
}

fn pay_some(way: &Way) {
    for _ in 0..PAYMENTS {
        let answer = way.ask(&pay(payment(&fresh_id(), "19.90")));
        assert_eq!(answer.map(|answer| answer.status), Ok(202));
    }
}

/// Payments that the store knows of, wherever they stand at one moment: between two looks one may be queued again.
fn remembered(system: &System) -> u64 {
    let answer = system.api(0).ask(&get("/metrics")).expect("metrics");
    let counts = answer.body.lines().filter(|line| line.starts_with("store_payments{"));
    counts
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

fn connections(admin: &Way) -> String {
    let answer = admin.ask(&get("/metrics")).expect("metrics of the balancer");
    answer.body.lines().find(|line| line.starts_with("lb_connections ")).expect("it counts them").to_owned()
}

/// Both apis serve again, and lb has no client left.
fn until_calm(system: &mut System, admin: &Way) {
    for api in 0..2 {
        system.until("the api serves", |system| system.api(api).status("/health") == Some(200));
        system.until_done(api);
    }
    system.until("no client is left", |_| connections(admin) == "lb_connections 0");
}

#[test]
fn a_purge_whose_client_has_left_is_not_carried_out_by_an_api_that_was_stopped() {
    for is_hand_off in [true, false] {
        let mut system = system();
        let (way, admin) = if is_hand_off {
            (system.hand_off(), system.hand_off_admin())
        } else {
            (system.lb(), system.lb_admin())
        };
        pay_some(&way);
        until_calm(&mut system, &admin);
        system.apis.iter().for_each(|api| api.signal(Signal::SIGSTOP));
        let mut client = way.connect();
        client.send(&purge());
        system.until("the balancer has it", |_| connections(&admin) == "lb_connections 1");
        drop(client);
        if !is_hand_off {
            system.until("the balancer lets go of it", |_| connections(&admin) == "lb_connections 0");
        }
        system.apis.iter().for_each(|api| api.signal(Signal::SIGCONT));
        until_calm(&mut system, &admin);
        assert_eq!(remembered(&system), PAYMENTS, "hand-off: {is_hand_off}\n{}", system.logs());
    }
}

#[test]
fn a_purge_that_another_one_has_overtaken_wipes_nothing_that_was_accepted_since() {
    let mut system = system();
    pay_some(&system.api(1));
    system.apis[0].signal(Signal::SIGSTOP);
    // As a balancer does that gives the api up.
    let mut given_up = system.api(0).connect();
    given_up.send(&purge());
    drop(given_up);
    assert_eq!(system.api(1).ask(&purge()).map(|answer| answer.status), Ok(200));
    pay_some(&system.api(1));
    system.apis[0].signal(Signal::SIGCONT);
    system.until("the api serves", |system| system.api(0).status("/health") == Some(200));
    system.until_done(0);
    assert_eq!(remembered(&system), PAYMENTS, "{}", system.logs());
}

#[test]
fn a_purge_that_waits_in_a_stopped_store_is_refused_after_its_client_was_answered() {
    let mut system = system();
    pay_some(&system.api(0));
    system.store.signal(Signal::SIGSTOP);
    let mut client: Connection = system.api(0).connect();
    client.set_timeout(READY_TIMEOUT);
    assert_eq!(client.ask(&purge()).map(|answer| answer.status), Ok(504));
    system.store.signal(Signal::SIGCONT);
    system.until("the store has refused it", |system| system.store.log().contains("a purge was refused"));
    assert_eq!(remembered(&system), PAYMENTS);
}

#[test]
fn a_client_that_half_closes_before_its_purge_is_read_is_told_that_nothing_was_done() {
    let system = system();
    pay_some(&system.api(1));
    system.apis[0].signal(Signal::SIGSTOP);
    let mut client = system.api(0).connect();
    client.send(&purge());
    client.half_close();
    system.apis[0].signal(Signal::SIGCONT);
    let answer = client.answer(false).map(|answer| answer.status);
    // An api that had read it before it stopped carries it out, and closes when it sees the end.
    match answer {
        Ok(503) => assert_eq!(remembered(&system), PAYMENTS),
        other => assert!(matches!(other, Ok(200) | Err(_)), "{other:?}"),
    }
}

#[test]
fn a_purge_whose_client_stays_is_carried_out() {
    let system = system();
    for way in [system.lb(), system.hand_off(), system.api(0)] {
        pay_some(&way);
        assert_eq!(way.ask(&purge()).map(|answer| answer.status), Ok(200), "{way}");
        assert_eq!(remembered(&system), 0, "{way}");
    }
}
