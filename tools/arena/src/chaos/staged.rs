//! Sequences of faults that once broke a promise, played in each round before its schedule.
//!
//! | sequence | what was wrong |
//! |---|---|
//! | an api is stopped with a purge, whose client gives up; purge again, pay, the api goes on | the first purge wiped the payments |
//! | pay, the store is stopped with a purge, whose client gives up; the store goes on | the purge wiped the payments |
//! | the store is stopped, clients pay, both apis are killed and stay away for more than a second, the store goes on | clients were told 503 for payments that were recorded and charged |
//!
//! What a purge must have left is counted at once, because a later purge of the round hides it from the comparison. For
//! the rest the comparison at the end of the round is enough: a client that gives up at a 503 must not find its payment
//! charged. A fourth one, a gateway that answers 504 while its processor inserts the row much later, is among the
//! misbehaviours of a processor ([`PaymentFault::GatewayTimeout`](crate::processor::PaymentFault::GatewayTimeout)).

use super::clients::{CERTAIN_WITHIN, Clients};
use super::inject::Injector;
use super::reading::Reader;
use super::schedule::Target;
use crate::client::{Client, request};
use crate::endpoint::Endpoint;
use crate::stack::Stack;
use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// How long a client in a hurry waits: less than the second for which a purge is valid.
const HASTE: Duration = Duration::from_millis(400);

/// How long another one waits: longer than the second for which an api waits for the store.
const LEISURE: Duration = Duration::from_secs(8);

/// How long one sequence may take, on a machine that is busy with everything at once.
const WITHIN: Duration = Duration::from_secs(60);

/// Between two tries to have a purge in a stopped api: lb has to find out that the api is back.
const PAUSE: Duration = Duration::from_millis(300);

/// Connections that are held while a purge is to meet a stopped api. A new connection goes to the api with the fewest, so that
/// with these both have about as many, and of two purges one goes to each.
const BALLAST: usize = 32;

/// Payments of each sequence.
const PAYMENTS: usize = 20;

/// The store is stopped, the payments come, the apis are killed: how long after each other, and how long each is away.
const SETTLE: Duration = Duration::from_millis(200);
const STORE_STOPPED_MS: u64 = 2_200;
const APIS_AWAY: Duration = Duration::from_millis(1_500);

/// Plays the sequences against one system.
pub struct Staged<'a> {
    stack: &'a Stack,
    load: &'a Rc<Clients>,
    injector: &'a Injector,
    reader: &'a Reader<'a>,
    endpoint: Endpoint,
}

impl<'a> Staged<'a> {
    /// The sequences against this system.
    #[must_use]
    pub fn new(
        stack: &'a Stack,
        load: &'a Rc<Clients>,
        injector: &'a Injector,
        reader: &'a Reader<'a>,
    ) -> Self {
        Self { stack, load, injector, reader, endpoint: stack.ours.into() }
    }

    /// Plays the purges that outlive their clients. Returns what is wrong, in words.
    ///
    /// # Errors
    /// When the system does not do what it must while one api is stopped.
    pub async fn purge(&self) -> anyhow::Result<Vec<String>> {
        let mut wrong = Vec::new();
        if self.purge_through_a_stopped_api().await? {
            wrong.extend(self.find_missing("a stopped api").await?);
        }
        self.purge_through_a_stopped_store().await?;
        wrong.extend(self.find_missing("a stopped store").await?);
        Ok(wrong)
    }

    /// False when no purge came to the api that was stopped.
    async fn purge_through_a_stopped_api(&self) -> anyhow::Result<bool> {
        let api = self.injector.pid("api1").await.context("api1 does not run")?;
        let deadline = Instant::now() + WITHIN;
        let _ballast = self.connect(BALLAST).await;
        self.load.note_stop(true);
        let is_met = loop {
            kill(api, Signal::SIGSTOP)?;
            // The balancer takes turns, until it finds that the api is stopped.
            if self.try_purge(HASTE).await.is_none() || self.try_purge(HASTE).await.is_none() {
                break true;
            }
            kill(api, Signal::SIGCONT)?;
            if Instant::now() >= deadline {
                break false;
            }
            sleep(PAUSE).await;
        };
        let paid = if is_met { self.purge_and_pay(deadline).await } else { Ok(()) };
        kill(api, Signal::SIGCONT)?;
        self.load.note_stop(false);
        paid?;
        self.until_done("api1").await?;
        let name = if is_met { "purge through a stopped api" } else { "purge that met no stopped api" };
        self.injector.count(name);
        Ok(is_met)
    }

