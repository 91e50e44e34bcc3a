//! Every frame is read back as it was written, and no bytes at all bring a decoder down.

use proptest::prelude::*;
use wire::frame::{
    Accepted, AttemptId, CHARGES_MAX, CallKind, Charge, FRAME_BYTES_MAX, FrameError, Frames, FromApi,
    FromStore, Health, HeldAttempt, Lease, Listing, Message, Operation, Outcome, Report, Totals, Window,
    decode,
};
use wire::{Bounds, Cents, PaymentId, PerProcessor, Processor, Timestamp};

fn processor() -> impl Strategy<Value = Processor> {
    prop_oneof![Just(Processor::Default), Just(Processor::Fallback)]
}

fn amount() -> impl Strategy<Value = Cents> {
    (1..=wire::money::AMOUNT_MAX.0).prop_map(Cents)
}

fn bound() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(any::<i64>().prop_map(Timestamp))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Charged),
        Just(Outcome::Duplicate),
        (any::<i64>(), amount())
            .prop_map(|(time, cents)| Outcome::Found { requested_at: Timestamp(time), cents }),
        Just(Outcome::Absent),
        Just(Outcome::Busy),
        Just(Outcome::Failing),
        Just(Outcome::Unreachable),
        Just(Outcome::HandedBack),
        Just(Outcome::Refused),
        Just(Outcome::Misaddressed),
        Just(Outcome::Unclear),
        Just(Outcome::Lost),
        Just(Outcome::Overdue),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let listing = prop_oneof![
        Just(Listing::DeadLetters),
        Just(Listing::InFlight),
        Just(Listing::Conflicts),
        Just(Listing::Tombstones),
    ];
    prop_oneof![
        (listing, any::<u32>()).prop_map(|(listing, from)| Operation::List { listing, from }),
        (any::<u128>(), proptest::option::of(processor()))
            .prop_map(|(id, by)| Operation::Charged { id: PaymentId(id), by }),
        any::<u128>().prop_map(|id| Operation::NotCharged(PaymentId(id))),
        any::<u128>().prop_map(|id| Operation::Revive(PaymentId(id))),
        any::<u32>().prop_map(|from| Operation::ReviveAll { from }),
        (bound(), bound()).prop_map(|(from, to)| Operation::Window { bounds: Bounds { from, to } }),
        (processor(), bound(), bound(), any::<u32>()).prop_map(|(processor, lower, to, from)| {
            Operation::Charges { processor, bounds: Bounds { from: lower, to }, from }
        }),
    ]
}

fn totals() -> impl Strategy<Value = Totals> + Clone {
    any::<(u64, i64)>().prop_map(|(count, cents)| Totals { count, cents: Cents(cents) })
}

fn window() -> impl Strategy<Value = Window> {
    (any::<(i64, u64)>(), bound(), totals(), totals(), any::<[u64; 2]>()).prop_map(
        |((now, world), first, default, fallback, in_flight)| Window {
            now: Timestamp(now),
            world,
            first,
            charged: PerProcessor([default, fallback]),
            in_flight: PerProcessor(in_flight),
        },
    )
}

fn charge() -> impl Strategy<Value = Charge> {
    (any::<u128>(), amount(), any::<i64>()).prop_map(|(id, cents, time)| Charge {
        id: PaymentId(id),
        cents,
        requested_at: Timestamp(time),
    })
}

