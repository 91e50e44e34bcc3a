//! Eight ways to lose money, each known to charge twice or to make sums differ (docs/money.md). They exist so
//! that the simulation can be seen to find them. Without the cargo feature `mutants`, which no release build enables,
//! [`is`] is the constant `false` and the compiler leaves nothing of them.

use std::fmt;

/// An unsafe variant of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An attempt without an answer is taken for a no.
    MoveOnTimeout,
    /// A `GET` 404 is taken for a no while attempts have no answer.
    MoveOnAbsence,
    /// A call that takes long is tried on the other processor as well.
    Hedge,
    /// An intent is remembered, but not written.
    VolatileIntent,
    /// The calls of an api that is gone are taken for never made.
    GoneIsNo,
    /// Any answer with 5xx is taken for a no.
    AnyServerErrorIsNo,
    /// A repetition carries a new time.
    FreshTimeWhileUnknown,
    /// A gateway's 504 is taken for the processor's no.
    GatewayTimeoutIsNo,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::MoveOnTimeout,
        Self::MoveOnAbsence,
        Self::Hedge,
        Self::VolatileIntent,
        Self::GoneIsNo,
        Self::AnyServerErrorIsNo,
        Self::FreshTimeWhileUnknown,
        Self::GatewayTimeoutIsNo,
    ];
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MoveOnTimeout => "move on timeout",
            Self::MoveOnAbsence => "move on GET 404 after a timeout",
            Self::Hedge => "hedge across processors",
            Self::VolatileIntent => "intent not durable",
            Self::GoneIsNo => "lease expiry back to the queue",
            Self::AnyServerErrorIsNo => "any 500 counts as no",
            Self::FreshTimeWhileUnknown => "fresh R while unknown",
            Self::GatewayTimeoutIsNo => "a gateway's 504 counts as no",
        })
    }
}

/// True while this thread runs that mutant.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local!(static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) });

    /// Makes this thread run a mutant, or none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// True while this thread runs that mutant.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}
