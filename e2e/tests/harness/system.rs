//! Store, apis and two balancers, one for each mode, as child processes on a fresh folder; all of them end with the
//! value, or with this thread.

use super::client::Way;
use super::get;
use super::processors::Processors;
use edge::handoff::control_path;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{PipeReader, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wire::socket::backend_path;
use wire::{PerProcessor, Processor};

/// How long a test waits for anything, so that a hang ends: far longer than the slowest machine needs.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at another process, that sends no event.
const LOOK_PAUSE: Duration = Duration::from_millis(3);

/// An address without a listener, for systems without processors.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Where the balancer that hands off has its own socket.
const HAND_OFF_DIR: &str = "hand-off";

/// Where the store has its log.
const LOG_DIR: &str = "wal";

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) apis: usize,
    pub(crate) store_args: Vec<&'static str>,
    /// Durability `always`, not `process`.
    pub(crate) is_flushed: bool,
    pub(crate) api_args: Vec<&'static str>,
    pub(crate) lb_args: Vec<&'static str>,
    /// Descriptors that each balancer, and each api, may have; as many as this process when there is no number.
    pub(crate) lb_descriptors: Option<u64>,
    pub(crate) api_descriptors: Option<u64>,
    /// Whether the store's socket for apis lies in a folder of its own.
    pub(crate) is_split: bool,
    /// Whether the apis know their processors by name, which they have to look up.
    pub(crate) is_by_name: bool,
    /// What every process has as standard error.
    pub(crate) stderr: Stderr,
}

/// The standard error of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stderr {
    /// The log file, as standard output.
    Log,
    /// `/dev/full`: no write succeeds.
    Full,
    /// A pipe without a reader: no write succeeds.
    Closed,
    /// A full pipe whose reader never reads: every write blocks.
    Unread,
}

impl Stderr {
    /// What a process gets, and what must stay open as long as it lives.
    fn open(self, log: File) -> (Stdio, Option<PipeReader>) {
        match self {
            Self::Log => (log.into(), None),
            Self::Full => (File::options().write(true).open("/dev/full").expect("a device").into(), None),
            Self::Closed => (pipe().expect("a pipe").1.into(), None),
            Self::Unread => {
                let (reader, mut writer) = pipe().expect("a pipe");
                fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it can be set");
                while writer.write(&[b'.'; 4_096]).is_ok() {}
                fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("it can be set");
                (writer.into(), Some(reader))
            }
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            apis: 2,
            store_args: Vec::new(),
            is_flushed: false,
            api_args: Vec::new(),
            lb_args: Vec::new(),
            lb_descriptors: None,
            api_descriptors: None,
            is_split: false,
            is_by_name: false,
            stderr: Stderr::Log,
        }
    }
}

/// A running system.
pub(crate) struct System {
    /// The balancer that forwards.
    pub(crate) lb: Process,
    /// The one that hands off.
    pub(crate) hand_off: Process,
    pub(crate) apis: Vec<Process>,
    pub(crate) store: Process,
    lb_addr: SocketAddr,
    hand_off_addr: SocketAddr,
    setup: Setup,
    processors: Option<PerProcessor<SocketAddr>>,
    dir: TempDir,
}

impl System {
    /// Two apis, no processors.
    pub(crate) fn start() -> Self {
        Self::start_as(Setup::default(), None)
    }

    /// Starts everything and waits until a request that goes the whole way finds it well.
    pub(crate) fn start_as(setup: Setup, processors: Option<&Processors>) -> Self {
        Self::start_at(setup, processors.map(|processors| processors.addrs))
    }

    /// The same with processors of the test's own at these addresses.
    pub(crate) fn start_at(setup: Setup, processors: Option<PerProcessor<SocketAddr>>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = spawn_store(dir.path(), &setup);
        let apis: Vec<Process> =
            (1..=setup.apis).map(|number| spawn_api(dir.path(), &setup, processors, number)).collect();
        // No other process may get the port between its choice and its use.
        static PORT: Mutex<()> = Mutex::new(());
        let port = PORT.lock().unwrap_or_else(PoisonError::into_inner);
        let [lb_addr, hand_off_addr] = free_addrs();
        let backends = all_apis(&setup);
        let lb = spawn_lb(dir.path(), &setup, &backends, "forward", lb_addr);
        let hand_off_dir = hand_off_dir(dir.path(), setup.apis);
        let hand_off = spawn_lb(&hand_off_dir, &setup, &backends, "hand-off", hand_off_addr);
        let mut system = Self { lb, hand_off, apis, store, lb_addr, hand_off_addr, setup, processors, dir };
        for way in [system.ways(), vec![system.api(1)]].concat() {
            system.until(&format!("{way} is well"), |_| way.status("/health") == Some(200));
        }
        drop(port);
        system
    }

