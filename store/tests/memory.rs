//! What a payment takes of the real memory, at the worst mix of leases.

use std::fs;
use store::core::ledger::{Ledger, PAYMENT_BYTES, UNCOUNTED_PAYMENTS};
use store::core::queue::Ordinal;
use store::core::record::{Negative, Record, Terms};
use wire::frame::Accepted;
use wire::{Cents, PaymentId, Processor, Timestamp};

/// So many that each part of the index has just doubled, which is when it is emptiest.
const PAYMENTS: u32 = 950_000;

/// What does not grow with the payments: unfinished chunks, the summary's idle entries that are always allowed, the allocator.
const FIXED_BYTES: u64 = 6 << 20;

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Leases a payment under a fresh time.
fn lease(ledger: &mut Ledger, ordinal: Ordinal, now_ms: u64) -> Record {
    let (record, _) = ledger.intend(ordinal, Processor::Default, now_ms);
    ledger.apply(&record);
    record
}

#[test]
fn a_payment_takes_its_stated_bytes_at_the_worst_mix_of_leases() {
    let before = peak_bytes();
    let mut ledger = Ledger::new(usize::MAX, [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);
    for number in 0..PAYMENTS {
        // Drawn as a client would: spread over all bits.
        let id = PaymentId(u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        ledger.apply(&Record::Accepted { id, cents: Cents(1990) });
        let ordinal = Ordinal(number);
        lease(&mut ledger, ordinal, u64::from(number));
        if number + 1 < PAYMENTS {
            ledger.apply(&Record::Charged { ordinal, processor: Processor::Default, terms: Terms::Ours });
        }
    }
    // The last one is leased again and again, and each lease comes back unsent.
    let last = Ordinal(PAYMENTS - 1);
    let attempt = ledger.flights()[&last].unanswered[0];
    ledger.apply(&Record::Cleared { ordinal: last, attempt, negative: Negative::NotNow });
    for number in 0..2 * PAYMENTS {
        let Record::Intended { attempt, .. } = lease(&mut ledger, last, u64::from(PAYMENTS + number)) else {
            unreachable!("an intent")
        };
        ledger.apply(&Record::Cleared { ordinal: last, attempt, negative: Negative::NotNow });
    }
    let each = (peak_bytes() - before).saturating_sub(FIXED_BYTES) as f64 / f64::from(PAYMENTS);
    println!("{each:.1} bytes a payment, {PAYMENT_BYTES} are said");
    assert!(each <= PAYMENT_BYTES as f64, "{each:.1} bytes a payment");
}

#[test]
fn rows_that_were_adopted_from_a_processor_count_as_well() {
    let mut ledger = Ledger::new(usize::MAX, [1, 2]);
    for number in 0..10_000 {
        ledger.apply(&Record::Accepted { id: PaymentId(u128::from(number)), cents: Cents(1990) });
        let ordinal = Ordinal(number);
        lease(&mut ledger, ordinal, u64::from(number));
        let terms = Terms::Theirs { requested_at: Timestamp::from_ms(u64::from(number)), cents: Cents(1990) };
        ledger.apply(&Record::Charged { ordinal, processor: Processor::Default, terms });
    }
    assert_eq!(ledger.len_by_memory(), 10_000 + 10_000 - UNCOUNTED_PAYMENTS);
}

#[test]
fn payments_in_flight_and_tombstones_count_for_what_they_take() {
    let mut ledger = Ledger::new(6_000, [1, 2]);
    for number in 0..4_000 {
        ledger.apply(&Record::Accepted { id: PaymentId(number), cents: Cents(1990) });
    }
    let new = PaymentId(10_000);
    for number in 0..4_000 {
        assert_eq!(ledger.len_by_memory(), 4_000 + (number as usize * 3).saturating_sub(UNCOUNTED_PAYMENTS));
        lease(&mut ledger, Ordinal(number), u64::from(number));
    }
    // 4,000 payments, and what their flights take beside 8,192 that are not counted.
    assert_eq!(ledger.len_by_memory(), 4_000 + 3 * 4_000 - 8_192);
    assert_eq!(ledger.judge_accept(new, Cents(1990)), Accepted::Full);
    assert_eq!(ledger.judge_accept(PaymentId(1), Cents(1990)), Accepted::Duplicate);
    ledger.apply(&Record::Purged);
    assert_eq!(ledger.len_by_memory(), 4 * 4_000 - 8_192);
    assert_eq!(ledger.judge_accept(new, Cents(1990)), Accepted::Full);
}
