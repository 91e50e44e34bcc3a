//! Where a processor is: its name looked up in a thread of its own, which is there from the start.
//!
//! The runtime would start a thread for each look-up, and ends the process when the system has none left. Here that can
//! only happen at the start. A resolver that hangs delays the look-ups of its own processor and nothing else; what waits for
//! them gives up by itself. An address in numbers needs no thread.
//!
//! Bounds: [`WAITING_MAX`] look-ups wait; beyond that the name counts as not found, and nothing was sent.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use tokio::sync::oneshot;

/// Look-ups that wait at a time: those that wait for one share its answer, so there is hardly ever a second one.
const WAITING_MAX: usize = 16;

type Found = io::Result<Vec<SocketAddr>>;

/// Looks up one name.
#[derive(Debug)]
pub enum Resolver {
    /// The address was given in numbers.
    Known(SocketAddr),
    /// A thread looks the name up, once for each sender that it is given.
    Thread(SyncSender<oneshot::Sender<Found>>),
}

impl Resolver {
    /// A resolver of this host and port.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(host: String, port: u16) -> io::Result<Self> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Known(SocketAddr::new(address, port)));
        }
        let (asks, asked) = sync_channel::<oneshot::Sender<Found>>(WAITING_MAX);
        thread::Builder::new().name(format!("resolve {host}")).spawn(move || {
            for answer in asked {
                // Its asker may have given up.
                let _ = answer.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
            }
        })?;
        Ok(Self::Thread(asks))
    }

    /// All addresses of the name, now.
    ///
    /// # Errors
    /// What the system's resolver says.
    pub async fn resolve(&self) -> Found {
        let asks = match self {
            Self::Known(address) => return Ok(vec![*address]),
            Self::Thread(asks) => asks,
        };
        let (answer, answered) = oneshot::channel();
        asks.try_send(answer).map_err(|_| io::Error::other("too many look-ups wait for the resolver"))?;
        answered.await.map_err(|_| io::Error::other("the resolver has ended"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_are_known_and_names_are_looked_up() {
        let known = Resolver::start("::1".to_owned(), 80).unwrap();
        assert!(matches!(known, Resolver::Known(_)));
        assert_eq!(known.resolve().await.unwrap(), ["[::1]:80".parse().unwrap()]);
        let looked_up = Resolver::start("localhost".to_owned(), 81).unwrap();
        for _ in 0..3 {
            let found = looked_up.resolve().await.unwrap();
            assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        }
    }
}
