//! The table of both checks, after a fight and after a round of chaos: what a client was told, and how often processors hold
//! the payment.
//!
//! | a client was told | held by none | once | twice |
//! |---|---|---|---|
//! | 2xx | lost | right | doubled |
//! | that nothing was recorded, each time | right | contradicted | doubled, contradicted |
//! | nothing for certain | right | right | doubled |
//! | anything, before a purge | right | right, and in no sum | doubled |
//! | (never asked) | | invented | invented |
//!
//! A charge of another amount than the one asked for is altered as well.

use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrong {
    /// Accepted, and held by no processor.
    Lost,
    /// Held by both, or by one under two times.
    Doubled,
    /// Held, and never asked for.
    Invented,
    /// Held with another amount, or accepted with another one.
    Altered,
    /// Said to be not recorded, and held all the same; or a good payment that was turned down.
    Contradicted,
    /// Answered 202 more than once.
    Reaccepted,
}

impl Wrong {
    /// All kinds, as the table has them.
    pub const ALL: [Self; 6] =
        [Self::Lost, Self::Doubled, Self::Invented, Self::Altered, Self::Contradicted, Self::Reaccepted];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Invented => "invented",
            Self::Altered => "altered",
            Self::Contradicted => "contradicted",
            Self::Reaccepted => "reaccepted",
        }
    }
}

/// What clients know of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was accepted.
    Accepted,
    /// Each answer said that nothing was recorded.
    Refused,
    /// Nothing for certain.
    Unanswered,
    /// Whatever it was, a purge has forgotten it.
    Purged,
    /// It was never asked for.
    NeverAsked,
}

/// What is wrong with a payment that processors hold `charges` times, `is_altered` at least once with another amount.
#[must_use]
pub fn wrongs(known: Known, charges: usize, is_altered: bool) -> Vec<Wrong> {
    if known == Known::NeverAsked {
        return if charges > 0 { vec![Wrong::Invented] } else { Vec::new() };
    }
    let checks = [
        (Wrong::Lost, known == Known::Accepted && charges == 0),
        (Wrong::Doubled, charges > 1),
        (Wrong::Altered, is_altered),
        (Wrong::Contradicted, known == Known::Refused && charges > 0),
    ];
    checks.into_iter().filter(|(_, is_so)| *is_so).map(|(wrong, _)| wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_enumerated_whole() {
        use Wrong::{Contradicted, Doubled, Invented, Lost};
        for (known, expected) in [
            (Known::Accepted, [&[Lost][..], &[], &[Doubled]]),
            (Known::Refused, [&[], &[Contradicted], &[Doubled, Contradicted]]),
            (Known::Unanswered, [&[], &[], &[Doubled]]),
            (Known::Purged, [&[], &[], &[Doubled]]),
            (Known::NeverAsked, [&[], &[Invented], &[Invented]]),
        ] {
            for (charges, expected) in expected.into_iter().enumerate() {
                assert_eq!(wrongs(known, charges, false), expected, "{known:?}, {charges}");
            }
        }
        assert_eq!(wrongs(Known::Accepted, 1, true), [Wrong::Altered]);
    }
}
