//! Which (event x state) cells the generator has reached: a simulation that never combines two things proves nothing
//! about their combination.

use std::fmt;
use store::core::ledger::judgement::Subject;
use store::core::ledger::{Ledger, Standing};
use wire::frame::{Outcome, Report};

/// Where the payment of a report stands when it arrives.
const STATES: [&str; 9] = [
    "queued",
    "in flight, first",
    "in flight, repeated",
    "in flight, elsewhere",
    "charged here",
    "charged elsewhere",
    "dead",
    "tombstone",
    "no payment",
];

/// Counts of reports by what they say and whom they meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cells {
    counts: [[u64; STATES.len()]; Outcome::NAMES.len()],
}

impl Cells {
    /// Counts a report that is about to be taken.
    pub fn count(&mut self, ledger: &Ledger, subject: Subject, report: &Report) {
        let state = match subject {
            Subject::NoPayment => 8,
            Subject::Tombstone => 7,
            Subject::Payment(ordinal) => match (ledger.standing(ordinal), ledger.flights().get(&ordinal)) {
                (Standing::Queued, _) => 0,
                (Standing::Charged(by), _) => 4 + usize::from(by != report.processor),
                (Standing::Dead, _) => 6,
                (Standing::InFlight, Some(flight)) if flight.processor != report.processor => 3,
                (Standing::InFlight, Some(flight)) if flight.unanswered.len() > 1 => 2,
                (Standing::InFlight, _) => 1,
            },
        };
        self.counts[report.outcome.index()][state] += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (row, more) in self.counts.iter_mut().zip(&other.counts) {
            row.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }

    /// How many cells were reached.
    #[must_use]
    pub fn reached(&self) -> usize {
        self.counts.iter().flatten().filter(|count| **count > 0).count()
    }
}

impl fmt::Display for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12}", "")?;
        STATES.iter().try_for_each(|state| write!(f, " {state:>20}"))?;
        for (name, row) in Outcome::NAMES.iter().zip(&self.counts) {
            write!(f, "\n{name:12}")?;
            for count in row {
                if *count == 0 { write!(f, " {:>20}", ".")? } else { write!(f, " {count:>20}")? }
            }
        }
        Ok(())
    }
}
