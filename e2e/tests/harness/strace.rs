//! System calls that take long, by strace.

use crate::harness::system::READY_TIMEOUT;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a process's tracer.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// What makes a process's calls late, as long as this lives.
pub(crate) struct Strace(Child);

impl Strace {
    /// From now on each such call begins so late. `None` where there is no strace, or none that may trace another process.
    pub(crate) fn attach(pid: u32, call: &str, delay: Duration) -> Option<Self> {
        Self::inject(pid, call, &format!("delay_enter={}", delay.as_micros()))
    }

    /// From now on each such call fails with this error.
    pub(crate) fn fail(pid: u32, call: &str, error: &str) -> Option<Self> {
        Self::inject(pid, call, &format!("error={error}"))
    }

    fn inject(pid: u32, call: &str, what: &str) -> Option<Self> {
        let inject = format!("inject={call}:{what}");
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        command.args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut strace = Self(command.spawn().ok()?);
        let is_traced = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
            !status.contains("TracerPid:\t0\n")
        };
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_traced() {
            if strace.0.try_wait().expect("it is ours").is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "strace neither attaches nor ends");
            thread::sleep(LOOK_PAUSE);
        }
        Some(strace)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
