//! `arena up`: a whole stack to try things on, until Ctrl-C.
//!
//! Prints one table of what listens where and requests that can be pasted into a shell, then only what happens to the
//! processes. The purge is open and the processors' administration is at hand, as the competition has them, and the
//! processors are on the competition's own ports, so that its k6 script runs against it as it is.

use crate::binaries::Binaries;
use crate::run_dir::RunDir;
use crate::signals::Signals;
use crate::stack::StackArgs;
use crate::stack::{Stack, StackConfig, TOKEN};
use crate::terminal::{self, Terminal};
use clap::Args;
use contest::plan::Plan;
use std::fmt::Write;
use std::process::ExitCode;
use wire::{PaymentId, PerProcessor, Processor};

/// Flags of `arena up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    /// What to start.
    pub stack: StackArgs,
    /// Port of the default processor on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    pub port_default: u16,
    /// Port of the fallback processor on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8002)]
    pub port_fallback: u16,
    /// What the default processor keeps of a payment, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Plan::preview().fee_percent[Processor::Default])]
    pub fee_default: f64,
    /// What the fallback processor keeps of a payment, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Plan::preview().fee_percent[Processor::Fallback])]
    pub fee_fallback: f64,
    /// How long a payment may be in flight before an audit can miss it
    #[arg(long, value_name = "MS", default_value_t = Plan::preview().audit.margin_ms)]
    pub audit_margin_ms: u64,
}

/// Starts everything, waits for a signal, stops everything.
///
/// # Errors
/// When something does not start.
pub async fn up(args: UpArgs, envs: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::handle()?;
    let terminal = Terminal::default();
    let binaries = Binaries::find(args.stack.bin_dir.as_deref(), args.stack.checkout().as_ref()).await?;
    let run_dir = RunDir::new(args.stack.run_dir.as_deref())?;
    let config = StackConfig {
        processor_ports: PerProcessor([args.port_default, args.port_fallback]),
        fee_percent: PerProcessor([args.fee_default, args.fee_fallback]),
        audit_margin_ms: args.audit_margin_ms,
        ..StackConfig::new(&args.stack, binaries, run_dir.path(), envs)
    };
    let stack = tokio::select! {
        stack = Stack::start(&config, &terminal) => stack?,
        () = signals.received() => return Ok(ExitCode::SUCCESS),
    };
    terminal::print(format_args!("{}\n", table(&stack)));
    terminal::print(format_args!("{}\n", requests(&stack)));
    signals.received().await;
    terminal.say("stopping");
    stack.stop(&terminal).await;
    Ok(ExitCode::SUCCESS)
}

fn table(stack: &Stack) -> String {
    let places = stack.places();
    let width = places.iter().map(|place| place.listens.len()).max().unwrap_or(0);
    let mut table = format!("{:<10}{:<width$}  {:>8}  output\n", "process", "listens on", "pid");
    for place in places {
        let pid = place.pid.map_or("-".into(), |pid| pid.to_string());
        let log = place.log.display();
        writeln!(table, "{:<10}{:<width$}  {pid:>8}  {log}", place.name, place.listens)
            .expect("a string grows");
    }
    table
}

fn requests(stack: &Stack) -> String {
    let (ours, default) = (stack.ours, stack.theirs[Processor::Default]);
    let id = PaymentId(uuid::Uuid::new_v4().as_u128());
    format!(
        "Pay, look, and make the default processor fail:

  curl -i http://{ours}/payments -H 'Content-Type: application/json' \\
       -d '{{\"correlationId\":\"{id}\",\"amount\":19.90}}'
  curl http://{ours}/payments-summary
  curl -X PUT http://{default}/admin/configurations/failure -H 'X-Rinha-Token: {TOKEN}' \\
       -H 'Content-Type: application/json' -d '{{\"failure\":true}}'

Everything runs until Ctrl-C."
    )
}
