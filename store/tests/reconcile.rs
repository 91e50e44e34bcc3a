//! `store reconcile` without a store and without processors: a comparison is answered from lists, and what it reports is
//! held against what the lists say.
//!
//! Every row has an amount of its own, a power of two. So no two sets of rows have the same sum, and no difference hides
//! another one.

use proptest::prelude::*;
use store::reconcile::comparison::{Answer, Comparison, Limits, Purged, Question};
use store::reconcile::report::{Report, Row, Span};
use wire::frame::{Charge, Totals, Window};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor, Timestamp};

/// Charges on one page of the model.
const PAGE_LEN: usize = 5;

/// The store's present, in microseconds.
const NOW_US: i64 = 10_000_000;

/// A payment, in our books and at its processor.
#[derive(Clone, Copy, Debug)]
struct Fact {
    processor: Processor,
    ours: Ours,
    /// The row there.
    row: Option<Row>,
    id: PaymentId,
}

#[derive(Clone, Copy, Debug)]
enum Ours {
    Nothing,
    InFlight(Timestamp),
    Charged(Charge),
}

/// Both sides, and what was asked of them.
struct Model {
    facts: Vec<Fact>,
    world: u64,
    asked: Vec<Question>,
}

impl Model {
    fn new(facts: Vec<Fact>) -> Self {
        Self { facts, world: 1, asked: Vec::new() }
    }

    fn compare(&mut self, limits: Limits) -> Report {
        let mut comparison = Comparison::new(limits);
        while let Some(question) = comparison.question() {
            assert!(self.asked.len() < 100_000, "a comparison without an end");
            let answer = self.answer(question);
            comparison.answer(answer).unwrap();
        }
        comparison.finish()
    }

    fn answer(&mut self, question: Question) -> Answer {
        self.asked.push(question);
        match question {
            Question::Window(bounds) => Answer::Window(self.window(bounds)),
            Question::Charges { processor, span, from } => {
                let all = self.charges(processor, span.bounds());
                let rest = &all[from as usize..];
                let page = rest[..rest.len().min(PAGE_LEN)].to_vec();
                let next = (rest.len() > page.len()).then(|| from + u32::try_from(page.len()).unwrap());
                Answer::Charges(page, next)
            }
            Question::Sum(processor, span) => {
                let rows = self.rows(processor).filter(|row| span.contains(row.requested_at));
                Answer::Sum(total(rows.map(|row| row.cents)))
            }
            Question::Row(processor, id) => {
                let fact = self.facts.iter().find(|fact| fact.id == id && fact.processor == processor);
                Answer::Row(fact.and_then(|fact| fact.row))
            }
        }
    }

    fn rows(&self, processor: Processor) -> impl Iterator<Item = Row> {
        self.facts.iter().filter(move |fact| fact.processor == processor).filter_map(|fact| fact.row)
    }

    fn charges(&self, processor: Processor, bounds: Bounds) -> Vec<Charge> {
        let of_it = self.facts.iter().filter(|fact| fact.processor == processor);
        let charges = of_it.filter_map(|fact| match fact.ours {
            Ours::Charged(charge) => Some(charge),
            _ => None,
        });
        charges.filter(|charge| bounds.contains(charge.requested_at)).collect()
    }

    fn window(&self, bounds: Bounds) -> Window {
        let times = self.facts.iter().filter_map(|fact| our_time(fact.ours));
        let charged = |processor| total(self.charges(processor, bounds).iter().map(|charge| charge.cents));
        let in_flight = |processor| {
            let flights = self.facts.iter().filter(|fact| match fact.ours {
                Ours::InFlight(at) => fact.processor == processor && bounds.contains(at),
                _ => false,
            });
            flights.count() as u64
        };
        Window {
            now: Timestamp(NOW_US),
            world: self.world,
            first: times.filter(|time| bounds.contains(*time)).min(),
            charged: PerProcessor::from_fn(charged),
            in_flight: PerProcessor::from_fn(in_flight),
        }
    }
}

fn our_time(ours: Ours) -> Option<Timestamp> {
    match ours {
        Ours::Nothing => None,
        Ours::InFlight(at) => Some(at),
        Ours::Charged(charge) => Some(charge.requested_at),
    }
}

fn total(cents: impl Iterator<Item = Cents>) -> Totals {
    cents.fold(Totals::default(), |sum, cents| Totals {
        count: sum.count + 1,
        cents: Cents(sum.cents.0 + cents.0),
    })
}

fn limits() -> Limits {
    Limits { from: None, to: None, margin_us: 1_000_000, window_us: 500_000, look_ups_max: 1_000 }
}

/// What happened to a payment.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Well,
    Lost,
    OtherAmount,
    OtherTime(i64),
    Invented,
    InFlight { is_there: bool },
}

