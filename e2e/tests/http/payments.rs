//! `POST /payments` (docs/http.md, payments), over real sockets and with the real processes.

use crate::harness::client::{Connection, End, Way};
use crate::harness::processors::Processors;
use crate::harness::system::{Setup, System};
use crate::harness::table::{Failures, row, run};
use crate::harness::{
    HELD_MIN, Held, ID, MARK, UPPER_ID, fresh_id, get, is_due, pay, pay_with, payment, post,
};
use nix::sys::signal::Signal;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// The largest body.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// Clients that send one id at the same time.
const CLIENTS: usize = 64;

/// A payment with this amount.
fn amount(text: &str) -> Vec<u8> {
    pay(payment(ID, text))
}

/// A payment with this in the place of the id, quotes included.
fn id(text: &str) -> Vec<u8> {
    pay(format!(r#"{{"correlationId":{text},"amount":19.90}}"#))
}

/// A payment with more keys.
fn more(text: &str) -> Vec<u8> {
    pay(format!(r#"{{"correlationId":"{ID}","amount":19.90,{text}}}"#))
}

/// A body of `len` bytes that would be a payment.
fn padded(len: usize) -> String {
    let body = payment(ID, "19.90");
    let padding = " ".repeat(len - body.len());
    format!("{body}{padding}")
}

fn chunked(body: &str) -> Vec<u8> {
    let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    post("/payments", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", body)
}

fn status(way: &Way, request: &[u8]) -> Result<u16, End> {
    way.ask(request).map(|answer| answer.status)
}

#[test]
fn every_way_to_write_a_payment_is_accepted() {
    let system = System::start();
    run(
        &system,
        &[
            row("as the judge writes it", amount("19.90"), 202),
            row(
                "unknown extra fields",
                more(r#""note":"x","deep":{"a":[1,{"b":null}],"c":true},"n":-1.5e3"#),
                202,
            ),
            row("a text that looks like a payment", more(r#""note":"{\"amount\":1}""#), 202),
            row("the other order of keys", pay(format!(r#"{{"amount":19.90,"correlationId":"{ID}"}}"#)), 202),
            row(
                "an unknown field first",
                pay(format!(r#"{{"a":[],"correlationId":"{ID}","amount":1}}"#)),
                202,
            ),
            row(
                "white space everywhere",
                pay(format!("\r\n\t {{ \"correlationId\"\t:\r\n\"{ID}\" ,\n\"amount\" : 19.90 }} \r\n\t")),
                202,
            ),
            row(
                "an escaped key",
                pay(format!(r#"{{"\u0063orrelationI\u0064":"{ID}","amoun\u0074":19.90}}"#)),
                202,
            ),
            row("another letter case beside the right key", more(r#""Amount":"x","correlationid":7"#), 202),
            row("UTF-8 outside ASCII", more(r#""note":"pag\u00f4 🪙 ção""#), 202),
            row("an upper-case UUID", id(&format!("\"{UPPER_ID}\"")), 202),
            row("19.900", amount("19.900"), 202),
            row("1e1", amount("1e1"), 202),
            row("1.99e1", amount("1.99e1"), 202),
            row("1.990E+1", amount("1.990E+1"), 202),
            row("1990e-2", amount("1990e-2"), 202),
            row("an integer", amount("20"), 202),
            row("the smallest amount", amount("0.01"), 202),
            row("the largest amount", amount("999999999.99"), 202),
            row("a body of exactly 4 KiB", pay(padded(BODY_BYTES_MAX)), 202),
            row(
                "a query, which means nothing here",
                {
                    let body = payment(ID, "19.90");
                    post("/payments?a=b", &format!("Content-Length: {}\r\n", body.len()), body)
                },
                202,
            ),
        ],
    );
}

#[test]
fn a_body_without_a_payment_is_refused_and_not_recorded() {
    let system = System::start();
    let bytes = |text: &[u8]| {
        let body = payment(ID, "19.90");
        pay([&body.as_bytes()[..body.len() - 1], b",\"note\":\"", text, b"\"}"].concat())
    };
    let rows = [
        row("an empty body", pay(""), 400),
        row("no body at all", post("/payments", "", ""), 400),
        row("only white space", pay(" \r\n"), 400),
        row("an open object", pay(format!(r#"{{"correlationId":"{ID}","amount":19.90"#)), 400),
        row("an open string", more(r#""note":"Xq7zNeverEchoed"#), 400),
        row("no comma", pay(format!(r#"{{"correlationId":"{ID}" "amount":19.90}}"#)), 400),
        row("a comma too many", pay(format!(r#"{{"correlationId":"{ID}","amount":19.90,}}"#)), 400),
        row("single quotes", pay(format!("{{'correlationId':'{ID}','amount':19.90}}")), 400),
        row("a comment", pay(format!("{}/**/", payment(ID, "19.90"))), 400),
        row("a bad literal", more(r#""note":tru"#), 400),
        row("a bad escape", more(r#""note":"\q""#), 400),
        row("a raw line end in a string", more("\"note\":\"a\nb\""), 400),
        row("brackets that do not match", more(r#""note":[1,2}"#), 400),
        row("brackets up to the limit", pay("[".repeat(BODY_BYTES_MAX)), 400),
        row("trailing bytes", pay(format!("{}{MARK}", payment(ID, "19.90"))), 400),
        row("a trailing NUL", pay(format!("{}\0", payment(ID, "19.90"))), 400),
        row("two objects", pay(payment(ID, "19.90").repeat(2)), 400),
        row("a BOM", pay(format!("\u{feff}{}", payment(ID, "19.90"))), 400),
        row(
            "UTF-16",
            pay(payment(ID, "19.90").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
            400,
        ),
        row("bad UTF-8", bytes(b"\xff"), 400),
        row("an overlong encoding", bytes(b"\xc0\xaf"), 400),
        row("an encoded surrogate", bytes(b"\xed\xa0\x80"), 400),
        row("half a character", bytes(b"\xe2\x82"), 400),
        row("null", pay("null"), 400),
        row("a number", pay("19.90"), 400),
        row("a string", pay(format!("\"{MARK}\"")), 400),
        row("true", pay("true"), 400),
        row("an array", pay(format!("[{}]", payment(ID, "19.90"))), 400),
        row("an empty object", pay("{}"), 400),
        row("a form", pay_with("", format!("correlationId={ID}&amount=19.90")), 400),
        row("no correlationId", pay(r#"{"amount":19.90}"#), 400),
        row("no amount", pay(format!(r#"{{"correlationId":"{ID}"}}"#)), 400),
        row("correlationId null", id("null"), 400),
        row("correlationId a number", id("7"), 400),
        row("correlationId an array", id(&format!("[\"{ID}\"]")), 400),
        row("correlationId an object", id("{}"), 400),
        row("correlationId true", id("true"), 400),
        row("amount null", amount("null"), 400),
        row("amount a string", amount("\"19.90\""), 400),
        row("amount an array", amount("[19.90]"), 400),
        row("amount an object", amount("{}"), 400),
        row("amount true", amount("true"), 400),
        row("amount +1", amount("+1"), 400),
        row("amount .5", amount(".5"), 400),
        row("amount 5.", amount("5."), 400),
        row("amount 019", amount("019.90"), 400),
        row("amount 1e", amount("1e"), 400),
        row("amount 0x10", amount("0x10"), 400),
        row("amount NaN", amount("NaN"), 400),
        row("amount Infinity", amount("Infinity"), 400),
        row("amount 1,99", amount("1,99"), 400),
        row("a capital in correlationId", pay(format!(r#"{{"CorrelationId":"{ID}","amount":19.90}}"#)), 400),
        row(
            "a small letter in correlationId",
            pay(format!(r#"{{"correlationid":"{ID}","amount":19.90}}"#)),
            400,
        ),
        row("a capital in amount", pay(format!(r#"{{"correlationId":"{ID}","Amount":19.90}}"#)), 400),
        row("amount twice", more(r#""amount":19.90"#), 400),
        row("amount twice, once escaped", more(r#""\u0061mount":1"#), 400),
        row("correlationId twice", more(&format!(r#""correlationId":"{ID}""#)), 400),
        row("an unknown key twice", more(r#""a":1,"a":2"#), 400),
        row("a UUID without hyphens", id(r#""4a7901b87d264d9daa194dc1c7cf60b3""#), 400),
        row("a UUID in braces", id(&format!("\"{{{ID}}}\"")), 400),
        row("a UUID as URN", id(&format!("\"urn:uuid:{ID}\"")), 400),
        row("a UUID with a space", id(&format!("\" {ID}\"")), 400),
        row("a UUID with misplaced hyphens", id(r#""4a7901b8-7d264-d9d-aa19-4dc1c7cf60b3""#), 400),
        row("a UUID with a wrong digit", id(r#""4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg""#), 400),
        row("a short UUID", id(r#""4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b""#), 400),
        row("an empty id", id("\"\""), 400),
        row("no UUID at all", id(&format!("\"{MARK}\"")), 400),
    ];
    run(&system, &rows);
}

#[test]
fn an_amount_that_cannot_be_paid_is_refused_and_not_recorded() {
    let system = System::start();
    let digits = "9".repeat(200);
    let amounts = [
        "0",
        "-0",
        "0.00",
        "0e5",
        "-19.90",
        "-1e400",
        "19.905",
        "0.001",
        "1e-3",
        "1e-9999",
        "1000000000",
        "1000000000.00",
        "999999999.991",
        "1e9",
        "1e400",
        "1e99999",
        "1e999999999999999999999",
        "1e-99999",
        &digits,
    ];
    let rows = amounts.map(|text| row(format!("amount {text}"), amount(text), 422));
    run(&system, &rows);
}

#[test]
fn a_body_over_4_kib_is_refused_and_the_connection_closes() {
    let system = System::start();
    let announced = |len: &str| post("/payments", &format!("Content-Length: {len}\r\n"), "");
    let rows = [
        row("one byte over", pay(padded(BODY_BYTES_MAX + 1)), 413).x(),
        row("twice as long", pay(padded(2 * BODY_BYTES_MAX)), 413).x(),
        row("16 times as long", pay(padded(16 * BODY_BYTES_MAX)), 413).x(),
        row("a gigabyte announced, nothing sent", announced("1000000000"), 413).x(),
        row("2 to the 64th announced, less one", announced("18446744073709551615"), 413).x(),
        row("2 to the 64th announced", announced("18446744073709551616"), 413).x(),
        row("one byte over in one chunk", chunked(&padded(BODY_BYTES_MAX + 1)), 413).x(),
        row("a megabyte in one chunk", chunked(&padded(1 << 20)), 413).x(),
        row(
            "a chunk of 64 bits, of which little comes",
            {
                let body = format!("{:x}\r\n{}", u64::MAX, padded(BODY_BYTES_MAX + 1));
                post("/payments", "Transfer-Encoding: chunked\r\n", body)
            },
            413,
        )
        .x(),
        row(
            "many small chunks",
            {
                let body = format!("{}0\r\n\r\n", "1\r\n \r\n".repeat(BODY_BYTES_MAX + 1));
                post("/payments", "Transfer-Encoding: chunked\r\n", body)
            },
            413,
        )
        .x(),
        row(
            "a body over 4 KiB where none is wanted",
            {
                let body = padded(BODY_BYTES_MAX + 1);
                let fields = format!("Content-Length: {}\r\n", body.len());
                format!("GET /health HTTP/1.1\r\nHost: espora\r\n{fields}\r\n{body}")
            },
            413,
        )
        .x(),
    ];
    run(&system, &rows);
}

#[test]
fn a_body_of_another_type_is_refused() {
    let system = System::start();
    let of_type = |text: &str| pay_with(&format!("Content-Type: {text}\r\n"), payment(ID, "19.90"));
    let encoded = |text: &str| {
        let fields = format!("Content-Type: application/json\r\nContent-Encoding: {text}\r\n");
        pay_with(&fields, payment(ID, "19.90"))
    };
    let rows = [
        row("no Content-Type", pay_with("", payment(ID, "19.90")), 202),
        row("JSON with a charset", of_type("application/json; charset=utf-8"), 202),
        row("JSON in capitals", of_type("Application/JSON;Charset=\"UTF-8\""), 202),
        row("JSON without a space", of_type("application/json;charset=UTF-8"), 202),
        row("JSON with white space", of_type("application/json \t;\tcharset=utf-8 "), 202),
        row("JSON with an empty parameter", of_type("application/json;"), 202),
        row("JSON with another parameter", of_type("application/json; a=\";,\"; charset=\"ut\\f-8\""), 202),
        row("JSON with a suffix", of_type("application/vnd.api+JSON"), 202),
        row("JSON with half a parameter", of_type("application/json; charset"), 415),
        row("JSON with a space before the equals sign", of_type("application/json; charset =utf-8"), 415),
        row("JSON with an open quote", of_type("application/json; charset=\"utf-8"), 415),
        row("text/plain", of_type("text/plain"), 415),
        row("a form", of_type("application/x-www-form-urlencoded"), 415),
        row("a multipart form", of_type("multipart/form-data; boundary=Xq7zNeverEchoed"), 415),
        row("XML", of_type("application/xml"), 415),
        row("nearly JSON", of_type("application/jsonx"), 415),
        row("JSON in another charset", of_type("application/json; charset=utf-16"), 415),
        row("no type", of_type(""), 415),
        row("a type outside ASCII", of_type("application/jsön"), 415),
        row("gzip", encoded("gzip"), 415),
        row("an unknown encoding", encoded(MARK), 415),
        row("identity, which is an encoding too", encoded("identity"), 415),
    ];
    run(&system, &rows);
}

#[test]
fn the_same_id_again_is_the_same_payment_and_charged_once() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let (lb, api1, api2) = (system.lb(), system.api(0), system.api(1));
    let first = fresh_id();
    let upper = first.to_uppercase();
    let nil = "00000000-0000-0000-0000-000000000000";
    let mixed: String =
        first.char_indices().map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
    let calls = [
        ("the first", &lb, pay(payment(&first, "19.90")), 202),
        ("the same again", &lb, pay(payment(&first, "19.90")), 200),
        ("in capitals", &lb, pay(payment(&upper, "19.90")), 200),
        ("in both letter cases", &lb, pay(payment(&mixed, "19.90")), 200),
        ("the same amount in other digits", &lb, pay(payment(&first, "1.990e1")), 200),
        ("at one api", &api1, pay(payment(&first, "19.90")), 200),
        ("at the other", &api2, pay(payment(&first, "19.90")), 200),
        ("with escaped hyphens", &lb, pay(payment(&first.replace('-', r"\u002d"), "19.90")), 200),
        ("with another amount", &lb, pay(payment(&first, "19.91")), 422),
        ("with another amount in capitals", &api2, pay(payment(&upper, "0.01")), 422),
        ("the first amount after the refusal", &lb, pay(payment(&first, "19.90")), 200),
        ("another id, with an escape", &lb, pay(payment(&fresh_id().replace('-', r"\u002D"), "19.90")), 202),
        ("the nil UUID", &lb, pay(payment(nil, "19.90")), 202),
        ("the nil UUID again", &api1, pay(payment(nil, "19.90")), 200),
    ];
    for (name, way, request, expected) in &calls {
        match way.ask(request) {
            Ok(answer) => {
                failures.equal(name, *expected, answer.status);
                if answer.status >= 400 {
                    failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
                    failures.equal(&format!("{name}, an echo"), false, answer.contains(&first));
                }
            }
            Err(end) => failures.note(name, expected, end),
        }
    }
    system.until_settled();
    failures.equal("charged", 3, processors.charged());
    for (name, id) in [("the first", first.as_str()), ("the nil UUID", nil)] {
        failures.equal(&format!("{name} is charged"), true, processors.requested_at(id).is_some());
    }
    for (name, id) in [("the first", &first), ("the first in capitals", &upper)] {
        let again = status(&lb, &pay(payment(id, "19.90")));
        failures.equal(&format!("{name} after it was charged"), Ok(200), again);
    }
    failures.equal("charged after that", 3, processors.charged());
    failures.finish();
}

#[test]
fn one_id_from_64_connections_at_once_is_accepted_once_and_charged_once() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let ways = [("through lb", [system.lb(), system.lb()]), ("at both apis", [system.api(0), system.api(1)])];
    for (round, (name, ways)) in ways.iter().enumerate() {
        let id = fresh_id();
        let ids = [id.clone(), id.to_uppercase()];
        let start = Barrier::new(CLIENTS);
        let one = |number: usize| {
            let mut connection = ways[number % 2].connect();
            let request = pay(payment(&ids[number / 2 % 2], "19.90"));
            start.wait();
            connection.ask(&request).map(|answer| answer.status)
        };
        let answers: Vec<Result<u16, End>> = thread::scope(|scope| {
            let one = &one;
            let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || one(number))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let count = |status| answers.iter().filter(|answer| **answer == Ok(status)).count();
        failures.equal(&format!("{name}: 202"), 1, count(202));
        failures.equal(&format!("{name}: 200"), CLIENTS - 1, count(200));
        system.until_settled();
        failures.equal(&format!("{name}: charged"), round as u64 + 1, processors.charged());
        failures.equal(&format!("{name}: recorded"), round as u64 + 1, system.recorded());
    }
    failures.finish();
}

#[test]
fn a_full_store_refuses_at_once_and_records_nothing() {
    let setup = Setup { store_args: vec!["--payments-max", "3"], ..Setup::default() };
    let system = System::start_as(setup, None);
    let mut failures = Failures::default();
    let ids = [(); 3].map(|()| fresh_id());
    for id in &ids {
        failures.equal("up to the bound", Ok(202), status(&system.lb(), &pay(payment(id, "19.90"))));
    }
    let refused = fresh_id();
    for way in system.ways().iter().chain([&system.api(1)]) {
        let name = format!("one more ({way})");
        match way.ask(&pay(payment(&refused, "19.90"))) {
            Ok(answer) => {
                failures.equal(&name, 503, answer.status);
                let retry_after = answer.field("retry-after").map(|text| text.parse::<u32>().is_ok());
                failures.equal(&format!("{name}, Retry-After"), Some(true), retry_after);
                failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
                // By the store itself, and not for want of one.
                failures.equal(&format!("{name}, why"), Some("full"), answer.json()["error"].as_str());
            }
            Err(end) => failures.note(&name, 503, end),
        }
    }
    let again = status(&system.lb(), &pay(payment(&ids[0], "19.90")));
    failures.equal("one of the first again", Ok(200), again);
    let other = status(&system.lb(), &pay(payment(&ids[0], "1")));
    failures.equal("one of the first with another amount", Ok(422), other);
    failures.equal("recorded", 3, system.recorded());
    failures.finish();
}

/// Posts a payment and notes what is wrong about the answer of a system whose store is away.
fn post_without_store(way: &Way, id: &str, expected: u16, failures: &mut Failures) {
    let name = format!("while the store is away ({way})");
    let asked = Instant::now();
    match way.ask(&pay(payment(id, "19.90"))) {
        Ok(answer) => {
            failures.equal(&name, expected, answer.status);
            failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
            failures.equal(&format!("{name}, an echo"), false, answer.contains(id));
            if expected == 503 {
                let retry_after = answer.field("retry-after").is_some();
                failures.equal(&format!("{name}, Retry-After"), true, retry_after);
            }
        }
        Err(end) => failures.note(&name, expected, end),
    }
    let held = asked.elapsed();
    if held < HELD_MIN {
        failures.note(&format!("{name}, held"), "1 s", format_args!("{held:?}"));
    }
}

#[test]
fn without_a_store_a_payment_is_held_for_a_second_and_refused_as_never_sent() {
    let mut system = System::start();
    let mut failures = Failures::default();
    system.store.kill();
    for api in [system.api(0), system.api(1)] {
        system.until("the api misses its store", |_| api.status("/health") == Some(503));
    }
    let ids = [(); 3].map(|()| fresh_id());
    for (way, id) in [system.lb(), system.api(0), system.api(1)].iter().zip(&ids) {
        post_without_store(way, id, 503, &mut failures);
    }
    system.start_store_again();
    let lb = system.lb();
    system.until("the store is back", |system| {
        [system.api(0), system.api(1)].iter().all(|api| api.status("/health") == Some(200))
    });
    failures.equal("recorded", 0, system.recorded());
    for id in &ids {
        failures.equal("the same id afterwards", Ok(202), status(&lb, &pay(payment(id, "19.90"))));
    }
    failures.finish();
}

#[test]
fn with_a_stopped_store_a_payment_is_unknown_and_repeating_it_is_safe() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let ids = [(); 3].map(|()| fresh_id());
    system.store.signal(Signal::SIGSTOP);
    for (way, id) in [system.lb(), system.api(0), system.api(1)].iter().zip(&ids) {
        post_without_store(way, id, 504, &mut failures);
    }
    system.store.signal(Signal::SIGCONT);
    let lb = system.lb();
    for id in &ids {
        let again = status(&lb, &pay(payment(id, "19.90")));
        // Whether it was recorded before is what was unknown.
        if !matches!(again, Ok(200 | 202)) {
            failures.note("repeated", "200 or 202", format_args!("{again:?}"));
        }
    }
    system.until_settled();
    failures.equal("recorded", 3, system.recorded());
    failures.equal("charged", 3, processors.charged());
    failures.finish();
}

/// Waits until both apis have a store.
fn has_store(system: &mut System) {
    system.until("both apis have the store", |system| {
        [system.api(0), system.api(1)].iter().all(|api| api.status("/health") == Some(200))
    });
}

/// Hears what becomes of payments that were held while another store came. What a slow machine gave up is repeated.
fn hear(held: [Connection; 2], ids: &[String], since: &Held, failures: &mut Failures) {
    let is_in_time = since.is_in_time();
    for (mut connection, id) in held.into_iter().zip(ids) {
        let answer = connection.answer(false).map(|answer| answer.status);
        failures.equal(
            &format!("held for the next store: {answer:?}"),
            true,
            is_due(&answer, &[202], is_in_time),
        );
        if !matches!(answer, Ok(200 | 202)) {
            let again = connection.ask(&pay(payment(id, "19.90"))).map(|answer| answer.status);
            failures.equal(&format!("repeated: {again:?}"), true, matches!(again, Ok(200 | 202)));
        }
    }
}

#[test]
fn a_payment_that_is_held_goes_to_the_next_store() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let (lb, api) = (system.lb(), system.api(0));
    let hold = |way: &Way, id: &str| {
        let mut connection = way.connect();
        connection.send(&pay(payment(id, "19.90")));
        connection
    };

    // Never sent: both apis know that there is no store.
    system.store.kill();
    for api in [system.api(0), system.api(1)] {
        system.until("the api misses its store", |_| api.status("/health") == Some(503));
    }
    let ids = [(); 4].map(|()| fresh_id());
    let since = Held::begin();
    let held = [(&lb, &ids[0]), (&api, &ids[1])].map(|(way, id)| hold(way, id));
    system.start_store_again();
    has_store(&mut system);
    hear(held, &ids[..2], &since, &mut failures);
    let before = system.recorded();

    // Sent and lost: the store is stopped, so it cannot have read what it dies with.
    system.store.signal(Signal::SIGSTOP);
    let since = Held::begin();
    let held = [(&lb, &ids[2]), (&api, &ids[3])].map(|(way, id)| hold(way, id));
    system.store.kill();
    system.start_store_again();
    has_store(&mut system);
    hear(held, &ids[2..], &since, &mut failures);
    system.until_settled();
    failures.equal("recorded before the second store", 2, before);
    failures.equal("recorded by the third", 2, system.recorded());
    failures.equal("charged", 4, processors.charged());
    let summary = lb.ask(&get("/payments-summary")).expect("a summary").json();
    let total = |name: &str| summary[name]["totalRequests"].as_u64();
    failures.equal("summed up", Some(4), total("default").zip(total("fallback")).map(|(a, b)| a + b));
    failures.finish();
}
