//! The balancer's settings: the only reader of its arguments and environment. What is wrong is said with its name.

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
    /// Client connections served at a time; more get 503 [default: 20000, or as many as fit into half of the memory limit]
    #[arg(long, env = "CONNECTIONS_MAX")]
    pub connections_max: Option<usize>,
    /// Bytes held for all clients together: incomplete requests and unread answers. At this limit, lb closes the
    /// connections that have held bytes longest [default: an eighth of the memory limit, or 64 MiB without one]
    #[arg(long, env = "HELD_BYTES_MAX", value_parser = clap::value_parser!(u64).range(edge::limits::HELD_BYTES_MAX_MIN..))]
    pub held_bytes_max: Option<u64>,
}

impl Config {
    /// Connections that are served at a time.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max.unwrap_or_else(|| edge::limits::connections_max_by(wire::memory::limit()))
    }

    /// Bytes that may be held for all clients together.
    #[must_use]
    pub fn held_bytes_max(&self) -> usize {
        let given = self.held_bytes_max.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        given.unwrap_or_else(|| edge::limits::held_bytes_max_by(wire::memory::limit()))
    }
}

/// How requests get to the apis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// lb passes on each request, and repeats it on another api where that is safe
    Forward,
    /// lb passes the client's socket to an api, and is off the path of its requests
    HandOff,
}
