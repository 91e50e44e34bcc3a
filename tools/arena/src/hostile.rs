//! `arena hostile`: clients that make every process hold all that they can, and others beside them.
//!
//! Thousands of connections send as much of a request as is taken without an answer, or ask for more than they read, hold
//! that until they are ended, and come back. Beside them ordinary clients pay, over connections that they keep and over
//! new ones, and one asks for the health. With `--limits` each process has its share of CPU and memory, as in the compose
//! file.
//!
//! | kind | what it holds |
//! |---|---|
//! | head | 9 KiB of a head that never ends |
//! | chunk | that head, ended, and a chunk of 4 KiB |
//! | trailers | that chunk, and 8 KiB of trailers that never end |
//! | body | that head, ended, and all of a body of 4 KiB but its last byte |
//! | unread | answers to 500 requests, of which none is read |
//!
//! It went well when no process ended by itself and every other client got the answer that it should get. Only how it
//! was answered is judged, not how fast: the attack may use up all shares of CPU, and then an answer takes a while.

use crate::binaries::Binaries;
use crate::client::{Client, request};
use crate::containers::Used;
use crate::endpoint::Endpoint;
use crate::limits::Limits;
use crate::limits::Split;
use crate::run_dir::RunDir;
use crate::signals::{EXIT_INTERRUPTED, Signals};
use crate::stack::StackArgs;
use crate::stack::{Stack, StackConfig};
use crate::terminal::{self, Terminal};
use crate::user::PaymentRequest;
use clap::Args;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use wire::{Cents, PaymentId};

/// Flags of `arena hostile`.
#[derive(Clone, Debug, Args)]
pub struct HostileArgs {
    #[command(flatten)]
    /// What to start.
    pub stack: StackArgs,
    /// Give each process of the stack its share of 1.5 CPU and 350 MB, as docker-compose.yml does, through control groups
    #[arg(long)]
    pub limits: bool,
    /// What the shares are.
    #[command(flatten)]
    pub split: Split,
    /// Clients that hold all they can; each takes a descriptor here
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub clients: u16,
    /// Clients that pay over a connection that they keep, and as many that pay over new ones
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub others: u16,
    /// How long it lasts
    #[arg(long = "for", value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    pub for_s: u16,
}

/// The exit status when a process ended or another client was not served.
const EXIT_HARMED: u8 = 3;

/// Addresses that hostile clients come from, so that none runs out of ports.
const SOURCES: usize = 8;

/// The pause of a hostile client that cannot connect, and of one that was ended before it comes back.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks of one that reads no answers at whether it was ended.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Between two requests of an ordinary client.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an ordinary client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the numbers of any api are asked for, to get those of all.
const METRICS_ASKED: usize = 10;

/// What was seen; shared by all clients.
#[derive(Debug, Default)]
struct Seen {
    /// Hostile connections that are there, that were made, and that were ended.
    there: usize,
    made: u64,
    ended: u64,
    /// Of each ordinary client, how its requests were answered, and the longest answer.
    answers: BTreeMap<(&'static str, String), u64>,
    longest: Duration,
    /// What the processes say of the bytes that they hold.
    held: BTreeMap<String, u64>,
}

/// What came of it.
#[derive(Debug)]
struct Report {
    hostile: usize,
    seen: Seen,
    used: Vec<Used>,
    /// Processes that ended by themselves, and how.
    exits: Vec<String>,
}

/// Starts a stack, attacks it for a while, and reports.
///
/// # Errors
/// When something does not start, or control groups cannot be made.
pub async fn hostile(args: HostileArgs, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::handle()?;
    wire::socket::raise_descriptor_limit();
    let terminal = Terminal::default();
    let binaries = Binaries::find(args.stack.bin_dir.as_deref(), args.stack.checkout().as_ref()).await?;
    let limits = args.limits.then(|| Limits::make(&args.split, args.stack.apis)).transpose()?;
    let binaries = binaries.confined(limits.as_ref().map(Limits::entrances).unwrap_or_default());
    let run_dir = RunDir::new(args.stack.run_dir.as_deref())?;
    let config = StackConfig::new(&args.stack, binaries, run_dir.path(), envs);
    let stack = Stack::start(&config, &terminal).await?;
    let attacked = tokio::select! {
        seen = attack(&args, stack.ours, &terminal) => Some(seen),
        () = signals.received() => None,
    };
    let exits = stack.exits().into_iter().map(|exit| format!("{} ended: {:?}", exit.name, exit.outcome));
    let exits = exits.collect();
    let used = limits.as_ref().map(Limits::used).transpose()?.unwrap_or_default();
    stack.stop(&terminal).await;
    let Some(seen) = attacked else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    let report = Report { hostile: args.clients.into(), seen, used, exits };
    terminal::print(&report);
    Ok(if report.is_unharmed() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_HARMED) })
}

