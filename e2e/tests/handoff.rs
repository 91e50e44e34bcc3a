//! Mode hand-off with the real processes: clients outlive the api that serves them, and where it is unknown what was
//! answered their connection is reset.

use crate::harness::client::{Connection, End};
use crate::harness::system::{READY_TIMEOUT, Setup, System};
use crate::harness::table::Failures;
use crate::harness::{Held, fresh_id, get, is_due, pay, payment, post};
use nix::sys::signal::Signal;

/// A number of the balancer that hands off.
fn lb_metric(system: &System, name: &str) -> u64 {
    let answer = system.hand_off_admin().ask(&get("/metrics")).expect("metrics of the balancer");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {}", answer.body))
}

/// Clients that each api has.
fn held(system: &System) -> [u64; 2] {
    ["api1", "api2"].map(|api| lb_metric(system, &format!("lb_held{{backend=\"{api}\"}}")))
}

/// A client of its own, and the index of the api that has it.
fn one_client(system: &mut System) -> (Connection, usize) {
    system.until("no other client is left", |system| lb_metric(system, "lb_connections") == 0);
    let mut connection = system.hand_off().connect();
    connection.set_timeout(READY_TIMEOUT);
    assert_eq!(connection.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    let api = held(system).iter().position(|held| *held == 1).expect("an api has it");
    system.until_done(api);
    (connection, api)
}

fn status(connection: &mut Connection, request: &[u8]) -> Result<u16, End> {
    connection.ask(request).map(|answer| answer.status)
}

/// Waits until the api that is not `ended` has the only client.
fn until_moved(system: &mut System, ended: usize) {
    system.until("the other api has the client", |system| held(system)[1 - ended] == 1);
}

fn open_purge() -> System {
    System::start_as(Setup { api_args: vec!["--purge", "open"], ..Setup::default() }, None)
}

#[test]
fn clients_at_rest_outlive_every_api_that_they_have() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..12).map(|_| system.hand_off().connect()).collect();
    let mut failures = Failures::default();
    for round in 0..4 {
        let ended = round % 2;
        for (number, client) in clients.iter_mut().enumerate() {
            let paid = status(client, &pay(payment(&fresh_id(), "19.90")));
            failures.equal(&format!("client {number} in round {round}"), Ok(202), paid);
        }
        let before = held(&system)[ended];
        system.until_done(ended);
        system.apis[ended].kill();
        system.until("the other api has them all", |system| held(system)[1 - ended] == 12);
        let moved = lb_metric(&system, "lb_moved_total");
        failures.equal("moved at least those of the api that ended", true, moved >= before);
        for client in &mut clients[..6] {
            failures.equal("with one api", Ok(202), status(client, &pay(payment(&fresh_id(), "1"))));
        }
        system.start_api_again(ended);
    }
    failures.equal("reset", 0, lb_metric(&system, "lb_reset_total"));
    failures.finish();
}

