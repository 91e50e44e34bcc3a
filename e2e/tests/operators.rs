//! What each socket of the store may be asked: operators have a socket of their own, lb's folder holds none of the store's, and a
//! process of another user is not heard.

use crate::harness::system::{Process, READY_TIMEOUT, Setup, System, binaries};
use crate::harness::{fresh_id, pay, payment};
use edge::handoff::control_path;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use wire::frame::{Frames, FromApi, FromStore, Listing, Message, Operation};

/// A user that no process of the system runs as.
const OTHER_UID: u32 = 65_534;

const LIST: FromApi = FromApi::Operate {
    request: 7,
    deadline_us: u64::MAX,
    operation: Operation::List { listing: Listing::InFlight, from: 0 },
};

fn split() -> System {
    System::start_as(Setup { is_split: true, ..Setup::default() }, None)
}

/// What the store at `path` answers to this frame; nothing when it hangs up.
fn ask(path: &Path, frame: &FromApi) -> Option<FromStore> {
    let mut stream = UnixStream::connect(path).expect("the store listens");
    stream.set_read_timeout(Some(READY_TIMEOUT)).unwrap();
    let (mut bytes, mut block, mut answer) = (Vec::new(), [0; 4_096], None);
    frame.encode(&mut bytes);
    // A store that has hung up already may refuse the bytes.
    let _ = stream.write_all(&bytes);
    let mut frames = Frames::default();
    while answer.is_none() {
        match stream.read(&mut block) {
            Ok(0) => return None,
            Ok(read) => frames.take(&block[..read], |message| answer = Some(message)).expect("frames"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("the store neither answers nor hangs up: {error}"),
        }
    }
    answer
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A copy of an executable that every user can run. Another process makes it: a test that forks in another thread would
/// hold a file that this one writes open, and such a file cannot be executed.
fn copy(name: &str, dir: &Path) -> PathBuf {
    let program = dir.join(format!("{name}-of-another-user"));
    let status =
        Command::new("install").args(["-m", "755"]).arg(binaries().join(name)).arg(&program).status();
    assert!(status.expect("coreutils are there").success());
    program
}

fn store(args: &[&str], dir: &Path) -> Output {
    Command::new(binaries().join("store")).args(args).arg(dir).env_clear().output().expect("it runs")
}

#[test]
fn the_folder_of_lb_holds_no_socket_of_the_store() {
    let system = split();
    let names = fs::read_dir(system.socket_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let is_socket = |name: &&String| name.ends_with(".sock") || name.ends_with(".control");
    let mut sockets: Vec<&String> = names.iter().filter(is_socket).collect();
    sockets.sort();
    let expected = ["api1.control", "api1.sock", "api2.control", "api2.sock", "lb.control", "lb.sock"]
        .map(str::to_owned);
    assert_eq!(sockets, expected.iter().collect::<Vec<_>>());
    for name in sockets {
        let expected = if name.ends_with(".sock") { 0o660 } else { 0o600 };
        assert_eq!(mode(&system.socket_dir().join(name)), expected, "{name}");
    }
    assert_eq!(mode(&system.store_path()), 0o600);
    assert_eq!(mode(&system.operator_path()), 0o600);
    for way in system.ways() {
        let answer = way.ask(&pay(payment(&fresh_id(), "19.90"))).expect("an answer");
        assert_eq!(answer.status, 202, "{way}");
    }
}

#[test]
fn each_socket_of_the_store_takes_only_what_it_is_for() {
    let system = split();
    let (apis, operators) = (system.store_path(), system.operator_path());
    let paid = system.api(0).ask(&pay(payment(&fresh_id(), "19.90"))).expect("an answer");
    assert_eq!(paid.status, 202);
    let hello = FromApi::Hello { instance: 99, calls_max: 0, held: Vec::new() };

    assert_eq!(ask(&apis, &LIST), None);
    assert!(matches!(ask(&operators, &LIST), Some(FromStore::Operated { request: 7, done: true, .. })));
    assert_eq!(ask(&apis, &hello), Some(FromStore::Welcome));
    assert!(matches!(ask(&apis, &FromApi::Metrics { request: 1 }), Some(FromStore::Metrics { .. })));
    for frame in [
        hello,
        FromApi::Heartbeat,
        FromApi::Purge { request: 1, asked_us: 1, deadline_us: u64::MAX },
        FromApi::Metrics { request: 1 },
    ] {
        assert_eq!(ask(&operators, &frame), None, "{frame:?}");
    }
    assert_eq!(system.metric("store_purges_total"), 0);
    assert_eq!(system.recorded(), 1);
}

#[test]
fn the_commands_of_the_store_find_their_sockets() {
    let system = split();
    let list = store(&["list", "conflicts", "--log-dir"], &system.log_dir());
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let health = store(&["healthcheck", "--store-socket-dir"], system.store_path().parent().unwrap());
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    for (args, name) in [
        (&["list", "conflicts", "--log-dir"][..], "LOG_DIR"),
        (&["healthcheck", "--socket-dir"], "SOCKET_DIR"),
    ] {
        let output = store(args, Path::new("/nowhere"));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && stderr.contains(name), "{stderr}");
    }
}

#[test]
fn operators_find_a_store_whose_log_lies_deep() {
    let dir = tempfile::tempdir().unwrap();
    let log_dir = dir.path().join("deep".repeat(50));
    let args = ["--socket-dir", dir.path().to_str().unwrap(), "--log-dir", log_dir.to_str().unwrap()];
    let args = args.map(str::to_owned);
    let process =
        Process::spawn(dir.path(), "store", "store", &args, None, crate::harness::system::Stderr::Log);
    let deadline = std::time::Instant::now() + READY_TIMEOUT;
    let list = || store(&["list", "dead-letters", "--log-dir"], &log_dir);
    while !list().status.success() {
        assert!(std::time::Instant::now() < deadline, "{}\n{:?}", process.log(), list());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_process_of_another_user_is_not_heard() {
    if !nix::unistd::geteuid().is_root() {
        return println!("only root can start a process of another user");
    }
    let system = split();
    // The modes keep it out already; without them the store itself does.
    let paths = [system.store_path(), system.operator_path()];
    let dirs = [system.socket_dir(), paths[0].parent().unwrap(), paths[1].parent().unwrap()];
    dirs.iter().for_each(|dir| fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap());
    paths.iter().for_each(|path| fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap());
    let program = copy("store", system.socket_dir());
    for args in [
        &["healthcheck", "--store-socket-dir", dirs[1].to_str().unwrap()][..],
        &["list", "conflicts", "--log-dir", dirs[2].to_str().unwrap()],
    ] {
        let run = |uid: u32| {
            let mut command = Command::new(&program);
            command.args(args).env_clear().uid(uid).gid(uid).output().expect("it runs")
        };
        let ours = run(0);
        assert!(ours.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ours.stderr));
        let other = run(OTHER_UID);
        let stderr = String::from_utf8_lossy(&other.stderr).into_owned();
        assert_eq!(other.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(!stderr.contains("no store at"), "it was refused a connection, not an answer: {stderr}");
    }
    assert!(system.store.log().contains("runs as another user"), "{}", system.store.log());
}

/// A process of another user, killed with the value.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_balancer_of_another_user_gets_no_client_and_hands_off_none() {
    if !nix::unistd::geteuid().is_root() {
        return println!("only root can start a process of another user");
    }
    let mut system = split();
    let program = copy("lb", system.socket_dir());
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(system.socket_dir(), 0o755);
    for name in ["lb", "api1"] {
        open(&control_path(system.socket_dir(), name), 0o666);
    }
    let start = |dir: &Path, args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).args(["--listen", "127.0.0.1:0", "--backends", "api1", "--socket-dir"]).arg(dir);
        command.env_clear().uid(OTHER_UID).gid(OTHER_UID).stdout(Stdio::null()).stderr(Stdio::null());
        Stranger(command.spawn().expect("it runs"))
    };

    let mut successor = start(system.socket_dir(), &["--take-over"]);
    system.until("lb has refused it", |system| system.lb.log().contains("another user wants to take over"));
    assert_eq!(successor.0.wait().unwrap().code(), Some(1));

    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    symlink(control_path(system.socket_dir(), "api1"), control_path(dir.path(), "api1")).unwrap();
    let stranger = start(dir.path(), &["--mode", "hand-off"]);
    system.until("the api has refused it", |system| {
        system.apis[0].log().contains("another user wants to hand off")
    });
    drop(stranger);
    for way in system.ways() {
        assert_eq!(way.status("/health"), Some(200), "{way}");
    }
}

#[test]
fn a_store_whose_folder_can_hold_no_socket_serves_without_operators() {
    let dir = tempfile::tempdir().unwrap();
    // A folder in the place of the socket's lock: nothing can be bound beside it.
    let log_dir = dir.path().join("log");
    std::fs::create_dir_all(log_dir.join("operator.lock")).unwrap();
    let store = crate::harness::system::binaries().join("store");
    let mut command = std::process::Command::new(store);
    command.arg("--socket-dir").arg(dir.path()).arg("--log-dir").arg(&log_dir).env_clear();
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    while !said.contains("store listens on")
        && std::io::BufRead::read_line(&mut lines, &mut said).unwrap() > 0
    {}
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains("store listens on") && said.contains("cannot reach this store"), "{said}");
}
