//! `measure stalls`: what a stalled peer costs the others (`stalls_stay_local`: at most a tenth of the time in
//! which a payment is accepted).
//!
//! Each contestant has a stack of its own and the same load, twice: once for the stack to find out whatever it finds out
//! about who stalls, and once to be measured. A request that a stopped api has is not counted: in mode hand-off
//! it has no answer and shows as unanswered, in mode forward another api has answered it before the measurement begins.
//!
//! | contestant | who stands still |
//! |---|---|
//! | a stalled processor | the default one is stopped (SIGSTOP): it takes connections and says nothing |
//! | a stalled api | the last api is stopped, with its calls and its clients |
//! | clients that do not read | so many have asked for summaries until their sockets were full, and read no answer; a server may end them after its timeout |

use crate::bench::comparison::{Comparison, Metric, number};
use crate::bench::env::BenchEnv;
use crate::bench::load::{ANSWER_TIMEOUT, LoadGenerator};
use crate::bench::preview::{Variant, block_on};
use crate::bench::stack::Payments;
use anyhow::{Context, ensure};
use arena::stack::Durability;
use arena::stack::Stack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

/// The contestants, in the order of the table.
const CONTESTANTS: [(&str, Option<Stall>); 5] = [
    ("undisturbed", None),
    ("a stalled processor", Some(Stall::Processor)),
    ("a stalled api", Some(Stall::Api)),
    ("clients that do not read", Some(Stall::Clients)),
    ("undisturbed again (A/A)", None),
];

const METRICS: &[Metric] = &[
    Metric::compared("p50", "ms", 3),
    Metric::compared("p99", "ms", 3),
    Metric::compared("p99.9", "ms", 3),
    Metric::shown("accepted", "", 0),
    Metric::shown("refused", "", 0),
    Metric::shown("unanswered", "", 0),
    Metric::shown("shortest refusal", "ms", 0),
];

/// Connections of the load, as in docs/results.md.
const CONNECTIONS: usize = 64;

/// Segments of a client that does not read, in bytes: a server's buffer for it is some tens of these.
const SEGMENT_BYTES: u32 = 536;

/// What such a client has room for in each direction, in bytes; the kernel takes no less than some 2 KiB.
const WINDOW_BYTES: usize = 4 * 1_024;

/// It asks for this until the socket takes no more ...
const QUESTION: &[u8] = b"GET /payments-summary HTTP/1.1\r\nHost: stalls\r\n\r\n";

/// ... which is so when for several looks in a row nothing was taken of anybody.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A server that takes more of one client than this keeps its answers, or does not stop for a client that reads none. Some
/// 330,000 bytes lie between: what the kernel keeps of the questions (256 KiB, `lib/edge/src/tcp.rs`), and the questions whose
/// answers fill 128 KiB. The bound counts bytes, so that filling may take as long as it takes.
const TAKEN_BYTES_MAX: usize = 2 << 20;

/// How long answers are waited for while an api is stopped: those that it owes never come.
const STOPPED_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The stalled peer, and the load.
#[derive(Clone, Debug, clap::Args)]
pub struct StallsArgs {
    /// How the balancer passes clients on, as lb's --mode has it, separated by commas; what lb does not have is left out
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "forward,hand-off")]
    pub modes: Vec<String>,
    /// Payments a second, from 64 clients
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// How long the load lasts, before and while it is measured. A stopped api is found out within 4
    #[arg(long = "for", value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub for_s: u16,
    /// How many clients do not read
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub clients: u16,
    /// What a 2xx promises to survive
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
    /// How many apis
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub apis: u8,
}

/// The stalled peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    Processor,
    Api,
    Clients,
}

