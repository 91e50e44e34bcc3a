//! One simulated payment processor, as CONTRACT section 2 describes the real one, and the command `arena processors`.
//!
//! What matters to whoever calls a processor is the order in which it does things, so that order is the design:
//!
//! ```text
//!            service future, dropped when the caller hangs up   :  task of its own, runs to its end
//!   POST --> limiter: 800 run, 500 wait --> whole body --> bind :--> delay --> flag --> database --> INSERT
//!                 '--> 429                   '--> 413     '--> 400   (read     (read     (service     '--> 200
//!                                                                   before)    after)     time)       '--> 422
//! ```
//!
//! A caller that hangs up loses its place in the limiter's queue and nothing else: a payment that passed the limiter is
//! recorded however long its delay was. Delay and service time of zero need neither a task nor a timer.
//!
//! Reading order: `rows` (the table), `payment` (what can be bound), `limiter`, `window` (of the health call), `pace`
//! (the database's speed), `reply` (what is answered), `misbehaviour` (what can be done wrong on purpose), `line` (a
//! connection that can be broken), `http` (the routes), `command`. All but the last three are without sockets. Rows live in memory and end with the process, as the real table may: it is unlogged.
//!
//! This program competes for the processor with the system that it is there to test. Hence no line is logged for a
//! request, one lock holds all state, and nothing polls.

mod command;
mod http;
mod limiter;
mod line;
mod misbehaviour;
mod pace;
mod payment;
mod reply;
mod rows;
mod window;

pub use command::{ProcessorsArgs, run};
pub use misbehaviour::{HealthFault, Misbehaviour, Observed, PaymentFault};

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use wire::Processor;

/// Open connections. A judge's user is one connection and an api opens one for each call under way, so this is several
/// times what the limiter admits; beyond it connections stay in the kernel's backlog until another one closes.
pub const CONNECTIONS_MAX: usize = 8_192;

/// The kernel's backlog. All of the judge's users or all of an api's calls may connect within one millisecond, and a
/// connection that does not fit is retried after a second.
const BACKLOG: u32 = 4_096;

/// How long accepting rests when the process is out of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one simulated processor is like.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// Which of the two it plays; only its name, for whoever looks at the process.
    pub name: Processor,
    /// Fee for one payment in basis points (hundredths of a percent), 0 to 10,000.
    pub fee_bp: u32,
    /// The first value that `X-Rinha-Token` must have; `PUT /admin/configurations/token` changes it.
    pub token: String,
    /// What the database takes for one payment when undisturbed. The timer's grain is 1 ms; zero needs no timer.
    pub service_time: Duration,
    /// Payments a second that the database gets through at most; `None` is without a bound.
    pub capacity: Option<u32>,
    /// The window of `GET /payments/service-health`, one call each; at least 1 ms.
    pub health_window: Duration,
}

impl ProcessorConfig {
    /// What the competition's preview runs: 5 % or 15 %, token `123`, an undisturbed database.
    #[must_use]
    pub fn new(name: Processor) -> Self {
        let fee_bp = match name {
            Processor::Default => 500,
            Processor::Fallback => 1_500,
        };
        Self {
            name,
            fee_bp,
            token: "123".to_owned(),
            service_time: Duration::from_millis(1),
            capacity: None,
            health_window: Duration::from_secs(5),
        }
    }
}

/// Binds `addr` with a backlog that takes all callers at once.
///
/// # Errors
/// What the system says.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Plays one processor on `listener` until `shutdown` is ready.
///
/// It ends at once, like a killed container: open connections close without an answer, and what was recorded is gone.
/// It makes tasks with [`tokio::spawn`] and wants a runtime with I/O and time; a current-thread one is enough.
pub async fn serve(listener: TcpListener, config: ProcessorConfig, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let service = Arc::new(http::Service::new(&config));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => (),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(http::connection(stream, Arc::clone(&service)));
                }
                // The peer's own doing; the next connection is not affected.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                Err(error) => {
                    tracing::warn!(processor = config.name.name(), %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
