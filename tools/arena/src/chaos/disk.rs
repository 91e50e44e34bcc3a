//! Faults of the store's disk, through strace: it attaches to the running store and answers the n-th flush or write with
//! an error, or late.
//!
//! What is injected is the error alone; the kernel has not been asked, so a write that "fails" has written nothing and a
//! flush has flushed nothing. The store uses `pwrite64` and `fdatasync` for its log and for nothing else, so its sockets
//! are not hit. After an error the store must end with status 74 and be startable again (`disk_error_ends_the_store`).
//!
//! strace detaches when it gets SIGTERM, and the kernel detaches for it when it dies; either way the store goes on.

use super::schedule::DiskFault;
use crate::stack::Stack;
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The program, and the package that has it.
const STRACE: &str = "strace";

/// How long a slow disk stays slow.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// How long an error may wait for its write: under load there is one each few milliseconds, and a flush each 100 ms.
const MET_WITHIN: Duration = Duration::from_secs(3);

/// How long strace may take to attach to all threads of the store, or to let go of them.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks whether the store has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// The status with which a store ends whose disk failed (`sysexits.h`: `EX_IOERR`).
pub const EXIT_IO_ERROR: i32 = 74;

/// What came of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The disk was slow, and the store went on.
    Slow,
    /// The store ended with status 74.
    Ended,
    /// The store ended in another way: by another fault, or by one of its own.
    EndedOtherwise,
    /// Nothing was written meanwhile, or strace could not attach.
    Missed,
}

/// True when disk faults can be injected here.
pub async fn is_available() -> bool {
    let mut command = Command::new(STRACE);
    command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// What is said when they cannot.
pub const ADVICE: &str = "strace is missing: install the package strace for faults of the disk";

/// Lets the disk of the store fail or be slow, and waits for what comes of it.
///
/// # Errors
/// When strace cannot be run.
pub async fn inject(stack: &Stack, fault: DiskFault) -> anyhow::Result<Met> {
    let Some(pid) = stack.pid("store") else { return Ok(Met::Missed) };
    let ends_before = ends(stack).len();
    let mut strace = attach(pid, fault)?;
    let met = match fault {
        DiskFault::SlowFlush { .. } => {
            sleep(SLOW_FOR).await;
            if stack.pid("store") == Some(pid) { Met::Slow } else { Met::EndedOtherwise }
        }
        DiskFault::FlushFails(_) | DiskFault::WriteFails(_) => {
            let deadline = Instant::now() + MET_WITHIN;
            while ends(stack).len() == ends_before && Instant::now() < deadline {
                sleep(LOOK_PAUSE).await;
            }
            match ends(stack).get(ends_before) {
                Some(Some(EXIT_IO_ERROR)) => Met::Ended,
                Some(_) => Met::EndedOtherwise,
                None => Met::Missed,
            }
        }
    };
    detach(&mut strace).await;
    Ok(met)
}

/// The statuses of the store's unplanned ends.
fn ends(stack: &Stack) -> Vec<Option<i32>> {
    let exits = stack.exits();
    let of_store = exits.iter().filter(|exit| exit.name == "store" && !exit.is_planned);
    of_store.map(|exit| exit.outcome.as_ref().ok().and_then(std::process::ExitStatus::code)).collect()
}

fn attach(pid: Pid, fault: DiskFault) -> anyhow::Result<Child> {
    let (call, tampering) = match fault {
        DiskFault::SlowFlush { by_ms } => ("fdatasync", format!("delay_enter={}", by_ms * 1_000)),
        DiskFault::FlushFails(error) => ("fdatasync", format!("error={}:when=1", error.name())),
        DiskFault::WriteFails(error) => ("pwrite64", format!("error={}:when=1", error.name())),
    };
    let mut command = Command::new(STRACE);
    command.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:{tampering}"), "-p", &pid.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot run strace")
}

async fn detach(strace: &mut Child) {
    if let Some(pid) = strace.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It ends by itself with the store; it is not reaped before the wait below.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(ATTACH_TIMEOUT, strace.wait()).await.is_err() {
        let _ = strace.kill().await;
    }
}
