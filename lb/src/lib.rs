//! The balancer: clients on TCP port 9999 on one side, the apis' Unix sockets on the other. It knows nothing of
//! payments, but for which requests may be sent twice.
//!
//! Reading order: for mode forward [`upstream`] (a request put to an api), [`backend`] (one api: whether it answers),
//! [`balance`] (whose turn it is), [`deadlines`] (how long an answer is waited for), [`forward`] (a request goes through);
//! for mode hand-off [`copies`] (which client is with which api), [`handoff`] (a socket goes to an api); then [`takeover`]
//! (a new balancer in the place of an old one), [`timer`] (what is done now and then) and [`server`] (what runs together).
//!
//! Forward is a reverse proxy that balances each request and repeats it on another backend where that is safe. The head
//! that a backend gets is written anew from what was parsed, so no byte of a client's framing passes through. Hand-off
//! passes the client's socket to an api with everything that comes on it.

pub mod backend;
pub mod balance;
pub mod config;
pub mod copies;
pub mod deadlines;
pub mod forward;
pub mod handoff;
pub mod metrics;
pub mod server;
pub mod takeover;
pub mod timer;
pub mod upstream;
