//! One child process: started, watched, started again when it ends by itself, and stopped for good.
//!
//! ```text
//!             ends by itself, or is killed on purpose
//!          .-------------------------------------------.
//!          v                                           |
//!       starting --> running --stop()--> SIGTERM --> ended
//!                                           '--deadline--> SIGKILL --> ended
//! ```
//!
//! Like `restart: always` of compose: a child that had lived for [`LIFE_MIN`], or was ended on purpose and not to be kept
//! away, is started again at once; one that keeps dying young waits [`RESTART_DELAY_MIN`], doubled up to [`RESTART_DELAY_MAX`].
//!
//! A child never outlives arena: the kernel kills it when its parent ends, whatever ended that one. It is a process
//! group of its own, so that Ctrl-C at a terminal reaches arena alone, which then stops its children in an order that
//! loses nothing. What it writes goes to a file, and line by line to the terminal too if that is wanted.

use crate::terminal::Terminal;
use clap::ValueEnum;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child as Process, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};
use wire::trace::LogFlags;

/// The variables that make children log as we do.
///
/// # Panics
/// Never: no format is hidden.
#[must_use]
pub fn log_envs(log: &LogFlags) -> Vec<(String, String)> {
    let format = log.log_format.to_possible_value().expect("no format is hidden");
    vec![("LOG_LEVEL".into(), log.log_level.clone()), ("LOG_FORMAT".into(), format.get_name().into())]
}

/// A child that lived for as long did not fail to start.
pub const LIFE_MIN: Duration = Duration::from_secs(1);

/// The first pause before a child that died young is started again.
pub const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

/// Of a log, what is shown when its child ends unexpectedly.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 4_096;

/// What to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How it is called in messages, and its log `NAME.log`.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables beside those of arena.
    pub envs: Vec<(String, String)>,
    /// The file that both of its outputs are appended to.
    pub log: PathBuf,
    /// Whether its lines are shown on the terminal too.
    pub is_verbose: bool,
}

/// The unplanned end of a child.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Which child.
    pub name: String,
    /// How it ended; an error when it could not be started at all.
    pub outcome: Result<ExitStatus, String>,
    /// How long it had run.
    pub lived: Duration,
    /// Whether [`Child::end`] was the reason.
    pub is_planned: bool,
    /// The last lines of its log.
    pub tail: String,
}

/// How a child was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ended after SIGTERM, or had ended before.
    ByItself(Option<ExitStatus>),
    /// It was still there at the deadline and got SIGKILL.
    ByForce,
}

/// A supervised child.
#[derive(Debug)]
pub struct Child {
    name: String,
    life: Rc<Life>,
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<Stopped>,
}

/// What the supervising task and the handle share.
#[derive(Debug, Default)]
struct Life {
    pid: Cell<Option<Pid>>,
    is_end_planned: Cell<bool>,
    away: Cell<Duration>,
}

impl Child {
    /// Starts and supervises. Every end that [`Child::stop`] did not ask for is sent to `exits`; when they are not read
    /// they are dropped.
    #[must_use]
    pub fn start(spec: Spec, terminal: Terminal, exits: mpsc::Sender<Exit>) -> Self {
        let life = Rc::new(Life::default());
        let (stop, stopped) = oneshot::channel();
        let name = spec.name.clone();
        let supervisor = Supervisor { spec, terminal, exits, life: Rc::clone(&life) };
        let task = spawn_local(supervisor.run(stopped));
        Self { name, life, stop, task }
    }

    /// How it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process of this moment; `None` between two of them.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.life.pid.get()
    }

    /// Ends the process of this moment on purpose, with SIGKILL or SIGTERM; it is started again after `away`, which may be
    /// no time at all. False when there is none.
    pub fn end(&self, signal: Signal, away: Duration) -> bool {
        let Some(pid) = self.pid() else { return false };
        self.life.is_end_planned.set(true);
        self.life.away.set(away);
        // The supervisor forgets the pid before the process is reaped, so it cannot be another process by now.
        kill(pid, signal).is_ok()
    }

    /// Asks it to end with SIGTERM, and ends it with SIGKILL at `deadline`.
    pub async fn stop(self, deadline: Instant) -> Stopped {
        // A supervisor that is gone has nothing left to stop.
        let _ = self.stop.send(deadline);
        self.task.await.unwrap_or(Stopped::ByItself(None))
    }
}

/// The task that owns the process.
struct Supervisor {
    spec: Spec,
    terminal: Terminal,
    exits: mpsc::Sender<Exit>,
    life: Rc<Life>,
}

