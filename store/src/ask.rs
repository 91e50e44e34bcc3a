//! What other commands ask of a running store: its health over the socket for apis, and what an operator wants over the
//! one for operators.

use anyhow::{Context, bail};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use wire::frame::{self, FromApi, FromStore, Message, Operation};
use wire::socket;
use wire::time::monotonic_us;

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a running store.
#[derive(Debug)]
pub struct Asker {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Asker {
    /// Connects to the store as apis do. `dir` is the folder of its socket.
    ///
    /// # Errors
    /// When no store is there.
    pub fn of_api(dir: &Path) -> anyhow::Result<Self> {
        Self::connect(&socket::store_path(dir), "STORE_SOCKET_DIR or SOCKET_DIR")
    }

    /// Connects to the store as operators do.
    ///
    /// # Errors
    /// When no store is there.
    pub fn of_operator(log_dir: &Path) -> anyhow::Result<Self> {
        Self::connect(&socket::operator_path(log_dir), "LOG_DIR")
    }

    fn connect(path: &Path, setting: &str) -> anyhow::Result<Self> {
        let what = || format!("no store at {}; {setting} names its folder", path.display());
        let stream = socket::connect(path).with_context(what)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// Asks for the metrics, as a sign of life.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub fn check_health(&mut self) -> anyhow::Result<()> {
        self.ask(&FromApi::Metrics { request: 1 }).map(drop)
    }

    /// Carries an operation out and writes what the store says to `out`; a list page by page.
    ///
    /// # Errors
    /// When the store does not answer in time, objects, or `out` takes no more.
    pub fn operate(&mut self, mut operation: Operation, out: &mut impl Write) -> anyhow::Result<()> {
        loop {
            let answer = self.ask_operation(operation)?;
            let FromStore::Operated { done, next, text, .. } = answer else {
                bail!("the store answered something else: is it of another version?");
            };
            if !done {
                bail!(text);
            }
            match write!(out, "{text}") {
                // The reader of the list has gone.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
            match (&mut operation, next) {
                (Operation::List { from, .. } | Operation::ReviveAll { from }, Some(next)) => *from = next,
                _ => return Ok(()),
            }
        }
    }

    /// Asks for something that an operator may know, and gives the store's answer.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub fn ask_operation(&mut self, operation: Operation) -> anyhow::Result<FromStore> {
        // The store refuses it afterwards: an operator who has seen no answer must be able to rely on that.
        let deadline_us = monotonic_us() + u64::try_from(TIMEOUT.as_micros()).unwrap_or(u64::MAX);
        self.ask(&FromApi::Operate { request: 1, deadline_us, operation })
    }

    fn ask(&mut self, question: &FromApi) -> anyhow::Result<FromStore> {
        let mut bytes = Vec::new();
        question.encode(&mut bytes);
        self.stream.write_all(&bytes)?;
        let mut block = [0; 4096];
        loop {
            match self.stream.read(&mut block).context("the store does not answer")? {
                0 => bail!("the store hung up: is it of another version, or does it run as another user?"),
                read => self.bytes.extend_from_slice(&block[..read]),
            }
            if let Some((answer, len)) = frame::decode::<FromStore>(&self.bytes)? {
                self.bytes.drain(..len);
                return Ok(answer);
            }
        }
    }
}