fn from_api() -> impl Strategy<Value = FromApi> {
    let held = proptest::collection::vec(any::<(u64, u64)>(), 0..40).prop_map(|held| {
        held.into_iter()
            .map(|(attempt, age_ms)| HeldAttempt { attempt: AttemptId(attempt), age_ms })
            .collect()
    });
    let health = prop_oneof![
        any::<(bool, u32)>()
            .prop_map(|(failing, min_response_ms)| Health::Answered { failing, min_response_ms }),
        Just(Health::Busy),
        Just(Health::Unanswered),
    ];
    prop_oneof![
        (any::<u64>(), any::<u16>(), held).prop_map(|(instance, calls_max, held)| FromApi::Hello {
            instance,
            calls_max,
            held
        }),
        Just(FromApi::Heartbeat),
        (any::<u64>(), any::<u128>(), amount()).prop_map(|(request, id, cents)| FromApi::Accept {
            request,
            id: PaymentId(id),
            cents
        }),
        (any::<u64>(), bound(), bound())
            .prop_map(|(request, from, to)| FromApi::Summary { request, bounds: Bounds { from, to } }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(request, asked_us, deadline_us)| {
            FromApi::Purge { request, asked_us, deadline_us }
        }),
        any::<u64>().prop_map(|request| FromApi::Metrics { request }),
        (any::<(u64, u64, u128, u16, u32)>(), processor(), outcome()).prop_map(
            |((sequence, attempt, id, status, latency_us), processor, outcome)| FromApi::Report(Report {
                sequence,
                attempt: AttemptId(attempt),
                id: PaymentId(id),
                processor,
                outcome,
                status,
                latency_us,
            })
        ),
        (processor(), health).prop_map(|(processor, health)| FromApi::HealthReport { processor, health }),
        Just(FromApi::Drain),
        (any::<u64>(), any::<u64>(), operation()).prop_map(|(request, deadline_us, operation)| {
            FromApi::Operate { request, deadline_us, operation }
        }),
    ]
}

fn from_store() -> impl Strategy<Value = FromStore> {
    let accepted = prop_oneof![
        Just(Accepted::Recorded),
        Just(Accepted::Duplicate),
        Just(Accepted::Mismatch),
        Just(Accepted::Full)
    ];
    prop_oneof![
        Just(FromStore::Welcome),
        (any::<u64>(), accepted).prop_map(|(request, accepted)| FromStore::Accepted { request, accepted }),
        (any::<u64>(), totals(), totals())
            .prop_map(|(request, a, b)| FromStore::Summary { request, totals: PerProcessor([a, b]) }),
        (any::<u64>(), any::<bool>()).prop_map(|(request, done)| FromStore::Purged { request, done }),
        (any::<u64>(), "\\PC{0,200}").prop_map(|(request, text)| FromStore::Metrics { request, text }),
        (any::<(u64, u128, i64, bool, bool)>(), amount(), processor()).prop_map(
            |((attempt, id, time, get, fresh), cents, processor)| FromStore::Lease(Lease {
                attempt: AttemptId(attempt),
                id: PaymentId(id),
                cents,
                processor,
                requested_at: Timestamp(time),
                kind: if get { CallKind::Get } else { CallKind::Post },
                begin_until_us: fresh.then_some(time.unsigned_abs().max(1)),
            })
        ),
        (processor(), any::<u64>())
            .prop_map(|(processor, begin_until_us)| FromStore::HealthLease { processor, begin_until_us }),
        any::<u64>().prop_map(|sequence| FromStore::Acknowledge { sequence }),
        (any::<u64>(), any::<bool>(), any::<Option<u32>>(), "\\PC{0,200}")
            .prop_map(|(request, done, next, text)| FromStore::Operated { request, done, next, text }),
        (any::<u64>(), window()).prop_map(|(request, window)| FromStore::Window { request, window }),
        (any::<u64>(), any::<Option<u32>>(), proptest::collection::vec(charge(), 0..40))
            .prop_map(|(request, next, charges)| FromStore::Charges { request, next, charges }),
    ]
}

/// Reads frames until the bytes run out or break, as a connection does.
fn decode_all<M: Message>(mut bytes: &[u8]) -> Result<Vec<M>, FrameError> {
    let mut messages = Vec::new();
    while let Some((message, used)) = decode(bytes)? {
        assert!(used > 4 && used <= bytes.len());
        messages.push(message);
        bytes = &bytes[used..];
    }
    Ok(messages)
}

