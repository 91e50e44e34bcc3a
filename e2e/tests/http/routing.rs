//! Endpoints and methods (docs/http.md, and the balancer's own
//! answers), over real sockets and with the real processes.

use crate::harness::client::{Answer, End, Way};
use crate::harness::processors::Processors;
use crate::harness::system::{Setup, System};
use crate::harness::table::{Failures, row, run};
use crate::harness::{HELD_MIN, ID, MARK, fresh_id, get, pay, payment, post, request};
use nix::sys::signal::Signal;
use std::thread;
use std::time::{Duration, Instant};

/// The secret of the purge.
const TOKEN: &str = "s3cret-of-the-test";

const POST_ONLY: &str = "POST";
const READ_ONLY: &str = "GET, HEAD";

fn purge(fields: &str) -> Vec<u8> {
    post("/purge-payments", &format!("{fields}Content-Length: 0\r\n"), "")
}

#[test]
fn an_unknown_path_is_not_found() {
    let system = System::start();
    let targets = [
        "/",
        "/payment",
        "/payments/",
        "/payments/Xq7zNeverEchoed",
        "//payments",
        "/Payments",
        "/payments%2F",
        "/%70ayments",
        "/payments;a=b",
        "/./payments",
        "/payments/../health",
        "/payments-summary/",
        "/payments-summaryx",
        "/payments/service-health",
        "/admin/payments-summary",
        "/admin/purge-payments",
        "/purge-payments",
        "/healthzz",
        "/health/",
        "/metrics/",
        "/Xq7zNeverEchoed?Xq7zNeverEchoed=Xq7zNeverEchoed",
        "/favicon.ico",
        "/*",
    ];
    let mut rows: Vec<_> =
        targets.iter().map(|target| row(format!("GET {target}"), get(target), 404)).collect();
    rows.extend(["/", "/payments/", "/purge-payments", "/Xq7zNeverEchoed"].map(|target| {
        let body = payment(ID, "19.90");
        let fields = format!("Content-Length: {}\r\n", body.len());
        row(format!("POST {target}"), post(target, &fields, body), 404)
    }));
    rows.push(row("HEAD /Xq7zNeverEchoed", request("HEAD", "/Xq7zNeverEchoed"), 404));
    rows.push(row("DELETE /Xq7zNeverEchoed", request("DELETE", "/Xq7zNeverEchoed"), 404));
    run(&system, &rows);
}

#[test]
fn operations_are_not_reached_over_http() {
    let system = System::start();
    let mut rows = Vec::new();
    for target in
        ["/dead-letters", "/dead", "/dead-letter", "/resolve", "/dump", "/payments/dump", "/store", "/debug"]
    {
        rows.push(row(format!("GET {target}"), get(target), 404));
        rows.push(row(format!("POST {target}"), post(target, "Content-Length: 0\r\n", ""), 404));
    }
    run(&system, &rows);
}

