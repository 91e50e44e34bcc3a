//! A 503 says that nothing was recorded. What a dead api may have decided about gets 504, in both modes.

use crate::harness::system::{Setup, System};
use crate::harness::{fresh_id, get, pay, payment};
use nix::sys::signal::Signal;

#[test]
fn a_payment_whose_apis_have_died_is_unknown() {
    for is_hand_off in [false, true] {
        let mut system = System::start();
        let way = if is_hand_off { system.hand_off() } else { system.lb() };
        system.store.signal(Signal::SIGSTOP);
        let mut client = way.connect();
        client.send(&pay(payment(&fresh_id(), "19.90")));
        // The balancer has passed the client on once it has passed on one that came later.
        assert_eq!(way.status("/nowhere"), Some(404));
        (0..2).for_each(|api| system.until_done(api));
        system.apis.iter_mut().for_each(|api| api.kill());
        let told = client.answer(false).map(|answer| answer.status);
        system.store.signal(Signal::SIGCONT);
        system.start_api_again(0);
        system.until("the store has read what it was sent", |system| system.recorded() == 1);
        assert_eq!(told, Ok(504), "through {way}, and it was recorded");
    }
}

#[test]
fn a_client_that_no_api_has_had_is_told_that_nothing_was_recorded() {
    for is_hand_off in [false, true] {
        let mut system = System::start();
        let way = if is_hand_off { system.hand_off() } else { system.lb() };
        system.apis.iter_mut().for_each(|api| api.kill());
        let told = way.connect().ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
        assert_eq!(told, Ok(503), "through {way}");
    }
}

#[test]
fn an_api_that_is_full_does_not_deny_what_a_dead_one_may_have_recorded() {
    let few = Setup { api_args: vec!["--connections-max", "8"], ..Setup::default() };
    let mut system = System::start_as(few, None);
    let mut client = system.hand_off().connect();
    assert_eq!(client.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    let metrics = system.hand_off_admin().ask(&get("/metrics")).expect("metrics of the balancer").body;
    let dying = usize::from(!metrics.contains("lb_held{backend=\"api1\"} 1"));
    let full = system.api(1 - dying);
    let mut crowd = Vec::new();
    system.until("the other api is full", |_| {
        let mut connection = full.connect();
        let status = connection.ask(&get("/nowhere")).map(|answer| answer.status);
        crowd.push(connection);
        status == Ok(503)
    });
    system.store.signal(Signal::SIGSTOP);
    client.send(&pay(payment(&fresh_id(), "19.90")));
    system.until_done(dying);
    system.apis[dying].kill();
    let told = client.answer(false).map(|answer| answer.status);
    system.store.signal(Signal::SIGCONT);
    drop(crowd);
    system.start_api_again(dying);
    system.until("the store has read what it was sent", |system| system.recorded() == 1);
    assert_eq!(told, Ok(504), "and it was recorded");
}