#[test]
fn a_request_that_was_not_decided_is_decided_by_another_api() {
    let chunks = |body: &str| {
        let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        post("/payments", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", body)
    };
    for request in [pay(payment(&fresh_id(), "19.90")), chunks(&payment(&fresh_id(), "19.90"))] {
        let mut system = System::start();
        let (mut client, api) = one_client(&mut system);
        system.store.signal(Signal::SIGSTOP);
        let since = Held::begin();
        client.send(&request);
        system.until_done(api);
        system.apis[api].kill();
        system.store.signal(Signal::SIGCONT);
        let is_in_time = since.is_in_time();
        let seen = client.answer(false).map(|answer| answer.status);
        assert!(is_due(&seen, &[200, 202], is_in_time), "{seen:?}\n{}", system.logs());
        until_moved(&mut system, api);
        assert_eq!(status(&mut client, &get("/health")), Ok(200));
        assert_eq!(lb_metric(&system, "lb_reset_total"), 0);
        system.start_api_again(0);
        assert_eq!(system.recorded(), 1);
    }
}

#[test]
fn a_purge_that_may_have_been_carried_out_is_not_given_to_another_api() {
    let mut system = open_purge();
    let (mut client, api) = one_client(&mut system);
    system.store.signal(Signal::SIGSTOP);
    let since = Held::begin();
    client.send(&post("/purge-payments", "Content-Length: 0\r\n", ""));
    system.until_done(api);
    system.apis[api].kill();
    let is_in_time = since.is_in_time();
    let seen = client.answer(false).map(|answer| answer.status);
    if !is_in_time && seen == Ok(504) {
        return println!("the machine was too slow: the api had answered before it was killed");
    }
    assert_eq!(seen, Err(End::Reset));
    system.store.signal(Signal::SIGCONT);
    assert_eq!(lb_metric(&system, "lb_reset_total"), 1);
    assert_eq!(held(&system), [0, 0]);
}

#[test]
fn a_client_whose_api_died_with_its_payment_is_not_told_that_nothing_was_recorded() {
    let mut system = System::start();
    let (mut client, api) = one_client(&mut system);
    let request = pay(payment(&fresh_id(), "19.90"));
    system.store.signal(Signal::SIGSTOP);
    client.send(&request);
    system.until_done(api);
    for api in 0..2 {
        system.apis[api].kill();
    }
    // No api comes back before the balancer has answered.
    assert_eq!(client.answer(false).map(|answer| answer.status), Ok(504));
    system.store.signal(Signal::SIGCONT);
    system.start_api_again(0);
    let again = system.hand_off().connect().ask(&request).map(|answer| answer.status);
    assert!(matches!(again, Ok(200 | 202)), "{again:?}");
    assert_eq!(system.recorded(), 1);
}

#[test]
fn an_api_without_a_store_denies_nothing_that_an_api_before_it_may_have_asked_for() {
    let mut system = System::start();
    let (mut client, api) = one_client(&mut system);
    let request = pay(payment(&fresh_id(), "19.90"));
    system.store.signal(Signal::SIGSTOP);
    client.send(&request);
    system.until_done(api);
    // The other api has no store by the time that the client comes to it, and never sends the payment.
    system.store.kill();
    let other = 1 - api;
    let no_store = |system: &System| system.api(other).status("/health") == Some(503);
    system.until("the other api has noticed", no_store);
    system.apis[api].kill();
    assert_eq!(client.answer(false).map(|answer| answer.status), Ok(504));
    assert_eq!(status(&mut client, &pay(payment(&fresh_id(), "1"))), Ok(503), "it alone has this one");
}

#[test]
fn a_client_that_had_sent_nothing_when_its_api_died_is_told_that_nothing_was_recorded() {
    let mut system = System::start();
    let (mut client, _) = one_client(&mut system);
    for api in 0..2 {
        system.apis[api].kill();
    }
    system.until("no api is left", |system| system.hand_off_admin().status("/health") == Some(503));
    assert_eq!(status(&mut client, &pay(payment(&fresh_id(), "1"))), Ok(503));
}

#[test]
fn a_request_that_is_not_complete_goes_on_at_another_api() {
    for cut in [1, 20, 60, 110] {
        let mut system = System::start();
        let (mut client, api) = one_client(&mut system);
        let request = pay(payment(&fresh_id(), "19.90"));
        let (first, rest) = request.split_at(cut);
        client.send(first);
        system.apis[api].kill();
        until_moved(&mut system, api);
        assert_eq!(status(&mut client, rest), Ok(202), "cut at {cut}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_by_one_api_after_the_other() {
    let mut system = System::start();
    let (mut client, api) = one_client(&mut system);
    system.store.signal(Signal::SIGSTOP);
    let ids: Vec<String> = (0..40).map(|_| fresh_id()).collect();
    // Each payment, a question about it by way of another amount, and one that is answered without the store.
    let all: Vec<u8> = ids
        .iter()
        .flat_map(|id| [pay(payment(id, "19.90")), pay(payment(id, "1")), get("/nowhere")].concat())
        .collect();
    let since = Held::begin();
    client.send(&all);
    system.until_done(api);
    system.apis[api].kill();
    system.store.signal(Signal::SIGCONT);
    if !since.is_in_time() {
        // The first api may have given some of them up: an answer to each is all that is sure.
        return (0..3 * ids.len()).for_each(|_| drop(client.answer(false).expect("an answer")));
    }
    let mut failures = Failures::default();
    for number in 0..ids.len() {
        let expected = if number == 0 { vec![200, 202] } else { vec![202] };
        let paid = client.answer(false).map(|answer| answer.status);
        if !paid.as_ref().is_ok_and(|status| expected.contains(status)) {
            failures.note(
                &format!("payment {number}"),
                format_args!("{expected:?}"),
                format_args!("{paid:?}"),
            );
        }
        failures.equal("its other amount", Ok(422), client.answer(false).map(|answer| answer.status));
        failures.equal("and nothing", Ok(404), client.answer(false).map(|answer| answer.status));
    }
    failures.finish();
}

#[test]
fn an_answer_that_is_not_whole_is_not_continued_by_another_api() {
    let mut system = System::start();
    let (mut client, api) = one_client(&mut system);
    // Far more answers than the sockets hold, and they are not read.
    let mut writer = client.writer();
    let asking = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = writer.write_all(&get("/metrics").repeat(20_000));
    });
    let name = ["api1", "api2"][api];
    let answered = |system: &System| {
        let metrics = system.api(api).ask(&get("/metrics")).expect("metrics of the api").body;
        metrics
            .lines()
            .find_map(|line| {
                line.strip_prefix(&format!("api_replies_total{{api=\"{name}\",status=\"200\"}} "))
            })
            .and_then(|count| count.parse::<u64>().ok())
            .expect("a count")
    };
    let (mut before, mut unchanged) = (0, 0);
    system.until("the api writes no more", |system| {
        // Each look is an answer itself.
        let now = answered(system);
        unchanged = if now == before + 1 { unchanged + 1 } else { 0 };
        before = now;
        unchanged == 10
    });
    system.apis[api].kill();
    system.until("it is reset", |system| lb_metric(system, "lb_reset_total") == 1);
    let end = loop {
        match client.answer(false) {
            Ok(answer) => assert_eq!(answer.status, 200),
            Err(end) => break end,
        }
    };
    // What the client's kernel has of it is a prefix of one api's answers.
    assert!(matches!(end, End::Reset | End::Broken(_)), "{end:?}");
    asking.join().unwrap();
}

#[test]
fn an_api_that_is_asked_to_end_gives_its_clients_to_another() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..10).map(|_| system.hand_off().connect()).collect();
    let mut failures = Failures::default();
    for round in 0..6 {
        let ended = round % 2;
        for client in &mut clients {
            failures.equal("before", Ok(202), status(client, &pay(payment(&fresh_id(), "19.90"))));
        }
        // Some are in the middle of a request, some have sent half of one, the others are silent.
        let halves: Vec<Vec<u8>> = clients.iter().map(|_| pay(payment(&fresh_id(), "19.90"))).collect();
        for (client, half) in clients[..4].iter_mut().zip(&halves) {
            client.send(&half[..70]);
        }
        system.apis[ended].signal(Signal::SIGTERM);
        for (client, request) in clients[4..7].iter_mut().zip(&halves[4..]) {
            client.send(request);
        }
        for (client, half) in clients[..4].iter_mut().zip(&halves) {
            failures.equal("the other half", Ok(202), status(client, &half[70..]));
        }
        for client in &mut clients[4..7] {
            failures.equal("meanwhile", Ok(202), client.answer(false).map(|answer| answer.status));
        }
        system.apis[ended].wait();
        system.start_api_again(ended);
    }
    failures.equal("reset", 0, lb_metric(&system, "lb_reset_total"));
    failures.finish();
}

