//! A Redis that is measured beside the store, and the little of its protocol that this takes.
//!
//! It is set up to promise what the store promises in mode `process`: an append-only file flushed
//! once a second, no snapshots beside it, a Unix socket and no port. A payment is four commands: `SET NX` (is it new),
//! `LPUSH` (it waits), `LMOVE` (it is on its way), `ZADD` (it is charged, at this time).

use crate::bench::process::{Process, installed, left_out};
use anyhow::{Context, bail, ensure};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use wire::PaymentId;

/// Redis answers within this, or something is wrong.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks whether the file is rewritten.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

const PROGRAM: &str = "redis-server";

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    /// The connection.
    pub client: RedisClient,
    /// From the start of the process until it answered a `PING`.
    pub ready_after: Duration,
}

/// A connection: commands are collected, sent together, and their replies counted.
#[derive(Debug)]
pub struct RedisClient {
    stream: UnixStream,
    commands: Vec<u8>,
    waiting: usize,
    replies: Vec<u8>,
}

/// Whether Redis is installed; otherwise what to say.
///
/// # Errors
/// The line that says that it is left out.
pub fn is_installed() -> Result<(), String> {
    installed(PROGRAM).map(drop).ok_or_else(|| left_out(PROGRAM, "redis-server"))
}

impl Redis {
    /// Starts one on the append-only file in `dir`, or on a new one, and waits until it has read it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let program = installed(PROGRAM).with_context(|| left_out(PROGRAM, "redis-server"))?;
        let socket = dir.join("redis.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
        command.args(["--auto-aof-rewrite-percentage", "0", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(dir);
        let started = Instant::now();
        let mut process = Process::start("redis", command, dir)?;
        let client = process.until(|| {
            let mut client = RedisClient::connect(&socket)?;
            client.command(&[b"PING"]);
            client.send()?;
            client.receive_all()?;
            Ok(client)
        })?;
        Ok(Self { process, client, ready_after: started.elapsed() })
    }

    /// Writes the file anew, as short as it can be.
    ///
    /// # Errors
    /// When Redis does not do it.
    pub fn rewrite(&mut self) -> anyhow::Result<()> {
        self.client.ask(&[b"BGREWRITEAOF"])?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let info = self.client.ask(&[b"INFO", b"persistence"])?;
            let info = String::from_utf8_lossy(&info).into_owned();
            if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
                ensure!(info.contains("aof_last_bgrewrite_status:ok"), "Redis could not rewrite its file");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "Redis does not end rewriting its file");
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

impl RedisClient {
    fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, commands: Vec::new(), waiting: 0, replies: Vec::new() })
    }

    /// Adds a command to those that go together.
    pub fn command(&mut self, words: &[&[u8]]) {
        encode(&mut self.commands, words);
        self.waiting += 1;
    }

    /// The payment is new, and waits.
    pub fn accept(&mut self, id: PaymentId, cents: &[u8]) {
        let id = id.to_string();
        self.command(&[b"SET", id.as_bytes(), cents, b"NX"]);
        self.command(&[b"LPUSH", b"queue", id.as_bytes()]);
    }

    /// The oldest that waits is on its way.
    pub fn lease(&mut self) {
        self.command(&[b"LMOVE", b"queue", b"open", b"RIGHT", b"LEFT"]);
    }

    /// It is charged.
    pub fn charge(&mut self, id: PaymentId, at_ms: u64) {
        self.command(&[b"ZADD", b"charged", at_ms.to_string().as_bytes(), id.to_string().as_bytes()]);
    }

    /// Sends all that was added.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.commands)?;
        self.commands.clear();
        Ok(())
    }

    /// Waits for the replies to all that was sent.
    ///
    /// # Errors
    /// When one of them is an error, or none comes.
    pub fn receive_all(&mut self) -> io::Result<()> {
        let mut block = [0; 1 << 16];
        let mut at = 0;
        while self.waiting > 0 {
            match reply_len(&self.replies[at..]).map_err(|text| io::Error::other(text.to_owned()))? {
                Some(len) => {
                    at += len;
                    self.waiting -= 1;
                }
                None => {
                    self.replies.drain(..at);
                    at = 0;
                    match self.stream.read(&mut block)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        read => self.replies.extend_from_slice(&block[..read]),
                    }
                }
            }
        }
        self.replies.drain(..at);
        Ok(())
    }

    /// Sends one command and gives its whole reply, framing included.
    ///
    /// # Errors
    /// As [`RedisClient::receive_all`].
    pub fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<Vec<u8>> {
        ensure!(self.waiting == 0 && self.commands.is_empty(), "other replies are still to come");
        self.command(words);
        self.send()?;
        self.waiting = 0;
        let mut block = [0; 1 << 16];
        loop {
            match reply_len(&self.replies) {
                Ok(Some(len)) => return Ok(self.replies.drain(..len).collect()),
                Ok(None) => (),
                Err(text) => bail!("Redis: {text}"),
            }
            let read = self.stream.read(&mut block)?;
            ensure!(read > 0, "Redis hung up");
            self.replies.extend_from_slice(&block[..read]);
        }
    }
}

fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    write!(out, "*{}\r\n", words.len()).expect("a vector grows");
    for word in words {
        write!(out, "${}\r\n", word.len()).expect("a vector grows");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The length of the reply that `bytes` begin with; `None` while it is not complete; `Err` with an error's text.
fn reply_len(bytes: &[u8]) -> Result<Option<usize>, &str> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "a reply that is no text")?;
    let (kind, rest) = line.split_at_checked(1).ok_or("an empty reply")?;
    let line_len = end + 2;
    let number = || rest.parse::<i64>().map_err(|_| "a reply without a length");
    match kind {
        "+" | ":" => Ok(Some(line_len)),
        "-" => Err(rest),
        "$" => Ok(match usize::try_from(number()?) {
            Ok(len) => Some(line_len + len + 2).filter(|whole| bytes.len() >= *whole),
            Err(_) => Some(line_len),
        }),
        "*" => {
            let mut whole = line_len;
            for _ in 0..number()?.max(0) {
                match reply_len(&bytes[whole..])? {
                    Some(len) => whole += len,
                    None => return Ok(None),
                }
            }
            Ok(Some(whole))
        }
        _ => Err("a reply of an unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_list_of_lengths_and_words() {
        let mut out = Vec::new();
        encode(&mut out, &[b"SET", b"key", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n");
    }

    #[test]
    fn a_reply_is_whole_or_waited_for() {
        for reply in [
            "+OK\r\n",
            ":1\r\n",
            "$5\r\nhello\r\n",
            "$-1\r\n",
            "*2\r\n$1\r\na\r\n:7\r\n",
            "*0\r\n",
            "*-1\r\n",
        ] {
            let bytes = [reply.as_bytes(), b"+next\r\n"].concat();
            assert_eq!(reply_len(&bytes), Ok(Some(reply.len())), "{reply:?}");
            for cut in 0..reply.len() {
                assert_eq!(reply_len(&reply.as_bytes()[..cut]), Ok(None), "{reply:?} cut at {cut}");
            }
        }
        assert_eq!(reply_len(b"-LOADING wait\r\n"), Err("LOADING wait"));
        assert!(reply_len(b"\r\n").is_err() && reply_len(b"?\r\n").is_err() && reply_len(b"$x\r\n").is_err());
    }
}
