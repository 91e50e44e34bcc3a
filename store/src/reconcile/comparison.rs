//! Which question comes next, and what the answers mean. Pure: no socket, no clock.
//!
//! ```text
//!   Survey   where does the rest of the range begin, by the store? Cuts off one window, and the time before it
//!   Books    what does the store know about this window?
//!   Sum      what does the processor say?  equal: done. Else: halves, down to LEAF_LEN charges of ours
//!   List     which charges are these?
//!   LookUp   what does the processor hold of each?
//! ```
//!
//! The steps lie on a stack, so at most two for each halving are remembered. The store is asked before the processor.
//! Therefore a processor may hold more than the store counts, by at most the payments that were in flight there. What it
//! holds beyond the rows that were looked up is in flight up to that number, and unexplained above it.
//!
//! A row that was found under another time counts in the window where the processor has it: [`Comparison::finish`] takes
//! it off what is unexplained there.
//!
//! Bounds: `look_ups_max` payments are looked up. After that a window that differs is only counted.

use super::report::{Differing, Remainder, Report, Row, Span, plus};
use std::mem;
use wire::frame::{Charge, Totals, Window};
use wire::{Bounds, Cents, PaymentId, Processor, Timestamp};

/// Charges of ours that are looked up one by one. Halving such a window again would ask the processor as often.
const LEAF_LEN: u64 = 16;

/// The shortest window that is halved, in microseconds: the store issues whole milliseconds.
const HALVED_US_MIN: i64 = 1_000;

/// What is compared, and how.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first `requestedAt`; the store's first if there is none.
    pub from: Option<Timestamp>,
    /// The last `requestedAt`, if it is not too recent.
    pub to: Option<Timestamp>,
    /// Windows that end less than this time before the store's present are not compared, in microseconds.
    pub margin_us: i64,
    /// How long a window is, in microseconds; above 0.
    pub window_us: i64,
    /// Payments that are looked up at a processor.
    pub look_ups_max: u64,
}

/// What has to be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The store: what is known about a window.
    Window(Bounds),
    /// The store: some of a processor's charges inside a window.
    Charges {
        /// The processor.
        processor: Processor,
        /// The window.
        span: Span,
        /// Where the page begins.
        from: u32,
    },
    /// A processor: count and sum of a window.
    Sum(Processor, Span),
    /// A processor: what it holds of a payment.
    Row(Processor, PaymentId),
}

/// What was answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Window`].
    Window(Window),
    /// To [`Question::Charges`]: a page, and where the next one begins.
    Charges(Vec<Charge>, Option<u32>),
    /// To [`Question::Sum`].
    Sum(Totals),
    /// To [`Question::Row`]: `None` when there is no row.
    Row(Option<Row>),
}

/// The store was purged meanwhile: its books are those of another world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store was purged while its books were compared: run it again")]
pub struct Purged;

/// A window that differs and is looked at payment by payment.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    span: Span,
    processor: Processor,
    ours: Totals,
    theirs: Totals,
    in_flight: u64,
    /// Rows that were found, and that the processor must have counted in this window.
    seen: Totals,
}

#[derive(Clone, Debug)]
enum Step {
    Survey {
        from: Option<Timestamp>,
    },
    /// `None`: for both processors, as a window of its own. Else the half of a window.
    Books {
        span: Span,
        half_of: Option<Processor>,
    },
    Sum {
        span: Span,
        processor: Processor,
        books: Window,
        is_half: bool,
    },
    List {
        leaf: Leaf,
        from: u32,
    },
    LookUp {
        leaf: Leaf,
        charges: Vec<Charge>,
        next: Option<u32>,
    },
}

/// One comparison, from the first question to the report.
#[derive(Debug)]
pub struct Comparison {
    limits: Limits,
    /// The last step is the next one.
    steps: Vec<Step>,
    world: Option<u64>,
    report: Report,
    strays: Vec<(Processor, Row)>,
    remainders: Vec<Remainder>,
}

