//! The simulated processor against docs/contract.md, over real sockets and with injected time.
//!
//! The clock is paused, and a task that never rests keeps the runtime from moving it while bytes are still on their way
//! through the kernel: only [`advance`] moves it. What a test has to wait for it asks for, through the processor's own
//! `GET /admin/payments`, which tells how many calls run and wait.

use arena::processor::{ProcessorConfig, bind, serve};
use contest::rules::{RUNNING_MAX, WAITING_MAX};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, advance};
use wire::Processor;

const TIME: &str = "2025-07-15T12:34:56.000Z";
const TOKEN: &str = "X-Rinha-Token: 123\r\n";

/// Answers without the state that a test waits for, after which it fails: some minutes' worth, so that a hang ends. Bytes on
/// the loopback interface arrive within a few, unless the kernel has no processor for them.
const ASKS_MAX: usize = 1_000_000;

/// A processor that answers in no time, on a clock that stands still.
async fn start() -> SocketAddr {
    let mut config = ProcessorConfig::new(Processor::Default);
    config.service_time = Duration::ZERO;
    start_with(config).await
}

async fn start_with(config: ProcessorConfig) -> SocketAddr {
    tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    wire::socket::raise_descriptor_limit();
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, config, pending()));
    addr
}

/// One keep-alive connection.
struct Caller {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Caller {
    async fn connect(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), unread: Vec::new() }
    }

    /// Sends a request; `headers` are whole lines.
    async fn send(&mut self, method: &str, target: &str, headers: &str, body: &str) {
        let len = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: processor\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
        );
        self.write(&request).await;
    }

    async fn send_payment(&mut self, id: u128) {
        self.send("POST", "/payments", "Content-Type: application/json\r\n", &payment(id, "19.90", TIME))
            .await;
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.take_answer() {
                return answer;
            }
            assert_ne!(self.stream.read_buf(&mut self.unread).await.unwrap(), 0, "closed without an answer");
        }
    }

    fn take_answer(&mut self) -> Option<Answer> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(start) = head.parse(&self.unread).unwrap() else {
            return None;
        };
        let status = head.code.unwrap();
        let headers: HashMap<_, _> = (head.headers.iter())
            .map(|header| (header.name.to_lowercase(), String::from_utf8(header.value.to_vec()).unwrap()))
            .collect();
        let end = start + headers.get("content-length").map_or(0, |len| len.parse::<usize>().unwrap());
        let body = String::from_utf8(self.unread.get(start..end)?.to_vec()).unwrap();
        self.unread.drain(..end);
        Some(Answer { status, headers, body })
    }

    async fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target, TOKEN, "").await;
        self.answer().await
    }

    async fn pay(&mut self, body: &str) -> Answer {
        self.send("POST", "/payments", "Content-Type: application/json\r\n", body).await;
        self.answer().await
    }

    async fn configure(&mut self, what: &str, body: Value) -> Answer {
        let target = format!("/admin/configurations/{what}");
        let headers = format!("{TOKEN}Content-Type: application/json\r\n");
        self.send("PUT", &target, &headers, &body.to_string()).await;
        self.answer().await
    }

    /// Asks until so many calls run and wait.
    async fn wait_for(&mut self, running: usize, waiting: usize) {
        let mut last = (usize::MAX, usize::MAX);
        for _ in 0..ASKS_MAX {
            let page = self.get("/admin/payments?limit=0").await.json();
            last = (usize_of(&page["running"]), usize_of(&page["waiting"]));
            if last == (running, waiting) {
                return;
            }
        }
        panic!("{last:?} run and wait, and not {running} and {waiting}");
    }

    async fn recorded(&mut self) -> u64 {
        self.get("/admin/payments-summary").await.json()["totalRequests"].as_u64().unwrap()
    }
}

fn usize_of(value: &Value) -> usize {
    value.as_u64().unwrap().try_into().unwrap()
}

fn id(number: u128) -> String {
    wire::PaymentId(number).to_string()
}

fn payment(number: u128, amount: &str, time: &str) -> String {
    format!(r#"{{"correlationId":"{}","amount":{amount},"requestedAt":"{time}"}}"#, id(number))
}

fn payment_head(len: usize) -> String {
    format!(
        "POST /payments HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_payment_is_recorded_once_and_can_be_looked_up() {
    let mut caller = Caller::connect(start().await).await;
    assert_eq!(caller.get(&format!("/payments/{}", id(1))).await.status, 404);

    let body = payment(1, "19.9049", "2025-07-15T12:34:56.1234567Z");
    let answer = caller.pay(&body).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"message":"payment processed successfully"}"#)
    );
    let repeated = caller.pay(&payment(1, "5", TIME)).await;
    assert_eq!(repeated.status, 422);
    assert!(repeated.json()["message"].as_str().unwrap().contains("already exists"));

    let stored = caller.get(&format!("/payments/{}", id(1).to_uppercase())).await;
    let expected =
        json!({"correlationId": id(1), "amount": 19.90, "requestedAt": "2025-07-15T12:34:56.123456"});
    assert_eq!((stored.status, stored.json()), (200, expected));
}

