//! The store's metrics. Counting happens in the core, as plain numbers; here they get names.
//!
//! The deciding thread collects the numbers, some microseconds; a thread of its own makes them a text ([`Renderer`]). Bounds:
//! [`WAITING_MAX`] texts wait to be made; beyond that nothing is answered, which an api takes for a store that is away.

use crate::core::router::State;
use crate::core::{Core, Room};
use crate::log::Log;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use wire::Processor;
use wire::frame::Outcome;
use wire::metrics::{LOG_LINES_DROPPED, Sample, Snapshot, plain};

/// Texts that wait to be made: as many as apis and operators that ask at once, and few enough to cost no memory.
const WAITING_MAX: usize = 64;

/// Everything about the store that a dashboard wants, at this moment.
#[must_use]
pub fn collect(core: &Core, log: &Log) -> Snapshot {
    let mut snapshot = Snapshot::default();
    count(&mut snapshot, core, log);
    measure(&mut snapshot, core, log);
    snapshot
}

/// A question for the metrics: on which connection it came, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The connection.
    pub token: u64,
    /// What the reply repeats.
    pub request: u64,
}

/// Makes texts of numbers, in a thread of its own.
#[derive(Debug)]
pub struct Renderer {
    questions: SyncSender<(Question, Snapshot)>,
    texts: Receiver<(Question, String)>,
    made: Arc<EventFd>,
}

impl Renderer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or no descriptor for it.
    pub fn start() -> io::Result<Self> {
        let (questions, asked) = sync_channel::<(Question, Snapshot)>(WAITING_MAX);
        let (answer, texts) = sync_channel(WAITING_MAX);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let made = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let wake = Arc::clone(&made);
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            for (question, snapshot) in asked {
                if answer.send((question, snapshot.render("store"))).is_err() {
                    return;
                }
                // It fails only when the counter is full, and then the other side is awake.
                let _ = wake.write(1);
            }
        })?;
        Ok(Self { questions, texts, made })
    }

    /// Readable when a text is made.
    #[must_use]
    pub fn made(&self) -> &EventFd {
        &self.made
    }

    /// Asks for a text. False when too many are waited for.
    pub fn ask(&self, question: Question, snapshot: Snapshot) -> bool {
        self.questions.try_send((question, snapshot)).is_ok()
    }

    /// The texts that are made.
    pub fn take(&self) -> impl Iterator<Item = (Question, String)> {
        // Only resets the counter.
        let _ = self.made.read();
        self.texts.try_iter()
    }
}

fn count(snapshot: &mut Snapshot, core: &Core, log: &Log) {
    let counters = core.counters();
    let kinds = ["recorded", "duplicate", "mismatch", "full"].into_iter().zip(counters.accepts);
    let accepts = kinds.map(|(kind, count)| (vec![("as", kind.to_owned())], count)).collect();
    snapshot.counter("accepts", "Accepts by what became of them", accepts);
    snapshot.counter("leases", "Attempts handed to apis", each(|p| counters.leases[p]));
    snapshot.counter("inquiries", "GETs about pinned payments", each(|p| counters.inquiries[p]));
    snapshot.counter("health_calls", "Health calls handed to apis", each(|p| counters.health_calls[p]));
    let reports = Processor::BOTH.into_iter().flat_map(|processor| {
        let kinds = Outcome::NAMES.into_iter().zip(counters.reports[processor]);
        kinds.map(move |(kind, count)| {
            (vec![("processor", processor.name().to_owned()), ("outcome", kind.to_owned())], count)
        })
    });
    snapshot.counter("reports", "What apis reported of attempts", reports.collect());
    snapshot.counter("purges", "Purges", plain(counters.purges));
    let refused = plain(counters.purges_refused);
    snapshot.counter("purges_refused", "Purges that came after their deadline", refused);
    snapshot.counter("alarms", "Answers that people should look at", plain(counters.alarms));
    snapshot.counter("operations", "What operators decided", plain(counters.operations));
    snapshot.counter("log_records", "Records appended since the log began", plain(log.appended()));
    snapshot.counter("log_snapshots", "Snapshots written", plain(log.snapshots()));
    snapshot.counter("log_lines_dropped", LOG_LINES_DROPPED, plain(wire::stderr::dropped()));
}

