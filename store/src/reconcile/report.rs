//! What a comparison found, for people and for machines. Pure.

use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use wire::frame::{Charge, Totals};
use wire::{Bounds, Cents, PerProcessor, Processor, Timestamp};

/// A window with both ends, which are included. It is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first time.
    pub from: Timestamp,
    /// The last time, not before the first.
    pub to: Timestamp,
}

impl Span {
    /// The same as a window that may be open.
    #[must_use]
    pub fn bounds(self) -> Bounds {
        Bounds { from: Some(self.from), to: Some(self.to) }
    }

    /// True for a time inside.
    #[must_use]
    pub fn contains(self, time: Timestamp) -> bool {
        self.bounds().contains(time)
    }

    /// How many microseconds it has.
    #[must_use]
    pub fn len_us(self) -> i64 {
        self.to.0.saturating_sub(self.from.0).saturating_add(1)
    }

    /// Both halves of a window that has at least two microseconds.
    #[must_use]
    pub fn halves(self) -> [Self; 2] {
        let middle = self.from.0.midpoint(self.to.0);
        [Self { to: Timestamp(middle), ..self }, Self { from: Timestamp(middle + 1), ..self }]
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// What a processor holds of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its amount.
    pub cents: Cents,
    /// Its time.
    pub requested_at: Timestamp,
}

/// A payment that a processor holds with another amount or time than we count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The processor.
    pub processor: Processor,
    /// What we count.
    pub charge: Charge,
    /// What the processor holds.
    pub row: Row,
}

/// What a processor counts in a window beyond (or below) the rows that were found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// The processor.
    pub processor: Processor,
    /// The window.
    pub span: Span,
    /// Rows.
    pub count: i64,
    /// Their sum.
    pub cents: Cents,
    /// Payments without an answer that the processor may hold there.
    pub in_flight: u64,
}

/// Windows that differ and in which not every payment was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// From the first one's first time to the last one's last.
    pub span: Span,
    /// How many.
    pub windows: u64,
    /// What we count in them.
    pub ours: Totals,
    /// What the processor counts in them.
    pub theirs: Totals,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was compared, or is to be; `None` when there is nothing.
    pub range: Option<Span>,
    /// False when the comparison had to stop before the end.
    pub is_complete: bool,
    /// Sums that processors were asked for.
    pub sums: u64,
    /// Payments that were looked up.
    pub look_ups: u64,
    /// What we count.
    pub ours: PerProcessor<Totals>,
    /// What the processors count.
    pub theirs: PerProcessor<Totals>,
    /// Charged by our books; the processor holds no row.
    pub missing: Vec<(Processor, Charge)>,
    /// Held with another amount or time.
    pub differing: Vec<Differing>,
    /// Counted by a processor, and by no payment of ours.
    pub unexplained: Vec<Remainder>,
    /// The same where as many payments are in flight.
    pub open: Vec<Remainder>,
    /// Not looked up, or not to the end.
    pub left_out: PerProcessor<Option<LeftOut>>,
}

impl Report {
    /// Counts a window.
    pub fn count(&mut self, processor: Processor, ours: Totals, theirs: Totals) {
        plus(&mut self.ours[processor], ours);
        plus(&mut self.theirs[processor], theirs);
    }

    /// Counts a window that differs and is not looked into to its end.
    pub fn leave_out(&mut self, processor: Processor, span: Span, ours: Totals, theirs: Totals) {
        let nothing = LeftOut { span, windows: 0, ours: Totals::default(), theirs: Totals::default() };
        let left_out = self.left_out[processor].get_or_insert(nothing);
        left_out.span.to = left_out.span.to.max(span.to);
        left_out.windows += 1;
        plus(&mut left_out.ours, ours);
        plus(&mut left_out.theirs, theirs);
    }

    /// True when something differs that no payment in flight explains.
    #[must_use]
    pub fn differs(&self) -> bool {
        Processor::BOTH.into_iter().any(|processor| self.differs_at(processor))
    }

    fn differs_at(&self, processor: Processor) -> bool {
        self.missing.iter().any(|(at, _)| *at == processor)
            || self.differing.iter().any(|differing| differing.processor == processor)
            || self.unexplained.iter().any(|remainder| remainder.processor == processor)
            || self.left_out[processor].is_some()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.put_text(&mut text).expect("a string takes any text");
        text
    }

