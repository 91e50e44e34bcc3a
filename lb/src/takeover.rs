//! A new balancer takes over from the old one, and no client notices (`--take-over`).
//!
//! The new process connects to the old one's `lb.control` and is sent everything that makes it the balancer, one message
//! with one descriptor each. The old one does nothing else meanwhile, so what is sent is one moment's state; clients
//! that come wait in the backlog of the listener that both have.
//!
//! ```text
//!   new                                                                      old
//!    | take over: mode ------------------------------------------------------> |
//!    | <-- lock of lb.sock, lb.sock, lb.control, listener of the clients ----- |
//!    | <-- the page, each api's control socket, each client's copy ----------- |   if both hand off
//!    | <-- end --------------------------------------------------------------- |
//!    | done: it could serve -------------------------------------------------> |
//!    | <-- go: from here on it serves ---------------------------------------- |   it accepts nothing more
//!    | <-- each client, once it is at rest ----------------------------------- |   if the old one forwards
//!    | (end of stream: the old one has ended)                                  |
//! ```
//!
//! Which of the two is the balancer is decided by one message, `go`. When the new one ends before that, or everything takes
//! longer than [`TIMEOUT`], the old one goes on as if nothing had been, and the new one, which hears no `go`, ends. If the
//! old one hands off and the new one does not, the clients stay with their apis without a copy: they end with those.

use crate::config::{Config, Mode};
use edge::handoff::{
    MESSAGE_BYTES_MAX, Page, Received, Ticket, bind_control, connect_control, control_path, receive, send,
};
use edge::tcp;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use wire::socket::{self, Lock, NAME_BYTES_MAX, backend_path};

/// How long the other side may take for all of it: 20,000 descriptors take a tenth of a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// After something on `lb.control` that came to nothing.
const PAUSE: Duration = Duration::from_millis(50);

/// Of these messages; the last byte is their version.
const MAGIC: u32 = u32::from_le_bytes(*b"elb3");

/// Of a message before what has no fixed length.
const HEAD_BYTES: usize = 20;

const _: () = assert!(HEAD_BYTES + NAME_BYTES_MAX <= MESSAGE_BYTES_MAX);

/// In the place of an api's index: the client waits.
const NO_API: u32 = u32::MAX;

/// What makes a process the balancer.
#[derive(Debug)]
pub struct Sockets {
    /// Where clients come.
    pub clients: Rc<TcpListener>,
    /// `lb.sock`.
    pub admin: std::os::unix::net::UnixListener,
    /// `lb.control`, for the balancer after this one.
    pub control: OwnedFd,
    lock: Lock,
}

/// What a balancer that hands off has besides.
#[derive(Debug)]
pub struct Holdings {
    /// The words of all clients.
    pub page: Page,
    /// The apis that it is connected to: name, control socket, whether it drains.
    pub apis: Vec<(String, OwnedFd, bool)>,
    /// The clients, each with the index of its api in `apis`.
    pub clients: Vec<(Ticket, Option<usize>, OwnedFd)>,
}

/// How a balancer starts.
#[derive(Debug)]
pub struct Start {
    /// Its sockets.
    pub sockets: Sockets,
    /// What it takes over in mode hand-off.
    pub holdings: Option<Holdings>,
    /// The balancer before it, which waits for a word.
    pub predecessor: Option<OwnedFd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    /// Asks for everything; true when the new one hands off.
    TakeOver(bool),
    Lock,
    Admin,
    Control,
    Clients,
    Page,
    Api(String, bool),
    Copy(Ticket, Option<u32>),
    End,
    Done,
    Go,
    /// A client at rest.
    Client,
}

