//! The least that a hand-off can cost: accept, send, close, to each backend in turn, in a thread that does nothing else.
//!
//! It is to lb's mode hand-off what the floor is to the whole stack. Between its system calls it does nothing, watches
//! nothing and remembers nobody: a client whose backend dies is lost, one that no backend takes waits for ever. What
//! lb takes beyond that is the price of its promises; what this takes is the kernel's.

use crate::terminal;
use anyhow::Context;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use wire::handoff::{Message, Ticket};
use wire::tcp;

/// Where it listens and whom it passes clients to.
#[derive(Clone, Debug, clap::Args)]
pub struct FixedBalancerArgs {
    /// A TCP address; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The control socket of a backend; once for each
    #[arg(long = "control", value_name = "PATH", required = true)]
    pub controls: Vec<PathBuf>,
}

/// Passes clients on until it is killed; prints one line once it listens.
///
/// # Errors
/// When the address cannot be bound, or a backend is not there or goes away.
pub fn balance(args: &FixedBalancerArgs) -> anyhow::Result<()> {
    let reach = |path: &PathBuf| reach(path).with_context(|| format!("no backend at {}", path.display()));
    let backends = args.controls.iter().map(reach).collect::<anyhow::Result<Vec<_>>>()?;
    // It keeps no copy, so a client has no word either, and every ticket is the same.
    let message = Message::Client(Ticket { slot: 0, generation: 0 }).encode();
    let listener = tcp::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    listener.set_nonblocking(false)?;
    terminal::print(format_args!("listening on {}\n", listener.local_addr()?));
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

/// Connects to a control socket. What is sent waits for room.
fn reach(path: &Path) -> io::Result<OwnedFd> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(control)
}
