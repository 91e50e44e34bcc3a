//! A process that is measured: started, asked what it uses, ended. Nothing starts it again, unlike a `child` of a stack.

use crate::bench::usage::{Memory, Usage};
use anyhow::{Context, bail};
use arena::child::end_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take until it answers, with millions of payments to read and an unoptimised build.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks whether it does; also how far off the moment of its first answer can be.
const LOOK_PAUSE: Duration = Duration::from_micros(100);

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose output goes to `NAME.log` in `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        end_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.into(), child, log })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("Linux's process ids are below 2^22"))
    }

    /// Waits until `answer` gives something.
    ///
    /// # Errors
    /// When the process ends before, or takes longer than anything here should.
    pub fn until<T>(&mut self, mut answer: impl FnMut() -> io::Result<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let error = match answer() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} ended ({status}) before it answered; it said:\n{said}", self.name);
            }
            if Instant::now() >= deadline {
                bail!("{} does not answer: {error}; see {}", self.name, self.log.display());
            }
            sleep(LOOK_PAUSE);
        }
    }

    /// The time that it and its descendants have used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid()).with_context(|| format!("{} is gone", self.name))
    }

    /// The memory that it and its descendants use.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.pid()).with_context(|| format!("{} is gone", self.name))
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(mut self) -> anyhow::Result<()> {
        // It may have ended by itself; it is not reaped yet, so no other process gets the signal.
        let _ = kill(self.pid(), Signal::SIGTERM);
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name)).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program called `name` in one of the folders where Debian puts programs; `None` when it is not installed.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// What is said of a program that is left out.
#[must_use]
pub fn left_out(program: &str, package: &str) -> String {
    format!("{program} is left out: Debian's package {package} has it (scripts/install-bench-tools)")
}