impl Message {
    /// Magic, kind, three numbers, a name; little-endian.
    fn encode(&self) -> Vec<u8> {
        let (kind, words, name) = match self {
            Self::TakeOver(hands_off) => (1_u32, [u32::from(*hands_off), 0, 0], ""),
            Self::Lock => (2, [0; 3], ""),
            Self::Admin => (3, [0; 3], ""),
            Self::Control => (4, [0; 3], ""),
            Self::Clients => (5, [0; 3], ""),
            Self::Page => (6, [0; 3], ""),
            Self::Api(name, drains) => (7, [u32::from(*drains), 0, 0], name.as_str()),
            Self::Copy(ticket, api) => (8, [ticket.slot, ticket.generation, api.unwrap_or(NO_API)], ""),
            Self::End => (9, [0; 3], ""),
            Self::Done => (10, [0; 3], ""),
            Self::Go => (11, [0; 3], ""),
            Self::Client => (12, [0; 3], ""),
        };
        let numbers = [MAGIC, kind, words[0], words[1], words[2]];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }

    /// `None` for anything else.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, name) = bytes.split_at_checked(HEAD_BYTES)?;
        let mut numbers =
            head.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")));
        let mut next = || numbers.next().expect("five numbers");
        let (magic, kind, words) = (next(), next(), [next(), next(), next()]);
        if magic != MAGIC || (kind != 7 && !name.is_empty()) {
            return None;
        }
        let ticket = Ticket { slot: words[0], generation: words[1] };
        Some(match kind {
            1 => Self::TakeOver(words[0] != 0),
            2 => Self::Lock,
            3 => Self::Admin,
            4 => Self::Control,
            5 => Self::Clients,
            6 => Self::Page,
            7 => Self::Api(str::from_utf8(name).ok()?.to_owned(), words[0] != 0),
            8 => Self::Copy(ticket, Some(words[2]).filter(|api| *api != NO_API)),
            9 => Self::End,
            10 => Self::Done,
            11 => Self::Go,
            12 => Self::Client,
            _ => return None,
        })
    }
}

/// Why something that was sent is not there.
const LOST: &str = "no descriptor is left for what the other balancer sends";

/// The connection of two balancers.
#[derive(Debug)]
pub struct Passage(UnixStream);

impl Passage {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    async fn send(&self, message: &Message, passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = message.encode();
        self.0.async_io(Interest::WRITABLE, || send(self.0.as_fd(), &bytes, passed)).await
    }

    /// `None` at the end of the stream.
    async fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        match self.receive_any().await? {
            Some((_, received)) if received.is_lost => Err(io::Error::other(LOST)),
            Some((message, received)) => Ok(Some((message, received.passed))),
            None => Ok(None),
        }
    }

    /// The same, whether or not there was a descriptor left for what comes with it.
    async fn receive_any(&self) -> io::Result<Option<(Message, Received)>> {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let received = self.0.async_io(Interest::READABLE, || receive(self.0.as_fd(), &mut bytes)).await?;
        if received.len == 0 {
            return Ok(None);
        }
        let message =
            Message::decode(&bytes[..received.len]).ok_or_else(|| malformed("another version's message"))?;
        Ok(Some((message, received)))
    }

    /// The next client that the old balancer has brought to rest. `None` when there are no more.
    ///
    /// # Errors
    /// When the old one is gone in another way.
    pub async fn next_client(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            match self.receive_any().await? {
                Some((Message::Client, Received { passed: Some(client), .. })) => return Ok(Some(client)),
                // Its connection is over; the others are not.
                Some((Message::Client, Received { is_lost: true, .. })) => tracing::warn!("{LOST}: a client"),
                None => return Ok(None),
                Some(_) => return Err(malformed("not a client")),
            }
        }
    }

    /// Passes on a client at rest.
    ///
    /// # Errors
    /// When the new balancer is gone.
    pub async fn send_client(&self, client: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&Message::Client, Some(client)).await
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

// The new balancer.

