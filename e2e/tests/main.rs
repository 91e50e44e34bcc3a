//! The contract of the product over real sockets: real processes, raw bytes, and what the processors hold at the end.
//!
//! Reading order: [`harness`] (starts a stack, speaks HTTP byte by byte), then a module for each part of the contract.

mod forward;
mod handoff;
mod harness;
mod http;
mod intent;
mod limits;
mod memory;
mod misbehaviour;
mod operators;
mod purge;
mod reconcile;
mod refusals;
mod resources;
mod settings;
mod stderr;
mod tree;
mod upgrade;
mod witness;
