//! A real store that is measured, over its own socket and without anything else of a stack.

use crate::bench::process::Process;
use anyhow::Context;
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::frame::{self, FromApi, FromStore, Message};
use wire::socket::store_path;

/// A store may read millions of payments, in an unoptimised build, before it answers.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a store is started with.
#[derive(Clone, Debug)]
pub struct StoreConfig<'a> {
    /// The executable.
    pub program: &'a Path,
    /// For its socket and its output.
    pub dir: &'a Path,
    /// Its log.
    pub log_dir: PathBuf,
    /// Payments that it takes.
    pub payments_max: u64,
    /// Flags besides.
    pub flags: Vec<String>,
}

/// A running store.
#[derive(Debug)]
pub struct StoreProcess {
    /// The process.
    pub process: Process,
    /// A connection to it.
    pub stream: UnixStream,
    /// From the start of the process until the question for its metrics was answered.
    pub ready_after: Duration,
}

impl StoreProcess {
    /// Starts one in mode `process`, without snapshots, and waits for its first answer.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(config: &StoreConfig<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(config.program);
        command.arg("--socket-dir").arg(config.dir).arg("--log-dir").arg(&config.log_dir);
        command.args(["--durability", "process", "--snapshot-log-kib", "1073741824"]);
        command.arg("--payments-max").arg(config.payments_max.max(1).to_string()).args(&config.flags);
        let path = store_path(config.dir);
        // The socket of a store that was killed before would be there, without a listener.
        let _ = std::fs::remove_file(&path);
        let started = Instant::now();
        let mut process = Process::start("store", command, config.dir)?;
        let mut stream = process.until(|| UnixStream::connect(&path))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        ask_health(&mut stream).context("the store does not answer")?;
        Ok(Self { process, stream, ready_after: started.elapsed() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }
}

/// What `store healthcheck` asks: whether it answers at all.
fn ask_health(stream: &mut UnixStream) -> io::Result<()> {
    let mut question = Vec::new();
    FromApi::Metrics { request: 1 }.encode(&mut question);
    stream.write_all(&question)?;
    let (mut answer, mut block) = (Vec::new(), [0; 4_096]);
    loop {
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&block[..read]),
        }
        let decoded = frame::decode::<FromStore>(&answer);
        if decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.is_some() {
            return Ok(());
        }
    }
}