fn encode_all<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pipelined_frames_are_read_back_as_written(
        up in proptest::collection::vec(from_api(), 0..8),
        down in proptest::collection::vec(from_store(), 0..8),
    ) {
        prop_assert_eq!(decode_all::<FromApi>(&encode_all(&up)).unwrap(), up);
        prop_assert_eq!(decode_all::<FromStore>(&encode_all(&down)).unwrap(), down);
    }

    #[test]
    fn frames_that_come_in_pieces_are_read_as_written_up_to_what_breaks_them(
        up in proptest::collection::vec(from_api(), 0..8),
        lengths in proptest::collection::vec(1_usize..200, 1..20),
        is_broken in any::<bool>(),
    ) {
        let mut bytes = encode_all(&up);
        if is_broken {
            bytes.extend_from_slice(&[0; 4]);
        }
        let (mut frames, mut read, mut rest) = (Frames::default(), Vec::new(), &bytes[..]);
        let mut taken = Ok(());
        for length in lengths.iter().cycle() {
            if rest.is_empty() || taken.is_err() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*length));
            rest = after;
            taken = frames.take(piece, |message: FromApi| read.push(message));
        }
        prop_assert_eq!(taken, if is_broken { Err(FrameError::Length(0)) } else { Ok(()) });
        prop_assert_eq!(read, up);
    }

    #[test]
    fn a_frame_cut_anywhere_is_incomplete_and_not_an_error(up in from_api(), down in from_store()) {
        let (up, down) = (encode_all(&[up]), encode_all(&[down]));
        for cut in 0..up.len() {
            prop_assert!(matches!(decode::<FromApi>(&up[..cut]), Ok(None)));
        }
        for cut in 0..down.len() {
            prop_assert!(matches!(decode::<FromStore>(&down[..cut]), Ok(None)));
        }
    }

    #[test]
    fn mutated_frames_are_messages_or_errors(
        up in proptest::collection::vec(from_api(), 1..4),
        down in proptest::collection::vec(from_store(), 1..4),
        hits in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6),
    ) {
        for mut bytes in [encode_all(&up), encode_all(&down)] {
            for (at, byte) in &hits {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            let _ = decode_all::<FromApi>(&bytes);
            let _ = decode_all::<FromStore>(&bytes);
        }
    }

    #[test]
    fn any_bytes_are_messages_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_all::<FromApi>(&bytes);
        let _ = decode_all::<FromStore>(&bytes);
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
    let too_long = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
    for length in [0, too_long, u32::MAX] {
        assert_eq!(decode::<FromApi>(&length.to_le_bytes()), Err(FrameError::Length(length)));
    }
}

#[test]
fn an_api_of_another_version_is_told_apart() {
    let mut bytes = encode_all(&[FromApi::Hello { instance: 1, calls_max: 2, held: Vec::new() }]);
    bytes[9] ^= 1;
    assert_eq!(decode::<FromApi>(&bytes), Err(FrameError::Version));
}

#[test]
fn a_full_page_of_charges_fits_into_a_frame_and_a_longer_one_is_refused() {
    let charge = Charge { id: PaymentId(1), cents: Cents(1), requested_at: Timestamp(1) };
    let page = FromStore::Charges { request: 1, next: Some(2), charges: vec![charge; CHARGES_MAX] };
    let mut bytes = encode_all(std::slice::from_ref(&page));
    assert_eq!(decode_all::<FromStore>(&bytes), Ok(vec![page]));
    // Behind the header, the kind, the request's number and where the list goes on stands how many there are.
    let more = u16::try_from(CHARGES_MAX + 1).unwrap();
    bytes[18..20].copy_from_slice(&more.to_le_bytes());
    bytes.extend_from_slice(&[1; 32]);
    let length = u32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    assert_eq!(decode::<FromStore>(&bytes), Err(FrameError::Payload(81)));
}