/// A charge of ours; numbers are below 31.
fn fact(number: u32, processor: Processor, us: i64, kind: Kind) -> Fact {
    let (id, requested_at) = (PaymentId(u128::from(number)), Timestamp(us));
    let (cents, other_cents) = (Cents(1 << number), Cents(1 << (number + 31)));
    let charged = Ours::Charged(Charge { id, cents, requested_at });
    let row = Row { cents, requested_at };
    let (ours, row) = match kind {
        Kind::Well => (charged, Some(row)),
        Kind::Lost => (charged, None),
        Kind::OtherAmount => (charged, Some(Row { cents: other_cents, ..row })),
        Kind::OtherTime(us) => (charged, Some(Row { requested_at: Timestamp(us), ..row })),
        Kind::Invented => (Ours::Nothing, Some(row)),
        Kind::InFlight { is_there } => (Ours::InFlight(requested_at), is_there.then_some(row)),
    };
    Fact { processor, ours, row, id }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => Just(Kind::Well),
        2 => Just(Kind::Lost),
        1 => Just(Kind::OtherAmount),
        1 => (0..NOW_US).prop_map(Kind::OtherTime),
        1 => Just(Kind::Invented),
        1 => any::<bool>().prop_map(|is_there| Kind::InFlight { is_there }),
    ]
}

/// Checks a report against the lists.
fn check(model: &Model, limits: Limits, report: &Report) {
    let firsts = model.facts.iter().filter_map(|fact| our_time(fact.ours)).min();
    let start = limits.from.or(firsts);
    let end = Timestamp(NOW_US - limits.margin_us).min(limits.to.unwrap_or(Timestamp(NOW_US)));
    let range = start.filter(|start| *start <= end).map(|from| Span { from, to: end });
    assert!(report.is_complete);
    assert_eq!(report.range, range);
    let Some(range) = range else { return };
    for processor in Processor::BOTH {
        let facts = || model.facts.iter().filter(|fact| fact.processor == processor);
        let charge = |fact: &Fact| match fact.ours {
            Ours::Charged(charge) if range.contains(charge.requested_at) => Some(charge),
            _ => None,
        };
        let lost = facts().filter(|fact| fact.row.is_none()).filter_map(charge);
        let missing = report.missing.iter().filter(|(at, _)| *at == processor).map(|(_, charge)| charge.id);
        assert_eq!(sorted(missing), sorted(lost.map(|charge| charge.id)));

        let differing: Vec<_> =
            report.differing.iter().filter(|found| found.processor == processor).collect();
        let mut unexplained: i64 = 0;
        for fact in facts() {
            let Some(row) = fact.row else { continue };
            let found = differing.iter().find(|found| found.charge.id == fact.id);
            if let Some(charge) = charge(fact) {
                let is_well = (charge.cents, charge.requested_at) == (row.cents, row.requested_at);
                // Only a move within a window leaves the sums as they were.
                let is_far = (charge.requested_at.0 - row.requested_at.0).abs() >= limits.window_us;
                let is_seen = charge.cents != row.cents || is_far;
                assert!(!is_well || found.is_none(), "{fact:?}");
                assert!(!is_seen || found.is_some_and(|found| found.row == row), "{fact:?}");
            } else if range.contains(row.requested_at) {
                unexplained += row.cents.0;
            }
        }
        let remainders = report.unexplained.iter().chain(&report.open);
        let reported = remainders.filter(|remainder| remainder.processor == processor);
        assert_eq!(reported.map(|remainder| remainder.cents.0).sum::<i64>(), unexplained);
        assert_eq!(report.left_out[processor], None);
        let rows = model.rows(processor).filter(|row| range.contains(row.requested_at));
        assert_eq!(report.theirs[processor], total(rows.map(|row| row.cents)));
        let charges = model.charges(processor, range.bounds());
        assert_eq!(report.ours[processor], total(charges.iter().map(|charge| charge.cents)));
    }
}

fn sorted(ids: impl Iterator<Item = PaymentId>) -> Vec<PaymentId> {
    let mut ids: Vec<PaymentId> = ids.collect();
    ids.sort_unstable();
    ids
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn lost_altered_and_invented_rows_are_found_and_nothing_else(
        payments in proptest::collection::vec((any::<bool>(), 0_i64..200, kind()), 0..31),
        scale in prop_oneof![Just(1), Just(1_000), Just(50_000)],
        window_us in prop_oneof![Just(1), Just(7_000), Just(500_000), Just(20_000_000)],
        from in proptest::option::of(0..NOW_US),
        to in proptest::option::of(0..NOW_US),
        margin_us in 0_i64..2_000_000,
    ) {
        let facts = (0..).zip(&payments).map(|(number, (is_default, at, kind))| {
            let processor = if *is_default { Processor::Default } else { Processor::Fallback };
            fact(number, processor, at * scale, *kind)
        });
        let mut model = Model::new(facts.collect());
        let limits = Limits { from: from.map(Timestamp), to: to.map(Timestamp), margin_us, window_us, ..limits() };
        let report = model.compare(limits);
        check(&model, limits, &report);
        for charge in report.missing.iter().map(|(_, charge)| charge) {
            prop_assert!(report.text().contains(&charge.id.to_string()));
            prop_assert!(report.json().to_string().contains(&charge.id.to_string()));
        }
    }

    #[test]
    fn a_payment_in_flight_is_no_difference_whether_or_not_it_is_there(
        payments in proptest::collection::vec((0_i64..200, any::<bool>(), any::<bool>()), 0..31),
    ) {
        let facts = (0..).zip(&payments).map(|(number, (at, is_in_flight, is_there))| {
            let is_there = *is_there;
            let kind = if *is_in_flight { Kind::InFlight { is_there } } else { Kind::Well };
            fact(number, Processor::Default, at * 10_000, kind)
        });
        let report = Model::new(facts.collect()).compare(limits());
        prop_assert!(!report.differs(), "{report:?}");
        let open: u64 = report.open.iter().map(|remainder| remainder.count.unsigned_abs()).sum();
        let is_there = payments.iter().filter(|(_, is_in_flight, is_there)| *is_in_flight && *is_there);
        prop_assert_eq!(open, is_there.count() as u64);
    }
}

