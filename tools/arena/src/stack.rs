//! A whole Espora on this machine: two simulated processors, the store, the apis and the balancer, each a process.
//!
//! ```text
//!   127.0.0.1:PORT --> lb --> api1, api2 --> two processors on 127.0.0.1
//!                              '--> store
//!   RUN_DIR/sockets/{lb,api1,api2}.sock    RUN_DIR/store-sockets/store.sock, which lb is not told of
//!   RUN_DIR/wal/ the store's log and operator.sock    RUN_DIR/logs/NAME.log their output
//! ```
//!
//! They are started from the processors up and stopped from the balancer down, each tier after the one before has
//! ended, so that a payment under way can still finish; [`STOP_TIMEOUT`] is for all of them together. Until everything
//! answers, a child that ends means that starting failed, and the end of its log says why; later it is started again
//! (see `child`).

use crate::binaries::Binaries;
use crate::checkout::{CargoVariables, Checkout};
use crate::child::{Child, Exit, LIFE_MIN, Spec, Stopped};
use crate::client::TIMEOUT;
use crate::endpoint::Endpoint;
use crate::sides::Ours;
use crate::terminal::Terminal;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use contest::plan::Plan;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use wire::{PerProcessor, Processor};

/// What a local stack is made of.
#[derive(Clone, Debug, Args)]
pub struct StackArgs {
    /// Port of the balancer on 127.0.0.1; 0 takes a free one
    #[arg(long, env = "ARENA_PORT", default_value_t = 9999)]
    pub port: u16,
    /// How many apis
    #[arg(long, env = "ARENA_APIS", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub apis: u8,
    /// How the balancer passes clients on, as lb's --mode has it
    #[arg(long, env = "ARENA_MODE", value_name = "MODE", default_value = "hand-off")]
    pub mode: String,
    /// What a 2xx promises to survive
    #[arg(long, env = "ARENA_DURABILITY", value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
    /// Folder for sockets, the store's log and the children's output; without it a fresh one, removed at the end
    #[arg(long, env = "ARENA_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Folder of the executables store, api and lb; without it they are built in a checkout, or lie beside arena
    #[arg(long, env = "ARENA_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Show what the children write
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    cargo: CargoVariables,
}

impl StackArgs {
    /// The checkout that arena was started in through cargo, if it was.
    #[must_use]
    pub fn checkout(&self) -> Option<Checkout> {
        self.cargo.checkout()
    }
}

/// How much a 2xx promises, as the store's `--durability` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Survives the death of any process
    Process,
    /// Survives the loss of power as well
    Always,
    /// Survives nothing; only to measure what the others cost
    None,
}

impl Durability {
    /// The word on the store's command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Always => "always",
            Self::None => "none",
        }
    }
}

/// The processes of a stack that can be killed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The store.
    Store,
    /// One of the apis, in turn.
    Api,
    /// The balancer.
    Lb,
}

/// How long everything may take to answer, so that a hang ends: a child that ends is noticed at once. A store with a
/// million payments in its log takes half a second.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause between two looks whether everything answers.
const READY_PAUSE: Duration = Duration::from_millis(20);

/// How long all children together have to end by themselves.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The processors' administrators' word unless another one is wanted: the competition's own.
pub const TOKEN: &str = "123";

/// Ends of children that are kept: so many that were planned, and so many that were not.
const EXITS_MAX: usize = 64;

/// What to start.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The executables.
    pub binaries: Binaries,
    /// Where everything of this stack lies.
    pub run_dir: PathBuf,
    /// The balancer's port; 0 takes a free one.
    pub port: u16,
    /// The processors' ports; 0 takes a free one.
    pub processor_ports: PerProcessor<u16>,
    /// How many apis.
    pub apis: u8,
    /// How the balancer passes clients on.
    pub mode: String,
    /// What a 2xx promises.
    pub durability: Durability,
    /// What the processors keep.
    pub fee_percent: PerProcessor<f64>,
    /// How long a payment may be in flight before an audit can miss it.
    pub audit_margin_ms: u64,
    /// The processors' administrators' word.
    pub token: String,
    /// Variables for every child.
    pub envs: Vec<(String, String)>,
    /// Whether the children's lines are shown.
    pub is_verbose: bool,
}

