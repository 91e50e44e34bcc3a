//! The balancer: clients on TCP port 9999 on one side, the apis' Unix sockets on the other. It knows nothing of
//! payments, but for which requests may be sent twice.
//!
//! Reading order: [`backend`] (one api: its connections, whether it answers), [`balance`] (whose turn it is), [`forward`]
//! (a request goes through), [`server`] (what runs together).
//!
//! There is one mode, forward: a reverse proxy that balances each request and repeats it on another backend where that
//! is safe. The head that a backend gets is written anew from what was parsed, so no byte of a client's framing passes
//! through.

pub mod backend;
pub mod balance;
pub mod config;
pub mod forward;
pub mod metrics;
pub mod server;
