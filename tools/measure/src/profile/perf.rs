//! The programs that look into a running process: perf, and strace where perf may not count system calls.
//!
//! What a machine lets perf do differs: virtual machines often have no hardware counters, and an ordinary user may see
//! neither the kernel's stacks nor its tracepoints. So it is tried out beforehand, with `perf stat` on a program that
//! does nothing, and what cannot be done is told instead of left out.
//!
//! perf attaches with its events switched off and is then told over a pipe to begin, and says when it has (`--control`,
//! perf-record(1)). So what is counted is exactly what happens between two instants, without a sleep.
//!
//! A process in a container calls its executable by a path that is another file, or none, out here. Symbols are then
//! looked for below the folder that the executables were mounted from (`--symfs`), once the container has gone.

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// The programs.
const PERF: &str = "perf";
const STRACE: &str = "strace";

/// What is said when one of them is missing.
const PERF_ADVICE: &str = "perf is missing: install the package linux-perf (Debian) or linux-tools-generic (Ubuntu), or run \
                           scripts/install-profiling-tools";
const STRACE_ADVICE: &str =
    "system calls are not counted: perf may not use tracepoints here, and the package strace is missing";

/// Samples a second: not 1,000, so that it does not keep step with anything.
pub const SAMPLES_PER_S: u32 = 999;

/// The event that counts all system calls together, to learn whether tracepoints may be used.
const TRACEPOINT: &str = "raw_syscalls:sys_enter";

/// One event for each system call, and what their names begin with.
const SYSTEM_CALLS: &str = "syscalls:sys_enter_*";
const SYSTEM_CALL: &str = "syscalls:sys_enter_";

/// How long a program may take to attach: perf opens some 350 files for each thread when it counts system calls.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to write what it has seen.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// perf, and what it may do on this machine.
#[derive(Clone, Debug)]
pub struct Perf {
    /// What is sampled: `cycles`, or `cpu-clock` without hardware counters.
    pub event: &'static str,
    /// Whether stacks go on into the kernel.
    pub sees_kernel: bool,
    /// Whether functions of the kernel have names.
    pub names_kernel: bool,
    /// How system calls are counted; `None` when they cannot be.
    pub calls: Option<CallCounter>,
}

/// The program that counts system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallCounter {
    /// perf, by tracepoints: next to free.
    Tracepoints,
    /// strace, which stops the process twice for each call.
    Strace,
}

/// Where the symbols of executables are.
#[derive(Clone, Debug)]
pub enum Symbols {
    /// Where the processes say.
    Here,
    /// Below this folder.
    Below(PathBuf),
}

impl Perf {
    /// Finds out what can be done here.
    ///
    /// # Errors
    /// When perf is missing, or may not even look at processes of the same user.
    pub async fn find() -> anyhow::Result<Self> {
        let event = if can_count("cycles:u").await? { "cycles" } else { "cpu-clock" };
        ensure!(
            can_count(&format!("{event}:u")).await?,
            "perf may not look into processes here: run as root, or set the sysctl kernel.perf_event_paranoid to 2 or less"
        );
        let calls = match can_count(TRACEPOINT).await? {
            true => Some(CallCounter::Tracepoints),
            false => has_strace().await.then_some(CallCounter::Strace),
        };
        let sees_kernel = can_count(&format!("{event}:k")).await?;
        Ok(Self { event, sees_kernel, names_kernel: sees_kernel && kernel_has_names(), calls })
    }

