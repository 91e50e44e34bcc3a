//! The api: HTTP on one side, the store and the two processors on the other. It validates, asks the store, answers;
//! and it makes the calls that the store leases to it and reports what came of them.
//!
//! It decides nothing about a payment. Which processor gets it, what is owed, what is settled: all of that is the
//! store's. What an answer of a processor proves is the api's one piece of judgement ([`evidence`]).
//!
//! Reading order: [`payment`] and [`window`] (what clients may send), [`routes`] (endpoints), [`desk`] (what is asked,
//! out and not yet reported; pure), [`link`] (the connection to the store), [`processor`] (HTTP to the processors, where [`resolver`] finds
//! them, over the kept connections of [`pool`]),
//! [`settle`] (leases become calls become reports), [`handoff`] (clients whose sockets come from lb), [`server`] (what
//! runs together).

pub mod config;
pub mod desk;
pub mod evidence;
pub mod handoff;
pub mod link;
pub mod metrics;
pub mod payment;
pub mod pool;
pub mod processor;
pub mod resolver;
pub mod routes;
pub mod server;
pub mod settle;
pub mod window;