impl Start {
    /// Makes the sockets; with `--take-over` those of the balancer that is there, if one is.
    ///
    /// # Errors
    /// What the system says, or why taking over failed.
    pub async fn new(config: &Config) -> io::Result<Self> {
        if config.take_over {
            match connect_control(&control_path(&config.socket_dir, "lb")) {
                Ok(predecessor) => {
                    let taken = timeout(TIMEOUT, take_over(predecessor, config.mode)).await;
                    return taken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => {
                    tracing::info!("no balancer to take over from ({error}): starting as the first");
                }
            }
        }
        let (admin, lock) = socket::bind(&backend_path(&config.socket_dir, "lb"))?;
        let control = bind_control(&control_path(&config.socket_dir, "lb"))?;
        let clients = Rc::new(tcp::bind(config.listen)?);
        Ok(Self { sockets: Sockets { clients, admin, control, lock }, holdings: None, predecessor: None })
    }
}

async fn take_over(predecessor: OwnedFd, mode: Mode) -> io::Result<Start> {
    let passage = Passage::new(predecessor.try_clone()?)?;
    passage.send(&Message::TakeOver(mode == Mode::HandOff), None).await?;
    let (mut lock, mut admin, mut control, mut clients) = (None, None, None, None);
    let (mut page, mut apis, mut copies) = (None, Vec::new(), Vec::new());
    loop {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match passage.receive().await?.ok_or_else(ended)? {
            (Message::Lock, Some(fd)) => lock = Some(fd),
            (Message::Admin, Some(fd)) => admin = Some(fd),
            (Message::Control, Some(fd)) => control = Some(fd),
            (Message::Clients, Some(fd)) => clients = Some(fd),
            (Message::Page, Some(fd)) => page = Some(Page::open(fd)?),
            (Message::Api(name, drains), Some(fd)) => apis.push((name, fd, drains)),
            (Message::Copy(ticket, api), Some(fd)) => {
                let api = api.and_then(|api| usize::try_from(api).ok());
                copies.push((ticket, api, fd));
            }
            (Message::End, None) => break,
            _ => return Err(malformed("another version's message")),
        }
    }
    let (Some(lock), Some(admin), Some(control), Some(clients)) = (lock, admin, control, clients) else {
        return Err(malformed("the old balancer has not sent all of its sockets"));
    };
    // The lock belongs to the open file, which both processes have: taking it again changes nothing.
    let lock = Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    let sockets = Sockets { clients: Rc::new(clients.into()), admin: admin.into(), control, lock };
    let holdings = page.map(|page| Holdings { page, apis, clients: copies });
    Ok(Start { sockets, holdings, predecessor: Some(predecessor) })
}

/// Tells the balancer before this one that it can go, and waits until it goes.
///
/// # Errors
/// When it does not go: it has ended, or this one took so long that it goes on.
pub async fn dismiss(predecessor: OwnedFd) -> io::Result<Passage> {
    let passage = Passage::new(predecessor)?;
    let goes = async {
        passage.send(&Message::Done, None).await?;
        match passage.receive().await? {
            Some((Message::Go, None)) => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let gone = timeout(TIMEOUT, goes).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    gone.map_err(|error: io::Error| {
        let why = "the balancer before this one has ended or goes on; start this one again";
        io::Error::new(error.kind(), format!("{why} ({error})"))
    })?;
    Ok(passage)
}

// The old balancer.

/// A balancer that has asked for everything.
#[derive(Debug)]
pub struct Applicant {
    passage: Passage,
    hands_off: bool,
}

impl Applicant {
    /// Waits for the next balancer. A connection that asks for nothing is dropped.
    pub async fn next(control: &UnixListener) -> Self {
        loop {
            let asked = async {
                let (socket, _) = control.accept().await?;
                if !socket::is_ours(&socket) {
                    return Err(malformed("a process of another user wants to take over"));
                }
                let passage = Passage(socket);
                let asked = timeout(TIMEOUT, passage.receive()).await;
                match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
                    Some((Message::TakeOver(hands_off), None)) => Ok(Self { passage, hands_off }),
                    _ => Err(malformed("who connected does not ask for anything")),
                }
            };
            match asked.await {
                Ok(applicant) => return applicant,
                Err(error) => {
                    tracing::warn!("lb.control: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What of [`Holdings`] is sent, borrowed.
pub trait Held {
    /// The words of all clients.
    fn page(&self) -> &Page;
    /// The apis that are connected, by the index that clients name them with.
    fn apis(&self) -> impl Iterator<Item = (usize, &str, &OwnedFd, bool)>;
    /// The clients.
    fn clients(&self) -> impl Iterator<Item = (Ticket, Option<usize>, &OwnedFd)>;
}

impl Sockets {
    /// Sends everything to a balancer that takes over. Returns when that one is told to serve.
    ///
    /// # Errors
    /// When it did not come to that: this one is the balancer still.
    pub async fn pass_on(&self, applicant: Applicant, held: Option<&impl Held>) -> io::Result<Passage> {
        let Applicant { passage, hands_off } = applicant;
        let passed = timeout(TIMEOUT, self.send_all(&passage, held.filter(|_| hands_off))).await;
        passed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(passage)
    }

    async fn send_all(&self, passage: &Passage, held: Option<&impl Held>) -> io::Result<()> {
        for (message, fd) in [
            (Message::Lock, self.lock.as_fd()),
            (Message::Admin, self.admin.as_fd()),
            (Message::Control, self.control.as_fd()),
            (Message::Clients, self.clients.as_fd()),
        ] {
            passage.send(&message, Some(fd)).await?;
        }
        if let Some(held) = held {
            passage.send(&Message::Page, Some(held.page().memory())).await?;
            let mut sent = Vec::new();
            for (api, name, control, drains) in held.apis() {
                passage.send(&Message::Api(name.to_owned(), drains), Some(control.as_fd())).await?;
                sent.push(api);
            }
            for (ticket, api, copy) in held.clients() {
                let api = match api {
                    None => None,
                    Some(api) => match sent.iter().position(|sent| *sent == api) {
                        Some(at) => u32::try_from(at).ok(),
                        None => continue,
                    },
                };
                passage.send(&Message::Copy(ticket, api), Some(copy.as_fd())).await?;
            }
        }
        passage.send(&Message::End, None).await?;
        match passage.receive().await? {
            Some((Message::Done, None)) => passage.send(&Message::Go, None).await,
            _ => Err(malformed("the new balancer has ended")),
        }
    }

    /// Gives up the sockets for good, because another balancer has them. Its lock is that of the open file: closing ours
    /// leaves it, giving it back would not.
    pub fn forget(self) {
        std::mem::forget(self.lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    /// The two ends of a passage, with what the old balancer has said into it.
    fn passage(said: &[Message]) -> (OwnedFd, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
        for message in said {
            send(theirs.as_fd(), &message.encode(), None).unwrap();
        }
        (ours, theirs)
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_balancer_that_is_not_released_does_not_balance() {
        let (ours, _theirs) = passage(&[Message::Go]);
        assert!(dismiss(ours).await.is_ok());
        let (never, _theirs) = passage(&[]);
        let (goes_on, gone) = passage(&[]);
        drop(gone);
        let (malformed, _of_malformed) = passage(&[Message::End]);
        for ours in [never, goes_on, malformed] {
            let error = dismiss(ours).await.unwrap_err();
            assert!(error.to_string().contains("start this one again"), "{error}");
        }
    }

    #[test]
    fn messages_are_read_back_as_written() {
        let ticket = Ticket { slot: 7, generation: 9 };
        for message in [
            Message::TakeOver(true),
            Message::Lock,
            Message::Admin,
            Message::Control,
            Message::Clients,
            Message::Page,
            Message::Api("api1".to_owned(), true),
            Message::Copy(ticket, Some(1)),
            Message::Copy(ticket, None),
            Message::End,
            Message::Done,
            Message::Go,
            Message::Client,
        ] {
            let bytes = message.encode();
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            assert_eq!(Message::decode(&bytes), Some(message));
            assert_eq!(Message::decode(&bytes[..HEAD_BYTES - 1]), None);
        }
        assert_eq!(Message::decode(&[0; MESSAGE_BYTES_MAX]), None);
    }
}