impl StackConfig {
    /// What the command line says, with processors on free ports that keep and wait as in the preview.
    #[must_use]
    pub fn new(args: &StackArgs, binaries: Binaries, run_dir: &Path, envs: Vec<(String, String)>) -> Self {
        let plan = Plan::preview();
        Self {
            binaries,
            run_dir: run_dir.to_owned(),
            port: args.port,
            processor_ports: PerProcessor([0, 0]),
            apis: args.apis,
            mode: args.mode.clone(),
            durability: args.durability,
            fee_percent: plan.fee_percent,
            audit_margin_ms: plan.audit.margin_ms,
            token: TOKEN.into(),
            envs,
            is_verbose: args.verbose,
        }
    }
}

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    /// From the one that is stopped first to the last: balancer, apis, store, processors.
    tiers: [Vec<Child>; 4],
    /// Where payments are posted.
    pub ours: SocketAddr,
    /// Where the processors listen.
    pub theirs: PerProcessor<SocketAddr>,
    run_dir: PathBuf,
    exits: Rc<RefCell<Vec<Exit>>>,
    api_next: Cell<usize>,
}

/// A process of a stack, for the table of what is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How it is called.
    pub name: String,
    /// Where it listens.
    pub listens: String,
    /// Its process id at this moment.
    pub pid: Option<i32>,
    /// The file with its output.
    pub log: PathBuf,
}

impl Stack {
    /// Starts everything and waits until it answers.
    ///
    /// # Errors
    /// When a port is taken, a child ends, or something does not answer in time; everything is stopped again then.
    pub async fn start(config: &StackConfig, terminal: &Terminal) -> anyhow::Result<Self> {
        let layout = Layout::new(config)?;
        let (exits_tx, mut exits) = mpsc::channel(EXITS_MAX);
        let run = |specs: Vec<Spec>| -> Vec<Child> {
            specs.into_iter().map(|spec| Child::start(spec, terminal.clone(), exits_tx.clone())).collect()
        };
        let mut stack = Self {
            tiers: [Vec::new(), Vec::new(), Vec::new(), run(layout.processors())],
            ours: layout.ours,
            theirs: layout.theirs,
            run_dir: config.run_dir.clone(),
            exits: Rc::default(),
            api_next: Cell::new(0),
        };
        let started = async {
            unless_one_ends(&mut exits, processors_answer(stack.theirs)).await?;
            stack.tiers[2] = run(vec![layout.store()]);
            stack.tiers[1] = run(layout.apis());
            stack.tiers[0] = run(vec![layout.lb()]);
            unless_one_ends(&mut exits, layout.everything_answers()).await
        };
        if let Err(error) = started.await {
            stack.stop(terminal).await;
            return Err(error);
        }
        spawn_local(report_exits(exits, Rc::clone(&stack.exits), terminal.clone()));
        Ok(stack)
    }

    /// Kills a process on purpose; it is started again at once. `None` when there is none at this moment.
    pub fn kill(&self, role: Role) -> Option<String> {
        let [lbs, apis, stores, _] = &self.tiers;
        let child = match role {
            Role::Lb => lbs.first(),
            Role::Store => stores.first(),
            Role::Api => apis.get(self.api_next.replace((self.api_next.get() + 1) % apis.len())),
        };
        child.filter(|child| child.end(Signal::SIGKILL, Duration::ZERO)).map(|child| child.name().to_owned())
    }

    /// Ends the process called `name` on purpose; it is started again after `away`. False when there is none at this
    /// moment.
    pub fn end(&self, name: &str, signal: Signal, away: Duration) -> bool {
        self.child(name).is_some_and(|child| child.end(signal, away))
    }

