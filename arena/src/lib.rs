//! The tool that runs, attacks and measures Espora: it starts everything locally, plays the processors and the judge,
//! and compares what clients were told with what the processors hold.
//!
//! Reading order
//! * what is started: [`processor`] (one simulated payment processor), [`child`], [`binaries`], [`stack`], [`up`],
//!   [`containers`], [`limits`];
//! * the judge: [`plan`], [`client`] over an [`endpoint`], [`user`], [`sides`], [`audit`], [`judge`], and its book, the
//!   [`tally`];
//! * what comes of it: [`score`], [`clairvoyant`], [`reckoning`], [`report`], all of it led by [`fight`];
//! * what it survives: [`chaos`] with real processes, [`simulation`] without, and [`hostile`] clients;
//! * where its time goes: [`profile`];
//! * the same in simulated time: [`simulate`] for the money, the [`lab`] for the points;
//! * how fast it is: [`mod@bench`];
//! * and around it: [`config`], [`run_dir`], [`by_processor`], [`signals`], [`terminal`], [`progress`].

pub mod audit;
pub mod bench;
pub mod binaries;
pub mod by_processor;
pub mod chaos;
pub mod child;
pub mod clairvoyant;
pub mod client;
pub mod config;
pub mod containers;
pub mod endpoint;
pub mod fight;
pub mod hostile;
pub mod judge;
pub mod lab;
pub mod limits;
pub mod plan;
pub mod processor;
pub mod profile;
pub mod progress;
pub mod reckoning;
pub mod report;
pub mod run_dir;
pub mod score;
pub mod sides;
pub mod signals;
pub mod simulate;
pub mod simulation;
pub mod stack;
pub mod tally;
pub mod terminal;
pub mod up;
pub mod user;
