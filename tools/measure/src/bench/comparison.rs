//! Figures of several contestants, taken in turn, and what they are beside one of them.
//!
//! Machines differ and drift, so a figure alone says little. All contestants are measured once in every turn, one after
//! the other; what counts is the ratio to the first one *of the same turn*, as the median over all turns with its range.
//! A contestant that is the first one again (A/A) shows how far two measurements of the same thing lie apart: a
//! difference inside that range is none.

use crate::bench::machine::Machine;
use serde::Serialize;
use std::fmt;
use std::fmt::Write;

/// Something that is measured of every contestant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// What it is.
    pub name: &'static str,
    /// In what it is counted; may be empty.
    pub unit: &'static str,
    /// Digits after the point in tables.
    pub decimals: usize,
    /// Whether its ratio to the first contestant's means anything.
    pub is_compared: bool,
}

impl Metric {
    /// A metric whose ratios are shown.
    #[must_use]
    pub const fn compared(name: &'static str, unit: &'static str, decimals: usize) -> Self {
        Self { name, unit, decimals, is_compared: true }
    }

    /// A metric that only has to be seen, such as a number of failures.
    #[must_use]
    pub const fn shown(name: &'static str, unit: &'static str, decimals: usize) -> Self {
        Self { name, unit, decimals, is_compared: false }
    }
}

/// Everything that one measurement found out.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was measured, in words.
    pub title: String,
    /// Where.
    pub machine: Machine,
    /// Of everybody.
    pub metrics: &'static [Metric],
    /// Who; the first is what the others are compared with.
    pub contestants: Vec<Contestant>,
    /// What the reader has to know besides.
    pub notes: Vec<String>,
}

/// One of those who are measured.
#[derive(Clone, Debug, Serialize)]
pub struct Contestant {
    /// How it is called.
    pub name: String,
    /// For each turn a figure for each metric; nothing where there is none.
    pub turns: Vec<Vec<Option<f64>>>,
}

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number of figures the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these figures; `None` when there are none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, min, max })
    }

    fn text(self, decimals: usize) -> String {
        let number = |figure| grouped(figure, decimals);
        if self.min.total_cmp(&self.max).is_eq() {
            return number(self.median);
        }
        format!("{} ({} to {})", number(self.median), number(self.min), number(self.max))
    }
}

impl Comparison {
    /// A comparison without figures yet.
    #[must_use]
    pub fn new(title: String, metrics: &'static [Metric]) -> Self {
        Self { title, machine: Machine::this(), metrics, contestants: Vec::new(), notes: Vec::new() }
    }

    /// Enters the figures of one turn.
    ///
    /// # Panics
    /// When they are not as many as the metrics: the measurement is wrong then.
    pub fn enter(&mut self, name: &str, figures: &[Option<f64>]) {
        assert_eq!(figures.len(), self.metrics.len(), "one figure for each metric of {name}");
        let at =
            self.contestants.iter().position(|contestant| contestant.name == name).unwrap_or_else(|| {
                self.contestants.push(Contestant { name: name.into(), turns: Vec::new() });
                self.contestants.len() - 1
            });
        self.contestants[at].turns.push(figures.to_vec());
    }

    /// What a contestant has of one metric; nothing when nothing was entered.
    #[must_use]
    pub fn spread(&self, name: &str, metric: &str) -> Option<Spread> {
        let at = self.metrics.iter().position(|other| other.name == metric)?;
        let contestant = self.contestants.iter().find(|contestant| contestant.name == name)?;
        Spread::of(contestant.turns.iter().filter_map(|turn| turn[at]))
    }

    /// What a contestant has of a metric, divided by what the first one has of it in the same turn.
    fn ratio(&self, contestant: &Contestant, metric: usize) -> Option<Spread> {
        let base = self.contestants.first()?;
        let pairs = contestant.turns.iter().zip(&base.turns);
        Spread::of(pairs.filter_map(|(turn, base)| Some(turn[metric]? / base[metric]?)))
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let absent = || "-".to_owned();
        let mut heads = vec![String::new()];
        for metric in self.metrics {
            heads.push(format!("{} {}", metric.name, metric.unit).trim_end().to_owned());
            if metric.is_compared && self.contestants.len() > 1 {
                heads.push("ratio".into());
            }
        }
        let row = |contestant: &Contestant| {
            let mut row = vec![contestant.name.clone()];
            for (at, metric) in self.metrics.iter().enumerate() {
                let spread = self.spread(&contestant.name, metric.name);
                row.push(spread.map_or_else(absent, |spread| spread.text(metric.decimals)));
                if metric.is_compared && self.contestants.len() > 1 {
                    let ratio = self.ratio(contestant, at);
                    row.push(ratio.map_or_else(absent, |ratio| ratio.text(2)));
                }
            }
            row
        };
        [vec![heads], self.contestants.iter().map(row).collect()].concat()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turns = self.contestants.iter().map(|contestant| contestant.turns.len()).max().unwrap_or(0);
        writeln!(f, "{}", self.title)?;
        let turns = if turns == 1 { "1 turn".into() } else { format!("medians of {turns} turns (range)") };
        writeln!(f, "{turns}; {}", self.machine)?;
        f.write_str(&aligned(&self.rows()))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// A count as a figure.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// KiB as figures in MiB.
#[must_use]
pub fn mib(kib: u64) -> f64 {
    number(kib) / 1_024.0
}

/// Columns that are as wide as what stands in them; the first is text, the others are numbers.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let written = match column {
                0 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
            written.expect("a string grows");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number with its thousands apart.
fn grouped(figure: f64, decimals: usize) -> String {
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) =
        text.split_once('.').map_or((&text[..], None), |(whole, rest)| (whole, Some(rest)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &[Metric] = &[Metric::compared("ready", "ms", 1), Metric::shown("failed", "", 0)];

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([7.0]).unwrap().median.to_bits(), 7.0_f64.to_bits());
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_turn() {
        let mut comparison = Comparison::new("a test".into(), METRICS);
        // The machine became twice as slow in the second turn: both did, and the ratio stays.
        for (base, other) in [(10.0, 5.0), (20.0, 10.0)] {
            comparison.enter("base", &[Some(base), Some(0.0)]);
            comparison.enter("other", &[Some(other), None]);
        }
        let ratio = comparison.ratio(&comparison.contestants[1], 0).unwrap();
        assert_eq!(ratio, Spread { median: 0.5, min: 0.5, max: 0.5 });
        let table = aligned(&comparison.rows());
        let expected = "                      ready ms               ratio  failed
  base   15.0 (10.0 to 20.0)                1.00       0
  other    7.5 (5.0 to 10.0)                0.50       -
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&table), squeezed(expected));
    }

    #[test]
    fn thousands_are_told_apart() {
        for (figure, decimals, text) in [
            (0.0, 0, "0"),
            (999.0, 0, "999"),
            (1_000.0, 0, "1,000"),
            (1_234_567.891, 2, "1,234,567.89"),
            (-12_345.0, 0, "-12,345"),
            (-123.0, 0, "-123"),
        ] {
            assert_eq!(grouped(figure, decimals), text);
        }
    }
}
