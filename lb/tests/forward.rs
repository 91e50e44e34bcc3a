//! What a client is told of a request that was sent twice.

use edge::Request;
use http::{Method, StatusCode};
use lb::backend::Backend;
use lb::forward::Forward;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Two backends. The first that is asked takes the request and hangs up; the next one answers this.
fn backends(name: &str, second: &'static [u8]) -> Vec<Backend> {
    let asked = Rc::new(Cell::new(0));
    let path = |number: u8| -> PathBuf {
        std::env::temp_dir().join(format!("espora-{name}-{}-{number}.sock", std::process::id()))
    };
    let serve = |number: u8| {
        let (path, asked) = (path(number), Rc::clone(&asked));
        // Left behind by an earlier process with this number.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket in the folder for temporary files");
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("the balancer connects");
            let _ = std::fs::remove_file(path);
            let read = stream.read(&mut [0; 4_096]).await.expect("the balancer sends");
            assert!(read > 0);
            asked.set(asked.get() + 1);
            if asked.get() == 2 {
                stream.write_all(second).await.expect("the balancer reads");
            }
        });
    };
    (1..=2)
        .map(|number| {
            serve(number);
            Backend::new(format!("api{number}"), path(number))
        })
        .collect()
}

fn request(method: Method, target: &str, body: &'static str) -> Request {
    let target = target.parse().expect("a valid target");
    let (content_type, content_encoding, token) = (None, None, None);
    Request { method, target, content_type, content_encoding, token, accept: None, body: body.into() }
}

#[tokio::test(flavor = "local")]
async fn a_payment_that_a_lost_backend_may_have_recorded_is_unknown_whatever_the_next_one_says() {
    let forward = Rc::new(Forward::new(backends("payment", UNAVAILABLE)));
    let reply = Rc::clone(&forward).handle(request(Method::POST, "/payments", "{}")).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(forward.counts(), (1, 0, 1), "sent a second time, and unknown");
}

#[tokio::test(flavor = "local")]
async fn reading_changes_nothing_so_the_second_answer_is_the_answer() {
    let forward = Rc::new(Forward::new(backends("summary", UNAVAILABLE)));
    let reply = Rc::clone(&forward).handle(request(Method::GET, "/payments-summary", "")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "local")]
async fn a_request_that_both_backends_lost_is_unknown_only_if_it_could_have_changed_something() {
    for (name, method, target, expected) in [
        ("lost-payment", Method::POST, "/payments", StatusCode::GATEWAY_TIMEOUT),
        ("lost-summary", Method::GET, "/payments-summary", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let forward = Rc::new(Forward::new(backends(name, b"")));
        let reply = Rc::clone(&forward).handle(request(method, target, "")).await;
        assert_eq!(reply.status, expected, "{name}");
    }
}

/// A backend that takes everything, and says this to all of it or nothing at all.
fn backend(folder: &Path, name: &str, answer: Option<&'static [u8]>) -> Backend {
    let path = folder.join(name);
    let listener = UnixListener::bind(&path).expect("a socket in the folder");
    spawn_local(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("the balancer connects");
            match answer {
                None => silent.push(stream),
                Some(answer) => {
                    spawn_local(async move {
                        while stream.read(&mut [0; 4_096]).await.is_ok_and(|read| read > 0) {
                            stream.write_all(answer).await.expect("the balancer reads");
                        }
                    });
                }
            }
        }
    });
    Backend::new(name.to_owned(), path)
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_backend_that_says_nothing_is_given_up_and_the_next_one_asked() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    // The second is asked first.
    let backends = vec![
        backend(folder.path(), "answers", Some(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")),
        backend(folder.path(), "is-silent", None),
    ];
    let forward = Rc::new(Forward::new(backends));
    let checked = Rc::clone(&forward);
    spawn_local(async move {
        loop {
            checked.check();
            sleep(Duration::from_millis(250)).await;
        }
    });
    let begun = Instant::now();
    let reply = Rc::clone(&forward).handle(request(Method::POST, "/payments", "{}")).await;
    assert_eq!((reply.status, forward.counts()), (StatusCode::ACCEPTED, (1, 0, 0)), "sent a second time");
    let took_ms = begun.elapsed().as_millis();
    assert!((3_000..=3_250).contains(&took_ms), "after {took_ms} ms");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_request_that_no_backend_takes_is_refused_after_a_second() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let backends = ["gone", "gone-too"].map(|name| Backend::new(name.to_owned(), folder.path().join(name)));
    let forward = Rc::new(Forward::new(backends.into()));
    let begun = Instant::now();
    let reply = Rc::clone(&forward).handle(request(Method::POST, "/payments", "{}")).await;
    assert_eq!((reply.status, forward.counts()), (StatusCode::SERVICE_UNAVAILABLE, (0, 1, 0)));
    let took_ms = begun.elapsed().as_millis();
    assert!((1_000..=1_020).contains(&took_ms), "after {took_ms} ms");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_payment_that_two_silent_backends_have_is_unknown_after_twice_the_time_of_one() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let backends = ["first", "second"].map(|name| backend(folder.path(), name, None));
    let forward = Rc::new(Forward::new(backends.into()));
    let checked = Rc::clone(&forward);
    spawn_local(async move {
        loop {
            checked.check();
            sleep(Duration::from_millis(250)).await;
        }
    });
    let begun = Instant::now();
    let reply = Rc::clone(&forward).handle(request(Method::POST, "/payments", "{}")).await;
    assert_eq!((reply.status, forward.counts()), (StatusCode::GATEWAY_TIMEOUT, (1, 0, 1)));
    let took_ms = begun.elapsed().as_millis();
    assert!((6_000..=6_500).contains(&took_ms), "after {took_ms} ms");
}