#[tokio::test(start_paused = true)]
async fn an_unbindable_body_is_refused_and_the_connection_stays_usable() {
    let mut caller = Caller::connect(start().await).await;
    for body in ["", "{}", "{", "null", &payment(1, "\"x\"", TIME), &payment(1, "1", "yesterday")] {
        assert_eq!(caller.pay(body).await.status, 400, "{body}");
    }
    caller.send("POST", "/payments", "", &payment(1, "1", TIME)).await;
    assert_eq!(caller.answer().await.status, 415);
    assert_eq!(caller.get("/payments/1").await.status, 400);
    assert_eq!(caller.get("/payment").await.status, 404);
    assert_eq!(caller.get("/admin/nothing").await.status, 404);
    let wrong_method = caller.get("/payments").await;
    assert_eq!((wrong_method.status, wrong_method.headers["allow"].as_str()), (405, "POST"));
    assert_eq!(caller.recorded().await, 0);

    let huge = format!("{}{}", " ".repeat(65_536), payment(1, "1", TIME));
    assert_eq!(caller.pay(&huge).await.status, 413);
}

#[tokio::test(start_paused = true)]
async fn a_time_without_z_is_an_exception_with_a_body_after_the_flag_was_read() {
    let mut caller = Caller::connect(start().await).await;
    let body = payment(1, "1", "2025-07-15T12:34:56.000+00:00");
    let answer = caller.pay(&body).await;
    assert_eq!(answer.status, 500);
    assert!(!answer.body.is_empty());
    caller.configure("failure", json!({"failure": true})).await;
    let failed = caller.pay(&body).await;
    assert_eq!((failed.status, failed.body.as_str()), (500, ""));
    assert_eq!(caller.recorded().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_processor_answers_500_with_an_empty_body_and_says_its_length() {
    let mut caller = Caller::connect(start().await).await;
    caller.pay(&payment(1, "19.90", TIME)).await;
    let configured = caller.configure("failure", json!({"failure": true})).await;
    assert_eq!(configured.status, 200);
    let failed = caller.pay(&payment(2, "19.90", TIME)).await;
    assert_eq!((failed.status, failed.headers["content-length"].as_str()), (500, "0"));
    assert_eq!(caller.get(&format!("/payments/{}", id(1))).await.status, 200);
    assert_eq!(caller.get(&format!("/payments/{}", id(2))).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn everything_under_admin_wants_the_token_that_is_set_now() {
    let mut caller = Caller::connect(start().await).await;
    let calls = [
        ("GET", "/admin/payments-summary"),
        ("GET", "/admin/payments"),
        ("PUT", "/admin/configurations/token"),
        ("PUT", "/admin/configurations/delay"),
        ("PUT", "/admin/configurations/failure"),
        ("POST", "/admin/purge-payments"),
    ];
    for (method, target) in calls {
        for headers in ["", "X-Rinha-Token: 124\r\n", "X-Rinha-Token: \r\n"] {
            caller.send(method, target, headers, "").await;
            assert_eq!(caller.answer().await.status, 401, "{method} {target} {headers}");
        }
    }
    assert_eq!(caller.configure("token", json!({"token": "new"})).await.status, 204);
    assert_eq!(caller.get("/admin/payments-summary").await.status, 401);
    caller.send("GET", "/admin/payments-summary", "x-rinha-token: new\r\n", "").await;
    assert_eq!(caller.answer().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_cannot_be_bound_changes_nothing() {
    let mut caller = Caller::connect(start().await).await;
    for (what, body) in
        [("delay", json!({"delay": "x"})), ("failure", json!({})), ("token", json!({"token": 1}))]
    {
        assert_eq!(caller.configure(what, body).await.status, 400, "{what}");
    }
    let health = caller.get("/payments/service-health").await;
    assert_eq!(health.json(), json!({"failing": false, "minResponseTime": 0}));
}

#[tokio::test(start_paused = true)]
async fn the_summary_includes_both_ends() {
    let mut caller = Caller::connect(start().await).await;
    for (number, second) in (1..).zip(["55.999999", "56.000000", "56.500000", "57.000000", "57.000001"]) {
        caller.pay(&payment(number, "10.10", &format!("2025-07-15T12:34:{second}Z"))).await;
    }
    let target = "/admin/payments-summary?from=2025-07-15T12:34:56.000Z&to=2025-07-15T12%3A34%3A57.000Z";
    let expected =
        json!({"totalRequests": 3, "totalAmount": 30.30, "totalFee": 1.515, "feePerTransaction": 0.05});
    assert_eq!(caller.get(target).await.json(), expected);
    let point = "/admin/payments-summary?from=2025-07-15T12:34:56Z&to=2025-07-15T12:34:56Z";
    assert_eq!(caller.get(point).await.json()["totalRequests"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_missing_bound_means_everything_and_crossed_bounds_mean_nothing() {
    let mut caller = Caller::connect(start().await).await;
    for number in 1..=3 {
        caller.pay(&payment(number, "1", TIME)).await;
    }
    for query in
        ["", "?from=2025-07-15T12:34:57Z", "?to=2020-01-01T00:00:00Z", "?from=&to=2020-01-01T00:00:00Z"]
    {
        let answer = caller.get(&format!("/admin/payments-summary{query}")).await;
        assert_eq!(answer.json()["totalRequests"], 3, "{query}");
    }
    let crossed = "/admin/payments-summary?from=2025-07-15T12:34:57Z&to=2025-07-15T12:34:55Z";
    let nothing = json!({"totalRequests": 0, "totalAmount": 0.0, "totalFee": 0.0, "feePerTransaction": 0.05});
    assert_eq!(caller.get(crossed).await.json(), nothing);
    assert_eq!(caller.get("/admin/payments-summary?from=now&to=now").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_purge_leaves_nothing_behind() {
    let mut caller = Caller::connect(start().await).await;
    caller.pay(&payment(1, "1", TIME)).await;
    caller.send("POST", "/admin/purge-payments", TOKEN, "").await;
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(caller.recorded().await, 0);
    assert_eq!(caller.get(&format!("/payments/{}", id(1))).await.status, 404);
    assert_eq!(caller.pay(&payment(1, "1", TIME)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_pages_of_all_rows_come_in_the_order_of_recording() {
    let mut caller = Caller::connect(start().await).await;
    for number in [3, 1, 2] {
        caller.pay(&payment(number, "19.90", "2025-07-15T12:34:56.123456Z")).await;
    }
    let row = |number| json!({"correlationId": id(number), "amount": 19.90, "requestedAt": "2025-07-15T12:34:56.123456Z"});
    let first = caller.get("/admin/payments?limit=2").await.json();
    assert_eq!(first, json!({"running": 0, "waiting": 0, "next": 2, "payments": [row(3), row(1)]}));
    let second = caller.get("/admin/payments?after=2&limit=2").await.json();
    assert_eq!(second, json!({"running": 0, "waiting": 0, "next": null, "payments": [row(2)]}));
    assert_eq!(caller.get("/admin/payments?after=-1").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_payment_whose_caller_hung_up_is_recorded_when_its_delay_is_over() {
    let addr = start().await;
    let (mut admin, mut caller) = (Caller::connect(addr).await, Caller::connect(addr).await);
    admin.configure("delay", json!({"delay": 2_000})).await;
    caller.send_payment(1).await;
    admin.wait_for(1, 0).await;
    drop(caller);
    advance(Duration::from_millis(1_999)).await;
    admin.wait_for(1, 0).await;
    assert_eq!(admin.recorded().await, 0);
    advance(Duration::from_millis(1)).await;
    admin.wait_for(0, 0).await;
    assert_eq!(admin.get(&format!("/payments/{}", id(1))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_payment_whose_caller_hung_up_is_recorded_when_the_database_is_done() {
    let mut config = ProcessorConfig::new(Processor::Fallback);
    config.service_time = Duration::from_millis(3);
    let addr = start_with(config).await;
    let (mut admin, mut caller) = (Caller::connect(addr).await, Caller::connect(addr).await);
    caller.send_payment(1).await;
    admin.wait_for(1, 0).await;
    drop(caller);
    assert_eq!(admin.recorded().await, 0);
    advance(Duration::from_millis(3)).await;
    admin.wait_for(0, 0).await;
    assert_eq!(admin.recorded().await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_read_on_arrival() {
    let addr = start().await;
    let (mut admin, mut slow, mut fast) =
        (Caller::connect(addr).await, Caller::connect(addr).await, Caller::connect(addr).await);
    let configured = admin.configure("delay", json!({"delay": 1_000})).await;
    assert_eq!(configured.json(), json!({"config": "delay", "was": 0, "is": 1_000}));
    slow.send_payment(1).await;
    admin.wait_for(1, 0).await;
    admin.configure("delay", json!({"delay": 0})).await;
    assert_eq!(fast.pay(&payment(2, "1", TIME)).await.status, 200);
    admin.wait_for(1, 0).await;
    let sent_at = Instant::now();
    advance(Duration::from_millis(1_000)).await;
    assert_eq!(slow.answer().await.status, 200);
    assert_eq!(sent_at.elapsed(), Duration::from_millis(1_000));
}

#[tokio::test(start_paused = true)]
async fn the_failure_flag_is_read_after_the_delay() {
    let addr = start().await;
    let (mut admin, mut caller) = (Caller::connect(addr).await, Caller::connect(addr).await);
    admin.configure("delay", json!({"delay": 1_000})).await;
    for (number, was, is, status) in [(1, true, false, 200), (2, false, true, 500)] {
        admin.configure("failure", json!({"failure": was})).await;
        caller.send_payment(number).await;
        admin.wait_for(1, 0).await;
        admin.configure("failure", json!({"failure": is})).await;
        advance(Duration::from_millis(1_000)).await;
        assert_eq!(caller.answer().await.status, status);
    }
    assert_eq!(admin.recorded().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_has_neither_delay_nor_failure() {
    let mut caller = Caller::connect(start().await).await;
    caller.pay(&payment(1, "1", TIME)).await;
    caller.configure("delay", json!({"delay": 5_000})).await;
    caller.configure("failure", json!({"failure": true})).await;
    let asked_at = Instant::now();
    assert_eq!(caller.get(&format!("/payments/{}", id(1))).await.status, 200);
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
}

/// Fills the limiter: [`RUNNING_MAX`] payments in their delay of one second and [`WAITING_MAX`] before them.
async fn fill(addr: SocketAddr, admin: &mut Caller) -> Vec<Caller> {
    admin.configure("delay", json!({"delay": 1_000})).await;
    let mut callers = Vec::new();
    for number in 0..RUNNING_MAX + WAITING_MAX {
        let mut caller = Caller::connect(addr).await;
        caller.send_payment(number as u128).await;
        if number + 1 == RUNNING_MAX {
            admin.wait_for(RUNNING_MAX, 0).await;
        }
        callers.push(caller);
    }
    admin.wait_for(RUNNING_MAX, WAITING_MAX).await;
    callers
}

#[tokio::test(start_paused = true)]
async fn eight_hundred_run_five_hundred_wait_and_the_next_is_refused() {
    let addr = start().await;
    let mut admin = Caller::connect(addr).await;
    let mut callers = fill(addr, &mut admin).await;
    let mut late = Caller::connect(addr).await;
    for _ in 0..2 {
        let refused = late.pay(&payment(9_999, "1", TIME)).await;
        assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (429, "5"));
        assert_eq!(late.get(&format!("/payments/{}", id(0))).await.status, 429);
        assert_eq!(late.pay("cannot be bound").await.status, 429);
    }

    advance(Duration::from_millis(1_000)).await;
    admin.wait_for(WAITING_MAX, 0).await;
    for caller in &mut callers[..RUNNING_MAX] {
        assert_eq!(caller.answer().await.status, 200);
    }
    advance(Duration::from_millis(1_000)).await;
    for caller in &mut callers[RUNNING_MAX..] {
        assert_eq!(caller.answer().await.status, 200);
    }
    admin.wait_for(0, 0).await;
    assert_eq!(admin.recorded().await, 1_300);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_while_it_waits_is_never_recorded_and_leaves_its_place() {
    let addr = start().await;
    let mut admin = Caller::connect(addr).await;
    let mut callers = fill(addr, &mut admin).await;
    let (first_waiting, last_waiting) = (RUNNING_MAX, RUNNING_MAX + WAITING_MAX - 1);
    drop(callers.pop());
    drop(callers.remove(first_waiting));
    admin.wait_for(RUNNING_MAX, WAITING_MAX - 2).await;

    let mut piecemeal = Caller::connect(addr).await;
    let body = payment(8_888, "1", TIME);
    let (begin, end) = body.split_at(50);
    piecemeal.write(&payment_head(body.len())).await;
    piecemeal.write(begin).await;
    admin.wait_for(RUNNING_MAX, WAITING_MAX - 1).await;
    piecemeal.write(end).await;
    drop(piecemeal);
    admin.wait_for(RUNNING_MAX, WAITING_MAX - 2).await;

    let mut late = Caller::connect(addr).await;
    late.send_payment(9_999).await;
    admin.wait_for(RUNNING_MAX, WAITING_MAX - 1).await;

    advance(Duration::from_millis(1_000)).await;
    admin.wait_for(WAITING_MAX - 1, 0).await;
    advance(Duration::from_millis(1_000)).await;
    assert_eq!(late.answer().await.status, 200);
    admin.wait_for(0, 0).await;
    assert_eq!(admin.recorded().await, 1_299);
    for number in [first_waiting, last_waiting, 8_888] {
        assert_eq!(admin.get(&format!("/payments/{}", id(number as u128))).await.status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_reads_the_delay_when_it_leaves_the_queue() {
    let addr = start().await;
    let mut admin = Caller::connect(addr).await;
    let _callers = fill(addr, &mut admin).await;
    admin.configure("delay", json!({"delay": 0})).await;
    advance(Duration::from_millis(1_000)).await;
    admin.wait_for(0, 0).await;
    assert_eq!(admin.recorded().await, 1_300);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_before_its_body_is_whole_records_nothing_and_frees_its_place() {
    let addr = start().await;
    let (mut admin, mut caller) = (Caller::connect(addr).await, Caller::connect(addr).await);
    let body = payment(1, "1", TIME);
    caller.write(&payment_head(body.len() + 1)).await;
    caller.write(&body).await;
    admin.wait_for(1, 0).await;
    drop(caller);
    admin.wait_for(0, 0).await;
    assert_eq!(admin.recorded().await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_health_call_tells_flag_and_delay_as_configured() {
    let mut caller = Caller::connect(start().await).await;
    caller.configure("delay", json!({"delay": 235})).await;
    caller.configure("failure", json!({"failure": true})).await;
    let health = caller.get("/payments/service-health").await;
    assert_eq!((health.status, health.json()), (200, json!({"failing": true, "minResponseTime": 235})));
}

#[tokio::test(start_paused = true)]
async fn two_health_calls_hang_until_the_next_windows_and_the_fourth_is_refused() {
    let addr = start().await;
    let mut caller = Caller::connect(addr).await;
    let started_at = Instant::now();
    assert_eq!(caller.get("/payments/service-health").await.status, 200);

    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let sender = sender.clone();
        tokio::spawn(async move {
            let answer = Caller::connect(addr).await.get("/payments/service-health").await;
            sender.send((answer, started_at.elapsed())).unwrap();
        });
    }
    let (refused, after) = answers.recv().await.unwrap();
    assert_eq!((refused.status, after), (429, Duration::ZERO));
    assert_eq!(refused.headers["retry-after"], "5");
    for window in 1..=2 {
        advance(Duration::from_millis(4_999)).await;
        caller.configure("delay", json!({"delay": window})).await;
        assert!(answers.try_recv().is_err());
        advance(Duration::from_millis(1)).await;
        let (answer, after) = answers.recv().await.unwrap();
        assert_eq!((answer.status, after), (200, window * Duration::from_secs(5)));
        assert_eq!(answer.json()["minResponseTime"], window);
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_at_its_capacity_lets_payments_queue() {
    let mut config = ProcessorConfig::new(Processor::Default);
    config.service_time = Duration::ZERO;
    config.capacity = Some(10);
    let addr = start_with(config).await;
    let (mut admin, mut first) = (Caller::connect(addr).await, Caller::connect(addr).await);
    assert_eq!(first.pay(&payment(1, "1", TIME)).await.status, 200);
    first.send_payment(2).await;
    admin.wait_for(1, 0).await;
    advance(Duration::from_millis(99)).await;
    admin.wait_for(1, 0).await;
    advance(Duration::from_millis(1)).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn one_connection_may_pipeline_and_is_answered_in_order() {
    let mut caller = Caller::connect(start().await).await;
    for number in [1, 2, 1] {
        caller.send_payment(number).await;
    }
    for status in [200, 200, 422] {
        assert_eq!(caller.answer().await.status, status);
    }
}

#[tokio::test]
async fn a_shutdown_closes_the_listener_and_every_connection() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let config = ProcessorConfig::new(Processor::Default);
    let server = tokio::spawn(serve(listener, config, async { stopped.await.unwrap() }));
    let mut caller = Caller::connect(addr).await;
    assert_eq!(caller.recorded().await, 0);
    stop.send(()).unwrap();
    server.await.unwrap();
    assert_eq!(caller.stream.read_buf(&mut caller.unread).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}