    /// Through the balancer that forwards.
    pub(crate) fn lb(&self) -> Way {
        Way::Lb(self.lb_addr)
    }

    /// Through the balancer that hands off.
    pub(crate) fn hand_off(&self) -> Way {
        Way::HandOff(self.hand_off_addr)
    }

    /// At an api's own socket; the first is 0.
    pub(crate) fn api(&self, index: usize) -> Way {
        Way::Api(backend_path(self.dir.path(), &api_name(index + 1)))
    }

    /// The own socket of the balancer that forwards.
    pub(crate) fn lb_admin(&self) -> Way {
        Way::Api(backend_path(self.dir.path(), "lb"))
    }

    /// The own socket of the balancer that hands off.
    pub(crate) fn hand_off_admin(&self) -> Way {
        Way::Api(backend_path(&self.dir.path().join(HAND_OFF_DIR), "lb"))
    }

    /// Both balancers, and the first api.
    pub(crate) fn ways(&self) -> Vec<Way> {
        vec![self.lb(), self.hand_off(), self.api(0)]
    }

    /// A store like the one before, after that one's end.
    pub(crate) fn start_store_again(&mut self) {
        self.store = spawn_store(self.dir.path(), &self.setup);
    }

    /// An api like the one before, after that one's end; the first is 0.
    pub(crate) fn start_api_again(&mut self, index: usize) {
        self.apis[index].kill();
        self.apis[index] = spawn_api(self.dir.path(), &self.setup, self.processors, index + 1);
        let api = self.api(index);
        self.until("the api is there again", |_| {
            api.try_connect().is_ok() && api.status("/health") == Some(200)
        });
    }

    /// A new balancer takes over from the one of this mode, which ends.
    pub(crate) fn take_over(&mut self, is_hand_off: bool) {
        self.take_over_for(is_hand_off, &all_apis(&self.setup));
    }

    /// The same with one that is told of these apis, whose names are separated by commas.
    pub(crate) fn take_over_for(&mut self, is_hand_off: bool, backends: &str) {
        let new = self.start_successor(is_hand_off, &self.setup, backends);
        self.succeed(is_hand_off, new);
    }

    /// Starts a balancer that wants to take over, and may have so many descriptors.
    pub(crate) fn start_successor_with(&self, is_hand_off: bool, descriptors: u64) -> Process {
        let setup = Setup { lb_descriptors: Some(descriptors), ..self.setup.clone() };
        self.start_successor(is_hand_off, &setup, &all_apis(&setup))
    }

    fn start_successor(&self, is_hand_off: bool, setup: &Setup, backends: &str) -> Process {
        let mut setup = setup.clone();
        setup.lb_args.push("--take-over");
        let dir = self.dir.path();
        if is_hand_off {
            spawn_lb(&dir.join(HAND_OFF_DIR), &setup, backends, "hand-off", self.hand_off_addr)
        } else {
            spawn_lb(dir, &setup, backends, "forward", self.lb_addr)
        }
    }

    /// Waits until the balancer of this mode has ended; `new` is the balancer from here on.
    pub(crate) fn succeed(&mut self, is_hand_off: bool, new: Process) {
        let old = if is_hand_off { &mut self.hand_off } else { &mut self.lb };
        old.wait();
        *old = new;
    }

    /// Ends the store in good order and starts the next one.
    pub(crate) fn restart_store(&mut self) {
        self.store.signal(Signal::SIGTERM);
        self.store.wait();
        self.start_store_again();
        let api = self.api(0);
        self.until("the store is there again", |_| api.status("/health") == Some(200));
    }

    /// The same with other arguments of the store.
    pub(crate) fn restart_store_as(&mut self, store_args: Vec<&'static str>) {
        self.setup.store_args = store_args;
        self.restart_store();
    }

    /// Ends an api in good order and starts the next one; the first is 0.
    pub(crate) fn restart_api(&mut self, index: usize) {
        self.apis[index].signal(Signal::SIGTERM);
        self.apis[index].wait();
        self.start_api_again(index);
    }

    /// The folder of the sockets of the balancer that hands off.
    pub(crate) fn hand_off_dir(&self) -> PathBuf {
        self.dir.path().join(HAND_OFF_DIR)
    }

    /// The store's socket for apis.
    pub(crate) fn store_path(&self) -> PathBuf {
        wire::socket::store_path(&store_socket_dir(self.dir.path(), &self.setup))
    }