#[test]
fn a_wrong_method_on_a_known_path_is_told_the_right_ones() {
    let system = System::start();
    let mut rows = Vec::new();
    for (target, allow, wrong) in [
        ("/payments", POST_ONLY, vec!["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"]),
        ("/payments-summary", READ_ONLY, vec!["POST", "PUT", "DELETE", "PATCH", "TRACE"]),
        ("/payments-summary?from=Xq7zNeverEchoed", READ_ONLY, vec!["POST"]),
        ("/health", READ_ONLY, vec!["POST", "PUT", "DELETE", "PATCH", "TRACE"]),
        ("/healthz", READ_ONLY, vec!["POST", "PUT", "DELETE", "PATCH", "TRACE"]),
        ("/metrics", READ_ONLY, vec!["POST", "PUT", "DELETE", "PATCH", "TRACE"]),
    ] {
        for method in wrong {
            rows.push(row(format!("{method} {target}"), request(method, target), 405).allow(allow));
        }
    }
    let body = payment(ID, "19.90");
    let fields =
        format!("PUT /payments HTTP/1.1\r\nHost: espora\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    rows.push(row("PUT of a payment", fields, 405).allow(POST_ONLY));
    run(&system, &rows);
}

#[test]
fn options_tells_the_methods() {
    let system = System::start();
    let known = [
        ("/payments", POST_ONLY),
        ("/payments-summary", READ_ONLY),
        ("/payments-summary?from=x", READ_ONLY),
        ("/health", READ_ONLY),
        ("/healthz", READ_ONLY),
        ("/metrics", READ_ONLY),
        ("*", "GET, HEAD, POST"),
    ];
    let rows = known.map(|(target, allow)| {
        row(format!("OPTIONS {target}"), request("OPTIONS", target), 204).allow(allow)
    });
    run(&system, &rows);
}

#[test]
fn an_unknown_method_is_not_implemented_and_the_connection_closes() {
    let system = System::start();
    let mut rows = Vec::new();
    for method in
        ["BREW", "post", "Post", "GETT", "PROPFIND", "PURGE", "QUERY", "Xq7zNeverEchoed", "P-O.S_T!"]
    {
        for target in ["/payments", "/health", "/Xq7zNeverEchoed"] {
            rows.push(row(format!("{method} {target}"), request(method, target), 501).x());
        }
    }
    let body = payment(ID, "19.90");
    let request =
        format!("POSTX /payments HTTP/1.1\r\nHost: espora\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    rows.push(row("POSTX with a payment", request, 501).x());
    run(&system, &rows);
}

#[test]
fn a_purge_is_not_there_unless_it_was_switched_on() {
    let setup = Setup { api_args: vec!["--purge", "off"], ..Setup::default() };
    for setup in [Setup::default(), setup] {
        let system = System::start_as(setup, None);
        assert_eq!(system.lb().ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status), Ok(202));
        let rows = [
            row("POST", purge(""), 404),
            row("POST with the processors' token", purge("X-Rinha-Token: 123\r\n"), 404),
            row("POST without a length", request("POST", "/purge-payments"), 404),
            row("GET", get("/purge-payments"), 404),
            row("DELETE", request("DELETE", "/purge-payments"), 404),
        ];
        run(&system, &rows);
        assert_eq!(system.metric("store_purges_total"), 0);
        assert_eq!(system.metric("store_payments{standing=\"queued\"}"), 1);
    }
}

#[test]
fn a_purge_wants_the_token_where_one_was_set() {
    let setup = Setup { api_args: vec!["--purge", "token", "--purge-token", TOKEN], ..Setup::default() };
    let system = System::start_as(setup, None);
    let token = |value: &str| purge(&format!("X-Rinha-Token: {value}\r\n"));
    let mut failures = Failures::default();
    assert_eq!(system.lb().ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status), Ok(202));
    run(
        &system,
        &[
            row("no token", purge(""), 401),
            row("an empty token", token(""), 401),
            row("the processors' token", token("123"), 401),
            row("another token", token(MARK), 401),
            row("a part of the token", token(&TOKEN[..TOKEN.len() - 1]), 401),
            row("the token and more", token(&format!("{TOKEN}x")), 401),
            row("the token in capitals", token(&TOKEN.to_uppercase()), 401),
            row("the token in another field", purge(&format!("Authorization: Bearer {TOKEN}\r\n")), 401),
            row(
                "the token in the query",
                post(&format!("/purge-payments?token={TOKEN}"), "Content-Length: 0\r\n", ""),
                401,
            ),
            row("GET with the token", request("GET", "/purge-payments"), 405).allow(POST_ONLY),
            row("OPTIONS", request("OPTIONS", "/purge-payments"), 204).allow(POST_ONLY),
        ],
    );
    failures.equal("purges so far", 0, system.metric("store_purges_total"));
    failures.equal("payments so far", 1, system.metric("store_payments{standing=\"queued\"}"));
    run(&system, &[row("the token", token(TOKEN), 200)]);
    let ways = system.ways().len() as u64;
    failures.equal("purges by all ways", ways, system.metric("store_purges_total"));
    failures.equal("payments after that", 0, system.metric("store_payments{standing=\"queued\"}"));
    failures.finish();
}