impl Comparison {
    /// One that has asked nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let steps = vec![Step::Survey { from: limits.from }];
        let report = Report::default();
        Self { limits, steps, world: None, report, strays: Vec::new(), remainders: Vec::new() }
    }

    /// What has to be asked next; `None` at the end.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        Some(match self.steps.last()? {
            Step::Survey { from } => {
                let to = self.report.range.map_or(self.limits.to, |range| Some(range.to));
                Question::Window(Bounds { from: *from, to })
            }
            Step::Books { span, .. } => Question::Window(span.bounds()),
            Step::Sum { span, processor, .. } => Question::Sum(*processor, *span),
            Step::List { leaf: Leaf { span, processor, .. }, from } => {
                Question::Charges { processor: *processor, span: *span, from: *from }
            }
            Step::LookUp { leaf, charges, .. } => {
                Question::Row(leaf.processor, charges.last().expect("a charge is looked up").id)
            }
        })
    }

    /// How much of the range has been compared, from 0 to 1.
    #[must_use]
    pub fn done_share(&self) -> f64 {
        let Some(range) = self.report.range else { return 0.0 };
        let rest = self.steps.iter().filter_map(|step| match step {
            Step::Survey { from } => from.map(|from| Span { from, to: range.to }.len_us()),
            Step::Books { span, .. } => Some(span.len_us()),
            _ => None,
        });
        let (rest, whole) = (rest.fold(0_i64, i64::saturating_add), range.len_us());
        #[expect(clippy::cast_precision_loss, reason = "shown in whole percent")]
        let share = 1.0 - rest as f64 / whole as f64;
        share.clamp(0.0, 1.0)
    }

    /// What was found so far, and what was asked.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What was found, in the end or when the comparison had to stop.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.report.is_complete = self.steps.is_empty();
        for mut remainder in mem::take(&mut self.remainders) {
            let has_come = |(processor, row): &&(Processor, Row)| {
                *processor == remainder.processor && remainder.span.contains(row.requested_at)
            };
            for (_, row) in self.strays.iter().filter(has_come) {
                remainder.count -= 1;
                remainder.cents = minus(remainder.cents, row.cents);
            }
            if (remainder.count, remainder.cents) == (0, Cents(0)) {
                continue;
            }
            if (1..=remainder.in_flight).contains(&remainder.count.unsigned_abs()) {
                self.report.open.push(remainder);
            } else {
                self.report.unexplained.push(remainder);
            }
        }
        self.report
    }

    /// Takes the answer to [`Comparison::question`].
    ///
    /// # Errors
    /// [`Purged`] when the store's books are no longer those that the comparison began with.
    ///
    /// # Panics
    /// When it is the answer to a question of another kind.
    pub fn answer(&mut self, answer: Answer) -> Result<(), Purged> {
        if let Answer::Window(window) = &answer
            && *self.world.get_or_insert(window.world) != window.world
        {
            return Err(Purged);
        }
        let step = self.steps.pop().expect("a question was asked");
        match (step, answer) {
            (Step::Survey { from }, Answer::Window(window)) => self.survey(from, &window),
            (Step::Books { span, half_of }, Answer::Window(books)) => {
                let is_half = half_of.is_some();
                for processor in Processor::BOTH.into_iter().rev() {
                    if half_of.is_none_or(|half_of| half_of == processor) {
                        self.steps.push(Step::Sum { span, processor, books, is_half });
                    }
                }
            }
            (Step::Sum { span, processor, books, is_half }, Answer::Sum(theirs)) => {
                self.compare(span, processor, &books, theirs, is_half);
            }
            (Step::List { leaf, .. }, Answer::Charges(charges, next)) => self.look_up(leaf, charges, next),
            (Step::LookUp { leaf, charges, next }, Answer::Row(row)) => self.judge(leaf, charges, next, row),
            (step, answer) => panic!("{answer:?} answers no question of {step:?}"),
        }
        Ok(())
    }

    fn survey(&mut self, from: Option<Timestamp>, window: &Window) {
        let Some(start) = from.or(window.first) else { return };
        let end = match self.report.range {
            Some(range) => range.to,
            None => {
                let closed = Timestamp(window.now.0.saturating_sub(self.limits.margin_us));
                self.limits.to.map_or(closed, |to| to.min(closed))
            }
        };
        if start > end {
            return;
        }
        self.report.range.get_or_insert(Span { from: start, to: end });
        let push = |steps: &mut Vec<Step>, span| steps.push(Step::Books { span, half_of: None });
        let Some(first) = window.first.map(|first| first.max(start)).filter(|first| *first <= end) else {
            return push(&mut self.steps, Span { from: start, to: end });
        };
        let to = Timestamp(first.0.saturating_add(self.limits.window_us - 1)).min(end);
        if to < end {
            self.steps.push(Step::Survey { from: Some(Timestamp(to.0 + 1)) });
        }
        push(&mut self.steps, Span { from: first, to });
        if start < first {
            push(&mut self.steps, Span { from: start, to: Timestamp(first.0 - 1) });
        }
    }

    fn compare(&mut self, span: Span, processor: Processor, books: &Window, theirs: Totals, is_half: bool) {
        let ours = books.charged[processor];
        self.report.sums += 1;
        if !is_half {
            self.report.count(processor, ours, theirs);
        }
        if ours == theirs {
            return;
        }
        if self.report.look_ups >= self.limits.look_ups_max {
            return self.report.leave_out(processor, span, ours, theirs);
        }
        if ours.count <= LEAF_LEN || span.len_us() < HALVED_US_MIN {
            let in_flight = books.in_flight[processor];
            let leaf = Leaf { span, processor, ours, theirs, in_flight, seen: Totals::default() };
            return self.go_on(leaf, (ours.count > 0).then_some(0));
        }
        for half in span.halves().into_iter().rev() {
            self.steps.push(Step::Books { span: half, half_of: Some(processor) });
        }
    }

    /// Lists more charges of a leaf, or ends it.
    fn go_on(&mut self, leaf: Leaf, next: Option<u32>) {
        if let Some(from) = next {
            return self.steps.push(Step::List { leaf, from });
        }
        let Leaf { span, processor, theirs, seen, in_flight, .. } = leaf;
        let count = signed(theirs.count) - signed(seen.count);
        let cents = minus(theirs.cents, seen.cents);
        if (count, cents) != (0, Cents(0)) {
            self.remainders.push(Remainder { processor, span, count, cents, in_flight });
        }
    }

    fn look_up(&mut self, leaf: Leaf, charges: Vec<Charge>, next: Option<u32>) {
        if charges.is_empty() {
            self.go_on(leaf, next);
        } else if self.report.look_ups >= self.limits.look_ups_max {
            self.report.leave_out(leaf.processor, leaf.span, leaf.ours, leaf.theirs);
        } else {
            self.steps.push(Step::LookUp { leaf, charges, next });
        }
    }

    fn judge(&mut self, mut leaf: Leaf, mut charges: Vec<Charge>, next: Option<u32>, row: Option<Row>) {
        let charge = charges.pop().expect("a charge was looked up");
        let processor = leaf.processor;
        self.report.look_ups += 1;
        match row {
            None => self.report.missing.push((processor, charge)),
            Some(row) => {
                if row != (Row { cents: charge.cents, requested_at: charge.requested_at }) {
                    self.report.differing.push(Differing { processor, charge, row });
                }
                if leaf.span.contains(row.requested_at) {
                    plus(&mut leaf.seen, Totals { count: 1, cents: row.cents });
                } else {
                    self.strays.push((processor, row));
                }
            }
        }
        self.look_up(leaf, charges, next);
    }
}

/// What processors say has no bound of ours.
fn minus(cents: Cents, other: Cents) -> Cents {
    Cents(cents.0.saturating_sub(other.0))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