    /// The process called `name`, if there is one at this moment.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<Pid> {
        self.child(name)?.pid()
    }

    fn child(&self, name: &str) -> Option<&Child> {
        self.tiers.iter().flatten().find(|child| child.name() == name)
    }

    /// Ends of children so far, but for those that were asked to stop. Of planned ones only the first are kept.
    #[must_use]
    pub fn exits(&self) -> Vec<Exit> {
        self.exits.borrow().clone()
    }

    /// What is where.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let place = |child: &Child, listens| {
            let log = log_path(&self.run_dir, child.name());
            Place { name: child.name().into(), listens, pid: child.pid().map(Pid::as_raw), log }
        };
        let [lbs, apis, stores, processors] = &self.tiers;
        let api_socket = |child: &Child| wire::socket::backend_path(&sockets(&self.run_dir), child.name());
        let store_socket = |_: &Child| wire::socket::store_path(&store_sockets(&self.run_dir));
        let of_lb = lbs.iter().map(|child| place(child, format!("http://{}", self.ours)));
        let of_apis = apis.iter().map(|child| place(child, api_socket(child).display().to_string()));
        let of_stores = stores.iter().map(|child| place(child, store_socket(child).display().to_string()));
        let of_processors =
            processors.iter().zip(self.theirs.0).map(|(child, addr)| place(child, format!("http://{addr}")));
        of_lb.chain(of_apis).chain(of_stores).chain(of_processors).collect()
    }

    /// Stops everything, from the balancer down.
    pub async fn stop(self, terminal: &Terminal) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        for tier in self.tiers {
            // All of one tier at once: each stop is asked for before any is waited for.
            let stops: Vec<_> = tier
                .into_iter()
                .map(|child| {
                    let name = child.name().to_owned();
                    (name, spawn_local(child.stop(deadline)))
                })
                .collect();
            for (name, stop) in stops {
                if matches!(stop.await, Ok(Stopped::ByForce)) {
                    terminal.say(format!(
                        "{name} did not end within {} s and was killed",
                        STOP_TIMEOUT.as_secs()
                    ));
                }
            }
        }
    }
}

/// Waits for `ready`, or for the first child that ends instead.
async fn unless_one_ends(
    exits: &mut mpsc::Receiver<Exit>,
    ready: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let limit_s = READY_TIMEOUT.as_secs();
    tokio::select! {
        outcome = timeout(READY_TIMEOUT, ready) => {
            outcome.with_context(|| format!("not ready after {limit_s} s; --verbose shows what the children write"))
        }
        Some(exit) = exits.recv() => bail!(ended(&exit, "not everything was ready yet")),
    }
}

async fn processors_answer(theirs: PerProcessor<SocketAddr>) {
    for addr in theirs.0 {
        while TcpStream::connect(addr).await.is_err() {
            sleep(READY_PAUSE).await;
        }
    }
}

/// Tells of every child that ended by itself; ends with the stack.
async fn report_exits(mut exits: mpsc::Receiver<Exit>, seen: Rc<RefCell<Vec<Exit>>>, terminal: Terminal) {
    while let Some(exit) = exits.recv().await {
        terminal.say(match (exit.is_planned, exit.lived < LIFE_MIN) {
            (true, _) => format!("{} was killed as planned and is started again", exit.name),
            (false, true) => ended(&exit, "is started again after a pause"),
            (false, false) => ended(&exit, "is started again"),
        });
        let mut seen = seen.borrow_mut();
        // However many are killed on purpose, unplanned ends have room of their own.
        if seen.iter().filter(|other| other.is_planned == exit.is_planned).count() < EXITS_MAX {
            seen.push(exit);
        }
    }
}

fn ended(exit: &Exit, and: &str) -> String {
    let how = match &exit.outcome {
        Ok(status) => format!("ended ({status}) after {:.1} s", exit.lived.as_secs_f64()),
        Err(error) => error.clone(),
    };
    let tail: String = exit.tail.lines().map(|line| format!("\n    {line}")).collect();
    let log = if tail.is_empty() { "its log is empty" } else { "its log ends:" };
    format!("{} {how} and {and}; {log}{tail}", exit.name)
}

fn sockets(run_dir: &Path) -> PathBuf {
    run_dir.join("sockets")
}

fn store_sockets(run_dir: &Path) -> PathBuf {
    run_dir.join("store-sockets")
}

fn log_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join("logs").join(format!("{name}.log"))
}

/// Addresses and command lines of one stack.
struct Layout<'a> {
    config: &'a StackConfig,
    ours: SocketAddr,
    theirs: PerProcessor<SocketAddr>,
}