#[test]
fn an_open_purge_forgets_everything() {
    let setup = Setup { api_args: vec!["--purge", "open"], ..Setup::default() };
    let processors = Processors::start();
    let mut system = System::start_as(setup, Some(&processors));
    let mut failures = Failures::default();
    for way in system.ways() {
        let paid = system.lb().ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
        failures.equal(&format!("before ({way})"), Ok(202), paid);
        system.until_settled();
        let name = format!("purge ({way})");
        failures.equal(&name, Ok(200), way.ask(&purge("")).map(|answer| answer.status));
        match way.ask(&get("/payments-summary")) {
            Ok(answer) => {
                let summary = answer.json();
                for part in ["default", "fallback"] {
                    failures.equal(
                        &format!("{name}, {part}"),
                        Some(0),
                        summary[part]["totalRequests"].as_u64(),
                    );
                    failures.equal(
                        &format!("{name}, {part}"),
                        Some(0.0),
                        summary[part]["totalAmount"].as_f64(),
                    );
                }
            }
            Err(end) => failures.note(&name, "a summary", end),
        }
    }
    failures.finish();
    run(
        &system,
        &[
            row("without a length", request("POST", "/purge-payments"), 200),
            row("with a token that is not asked for", purge("X-Rinha-Token: Xq7zNeverEchoed\r\n"), 200),
            row("GET", get("/purge-payments"), 405).allow(POST_ONLY),
            row("DELETE", request("DELETE", "/purge-payments"), 405).allow(POST_ONLY),
            row("OPTIONS", request("OPTIONS", "/purge-payments"), 204).allow(POST_ONLY),
        ],
    );
}

#[test]
fn health_says_whether_the_api_reaches_the_store() {
    let mut system = System::start();
    let targets = ["/health", "/healthz"];
    let rows = targets.iter().flat_map(|target| {
        [
            row(format!("GET {target}"), get(target), 200),
            row(format!("HEAD {target}"), request("HEAD", target), 200),
        ]
    });
    run(&system, &rows.collect::<Vec<_>>());

    let mut failures = Failures::default();
    system.store.kill();
    let apis = [system.api(0), system.api(1)];
    for api in &apis {
        system.until("the api misses its store", |_| api.status("/health") == Some(503));
    }
    for way in apis.iter().chain([&system.lb()]) {
        for target in targets {
            let name = format!("{target} without a store ({way})");
            match way.ask(&get(target)) {
                Ok(answer) => {
                    failures.equal(&name, 503, answer.status);
                    failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
                }
                Err(end) => failures.note(&name, 503, end),
            }
            let head = way.ask(&request("HEAD", target)).map(|answer| answer.status);
            failures.equal(&format!("{name}, HEAD"), Ok(503), head);
        }
    }
    system.start_store_again();
    for api in &apis {
        system.until("the api has its store again", |_| api.status("/health") == Some(200));
    }
    let lb = system.lb();
    failures.equal("/healthz afterwards", Some(200), lb.status("/healthz"));
    failures.finish();
}

