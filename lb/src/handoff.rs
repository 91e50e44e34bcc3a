//! Mode hand-off: a client's socket goes to an api, and lb is out of the way. No byte of a request passes through here.
//!
//! For each client three system calls and a fourth at its end: accept, is there another one, send, close. lb keeps a
//! copy of the socket and does not watch it: neither what a client sends nor its end wakes us. Which connection is over, the
//! api says in the page, which is looked at whenever others come, and each [`REAP_INTERVAL`]: no client waits for that, since
//! a process that ends a connection shuts it down both ways.
//!
//! | what happens | then |
//! |---|---|
//! | a client comes, with its first bytes or after a second ([`edge::tcp`]) | it goes to the api with the fewest ([`Copies::offer`]) |
//! | the api's control socket takes nothing more | the next api; it is asked again once it has read, or at the next tick |
//! | no api takes it | it waits; with a request for a second, then 503; 504 if an api that has ended may have asked the store for it |
//! | the client or the api ends the connection | the api says so, and the copy is closed within [`REAP_INTERVAL`] |
//! | a client ends its connection while it waits | it goes to an api, which finds that out, or is found to have gone after a second |
//! | the api says that it drains, then gives its clients back | they go to another api, with what they have sent |
//! | the control socket is at its end: the api has ended | its clients at rest go to another api, the others are reset |
//! | lb has no descriptor left | it accepts nothing for [`ACCEPT_PAUSE_MS`], clients wait in the backlog |
//!
//! Bounds: as many clients as the page has slots; [`ACCEPTS_MAX`] new ones and some [`REAP_MAX`] of those that have
//! gone a turn.

