//! A start with more payments than may be remembered loses none of them.

use crate::harness::system::System;
use crate::harness::{fresh_id, pay, payment};

#[test]
fn a_store_that_recovers_more_than_payments_max_serves_it_and_says_what_to_do() {
    let mut system = System::start();
    let ask = |system: &System, id: &str| {
        system.lb().connect().ask(&pay(payment(id, "19.90"))).expect("an answer").status
    };
    let ids = [fresh_id(), fresh_id(), fresh_id()];
    ids.iter().for_each(|id| assert_eq!(ask(&system, id), 202));
    system.restart_store_as(vec!["--payments-max", "2"]);
    ids.iter().for_each(|id| assert_eq!(ask(&system, id), 200, "a repetition"));
    assert_eq!(ask(&system, &fresh_id()), 503);
    let log = system.store.log();
    assert!(log.contains("Raise PAYMENTS_MAX above 3"), "{log}");
}
