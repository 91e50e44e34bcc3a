//! Where something answers HTTP: the host that requests name, and the address that it was found at.
//!
//! A name is resolved once, before the first request: resolving later would need another thread in the middle of a
//! measurement. Of several addresses (`localhost` is often two) the first that accepts a connection is taken. Only
//! plain HTTP is spoken, as everywhere in the competition, and a URL ends after its port.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one address has to accept a connection while a name is resolved.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A server as a URL names it: `http://HOST[:PORT]`, nothing after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
}

/// The text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write http://HOST:PORT, such as http://127.0.0.1:9999")]
pub struct UrlError;

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let authority = text.strip_prefix("http://").ok_or(UrlError)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| UrlError)?),
            None => (authority, 80),
        };
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(UrlError);
        }
        Ok(Self { host: host.into(), port })
    }
}

impl From<SocketAddr> for Url {
    fn from(addr: SocketAddr) -> Self {
        let host = if addr.is_ipv6() { format!("[{}]", addr.ip()) } else { addr.ip().to_string() };
        Self { host, port: addr.port() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What the Host field says.
    pub host: String,
    /// Where to connect to.
    pub addr: SocketAddr,
}

impl Endpoint {
    /// Finds the address of `url` that accepts connections.
    ///
    /// # Errors
    /// The last address's reason, with the URL, when none does.
    pub async fn find(url: &Url) -> io::Result<Self> {
        let explain = |error: &io::Error| io::Error::new(error.kind(), format!("{url}: {error}"));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in format!("{}:{}", url.host, url.port).to_socket_addrs().map_err(|error| explain(&error))? {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
                Ok(Ok(_)) => return Ok(Self::at(url, addr)),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(explain(&last))
    }

    /// `url`, known to be at `addr`.
    #[must_use]
    pub fn at(url: &Url, addr: SocketAddr) -> Self {
        Self { host: format!("{}:{}", url.host, url.port), addr }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::at(&addr.into(), addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port_and_nothing_else() {
        for (text, expected) in [
            ("http://127.0.0.1:9999", "http://127.0.0.1:9999"),
            ("http://localhost:8001/", "http://localhost:8001"),
            ("http://payment-processor-default:8080", "http://payment-processor-default:8080"),
            ("http://localhost", "http://localhost:80"),
            ("http://[::1]:8001", "http://[::1]:8001"),
        ] {
            assert_eq!(text.parse::<Url>().map(|url| url.to_string()).as_deref(), Ok(expected));
        }
        for text in
            ["", "localhost:9999", "https://localhost", "http://", "http://:80", "http://a/b", "http://a:x"]
        {
            assert_eq!(text.parse::<Url>(), Err(UrlError), "{text}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_address_that_accepts_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let url = format!("http://localhost:{}", addr.port()).parse().unwrap();
        let found = Endpoint::find(&url).await.unwrap();
        assert_eq!((found.addr, found.host), (addr, format!("localhost:{}", addr.port())));
        drop(listener);
        let error = Endpoint::find(&url).await.unwrap_err();
        assert!(error.to_string().contains("localhost"), "{error}");
    }
}