async fn attack(args: &HostileArgs, ours: SocketAddr, terminal: &Terminal) -> Seen {
    let seen: Rc<RefCell<Seen>> = Rc::default();
    // Aborted when dropped.
    let mut clients = JoinSet::new();
    let kinds = kinds().map(Rc::new);
    for number in 0..args.clients.into() {
        let request = Rc::clone(&kinds[number % kinds.len()]);
        clients.spawn_local(hold(number, ours, request, Rc::clone(&seen)));
    }
    for _ in 0..args.others {
        clients.spawn_local(pay(ours, true, Rc::clone(&seen)));
        clients.spawn_local(pay(ours, false, Rc::clone(&seen)));
    }
    clients.spawn_local(look(ours, Rc::clone(&seen)));
    let until = Instant::now() + Duration::from_secs(args.for_s.into());
    while Instant::now() < until {
        sleep(Duration::from_secs(1).min(until - Instant::now())).await;
        let Seen { there, made, ended, .. } = &*seen.borrow();
        terminal.say(format!("{there} hostile connections, {made} made, {ended} ended"));
    }
    drop(clients);
    let held = held_bytes(ours).await;
    Seen { held, ..seen.take() }
}

/// What the processes that hold bytes say of them, as far as they are met within a few requests.
async fn held_bytes(ours: SocketAddr) -> BTreeMap<String, u64> {
    let endpoint = Endpoint::from(ours);
    let metrics = request("GET", "/metrics", &endpoint.host, None, "");
    let mut held = BTreeMap::new();
    for _ in 0..METRICS_ASKED {
        let mut client = Client::new(endpoint.clone(), ANSWER_TIMEOUT);
        let Ok(answer) = client.exchange(&metrics).await else { continue };
        let text = String::from_utf8_lossy(answer.body);
        let lines = text.lines().filter(|line| line.starts_with("api_held_bytes"));
        let numbers = lines.filter_map(|line| line.rsplit_once(' '));
        held.extend(numbers.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))));
    }
    held
}

/// One of each kind.
fn kinds() -> [Vec<u8>; 5] {
    let line = format!("POST /payments?{} HTTP/1.1\r\nHost: hostile\r\n", "a".repeat(1_900));
    let head = format!("{line}A: {}\r\n", "a".repeat(7_500));
    let chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\nfff\r\n{}", "a".repeat(4_095));
    let trailers = format!("{chunk}\r\n0\r\nX: {}", "a".repeat(8_000));
    let body = format!("{head}Content-Length: 4096\r\n\r\n{}", "a".repeat(4_095));
    let unread = "GET /metrics HTTP/1.1\r\nHost: hostile\r\n\r\n".repeat(500);
    [head, chunk, trailers, body, unread].map(String::into_bytes)
}