/// Ten thousand payments of one amount, one each millisecond; these are lost.
fn many(lost: &[u32]) -> Model {
    let facts = (0..10_000).map(|number| {
        let (id, requested_at) = (PaymentId(u128::from(number)), Timestamp(i64::from(number) * 1_000));
        let cents = Cents(1_990);
        let row = (!lost.contains(&number)).then_some(Row { cents, requested_at });
        let ours = Ours::Charged(Charge { id, cents, requested_at });
        Fact { processor: Processor::Default, ours, row, id }
    });
    Model::new(facts.collect())
}

#[test]
fn one_lost_row_among_ten_thousand_costs_few_calls() {
    let mut model = many(&[4_711]);
    let report = model.compare(Limits { margin_us: 0, window_us: 60_000_000, ..limits() });
    assert_eq!(sorted(report.missing.iter().map(|(_, charge)| charge.id)), [PaymentId(4_711)]);
    // Ten halvings make 10,000 charges 10; each asks for both halves.
    assert!(report.sums <= 2 + 2 * 10, "{} sums", report.sums);
    assert!(report.look_ups <= 16, "{} payments looked up", report.look_ups);
    assert!(report.differs() && report.unexplained.is_empty());
}

#[test]
fn books_that_agree_are_asked_for_their_sums_alone() {
    let mut model = many(&[]);
    let to = Some(Timestamp(NOW_US - 1));
    let report = model.compare(Limits { to, margin_us: 0, window_us: 2_500_000, ..limits() });
    assert_eq!((report.sums, report.look_ups, report.differs()), (8, 0, false));
    assert!(
        !model.asked.iter().any(|question| matches!(question, Question::Row(..) | Question::Charges { .. }))
    );
}

#[test]
fn a_long_time_without_payments_is_one_window() {
    let week_us = 7 * 86_400 * 1_000_000;
    let mut model = Model::new(vec![
        fact(0, Processor::Default, -week_us, Kind::Well),
        fact(1, Processor::Default, 1_000, Kind::Well),
        fact(2, Processor::Fallback, -week_us / 2, Kind::Invented),
    ]);
    let limits = Limits { from: Some(Timestamp(-2 * week_us)), ..limits() };
    let report = model.compare(limits);
    check(&model, limits, &report);
    assert_eq!(report.unexplained.len(), 1);
    // Before the first payment, its window, the week, the last payment's window, and what is left.
    assert_eq!(report.sums, 2 * 5);
}

#[test]
fn beyond_the_look_ups_that_are_allowed_windows_are_only_counted() {
    let everything: Vec<u32> = (0..10_000).collect();
    let mut model = many(&everything);
    let to = Some(Timestamp(NOW_US - 1));
    let limits = Limits { to, margin_us: 0, window_us: 1_000_000, look_ups_max: 100, ..limits() };
    let report = model.compare(limits);
    assert_eq!((report.look_ups, report.missing.len()), (100, 100));
    let left_out = report.left_out[Processor::Default].unwrap();
    // The last window that is looked into is counted whole.
    assert!((9_900..9_916).contains(&left_out.ours.count), "{left_out:?}");
    assert_eq!((left_out.theirs.count, left_out.span.to), (0, Timestamp(9_999_999)));
    assert!(report.differs() && report.text().contains("not looked up"));
    assert!(model.asked.len() < 400, "{} questions", model.asked.len());
}

#[test]
fn a_purge_meanwhile_ends_the_comparison() {
    let mut model = many(&[]);
    let mut comparison = Comparison::new(limits());
    for _ in 0..2 {
        let answer = model.answer(comparison.question().unwrap());
        comparison.answer(answer).unwrap();
    }
    model.world = 2;
    let ended = loop {
        let answer = model.answer(comparison.question().unwrap());
        if let Err(purged) = comparison.answer(answer) {
            break purged;
        }
    };
    assert_eq!(ended, Purged);
    assert!(!comparison.finish().is_complete);
}

#[test]
fn nothing_is_compared_before_the_first_payment_or_inside_the_margin() {
    assert_eq!(Model::new(Vec::new()).compare(limits()).range, None);
    let mut model = Model::new(vec![fact(0, Processor::Default, NOW_US - 10, Kind::Lost)]);
    let report = model.compare(limits());
    assert_eq!((report.range, report.differs()), (None, false));
    assert!(report.text().contains("nothing to compare"));
}
