//! What tests of the log share: the system calls of one thread, by strace.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long strace may take to attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at a thread's tracer.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// A thread has one tracer at a time, and the tests of a file are threads of one process.
static TRACER: Mutex<()> = Mutex::new(());

/// The system calls of the calling thread on files, from [`Trace::begin`] to [`Trace::end`].
pub(crate) struct Trace {
    strace: Child,
    output: PathBuf,
    /// PROCESS/task/THREAD.
    thread: PathBuf,
    _dir: TempDir,
    _only: MutexGuard<'static, ()>,
}

impl Trace {
    /// Attaches strace to this process. `None` where strace is missing or may not trace.
    pub(crate) fn begin() -> Option<Self> {
        let only = TRACER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = TempDir::new().unwrap();
        let output = dir.path().join("calls");
        let thread = fs::read_link("/proc/thread-self").unwrap();
        let mut command = Command::new("strace");
        // A file for each thread: in one file for all, a call is cut in two where another thread's comes between.
        command.args(["-ff", "-q", "-y", "-e", "trace=%file,%desc", "-o"]).arg(&output);
        command.args(["-p", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut strace = command.spawn().ok()?;
        let status = Path::new("/proc").join(&thread).join("status");
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n") {
            if strace.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "strace neither attaches nor ends");
            thread::sleep(LOOK_PAUSE);
        }
        Some(Self { strace, output, thread, _dir: dir, _only: only })
    }

    /// Detaches, and returns the calls that name a file below `dir`, in order.
    pub(crate) fn end(mut self, dir: &Path) -> Vec<String> {
        kill(Pid::from_raw(i32::try_from(self.strace.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.strace.wait().unwrap();
        let thread = self.thread.file_name().unwrap().to_str().unwrap();
        let calls = fs::read_to_string(self.output.with_extension(thread)).unwrap();
        let dir = dir.to_str().unwrap();
        calls.lines().filter(|call| call.contains(dir)).map(str::to_owned).collect()
    }
}
