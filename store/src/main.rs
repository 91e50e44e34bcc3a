//! Starts the store: arguments, log, socket, signals; then [`store::server`] serves until it is told to end.

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Instant;
use store::ask::Asker;
use store::config::{Arguments, Command, Config};
use store::core::Core;
use store::inspect;
use store::log::{self, Durability, Log, recovery};
use store::now::now;
use store::reconcile;
use store::server::Server;
use wire::socket;

/// A clock that is so far behind what was issued is worth a line at the start, in milliseconds.
const CLOCK_AHEAD_MS: u64 = 1_000;

fn main() -> ExitCode {
    wire::trace::end(run(wire::config::parse()))
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    wire::trace::start(&arguments.log_flags).map_err(anyhow::Error::msg)?;
    match arguments.command {
        None => serve(&arguments.config)?,
        Some(Command::Check { dir }) => write!(io::stdout(), "{}", inspect::check(&dir)?)?,
        Some(Command::Dump { dir }) => inspect::dump(&dir, &mut io::stdout().lock())?,
        Some(Command::Reconcile(settings)) => {
            return Ok(reconcile::run(&settings, Asker::of_operator(&arguments.config.log_dir)));
        }
        Some(command) => {
            let config = &arguments.config;
            match command.operation() {
                Some(operation) => {
                    Asker::of_operator(&config.log_dir)?.operate(operation, &mut io::stdout().lock())?;
                }
                None => Asker::of_api(config.store_socket_dir())?.check_health()?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(config: &Config) -> anyhow::Result<()> {
    // As process 1 of a container a signal without a handler is ignored; blocked ones are read from a descriptor.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;

    // The lock on the socket is the right to be the store: it comes before a look at the log.
    let path = socket::store_path(config.store_socket_dir());
    let (listener, _lock) = socket::bind_private(&path)
        .context("STORE_SOCKET_DIR, SOCKET_DIR: cannot bind the store's socket")?;
    let (operators, _operators_lock) = bind_for_operators(config)?.unzip();
    let mut core = Core::new(config.core(random_key()?), now());
    let memory = config.memory();
    let about = recovery::payments_about(&config.log_dir).unwrap_or(0);
    memory.before_reading(about).iter().for_each(|warning| tracing::warn!("{warning}"));
    let started = Instant::now();
    let snapshot_log_bytes = config.snapshot_log_kib << 10;
    let (log, recovered) = Log::open(&config.log_dir, config.durability, snapshot_log_bytes, &mut core)?;
    if recovered.torn_bytes > 0 {
        tracing::warn!("the log had a torn tail: {} bytes were cut", recovered.torn_bytes);
    }
    if let Some(warning) = memory.after_reading(core.ledger().len_by_memory() as u64) {
        tracing::warn!("{warning}");
    }
    let ahead_ms = core.issued_ahead_ms(now());
    if ahead_ms > CLOCK_AHEAD_MS {
        tracing::warn!(
            "the clock is {ahead_ms} ms behind the last requestedAt of the log: one of the two was wrong. What goes out carries \
             that time until the clock has passed it; set the clock if it is the one"
        );
    }
    if config.durability == Durability::None {
        tracing::warn!("DURABILITY=none: nothing is kept over the end of this process");
    }
    tracing::info!(
        "store listens on {}, durability {:?}, {} payments recovered from {} records in {} ms",
        path.display(),
        config.durability,
        core.ledger().balance().accepted.count,
        recovered.end.sequence,
        started.elapsed().as_millis()
    );
    Server::new(core, log, listener, operators)?.run(&signals)?;
    tracing::info!("store ended");
    Ok(())
}

/// The operators' socket; `None` where LOG_DIR can hold none. Payments do not depend on it.
fn bind_for_operators(config: &Config) -> anyhow::Result<Option<(UnixListener, socket::Lock)>> {
    // Before the socket makes the folder: the log's name must be on the disk.
    let bound = log::make_folder(&config.log_dir)
        .and_then(|()| socket::bind_private(&socket::operator_path(&config.log_dir)));
    match bound {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(error).context("LOG_DIR: cannot bind the operators' socket")
        }
        Err(error) => {
            tracing::warn!(
                "LOG_DIR: {error}: `store list`, `resolve`, `revive` and `reconcile` cannot reach this store"
            );
            Ok(None)
        }
    }
}

fn random_key() -> anyhow::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (low, high) = bytes.split_at(8);
    Ok([low, high].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes"))))
}
