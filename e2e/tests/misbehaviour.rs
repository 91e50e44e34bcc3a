//! Each way of misbehaving that a simulated processor knows: what its caller sees, and whether there is a row.

use crate::harness::processors::Processors;
use crate::harness::{fresh_id, payment};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use wire::Processor;

/// How long a read may take, so that a hang ends.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Of a flood, what is read.
const FLOOD_READ_BYTES: u64 = 1 << 20;

/// What came back on one connection, and whether it ended in order.
struct Seen {
    bytes: Vec<u8>,
    is_orderly: bool,
}

impl Seen {
    fn status(&self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }
}

fn exchange(addr: SocketAddr, request: &str) -> Seen {
    let mut stream = TcpStream::connect(addr).expect("the processor listens");
    stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a socket takes a timeout");
    stream.set_nodelay(true).expect("a socket takes an option");
    stream.write_all(request.as_bytes()).expect("the processor takes a request");
    let mut bytes = Vec::new();
    let ended = stream.take(FLOOD_READ_BYTES).read_to_end(&mut bytes);
    Seen { bytes, is_orderly: ended.is_ok() }
}

fn request(method: &str, target: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: p\r\nX-Rinha-Token: 123\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}

struct Stub {
    _processors: Processors,
    addr: SocketAddr,
}

impl Stub {
    fn start() -> Self {
        let processors = Processors::start();
        let addr = processors.addrs[Processor::Default];
        Self { _processors: processors, addr }
    }

