//! Many verdicts in a table: the shares, the fines, and the plans where most was lost.

use super::verdict::{Ending, Fine, PlanVerdict};
use std::fmt;

/// Plans of the lower end that are shown one by one.
const WORST_SHOWN_MAX: usize = 12;

/// What is said of a set of verdicts.
#[derive(Debug)]
pub struct Summary<'a> {
    /// From the worst to the best.
    sorted: Vec<&'a PlanVerdict>,
}

impl<'a> Summary<'a> {
    /// Sorts them.
    #[must_use]
    pub fn new(verdicts: &'a [PlanVerdict]) -> Self {
        let mut sorted: Vec<_> = verdicts.iter().collect();
        sorted.sort_by(|left, right| left.share.total_cmp(&right.share));
        Self { sorted }
    }

    /// The line above the table.
    #[must_use]
    pub fn head(name: &str) -> String {
        format!(
            "{name:<12} {:>6} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "plans", "median", "5th pct", "worst", "mean", "unsettled", "dear", "fine", "fines"
        )
    }

    fn with_ending(&self, ending: Ending) -> Self {
        Self { sorted: self.sorted.iter().copied().filter(|verdict| verdict.ending == ending).collect() }
    }

    /// The share that so many per cent of the plans stay below.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = self.sorted.len() * percent / 100;
        self.sorted.get(at.min(self.sorted.len().saturating_sub(1))).map_or(f64::NAN, |verdict| verdict.share)
    }

    /// The mean share.
    #[must_use]
    pub fn share_mean(&self) -> f64 {
        self.mean(|verdict| verdict.share)
    }

    fn mean(&self, of: impl Fn(&PlanVerdict) -> f64) -> f64 {
        let sum: f64 = self.sorted.iter().map(|verdict| of(verdict)).sum();
        sum / f64::from(u32::try_from(self.sorted.len()).expect("fewer plans"))
    }

    /// One line of the table.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        let fines = |fine| self.sorted.iter().filter(|verdict| verdict.fine == Some(fine)).count();
        format!(
            "{name:<12} {:>6} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>10.2} {:>10.2} {:>10.2} {:>4}/{:>2}/{:>2}",
            self.sorted.len(),
            self.percentile(50),
            self.percentile(5),
            self.percentile(0),
            self.share_mean(),
            self.mean(|verdict| verdict.lost_unsettled),
            self.mean(|verdict| verdict.lost_dear),
            self.mean(|verdict| verdict.lost_fine),
            fines(Fine::Needed),
            fines(Fine::Surprised),
            fines(Fine::Avoidable),
        )
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "shares of the clairvoyant's score in %; lost to: unsettled, dear, fine (means); fines: needed/surprised/avoidable"
        )?;
        writeln!(f, "{}", Self::head("ending"))?;
        writeln!(f, "{}", self.row("all"))?;
        for ending in [Ending::Cheap, Ending::Dear, Ending::Late, Ending::Nothing] {
            let part = self.with_ending(ending);
            if !part.sorted.is_empty() {
                writeln!(f, "{}", part.row(&ending.to_string()))?;
            }
        }
        let sum = |of: fn(&PlanVerdict) -> u64| self.sorted.iter().map(|verdict| of(verdict)).sum::<u64>();
        let gap = self.sorted.iter().filter_map(|verdict| verdict.health_gap_ms).min();
        writeln!(
            f,
            "payments {}, changes of mind {}, turned away by a limiter {}, longest queue {}, longest wait {} ms, shortest time between health \
             calls {} ms",
            sum(|verdict| verdict.posted as u64),
            sum(|verdict| verdict.changes),
            sum(|verdict| verdict.busy),
            self.sorted.iter().map(|verdict| verdict.queue_max).max().unwrap_or(0),
            self.sorted.iter().map(|verdict| verdict.wait_max_ms).max().unwrap_or(0),
            gap.unwrap_or(0),
        )?;
        writeln!(f, "where most is lost:")?;
        for verdict in self.sorted.iter().take(WORST_SHOWN_MAX) {
            writeln!(f, "{verdict}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, share, ending, fees, settled, best, lag, best_lag, late, best_late, .. } = self;
        write!(
            f,
            "seed {seed}: {share:.2} %, fees {}/{}, ends {ending}; lost to unsettled {:.2}, dear {:.2}, fine {:.2}; \
             settled {settled:?} of {best:?}, lag {lag} of {best_lag}, late {late} of {best_late}",
            fees[0], fees[1], self.lost_unsettled, self.lost_dear, self.lost_fine
        )?;
        self.fine.map_or(Ok(()), |fine| write!(f, ", fined: {fine:?}"))
    }
}