#[test]
fn metrics_are_those_of_the_api_and_of_the_store() {
    let mut system = System::start();
    let mut failures = Failures::default();
    for way in system.ways() {
        match way.ask(&get("/metrics")) {
            Ok(answer) => check_metrics(&way, &answer, &mut failures),
            Err(end) => failures.note(&format!("/metrics ({way})"), 200, end),
        }
        check_forms(&way, &mut failures);
    }
    for admin in [system.lb_admin(), system.hand_off_admin()] {
        check_forms(&admin, &mut failures);
    }
    system.store.kill();
    let api = system.api(0);
    system.until("the api misses its store", |_| api.status("/health") == Some(503));
    for way in system.ways() {
        let name = format!("/metrics without a store ({way})");
        match way.ask(&get("/metrics")) {
            Ok(answer) => {
                failures.equal(&name, 200, answer.status);
                failures.equal(
                    &format!("{name}, the api's"),
                    true,
                    answer.body.contains("api_replies_total"),
                );
            }
            Err(end) => failures.note(&name, 200, end),
        }
    }
    failures.finish();
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The form that a client gets by what it accepts, also of an answer to `HEAD`.
fn check_forms(way: &Way, failures: &mut Failures) {
    for (accept, expected) in [
        ("", TEXT),
        ("Accept: */*\r\n", TEXT),
        ("Accept: text/plain\r\n", TEXT),
        ("ACCEPT: application/openmetrics-text;q=0.5, text/plain;q=0.9\r\n", TEXT),
        ("accept: application/openmetrics-text\r\n", OPENMETRICS),
        (
            "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6\r\n",
            OPENMETRICS,
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let name = format!("{method} /metrics with {accept:?} ({way})");
            let request = format!("{method} /metrics HTTP/1.1\r\nHost: espora\r\n{accept}\r\n");
            match way.ask(request.as_bytes()) {
                Ok(answer) => {
                    failures.equal(&name, 200, answer.status);
                    failures.equal(&name, Some(expected), answer.field("content-type"));
                    if method == "GET" {
                        let is_marked = answer.body.ends_with("# EOF\n");
                        failures.equal(&format!("{name}, a marked end"), expected == OPENMETRICS, is_marked);
                    }
                }
                Err(end) => failures.note(&name, 200, end),
            }
        }
    }
}

fn check_metrics(way: &Way, answer: &Answer, failures: &mut Failures) {
    let name = format!("/metrics ({way})");
    failures.equal(&name, 200, answer.status);
    let content_type = answer.field("content-type").unwrap_or_default();
    failures.equal(&format!("{name}, Content-Type"), TEXT, content_type);
    for family in ["api_replies_total{", "api_connections{", "store_accepts_total{", "store_payments{"] {
        let is_there = answer.body.lines().any(|line| line.starts_with(family));
        failures.equal(&format!("{name}, {family}"), true, is_there);
    }
    failures.equal(&format!("{name}, an end"), false, answer.body.contains("# EOF"));
    for line in answer.body.lines().filter(|line| line.starts_with("api_")) {
        let is_named = line.contains("{api=\"api1\"") || line.contains("{api=\"api2\"");
        failures.equal(&format!("{name}, the api's name in {line}"), true, is_named);
    }
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>().is_ok());
        failures.equal(&format!("{name}, line {line}"), Some(true), value);
    }
}

#[test]
fn without_any_api_the_balancer_refuses_after_a_second() {
    let mut system = System::start();
    let mut failures = Failures::default();
    let balancers = [system.lb(), system.hand_off()];

    system.apis[1].kill();
    for lb in &balancers {
        for _ in 0..20 {
            let paid = lb.ask(&pay(payment(&fresh_id(), "19.90"))).map(|answer| answer.status);
            failures.equal(&format!("with one api ({lb})"), Ok(202), paid);
        }
    }
    failures.equal("recorded", 40, system.recorded());

    system.apis[0].kill();
    for lb in &balancers {
        let calls = [
            ("a payment", pay(payment(&fresh_id(), "19.90"))),
            ("a summary", get("/payments-summary")),
            ("health", get("/health")),
            ("a purge", purge("")),
        ];
        for (name, answer, took) in ask_all(lb, &calls) {
            let name = format!("{name} without an api ({lb})");
            check_refusal(&name, 503, answer, &mut failures);
            if took < HELD_MIN {
                failures.note(&format!("{name}, held"), "1 s", format_args!("{took:?}"));
            }
        }
    }
    failures.finish();
}

