//! Framing (docs/http.md, framing), over real sockets and with the real processes, through a balancer of
//! either mode and at an api's own socket: all must do the same.

use crate::harness::client::{Answer, Connection, End, Way};
use crate::harness::system::{READY_TIMEOUT, Setup, System};
use crate::harness::table::{Failures, Row, row, run, send_without_end};
use crate::harness::{ID, MARK, fresh_id, get, pay, pay_with, payment, post, request, with_id};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

const REQUEST_LINE_BYTES_MAX: usize = 2 * 1024;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 64;

/// From the first byte of a head or body to its end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// `GET /health` with more fields; `fields` are whole lines.
fn health(fields: &str) -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nHost: espora\r\n{fields}\r\n").into_bytes()
}

/// A payment with these fields, framed by them.
fn framed(fields: &str, body: &str) -> Vec<u8> {
    post("/payments", &format!("Content-Type: application/json\r\n{fields}"), body)
}

/// A payment in chunks, whatever follows them included.
fn chunked(body: &str) -> Vec<u8> {
    framed("Transfer-Encoding: chunked\r\n", body)
}

/// One chunk.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// An ordinary payment.
fn body() -> String {
    payment(ID, "19.90")
}

fn len() -> usize {
    body().len()
}

/// What the table calls malformed.
fn bad(name: &str, request: impl Into<Vec<u8>>) -> Row {
    row(name, request, 400).x()
}

#[test]
fn two_ways_of_framing_at_once_are_refused() {
    let system = System::start();
    let (body, len) = (body(), len());
    let coded = format!("{}0\r\n\r\n", chunk(&body));
    let coding = "Transfer-Encoding: chunked\r\n";
    let length = |len: usize| format!("Content-Length: {len}\r\n");
    let smuggled = String::from_utf8(pay(&body)).unwrap();
    let rows = [
        row("the length first", framed(&format!("{}{coding}", length(coded.len())), &coded), 400).x(),
        row("the coding first", framed(&format!("{coding}{}", length(coded.len())), &coded), 400).x(),
        row("a length of zero", framed(&format!("{}{coding}", length(0)), &coded), 400).x(),
        row("a length over the limit", framed(&format!("{}{coding}", length(1 << 30)), &coded), 400).x(),
        bad(
            "a length that is none, then the coding",
            framed(&format!("Content-Length: x\r\n{coding}"), &coded),
        ),
        bad("a length with a payment after the last chunk", {
            let body = format!("0\r\n\r\n{smuggled}");
            framed(&format!("{}{coding}", length(body.len())), &body)
        }),
        bad("the same, the coding first", {
            let body = format!("0\r\n\r\n{smuggled}");
            framed(&format!("{coding}{}", length(body.len())), &body)
        }),
        bad("a payment by its length that is no chunk", framed(&format!("{}{coding}", length(len)), &body)),
    ];
    run(&system, &rows);
}

#[test]
fn a_malformed_length_is_refused() {
    let system = System::start();
    let (body, len) = (body(), len());
    let lengths = |lengths: &[&str]| {
        let fields: String = lengths.iter().map(|len| format!("Content-Length: {len}\r\n")).collect();
        framed(&fields, &body)
    };
    let right = len.to_string();
    let rows = [
        bad("two that differ, the right one first", lengths(&[&right, "5"])),
        bad("two that differ, the right one last", lengths(&["5", &right])),
        bad("two that differ in three", lengths(&[&right, &right, "0"])),
        bad("a plus", lengths(&[&format!("+{right}")])),
        bad("a minus", lengths(&[&format!("-{right}")])),
        bad("a list of equal ones", lengths(&[&format!("{right}, {right}")])),
        bad("a list of others", lengths(&[&format!("{right}, 5")])),
        bad("hexadecimal", lengths(&["0x50"])),
        bad("a fraction", lengths(&[&format!("{right}.0")])),
        bad("an exponent", lengths(&["8e1"])),
        bad("a space inside", lengths(&["8 0"])),
        bad("no digits", lengths(&[""])),
        bad("a word", lengths(&[MARK])),
        bad("other digits", lengths(&["８０"])),
        row("two equal ones, which RFC 9112 section 6.3 allows", lengths(&[&right, &right]), 202),
        row("white space around it", lengths(&[&format!(" \t{right}\t ")]), 202),
        row("leading zeros", lengths(&[&format!("000{right}")]), 202),
    ];
    run(&system, &rows);
}