/// A hostile client: sends, holds, and comes back when it is ended.
async fn hold(number: usize, ours: SocketAddr, request: Rc<Vec<u8>>, seen: Rc<RefCell<Seen>>) {
    loop {
        if let Ok(mut stream) = connect(number, ours).await {
            seen.borrow_mut().there += 1;
            seen.borrow_mut().made += 1;
            if stream.write_all(&request).await.is_ok() {
                // Of an answer it reads a byte, and then nothing; the end of the connection shows as one, too.
                let is_answered = matches!(stream.read(&mut [0]).await, Ok(1));
                while is_answered && stream.write_all(b"\r\n").await.is_ok() {
                    sleep(LOOK_PAUSE).await;
                }
            }
            seen.borrow_mut().there -= 1;
            seen.borrow_mut().ended += 1;
        }
        sleep(RETURN_PAUSE).await;
    }
}

async fn connect(number: usize, ours: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(1 + number % SOURCES).expect("a small number");
    socket.bind((Ipv4Addr::new(127, 0, 1, last), 0).into())?;
    socket.connect(ours).await
}

/// An ordinary client that pays, over one connection or over a new one each time.
async fn pay(ours: SocketAddr, is_kept: bool, seen: Rc<RefCell<Seen>>) {
    let name = if is_kept { "a payment over a kept connection" } else { "a payment over a new connection" };
    let mut client = Client::new(ours.into(), ANSWER_TIMEOUT);
    let mut request = PaymentRequest::new(client.host(), Cents(1_990));
    loop {
        if !is_kept {
            client = Client::new(ours.into(), ANSWER_TIMEOUT);
        }
        let id = PaymentId(Uuid::new_v4().as_u128());
        ask(&mut client, request.with_id(id), name, &seen).await;
        sleep(PAUSE).await;
    }
}

/// An ordinary client that asks for the health.
async fn look(ours: SocketAddr, seen: Rc<RefCell<Seen>>) {
    let endpoint = Endpoint::from(ours);
    let health = request("GET", "/health", &endpoint.host, None, "");
    loop {
        let mut client = Client::new(endpoint.clone(), ANSWER_TIMEOUT);
        ask(&mut client, &health, "the health", &seen).await;
        sleep(PAUSE).await;
    }
}

async fn ask(client: &mut Client, request: &[u8], name: &'static str, seen: &RefCell<Seen>) {
    let (outcome, took) = match client.exchange(request).await {
        Ok(answer) => (answer.status.to_string(), answer.took),
        Err(failure) => (failure.name().to_owned(), ANSWER_TIMEOUT),
    };
    let mut seen = seen.borrow_mut();
    *seen.answers.entry((name, outcome)).or_default() += 1;
    seen.longest = seen.longest.max(took);
}

impl Report {
    fn is_unharmed(&self) -> bool {
        let is_good = |outcome: &str| matches!(outcome, "200" | "202");
        let mut outcomes = self.seen.answers.keys().map(|(_, outcome)| outcome);
        self.exits.is_empty() && !self.seen.answers.is_empty() && outcomes.all(|outcome| is_good(outcome))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { there, made, ended, answers, longest, held } = &self.seen;
        writeln!(
            f,
            "{} hostile clients: {there} there at the end, {made} made, {ended} ended",
            self.hostile
        )?;
        for ((name, outcome), count) in answers {
            writeln!(f, "{name}: {outcome}, {count} times")?;
        }
        writeln!(f, "the longest answer took {:.1} ms", longest.as_secs_f64() * 1e3)?;
        for (name, number) in held {
            writeln!(f, "{name}: {number}")?;
        }
        for used in &self.used {
            let (peak_kib, cpu_ms) = (used.memory_peak_bytes >> 10, used.cpu_us / 1_000);
            writeln!(f, "{}: {peak_kib} KiB of memory at the most, {cpu_ms} ms of CPU", used.name)?;
        }
        let exits = if self.exits.is_empty() { "no process ended".to_owned() } else { self.exits.join("\n") };
        f.write_str(&exits)?;
        f.write_char('\n')
    }
}
