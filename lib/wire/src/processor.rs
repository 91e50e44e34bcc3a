//! The two payment processors, by name only. Where they are is known to the api alone.

use std::fmt;
use std::ops::{Index, IndexMut};

/// One of the two external payment processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Processor {
    /// The cheap one.
    Default = 0,
    /// The dear one.
    Fallback = 1,
}

impl Processor {
    /// Both, the cheap one first.
    pub const BOTH: [Self; 2] = [Self::Default, Self::Fallback];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Default => Self::Fallback,
            Self::Fallback => Self::Default,
        }
    }

    /// The name in summaries, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fallback => "fallback",
        }
    }

    /// Reads the number that [`Processor`] has in frames and records.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::BOTH.into_iter().find(|processor| *processor as u8 == byte)
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value for each processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerProcessor<T>(pub [T; 2]);

impl<T> PerProcessor<T> {
    /// Makes both values, the default processor's first.
    pub fn from_fn(make: impl FnMut(Processor) -> T) -> Self {
        Self(Processor::BOTH.map(make))
    }

    /// Both values with their processors.
    pub fn iter(&self) -> impl Iterator<Item = (Processor, &T)> {
        Processor::BOTH.into_iter().zip(&self.0)
    }
}

impl<T> Index<Processor> for PerProcessor<T> {
    type Output = T;

    fn index(&self, processor: Processor) -> &T {
        &self.0[processor as usize]
    }
}

impl<T> IndexMut<Processor> for PerProcessor<T> {
    fn index_mut(&mut self, processor: Processor) -> &mut T {
        &mut self.0[processor as usize]
    }
}
