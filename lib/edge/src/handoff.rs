//! The hand-off between lb and an api: the client's socket goes from one to the other, and a word in shared memory says
//! which process may go on with it when the api ends.
//!
//! lb connects to the api's control socket (`NAME.control`, SEQPACKET: one message, at most one descriptor, no partial
//! send). Its first message brings the [`Page`], each later one a client. The api says what it lets go of.
//!
//! ```text
//!   lb                                                       api
//!    | hello + page ------------------------------------------> |
//!    | client: slot, generation + socket ---------------------> |   AT REST   nothing of the client is taken
//!    |   keeps a copy of the socket                             |      ^  |
//!    |                                                          |      |  v
//!    | <------------------------------------ draining           |   CONSUMED  an answer is being written, or bytes
//!    | <------------- released: slot, generation                |      |      are taken that are not answered
//!    |                                                          |      v
//!    | (end of stream: the api has ended)                       |   ENDED     the api is about to close it
//! ```
//!
//! **The word** of a client is its generation and what it says. lb writes it before each hand-off, with the next generation;
//! after that only the api does, by compare-and-swap, so an api whose client was given to another one can neither take
//! bytes nor answer: its word is not there any more. When the control socket is at its end, and only then, the api has
//! ended: silence or time is no proof. Clients at rest then go to another api with everything that they have sent still in
//! the socket; the answer to a consumed request is unknown, so the connection of its client is reset.
//!
//! **The end** of a client is known to its api, which watches the socket anyway. It says so in the word, sets the client's
//! bit in the page, so that lb finds clients that have ended without looking at every word, and then closes: no process watches
//! a copy. If it dies in between, the kernel closes for it.
//!
//! Every descriptor of a client refers to one connection, and closing one of two ends nothing. A process that ends a connection
//! shuts it down both ways, after taking it out of its own epoll: that registration would outlive the descriptor.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, connect, listen, recvmsg, sendmsg, socket,
};
use nix::unistd::ftruncate;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;
use wire::socket::bind_control_after;

/// Of these messages, so that another program's are noticed.
const MAGIC: u32 = u32::from_le_bytes(*b"esp3");

/// The longest message of any control socket.
pub const MESSAGE_BYTES_MAX: usize = 64;

/// A page has at most so many words, far more than a process has descriptors.
const SLOTS_MAX: usize = 1 << 20;

/// Balancers that connect at once: the one that there is, and the one that takes over from it.
const BACKLOG: i32 = 16;

/// Bits of a word that say what it says; the generation is in those above.
const WORD_BITS: u32 = 2;
const AT_REST: u32 = 0;
const CONSUMED: u32 = 1;
const ENDED: u32 = 2;

/// Generations are counted modulo 2 to the 30th.
pub const GENERATION_MASK: u32 = u32::MAX >> WORD_BITS;

/// Clients whose bits are in one word of bits.
const GROUP: usize = u64::BITS as usize;

/// The bits come before the words, and have the same room in every page: unused words take no memory.
const BITS_BYTES: usize = SLOTS_MAX / 8;

/// The control socket of the api called `name` in `dir`.
#[must_use]
pub fn control_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.control"))
}

/// What is said over an api's control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// lb: the descriptor is the page of all that follow.
    Hello,
    /// lb: the descriptor is a client's socket.
    Client(Ticket),
    /// lb: the same, and an api that has ended may have asked the store for the request that lies in it.
    Bereft(Ticket),
    /// api: give me no more clients.
    Draining,
    /// api: I am done with this client, at rest; give it to another one.
    Released(Ticket),
}

/// Which client, and which time that it is handed off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its word in the page.
    pub slot: u32,
    /// Counts the hand-offs of this slot, modulo 2 to the 30th.
    pub generation: u32,
}