#[test]
fn clients_stay_with_their_apis_when_the_balancer_ends() {
    let mut system = System::start();
    let mut clients: Vec<Connection> = (0..8).map(|_| system.hand_off().connect()).collect();
    for client in &mut clients {
        assert_eq!(status(client, &get("/health")), Ok(200));
    }
    system.hand_off.kill();
    for client in &mut clients {
        assert_eq!(status(client, &pay(payment(&fresh_id(), "19.90"))), Ok(202));
    }
}

#[test]
fn an_api_that_is_asked_to_end_without_a_balancer_answers_all_that_has_come() {
    let mut system = System::start();
    let (mut client, api) = one_client(&mut system);
    system.store.signal(Signal::SIGSTOP);
    let since = Held::begin();
    client.send(&[pay(payment(&fresh_id(), "19.90")), pay(payment(&fresh_id(), "1"))].concat());
    system.until_done(api);
    system.hand_off.kill();
    let mut other = system.api(api).connect();
    assert_eq!(status(&mut other, &get("/nowhere")), Ok(404));
    system.apis[api].signal(Signal::SIGTERM);
    assert_eq!(other.end(), End::Closed, "all connections are told at once");
    system.store.signal(Signal::SIGCONT);
    let is_in_time = since.is_in_time();
    let answers = [(); 2].map(|()| client.answer(false).map(|answer| answer.status));
    assert!(
        answers.iter().all(|answer| is_due(answer, &[202], is_in_time)),
        "{answers:?}\n{}",
        system.logs()
    );
}

