//! Starts the store: arguments, log, socket, signals; then [`store::server`] serves until it is told to end.

use anyhow::{Context, bail};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use store::config::{Arguments, Command, Config};
use store::core::Core;
use store::inspect;
use store::log::{Durability, Log};
use store::server::{Clock, Server};
use wire::frame::{self, FromApi, FromStore, Message};
use wire::socket;

/// How long a health check waits for an answer.
const HEALTHCHECK_PATIENCE: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    wire::trace::start(&arguments.log_flags).map_err(anyhow::Error::msg)?;
    match arguments.command {
        None => serve(&arguments.config),
        Some(Command::Healthcheck) => healthcheck(&arguments.config.socket_dir),
        Some(Command::Check { dir }) => {
            print!("{}", inspect::check(&dir)?);
            Ok(())
        }
        Some(Command::Dump { dir }) => Ok(inspect::dump(&dir, &mut io::stdout().lock())?),
    }
}

fn serve(config: &Config) -> anyhow::Result<()> {
    // As process 1 of a container a signal without a handler is ignored; blocked ones are read from a descriptor.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;

    // The lock on the socket is the right to be the store: it comes before a look at the log.
    let path = socket::store_path(&config.socket_dir);
    let (listener, _lock) = socket::bind(&path).context("SOCKET_DIR: cannot bind the store's socket")?;
    let clock = Clock::start();
    let mut core = Core::new(config.core(random_key()?), clock.now());
    let started = Instant::now();
    let (log, recovered) = Log::open(&config.log_dir, config.durability, |record| core.replay(record))?;
    if recovered.torn_bytes > 0 {
        tracing::warn!("the log had a torn tail: {} bytes were cut", recovered.torn_bytes);
    }
    if config.durability == Durability::None {
        tracing::warn!("DURABILITY=none: nothing is kept over the end of this process");
    }
    tracing::info!(
        "store listens on {}, durability {:?}, {} payments recovered from {} records in {} ms",
        path.display(),
        config.durability,
        core.ledger().balance().accepted.count,
        recovered.sequence,
        started.elapsed().as_millis()
    );
    Server::new(core, log, clock, listener)?.run(&signals)?;
    tracing::info!("store ended");
    Ok(())
}

fn random_key() -> anyhow::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (low, high) = bytes.split_at(8);
    Ok([low, high].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes"))))
}

fn healthcheck(socket_dir: &Path) -> anyhow::Result<()> {
    let path = socket::store_path(socket_dir);
    let mut stream = UnixStream::connect(&path).with_context(|| format!("no store at {}", path.display()))?;
    stream.set_read_timeout(Some(HEALTHCHECK_PATIENCE))?;
    let mut bytes = Vec::new();
    FromApi::Metrics { request: 1 }.encode(&mut bytes);
    stream.write_all(&bytes)?;
    bytes.clear();
    let mut block = [0; 4096];
    loop {
        match stream.read(&mut block).context("the store does not answer")? {
            0 => bail!("the store hung up"),
            read => bytes.extend_from_slice(&block[..read]),
        }
        if frame::decode::<FromStore>(&bytes)?.is_some() {
            return Ok(());
        }
    }
}