    /// What is not as good as it could be, one sentence each.
    #[must_use]
    pub fn reservations(&self) -> Vec<&'static str> {
        let mut reservations = Vec::new();
        if self.event == "cpu-clock" {
            reservations.push("no hardware counters here: samples are taken by the clock (cpu-clock)");
        }
        if !self.sees_kernel {
            reservations.push(
                "stacks end at the border of the kernel: run as root, or set the sysctl kernel.perf_event_paranoid to 1",
            );
        } else if !self.names_kernel {
            reservations
                .push("functions of the kernel have no names: run as root, or set the sysctl kernel.kptr_restrict to 0");
        }
        match self.calls {
            Some(CallCounter::Tracepoints) => (),
            Some(CallCounter::Strace) => {
                reservations.push("system calls were counted by strace, which slows processes down");
            }
            None => reservations.push(STRACE_ADVICE),
        }
        reservations
    }

    /// Begins to sample a process into `data`.
    ///
    /// # Errors
    /// When perf does not attach.
    pub async fn record(&self, pid: i32, data: &Path) -> anyhow::Result<Attached> {
        let event = if self.sees_kernel { self.event.to_owned() } else { format!("{}:u", self.event) };
        let mut command = Command::new(PERF);
        command.args([
            "record",
            "--quiet",
            "--no-buildid",
            "--no-buildid-cache",
            "-g",
            "-F",
            &SAMPLES_PER_S.to_string(),
        ]);
        command.args(["-e", &event, "-p", &pid.to_string(), "-o"]).arg(data);
        Attached::to_perf(command, data).await
    }

    /// Begins to count the system calls of a process into `table`.
    ///
    /// # Errors
    /// When nothing attaches.
    pub async fn count_calls(&self, pid: i32, table: &Path) -> anyhow::Result<Attached> {
        let pid = pid.to_string();
        if self.calls == Some(CallCounter::Strace) {
            let mut command = Command::new(STRACE);
            command.args(["-c", "-f", "-p", &pid, "-o"]).arg(table);
            return Attached::to_strace(command).await;
        }
        let mut command = Command::new(PERF);
        command.args(["stat", "-x", ",", "-e", SYSTEM_CALLS, "-p", &pid, "-o"]).arg(table);
        Attached::to_perf(command, table).await
    }

    /// What [`Perf::count_calls`] has written: how often each system call was made.
    ///
    /// # Errors
    /// When there is nothing to read.
    pub fn read_calls(&self, table: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = fs::read_to_string(table).with_context(|| format!("cannot read {}", table.display()))?;
        Ok(match self.calls {
            Some(CallCounter::Strace) => parse_strace(&text),
            _ => parse_stat(&text),
        })
    }

    /// What was sampled, as text.
    ///
    /// # Errors
    /// When perf cannot read it.
    pub async fn script(&self, data: &Path, symbols: &Symbols) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(PERF);
        // Without --no-inline perf asks addr2line about every frame, which takes minutes. Without a field for the
        // period a sample counts once.
        let fields = "comm,tid,time,event,ip,sym,dso";
        command.args(["script", "--no-inline", "--fields", fields, "-i"]).arg(data);
        if let Symbols::Below(folder) = symbols {
            command.arg("--symfs").arg(folder).args(["--kallsyms", "/proc/kallsyms"]);
        }
        let output = run(&mut command).await?;
        ensure!(output.status.success(), "perf script {}: {}", data.display(), complaint(&output.stderr));
        Ok(output.stdout)
    }
}

/// A program that looks into a process until [`Attached::end`].
#[derive(Debug)]
pub struct Attached {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Attached {
    /// Starts perf with its events off, switches them on, and waits until perf says that they are.
    async fn to_perf(mut command: Command, output: &Path) -> anyhow::Result<Self> {
        let fifo = |extension: &str| {
            let path = output.with_extension(extension);
            // One of a run before; that there is none is as well.
            let _ = fs::remove_file(&path);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("cannot make {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let (control, ack) = (fifo("control")?, fifo("ack")?);
        // Both ends, so that opening does not wait.
        let mut options = pipe::OpenOptions::new();
        let (mut sender, mut receiver) =
            (options.read_write(true).open_sender(&control)?, options.read_write(true).open_receiver(&ack)?);
        command.args(["--delay=-1", &format!("--control=fifo:{},{}", control.display(), ack.display())]);
        let mut attached = Self::start(&mut command)?;
        sender.write_all(b"enable\n").await?;
        let mut byte = [0];
        attached.until_attached(async { receiver.read_exact(&mut byte).await.map(drop) }).await?;
        // perf has both open; the names are not needed any more.
        let _ = (fs::remove_file(control), fs::remove_file(ack));
        Ok(attached)
    }

    /// Starts strace, which says on standard error that it has attached.
    async fn to_strace(mut command: Command) -> anyhow::Result<Self> {
        let Self { child, mut stderr } = Self::start(&mut command)?;
        let mut line = String::new();
        let read =
            timeout(ATTACH_TIMEOUT, stderr.read_line(&mut line)).await.context("strace does not attach")?;
        read.context("what strace says")?;
        ensure!(line.contains("attached"), "strace does not attach: {}", line.trim());
        Ok(Self { child, stderr })
    }

    fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C at a terminal is for arena, which then ends it.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        Ok(Self { child, stderr })
    }

    async fn until_attached(&mut self, attached: impl Future<Output = io::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            attached = timeout(ATTACH_TIMEOUT, attached) => Ok(attached.context("perf does not attach")??),
            _ = self.child.wait() => {
                let mut said = Vec::new();
                self.stderr.read_to_end(&mut said).await?;
                bail!("perf does not attach: {}", complaint(&said))
            }
        }
    }