impl<'a> Layout<'a> {
    fn new(config: &'a StackConfig) -> anyhow::Result<Self> {
        for folder in ["sockets", "store-sockets", "wal", "logs"] {
            let path = config.run_dir.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let [default, fallback] = config.processor_ports.0;
        let [ours, default, fallback] = free_addrs([config.port, default, fallback])?;
        Ok(Self { config, ours, theirs: PerProcessor([default, fallback]) })
    }

    fn spec(&self, name: &str, program: PathBuf, args: Vec<OsString>) -> Spec {
        let log = log_path(&self.config.run_dir, name);
        let (envs, is_verbose) = (self.config.envs.clone(), self.config.is_verbose);
        let (program, args) = self.config.binaries.entering(name, program, args);
        Spec { name: name.into(), program, args, envs, log, is_verbose }
    }

    fn processors(&self) -> Vec<Spec> {
        let spec = |processor: Processor| {
            let args = arguments([
                ("--only", processor.name().into()),
                ("--listen", self.theirs[processor].to_string()),
                (&format!("--fee-{processor}"), self.config.fee_percent[processor].to_string()),
                ("--token", self.config.token.clone()),
            ]);
            let args = [vec!["processors".into()], args].concat();
            self.spec(processor.name(), self.config.binaries.arena().to_owned(), args)
        };
        Processor::BOTH.into_iter().map(spec).collect()
    }

    fn store(&self) -> Spec {
        let args = arguments([
            ("--store-socket-dir", store_sockets(&self.config.run_dir).display().to_string()),
            ("--log-dir", self.config.run_dir.join("wal").display().to_string()),
            ("--durability", self.config.durability.name().into()),
            ("--fee-default", self.config.fee_percent[Processor::Default].to_string()),
            ("--fee-fallback", self.config.fee_percent[Processor::Fallback].to_string()),
            ("--audit-margin-ms", self.config.audit_margin_ms.to_string()),
        ]);
        self.spec("store", self.config.binaries.path("store"), args)
    }

    fn apis(&self) -> Vec<Spec> {
        let spec = |name: String| {
            let args = arguments([
                ("--socket-dir", sockets(&self.config.run_dir).display().to_string()),
                ("--name", name.clone()),
                ("--store-socket-dir", store_sockets(&self.config.run_dir).display().to_string()),
                ("--processor-default-url", format!("http://{}", self.theirs[Processor::Default])),
                ("--processor-fallback-url", format!("http://{}", self.theirs[Processor::Fallback])),
                ("--purge", "open".into()),
            ]);
            self.spec(&name, self.config.binaries.path("api"), args)
        };
        self.api_names().map(spec).collect()
    }

    fn lb(&self) -> Spec {
        let args = arguments([
            ("--socket-dir", sockets(&self.config.run_dir).display().to_string()),
            ("--listen", self.ours.to_string()),
            ("--backends", self.api_names().collect::<Vec<_>>().join(",")),
            ("--mode", self.config.mode.clone()),
        ]);
        self.spec("lb", self.config.binaries.path("lb"), args)
    }

    fn api_names(&self) -> impl Iterator<Item = String> {
        (1..=self.config.apis).map(|number| format!("api{number}"))
    }

    /// Every api has its socket, and a request that goes the whole way finds the system well.
    async fn everything_answers(&self) {
        let mut ours = Ours::new(Endpoint::from(self.ours), TIMEOUT, None);
        let has_socket =
            |name: String| wire::socket::backend_path(&sockets(&self.config.run_dir), &name).exists();
        while !self.api_names().all(has_socket) || ours.health().await.is_err() {
            sleep(READY_PAUSE).await;
        }
    }
}

fn arguments<const N: usize>(flags: [(&str, String); N]) -> Vec<OsString> {
    flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), OsString::from(value)]).collect()
}

/// Addresses without a listener at this moment.
///
/// Asked before anything is started: otherwise it might be a stranger who answers that everything is well. All are held
/// at once, so that no two free ports are the same.
fn free_addrs<const N: usize>(ports: [u16; N]) -> anyhow::Result<[SocketAddr; N]> {
    let bind = |port| {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(addr).with_context(|| format!("{addr} is taken; choose another port"))
    };
    let held = ports.into_iter().map(bind).collect::<anyhow::Result<Vec<_>>>()?;
    let addrs = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    Ok(addrs.try_into().expect("one address for each port"))
}
