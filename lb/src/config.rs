//! The balancer's settings: the only reader of its arguments and environment. What is wrong is said with its name.

use edge::limits::LimitArgs;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::trace::LogFlags;

/// Espora's balancer: accepts clients on one TCP port and spreads their requests over the apis
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "lb", version)]
pub struct Arguments {
    /// What to do; without a command, lb serves
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of the server
    #[command(flatten)]
    pub config: Config,
    /// Settings of the log lines
    #[command(flatten)]
    pub log_flags: LogFlags,
}

/// What the binary does besides serving.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Command {
    /// Exit with 0 if the balancer answers and an api is behind it, else with 1
    Healthcheck,
}

/// Settings of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder of the Unix sockets that lb and the apis share
    #[arg(long, env = "SOCKET_DIR", default_value = "/run/espora", global = true)]
    pub socket_dir: PathBuf,
    /// Address and port for clients
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:9999")]
    pub listen: SocketAddr,
    /// Names of the apis, separated by commas; the socket of each is NAME.sock
    #[arg(long, env = "BACKENDS", default_value = "api1,api2", value_delimiter = ',', num_args = 1.., value_parser = wire::socket::api_name)]
    pub backends: Vec<String>,
    /// How clients reach the apis
    #[arg(long, env = "MODE", value_enum, default_value_t = Mode::HandOff)]
    pub mode: Mode,
    /// Take over sockets and clients from the balancer that runs on SOCKET_DIR, which then exits
    #[arg(long, env = "TAKE_OVER", value_parser = clap::builder::BoolishValueParser::new())]
    pub take_over: bool,
    /// What clients may take
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How requests get to the apis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// lb passes on each request, and repeats it on another api where that is safe
    Forward,
    /// lb passes the client's socket to an api, and is off the path of its requests
    HandOff,
}
