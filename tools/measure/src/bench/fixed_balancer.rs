//! The least that a balancer can cost, in both of lb's modes, in a thread that does nothing else.
//!
//! * hand-off: accept, send, close, to each backend in turn. It watches and remembers nothing: a client whose
//!   backend dies is lost, one that no backend takes waits for ever.
//! * forward: what a client sends goes to the backend that is its own, over a connection of its own, and what comes from
//!   there goes back, all of it unread.
//!
//! It is to lb what the floor is to the whole stack: what lb takes beyond that is the price of its promises; what this
//! takes is the kernel's.

use anyhow::Context;
use arena::terminal;
use edge::handoff::{Message, Ticket};
use edge::tcp;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// One read.
const READ_BYTES: usize = 16 * 1_024;

/// Where it listens and whom it passes clients, or what they send, to.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("backends").required(true))]
pub struct FixedBalancerArgs {
    /// A TCP address; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The control socket of a backend that clients are handed off to; once for each
    #[arg(long = "control", value_name = "PATH", group = "backends")]
    pub controls: Vec<PathBuf>,
    /// The socket of a backend that what clients send is forwarded to; once for each
    #[arg(long = "socket", value_name = "PATH", group = "backends")]
    pub sockets: Vec<PathBuf>,
}

/// Balances until it is killed; prints one line once it listens.
///
/// # Errors
/// When the address cannot be bound, or a backend is not there or goes away.
pub fn balance(args: &FixedBalancerArgs) -> anyhow::Result<()> {
    let listener = tcp::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    terminal::print(format_args!("listening on {}\n", listener.local_addr()?));
    if args.sockets.is_empty() {
        hand_off(&listener, &args.controls)
    } else {
        forward(&listener, &args.sockets)
    }
}

fn hand_off(listener: &TcpListener, controls: &[PathBuf]) -> anyhow::Result<()> {
    let reach = |path: &PathBuf| reach(path).with_context(|| format!("no backend at {}", path.display()));
    let backends = controls.iter().map(reach).collect::<anyhow::Result<Vec<_>>>()?;
    // It keeps no copy, so a client has no word either, and every ticket is the same.
    let message = Message::Client(Ticket { slot: 0, generation: 0 }).encode();
    listener.set_nonblocking(false)?;
    for backend in backends.iter().cycle() {
        let (client, _) = listener.accept()?;
        // The backends read without waiting; this is a property of the socket, which they get as it is.
        client.set_nonblocking(true)?;
        let fds = [client.as_raw_fd()];
        let (rights, flags) = ([ControlMessage::ScmRights(&fds)], MsgFlags::MSG_NOSIGNAL);
        sendmsg::<()>(backend.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None)
            .context("a backend is gone")?;
    }
    Ok(())
}

/// A client and its own connection to a backend.
struct Way {
    client: TcpStream,
    backend: UnixStream,
}

fn forward(listener: &TcpListener, sockets: &[PathBuf]) -> anyhow::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    let watch = |fd: BorrowedFd<'_>, token: usize| epoll.add(fd, EpollEvent::new(edges, token as u64));
    // The listener, then two for each way: its client and its backend.
    watch(listener.as_fd(), 0)?;
    let mut ways: Vec<Option<Way>> = Vec::new();
    let mut backends = sockets.iter().cycle();
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    let mut block = [0; READ_BYTES];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &events[..count] {
            let Some(token) = usize::try_from(event.data())?.checked_sub(1) else {
                while let Ok((client, _)) = listener.accept() {
                    let path = backends.next().context("there is a backend")?;
                    let backend = UnixStream::connect(path)
                        .with_context(|| format!("no backend at {}", path.display()))?;
                    client.set_nonblocking(true)?;
                    client.set_nodelay(true)?;
                    backend.set_nonblocking(true)?;
                    watch(client.as_fd(), 2 * ways.len() + 1)?;
                    watch(backend.as_fd(), 2 * ways.len() + 2)?;
                    ways.push(Some(Way { client, backend }));
                }
                continue;
            };
            let way = &mut ways[token / 2];
            let passed = match way {
                Some(Way { client, backend }) if token % 2 == 0 => pass(client, backend, &mut block),
                Some(Way { client, backend }) => pass(backend, client, &mut block),
                None => Ok(()),
            };
            // A side that ends has sent all of it by now, which is at most one request or one answer.
            if passed.is_err() || event.events().contains(EpollFlags::EPOLLRDHUP) {
                *way = None;
            }
        }
    }
}

/// Passes on what has come, which is one request or one answer.
fn pass(from: &mut impl Read, to: &mut impl Write, block: &mut [u8]) -> io::Result<()> {
    match from.read(block) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(len) => to.write_all(&block[..len]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Connects to a control socket. What is sent waits for room.
fn reach(path: &Path) -> io::Result<OwnedFd> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(control)
}