#[test]
fn a_stopped_api_blocks_no_other_client() {
    let mut system = System::start();
    system.apis[0].signal(Signal::SIGSTOP);
    // More than the control socket of the stopped one takes.
    let mut clients: Vec<Connection> = (0..1_000).map(|_| system.hand_off().connect()).collect();
    for client in &mut clients {
        client.send(&get("/health"));
    }
    // One that asked whether the system has started may be among them: the stopped api has not closed it.
    system.until("each of them is with an api", |system| held(system).iter().sum::<u64>() >= 1_000);
    assert!(held(&system)[1] > 600, "its control socket is full");
    assert_eq!(system.hand_off_admin().status("/health"), Some(200));
    system.apis[0].signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.answer(false).map(|answer| answer.status), Ok(200));
    }
    // It has read, and it has the fewest clients: those that come from now on are its.
    let before = held(&system)[0];
    let mut later = Vec::new();
    system.until("it gets clients again", |system| {
        later.push(system.hand_off().connect());
        held(system)[0] >= before + 10
    });
}

#[test]
fn a_client_that_an_api_refuses_is_forgotten() {
    let few = Setup { api_args: vec!["--connections-max", "3"], ..Setup::default() };
    let mut system = System::start_as(few, None);
    let mut clients: Vec<Connection> = (0..20).map(|_| system.hand_off().connect()).collect();
    let answers: Vec<_> = clients.iter_mut().map(|client| status(client, &get("/health"))).collect();
    let served = answers.iter().filter(|answer| **answer == Ok(200)).count();
    let refused = answers.iter().filter(|answer| **answer == Ok(503)).count();
    assert!(served > 0 && served + refused == 20, "{answers:?}");
    system.until("those that are left are served", |system| {
        lb_metric(system, "lb_connections") <= served as u64
    });
}

#[test]
fn a_client_that_leaves_while_no_api_is_there_is_forgotten() {
    let mut system = System::start();
    system.apis.iter_mut().for_each(|api| api.kill());
    system.until("no api is left", |system| system.hand_off_admin().status("/health") == Some(503));
    let mut silent = system.hand_off().connect();
    silent.set_timeout(READY_TIMEOUT);
    drop((0..10).map(|_| system.hand_off().connect()).collect::<Vec<Connection>>());
    system.until("only who is silent waits", |system| lb_metric(system, "lb_connections") == 1);
    system.start_api_again(0);
    assert_eq!(status(&mut silent, &get("/health")), Ok(200));
}

#[test]
fn a_connection_that_either_side_ends_is_forgotten() {
    let mut system = System::start();
    system.until("no other client is left", |system| lb_metric(system, "lb_connections") == 0);
    let descriptors = system.hand_off.descriptors();
    let closing = b"GET /health HTTP/1.1\r\nHost: espora\r\nConnection: close\r\n\r\n";
    let mut clients: Vec<Connection> = (0..6).map(|_| system.hand_off().connect()).collect();
    for client in &mut clients[..3] {
        assert_eq!(status(client, closing), Ok(200));
        assert_eq!(client.end(), End::Closed);
    }
    clients[3].half_close();
    assert_eq!(clients[3].end(), End::Closed);
    for client in &mut clients[4..] {
        assert_eq!(status(client, &get("/health")), Ok(200));
    }
    assert!(system.hand_off.descriptors() > descriptors);
    drop(clients);
    system.until("their copies are closed, without a new client or a question", |system| {
        system.hand_off.descriptors() <= descriptors
    });
    system.until("no client is left", |system| lb_metric(system, "lb_connections") == 0);
    for (api, name) in [(system.api(0), "api1"), (system.api(1), "api2")] {
        system.until("not at the apis either", |_| {
            // The one that asks is one, and the balancer that forwards may keep some.
            let metrics = api.ask(&get("/metrics")).expect("metrics of the api");
            metrics.body.contains(&format!("api_handed_off{{api=\"{name}\"}} 0"))
        });
    }
}
