//! Users of the judge against small servers that answer well, badly, in pieces, or not at all.
//!
//! Time is tokio's and stands still while anything is left to do, so a run of many seconds takes none.

use arena::client::{Client, TIMEOUT};
use arena::tally::Tally;
use arena::told::Told;
use arena::user::{PaymentRequest, User};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use wire::{Cents, PaymentId};

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}";
const UNKNOWN: &str = "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n";

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Reaction {
    Answer(&'static str),
    /// One byte after the other.
    Dribble(&'static str),
    Silence,
    HangUp,
}

use Reaction::{Answer, Dribble, HangUp, Silence};

/// Reacts to the requests that come, in this order, whatever connection they come over; keeps their ids.
async fn server(reactions: Vec<Reaction>) -> (SocketAddr, Rc<RefCell<Vec<PaymentId>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ids = Rc::new(RefCell::new(Vec::new()));
    let (seen, reactions) = (Rc::clone(&ids), Rc::new(RefCell::new(reactions.into_iter())));
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            spawn_local(connection(stream, Rc::clone(&reactions), Rc::clone(&seen)));
        }
    });
    (addr, ids)
}

async fn connection(
    mut stream: TcpStream,
    reactions: Rc<RefCell<impl Iterator<Item = Reaction>>>,
    seen: Rc<RefCell<Vec<PaymentId>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut request = [0; 4_096];
    while let Ok(len @ 1..) = stream.read(&mut request).await {
        let text = std::str::from_utf8(&request[..len]).unwrap();
        let (_, rest) = text.split_once(r#"{"correlationId":""#).expect("a payment in one piece");
        seen.borrow_mut().push(PaymentId::parse(&rest[..36]).unwrap());
        let reaction = reactions.borrow_mut().next().expect("a reaction for each request");
        match reaction {
            Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Dribble(text) => {
                for byte in text.bytes() {
                    stream.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            Silence => sleep(Duration::from_secs(3_600)).await,
            HangUp => return,
        }
    }
}

/// Lets one user post from the start until `end`, and tells what it entered and which ids the server saw.
async fn run(reactions: Vec<Reaction>, end: Duration) -> (Rc<Tally>, Vec<PaymentId>, Duration) {
    let (addr, ids) = server(reactions).await;
    let start = Instant::now();
    let tally = Rc::new(Tally::new(start, 16, 1));
    let client = Client::new(addr.into(), TIMEOUT);
    let request = PaymentRequest::new(&addr.to_string(), Cents(1_990));
    let user = User { client, request, tally: Rc::clone(&tally) };
    user.run(start, start + end).await;
    let ids = ids.borrow().clone();
    (tally, ids, start.elapsed())
}

fn fates(tally: &Tally) -> Vec<Told> {
    tally.payments().iter().map(|payment| payment.told).collect()
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_user_posts_a_new_payment_each_second_over_one_connection() {
    let (tally, ids, took) = run(vec![Answer(ACCEPTED); 3], Duration::from_millis(2_500)).await;
    assert_eq!(fates(&tally), [Told::Accepted; 3]);
    assert_eq!(tally.payments().iter().map(|payment| payment.id).collect::<Vec<_>>(), ids);
    assert_eq!((tally.accepted_count(), tally.connects.get(), tally.users.get()), (3, 1, 1));
    assert!(took >= Duration::from_secs(3), "the last sleep is slept: {took:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_in_pieces_is_an_answer() {
    let (tally, _, _) = run(vec![Dribble(ACCEPTED), Dribble(BUSY)], Duration::from_millis(1_500)).await;
    assert_eq!(fates(&tally), [Told::Accepted, Told::Refused]);
    assert_eq!(tally.connects.get(), 1);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_refusal_and_an_unknown_outcome_are_told_apart() {
    let reactions = vec![Answer(BUSY), Answer(UNKNOWN), Answer(ACCEPTED)];
    let (tally, _, _) = run(reactions, Duration::from_millis(2_500)).await;
    assert_eq!(fates(&tally), [Told::Refused, Told::Unknown, Told::Accepted]);
    let failures: Vec<(String, u64)> = tally.failures().into_iter().collect();
    assert_eq!(failures, [("status 503".into(), 1), ("status 504".into(), 1)]);
    assert_eq!((tally.post_latency().count, tally.connects.get()), (1, 1));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn after_a_timeout_and_a_second_the_next_payment_goes_over_a_new_connection() {
    let (tally, ids, took) = run(vec![Silence, Answer(ACCEPTED)], Duration::from_millis(3_000)).await;
    assert_eq!(fates(&tally), [Told::Unknown, Told::Accepted]);
    assert_eq!((ids.len(), tally.connects.get()), (2, 2));
    assert!(took >= Duration::from_millis(3_500), "1.5 s of timeout and two sleeps: {took:?}");
    assert_eq!(tally.failures().get("timed out"), Some(&1));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_lost_in_mid_request_leaves_the_payment_unknown() {
    let (tally, ids, _) = run(vec![HangUp, Answer(ACCEPTED)], Duration::from_millis(1_500)).await;
    assert_eq!(fates(&tally), [Told::Unknown, Told::Accepted]);
    assert_eq!(ids.len(), 2, "what was written once is not written again");
    assert_eq!(tally.failures().get("connection lost"), Some(&1));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_refused_connection_is_a_failed_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let start = Instant::now();
    let tally = Rc::new(Tally::new(start, 1, 1));
    let request = PaymentRequest::new("nowhere", Cents(1));
    let user = User { client: Client::new(addr.into(), TIMEOUT), request, tally: Rc::clone(&tally) };
    user.run(start, start + Duration::from_millis(500)).await;
    assert_eq!(tally.failures().get("not connected"), Some(&1));
    assert_eq!(fates(&tally), [Told::Unknown]);
}