/// Measures, a table for each mode.
///
/// # Errors
/// When something does not start, or does not stand still.
pub fn stalls(args: &StallsArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let mut found = Comparison::new(String::new(), METRICS);
    let modes = env.lb_modes(&args.modes, &mut found)?;
    let title = |mode: &str| {
        let load = format!("{} payments a second over {CONNECTIONS} connections", args.rate);
        format!("beside a stalled peer: the whole stack, {mode}, {}; {load}", args.durability.name())
    };
    let mut comparisons: Vec<Comparison> =
        modes.iter().map(|mode| Comparison { title: title(mode), ..found.clone() }).collect();
    for turn in 1..=env.turns {
        for (mode, comparison) in modes.iter().zip(&mut comparisons) {
            for (name, stall) in CONTESTANTS {
                env.say(&format!("turn {turn} of {}: {mode}, {name}", env.turns));
                let variant = Variant { mode, durability: args.durability, apis: args.apis };
                let config = variant.config(env)?;
                let figures = block_on(async {
                    let stack = Stack::start(&config, &env.terminal).await?;
                    let measured = measure(args, &stack, stall, u64::from(turn));
                    stack.stop(&env.terminal).await;
                    measured
                })?;
                comparison.enter(name, &figures);
            }
        }
    }
    Ok(comparisons)
}

fn measure(
    args: &StallsArgs,
    stack: &Stack,
    stall: Option<Stall>,
    seed: u64,
) -> anyhow::Result<[Option<f64>; METRICS.len()]> {
    let stopped = |name: &str| {
        let pid = stack.pid(name).with_context(|| format!("{name} has ended"))?;
        Stopped::stop(pid).with_context(|| format!("cannot stop {name}"))
    };
    // Until everything is measured.
    let (_stopped, _clients) = match stall {
        None => (None, Vec::new()),
        Some(Stall::Processor) => (Some(stopped("default")?), Vec::new()),
        Some(Stall::Api) => (Some(stopped(&format!("api{}", args.apis))?), Vec::new()),
        Some(Stall::Clients) => (None, clients_that_do_not_read(stack.ours, args.clients.into())?),
    };
    let load = LoadGenerator {
        addr: stack.ours,
        connections: CONNECTIONS,
        rate_per_s: Some(args.rate),
        lasting: Duration::from_secs(args.for_s.into()),
        answer_timeout: if stall == Some(Stall::Api) { STOPPED_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT },
        is_reconnecting: false,
    };
    let mut payments = Payments::new(stack.ours, seed);
    load.run(&mut payments)?;
    let outcome = load.run(&mut payments)?;
    let (latency, refused) = (outcome.latency(), outcome.refused_latency().count);
    let counts = [outcome.accepted(), refused, outcome.unanswered].map(|count| Some(number(count)));
    let [accepted, refused, unanswered] = counts;
    let [p50, p99, p999] = [latency.p50_ms, latency.p99_ms, latency.p999_ms].map(Some);
    Ok([p50, p99, p999, accepted, refused, unanswered, outcome.refused_min_ms()])
}

/// A process that stands still, until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: Pid) -> nix::Result<Self> {
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A process that has ended needs it no more.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// So many clients that read no answers, so that their questions are not read either.
fn clients_that_do_not_read(ours: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let mut clients = (0..count).map(|_| client(ours)).collect::<Result<Vec<_>, _>>()?;
    let questions = QUESTION.repeat(64);
    // Bytes of the questions that were taken of each.
    let mut asked = vec![0; count];
    let mut looks = 0;
    while looks < LOOKS {
        let mut is_any_taken = false;
        for (client, asked) in clients.iter_mut().zip(&mut asked) {
            match client.write(&questions[*asked % questions.len()..]) {
                Ok(taken) => {
                    is_any_taken = true;
                    *asked += taken;
                    ensure!(
                        *asked <= TAKEN_BYTES_MAX,
                        "a client that reads no answer is answered all the same: {asked} bytes of questions were taken, \
                         and less fill what lies between"
                    );
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                // lb and the apis end a client that reads nothing for 5 s.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
                Err(error) => return Err(error).context("a client that does not read was ended"),
            }
        }
        looks = if is_any_taken { 0 } else { looks + 1 };
        sleep(LOOK_PAUSE);
    }
    Ok(clients)
}

fn client(ours: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(ours), Type::STREAM, None)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.set_recv_buffer_size(WINDOW_BYTES)?;
    socket.set_send_buffer_size(WINDOW_BYTES)?;
    socket.connect(&ours.into()).with_context(|| format!("cannot connect to {ours}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
