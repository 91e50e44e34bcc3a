//! The two simulated processors, on a thread of this process that ends with the value.

use super::client::{Answer, Way};
use arena::processor::{ProcessorConfig, bind, serve};
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
        let of = |processor| {
            let summary = self.ask(processor, "/admin/payments-summary").json();
            summary["totalRequests"].as_u64().expect("a count")
        };
        Processor::BOTH.into_iter().map(of).sum()
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

impl Drop for Processors {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the processors ended well");
        }
    }
}
