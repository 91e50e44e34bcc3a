//! The table of what a report proves, enumerated whole: every outcome met by a payment in every standing.

use store::core::ledger::judgement::Subject;
use store::core::ledger::{Ledger, Standing};
use store::core::queue::Ordinal;
use store::core::record::{Negative, Record, Terms};
use wire::frame::{Accepted, AttemptId, Outcome, Report};
use wire::{Bounds, Cents, PaymentId, Processor, Timestamp};

const ID: PaymentId = PaymentId(7);
const CENTS: Cents = Cents(1990);
const FIRST: Ordinal = Ordinal(0);
const HERE: Processor = Processor::Default;

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(10, [1, 2]);
    assert_eq!(ledger.judge_accept(ID, CENTS), Accepted::Recorded);
    ledger.apply(&Record::Accepted { id: ID, cents: CENTS });
    ledger
}

/// Makes an attempt and tells its number.
fn intend(ledger: &mut Ledger, processor: Processor, now_ms: u64) -> AttemptId {
    let (record, _) = ledger.intend(FIRST, processor, now_ms);
    ledger.apply(&record);
    let Record::Intended { attempt, .. } = record else { panic!("an intent") };
    attempt
}

fn cleared(attempt: AttemptId, negative: Negative) -> Record {
    Record::Cleared { ordinal: FIRST, attempt, negative }
}

fn charged(processor: Processor) -> Record {
    Record::Charged { ordinal: FIRST, processor, terms: Terms::Ours }
}

fn found() -> Outcome {
    Outcome::Found { requested_at: Timestamp::from_ms(5), cents: Cents(1991) }
}

const OUTCOMES: [fn() -> Outcome; 13] = [
    || Outcome::Charged,
    || Outcome::Duplicate,
    found,
    || Outcome::Absent,
    || Outcome::Busy,
    || Outcome::Failing,
    || Outcome::Unreachable,
    || Outcome::HandedBack,
    || Outcome::Refused,
    || Outcome::Misaddressed,
    || Outcome::Unclear,
    || Outcome::Lost,
    || Outcome::Overdue,
];

/// What `outcome` of `attempt` at the default processor proves.
fn judge(ledger: &Ledger, attempt: AttemptId, outcome: Outcome) -> Vec<Record> {
    let report = Report { sequence: 1, attempt, id: ID, processor: HERE, outcome, status: 0, latency_us: 0 };
    ledger.judge_report(ledger.subject(&report, false), &report)
}

fn is_positive(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Charged | Outcome::Found { .. })
}

fn negative(outcome: Outcome) -> Option<Negative> {
    match outcome {
        Outcome::Busy
        | Outcome::Failing
        | Outcome::Unreachable
        | Outcome::HandedBack
        | Outcome::Misaddressed => Some(Negative::NotNow),
        Outcome::Refused => Some(Negative::Refused),
        _ => None,
    }
}

/// The flag of a row that was found with another amount.
fn differs(outcome: Outcome) -> Option<Record> {
    let is_other = matches!(outcome, Outcome::Found { cents, .. } if cents != CENTS);
    is_other.then_some(Record::Conflicted { ordinal: FIRST, processor: HERE })
}

/// What a positive outcome of a payment in flight here records.
fn settled(outcome: Outcome) -> Vec<Record> {
    differs(outcome).into_iter().chain([positive(outcome)]).collect()
}

/// The record of a positive outcome: a row that was found counts with its own time and amount.
fn positive(outcome: Outcome) -> Record {
    let terms = match outcome {
        Outcome::Found { requested_at, cents } => Terms::Theirs { requested_at, cents },
        _ => Terms::Ours,
    };
    Record::Charged { ordinal: FIRST, processor: HERE, terms }
}

#[test]
fn the_first_attempt_in_flight() {
    for outcome in OUTCOMES.map(|make| make()) {
        let mut ledger = ledger();
        let attempt = intend(&mut ledger, HERE, 100);
        let expected = match (outcome, negative(outcome)) {
            (_, Some(negative)) => vec![cleared(attempt, negative)],
            (Outcome::Duplicate, _) => vec![Record::Surprised { ordinal: FIRST }],
            _ if is_positive(outcome) => settled(outcome),
            _ => Vec::new(),
        };
        assert_eq!(judge(&ledger, attempt, outcome), expected, "{outcome:?}");
    }
}

