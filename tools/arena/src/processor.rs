//! One simulated payment processor, as docs/contract.md describes the real one, and the command `arena processors`.
//!
//! The order of its steps decides what a caller may conclude, so that order is the design:
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
mod config;
mod http;
mod limiter;
mod line;
mod misbehaviour;
mod pace;
mod payment;
mod reply;
mod rows;
mod server;
mod window;

pub use command::{ProcessorsArgs, run};
pub use config::ProcessorConfig;
pub use misbehaviour::{HealthFault, Misbehaviour, Observed, PaymentFault};
pub use server::{CONNECTIONS_MAX, bind, serve};