    fn ask(&self, method: &str, target: &str, body: &Value) -> Value {
        let seen = exchange(self.addr, &request(method, target, &body.to_string()));
        assert!(matches!(seen.status(), Some(200..300)), "{method} {target}: {:?}", seen.status());
        let text = String::from_utf8(seen.bytes).expect("text");
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    fn misbehave(&self, how: &Value) {
        self.ask("PUT", "/admin/misbehaviour", how);
    }

    /// Pays, and tells what was seen and whether there is a row.
    fn pay(&self) -> (Seen, bool) {
        let id = fresh_id();
        let body = payment(&id, "19.90").replace('}', r#","requestedAt":"2025-07-15T12:34:56.000Z"}"#);
        let seen = exchange(self.addr, &request("POST", "/payments", &body));
        let row = exchange(self.addr, &request("GET", &format!("/payments/{id}"), ""));
        (seen, row.status() == Some(200))
    }

    fn done(&self, what: &str) -> u64 {
        self.ask("GET", "/admin/misbehaviour", &Value::Null)["observed"]["done"][what].as_u64().unwrap_or(0)
    }
}

#[test]
fn an_inserted_row_stays_even_if_its_answer_is_lost() {
    let stub = Stub::start();
    let whole = stub.pay().0.bytes.len();
    for (kind, is_seen_ok) in
        [("reset_after_insert", false), ("error_with_row", false), ("late_answer", true)]
    {
        stub.misbehave(&json!({"payments": kind, "late_ms": [5, 20]}));
        let (seen, is_kept) = stub.pay();
        assert!(is_kept, "{kind}");
        assert_eq!(seen.status() == Some(200), is_seen_ok, "{kind}");
        assert_eq!(stub.done(kind), 1);
    }
    stub.misbehave(&json!({"payments": "cut_in_answer"}));
    for at in 0..=whole {
        let (seen, is_kept) = stub.pay();
        assert!(is_kept, "cut at {at}");
        assert_eq!(seen.bytes.len(), at, "a reset takes nothing back that was written before it");
    }
    stub.misbehave(&json!({}));
    assert_eq!(stub.pay().0.status(), Some(200));
}

#[test]
fn an_incomplete_request_is_not_inserted_and_not_answered() {
    let stub = Stub::start();
    stub.misbehave(&json!({"payments": "cut_in_request", "turn": 7}));
    for _ in 0..300 {
        let (seen, is_kept) = stub.pay();
        assert!(!is_kept);
        assert_eq!(seen.bytes, b"");
    }
    // Administration and look-ups are never cut.
    assert_eq!(stub.done("cut_in_request"), 300);
}

#[test]
fn an_answer_that_says_that_nothing_was_recorded_says_the_truth() {
    let stub = Stub::start();
    let (mut statuses, mut early_kept, mut kept) = (Vec::new(), 0, 0);
    for (kind, count) in [("too_many", 3), ("error_without_row", 3), ("strange_status", 30)] {
        stub.misbehave(&json!({"payments": kind}));
        for _ in 0..count {
            let (seen, is_kept) = stub.pay();
            let status = seen.status().expect("a whole answer");
            assert!(seen.is_orderly);
            early_kept += u32::from(is_kept && matches!(status, 401 | 403 | 404 | 405 | 429));
            kept += u32::from(is_kept);
            statuses.push(status);
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [201, 202, 204, 302, 307, 401, 403, 404, 405, 429, 500]);
    assert_eq!((early_kept, kept), (0, 10), "a third of the strange ones keeps its row");
}

#[test]
fn garbage_and_floods_arrive() {
    let stub = Stub::start();
    stub.misbehave(&json!({"payments": "garbage"}));
    let kept: Vec<bool> = (0..4)
        .map(|_| stub.pay())
        .inspect(|(seen, _)| assert_eq!(seen.status(), None))
        .map(|(_, kept)| kept)
        .collect();
    assert_eq!(kept, [true, false, true, false]);
    stub.misbehave(&json!({"payments": "flood"}));
    for status in [Some(200), Some(200), None] {
        let (seen, is_kept) = stub.pay();
        assert!(is_kept);
        assert_eq!((seen.status(), seen.bytes.len() as u64), (status, FLOOD_READ_BYTES));
    }
}

#[test]
fn a_gateway_says_504_while_the_row_comes_late() {
    const LATE_MS: u64 = 600_000;
    let stub = Stub::start();
    for (late_ms, is_there) in [(LATE_MS, false), (0, true)] {
        stub.misbehave(&json!({"payments": "gateway_timeout", "late_ms": [late_ms, late_ms]}));
        let (seen, is_kept) = stub.pay();
        assert_eq!((seen.status(), is_kept), (Some(504), is_there), "{late_ms} ms late");
    }
    assert_eq!(stub.done("gateway_timeout"), 2);
    let running = stub.ask("GET", "/admin/payments", &Value::Null)["running"].as_u64();
    assert_eq!(running, Some(1), "a call whose row is to come is under way");
}

#[test]
fn a_health_call_hangs_lies_or_is_garbage_and_payments_go_on() {
    let stub = Stub::start();
    let health = |_: &Stub| exchange(stub.addr, &request("GET", "/payments/service-health", ""));
    stub.misbehave(&json!({"health": "lie"}));
    assert!(
        String::from_utf8_lossy(&health(&stub).bytes).ends_with(r#"{"failing":true,"minResponseTime":0}"#)
    );
    stub.misbehave(&json!({"health": "hang"}));
    let mut hanging = TcpStream::connect(stub.addr).expect("the processor listens");
    hanging.write_all(request("GET", "/payments/service-health", "").as_bytes()).expect("it takes a request");
    let (seen, is_kept) = stub.pay();
    assert!(is_kept && seen.status() == Some(200));
    while stub.done("health_hang") == 0 {
        std::thread::yield_now();
    }
    hanging.set_nonblocking(true).expect("a socket takes an option");
    assert!(hanging.read(&mut [0]).is_err(), "there is no answer");
}

#[test]
fn lost_rows_are_gone_and_told() {
    let stub = Stub::start();
    for _ in 0..10 {
        assert!(stub.pay().1);
    }
    assert_eq!(stub.ask("POST", "/admin/lose-payments", &json!({"share_percent": 30})), json!({"lost": 3}));
    let len = |what: &str| {
        let page = stub.ask("GET", &format!("/admin/{what}"), &Value::Null);
        page["payments"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((len("payments"), len("lost-payments")), (7, 3));
}

#[test]
fn an_unknown_misbehaviour_changes_nothing() {
    let stub = Stub::start();
    for body in [r#"{"payments":"explode"}"#, r#"{"share":5}"#, "{"] {
        let seen = exchange(stub.addr, &request("PUT", "/admin/misbehaviour", body));
        assert_eq!(seen.status(), Some(400), "{body}");
    }
    let without_token =
        "PUT /admin/misbehaviour HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    assert_eq!(exchange(stub.addr, without_token).status(), Some(401));
    assert_eq!(stub.pay().0.status(), Some(200));
}