#[test]
fn a_repeated_attempt_in_flight_whose_first_has_no_answer() {
    for outcome in OUTCOMES.map(|make| make()) {
        let mut ledger = ledger();
        let first = intend(&mut ledger, HERE, 100);
        let second = intend(&mut ledger, HERE, 200);
        let expected = match (outcome, negative(outcome)) {
            (_, Some(negative)) => vec![cleared(second, negative)],
            (Outcome::Duplicate, _) => vec![charged(HERE)],
            _ if is_positive(outcome) => settled(outcome),
            _ => Vec::new(),
        };
        let records = judge(&ledger, second, outcome);
        assert_eq!(records, expected, "{outcome:?}");
        records.iter().for_each(|record| ledger.apply(record));
        if negative(outcome).is_some() {
            // The first attempt has no negative answer of its own: the payment stays pinned (the move rule).
            assert!(!ledger.may_send(FIRST, Processor::Fallback), "{outcome:?}");
            assert_eq!(ledger.standing(FIRST), Standing::InFlight);
            ledger.apply(&cleared(first, Negative::NotNow));
            let may_move = ledger.may_send(FIRST, Processor::Fallback);
            assert!(may_move, "{outcome:?}: both have a negative answer of their own");
        }
    }
}

#[test]
fn an_answer_that_was_counted_counts_once() {
    for outcome in OUTCOMES.map(|make| make()).into_iter().filter(|outcome| negative(*outcome).is_some()) {
        let mut ledger = ledger();
        let attempt = intend(&mut ledger, HERE, 100);
        ledger.apply(&cleared(attempt, Negative::NotNow));
        assert_eq!(judge(&ledger, attempt, outcome), [], "{outcome:?} for a queued payment");
    }
}

#[test]
fn evidence_against_what_is_known_is_kept_and_flagged() {
    let conflicted = Record::Conflicted { ordinal: FIRST, processor: HERE };
    for outcome in OUTCOMES.map(|make| make()) {
        // Queued again: its only attempt was cleared.
        let mut queued = ledger();
        let attempt = intend(&mut queued, HERE, 100);
        queued.apply(&cleared(attempt, Negative::NotNow));
        let expected = if is_positive(outcome) { vec![conflicted, positive(outcome)] } else { Vec::new() };
        assert_eq!(judge(&queued, attempt, outcome), expected, "queued, {outcome:?}");

        // In flight elsewhere.
        let mut elsewhere = queued;
        let other = intend(&mut elsewhere, HERE.other(), 200);
        assert_eq!(judge(&elsewhere, attempt, outcome), expected, "elsewhere, {outcome:?}");

        // Charged elsewhere.
        elsewhere.apply(&charged(HERE.other()));
        let expected = if is_positive(outcome) { vec![conflicted] } else { Vec::new() };
        assert_eq!(judge(&elsewhere, attempt, outcome), expected, "charged elsewhere, {outcome:?}");
        assert_eq!(judge(&elsewhere, other, outcome), expected);

        // Charged here.
        let mut here = ledger();
        let attempt = intend(&mut here, HERE, 100);
        here.apply(&charged(HERE));
        let expected: Vec<Record> = differs(outcome).into_iter().collect();
        assert_eq!(judge(&here, attempt, outcome), expected, "charged here, {outcome:?}");
        expected.iter().for_each(|record| here.apply(record));
        assert_eq!(judge(&here, attempt, outcome), [], "flagged once, {outcome:?}");

        // Dead.
        let mut dead = ledger();
        for processor in Processor::BOTH {
            let attempt = intend(&mut dead, processor, 100);
            dead.apply(&cleared(attempt, Negative::Refused));
        }
        dead.apply(&Record::Died { ordinal: FIRST });
        let expected = if is_positive(outcome) { vec![conflicted] } else { Vec::new() };
        assert_eq!(judge(&dead, attempt, outcome), expected, "dead, {outcome:?}");
        assert!(Processor::BOTH.into_iter().all(|processor| !dead.may_send(FIRST, processor)));
    }
}

#[test]
fn a_row_with_the_same_amount_and_another_time_is_adopted_without_a_flag() {
    let mut ledger = ledger();
    let attempt = intend(&mut ledger, HERE, 100);
    let requested_at = Timestamp::from_ms(5);
    let terms = Terms::Theirs { requested_at, cents: CENTS };
    let expected = Record::Charged { ordinal: FIRST, processor: HERE, terms };
    assert_eq!(judge(&ledger, attempt, Outcome::Found { requested_at, cents: CENTS }), [expected]);
}

#[test]
fn tombstones_of_a_purge() {
    for outcome in OUTCOMES.map(|make| make()) {
        let mut ledger = ledger();
        let attempt = intend(&mut ledger, HERE, 100);
        ledger.apply(&Record::Purged);
        assert_eq!(ledger.find(ID), None);
        let expected = match (outcome, negative(outcome)) {
            (_, Some(_)) => vec![Record::TombstoneCleared { id: ID, attempt }],
            (Outcome::Charged | Outcome::Duplicate | Outcome::Found { .. }, _) => {
                vec![Record::TombstoneCharged { id: ID }]
            }
            _ => Vec::new(),
        };
        let records = judge(&ledger, attempt, outcome);
        assert_eq!(records, expected, "{outcome:?}");
        records.iter().for_each(|record| ledger.apply(record));
        assert_eq!(ledger.summary.window(Bounds::default())[HERE].count, 0, "a tombstone is never counted");
        let is_free = negative(outcome).is_some();
        let other_amount = ledger.judge_accept(ID, Cents(1));
        assert_eq!(
            other_amount,
            if is_free { Accepted::Recorded } else { Accepted::Mismatch },
            "{outcome:?}"
        );
        ledger.apply(&Record::Accepted { id: ID, cents: CENTS });
        // Born pinned to the processor and the time of before, unless nothing can come of the attempts any more.
        assert_eq!(ledger.may_send(FIRST, HERE.other()), is_free, "{outcome:?}");
        let time = ledger.flights().get(&FIRST).map(|flight| flight.requested_at);
        assert_eq!(time, (!is_free).then_some(Timestamp::from_ms(100)), "{outcome:?}");
    }
}