#[test]
fn chunks_done_right_are_as_good_as_a_length() {
    let system = System::start();
    let body = body();
    // The id stays whole: it is put into its place before the request is sent.
    let (before, after) = body.split_once(ID).expect("it is there");
    let ones = |text: &str| -> String { text.chars().map(|c| chunk(&c.to_string())).collect() };
    let in_ones = [ones(before), chunk(ID), ones(after)].concat();
    let (left, right) = body.split_at(body.len() - 4);
    let size = body.len();
    let rows = [
        row("one chunk", chunked(&format!("{}0\r\n\r\n", chunk(&body))), 202),
        row("two chunks", chunked(&format!("{}{}0\r\n\r\n", chunk(left), chunk(right))), 202),
        row("a chunk for each byte", chunked(&format!("{in_ones}0\r\n\r\n")), 202),
        row("a size with zeros", chunked(&format!("000{}000\r\n\r\n", chunk(&body))), 202),
        row("a size in capitals", chunked(&format!("{size:X}\r\n{body}\r\n0\r\n\r\n")), 202),
        row("an extension", chunked(&format!("{size:x};a=b;c=\"d\"\r\n{body}\r\n0\r\n\r\n")), 202),
        row("a trailer", chunked(&format!("{}0\r\nX-Sum: 1\r\n\r\n", chunk(&body))), 202),
        row(
            "a trailer that would be a length",
            chunked(&format!("{}0\r\nContent-Length: 5\r\n\r\n", chunk(&body))),
            202,
        ),
        row(
            "the coding in capitals",
            framed("Transfer-Encoding: CHUNKED\r\n", &format!("{}0\r\n\r\n", chunk(&body))),
            202,
        ),
        row("nothing in it", chunked("0\r\n\r\n"), 400),
        row("no payment in it", chunked(&format!("{}0\r\n\r\n", chunk("{\"amount\":19.90}"))), 400),
        row(
            "a GET with an empty one",
            {
                let fields = "Transfer-Encoding: chunked\r\n";
                [health(fields), b"0\r\n\r\n".to_vec()].concat()
            },
            200,
        ),
    ];
    run(&system, &rows);
}