    /// The store's socket for operators.
    pub(crate) fn operator_path(&self) -> PathBuf {
        wire::socket::operator_path(&self.log_dir())
    }

    /// The folder of the sockets of the balancer that forwards, and of the apis.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of the store's log.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.path().join(LOG_DIR)
    }

    /// Returns when an api has done all that was sent to it before: it takes events in their order, all that there are in
    /// one turn, and after two more requests that turn is over. A client may have its answer before its word says so.
    pub(crate) fn until_done(&self, index: usize) {
        for _ in 0..2 {
            assert_eq!(self.api(index).status("/nowhere"), Some(404));
        }
    }

    /// Waits until something is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "not within {READY_TIMEOUT:?}: {what}\n{}", self.logs());
            thread::sleep(LOOK_PAUSE);
        }
    }

    /// Waits until no payment is on its way.
    pub(crate) fn until_settled(&mut self) {
        self.until("everything is settled", |system| {
            ["queued", "in_flight"]
                .iter()
                .all(|standing| system.metric(&format!("store_payments{{standing=\"{standing}\"}}")) == 0)
        });
    }

    /// One number of the store, by its name and labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let answer = self.api(0).ask(&get("/metrics")).expect("metrics");
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap_or_else(|| panic!("no {name} in {}", answer.body));
        number.trim().parse().unwrap_or_else(|error| panic!("{name}{number}: {error}"))
    }

    /// Payments that the store has recorded since it started.
    pub(crate) fn recorded(&self) -> u64 {
        self.metric("store_accepts_total{as=\"recorded\"}")
    }

    /// What the processes wrote.
    pub(crate) fn logs(&self) -> String {
        let processes = self.apis.iter().chain([&self.store, &self.lb, &self.hand_off]);
        let log = |process: &Process| {
            let text = std::fs::read_to_string(&process.log).unwrap_or_default();
            format!("-- {} --\n{text}", process.name)
        };
        processes.map(log).collect()
    }
}

/// A child process, killed with the value.
pub(crate) struct Process {
    name: String,
    child: process::Child,
    log: PathBuf,
    _unread: Option<PipeReader>,
}

impl Process {
    /// Starts `program` of [`binaries`], with its output in `NAME.log` of `dir`.
    pub(crate) fn spawn(
        dir: &Path,
        name: &str,
        program: &str,
        args: &[String],
        descriptors: Option<u64>,
        stderr: Stderr,
    ) -> Self {
        let log_path = dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&log_path).expect("a log");
        let mut command = Command::new(binaries().join(program));
        command.args(args).env_clear().stdin(Stdio::null());
        let (stderr, unread) = stderr.open(log.try_clone().expect("a descriptor"));
        command.stdout(log).stderr(stderr);
        let parent = Pid::this();
        let tie = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            if let Some(descriptors) = descriptors {
                setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
            }
            if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec only prctl, setrlimit and getppid are called, and nothing is allocated.
        unsafe { command.pre_exec(tie) };
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Self { name: name.into(), child, log: log_path, _unread: unread }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // It is not reaped while we have it, so no other process has its number.
        kill(Pid::from_raw(pid), signal).expect("the process is there");
    }

    /// True while it is stopped: a signal that stops a process takes its time.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its numbers");
        // Its name, in brackets, may have spaces in it.
        stat.rsplit(") ").next().is_some_and(|numbers| numbers.starts_with('T'))
    }

    /// Memory that it really has and shares with no process, in bytes: without the pages of its executable.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("its numbers");
        let pages: Vec<u64> = statm.split(' ').filter_map(|pages| pages.parse().ok()).collect();
        (pages[1] - pages[2]) * 4096
    }

    /// Descriptors that it has.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its descriptors").count()
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) {
        self.child.wait().expect("it is ours");
    }

    /// How it ended, if it ended by itself within this time.
    pub(crate) fn wait_for(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.child.try_wait().expect("it is ours");
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    /// Ends it with SIGTERM and tells how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("it is ours")
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn_store(dir: &Path, setup: &Setup) -> Process {
    let log_dir = dir.join(LOG_DIR);
    let durability = Path::new(if setup.is_flushed { "always" } else { "process" });
    let socket_dir = store_socket_dir(dir, setup);
    let flag = if setup.is_split { "--store-socket-dir" } else { "--socket-dir" };
    let args = [(flag, &*socket_dir), ("--log-dir", &log_dir), ("--durability", durability)];
    Process::spawn(dir, "store", "store", &arguments(&args, &setup.store_args), None, setup.stderr)
}

fn spawn_api(
    dir: &Path,
    setup: &Setup,
    processors: Option<PerProcessor<SocketAddr>>,
    number: usize,
) -> Process {
    let name = api_name(number);
    let urls = match processors {
        Some(addrs) if setup.is_by_name => {
            PerProcessor(addrs.0.map(|addr| format!("http://localhost:{}", addr.port())))
        }
        Some(addrs) => PerProcessor(addrs.0.map(|addr| format!("http://{addr}"))),
        None => PerProcessor([NOWHERE.to_owned(), NOWHERE.to_owned()]),
    };
    let args = [
        ("--socket-dir", dir),
        ("--name", Path::new(&name)),
        ("--processor-default-url", Path::new(&urls[Processor::Default])),
        ("--processor-fallback-url", Path::new(&urls[Processor::Fallback])),
    ];
    let mut args = arguments(&args, &setup.api_args);
    if setup.is_split {
        args.extend(arguments(&[("--store-socket-dir", &store_socket_dir(dir, setup))], &[]));
    }
    Process::spawn(dir, &name, "api", &args, setup.api_descriptors, setup.stderr)
}

/// The folder of the store's socket for apis.
fn store_socket_dir(dir: &Path, setup: &Setup) -> PathBuf {
    if setup.is_split { dir.join("store-sockets") } else { dir.to_owned() }
}

/// The folder of a second balancer, with the control sockets of the apis in it.
fn hand_off_dir(dir: &Path, apis: usize) -> PathBuf {
    let inner = dir.join(HAND_OFF_DIR);
    std::fs::create_dir(&inner).expect("a folder");
    for name in (1..=apis).map(api_name) {
        symlink(control_path(dir, &name), control_path(&inner, &name)).expect("a link");
    }
    inner
}

fn spawn_lb(dir: &Path, setup: &Setup, backends: &str, mode: &str, addr: SocketAddr) -> Process {
    let listen = addr.to_string();
    let args = [
        ("--socket-dir", dir),
        ("--listen", Path::new(&listen)),
        ("--backends", Path::new(backends)),
        ("--mode", Path::new(mode)),
    ];
    let args = arguments(&args, &setup.lb_args);
    Process::spawn(dir, "lb", "lb", &args, setup.lb_descriptors, setup.stderr)
}

fn arguments(flags: &[(&str, &Path)], more: &[&str]) -> Vec<String> {
    let flags = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.display().to_string()]);
    flags.chain(more.iter().map(|&flag| flag.to_owned())).collect()
}

