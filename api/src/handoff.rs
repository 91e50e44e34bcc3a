//! Clients that lb hands off: their sockets come over this api's control socket and are served like any other.
//!
//! An api that drains says so, and lets go of each client once it is at rest; when none is left it closes the control
//! socket, which tells lb that whatever else it may think is with us is not. A client that the kernel had no descriptor
//! for is given back at once, and lb passes us over for a while.

use crate::routes::Routes;
use edge::handoff::{self, MESSAGE_BYTES_MAX, Message, Page, Place, Received, Source};
use edge::{Edge, Stream};
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;
use wire::socket::is_ours;

/// After an accept that failed for want of descriptors, which a closing connection gives back.
const PAUSE: Duration = Duration::from_millis(50);

/// Balancers at a time: the one that there is, the one that takes over, and some that are on their way out.
const CONTROLS_MAX: usize = 8;

/// The balancers that hand off to this api.
pub struct HandOff {
    edge: Rc<Edge>,
    routes: Rc<Routes>,
    controls: RefCell<Vec<Weak<Control>>>,
}

/// The connection of one balancer.
struct Control {
    socket: UnixStream,
}

impl Control {
    /// Says that this api drains, if there is room. Without room the balancer hears of each client that is given back.
    fn drain(&self) {
        let send = || handoff::send(self.socket.as_fd(), &Message::Draining.encode(), None);
        let _ = self.socket.try_io(Interest::WRITABLE, send);
    }

    /// The end of the stream, for both sides.
    fn close(&self) {
        // One that is at its end already needs no other.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    /// Waits until clients have been given back that the balancer does not know of, and tells it.
    async fn tell(&self, source: Option<&Source>) -> io::Result<()> {
        let Some(source) = source else { return Ok(()) };
        source.until_unsent().await;
        self.socket.async_io(Interest::WRITABLE, || source.send_unsent()).await
    }

    async fn receive(&self, bytes: &mut [u8; MESSAGE_BYTES_MAX]) -> io::Result<Received> {
        self.socket.async_io(Interest::READABLE, || handoff::receive(self.socket.as_fd(), bytes)).await
    }
}

impl HandOff {
    /// Takes clients of no balancer yet.
    #[must_use]
    pub fn new(edge: Rc<Edge>, routes: Rc<Routes>) -> Self {
        Self { edge, routes, controls: RefCell::default() }
    }

    /// Serves every balancer that connects.
    ///
    /// # Errors
    /// When the listener cannot be used at all.
    pub async fn run(self: &Rc<Self>, listener: OwnedFd) -> io::Result<()> {
        // The runtime's listener asks nothing of a socket but to accept, and that is the same for every kind.
        let listener = UnixListener::from_std(listener.into())?;
        loop {
            match listener.accept().await {
                Ok((socket, _)) if is_ours(&socket) => self.admit(socket),
                Ok(_) => tracing::warn!("a process of another user wants to hand off: it is not heard"),
                Err(error) => {
                    tracing::warn!("cannot accept a balancer: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Rc<Self>, socket: UnixStream) {
        let mut controls = self.controls.borrow_mut();
        controls.retain(|control| control.strong_count() > 0);
        if controls.len() >= CONTROLS_MAX {
            tracing::warn!("{CONTROLS_MAX} balancers hand off already: another one is not heard");
            return;
        }
        let control = Rc::new(Control { socket });
        controls.push(Rc::downgrade(&control));
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Err(error) = this.follow(&control).await {
                tracing::warn!("a balancer is not heard any more: {error}");
                control.close();
            }
        });
    }

    /// Takes the clients of one balancer until it ends. Those that it has handed off stay: nothing ends with it.
    async fn follow(self: &Rc<Self>, control: &Rc<Control>) -> io::Result<()> {
        let mut source = None;
        let ended = self.listen(control, &mut source).await;
        if let Some(source) = source {
            source.note_gone();
        }
        ended
    }

    async fn listen(
        self: &Rc<Self>,
        control: &Rc<Control>,
        source: &mut Option<Rc<Source>>,
    ) -> io::Result<()> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = control.receive(&mut bytes) => received?,
                told = control.tell(source.as_deref()), if source.is_some() => {
                    told?;
                    continue;
                }
            };
            if received.len == 0 {
                return Ok(());
            }
            match (Message::decode(&bytes[..received.len]), received.passed, &*source) {
                (Some(Message::Hello), Some(memory), None) => {
                    let socket = control.socket.as_fd().try_clone_to_owned()?;
                    *source = Some(Rc::new(Source::new(Page::open(memory)?, socket)));
                }
                (Some(Message::Client(ticket) | Message::Bereft(ticket)), None, Some(source))
                    if received.is_lost =>
                {
                    source.give_back(ticket);
                }
                (
                    Some(message @ (Message::Client(ticket) | Message::Bereft(ticket))),
                    Some(client),
                    Some(source),
                ) => {
                    let Some(place) = Place::new(Rc::clone(source), ticket) else {
                        return refuse("a client without a word");
                    };
                    let is_bereft = matches!(message, Message::Bereft(_));
                    self.take(client, if is_bereft { place.bereft() } else { place });
                }
                _ => return refuse("what came is no message of lb's"),
            }
        }
    }

    fn take(self: &Rc<Self>, client: OwnedFd, place: Place) {
        let stream = match TcpStream::from_std(client.into()) {
            Ok(stream) => Stream::Tcp(stream),
            Err(error) => {
                tracing::warn!("cannot watch a client: {error}");
                return place.release();
            }
        };
        let routes = Rc::clone(&self.routes);
        let handler = move |request| Rc::clone(&routes).handle(request);
        tokio::task::spawn_local(self.edge.serve(stream, Some(place), handler));
    }

    /// Asks the balancers for no more clients.
    pub fn drain(&self) {
        self.controls.borrow().iter().filter_map(Weak::upgrade).for_each(|control| control.drain());
    }

    /// Tells the balancers that no client of theirs is here any more.
    pub fn close(&self) {
        self.controls.borrow().iter().filter_map(Weak::upgrade).for_each(|control| control.close());
    }
}