/// Sends all of them at once; what came back, and how long that took.
fn ask_all<'a>(way: &Way, calls: &[(&'a str, Vec<u8>)]) -> Vec<(&'a str, Result<Answer, End>, Duration)> {
    thread::scope(|scope| {
        let ask = |(name, request): &(&'a str, Vec<u8>)| {
            let (name, request) = (*name, request.clone());
            scope.spawn(move || {
                let asked = Instant::now();
                (name, way.ask(&request), asked.elapsed())
            })
        };
        let calls: Vec<_> = calls.iter().map(ask).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn check_refusal(name: &str, status: u16, answer: Result<Answer, End>, failures: &mut Failures) {
    match answer {
        Ok(answer) => {
            failures.equal(name, status, answer.status);
            failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
            let retry_after = answer.field("retry-after").is_some();
            failures.equal(&format!("{name}, Retry-After"), status == 503, retry_after);
        }
        Err(end) => failures.note(name, status, end),
    }
}

#[test]
fn a_forwarded_request_that_stopped_apis_may_have_is_answered_as_unknown() {
    let system = System::start();
    let mut failures = Failures::default();
    let lb = system.lb();

    // One of two: the other one answers, as the stopped one cannot have acted.
    system.apis[0].signal(Signal::SIGSTOP);
    let calls = [(); 4].map(|()| ("a payment with one stopped api", pay(payment(&fresh_id(), "19.90"))));
    for (name, answer, _) in ask_all(&lb, &calls) {
        failures.equal(name, Ok(202), answer.map(|answer| answer.status));
    }

    system.apis[1].signal(Signal::SIGSTOP);
    let id = fresh_id();
    let calls = [("a payment", pay(payment(&id, "19.90"))), ("a summary", get("/payments-summary"))];
    // Only what could have changed something is unknown.
    for ((name, answer, _), status) in ask_all(&lb, &calls).into_iter().zip([504, 503]) {
        check_refusal(&format!("{name} with stopped apis"), status, answer, &mut failures);
    }
    for api in &system.apis {
        api.signal(Signal::SIGCONT);
    }
    let again = lb.ask(&pay(payment(&id, "19.90"))).map(|answer| answer.status);
    if !matches!(again, Ok(200 | 202)) {
        failures.note("the payment repeated", "200 or 202", format_args!("{again:?}"));
    }
    failures.equal("recorded", 5, system.recorded());
    failures.finish();
}

#[test]
fn a_forwarded_purge_that_a_stopped_api_may_have_is_unknown_and_not_sent_to_another() {
    let setup = Setup { api_args: vec!["--purge", "open"], ..Setup::default() };
    let system = System::start_as(setup, None);
    let mut failures = Failures::default();
    for api in &system.apis {
        api.signal(Signal::SIGSTOP);
    }
    for (name, answer, _) in ask_all(&system.lb(), &[("a purge with stopped apis", purge(""))]) {
        check_refusal(name, 504, answer, &mut failures);
    }
    for api in &system.apis {
        api.signal(Signal::SIGCONT);
    }
    for api in [system.api(0), system.api(1)] {
        failures.equal("the api is well", Some(200), api.status("/payments-summary"));
    }
    // Unknown: it was carried out, or it was lost with the link of the stopped api.
    let purges = system.metric("store_purges_total");
    if purges > 1 {
        failures.note("purges", "at most one", purges);
    }
    failures.finish();
}

#[test]
fn the_whole_address_of_a_target_does_not_change_its_path() {
    let system = System::start();
    let body = payment(ID, "19.90");
    let fields = format!("Content-Length: {}\r\n", body.len());
    let rows = [
        row("GET http://espora/health", get("http://espora/health"), 200),
        row("GET http://espora:9999/payments-summary", get("http://espora:9999/payments-summary"), 200),
        row("GET http://espora/Xq7zNeverEchoed", get("http://espora/Xq7zNeverEchoed"), 404),
        row("POST http://espora/payments", post("http://espora/payments", &fields, &body), 202),
        row("GET http://espora", get("http://espora"), 404),
        // No row names it: it has no path, so it is as malformed as a target can be.
        row("CONNECT espora:9999", request("CONNECT", "espora:9999"), 400).x(),
    ];
    run(&system, &rows);
}