/// The names of all apis, as a balancer is told of them.
fn all_apis(setup: &Setup) -> String {
    let names: Vec<String> = (1..=setup.apis).map(api_name).collect();
    names.join(",")
}

fn api_name(number: usize) -> String {
    format!("api{number}")
}

/// Addresses that this process has given to its balancers.
static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());

/// Free ports of a loopback address that only this process uses: connections go out from 127.0.0.1, so none of them can
/// take one before a balancer does. None is given out twice: tests run side by side, and a balancer binds later.
fn free_addrs<const N: usize>() -> [SocketAddr; N] {
    // The kernel's largest process id has 22 bits.
    let [_, high, middle, low] = process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 0x40 | high, middle, low);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    [(); N].map(|()| {
        loop {
            let listener = TcpListener::bind((ip, 0)).expect("a free port");
            let addr = listener.local_addr().expect("an address");
            if given.insert(addr) {
                return addr;
            }
        }
    })
}

/// The folder of the executables: those of this checkout, built in the profile of this test.
pub(crate) fn binaries() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let test = std::env::current_exe().expect("where this test is");
        // TARGET_DIR/[TRIPLE/]PROFILE/deps/TEST
        let dir = test.parent().and_then(Path::parent).expect("cargo's layout").to_owned();
        build(&dir);
        dir
    })
}

fn build(dir: &Path) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let profile = name(dir);
    // The folder of the profile `dev` has another name, for reasons of history.
    let profile = if profile == "debug" { "dev".to_owned() } else { profile };
    let above = dir.parent().expect("cargo's layout");
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "build",
        "--quiet",
        "--package",
        "store",
        "--package",
        "api",
        "--package",
        "lb",
        "--package",
        "arena",
    ]);
    command.args(["--profile", &profile]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if above.join("CACHEDIR.TAG").exists() {
        command.arg("--target-dir").arg(above);
    } else {
        // A folder for a triple lies one deeper than the one that cargo marks as a cache.
        let target_dir = above.parent().expect("cargo's layout");
        command.arg("--target-dir").arg(target_dir).args(["--target", &name(above)]);
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "building store, api, lb and arena failed: {status}");
}
