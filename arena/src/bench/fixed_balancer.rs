//! The least that a hand-off can cost: accept, send, close, to each backend in turn, in a thread that does nothing else.
//!
//! It is to lb's mode hand-off what the floor is to the whole stack. Between its system calls it does nothing, watches
//! nothing and remembers nobody: a client whose backend dies is lost, one that no backend takes waits for ever. What
//! lb takes beyond that is the price of its promises; what this takes is the kernel's.

use crate::bench::passed_sockets;
use crate::terminal;
use anyhow::Context;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

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
    let connect = |path: &PathBuf| {
        passed_sockets::connect(path).with_context(|| format!("no backend at {}", path.display()))
    };
    let backends = args.controls.iter().map(connect).collect::<anyhow::Result<Vec<_>>>()?;
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    terminal::print(format_args!("listening on {}\n", listener.local_addr()?));
    for backend in backends.iter().cycle() {
        let (client, _) = listener.accept()?;
        // The backends read without waiting; this is a property of the socket, which they get as it is.
        client.set_nonblocking(true)?;
        passed_sockets::send(backend, &client).context("a backend is gone")?;
    }
    Ok(())
}