    fn put_text(&self, out: &mut String) -> fmt::Result {
        let Some(range) = self.range else {
            return writeln!(out, "nothing to compare: no payment was sent in a closed window");
        };
        let (sums, look_ups) = (self.sums, self.look_ups);
        writeln!(out, "{range}: {sums} sums compared, {look_ups} payments looked up")?;
        if !self.is_complete {
            writeln!(out, "The comparison stopped before its end: what follows is not all.")?;
        }
        writeln!(out, "\n{:<10}{:>24}{:>28}", "processor", "our books", "its own sums")?;
        for processor in Processor::BOTH {
            let side = |totals: Totals| format!("{} of {}", totals.cents, totals.count);
            let (ours, theirs) = (side(self.ours[processor]), side(self.theirs[processor]));
            let verdict = match (self.differs_at(processor), self.is_complete) {
                (true, _) => "  differs",
                (false, true) => "  agrees",
                (false, false) => "  agrees so far",
            };
            writeln!(out, "{:<10}{ours:>24}{theirs:>28}{verdict}", processor.name())?;
        }
        for processor in Processor::BOTH {
            self.put_missing(processor, out)?;
            self.put_differing(processor, out)?;
            let rows = "unexplained: rows that it counts beyond (or below) our payments";
            put_remainders(&self.unexplained, processor, rows, out)?;
            put_remainders(&self.open, processor, "in flight: may be payments without an answer", out)?;
            if let Some(LeftOut { span, windows, ours, theirs }) = self.left_out[processor] {
                writeln!(out, "\n{processor}, not looked up: {windows} windows that differ, {span}")?;
                writeln!(
                    out,
                    "  ours {} of {}, there {} of {}",
                    ours.cents, ours.count, theirs.cents, theirs.count
                )?;
                writeln!(out, "  run it again with --from {} or a higher --look-ups-max", span.from)?;
            }
        }
        Ok(())
    }

    fn put_missing(&self, processor: Processor, out: &mut String) -> fmt::Result {
        let mut missing = self.missing.iter().filter(|(at, _)| *at == processor).peekable();
        if missing.peek().is_some() {
            writeln!(out, "\n{processor}, missing: charged by our books, and it holds no row")?;
        }
        missing.try_for_each(|(_, charge)| {
            writeln!(out, "  {} {} at {}", charge.id, charge.cents, charge.requested_at)
        })
    }

    fn put_differing(&self, processor: Processor, out: &mut String) -> fmt::Result {
        let mut differing = self.differing.iter().filter(|found| found.processor == processor).peekable();
        if differing.peek().is_some() {
            writeln!(out, "\n{processor}, differing: it holds another amount or time")?;
        }
        differing.try_for_each(|Differing { charge, row, .. }| {
            let Charge { id, cents, requested_at } = charge;
            writeln!(out, "  {id} {cents} at {requested_at}; there {} at {}", row.cents, row.requested_at)
        })
    }

    /// For machines. Amounts are in cents.
    #[must_use]
    pub fn json(&self) -> Value {
        let processor = |processor: Processor| {
            let missing = self.missing.iter().filter(|(at, _)| *at == processor);
            let differing = self.differing.iter().filter(|found| found.processor == processor);
            json!({
                "differs": self.differs_at(processor),
                "ours": totals(self.ours[processor]),
                "theirs": totals(self.theirs[processor]),
                "missing": missing.map(|(_, charge)| charge_json(charge)).collect::<Vec<_>>(),
                "differing": differing.map(differing_json).collect::<Vec<_>>(),
                "unexplained": remainders(&self.unexplained, processor),
                "in_flight": remainders(&self.open, processor),
                "not_looked_up": self.left_out[processor].map(|left_out| json!({
                    "from": left_out.span.from.to_string(),
                    "to": left_out.span.to.to_string(),
                    "windows": left_out.windows,
                    "ours": totals(left_out.ours),
                    "theirs": totals(left_out.theirs),
                })),
            })
        };
        json!({
            "complete": self.is_complete,
            "from": self.range.map(|range| range.from.to_string()),
            "to": self.range.map(|range| range.to.to_string()),
            "sums": self.sums,
            "look_ups": self.look_ups,
            "default": processor(Processor::Default),
            "fallback": processor(Processor::Fallback),
        })
    }
}

fn put_remainders(all: &[Remainder], processor: Processor, title: &str, out: &mut String) -> fmt::Result {
    let mut remainders = all.iter().filter(|remainder| remainder.processor == processor).peekable();
    if remainders.peek().is_some() {
        writeln!(out, "\n{processor}, {title}")?;
    }
    remainders.try_for_each(|Remainder { span, count, cents, in_flight, .. }| {
        write!(out, "  {span}: count {count}, sum {cents}")?;
        if *in_flight > 0 { writeln!(out, "; up to {in_flight} payments in flight") } else { writeln!(out) }
    })
}

/// Adds up what may have come from a processor, whose numbers have no bound.
pub(super) fn plus(sum: &mut Totals, more: Totals) {
    sum.count = sum.count.saturating_add(more.count);
    sum.cents.0 = sum.cents.0.saturating_add(more.cents.0);
}

fn totals(totals: Totals) -> Value {
    json!({ "count": totals.count, "cents": totals.cents.0 })
}

fn charge_json(charge: &Charge) -> Value {
    json!({
        "correlationId": charge.id.to_string(),
        "cents": charge.cents.0,
        "requestedAt": charge.requested_at.to_string(),
    })
}

fn differing_json(differing: &Differing) -> Value {
    json!({
        "ours": charge_json(&differing.charge),
        "theirs": {
            "cents": differing.row.cents.0,
            "requestedAt": differing.row.requested_at.to_string(),
        },
    })
}

fn remainders(all: &[Remainder], processor: Processor) -> Vec<Value> {
    let of_it = all.iter().filter(|remainder| remainder.processor == processor);
    let remainder = |remainder: &Remainder| {
        json!({
            "from": remainder.span.from.to_string(),
            "to": remainder.span.to.to_string(),
            "count": remainder.count,
            "cents": remainder.cents.0,
            "in_flight": remainder.in_flight,
        })
    };
    of_it.map(remainder).collect()
}
