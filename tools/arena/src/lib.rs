//! The black box: it starts everything on this machine, plays the processors and the judge, attacks what it has started,
//! and compares what clients were told with what the processors hold. It knows sockets and frames, and nothing of the
//! inside of the store or an api.
//!
//! Reading order
//! * what is started: [`processor`] (one simulated payment processor), [`checkout`], [`binaries`], [`child`], [`stack`],
//!   [`up`], [`containers`], [`limits`];
//! * the judge: [`client`] over an [`endpoint`], [`user`], [`sides`], [`audit`], [`judge`], and its book, the [`tally`] of
//!   what clients were [`told`];
//! * what comes of it: what is [`wrong`], [`reckoning`], [`report`], all of it led by [`fight`];
//! * what it survives: [`chaos`], and [`hostile`] clients;
//! * and around it: [`cli`], [`run_dir`], [`signals`], [`terminal`], [`progress`].

pub mod audit;
pub mod binaries;
pub mod chaos;
pub mod checkout;
pub mod child;
pub mod cli;
pub mod client;
pub mod containers;
pub mod endpoint;
pub mod fight;
pub mod hostile;
pub mod judge;
pub mod limits;
pub mod processor;
pub mod progress;
pub mod reckoning;
pub mod report;
pub mod run_dir;
pub mod sides;
pub mod signals;
pub mod stack;
pub mod tally;
pub mod terminal;
pub mod told;
pub mod up;
pub mod user;
pub mod wrong;