impl Supervisor {
    async fn run(self, mut stop: oneshot::Receiver<Instant>) -> Stopped {
        let mut delay = RESTART_DELAY_MIN;
        loop {
            let began = Instant::now();
            let outcome = match self.spawn() {
                Ok(mut process) => tokio::select! {
                    status = process.wait() => status.map_err(|error| error.to_string()),
                    // The handle is gone without a stop only when the runtime ends, and then so does the process.
                    deadline = &mut stop => return self.end(process, deadline.unwrap_or(began)).await,
                },
                Err(error) => Err(format!("cannot be started: {error}")),
            };
            self.life.pid.set(None);
            let (lived, is_planned) = (began.elapsed(), self.life.is_end_planned.take());
            let tail = tail(&self.spec.log);
            // There may be no reader, and a full queue holds the exits that matter: the first ones.
            let _ =
                self.exits.try_send(Exit { name: self.spec.name.clone(), outcome, lived, is_planned, tail });
            let mut pause = self.life.away.take();
            if is_planned || lived >= LIFE_MIN {
                delay = RESTART_DELAY_MIN;
            } else {
                pause = delay;
                delay = (delay * 2).min(RESTART_DELAY_MAX);
            }
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = sleep(pause) => (),
                _ = &mut stop => return Stopped::ByItself(None),
            }
        }
    }

    fn spawn(&self) -> io::Result<Process> {
        let log = File::options().create(true).append(true).open(&self.spec.log)?;
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.args).envs(self.spec.envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        if self.spec.is_verbose {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        } else {
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        }
        end_with_parent(command.as_std_mut());
        let mut process = command.spawn()?;
        if let Some(stdout) = process.stdout.take() {
            self.show(stdout, log.try_clone()?);
        }
        if let Some(stderr) = process.stderr.take() {
            self.show(stderr, log);
        }
        let id = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        self.life.pid.set(id);
        Ok(process)
    }

    /// Copies lines to the terminal and the log until the writer is gone.
    fn show(&self, output: impl AsyncRead + Unpin + 'static, mut log: File) {
        let (terminal, name) = (self.terminal.clone(), self.spec.name.clone());
        spawn_local(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                terminal.say(format!("{name:<10}| {line}"));
                // A full disk costs the copy, not the run.
                let _ = writeln!(log, "{line}");
            }
        });
    }

    async fn end(&self, mut process: Process, deadline: Instant) -> Stopped {
        if let Some(pid) = self.life.pid.take() {
            // It may have ended meanwhile; it is not reaped yet, so the signal reaches no other process.
            let _ = kill(pid, Signal::SIGTERM);
        }
        match timeout_at(deadline, process.wait()).await {
            Ok(status) => Stopped::ByItself(status.ok()),
            Err(_) => {
                // Fails only for a process that has ended.
                let _ = process.kill().await;
                Stopped::ByForce
            }
        }
    }
}

/// Makes the kernel kill the child when the thread that starts it ends.
pub fn end_with_parent(command: &mut process::Command) {
    let parent = Pid::this();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was asked for.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made, prctl and getppid, and nothing is allocated.
    unsafe { command.pre_exec(tie) };
}

/// The last lines of a log; nothing when it cannot be read.
fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(dir: &Path, script: &str) -> Spec {
        Spec {
            name: "child".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            envs: vec![("GREETING".into(), "hello".into())],
            log: dir.join("child.log"),
            is_verbose: false,
        }
    }

    fn start(spec: Spec) -> (Child, mpsc::Receiver<Exit>) {
        let (exits_tx, exits) = mpsc::channel(16);
        (Child::start(spec, Terminal::default(), exits_tx), exits)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(120)
    }

    /// Waits until the child has written `text`, which it does once its traps are set.
    async fn written(log: &Path, text: &str) {
        while !std::fs::read_to_string(log).unwrap_or_default().contains(text) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_child_that_ends_by_itself_is_started_again_and_its_last_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (child, mut exits) = start(shell(dir.path(), "echo $GREETING >&2; exit 3"));
        for _ in 0..2 {
            let exit = exits.recv().await.unwrap();
            assert_eq!((exit.outcome.unwrap().code(), exit.is_planned), (Some(3), false));
            assert!(exit.tail.ends_with("hello"), "{}", exit.tail);
        }
        child.stop(soon()).await;
    }

    #[tokio::test(flavor = "local")]
    async fn a_killed_child_is_back_at_once_as_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let (child, mut exits) = start(shell(dir.path(), "echo up; exec sleep 600"));
        written(&dir.path().join("child.log"), "up").await;
        let first = child.pid();
        assert!(child.end(Signal::SIGKILL, Duration::ZERO));
        let exit = exits.recv().await.unwrap();
        assert_eq!((exit.outcome.unwrap().signal(), exit.is_planned), (Some(9), true));
        written(&dir.path().join("child.log"), "up\nup").await;
        assert!(child.pid().is_some() && child.pid() != first);
        child.stop(soon()).await;
    }

    #[tokio::test(flavor = "local")]
    async fn a_stopped_child_gets_the_time_to_finish_and_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
        let (child, mut exits) = start(shell(dir.path(), script));
        written(&dir.path().join("child.log"), "up").await;
        let stopped = child.stop(soon()).await;
        assert_eq!(stopped, Stopped::ByItself(Some(ExitStatus::from_raw(0))));
        assert!(tail(&dir.path().join("child.log")).ends_with("bye"));
        assert!(
            exits.recv().await.is_none(),
            "an asked-for end is no news, and nothing was started after it"
        );
    }

    #[tokio::test(flavor = "local")]
    async fn a_child_that_will_not_end_is_killed_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let (child, _exits) = start(shell(dir.path(), "trap '' TERM; echo up; while :; do sleep 0.01; done"));
        written(&dir.path().join("child.log"), "up").await;
        let pid = child.pid().unwrap();
        assert_eq!(child.stop(Instant::now() + Duration::from_millis(50)).await, Stopped::ByForce);
        assert!(kill(pid, None).is_err(), "the process is gone");
    }

    #[tokio::test(flavor = "local")]
    async fn a_failed_start_is_an_exit() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = shell(dir.path(), "");
        spec.program = "/nowhere/at/all".into();
        let (child, mut exits) = start(spec);
        let exit = exits.recv().await.unwrap();
        assert!(exit.outcome.unwrap_err().contains("cannot be started"));
        assert_eq!(child.stop(soon()).await, Stopped::ByItself(None));
    }

    #[tokio::test(flavor = "local")]
    async fn a_verbose_child_is_heard_and_still_logged() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = shell(dir.path(), "echo out; echo err >&2; exec sleep 600");
        spec.is_verbose = true;
        let (child, _exits) = start(spec);
        written(&dir.path().join("child.log"), "out").await;
        written(&dir.path().join("child.log"), "err").await;
        child.stop(soon()).await;
    }
}
