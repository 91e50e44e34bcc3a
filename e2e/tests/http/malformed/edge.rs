//! The edge's own reader beside the reference parser: streams of requests whose bodies come in chunks, right and wrong,
//! cut anywhere, go through an edge in this process and through the reference, and both must see the same requests.
//!
//! The reference itself is held to a table of what RFC 9112 section 7.1 says, so that it cannot be wrong in the same way.

use super::reference::{self, Reading, Rest};
use edge::unix::UnixStream;
use edge::{Edge, Reply, Request, Stream};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Socket;
use std::rc::Rc;
use std::time::Duration;
use tokio::runtime::LocalRuntime;

const HEAD: &str = "POST /payments HTTP/1.1\r\nHost: espora\r\nTransfer-Encoding: chunked\r\n\r\n";
const FOLLOWER: &str = "GET /health HTTP/1.1\r\nHost: espora\r\n\r\n";

/// Far more than a client waits for an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Streams that the edge and the reference read.
const CASES: u32 = 2_000;

/// Method, target and body of a request.
type Seen = (String, Vec<u8>, Vec<u8>);

/// What an edge takes for requests in a stream that ends behind `pieces`.
fn seen_by_edge(runtime: &LocalRuntime, pieces: &[&[u8]]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (ours, mut client) = Socket::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket");
    client.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
    runtime.block_on(async {
        let stream = Stream::Unix(UnixStream::from_std(ours).expect("the runtime watches it"));
        let handler = |request: Request| {
            let (method, target) = (request.method.to_string(), request.target.as_str().into());
            seen.borrow_mut().push((method, target, request.body.to_vec()));
            std::future::ready(Reply::empty(http::StatusCode::OK))
        };
        let edge = Rc::new(Edge::new(1));
        let served = edge.serve(stream, None, handler);
        let mut served = std::pin::pin!(served);
        for piece in pieces {
            // It may have refused an earlier one, and closed.
            let _ = client.write_all(piece);
            // What has come is looked at before more of it comes.
            let _ = tokio::time::timeout(Duration::ZERO, served.as_mut()).await;
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
        // The client reads its answers, so that a lingering close has an end.
        let reader = std::thread::spawn(move || client.read_to_end(&mut Vec::new()));
        served.await;
        let _ = reader.join().expect("the reader ends");
    });
    seen.take()
}

fn seen_by_reference(bytes: &[u8]) -> (Vec<Seen>, Rest) {
    let reading = Reading::of(bytes);
    let request =
        |request: &reference::Request| (request.method.clone(), request.target.clone(), request.body.clone());
    (reading.requests.iter().map(request).collect(), reading.rest)
}

fn with_chunks(chunks: &[u8]) -> Vec<u8> {
    [HEAD.as_bytes(), chunks].concat()
}

#[test]
fn the_reference_takes_chunks_as_the_rfc_has_them_and_nothing_else() {
    let good: [&[u8]; 8] = [
        b"0\r\n\r\n",
        b"1\r\na\r\n0\r\n\r\n",
        b"01\r\na\r\n000\r\n\r\n",
        b"A\r\n0123456789\r\n0\r\n\r\n",
        b"1;a\r\na\r\n0;b=c\r\n\r\n",
        b"1 ;\ta = \"\x80;\\\"\t\" ; b\r\na\r\n0\r\n\r\n",
        b"0\r\nA:\r\nB: \t c \t\r\n\r\n",
        b"2\r\n\r\n\r\n0\r\n\r\n",
    ];
    for chunks in good {
        let (requests, rest) = seen_by_reference(&[&with_chunks(chunks), FOLLOWER.as_bytes()].concat());
        assert_eq!((requests.len(), rest), (2, Rest::Nothing), "{}", chunks.escape_ascii());
    }
    let bad: [&[u8]; 31] = [
        b"\r\n",
        b" 0\r\n\r\n",
        b"0 \r\n\r\n",
        b"0\t\r\n\r\n",
        b"0\x0b\r\n\r\n",
        b"0\x0c\r\n\r\n",
        b"0\n\r\n",
        b"0\r\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n\r\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\n\n",
        b"0\r\nA: b\r\n\n",
        b"0\r\nA: b\rc\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA\r\n\r\n",
        b"0\r\nA: \x0c\r\n\r\n",
        b"0;\r\n\r\n",
        b"0;;a\r\n\r\n",
        b"0;a \r\n\r\n",
        b"0;a=\r\n\r\n",
        b"0;=a\r\n\r\n",
        b"0;a=\"b\r\n\r\n",
        b"0;a=\"b\"c\r\n\r\n",
        b"0;a=\"\\\r\n\"\r\n\r\n",
        b"0;a=b c\r\n\r\n",
        b"0;\xff\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
    ];
    for chunks in bad {
        let seen = seen_by_reference(&[&with_chunks(chunks), FOLLOWER.as_bytes()].concat());
        assert_eq!(seen, (Vec::new(), Rest::Malformed(false)), "{}", chunks.escape_ascii());
    }
}

/// Parts of bodies in chunks, most of them right.
fn parts() -> impl Strategy<Value = Vec<&'static [u8]>> {
    let whole: Vec<&[u8]> = vec![
        b"1\r\na\r\n",
        b"3\r\nabc\r\n",
        b"2;a=b\r\n\r\n\r\n",
        b"4 ; a = \"b;\\\"\" ;c\r\n0\r\n\r\r\n",
        b"0\r\n\r\n",
        b"0\r\nA: b\r\n\r\n",
        b"00;a\r\nA: b\r\nC:\r\n\r\n",
    ];
    let spice: Vec<&[u8]> = vec![
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\x0b",
        b"\x0c",
        b"\0",
        b";",
        b"=",
        b"\"",
        b"\\",
        b"0",
        b"1",
        b"f",
        b"a",
        b":",
        b"A: b\r\n",
        b"A: b\n",
        b"\n\n",
        b"\xff",
        b"\x85",
    ];
    let part = prop_oneof![3 => prop::sample::select(whole), 2 => prop::sample::select(spice)];
    prop::collection::vec(part, 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    /// None of the bodies is as long as a server may refuse it for its length, so that both must agree on it.
    #[test]
    fn edge_and_reference_see_the_same_requests_in_chunks(
        parts in parts(),
        byte in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut chunks = parts.concat();
        if let (Some((at, byte)), false) = (byte, chunks.is_empty()) {
            let at = at.index(chunks.len());
            chunks[at] = byte;
        }
        let bytes = [&with_chunks(&chunks), FOLLOWER.as_bytes()].concat();
        let expected = seen_by_reference(&bytes).0;
        let runtime = LocalRuntime::new().expect("a runtime");
        let (first, second) = bytes.split_at(HEAD.len() + cut.index(bytes.len() - HEAD.len()));
        for pieces in [&[&bytes[..]][..], &[first, second]] {
            let seen = seen_by_edge(&runtime, pieces);
            prop_assert_eq!(seen.first(), expected.first(), "{}", bytes.escape_ascii());
            // What follows may be refused for more than its form.
            prop_assert!(expected.starts_with(&seen), "{seen:?} of {}", bytes.escape_ascii());
        }
    }
}
