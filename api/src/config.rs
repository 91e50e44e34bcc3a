//! The api's settings: the only reader of its arguments and environment. What is wrong is said with its name.

use edge::limits::LimitArgs;
use hyper::http::uri::{Authority, Scheme, Uri};
use std::path::{Path, PathBuf};
use wire::secret::Secret;
use wire::trace::LogFlags;

/// Espora's api: accepts payments over HTTP and calls the processors
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "api", version)]
pub struct Arguments {
    /// What to do; without a command, the api serves
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
    /// Exit with 0 if this api answers on its socket and reaches the store, else with 1
    Healthcheck,
}

/// Settings of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Folder of the Unix sockets that lb and the apis share
    #[arg(long, env = "SOCKET_DIR", default_value = "/run/espora", global = true)]
    pub socket_dir: PathBuf,
    /// Folder of the store's socket, shared by the apis and the store [default: SOCKET_DIR]
    #[arg(long, env = "STORE_SOCKET_DIR")]
    pub store_socket_dir: Option<PathBuf>,
    /// Name of this api: its socket is NAME.sock
    #[arg(long = "name", env = "API_NAME", default_value = "api1", global = true, value_parser = wire::socket::api_name)]
    pub name: String,
    /// Address of the default processor: http://HOST:PORT
    #[arg(long, env = "PROCESSOR_DEFAULT_URL", default_value = "http://payment-processor-default:8080", value_parser = address)]
    pub processor_default_url: Address,
    /// Address of the fallback processor: http://HOST:PORT
    #[arg(long, env = "PROCESSOR_FALLBACK_URL", default_value = "http://payment-processor-fallback:8080", value_parser = address)]
    pub processor_fallback_url: Address,
    /// Calls to the processors under way at once, 1 to 1000
    #[arg(long, env = "CALLS_MAX", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub calls_max: u16,
    /// Which clients may call POST /purge-payments
    #[arg(long, env = "PURGE", value_enum, default_value_t = Purge::Off)]
    pub purge: Purge,
    /// With PURGE=token: the value that the header X-Rinha-Token must have
    #[arg(long, env = "PURGE_TOKEN", required_if_eq("purge", "token"), hide_env_values = true, value_parser = Secret::parse)]
    pub purge_token: Option<Secret>,
    /// What clients may take
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl Config {
    /// The folder of the store's socket.
    #[must_use]
    pub fn store_socket_dir(&self) -> &Path {
        self.store_socket_dir.as_deref().unwrap_or(&self.socket_dir)
    }
}

/// Which clients may purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purge {
    /// No client: 404
    Off,
    /// A client that knows PURGE_TOKEN; others get 401
    Token,
    /// Every client, as the competition's judge wants it
    Open,
}

/// Where a processor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host and port, for the `Host` field and the connection.
    pub authority: Authority,
}

impl Address {
    /// `host:port`, for the resolver.
    #[must_use]
    pub fn host_and_port(&self) -> (String, u16) {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        (host.to_owned(), self.authority.port_u16().unwrap_or(80))
    }
}

fn address(text: &str) -> Result<Address, String> {
    let advice = "give http://HOST:PORT, without a path";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {advice}"))?;
    match (uri.scheme(), uri.authority(), uri.path_and_query().map(|path| path.as_str())) {
        (Some(scheme), Some(authority), None | Some("" | "/")) if *scheme == Scheme::HTTP => {
            Ok(Address { authority: authority.clone() })
        }
        _ => Err(advice.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(address("http://localhost:8001").unwrap().host_and_port(), ("localhost".to_owned(), 8001));
        assert_eq!(address("http://[::1]:8001/").unwrap().host_and_port(), ("::1".to_owned(), 8001));
        assert_eq!(address("http://processor").unwrap().host_and_port(), ("processor".to_owned(), 80));
        for text in ["", "localhost:8001", "https://x:1", "http://x/payments", "http://"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
