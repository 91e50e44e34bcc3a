//! The side of an api in lb's mode hand-off, as far as a backend needs it that takes every client and gives none back:
//! clients' sockets arrive over a control socket (SEQPACKET, one descriptor a message).
//!
//! Of a message only its kind is read: 16 bytes, magic, kind, slot and generation, each a u32; kind 2 brings a client.
//! The page that kind 1 brings, in which an api says that it has taken bytes, is not used: to lb every client here is
//! always at rest, which is what it is between two requests anyway.
//!
//! And the other side, as far as the least of all balancers needs it (`fixed_balancer`): it says kind 2 and nothing else.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind as bind_to, connect as connect_to, listen, recvmsg, sendmsg, socket,
};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// A message of lb's.
const MESSAGE_BYTES: usize = 16;

/// lb's messages are shorter.
const MESSAGE_BYTES_MAX: usize = 64;

/// Balancers that connect at once.
const BACKLOG: i32 = 16;

/// The kind of a message that brings a client.
const KIND_CLIENT: u32 = 2;

/// What a message brought.
#[derive(Debug)]
pub enum Passed {
    /// A client.
    Client(OwnedFd),
    /// Something that is of no use here.
    Other,
    /// The balancer is gone.
    End,
}

/// Binds a control socket.
///
/// # Errors
/// What the system says.
pub fn bind(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind_to(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// A balancer that has connected.
#[must_use]
pub fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
    // SAFETY: the kernel has just made it for this process, and nobody else has its number.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects to a control socket. What is sent waits for room.
///
/// # Errors
/// What the system says.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect_to(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(control)
}

/// Passes a client on.
///
/// # Errors
/// What the system says.
pub fn send(control: &OwnedFd, client: &impl AsFd) -> io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    message[4..8].copy_from_slice(&KIND_CLIENT.to_le_bytes());
    let fds = [client.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(&message)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next message.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(balancer: &OwnedFd) -> io::Result<Passed> {
    let mut message = [0; MESSAGE_BYTES_MAX];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let (bytes, fd) = {
        let mut parts = [IoSliceMut::new(&mut message)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(balancer.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => return Ok(Passed::Other),
            received => received?,
        };
        let mut passed = None;
        for rights in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = rights {
                // SAFETY: as in `accept`.
                passed = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
        (received.bytes, passed)
    };
    let kind = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
    Ok(match (bytes, fd) {
        (0, _) => Passed::End,
        (_, Some(fd)) if kind == KIND_CLIENT => Passed::Client(fd),
        _ => Passed::Other,
    })
}