    async fn purge_and_pay(&self, deadline: Instant) -> anyhow::Result<()> {
        while self.try_purge(HASTE).await != Some(200) {
            ensure!(Instant::now() < deadline, "beside a stopped api no purge was answered in {WITHIN:?}");
        }
        self.pay(deadline).await
    }

    async fn purge_through_a_stopped_store(&self) -> anyhow::Result<()> {
        self.pay(Instant::now() + WITHIN).await?;
        let store = self.injector.pid("store").await.context("the store does not run")?;
        self.load.note_stop(true);
        kill(store, Signal::SIGSTOP)?;
        let _ = self.try_purge(LEISURE).await;
        kill(store, Signal::SIGCONT)?;
        self.load.note_stop(false);
        self.injector.count("purge through a stopped store");
        Ok(())
    }

    /// Plays the apis that die with what they have asked of a stopped store.
    ///
    /// # Errors
    /// When a process is not there.
    pub async fn kill_apis(&self) -> anyhow::Result<()> {
        let stopped = self.injector.stop(Target::Store, STORE_STOPPED_MS);
        let meanwhile = async {
            sleep(SETTLE).await;
            (0..PAYMENTS).for_each(|_| self.load.begin_giving_up());
            sleep(SETTLE).await;
            self.injector.kill(Target::Apis, false, APIS_AWAY);
        };
        let (stopped, ()) = tokio::join!(stopped, meanwhile);
        stopped?;
        self.injector.count("apis that die with what they asked of a stopped store");
        ensure!(self.load.settle(CERTAIN_WITHIN).await, "after two apis were away nothing is certain");
        Ok(())
    }

    // Parts.

    /// The status of a purge on a connection of its own; `None` when its client gives up before there is one.
    async fn try_purge(&self, timeout: Duration) -> Option<u16> {
        let mut client = Client::new(self.endpoint.clone(), timeout);
        let purge = request("POST", "/purge-payments", client.host(), None, "");
        let status = client.exchange(&purge).await.ok().map(|answer| answer.status);
        if status == Some(200) {
            self.load.book.borrow_mut().begin_world();
        }
        status
    }

    /// Connections of clients that have had an answer.
    async fn connect(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Client::new(self.endpoint.clone(), LEISURE);
            let asked = request("GET", "/health", client.host(), None, "");
            // An api may be away, and then the client is of no use.
            if client.exchange(&asked).await.is_ok() {
                clients.push(client);
            }
        }
        clients
    }

    async fn pay(&self, deadline: Instant) -> anyhow::Result<()> {
        for _ in 0..PAYMENTS {
            ensure!(self.load.pay_in_haste(HASTE, deadline).await, "no payment was accepted in {WITHIN:?}");
        }
        Ok(())
    }

    /// Returns when a process has done what was sent to it before: it takes all events that there are in one turn, and
    /// after two more requests that turn is over.
    async fn until_done(&self, name: &str) -> anyhow::Result<()> {
        let places = self.stack.places();
        let place = places.iter().find(|place| place.name == name).context("no such process")?;
        for _ in 0..2 {
            let asked = async {
                let mut stream = UnixStream::connect(&place.listens).await?;
                stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
                stream.read_to_end(&mut Vec::new()).await
            };
            timeout(WITHIN, asked).await.with_context(|| format!("{name} does not answer"))??;
        }
        Ok(())
    }

    /// Compares what the store remembers with what clients were told since the last purge that was answered.
    async fn find_missing(&self, what: &str) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + WITHIN;
        let remembered = loop {
            match self.reader.gauges().await {
                Some(gauges) => break gauges.payments,
                None => ensure!(Instant::now() < deadline, "the store does not say what it remembers"),
            }
            sleep(PAUSE).await;
        };
        let accepted = self.load.book.borrow().accepted().count() as u64;
        let is_wrong = remembered != accepted;
        let text = format!("after a purge through {what}: {accepted} accepted, {remembered} remembered");
        Ok(is_wrong.then_some(text))
    }
}