    /// Lets it write what it has seen, and waits for that.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let pid =
            self.child.id().and_then(|id| i32::try_from(id).ok()).context("perf has ended too early")?;
        // It is not reaped yet, so the signal reaches no other process. That is how both are told to stop; perf then ends
        // by it.
        kill(Pid::from_raw(pid), Signal::SIGINT)?;
        let mut said = Vec::new();
        // What it says is read as well, or it would wait for that.
        let end = async { tokio::join!(self.child.wait(), self.stderr.read_to_end(&mut said)).0 };
        timeout(END_TIMEOUT, end).await.context("perf does not end")??;
        Ok(())
    }
}

/// True when `event` is counted for a program that does nothing.
async fn can_count(event: &str) -> anyhow::Result<bool> {
    let mut command = Command::new(PERF);
    command.args(["stat", "-x", ",", "-e", event, "--", "true"]);
    let output = run(&mut command).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "<not supported>,,cycles:u,..." where there is no such counter.
    Ok(output.status.success()
        && said.lines().any(|line| line.starts_with(|first: char| first.is_ascii_digit())))
}

async fn has_strace() -> bool {
    let mut command = Command::new(STRACE);
    command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// True when `/proc/kallsyms` tells addresses and not zeros.
fn kernel_has_names() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols
        .lines()
        .any(|line| line.split(' ').next().is_some_and(|addr| addr.bytes().any(|digit| digit != b'0')))
}

async fn run(command: &mut Command) -> anyhow::Result<Output> {
    match command.stdin(Stdio::null()).output().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(PERF_ADVICE),
        output => output.with_context(|| format!("cannot run {command:?}")),
    }
}

/// The last line of what a program said.
fn complaint(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim().to_owned()
}

/// Lines of `perf stat -x ,`: the count, a unit, the event, and more.
fn parse_stat(text: &str) -> BTreeMap<String, u64> {
    let call = |line: &str| {
        let mut fields = line.split(',');
        let count = fields.next()?.parse().ok().filter(|count| *count > 0)?;
        Some((fields.nth(1)?.strip_prefix(SYSTEM_CALL)?.to_owned(), count))
    };
    text.lines().filter_map(call).collect()
}

/// The table of `strace -c`: share, seconds, microseconds a call, calls, errors if there were any, name.
fn parse_strace(text: &str) -> BTreeMap<String, u64> {
    let call = |line: &str| {
        let mut fields = line.split_whitespace();
        let calls = fields.nth(3)?.parse().ok()?;
        fields.next_back().filter(|name| *name != "total").map(|name| (name.to_owned(), calls))
    };
    text.lines().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(calls: &[(&str, u64)]) -> BTreeMap<String, u64> {
        calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn the_tables_of_perf_and_strace_are_read() {
        let stat = "# started on Thu\n\n1200,,syscalls:sys_enter_recvfrom,5000,100.00,,\n\
                    0,,syscalls:sys_enter_fsync,5000,100.00,,\n<not counted>,,syscalls:sys_enter_read,0,0.00,,\n";
        assert_eq!(parse_stat(stat), calls(&[("recvfrom", 1_200)]));
        let strace = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           epoll_wait
 40.00    0.000400           4       120        20 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           4       220        20 total
";
        assert_eq!(parse_strace(strace), calls(&[("epoll_wait", 100), ("recvfrom", 120)]));
    }

    #[test]
    fn an_impossible_operation_is_explained() {
        let mut perf = Perf {
            event: "cycles",
            sees_kernel: true,
            names_kernel: true,
            calls: Some(CallCounter::Tracepoints),
        };
        assert!(perf.reservations().is_empty());
        (perf.event, perf.sees_kernel, perf.calls) = ("cpu-clock", false, None);
        assert_eq!(perf.reservations().len(), 3);
    }
}
