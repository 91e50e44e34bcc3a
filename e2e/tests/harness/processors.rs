//! The two simulated processors, on a thread of this process that ends with the value.

use super::client::{Answer, Way};
use arena::processor::{ProcessorConfig, bind, serve};
use serde_json::Value;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;
use wire::{PerProcessor, Processor};

/// Both of them.
pub(crate) struct Processors {
    pub(crate) addrs: PerProcessor<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Processors {
    pub(crate) fn start() -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (addrs_tx, addrs_rx) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listeners = [(); 2].map(|()| bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap());
                let addrs = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
                addrs_tx.send(PerProcessor(addrs)).unwrap();
                let [default, fallback] = listeners;
                tokio::select! {
                    () = serve(default, ProcessorConfig::new(Processor::Default), pending()) => (),
                    () = serve(fallback, ProcessorConfig::new(Processor::Fallback), pending()) => (),
                    _ = stopped => (),
                }
            });
        });
        let addrs = addrs_rx.recv().expect("the processors bind their ports");
        Self { addrs, stop: Some(stop), thread: Some(thread) }
    }

    /// How many payments both hold together.
    pub(crate) fn charged(&self) -> u64 {
        Processor::BOTH.into_iter().map(|processor| self.totals(processor).0).sum()
    }

    /// How many payments one of them holds, and their cents.
    pub(crate) fn totals(&self, processor: Processor) -> (u64, u64) {
        totals(&self.ask(processor, "/admin/payments-summary").json())
    }

    /// Lets one of them fail from now on, or not any more.
    pub(crate) fn set_failing(&self, processor: Processor, failing: bool) {
        let body = format!(r#"{{"failure":{failing}}}"#);
        let answer = self.order(processor, "PUT /admin/configurations/failure", &body);
        assert_eq!(answer.status, 200);
    }

    /// A request with a body, such as `POST /payments`.
    pub(crate) fn order(&self, processor: Processor, what: &str, body: &str) -> Answer {
        let request = format!(
            "{what} HTTP/1.1\r\nHost: processor\r\nX-Rinha-Token: 123\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Way::Lb(self.addrs[processor]).ask(request.as_bytes()).expect("a processor answers")
    }

    /// The `requestedAt` of a payment, and who holds it.
    pub(crate) fn requested_at(&self, id: &str) -> Option<(Processor, String)> {
        Processor::BOTH.into_iter().find_map(|processor| {
            let answer = self.ask(processor, &format!("/payments/{id}"));
            let found = answer.status == 200;
            found.then(|| (processor, answer.json()["requestedAt"].as_str().expect("a time").to_owned()))
        })
    }

    fn ask(&self, processor: Processor, target: &str) -> Answer {
        let request = format!("GET {target} HTTP/1.1\r\nHost: processor\r\nX-Rinha-Token: 123\r\n\r\n");
        Way::Lb(self.addrs[processor]).ask(request.as_bytes()).expect("a processor answers")
    }
}

/// The count and the cents of one processor's part of a summary.
pub(crate) fn totals(part: &Value) -> (u64, u64) {
    let amount = part["totalAmount"].as_f64().expect("an amount");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's few payments")]
    let cents = (amount * 100.0).round() as u64;
    (part["totalRequests"].as_u64().expect("a count"), cents)
}

impl Drop for Processors {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the processors ended well");
        }
    }
}