#[test]
fn a_report_about_an_unknown_payment_proves_nothing() {
    let empty = Ledger::new(10, [1, 2]);
    for outcome in OUTCOMES.map(|make| make()) {
        assert_eq!(judge(&empty, AttemptId(1), outcome), [], "{outcome:?}");
    }
    let mut settled = ledger();
    let attempt = intend(&mut settled, HERE, 100);
    settled.apply(&charged(HERE));
    settled.apply(&Record::Purged);
    settled.apply(&Record::Accepted { id: ID, cents: CENTS });
    let report = Report {
        sequence: 1,
        attempt,
        id: ID,
        processor: HERE,
        outcome: Outcome::Charged,
        status: 200,
        latency_us: 0,
    };
    assert_eq!(
        settled.subject(&report, false),
        Subject::NoPayment,
        "an answer from the world before the purge"
    );
}

#[test]
fn refused_for_good_by_one_it_is_bound_to_the_other_and_by_both_it_is_dead() {
    let mut ledger = ledger();
    let first = intend(&mut ledger, HERE, 100);
    for record in judge(&ledger, first, Outcome::Refused) {
        ledger.apply(&record);
    }
    assert!(!ledger.may_send(FIRST, HERE) && ledger.may_send(FIRST, HERE.other()));
    assert_eq!(ledger.queue.first_bound(HERE.other()), Some(FIRST));
    let second = intend(&mut ledger, HERE.other(), 200);
    let report = Report {
        sequence: 2,
        attempt: second,
        id: ID,
        processor: HERE.other(),
        outcome: Outcome::Refused,
        status: 400,
        latency_us: 0,
    };
    let records = ledger.judge_report(ledger.subject(&report, false), &report);
    assert_eq!(records, [cleared(second, Negative::Refused), Record::Died { ordinal: FIRST }]);
    records.iter().for_each(|record| ledger.apply(record));
    assert_eq!(ledger.standing(FIRST), Standing::Dead);
    assert!(ledger.queue.is_empty() && ledger.balance().adds_up());
}

#[test]
#[should_panic(expected = "the move rule forbids")]
fn an_intent_against_the_move_rule_is_an_assertion() {
    let mut ledger = ledger();
    intend(&mut ledger, HERE, 100);
    let _ = ledger.intend(FIRST, HERE.other(), 200);
}

#[test]
fn requested_at_never_goes_back_and_repeats_while_unknown() {
    let mut ledger = ledger();
    let attempt = intend(&mut ledger, HERE, 500);
    intend(&mut ledger, HERE, 900);
    assert_eq!(
        ledger.flights()[&FIRST].requested_at,
        Timestamp::from_ms(500),
        "one time while the verdict is maybe"
    );
    let mut queued = self::ledger();
    let attempt_of_another = intend(&mut queued, HERE, 500);
    assert_eq!(attempt, attempt_of_another);
    queued.apply(&cleared(attempt_of_another, Negative::NotNow));
    intend(&mut queued, HERE.other(), 100);
    assert_eq!(queued.flights()[&FIRST].requested_at, Timestamp::from_ms(500), "the clock stepped back");
}

#[test]
fn repeated_clearing_takes_no_memory_for_ever() {
    let mut ledger = ledger();
    ledger.apply(&Record::Accepted { id: PaymentId(8), cents: Cents(5) });
    let other = Ordinal(1);
    ledger.apply(&ledger.intend(other, HERE, 50).0);
    for round in 0..400_000 {
        let attempt = intend(&mut ledger, HERE, 100 + round);
        if round == 200_000 {
            // Its time was issued before most of what is forgotten, and it still counts under it.
            ledger.apply(&Record::Charged { ordinal: other, processor: HERE, terms: Terms::Ours });
        }
        ledger.apply(&cleared(attempt, Negative::NotNow));
    }
    assert!(ledger.summary.len() < 2 * 65_536, "{} entries", ledger.summary.len());
    intend(&mut ledger, HERE, 1_000_000);
    ledger.apply(&charged(HERE));
    let at = |ms| {
        let time = Some(Timestamp::from_ms(ms));
        ledger.summary.window(Bounds { from: time, to: time })[HERE].cents
    };
    assert_eq!((at(50), at(1_000_000)), (Cents(5), CENTS));
    assert_eq!(ledger.summary.window(Bounds::default())[HERE].count, 2);
}