impl Message {
    /// Its bytes: magic, kind, slot, generation; little-endian.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let none = Ticket { slot: 0, generation: 0 };
        let (kind, ticket) = match self {
            Self::Hello => (1_u32, none),
            Self::Client(ticket) => (2, ticket),
            Self::Draining => (3, none),
            Self::Released(ticket) => (4, ticket),
            Self::Bereft(ticket) => (5, ticket),
        };
        let mut bytes = [0; 16];
        for (place, word) in bytes.chunks_exact_mut(4).zip([MAGIC, kind, ticket.slot, ticket.generation]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads it back. `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let ticket = Ticket { slot: word(8), generation: word(12) };
        match (word(0), word(4)) {
            (MAGIC, 1) => Some(Self::Hello),
            (MAGIC, 2) => Some(Self::Client(ticket)),
            (MAGIC, 3) => Some(Self::Draining),
            (MAGIC, 4) => Some(Self::Released(ticket)),
            (MAGIC, 5) => Some(Self::Bereft(ticket)),
            _ => None,
        }
    }
}

// Sockets.

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Binds a control socket, after a dead predecessor if need be: the caller holds the lock of this name.
///
/// # Errors
/// What the system says, with the path.
pub fn bind_control(path: &Path) -> io::Result<OwnedFd> {
    bind_control_after(path, || {
        let listener = seqpacket()?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(listener)
    })
}

/// Connects to a control socket; a Unix socket says at once whether a process listens.
///
/// # Errors
/// When no process listens.
pub fn connect_control(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Sends one message, with a descriptor if there is one; never waits.
///
/// # Errors
/// `WouldBlock` when the other side has no room, for the message or for one more descriptor on its way.
pub fn send(control: BorrowedFd<'_>, message: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(message)], rights, flags, None) {
        Ok(_) => Ok(()),
        Err(Errno::ETOOMANYREFS | Errno::ENOBUFS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

/// A message as it came.
#[derive(Debug)]
pub struct Received {
    /// Its length; 0 is the end of the stream.
    pub len: usize,
    /// The descriptor that came with it.
    pub passed: Option<OwnedFd>,
    /// True when a descriptor came for which this process had no room: the kernel has dropped it.
    pub is_lost: bool,
}

/// Receives one message; never waits.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(control: BorrowedFd<'_>, message: &mut [u8; MESSAGE_BYTES_MAX]) -> io::Result<Received> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(message)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    // With room for one descriptor and one in the message, cut rights mean that none was installed.
    let is_lost = received.flags.contains(MsgFlags::MSG_CTRUNC);
    let mut passed = None;
    if !is_lost {
        for rights in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = rights {
                for fd in fds {
                    // SAFETY: the kernel has just made it for this process, and no other code has its number.
                    passed = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
    }
    Ok(Received { len: received.bytes, passed, is_lost })
}

// The page.

/// What the word of a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing of it was taken that is not answered.
    AtRest,
    /// Something was, or may be, or an answer is being written.
    Consumed,
    /// Its api has closed it, or is about to.
    Ended,
}

/// One word and one bit for each client that lb holds a copy of, in memory that lb and all apis see.
#[derive(Debug)]
pub struct Page {
    /// [`BITS_BYTES`] of bits, then the words.
    start: NonNull<u8>,
    slots: usize,
    memory: OwnedFd,
}

impl Page {
    /// A page of words for so many clients.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn create(slots: usize) -> io::Result<Self> {
        let memory = memfd_create(c"espora-page", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let slots = slots.clamp(1, SLOTS_MAX);
        ftruncate(&memory, i64::try_from(Self::bytes(slots)).unwrap_or(i64::MAX))?;
        // No process may make it shorter: reading behind the end of a mapped file ends the reader.
        fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
        Self::open(memory)
    }

    /// The page that another process has made.
    ///
    /// # Errors
    /// When it is no page.
    pub fn open(memory: OwnedFd) -> io::Result<Self> {
        let refuse =
            |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no page of ours: {why}"));
        let seals = fcntl(&memory, FcntlArg::F_GET_SEALS)?;
        if seals & SealFlag::F_SEAL_SHRINK.bits() == 0 {
            return Err(refuse("it can be made shorter"));
        }
        let memory = File::from(memory);
        let bytes = usize::try_from(memory.metadata()?.len()).unwrap_or(usize::MAX);
        let slots = bytes.saturating_sub(BITS_BYTES) / size_of::<AtomicU32>();
        if slots > SLOTS_MAX {
            return Err(refuse("it is too long"));
        }
        let len = NonZeroUsize::new(Self::bytes(slots)).filter(|_| slots > 0);
        let len = len.ok_or_else(|| refuse("it is too short"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. It is as long as the
        // file at most, which cannot become shorter, and it is only ever read and written as atomics.
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, &memory, 0)? };
        Ok(Self { start: start.cast(), slots, memory: memory.into() })
    }

    /// The length of a page of so many slots.
    fn bytes(slots: usize) -> usize {
        BITS_BYTES + slots * size_of::<AtomicU32>()
    }

    /// How many words it has.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Its memory, to be passed on.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    fn word(&self, slot: u32) -> Option<&AtomicU32> {
        let slot = usize::try_from(slot).ok().filter(|slot| *slot < self.slots)?;
        // SAFETY: the mapping, which is aligned to its pages, has `slots` words behind the bits and lives as long as `self`.
        Some(unsafe { self.start.byte_add(BITS_BYTES).cast::<AtomicU32>().add(slot).as_ref() })
    }

    /// The bits of all slots, [`GROUP`] in each.
    fn bits(&self) -> &[AtomicU64] {
        // SAFETY: the mapping, which is aligned to its pages, begins with the bits of more slots than there are, and lives
        // as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.slots.div_ceil(GROUP)) }
    }

    /// lb: this client is at rest and may be handed off under this ticket; an earlier one is void from here on.
    pub fn offer(&self, ticket: Ticket) {
        if let Some(word) = self.word(ticket.slot) {
            word.store(ticket.word(AT_REST), Ordering::Release);
        }
    }

    /// lb: the generation of the last ticket of a slot.
    #[must_use]
    pub fn generation(&self, slot: u32) -> u32 {
        self.word(slot).map_or(0, |word| word.load(Ordering::Acquire) >> WORD_BITS)
    }

    /// lb: what the word of this client says. `None` when there is no word of this ticket.
    #[must_use]
    pub fn read(&self, ticket: Ticket) -> Option<SlotState> {
        let word = self.word(ticket.slot)?.load(Ordering::Acquire);
        let says = [(AT_REST, SlotState::AtRest), (CONSUMED, SlotState::Consumed), (ENDED, SlotState::Ended)];
        says.into_iter().find_map(|(state, says)| (word == ticket.word(state)).then_some(says))
    }

    /// lb: the slots whose clients have ended since they were last asked for. Of more than `max` some are left for the
    /// next time.
    #[must_use]
    pub fn take_ended(&self, max: usize) -> Vec<u32> {
        let mut slots = Vec::new();
        for (group, bits) in self.bits().iter().enumerate() {
            // Most of the time there are none, and then nothing is written.
            if bits.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let ended = bits.swap(0, Ordering::Acquire);
            let in_group = (0..GROUP).filter(|at| ended >> at & 1 == 1);
            slots.extend(in_group.filter_map(|at| u32::try_from(group * GROUP + at).ok()));
            if slots.len() >= max {
                break;
            }
        }
        slots
    }
}

impl Ticket {
    /// The word of this client when it says that.
    fn word(self, state: u32) -> u32 {
        self.generation << WORD_BITS | state
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and every reference into it borrows `self`. It fails only for an
        // address that is not mapped.
        let _ = unsafe { munmap(self.start.cast(), Self::bytes(self.slots)) };
    }
}

/// The balancer that clients come from, as an api knows it.
#[derive(Debug)]
pub struct Source {
    pub(crate) page: Page,
    control: OwnedFd,
    /// Clients that are given back and for which the control socket had no room: as many as the page has slots.
    unsent: RefCell<VecDeque<Ticket>>,
    has_unsent: Notify,
    is_gone: Cell<bool>,
}

impl Source {
    /// A balancer that is there, by the words of its clients and its control socket.
    #[must_use]
    pub fn new(page: Page, control: OwnedFd) -> Self {
        Self {
            page,
            control,
            unsent: RefCell::default(),
            has_unsent: Notify::new(),
            is_gone: Cell::new(false),
        }
    }

    /// Gives a client back, at once or when there is room for saying so ([`Self::until_unsent`]).
    pub fn give_back(&self, ticket: Ticket) {
        self.unsent.borrow_mut().push_back(ticket);
        if self.send_unsent().is_err() {
            self.has_unsent.notify_one();
        }
    }

    /// Waits until a client has been given back of which the balancer has not been told.
    pub async fn until_unsent(&self) {
        while self.unsent.borrow().is_empty() {
            self.has_unsent.notified().await;
        }
    }

    /// Reports clients that were given back.
    ///
    /// # Errors
    /// `WouldBlock` while there is no room for all of them; another one when the balancer is gone.
    pub fn send_unsent(&self) -> io::Result<()> {
        let mut unsent = self.unsent.borrow_mut();
        while let Some(&ticket) = unsent.front() {
            match send(self.control.as_fd(), &Message::Released(ticket).encode(), None) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // The balancer is gone.
                Err(_) => unsent.clear(),
                Ok(()) => drop(unsent.pop_front()),
            }
        }
        Ok(())
    }

    /// Its stream is at its end: no balancer takes a client back.
    pub fn note_gone(&self) {
        self.is_gone.set(true);
    }
}

/// An api's right to one client.
#[derive(Clone, Debug)]
pub struct Place {
    source: Rc<Source>,
    ticket: Ticket,
    /// See [`Message::Bereft`].
    is_bereft: Cell<bool>,
}

impl Place {
    /// The place that a ticket names. `None` when the page has no such slot.
    #[must_use]
    pub fn new(source: Rc<Source>, ticket: Ticket) -> Option<Self> {
        source.page.word(ticket.slot)?;
        Some(Self { source, ticket, is_bereft: Cell::new(false) })
    }

    /// The same for a client whose first request an api that has ended may have asked the store for.
    #[must_use]
    pub fn bereft(self) -> Self {
        self.is_bereft.set(true);
        self
    }

    /// True while an api that has ended may have asked the store for the request at hand. It has no answer then that says that
    /// nothing was recorded.
    #[must_use]
    pub fn is_bereft(&self) -> bool {
        self.is_bereft.get()
    }

    /// Gives the client back, at rest and out of our epoll.
    pub fn release(self) {
        self.source.give_back(self.ticket);
    }

    /// True while there is a balancer to give it back to.
    #[must_use]
    pub fn has_balancer(&self) -> bool {
        !self.source.is_gone.get()
    }

    /// Says that the client is going to be answered, or bytes of it to be taken. False when the client is another one's by now.
    #[must_use]
    pub fn consume(&self) -> bool {
        self.change(AT_REST, CONSUMED)
    }

    /// Says that everything taken has been answered. False when the client is another one's by now.
    #[must_use]
    pub fn rest(&self) -> bool {
        self.is_bereft.set(false);
        self.change(CONSUMED, AT_REST)
    }

    /// Says that the connection of a client whose bytes were taken ends with our descriptor: lb closes its copy. To say it
    /// again changes nothing.
    pub fn end(&self) {
        if self.change(CONSUMED, ENDED) {
            let slot = self.ticket.slot as usize;
            self.source.page.bits()[slot / GROUP].fetch_or(1 << (slot % GROUP), Ordering::Release);
        }
    }

    fn change(&self, from: u32, to: u32) -> bool {
        let (from, to) = (self.ticket.word(from), self.ticket.word(to));
        self.source
            .page
            .word(self.ticket.slot)
            .is_some_and(|word| word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::socketpair;
    use std::os::unix::net::UnixStream;

    const TICKET: Ticket = Ticket { slot: 7, generation: 3 };

    #[test]
    fn messages_are_read_back_as_written_and_nothing_else_is() {
        for message in [Message::Hello, Message::Client(TICKET), Message::Draining, Message::Released(TICKET)]
        {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message));
            assert_eq!(Message::decode(&bytes[..15]), None);
            for at in 0..8 {
                let mut bytes = bytes;
                bytes[at] ^= 0x80;
                assert_eq!(Message::decode(&bytes), None);
            }
        }
    }

    /// A page of 200 slots as lb has it, and the balancer as an api has it.
    fn both_sides() -> (Page, Rc<Source>) {
        let ours = Page::create(200).unwrap();
        let page = Page::open(ours.memory().try_clone_to_owned().unwrap()).unwrap();
        let control = ours.memory().try_clone_to_owned().unwrap();
        (ours, Rc::new(Source::new(page, control)))
    }

    #[tokio::test]
    async fn a_client_that_finds_no_room_is_given_back_later() {
        const CLIENTS: u32 = 2_000;
        let page = Page::create(CLIENTS as usize).unwrap();
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let source = Source::new(page, ours);
        (0..CLIENTS).for_each(|slot| source.give_back(Ticket { slot, generation: 1 }));
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let mut heard = 0;
        loop {
            match receive(theirs.as_fd(), &mut bytes) {
                Ok(Received { len, .. }) => {
                    let ticket = Ticket { slot: heard, generation: 1 };
                    assert_eq!(Message::decode(&bytes[..len]), Some(Message::Released(ticket)));
                    heard += 1;
                }
                Err(_) if heard == CLIENTS => break,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    source.until_unsent().await;
                    let _ = source.send_unsent();
                }
            }
        }
        drop(theirs);
        source.give_back(TICKET);
        assert!(source.unsent.borrow().is_empty(), "the balancer is gone");
    }

    #[test]
    fn an_api_loses_its_client_with_the_next_hand_off() {
        let (ours, theirs) = both_sides();
        ours.offer(TICKET);
        let place = Place::new(Rc::clone(&theirs), TICKET).unwrap();
        assert_eq!(ours.read(TICKET), Some(SlotState::AtRest));
        assert!(place.consume() && !place.consume());
        assert_eq!(ours.read(TICKET), Some(SlotState::Consumed));
        assert!(place.rest());
        assert_eq!(ours.read(TICKET), Some(SlotState::AtRest));
        let next = Ticket { generation: 4, ..TICKET };
        ours.offer(next);
        assert!(!place.consume());
        assert_eq!((ours.read(TICKET), ours.read(next)), (None, Some(SlotState::AtRest)));
        assert!(Place::new(theirs, Ticket { slot: 200, generation: 0 }).is_none());
    }

    #[test]
    fn ended_clients_are_found_once_and_no_others() {
        let (ours, theirs) = both_sides();
        let place = |ticket| Place::new(Rc::clone(&theirs), ticket).unwrap();
        let tickets = [0, 63, 64, 128, 199].map(|slot| Ticket { slot, generation: GENERATION_MASK });
        for ticket in tickets {
            ours.offer(ticket);
            place(ticket).end();
            assert_eq!(ours.read(ticket), Some(SlotState::AtRest), "only who has taken a client can end it");
            assert!(place(ticket).consume());
            place(ticket).end();
            assert_eq!(ours.read(ticket), Some(SlotState::Ended));
        }
        assert_eq!(ours.take_ended(1), [0, 63], "those that stand together");
        assert_eq!(ours.take_ended(200), [64, 128, 199]);
        assert!(ours.take_ended(200).is_empty());
        // An api whose client went to another one ends nothing.
        let next = Ticket { generation: 0, ..tickets[0] };
        ours.offer(next);
        assert!(place(next).consume());
        place(tickets[0]).end();
        assert_eq!(ours.read(next), Some(SlotState::Consumed));
        assert!(ours.take_ended(200).is_empty());
    }

    #[test]
    fn a_page_is_as_long_as_it_says_and_cannot_become_shorter() {
        let memory = |bytes: usize, seal| {
            let memory = memfd_create(c"page", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
            ftruncate(&memory, i64::try_from(bytes).unwrap()).unwrap();
            fcntl(&memory, FcntlArg::F_ADD_SEALS(seal)).unwrap();
            Page::open(memory).map(|page| page.slots()).map_err(|error| error.to_string())
        };
        assert_eq!(memory(Page::bytes(20_000), SealFlag::F_SEAL_SHRINK), Ok(20_000));
        for bytes in [0, 4, BITS_BYTES, BITS_BYTES + 3, Page::bytes(SLOTS_MAX + 1)] {
            assert!(memory(bytes, SealFlag::F_SEAL_SHRINK).unwrap_err().contains("too"), "{bytes} bytes");
        }
        assert!(memory(Page::bytes(1), SealFlag::F_SEAL_GROW).unwrap_err().contains("shorter"));
    }

    #[test]
    fn a_descriptor_arrives_with_its_message_and_the_end_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = control_path(dir.path(), "api1");
        let listener = bind_control(&path).unwrap();
        let sender = connect_control(&path).unwrap();
        let receiver = std::os::unix::net::UnixListener::from(listener).accept().unwrap().0;
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(sender.as_fd(), &Message::Draining.encode(), None).unwrap();
        send(sender.as_fd(), &Message::Client(TICKET).encode(), Some(theirs.as_fd())).unwrap();
        drop((theirs, sender));
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let first = receive(receiver.as_fd(), &mut bytes).unwrap();
        assert_eq!(
            (Message::decode(&bytes[..first.len]), first.passed.is_some()),
            (Some(Message::Draining), false)
        );
        let second = receive(receiver.as_fd(), &mut bytes).unwrap();
        assert_eq!(Message::decode(&bytes[..second.len]), Some(Message::Client(TICKET)));
        drop(second);
        // The passed one was the last of its kind.
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
        assert_eq!(receive(receiver.as_fd(), &mut bytes).unwrap().len, 0);
    }

    #[test]
    fn a_full_control_socket_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = control_path(dir.path(), "api1");
        let _listener = bind_control(&path).unwrap();
        let sender = connect_control(&path).unwrap();
        let outcome = (0..100_000).find_map(|_| send(sender.as_fd(), &[0; 16], None).err());
        assert_eq!(outcome.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