use crate::copies::{Copies, Overdue, Waits};
use crate::takeover::{Held, Holdings};
use edge::handoff::{self, MESSAGE_BYTES_MAX, Message, Page, SlotState, Ticket};
use edge::{Edge, Refusal, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{SockFlag, accept4};
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Events of apis taken from the kernel at once.
const EVENTS_MAX: usize = 64;

/// Clients accepted in one turn, so that a burst of them does not keep the ends of others waiting.
const ACCEPTS_MAX: usize = 64;

/// Between two looks at whose connection is over, when no client connects. The number of an api's clients lags by as
/// much; for want of a slot or a descriptor lb looks at once.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// Copies closed in one turn, so that a crowd that leaves does not keep new clients waiting.
const REAP_MAX: usize = 64;

/// Between two looks while there are more than that.
const REAP_PAUSE: Duration = Duration::from_millis(1);

/// After an accept that failed for want of descriptors, which a closing connection gives back.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Between two looks at what time alone brings about: apis that are back, clients that wait. A Unix socket says at once
/// whether a client is there, so a look costs a few microseconds.
const TICK: Duration = Duration::from_millis(20);

/// How long clients that still wait when the balancer ends have for an api, or for the answer that there is none.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);

/// One api.
#[derive(Debug)]
struct Backend {
    name: String,
    /// Where it listens; `None` for one that only keeps what the balancer before this one gave it.
    path: Option<PathBuf>,
    control: Option<OwnedFd>,
    handed_off: u64,
}

impl Backend {
    /// True when it may come, and is not there.
    fn is_missing(&self) -> bool {
        self.path.is_some() && self.control.is_none()
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Clients that went on with another api.
    pub moved: u64,
    /// Clients that were reset because their api had ended.
    pub reset: u64,
    /// Clients that got 503 or 504 because there was no api, or no slot.
    pub refused: u64,
}

/// The balancer in this mode.
#[derive(Debug)]
pub struct HandOff {
    /// Watches the apis; the runtime watches it.
    controls: Epoll,
    /// Where clients come, as long as they do.
    listener: Option<Rc<TcpListener>>,
    /// Until when nothing is accepted.
    paused_until_ms: Option<u64>,
    page: Page,
    copies: Copies<OwnedFd>,
    backends: Vec<Backend>,
    started: Instant,
    /// Refuses clients; it serves none.
    edge: Rc<Edge>,
    counts: Counts,
    /// A client was admitted from outside of [`Self::run`].
    passed_on: Rc<Notify>,
}

/// What the runtime watches for us.
struct Watched(RawFd);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Watched {
    /// # Safety
    /// What is returned does not outlive `fd`.
    unsafe fn register(fd: RawFd) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the caller's promise.
        let watched = unsafe { AsyncFd::register_with_interest(Self(fd), Interest::READABLE) };
        watched.map_err(|error| io::Error::other(error.to_string()))
    }
}

impl HandOff {
    /// A balancer over these apis, named and with their control sockets; with `holdings` it goes on where another one
    /// was. `listener` is non-blocking.
    ///
    /// # Errors
    /// When the kernel has no epoll or no memory for us.
    pub fn new(
        listener: Rc<TcpListener>,
        backends: impl IntoIterator<Item = (String, PathBuf)>,
        connections_max: usize,
        holdings: Option<Holdings>,
    ) -> io::Result<Self> {
        let (page, apis, clients) = match holdings {
            Some(Holdings { page, apis, clients }) => (page, apis, clients),
            None => (Page::create(connections_max)?, Vec::new(), Vec::new()),
        };
        if page.slots() < connections_max {
            let slots = page.slots();
            tracing::warn!(
                "CONNECTIONS_MAX is {connections_max}, and the page that was taken over has {slots} slots: that is the cap \
                 until lb starts without --take-over"
            );
        }
        let backend = |(name, path)| Backend { name, path: Some(path), control: None, handed_off: 0 };
        let backends: Vec<Backend> = backends.into_iter().map(backend).collect();
        let mut this = Self {
            controls: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener: Some(listener),
            paused_until_ms: None,
            copies: Copies::new(page.slots(), backends.len(), connections_max),
            page,
            backends,
            started: Instant::now(),
            edge: Rc::new(Edge::new(0)),
            counts: Counts::default(),
            passed_on: Rc::default(),
        };
        this.take_up(apis, clients)?;
        Ok(this)
    }

    /// Goes on with the apis and the clients of the balancer before this one. An api that is none of ours keeps its
    /// clients, gets no other, and is not connected to again.
    fn take_up(
        &mut self,
        apis: Vec<(String, OwnedFd, bool)>,
        clients: Vec<(Ticket, Option<usize>, OwnedFd)>,
    ) -> io::Result<()> {
        let mut indices = Vec::new();
        for (name, control, drains) in apis {
            let ours = self.backends.iter().position(|backend| backend.name == name);
            let backend = ours.unwrap_or_else(|| {
                self.backends.push(Backend { name, path: None, control: None, handed_off: 0 });
                self.copies.add_backend()
            });
            self.follow(backend, control)?;
            if drains || ours.is_none() {
                self.copies.drain(backend);
            }
            indices.push(backend);
        }
        let clients = clients.into_iter().filter_map(|(ticket, api, copy)| match api {
            None => Some((ticket, None, copy)),
            Some(api) => Some((ticket, Some(*indices.get(api)?), copy)),
        });
        let (page, now_ms) = (&self.page, self.now_ms());
        self.copies.take_up(|slot| page.generation(slot), clients, now_ms);
        Ok(())
    }

    /// Hands off for ever. Must run inside a [`tokio::runtime::LocalRuntime`].
    ///
    /// # Errors
    /// When the runtime cannot watch the listener or the apis.
    pub async fn run(this: &RefCell<Self>) -> io::Result<()> {
        let clients = this.borrow().listener.clone().ok_or(io::ErrorKind::NotConnected)?;
        // SAFETY: the epoll of `this` is never replaced, and `this` outlives this function, as `clients` does.
        let (controls, listener) = unsafe {
            (
                Watched::register(this.borrow().controls.0.as_raw_fd())?,
                Watched::register(clients.as_raw_fd())?,
            )
        };
        let mut tick = interval(TICK);
        let mut reap = interval(REAP_INTERVAL);
        for interval in [&mut tick, &mut reap] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let passed_on = Rc::clone(&this.borrow().passed_on);
        loop {
            let (is_waiting, is_empty, is_paused) = {
                let this = this.borrow();
                (this.is_waiting(), this.is_empty(), this.paused_until_ms.is_some())
            };
            tokio::select! {
                ready = listener.readable(), if !is_paused => {
                    let mut ready = ready?;
                    if this.borrow_mut().accept() {
                        ready.clear_ready();
                    }
                }
                ready = controls.readable() => {
                    let mut ready = ready?;
                    if this.borrow_mut().listen_to_apis()? {
                        ready.clear_ready();
                    }
                }
                () = passed_on.notified() => (),
                _ = tick.tick(), if is_waiting => this.borrow_mut().tick(),
                _ = reap.tick(), if !is_empty => if !this.borrow_mut().reap() {
                    reap.reset_after(REAP_PAUSE);
                },
            }
        }
    }

    /// True while time alone may bring something about.
    fn is_waiting(&self) -> bool {
        self.copies.waiting_len() > 0
            || self.paused_until_ms.is_some()
            || self.backends.iter().any(Backend::is_missing)
            || self.copies.backends().iter().any(|backend| backend.is_full)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // What an operator sees.

    /// Clients that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// True when an api is there.
    #[must_use]
    pub fn has_api(&self) -> bool {
        self.copies.backends().iter().any(|backend| backend.is_connected && !backend.is_draining)
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Each api by name, with the clients that went to it and those that are with it.
    pub fn each(&self) -> impl Iterator<Item = (&str, u64, usize)> {
        self.backends
            .iter()
            .zip(self.copies.backends())
            .map(|(backend, standing)| (backend.name.as_str(), backend.handed_off, standing.held))
    }

    // Events.

    /// Takes what the apis say, as much as is taken at a time. True when that was all.
    fn listen_to_apis(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.controls.wait(&mut events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => return Ok(false),
            waited => waited?,
        };
        for event in &events[..count] {
            let backend = usize::try_from(event.data()).expect("an index of ours");
            self.on_control(backend, event.events());
        }
        self.offer_all();
        Ok(count < EVENTS_MAX)
    }

    /// Accepts clients, at most [`ACCEPTS_MAX`]. True when those were all.
    fn accept(&mut self) -> bool {
        let is_all = self.accept_some();
        // A copy that has just ended costs less to close than one that has left the caches.
        self.reap();
        is_all
    }

    fn accept_some(&mut self) -> bool {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listener.as_ref() else { return true };
            match accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
                Ok(client) => {
                    self.admit(client);
                    // A look costs a quarter of an accept that finds no client: accept makes a socket first.
                    if !self.has_waiting_client() {
                        return true;
                    }
                }
                Err(Errno::EAGAIN) => return true,
                // The client has gone before it was accepted.
                Err(Errno::ECONNABORTED | Errno::EINTR) => (),
                Err(_) if self.reap_all() => (),
                Err(error) => {
                    tracing::warn!("cannot accept: {error}");
                    self.paused_until_ms = Some(self.now_ms() + ACCEPT_PAUSE_MS);
                    return false;
                }
            }
        }
        false
    }

    /// True when an accept would not be for nothing, as far as the kernel tells.
    fn has_waiting_client(&self) -> bool {
        let Some(listener) = &self.listener else { return false };
        let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO) != Ok(0)
    }

    /// Accepts all clients in the backlog, for the last time.
    pub fn accept_rest(&mut self) {
        while !self.accept_some() && self.paused_until_ms.is_none() {}
        self.listener = None;
    }

    /// Sees to it that clients that wait with a request go to an api, or hear after a second that there is none.
    pub async fn place_rest(this: &RefCell<Self>) {
        let until = Instant::now() + PLACE_TIMEOUT;
        let mut tick = interval(TICK);
        loop {
            {
                let mut this = this.borrow_mut();
                // An api that ends at the same time gives clients back.
                let _ = this.listen_to_apis();
                this.tick();
            }
            // A refusal begins now.
            yield_now().await;
            let is_done = {
                let this = this.borrow();
                this.copies.waiting_len() == 0 && this.edge.refusing_len() == 0
            };
            if is_done || Instant::now() >= until {
                return;
            }
            tick.tick().await;
        }
    }

    /// Takes a client that another balancer has brought to rest.
    pub fn take_over(&mut self, client: OwnedFd) {
        self.admit(client);
        self.passed_on.notify_one();
    }

    /// Takes a client that has come.
    fn admit(&mut self, client: OwnedFd) {
        let now_ms = self.now_ms();
        let admitted = self.copies.admit(client, now_ms).or_else(|client| {
            self.reap_all();
            self.copies.admit(client, now_ms)
        });
        match admitted {
            Ok(()) => self.offer_all(),
            Err(client) => self.refuse(client, Refusal::TooMany),
        }
    }

    /// Closes the copies of those whose connection is over. True when those were all.
    fn reap(&mut self) -> bool {
        let ended = self.page.take_ended(REAP_MAX);
        for slot in &ended {
            let has_ended = |ticket| self.page.read(ticket) == Some(SlotState::Ended);
            drop(self.copies.remove(*slot, has_ended));
        }
        ended.len() < REAP_MAX
    }

    /// The same for all at once, when their room or their number is needed. True when there was one.
    pub fn reap_all(&mut self) -> bool {
        let before = self.len();
        while !self.reap() {}
        self.len() < before
    }

    // Apis.

    fn on_control(&mut self, backend: usize, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.copies.set_full(backend, false);
            self.watch_control(backend, EpollFlags::empty());
        }
        loop {
            let Some(control) = &self.backends[backend].control else { return };
            let mut bytes = [0; MESSAGE_BYTES_MAX];
            match handoff::receive(control.as_fd(), &mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(received) if received.len > 0 => match Message::decode(&bytes[..received.len]) {
                    Some(Message::Draining) => self.copies.drain(backend),
                    Some(Message::Released(ticket)) => self.take_back(ticket),
                    _ => return self.end(backend, "said what is no message of ours"),
                },
                Ok(_) => return self.end(backend, "has ended"),
                Err(error) => return self.end(backend, &error.to_string()),
            }
        }
    }

    fn take_back(&mut self, ticket: Ticket) {
        let now_ms = self.now_ms();
        if self.copies.take_back(ticket, now_ms) {
            self.counts.moved += 1;
        }
    }

    fn end(&mut self, backend: usize, why: &str) {
        drop(self.backends[backend].control.take());
        let (page, now_ms) = (&self.page, self.now_ms());
        let ended = self.copies.end(backend, now_ms, |ticket| page.read(ticket), look);
        let reset = ended.reset.len();
        for copy in ended.reset {
            // The last descriptor of a connection that lingers for no time resets it.
            let _ = SockRef::from(&copy).set_linger(Some(Duration::ZERO));
        }
        self.counts.moved += ended.moved as u64;
        self.counts.reset += reset as u64;
        tracing::info!(
            "{} {why}: {} clients go on, {reset} are reset",
            self.backends[backend].name,
            ended.moved
        );
    }

    fn connect(&mut self, backend: usize) -> io::Result<()> {
        let Some(path) = &self.backends[backend].path else { return Ok(()) };
        let control = handoff::connect_control(path)?;
        handoff::send(control.as_fd(), &Message::Hello.encode(), Some(self.page.memory()))?;
        self.follow(backend, control)?;
        tracing::info!("{} takes clients", self.backends[backend].name);
        Ok(())
    }

    fn follow(&mut self, backend: usize, control: OwnedFd) -> io::Result<()> {
        self.controls.add(&control, control_event(backend, EpollFlags::empty()))?;
        self.backends[backend].control = Some(control);
        self.copies.connect(backend);
        Ok(())
    }

    /// Room is watched while there is none: else each message that the api takes would wake us to say that there is more.
    fn watch_control(&self, backend: usize, also: EpollFlags) {
        if let Some(control) = &self.backends[backend].control {
            // What is watched already can be watched in another way.
            let _ = self.controls.modify(control, &mut control_event(backend, also));
        }
    }

    /// Sends all waiting clients to apis, as long as there is one.
    fn offer_all(&mut self) {
        let now_ms = self.now_ms();
        while let Some((offer, copy)) = self.copies.offer(now_ms) {
            let backend = &mut self.backends[offer.backend];
            let control = backend.control.as_ref().expect("it is connected");
            self.page.offer(offer.ticket);
            let message =
                if offer.is_bereft { Message::Bereft(offer.ticket) } else { Message::Client(offer.ticket) };
            match handoff::send(control.as_fd(), &message.encode(), Some(copy.as_fd())) {
                Ok(()) => backend.handed_off += 1,
                Err(error) => {
                    self.copies.set_full(offer.backend, true);
                    self.copies.take_back(offer.ticket, now_ms);
                    match error.kind() {
                        io::ErrorKind::WouldBlock => {
                            self.watch_control(offer.backend, EpollFlags::EPOLLOUT);
                        }
                        // It is asked again at the next tick, unless its stream ends.
                        _ => tracing::warn!("{} takes no client: {error}", backend.name),
                    }
                }
            }
        }
    }

    // Time.

    fn tick(&mut self) {
        for backend in 0..self.backends.len() {
            if self.backends[backend].is_missing() {
                // No api is there yet: the next tick asks again.
                let _ = self.connect(backend);
            }
            self.copies.set_full(backend, false);
        }
        let now_ms = self.now_ms();
        if self.paused_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            self.paused_until_ms = None;
        }
        self.offer_all();
        for Overdue { copy, is_bereft } in self.copies.take_overdue(now_ms, look) {
            self.refuse(copy, if is_bereft { Refusal::Unknown } else { Refusal::NoApi });
        }
    }

    fn refuse(&mut self, client: OwnedFd, why: Refusal) {
        self.counts.refused += 1;
        let edge = Rc::clone(&self.edge);
        // Without a descriptor for the runtime's sake there is nothing to tell it with.
        if let Ok(stream) = TcpStream::from_std(client.into()) {
            tokio::task::spawn_local(async move { edge.refuse(Stream::Tcp(stream), why).await });
        }
    }
}

impl Held for HandOff {
    fn page(&self) -> &Page {
        &self.page
    }

    fn apis(&self) -> impl Iterator<Item = (usize, &str, &OwnedFd, bool)> {
        self.backends.iter().zip(self.copies.backends()).enumerate().filter_map(
            |(at, (backend, standing))| {
                // One that only we do not want any more may be wanted by the next one.
                let drains = backend.path.is_some() && standing.is_draining;
                Some((at, backend.name.as_str(), backend.control.as_ref()?, drains))
            },
        )
    }

    fn clients(&self) -> impl Iterator<Item = (Ticket, Option<usize>, &OwnedFd)> {
        self.copies.each()
    }
}

/// What of a control socket is watched: what comes, its end, and whatever else.
fn control_event(backend: usize, also: EpollFlags) -> EpollEvent {
    let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(interest | also, backend as u64)
}

/// Whether the client has sent something that no process has read.
fn look(client: &OwnedFd) -> Waits {
    match SockRef::from(client).peek(&mut [MaybeUninit::uninit()]) {
        Ok(1..) => Waits::Asking,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Waits::Silent,
        Ok(0) | Err(_) => Waits::Gone,
    }
}
