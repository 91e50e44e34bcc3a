//! The command `arena processors`: flags, sockets, signals.
//!
//! Alone it stands in for the competition's processor containers: both processors, on the ports that these publish.
//! With `--only` it plays one, which is how a container or another command starts them apart, so that neither steals
//! the other's time. Every flag has a variable, because a compose file sets those more easily.

use super::config::ProcessorConfig;
use super::server::{bind, serve};
use crate::terminal;
use anyhow::Context;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use wire::Processor;

/// Play the payment processors of the competition.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessorsArgs {
    /// Play this processor only; without it, both
    #[arg(long, env = "PROCESSOR_ONLY", value_name = "NAME", value_parser = processor_names())]
    pub only: Option<Processor>,
    /// Where the one processor of --only listens, such as 0.0.0.0:8080; without it, 127.0.0.1:8001 for default and
    /// 127.0.0.1:8002 for fallback
    #[arg(long, env = "PROCESSOR_LISTEN", value_name = "ADDR", requires = "only")]
    pub listen: Option<SocketAddr>,
    /// What the one processor of --only charges for a payment, in percent; goes before the two flags that follow
    #[arg(long, env = "PROCESSOR_FEE", value_name = "PERCENT", requires = "only", value_parser = basis_points)]
    pub fee: Option<u32>,
    /// What the default processor charges for a payment, in percent
    #[arg(long, env = "PROCESSOR_FEE_DEFAULT", value_name = "PERCENT", default_value = "5", value_parser = basis_points)]
    pub fee_default: u32,
    /// What the fallback processor charges for a payment, in percent
    #[arg(long, env = "PROCESSOR_FEE_FALLBACK", value_name = "PERCENT", default_value = "15", value_parser = basis_points)]
    pub fee_fallback: u32,
    /// What the header X-Rinha-Token must say in calls to /admin/
    #[arg(long, env = "PROCESSOR_TOKEN", value_name = "TEXT", default_value = "123", hide_env_values = true,
          value_parser = NonEmptyStringValueParser::new())]
    pub token: String,
    /// What one payment takes when nothing delays it, in milliseconds; a real processor takes 1 to 3
    #[arg(long, env = "PROCESSOR_SERVICE_TIME_MS", value_name = "MS", default_value_t = 1)]
    pub service_time_ms: u32,
    /// Payments a second that a processor gets through before calls queue up, such as 5000; 0 is without a bound
    #[arg(long, env = "PROCESSOR_CAPACITY", value_name = "N", default_value_t = 0)]
    pub capacity: u32,
    /// How long the window is in which one call to /payments/service-health is answered, in milliseconds
    #[arg(long, env = "PROCESSOR_HEALTH_WINDOW_MS", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub health_window_ms: u32,
}

impl ProcessorsArgs {
    /// The processors to play, each with the address that it listens on.
    #[must_use]
    pub fn processors(&self) -> Vec<(SocketAddr, ProcessorConfig)> {
        let is_wanted = |name: &Processor| self.only.is_none_or(|only| only == *name);
        let with_addr = |name| (self.listen.unwrap_or(default_addr(name)), self.config(name));
        Processor::BOTH.into_iter().filter(is_wanted).map(with_addr).collect()
    }

    fn config(&self, name: Processor) -> ProcessorConfig {
        ProcessorConfig {
            name,
            fee_bp: self.fee.unwrap_or(match name {
                Processor::Default => self.fee_default,
                Processor::Fallback => self.fee_fallback,
            }),
            token: self.token.clone(),
            service_time: Duration::from_millis(self.service_time_ms.into()),
            capacity: (self.capacity > 0).then_some(self.capacity),
            health_window: Duration::from_millis(self.health_window_ms.into()),
        }
    }
}

/// Plays the processors until SIGTERM or SIGINT; prints one line for each that is ready.
///
/// # Errors
/// When an address cannot be bound.
pub async fn run(args: ProcessorsArgs) -> anyhow::Result<()> {
    // Handled before anything is said to be ready: a reader of the line may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    wire::socket::raise_descriptor_limit();
    let mut processors = JoinSet::new();
    for (addr, config) in args.processors() {
        let name = config.name;
        let listener = bind(addr).with_context(|| format!("processor {name} cannot listen on {addr}"))?;
        let addr = listener.local_addr()?;
        processors.spawn(serve(listener, config, pending()));
        terminal::print(format_args!("processor {name} listening on {addr}\n"));
    }
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
        Some(ended) = processors.join_next() => ended.context("a processor ended by itself")?,
    }
    Ok(())
}

fn processor_names() -> impl TypedValueParser<Value = Processor> {
    let named = |name: String| Processor::BOTH.into_iter().find(|processor| processor.name() == name);
    PossibleValuesParser::new(Processor::BOTH.map(Processor::name))
        .map(move |name| named(name).expect("one of the possible values"))
}

/// The ports on which the competition's own containers are published.
fn default_addr(name: Processor) -> SocketAddr {
    let port = match name {
        Processor::Default => 8001,
        Processor::Fallback => 8002,
    };
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Reads a percentage with up to two decimals.
fn basis_points(text: &str) -> Result<u32, String> {
    let refusal = || "write 0 to 100 with at most 2 decimals, such as 5 or 7.5".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str, len_max| {
        (1..=len_max).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole, 3) || !is_number(decimals, 2) {
        return Err(refusal());
    }
    let fee_bp = format!("{whole}{decimals:0<2}").parse::<u32>().map_err(|_| refusal())?;
    if fee_bp <= 10_000 { Ok(fee_bp) } else { Err(refusal()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ProcessorsArgs,
    }

    fn parse(flags: &[&str]) -> Result<ProcessorsArgs, clap::Error> {
        Command::try_parse_from([&["processors"], flags].concat()).map(|command| command.args)
    }

    #[test]
    fn without_flags_both_play_on_the_ports_of_the_competition() {
        let processors = parse(&[]).unwrap().processors();
        let seen = processors.iter().map(|(addr, config)| (addr.to_string(), config.name, config.fee_bp));
        let expected = [
            ("127.0.0.1:8001".to_owned(), Processor::Default, 500),
            ("127.0.0.1:8002".to_owned(), Processor::Fallback, 1_500),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_alone_listens_where_it_is_told() {
        for fee in ["--fee", "--fee-fallback"] {
            let flags = ["--only", "fallback", "--listen", "0.0.0.0:8080", fee, "10"];
            let processors = parse(&flags).unwrap().processors();
            assert_eq!(processors.len(), 1);
            assert_eq!(processors[0].0.to_string(), "0.0.0.0:8080");
            assert_eq!((processors[0].1.name, processors[0].1.fee_bp), (Processor::Fallback, 1_000));
        }
        assert!(parse(&["--listen", "0.0.0.0:8080"]).is_err());
        assert!(parse(&["--fee", "10"]).is_err());
        assert!(parse(&["--only", "cheap"]).is_err());
    }

    #[test]
    fn a_fee_is_a_percentage_with_up_to_two_decimals() {
        for (text, fee_bp) in [("0", 0), ("5", 500), ("7.5", 750), ("0.05", 5), ("100", 10_000)] {
            assert_eq!(basis_points(text), Ok(fee_bp), "{text}");
        }
        for text in ["", "-1", "+1", "5%", "100.01", "101", "1.234", ".5", "5.", "1e1"] {
            assert!(basis_points(text).is_err(), "{text}");
        }
    }
}
