//! `measure lb`: lb in its modes beside nginx and haproxy, in front of the same backends, under the same load.
//!
//! Each turn gives every balancer, in turn, three loads: at a fixed rate that all of them can carry (what a request
//! costs and adds), as fast as it goes, and a connection for each request. The backend alone, spoken to over TCP, is
//! what the latencies are compared with: what a balancer adds is its percentile less that of the backend alone in the
//! same turn. lb in its first mode comes twice (A/A). Processor time is that of the balancer only, from `/proc`.

use crate::bench::comparison::{Comparison, Metric, mib, number};
use crate::bench::env::BenchEnv;
use crate::bench::load::{ANSWER_TIMEOUT, LoadGenerator, Outcome, Same};
use crate::bench::plot;
use crate::bench::process::Process;
use crate::bench::proxy::{Proxy, free_addr, start_backends};
use crate::bench::usage::Usage;
use anyhow::Context;
use arena::tally::Latency;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const METRICS: &[Metric] = &[
    Metric::compared("CPU a request", "us", 2),
    Metric::shown("user", "us", 2),
    Metric::shown("kernel", "us", 2),
    Metric::shown("added p50", "us", 0),
    Metric::shown("added p99", "us", 0),
    Metric::shown("added p99.9", "us", 0),
    Metric::compared("requests", "/s", 0),
    Metric::compared("connections", "/s", 0),
    Metric::compared("CPU a connection", "us", 1),
    Metric::compared("memory", "MiB", 1),
    Metric::shown("failed", "", 0),
];

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What is thrown at the balancers.
#[derive(Clone, Debug, clap::Args)]
pub struct LbArgs {
    /// lb's modes, separated by commas; what lb does not have is left out
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_value = "forward,hand-off")]
    pub modes: Vec<String>,
    /// Requests a second at which cost and added latency are measured
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// How long each of the three loads lasts
    #[arg(long = "for", value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub for_s: u16,
    /// Draw cost and added p99 into this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// When something does not start.
pub fn lb(args: &LbArgs, env: &BenchEnv) -> anyhow::Result<Vec<Comparison>> {
    let title = format!(
        "balancers in front of two backends on Unix sockets: {} connections, {} requests a second",
        args.connections, args.rate
    );
    let mut comparison = Comparison::new(title, METRICS);
    let contestants = contestants(args, env, &mut comparison)?;
    let (_backends, alone) = start_backends(env)?;
    let addr = free_addr()?;
    for turn in 1..=env.turns {
        let mut floor = None;
        for (name, proxy) in &contestants {
            env.say(&format!("turn {turn} of {}: {name}", env.turns));
            let process = proxy.start(env, addr)?;
            let addr = if process.is_some() { addr } else { alone };
            let measured = Measured::of(args, process.as_ref(), addr)?;
            let floor = floor.get_or_insert(measured.latency);
            if *proxy != Proxy::Without {
                comparison.enter(name, &measured.figures(floor));
            }
        }
    }
    if let Some(path) = &args.plot {
        let bars = |metric| plot::bars(&comparison, metric);
        let svg = plot::draw(&[bars("CPU a request"), bars("added p99"), bars("requests")]);
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    comparison.notes.push(
        "CPU, user, kernel and added latency at the fixed rate; requests as fast as it goes; one worker each"
            .into(),
    );
    Ok(vec![comparison])
}

/// No balancer first, then lb, which the ratios are to, and lb again at the end.
fn contestants(
    args: &LbArgs,
    env: &BenchEnv,
    comparison: &mut Comparison,
) -> anyhow::Result<Vec<(String, Proxy)>> {
    let modes = env.lb_modes(&args.modes, comparison)?;
    let mut proxies = vec![Proxy::Without];
    proxies.extend(modes.iter().cloned().map(Proxy::Lb));
    for other in [Proxy::LeastForward, Proxy::LeastHandOff, Proxy::Nginx, Proxy::Haproxy] {
        match other.is_installed() {
            Ok(()) => proxies.push(other),
            Err(why) => comparison.notes.push(why),
        }
    }
    let mut contestants: Vec<(String, Proxy)> =
        proxies.into_iter().map(|proxy| (proxy.name(), proxy)).collect();
    let again = Proxy::Lb(modes[0].clone());
    contestants.push((format!("{} again (A/A)", again.name()), again));
    Ok(contestants)
}

/// What one balancer did in one turn.
struct Measured {
    total_us: f64,
    user_us: f64,
    kernel_us: f64,
    latency: Latency,
    requests_per_s: f64,
    connections_per_s: f64,
    connection_us: f64,
    memory_mib: f64,
    failed: u64,
}

impl Measured {
    fn of(args: &LbArgs, process: Option<&Process>, addr: SocketAddr) -> anyhow::Result<Self> {
        let usage = || process.map_or(Ok(Usage::default()), Process::usage);
        let paced = LoadGenerator {
            addr,
            connections: args.connections.into(),
            rate_per_s: Some(args.rate),
            lasting: Duration::from_secs(args.for_s.into()),
            answer_timeout: ANSWER_TIMEOUT,
            is_reconnecting: false,
        };
        // What the first requests cost (a connection, pools, page faults) is not what requests cost.
        let mut payments = payment("");
        let mut clients = paced.connect(&mut payments)?;
        clients.run(WARM_UP)?;
        let before = usage()?;
        let at_rate = clients.run(paced.lasting)?;
        let used = usage()? - before;
        let saturated = LoadGenerator { rate_per_s: None, ..paced }.run(&mut payment(""))?;
        let memory = process.map_or(Ok(0), |process| process.memory().map(|memory| memory.pss_kib))?;
        let before = usage()?;
        let reconnecting = LoadGenerator { rate_per_s: None, is_reconnecting: true, ..paced };
        let connected = reconnecting.run(&mut payment("Connection: close\r\n"))?;
        let used_connecting = usage()? - before;
        Ok(Self {
            total_us: each(used.total_us, &at_rate),
            user_us: each(used.user_us, &at_rate),
            kernel_us: each(used.system_us(), &at_rate),
            latency: at_rate.latency(),
            requests_per_s: saturated.accepted_per_s(),
            connections_per_s: connected.accepted_per_s(),
            connection_us: each(used_connecting.total_us, &connected),
            memory_mib: mib(memory),
            failed: at_rate.failed() + saturated.failed() + connected.failed(),
        })
    }

    fn figures(&self, floor: &Latency) -> [Option<f64>; METRICS.len()] {
        let added_us = |ours: f64, theirs: f64| Some((ours - theirs) * 1_000.0);
        [
            Some(self.total_us),
            Some(self.user_us),
            Some(self.kernel_us),
            added_us(self.latency.p50_ms, floor.p50_ms),
            added_us(self.latency.p99_ms, floor.p99_ms),
            added_us(self.latency.p999_ms, floor.p999_ms),
            Some(self.requests_per_s),
            Some(self.connections_per_s),
            Some(self.connection_us),
            Some(self.memory_mib),
            Some(number(self.failed)),
        ]
    }
}

/// What every accepted request has of a sum; nothing can be told of none.
fn each(sum_us: u64, outcome: &Outcome) -> f64 {
    number(sum_us) / number(outcome.accepted())
}

/// A payment of the usual size; the backends read none of it.
fn payment(field: &str) -> Same {
    let body = r#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.9}"#;
    let head =
        format!("POST /payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{field}");
    Same(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}