#[test]
fn bad_chunks_are_refused() {
    let system = System::start();
    let body = body();
    let size = body.len();
    let rows = [
        bad("a size that is none", chunked(&format!("xyz\r\n{body}\r\n0\r\n\r\n"))),
        bad("a size with a prefix", chunked(&format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n"))),
        bad("a size with a plus", chunked(&format!("+{size:x}\r\n{body}\r\n0\r\n\r\n"))),
        bad("a size with a minus", chunked(&format!("-{size:x}\r\n{body}\r\n0\r\n\r\n"))),
        bad("an empty size", chunked(&format!("\r\n{body}\r\n0\r\n\r\n"))),
        bad("a size beyond 64 bits", chunked(&format!("{:x}{size:x}\r\n{body}\r\n0\r\n\r\n", u64::MAX))),
        bad("a size that wraps around", chunked(&format!("1{size:016x}\r\n{body}\r\n0\r\n\r\n"))),
        bad("a chunk longer than its size", chunked(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 1))),
        bad("a chunk shorter than its size", chunked(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", size + 1))),
        bad("no line end after a chunk", chunked(&format!("{size:x}\r\n{body}0\r\n\r\n"))),
        bad("a bare CR after a size", chunked(&format!("{size:x}\r{body}\r\n0\r\n\r\n"))),
        bad("a CR inside an extension", chunked(&format!("{size:x};a\rb\r\n{body}\r\n0\r\n\r\n"))),
        bad(
            "an extension of 64 KiB",
            chunked(&format!("{size:x};{}\r\n{body}\r\n0\r\n\r\n", "a".repeat(1 << 16))),
        ),
        bad("a trailer that is no field", chunked(&format!("{}0\r\nno field\r\n\r\n", chunk(&body)))),
        bad(
            "a trailer with a space before the colon",
            chunked(&format!("{}0\r\nX : 1\r\n\r\n", chunk(&body))),
        ),
        bad("a trailer with a NUL", chunked(&format!("{}0\r\nX: \0\r\n\r\n", chunk(&body)))),
        bad("100 trailers over 8 KiB", {
            let trailers = format!("X-Trailer: {}\r\n", "a".repeat(200)).repeat(100);
            chunked(&format!("{}0\r\n{trailers}\r\n", chunk(&body)))
        }),
    ];
    run(&system, &rows);
}

#[test]
fn a_malformed_head_is_refused() {
    let system = System::start();
    let raw = |head: &str| format!("{head}\r\n\r\n");
    let rows = [
        bad("obs-fold with a space", health("X-A: b\r\n c\r\n")),
        bad("obs-fold with a tab", health("X-A: b\r\n\tc\r\n")),
        bad("obs-fold of a length", framed("Content-Length:\r\n 10\r\n", &body())),
        bad(
            "obs-fold of the coding",
            framed("Transfer-Encoding:\r\n chunked\r\n", &format!("{}0\r\n\r\n", chunk(&body()))),
        ),
        bad("a field that begins with a space", raw("GET /health HTTP/1.1\r\n Host: espora")),
        bad("a space before the colon", health("X-A : b\r\n")),
        bad("a tab before the colon", health("X-A\t: b\r\n")),
        bad(
            "a space before the colon of a length",
            framed(&format!("Content-Length : {}\r\n", len()), &body()),
        ),
        bad(
            "a space before the colon of the coding",
            framed("Transfer-Encoding : chunked\r\n", &format!("{}0\r\n\r\n", chunk(&body()))),
        ),
        bad("a space inside a name", health("X A: b\r\n")),
        bad("no colon", health("Xq7zNeverEchoed\r\n")),
        bad("no name", health(": b\r\n")),
        bad("a name outside ASCII", health("X-Ä: b\r\n")),
        bad("brackets in a name", health("X[A]: b\r\n")),
        bad("a bare CR in a value", health("X-A: b\rc\r\n")),
        bad("a bare CR before a field", health("X-A: b\r\rX-B: c\r\n")),
        bad(
            "a bare CR that hides a length",
            framed(&format!("X-A: b\rContent-Length: {}\r\n", len()), &body()),
        ),
        bad("a bare CR in the target", raw("GET /hea\rlth HTTP/1.1\r\nHost: espora")),
        bad("a bare CR in the request line", raw("GET\r/health HTTP/1.1\r\nHost: espora")),
        bad("a bare CR after the version", raw("GET /health HTTP/1.1\rHost: espora")),
        bad("a NUL in a value", health("X-A: b\0c\r\n")),
        bad("a NUL in a name", health("X\0A: b\r\n")),
        bad("a NUL in the target", raw("GET /hea\0lth HTTP/1.1\r\nHost: espora")),
        bad("a NUL in the method", raw("G\0T /health HTTP/1.1\r\nHost: espora")),
        bad("a control character in a value", health("X-A: b\x01c\r\n")),
        bad("DEL in a value", health("X-A: b\x7fc\r\n")),
        bad("no Host", raw("GET /health HTTP/1.1")),
        bad(
            "no Host with a payment",
            format!("POST /payments HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", len(), body()),
        ),
        bad("no Host with a whole address", raw("GET http://espora/health HTTP/1.1")),
        bad("two equal Hosts", health("Host: espora\r\n")),
        bad("two Hosts", health("Host: Xq7zNeverEchoed\r\n")),
        bad("two Hosts of HTTP/1.0", raw("GET /health HTTP/1.0\r\nHost: espora\r\nHost: other")),
        bad("a space in the target", raw("GET /he alth HTTP/1.1\r\nHost: espora")),
        bad("a tab for a space", raw("GET\t/health\tHTTP/1.1\r\nHost: espora")),
        bad("no target", raw("GET HTTP/1.1\r\nHost: espora")),
        bad("a method with a bracket", raw("GE(T /health HTTP/1.1\r\nHost: espora")),
        bad("a space before the method", raw(" GET /health HTTP/1.1\r\nHost: espora")),
        bad("a target without a slash", raw("GET health HTTP/1.1\r\nHost: espora")),
        row("no space after the colon", raw("GET /health HTTP/1.1\r\nHost:espora"), 200),
        row("an empty line before the request", raw("\r\nGET /health HTTP/1.1\r\nHost: espora"), 200),
        row("an empty Host", raw("GET /health HTTP/1.1\r\nHost:"), 200),
        row("a value outside ASCII", health("X-A: é\r\n"), 200),
    ];
    run(&system, &rows);
}

#[test]
fn an_unknown_transfer_coding_is_not_implemented() {
    let system = System::start();
    let coded = format!("{}0\r\n\r\n", chunk(&body()));
    let coding = |text: &str| framed(&format!("Transfer-Encoding: {text}\r\n"), &coded);
    let unknown = |name: &str, request: Vec<u8>| row(name, request, 501).x();
    let rows = [
        unknown("gzip", coding("gzip")),
        unknown("identity", coding("identity")),
        unknown("a word", coding(MARK)),
        unknown("nearly chunked", coding("xchunked")),
        unknown("chunked with a parameter", coding("chunked;a=b")),
        unknown("chunked in quotes", coding("\"chunked\"")),
        bad("chunked and a vertical tab", coding("\x0bchunked")),
        unknown("nothing", coding("")),
        unknown("chunked, then gzip", coding("chunked, gzip")),
        row("gzip, then chunked", coding("gzip, chunked"), 501).x(),
        row("chunked twice", coding("chunked, chunked"), 501).x(),
        row("chunked in two fields", coding("chunked\r\nTransfer-Encoding: chunked"), 501).x(),
        row("gzip and chunked in two fields", coding("gzip\r\nTransfer-Encoding: chunked"), 501).x(),
        unknown("chunked and gzip in two fields", coding("chunked\r\nTransfer-Encoding: gzip")),
        row("chunked and an empty element", coding("chunked,"), 501).x(),
    ];
    run(&system, &rows);
}

#[test]
fn a_head_over_the_limits_is_refused() {
    let system = System::start();
    let line = |len: usize| {
        let around = "GET /health? HTTP/1.1\r\n".len();
        get(&format!("/health?{}", "a".repeat(len - around)))
    };
    let field = |len: usize| health(&format!("X-A: {}\r\n", "a".repeat(len)));
    // Host is one of them.
    let fields = |count: usize| {
        let fields: String = (1..count).map(|number| format!("X-{number}: a\r\n")).collect();
        health(&fields)
    };
    let many = |bytes: usize| health(&format!("X-A: {}\r\n", "a".repeat(193)).repeat(bytes / 200));
    let too_long = |name: &str, request: Vec<u8>| row(name, request, 414).x();
    let too_large = |name: &str, request: Vec<u8>| row(name, request, 431).x();
    let rows = [
        row("a request line of 2 KiB", line(REQUEST_LINE_BYTES_MAX), 200),
        too_long("a request line of a few bytes more", line(REQUEST_LINE_BYTES_MAX + 3)),
        too_long("a request line of 4 KiB", line(2 * REQUEST_LINE_BYTES_MAX)),
        too_long("a path over 2 KiB", get(&format!("/{}", MARK.repeat(200)))),
        too_long("a payment with a query over 2 KiB", {
            let fields = format!("Content-Length: {}\r\n", len());
            post(&format!("/payments?{}", "a".repeat(3_000)), &fields, body())
        }),
        too_long("a whole address over 2 KiB", get(&format!("http://{}/health", "a".repeat(3_000)))),
        too_long("a request line of 32 KiB", line(32 * 1024)),
        too_long("a request line of a megabyte", line(1 << 20)),
        row("a field of nearly 8 KiB", field(HEAD_BYTES_MAX - 100), 200),
        row("fields of nearly 8 KiB", many(HEAD_BYTES_MAX - 200), 200),
        too_large("a field of 8 KiB", field(HEAD_BYTES_MAX)),
        too_large("a name of 8 KiB", health(&format!("X-{}: a\r\n", "a".repeat(HEAD_BYTES_MAX)))),
        too_large("fields over 8 KiB", many(HEAD_BYTES_MAX + 400)),
        too_large("a field of 12 KiB with a payment", {
            let fields = format!("Content-Length: {}\r\nX-A: {}\r\n", len(), "a".repeat(12 * 1024));
            framed(&fields, &body())
        }),
        too_large("a field of 32 KiB", field(32 * 1024)),
        too_large("a field of a megabyte", field(1 << 20)),
        row("64 fields", fields(FIELDS_MAX), 200),
        too_large("65 fields", fields(FIELDS_MAX + 1)),
        too_large("100 fields", fields(100)),
        too_large("101 fields", fields(101)),
        too_large("1,000 fields", fields(1_000)),
    ];
    run(&system, &rows);
}

#[test]
fn http_1_0_is_answered_and_the_connection_closes() {
    let system = System::start();
    let raw = |head: &str, body: &str| format!("{head}\r\n\r\n{body}");
    let pay = format!("POST /payments HTTP/1.0\r\nContent-Length: {}", len());
    let rows = [
        row("GET", raw("GET /health HTTP/1.0", ""), 200).then_closes(),
        row("GET with a Host", raw("GET /health HTTP/1.0\r\nHost: espora", ""), 200).then_closes(),
        row("HEAD", raw("HEAD /payments-summary HTTP/1.0", ""), 200).then_closes(),
        row("GET of nothing", raw("GET /Xq7zNeverEchoed HTTP/1.0", ""), 404).then_closes(),
        row("a payment", raw(&pay, &body()), 202).then_closes(),
        row("a payment without a length", raw("POST /payments HTTP/1.0", ""), 400).then_closes(),
        row("a wrong method", raw("DELETE /payments HTTP/1.0", ""), 405).allow("POST").then_closes(),
        row("an unknown method", raw("BREW /payments HTTP/1.0", ""), 501).x(),
        bad("chunks, which RFC 9112 section 6.1 forbids", {
            let coded = format!("{}0\r\n\r\n", chunk(&body()));
            raw("POST /payments HTTP/1.0\r\nTransfer-Encoding: chunked", &coded)
        }),
        row("HTTP/1.1 that asks for a close", health("Connection: close\r\n"), 200).then_closes(),
        row("a payment that asks for a close", pay_with("Connection: Close\r\n", body()), 202).then_closes(),
        row("a refusal that is asked to close", pay_with("Connection: close\r\n", "{}"), 400).then_closes(),
    ];
    run(&system, &rows);
}

/// RFC 9112 section 9.3 lets a server honour the wish or not; it must only say which.
#[test]
fn http_1_0_that_wishes_to_stay_is_told_whether_it_may() {
    let system = System::start();
    let mut failures = Failures::default();
    let request = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for way in system.ways() {
        let name = format!("keep-alive of HTTP/1.0 ({way})");
        let mut connection = way.connect();
        match connection.ask(request) {
            Ok(answer) => {
                failures.equal(&name, 200, answer.status);
                let says = answer.field("connection").unwrap_or_default().to_owned();
                let stays = says.eq_ignore_ascii_case("keep-alive") || answer.version == 1 && says.is_empty();
                if stays {
                    let next = connection.ask(request).map(|answer| answer.status);
                    failures.equal(&format!("{name}, the next request"), Ok(200), next);
                } else {
                    failures.equal(&format!("{name}, the end"), End::Closed, connection.end());
                }
            }
            Err(end) => failures.note(&name, 200, end),
        }
    }
    failures.finish();
}

#[test]
fn other_versions_and_other_protocols_are_refused() {
    let system = System::start();
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), settings].concat();
    let raw = |head: &str| format!("{head}\r\nHost: espora\r\n\r\n");
    let version = |name: &str, request: Vec<u8>| row(name, request, 505).x();
    let rows = [
        version("the HTTP/2 preface", preface),
        version("HTTP/2.0", raw("GET /health HTTP/2.0").into_bytes()),
        version("HTTP/1.2", raw("GET /health HTTP/1.2").into_bytes()),
        version("HTTP/3.0", raw("GET /health HTTP/3.0").into_bytes()),
        bad("HTTP/0.9", b"GET /health\r\n\r\n".to_vec()),
        bad("a version in small letters", raw("GET /health http/1.1").into_bytes()),
        bad("a version with more digits", raw("GET /health HTTP/1.10").into_bytes()),
        bad("another protocol's name", raw("GET /health SIP/2.0").into_bytes()),
        bad("TLS", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03\r\n\r\n".to_vec()),
        bad(
            "a PROXY line",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        ),
        bad("Redis", b"*1\r\n$4\r\nPING\r\n\r\n".to_vec()),
        bad("zeros", vec![0; 100]),
        bad("only a line", b"hello\r\n\r\n".to_vec()),
        row(
            "an upgrade to HTTP/2, which no server has to take",
            health("Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            200,
        ),
    ];
    run(&system, &rows);
}

#[test]
fn a_client_that_expects_100_gets_it_and_then_its_answer() {
    let system = System::start();
    let mut failures = Failures::default();
    for way in system.ways() {
        for expectation in ["100-continue", "100-Continue"] {
            let name = format!("{expectation} ({way})");
            let request = with_id(&pay_with(&format!("Expect: {expectation}\r\n"), body()), &fresh_id());
            let (head, body) = request.split_at(request.len() - len());
            let mut connection = way.connect();
            connection.send(head);
            failures.equal(&name, Ok(100), connection.answer(false).map(|answer| answer.status));
            connection.send(body);
            failures.equal(
                &format!("{name}, then"),
                Ok(202),
                connection.answer(false).map(|answer| answer.status),
            );
            still_serves(&name, &mut connection, &mut failures);
        }
        for (name, fields, body, expected) in [
            ("with what is no payment", "Expect: 100-continue\r\n", "{}", 400),
            ("with another type", "Expect: 100-continue\r\nContent-Type: text/plain\r\n", "{}", 415),
        ] {
            let name = format!("{name} ({way})");
            let mut connection = way.connect();
            connection.send(&post("/payments", &format!("{fields}Content-Length: {}\r\n", body.len()), ""));
            // A final answer in the place of the 100 would do as well.
            let first = connection.answer(false).map(|answer| answer.status);
            if first == Ok(100) {
                connection.send(body.as_bytes());
                let answer = connection.answer(false).map(|answer| answer.status);
                failures.equal(&name, Ok(expected), answer);
            } else {
                failures.equal(&name, Ok(expected), first);
            }
        }

        let name = format!("a body over 4 KiB is not asked for ({way})");
        let mut connection = way.connect();
        connection.send(&framed("Expect: 100-continue\r\nContent-Length: 100000\r\n", ""));
        failures.equal(&name, Ok(413), connection.answer(false).map(|answer| answer.status));
        failures.equal(&format!("{name}, the end"), End::Closed, connection.end());

        let name = format!("HTTP/1.0 expects nothing ({way})");
        let body = payment(&fresh_id(), "19.90");
        let mut connection = way.connect();
        let head = format!(
            "POST /payments HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head.as_bytes());
        connection.send(body.as_bytes());
        failures.equal(&name, Ok(202), connection.answer(false).map(|answer| answer.status));
    }
    failures.finish();
    // A client that does not wait for it: interim answers are passed over by the table.
    let rows = [
        row("the body at once", pay_with("Expect: 100-continue\r\n", body()), 202),
        row(
            "chunks at once",
            framed(
                "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
                &format!("{}0\r\n\r\n", chunk(&body())),
            ),
            202,
        ),
        row("a request without a body", health("Expect: 100-continue\r\n"), 200),
    ];
    run(&system, &rows);
}

fn still_serves(name: &str, connection: &mut Connection, failures: &mut Failures) {
    let next = connection.ask(&get("/health")).map(|answer| answer.status);
    failures.equal(&format!("{name}, the next request"), Ok(200), next);
}

/// Requests of all kinds, and the status of each.
fn mixed_requests() -> Vec<(Vec<u8>, u16)> {
    let id = fresh_id();
    let coded = format!("{}0\r\n\r\n", chunk(&payment(&id, "19.90")));
    vec![
        (get("/health"), 200),
        (pay(payment(&id, "19.90")), 202),
        (get("/nowhere"), 404),
        (chunked(&coded), 200),
        (request("DELETE", "/payments"), 405),
        (pay(payment(&id, "1")), 422),
        (request("HEAD", "/payments-summary"), 200),
        (pay("{}"), 400),
        (request("OPTIONS", "/payments"), 204),
        (pay_with("Content-Type: text/plain\r\n", "x"), 415),
        (get("/payments-summary"), 200),
    ]
}

fn answers_in_order(
    name: &str,
    connection: &mut Connection,
    requests: &[(Vec<u8>, u16)],
    failures: &mut Failures,
) {
    for (number, (request, expected)) in requests.iter().enumerate() {
        let seen = connection.answer_to(request).map(|answer| answer.status);
        failures.equal(&format!("{name}, request {}", number + 1), Ok(*expected), seen);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let system = System::start();
    let mut failures = Failures::default();
    for way in system.ways() {
        for piece_len in [usize::MAX, 1_000, 97, 7] {
            let name = format!("in pieces of {piece_len} bytes ({way})");
            let requests: Vec<_> = [mixed_requests(), mixed_requests(), mixed_requests()].concat();
            let bytes: Vec<u8> = requests.iter().flat_map(|(request, _)| request.clone()).collect();
            let mut connection = way.connect();
            for piece in bytes.chunks(piece_len.min(bytes.len())) {
                connection.send(piece);
            }
            answers_in_order(&name, &mut connection, &requests, &mut failures);
            still_serves(&name, &mut connection, &mut failures);
        }
        let name = format!("a long one ({way})");
        let requests: Vec<_> = (0..500).map(|_| (pay(payment(&fresh_id(), "19.90")), 202)).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(|(request, _)| request.clone()).collect();
        let mut connection = way.connect();
        let mut writer = connection.writer();
        let writing = thread::spawn(move || writer.write_all(&bytes));
        answers_in_order(&name, &mut connection, &requests, &mut failures);
        writing.join().unwrap().expect("everything is taken");

        let name = format!("nothing after what closes ({way})");
        let requests = [
            (get("/health"), 200),
            (pay(payment(&fresh_id(), "1")), 202),
            (request("BREW", "/payments"), 501),
        ];
        let more = pay(payment(&fresh_id(), "2"));
        let bytes: Vec<u8> = requests.iter().flat_map(|(request, _)| request.clone()).chain(more).collect();
        let recorded = system.recorded();
        let mut connection = way.connect();
        connection.send(&bytes);
        answers_in_order(&name, &mut connection, &requests, &mut failures);
        failures.equal(&format!("{name}, the end"), End::Closed, connection.end());
        failures.equal(&format!("{name}, recorded"), recorded + 1, system.recorded());
    }
    failures.finish();
}

#[test]
fn a_client_that_has_said_everything_is_answered() {
    let system = System::start();
    let mut failures = Failures::default();
    for way in system.ways() {
        let cases = [
            ("GET", vec![(get("/health"), 200)]),
            ("a payment", vec![(pay(payment(&fresh_id(), "19.90")), 202)]),
            ("chunks", vec![(with_id(&chunked(&format!("{}0\r\n\r\n", chunk(&body()))), &fresh_id()), 202)]),
            ("what is no payment", vec![(pay("{}"), 400)]),
            ("HTTP/1.0", vec![(b"GET /health HTTP/1.0\r\n\r\n".to_vec(), 200)]),
            ("an unknown method", vec![(request("BREW", "/health"), 501)]),
            ("many", mixed_requests()),
        ];
        for (name, requests) in cases {
            let name = format!("{name} ({way})");
            let mut connection = way.connect();
            for (request, _) in &requests {
                connection.send(request);
            }
            connection.half_close();
            answers_in_order(&name, &mut connection, &requests, &mut failures);
            failures.equal(&format!("{name}, the end"), End::Closed, connection.end());
        }
        let recorded = system.recorded();
        let whole = with_id(&pay(body()), &fresh_id());
        let head_len = whole.len() - len();
        for (name, request) in [
            ("nothing", Vec::new()),
            ("half a head", whole[..20].to_vec()),
            ("a head without its body", whole[..head_len].to_vec()),
            ("all but the last byte", whole[..whole.len() - 1].to_vec()),
            ("chunks without the last one", chunked(&chunk(&payment(&fresh_id(), "19.90")))),
            (
                "chunks without the last line",
                chunked(&format!("{}0\r\n", chunk(&payment(&fresh_id(), "19.90")))),
            ),
        ] {
            let name = format!("{name}, then the end ({way})");
            let mut connection = way.connect();
            connection.send(&request);
            connection.half_close();
            match connection.answer(false) {
                Ok(answer) if answer.status == 400 => {
                    failures.equal(&format!("{name}, the end"), End::Closed, connection.end());
                }
                Ok(answer) => failures.note(&name, "400 or a close", answer.status),
                // There is no request to answer.
                Err(End::Closed | End::Reset) => (),
                Err(end) => failures.note(&name, "400 or a close", end),
            }
        }
        failures.equal(&format!("what was not complete ({way}), recorded"), recorded, system.recorded());
    }
    failures.finish();
}

/// The number that a text of metrics has for this name.
fn number(answer: &Answer, name: &str) -> u64 {
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {}", answer.body))
}

#[test]
fn a_connection_over_the_cap_is_told_so_and_closed() {
    let mut failures = Failures::default();
    let at_lb = Setup { lb_args: vec!["--connections-max", "5"], ..Setup::default() };
    let mut system = System::start_as(at_lb, None);
    let recorded = |system: &System| system.recorded();
    for (lb, admin) in [(system.lb(), system.lb_admin()), (system.hand_off(), system.hand_off_admin())] {
        let first = lb.connect();
        system.until("only one connection is open", |_| {
            let metrics = admin.ask(&get("/metrics")).expect("metrics of the balancer");
            number(&metrics, "lb_connections") == 1
        });
        over_the_cap(&mut system, &lb, first, recorded, &mut failures);
    }

    let at_api = Setup { api_args: vec!["--connections-max", "5"], ..Setup::default() };
    let mut system = System::start_as(at_api, None);
    let api = system.api(0);
    // Its connections are the balancers', too.
    system.lb.kill();
    system.hand_off.kill();
    let mut first = api.connect();
    system.until("only one connection is open", |_| {
        let metrics = first.ask(&get("/metrics")).expect("metrics of the api");
        number(&metrics, "api_connections{api=\"api1\"}") == 1
    });
    let other = system.api(1);
    let recorded = move |_: &System| {
        let metrics = other.ask(&get("/metrics")).expect("metrics of the other api");
        number(&metrics, "store_accepts_total{as=\"recorded\"}")
    };
    over_the_cap(&mut system, &api, first, recorded, &mut failures);
    failures.finish();
}

/// With a cap of 5, of which `first` is one.
fn over_the_cap(
    system: &mut System,
    way: &Way,
    first: Connection,
    recorded: impl Fn(&System) -> u64,
    failures: &mut Failures,
) {
    let mut held = vec![first];
    held.extend((1..5).map(|_| way.connect()));
    for (number, connection) in held.iter_mut().enumerate() {
        still_serves(&format!("connection {} of 5 ({way})", number + 1), connection, failures);
    }
    let before = recorded(system);
    for round in ["one more", "another one"] {
        let name = format!("{round} ({way})");
        let mut connection = way.connect();
        match connection.ask(&pay(payment(&fresh_id(), "19.90"))) {
            Ok(answer) => {
                failures.equal(&name, 503, answer.status);
                failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
                let retry_after = answer.field("retry-after").is_some();
                failures.equal(&format!("{name}, Retry-After"), true, retry_after);
                failures.equal(&format!("{name}, the end"), End::Closed, connection.end());
            }
            Err(end) => failures.note(&name, 503, end),
        }
    }
    let endless = row("one that goes on writing", pay(body()), 503).x();
    if let Err(flaw) = send_without_end(way, &endless) {
        failures.note(&format!("one that goes on writing ({way})"), 503, flaw);
    }
    let silent = way.connect().answer(false).map(|answer| answer.status);
    failures.equal(&format!("one that asks nothing ({way})"), Ok(503), silent);
    failures.equal(&format!("recorded ({way})"), before, recorded(system));
    for (number, connection) in held.iter_mut().enumerate() {
        still_serves(&format!("connection {} of 5 afterwards ({way})", number + 1), connection, failures);
    }
    held.pop();
    system.until("a place is free again", |_| way.status("/health") == Some(200));
}

/// What a client does, up to where it takes too long.
type Script = fn(&mut Connection);

/// One byte every so often, until the server has had enough.
fn trickle(connection: &mut Connection, bytes: &[u8]) {
    connection.set_timeout(Duration::from_millis(300));
    for byte in bytes {
        connection.send(&[*byte]);
        if connection.end() != End::Silent {
            break;
        }
    }
}

/// A head or a body that stays open for ever, in all the places where one can.
const UNFINISHED: [(&str, Script); 13] = [
    ("one byte", |connection| {
        connection.send(b"P");
    }),
    ("half a head", |connection| {
        connection.send(&pay(body())[..40]);
    }),
    ("a head without its last line end", |connection| {
        let head = get("/payments-summary");
        connection.send(&head[..head.len() - 2]);
    }),
    ("a head that trickles", |connection| {
        let head = get(&"/health?trickle".repeat(20));
        trickle(connection, &head[..head.len() - 1]);
    }),
    ("a head without its body", |connection| {
        let request = pay(body());
        connection.send(&request[..request.len() - len()]);
    }),
    ("all but the last byte of a body", |connection| {
        let request = with_id(&pay(body()), &fresh_id());
        connection.send(&request[..request.len() - 1]);
    }),
    ("a body that trickles", |connection| {
        let request = with_id(&pay(body()), &fresh_id());
        let (head, body) = request.split_at(request.len() - len());
        connection.send(head);
        trickle(connection, &body[..body.len() - 1]);
    }),
    ("chunks without the last one", |connection| {
        connection.send(&chunked(&chunk(&payment(&fresh_id(), "19.90"))));
    }),
    ("a chunk that is far shorter than its size", |connection| {
        let payment = payment(&fresh_id(), "19.90");
        connection.send(&chunked(&format!("fff\r\n{payment}\r\n0\r\n\r\n")));
    }),
    ("a body that was asked for", |connection| {
        let request = pay_with("Expect: 100-continue\r\n", body());
        let answer = connection.ask(&request[..request.len() - len()]);
        assert_eq!(answer.map(|answer| answer.status), Ok(100));
    }),
    ("half a head after an answered request", |connection| {
        assert_eq!(connection.ask(&get("/health")).map(|answer| answer.status), Ok(200));
        connection.send(&pay(body())[..40]);
    }),
    ("a head without its body together with a whole request", |connection| {
        let request = pay(body());
        let both = [get("/health"), request[..request.len() - len()].to_vec()].concat();
        assert_eq!(connection.ask(&both).map(|answer| answer.status), Ok(200));
    }),
    ("half a head together with a whole request", |connection| {
        let both = [get("/health"), pay(body())[..40].to_vec()].concat();
        assert_eq!(connection.ask(&both).map(|answer| answer.status), Ok(200));
    }),
];

/// Silence for longer than a request may take: between requests it is no offence.
const SILENT: [(&str, Script); 9] = [
    ("a silent connection", |_| ()),
    ("a connection that is silent after a request", |connection| {
        assert_eq!(connection.ask(&get("/health")).map(|answer| answer.status), Ok(200));
    }),
    // An empty line alone is no request that has begun (RFC 9112 section 2.2).
    ("an empty line", |connection| {
        connection.send(b"\r\n");
    }),
    ("empty lines that trickle", |connection| trickle(connection, b"\r\n\n\r\n\r")),
    ("CR LF behind a body", |connection| {
        let request = pay_with("", body().replace(ID, &fresh_id()).replace("19.90", "0.00"));
        assert_eq!(connection.ask(&request).map(|answer| answer.status), Ok(422));
        connection.send(b"\r\n");
    }),
    ("CR LF together with a body", |connection| {
        let both = [post("/nowhere", "Content-Length: 2\r\n", "{}"), b"\r\n".to_vec()].concat();
        assert_eq!(connection.ask(&both).map(|answer| answer.status), Ok(404));
    }),
    ("CR LF together with chunks", |connection| {
        let both =
            [post("/nowhere", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), b"\r\n".to_vec()].concat();
        assert_eq!(connection.ask(&both).map(|answer| answer.status), Ok(404));
    }),
    ("LF and CR behind a request", |connection| {
        assert_eq!(connection.ask(&get("/health")).map(|answer| answer.status), Ok(200));
        connection.send(b"\n\r");
    }),
    ("a connection that is silent after a refusal", |connection| {
        assert_eq!(connection.ask(&get("/nowhere")).map(|answer| answer.status), Ok(404));
    }),
];

#[test]
fn an_incomplete_request_is_ended_after_5_seconds_and_nothing_is_accepted() {
    let system = System::start();
    let recorded = system.recorded();
    let mut failures = Failures::default();
    let ways = system.ways();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for way in &ways {
            for (name, script) in UNFINISHED {
                clients.push((format!("{name} ({way})"), scope.spawn(move || run_unfinished(way, script))));
            }
            for (name, script) in SILENT {
                clients.push((format!("{name} ({way})"), scope.spawn(move || run_silent(way, script))));
            }
            clients.push((format!("a head in 2 s ({way})"), scope.spawn(move || run_in_time(way))));
        }
        for (name, client) in clients {
            match client.join() {
                Ok(Ok(())) => (),
                Ok(Err((expected, got))) => failures.note(&name, expected, got),
                Err(_) => failures.note(&name, "to get so far", "a panic, see above"),
            }
        }
    });
    failures.equal("recorded", recorded, system.recorded());
    failures.finish();
}

/// What was expected and what came.
type Verdict = Result<(), (String, String)>;

fn run_unfinished(way: &Way, script: Script) -> Verdict {
    let mut connection = way.connect();
    let began = Instant::now();
    script(&mut connection);
    connection.set_timeout(READY_TIMEOUT);
    let expected = || "408 and a close, or a close, after 5 s".to_owned();
    match connection.answer(false) {
        Ok(answer) if answer.status == 408 => {
            let end = connection.end();
            if end != End::Closed {
                return Err((expected(), format!("408 and {end}")));
            }
        }
        Ok(answer) => return Err((expected(), answer.status.to_string())),
        Err(End::Closed | End::Reset) => (),
        Err(end) => return Err((expected(), end.to_string())),
    }
    let took = began.elapsed();
    // How long beyond that is the machine's affair.
    if took >= REQUEST_TIMEOUT { Ok(()) } else { Err((expected(), format!("the end after {took:?}"))) }
}

fn run_silent(way: &Way, script: Script) -> Verdict {
    let mut connection = way.connect();
    script(&mut connection);
    connection.set_timeout(REQUEST_TIMEOUT + Duration::from_millis(1_500));
    let end = connection.end();
    if end != End::Silent {
        return Err(("a connection that stays".into(), end.to_string()));
    }
    connection.set_timeout(READY_TIMEOUT);
    // What is behind a CR may only be its LF.
    let seen = connection.ask(&[b"\n", &get("/health")[..]].concat()).map(|answer| answer.status);
    if seen == Ok(200) { Ok(()) } else { Err(("200".into(), format!("{seen:?}"))) }
}

fn run_in_time(way: &Way) -> Verdict {
    let mut connection = way.connect();
    let request = get("/health");
    let began = Instant::now();
    trickle(&mut connection, &request[..6]);
    connection.set_timeout(READY_TIMEOUT);
    let seen = connection.ask(&request[6..]).map(|answer| answer.status);
    // A machine that took longer than the 5 s may have seen the request given up.
    let is_late = began.elapsed() >= REQUEST_TIMEOUT;
    let is_given_up = matches!(seen, Ok(408) | Err(End::Closed | End::Reset));
    if seen == Ok(200) || (is_late && is_given_up) {
        Ok(())
    } else {
        Err(("200".into(), format!("{seen:?}")))
    }
}
