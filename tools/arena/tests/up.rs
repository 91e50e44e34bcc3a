//! `arena up` as a process, with shell scripts in the place of store, api and lb: what it starts, and what it leaves.
//!
//! The scripts write down who they are and how they end. The health call is answered by the test itself, which takes
//! the balancer's port as soon as the balancer's script runs: before that, arena wants to find it free.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a test waits, so that a hang ends.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A folder with scripts that play the stack, and what they wrote.
struct Troupe {
    dir: TempDir,
    port: u16,
}

impl Troupe {
    /// Scripts that live until SIGTERM, write their name and pid at the start, and their name at the end.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let troupe = Self { dir, port };
        let live = "echo \"$name $$\" >> DIR/started; while :; do sleep 0.02; done";
        let until = "trap 'echo $name >> DIR/ended; exit 0' TERM";
        troupe.script("store", &format!("name=store; {until}; {live}"));
        troupe.script("api", &format!("name=$4; {until}; touch \"$2/$4.sock\"; {live}"));
        troupe.script("lb", &format!("name=lb; {until}; {live}"));
        troupe
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        let text = text.replace("DIR", &self.dir.path().to_string_lossy());
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn up(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arena"));
        command.args(["up", "--port-default", "0", "--port-fallback", "0", "--port", &self.port.to_string()]);
        command.arg("--bin-dir").arg(self.dir.path()).env("TMPDIR", self.dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts arena, answers its health call, and waits until it has said that everything runs.
    fn up_and_ready(&self) -> Child {
        let mut arena = self.up();
        wait_until("all scripts run", || self.read("started").lines().count() == 4);
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1_024]);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        let stdout = arena.stdout.as_mut().unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"until Ctrl-C.\n") {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        let text = String::from_utf8(text).unwrap();
        for name in ["lb", "api1", "api2", "store", "default", "fallback", "curl"] {
            assert!(text.contains(name), "{text}");
        }
        arena
    }

    fn pids(&self) -> Vec<Pid> {
        let started = self.read("started");
        started.lines().map(|line| Pid::from_raw(line.split_once(' ').unwrap().1.parse().unwrap())).collect()
    }

    /// Folders of runs that are still there.
    fn run_dirs(&self) -> usize {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("espora-"))
            .count()
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < TIMEOUT, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// A process that has ended; its parent may not have looked yet.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    kill(pid, None).is_err() || stat.contains(") Z ")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_signal_stops_everything_from_the_balancer_down_and_leaves_nothing() {
    let troupe = Troupe::new();
    let arena = troupe.up_and_ready();
    assert_eq!(troupe.run_dirs(), 1);
    kill(pid(&arena), Signal::SIGTERM).unwrap();
    let output = arena.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let ended = troupe.read("ended");
    let ended: Vec<&str> = ended.lines().collect();
    assert_eq!((ended[0], ended[3], ended.len()), ("lb", "store", 4), "{ended:?}");
    assert!(troupe.pids().into_iter().all(is_gone));
    assert_eq!(troupe.run_dirs(), 0);
}

#[test]
fn children_do_not_outlive_arena() {
    let troupe = Troupe::new();
    let mut arena = troupe.up_and_ready();
    let pids = troupe.pids();
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    arena.kill().unwrap();
    arena.wait().unwrap();
    wait_until("the children are gone", || pids.iter().all(|pid| is_gone(*pid)));
    assert_eq!(troupe.read("ended"), "", "they had no time for last words");
}

#[test]
fn a_child_that_cannot_start_ends_arena_with_its_last_words() {
    let troupe = Troupe::new();
    troupe.script("store", "echo 'the disk is on fire' >&2; exit 7");
    let output = troupe.up().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(stderr.contains("store ended") && stderr.contains("exit status: 7"), "{stderr}");
    assert!(stderr.contains("the disk is on fire"), "{stderr}");
}

#[test]
fn a_taken_port_is_said_before_anything_starts() {
    let troupe = Troupe::new();
    let _taken = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], troupe.port))).unwrap();
    let output = troupe.up().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is taken"), "{}", stderr(&output));
    assert_eq!(troupe.read("started"), "");
}
