//! What a 2xx promises.

/// What must have happened to a record before anything that rests on it leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// It was written: survives the death of any process, not a power loss
    Process,
    /// It was flushed to the disk: survives a power loss too
    Always,
    /// Nothing, there is no log: loses everything. Only for measuring
    None,
}