fn measure(snapshot: &mut Snapshot, core: &Core, log: &Log) {
    let balance = core.ledger().balance();
    let standings = [
        ("queued", balance.queued),
        ("in_flight", balance.in_flight),
        ("charged_default", balance.charged[Processor::Default]),
        ("charged_fallback", balance.charged[Processor::Fallback]),
        ("dead_letter", balance.dead),
    ];
    let by_standing = |value: &dyn Fn(&wire::frame::Totals) -> u64| -> Vec<Sample> {
        standings
            .iter()
            .map(|(name, totals)| (vec![("standing", (*name).to_owned())], value(totals)))
            .collect()
    };
    let counts = by_standing(&|totals| totals.count);
    snapshot.gauge("payments", "Payments since the last purge, by where they stand", counts);
    let sums = by_standing(&|totals| totals.cents.0.unsigned_abs());
    snapshot.gauge("payments_cents", "Their sums in cents", sums);
    snapshot.gauge(
        "conflicts",
        "Payments whose evidence contradicts itself",
        plain(core.ledger().conflicts()),
    );
    snapshot.signed_gauge(
        "adjusted_cents",
        "What processors hold beyond the amounts that they were sent, in cents",
        balance.adjusted_cents.0,
    );
    snapshot.signed_gauge(
        "clock_doubted_ms",
        "How far the wall clock is from what requestedAt goes by, while its jump is not confirmed",
        core.clock().doubted_ms(),
    );
    let ahead_ms = core.issued_ahead_ms(crate::now::now());
    snapshot.gauge(
        "issued_ahead_ms",
        "How far the last requestedAt is ahead of the wall clock",
        plain(ahead_ms),
    );
    let unanswered = core.ledger().tombstones().values().filter(|tombstone| !tombstone.is_charged);
    let tombstones = unanswered.count() as u64;
    snapshot.gauge("tombstones", "Payments that a purge left without an answer", plain(tombstones));
    snapshot.gauge("open_calls", "Calls that are out", each(|p| core.calls().open_len(p) as u64));
    snapshot.gauge("delay_us", "The delay that the router believes in", each(|p| core.router().delay_us(p)));
    let states = each(|p| match core.router().shown(p) {
        State::Usable => 0,
        State::Stalled => 1,
        State::Slow => 2,
        State::Failing => 3,
    });
    snapshot.gauge("processor_state", "The router's belief: 0 usable, 1 stalled, 2 slow, 3 failing", states);
    snapshot.gauge("apis", "Connected apis", plain(core.apis_len() as u64));
    let unflushed = log.appended().saturating_sub(log.durable());
    let room = match log.room() {
        Room::Ample => 0,
        Room::NoAccepts => 1,
        Room::NoIntents => 2,
    };
    snapshot.gauge("log_full", "LOG_DIR: 0 has room, 1 no new payments, 2 nothing is settled", plain(room));
    snapshot.gauge("log_bytes", "Bytes of log behind the last snapshot", plain(log.grown_bytes()));
    snapshot.gauge("log_records_unflushed", "Records that a power loss would take", plain(unflushed));
}

fn each(value: impl Fn(Processor) -> u64) -> Vec<Sample> {
    Processor::BOTH.map(|p| (vec![("processor", p.name().to_owned())], value(p))).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    use wire::metrics::plain;

    #[test]
    fn texts_are_made_in_the_order_in_which_they_are_asked_for() {
        let renderer = Renderer::start().unwrap();
        let question = |request| Question { token: 7, request };
        for request in 0..3 {
            let mut snapshot = Snapshot::default();
            snapshot.gauge("number", "A number", plain(request));
            assert!(renderer.ask(question(request), snapshot));
        }
        let mut made = Vec::new();
        while made.len() < 3 {
            let mut ready = [PollFd::new(renderer.made().as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::NONE).unwrap();
            made.extend(renderer.take());
        }
        for (request, (asked, text)) in (0..3).zip(made) {
            assert_eq!(asked, question(request));
            assert!(text.contains(&format!("store_number {request}\n")), "{text}");
        }
    }
}
