//! `GET /payments-summary` (docs/http.md, summaries), over real sockets and with the real processes.

use crate::harness::client::{Connection, Way};
use crate::harness::processors::{Processors, totals};
use crate::harness::system::{READY_TIMEOUT, Setup, System};
use crate::harness::table::{Failures, row, run};
use crate::harness::{HELD_MIN, MARK, fresh_id, get, pay, payment, request};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;
use wire::{PerProcessor, Processor};

/// Payments of the known world.
const PAYMENTS: u32 = 4;

/// Clients that pay at each api while it is asked for its sums.
const PAYING: usize = 3;

/// How often the sum of a processor must be seen to grow.
const GROWN_MIN: u32 = 100;

/// A payment that a processor holds.
struct Charged {
    processor: Processor,
    requested_at: Timestamp,
    cents: u32,
}

/// A window as a client writes it and as it is meant; both ends included.
struct Window {
    name: String,
    query: String,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

fn charge_some(system: &mut System, processors: &Processors) -> Vec<Charged> {
    let charge = |number: u32| {
        let (id, cents) = (fresh_id(), 1_990 + number);
        let request = pay(payment(&id, &format!("{}.{:02}", cents / 100, cents % 100)));
        assert_eq!(system.lb().ask(&request).expect("an answer").status, 202);
        system.until_settled();
        let (processor, requested_at) = processors.requested_at(&id).expect("it is charged");
        // As the real one, it writes UTC without saying so.
        let local: DateTime = requested_at.parse().expect("a time");
        let requested_at =
            local.to_zoned_datetime(TimeZone::UTC).expect("a time of this century").timestamp();
        Charged { processor, requested_at, cents }
    };
    let mut charged: Vec<Charged> = (0..PAYMENTS).map(charge).collect();
    charged.sort_by_key(|payment| payment.requested_at);
    assert!(charged[0].requested_at < charged[3].requested_at, "time passes");
    charged
}

/// The answer that a window must have, by the simplest of models.
fn expected(charged: &[Charged], window: &Window) -> Value {
    let of = |processor: Processor| {
        let is_in = |payment: &&Charged| {
            payment.processor == processor
                && window.from.is_none_or(|from| from <= payment.requested_at)
                && window.to.is_none_or(|to| payment.requested_at <= to)
        };
        let cents: Vec<u32> = charged.iter().filter(is_in).map(|payment| payment.cents).collect();
        let amount = f64::from(cents.iter().sum::<u32>()) / 100.0;
        serde_json::json!({ "totalRequests": cents.len(), "totalAmount": amount })
    };
    serde_json::json!({ "default": of(Processor::Default), "fallback": of(Processor::Fallback) })
}

fn check(system: &System, charged: &[Charged], windows: &[Window], failures: &mut Failures) {
    for window in windows {
        for way in system.ways() {
            let name = format!("{} ({way})", window.name);
            match way.ask(&get(&format!("/payments-summary{}", window.query))) {
                Ok(answer) if answer.status == 200 => {
                    let mut seen = answer.json();
                    // 0 and 0.00 are one number.
                    for part in ["default", "fallback"] {
                        seen[part]["totalAmount"] = seen[part]["totalAmount"].as_f64().into();
                    }
                    failures.equal(&name, expected(charged, window), seen);
                    let content_type = answer.field("content-type");
                    failures.equal(&format!("{name}, Content-Type"), Some("application/json"), content_type);
                }
                Ok(answer) => failures.note(&name, 200, answer.status),
                Err(end) => failures.note(&name, 200, end),
            }
        }
    }
}

fn ms(count: i64) -> SignedDuration {
    SignedDuration::from_millis(count)
}

/// A time with so many digits after the point; none of those cut off may matter to the caller.
fn digits(time: Timestamp, count: usize) -> String {
    if count == 0 { format!("{time:.0}").replace(".Z", "Z") } else { format!("{time:.count$}") }
}

#[test]
fn a_window_counts_what_lies_in_it_with_both_ends_included() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let nothing =
        |query: &str| Window { name: "before any payment".into(), query: query.into(), from: None, to: None };
    check(&system, &[], &[nothing("")], &mut failures);

    let charged = charge_some(&mut system, &processors);
    let times: Vec<Timestamp> = charged.iter().map(|payment| payment.requested_at).collect();
    let (first, second, last) = (times[0], times[1], times[3]);
    let window = |name: &str, from: Option<Timestamp>, to: Option<Timestamp>| {
        let bounds = [("from", from), ("to", to)];
        let bounds = bounds.iter().filter_map(|(name, bound)| bound.map(|time| format!("{name}={time:.9}")));
        Window { name: name.into(), query: format!("?{}", bounds.collect::<Vec<_>>().join("&")), from, to }
    };
    let ns = SignedDuration::from_nanos(1);
    let windows = [
        window("no bound", None, None),
        window("both bounds around everything", Some(first - ms(1_000)), Some(last + ms(1_000))),
        window("both bounds on the ends", Some(first), Some(last)),
        window("equal bounds on a payment", Some(second), Some(second)),
        window("equal bounds beside all", Some(last + ms(1)), Some(last + ms(1))),
        window("only from, on a payment", Some(second), None),
        window("only from, 1 ms after one", Some(second + ms(1)), None),
        window("only from, 1 ns after one", Some(second + ns), None),
        window("only from, 1 ns before one", Some(second - ns), None),
        window("only from, after all", Some(last + ms(1)), None),
        window("only to, on a payment", None, Some(second)),
        window("only to, 1 ms before one", None, Some(second - ms(1))),
        window("only to, 1 ns before one", None, Some(second - ns)),
        window("only to, 1 ns after one", None, Some(second + ns)),
        window("only to, before all", None, Some(first - ms(1))),
        window("from after to", Some(last), Some(first)),
        window("from 1 ns after to", Some(second), Some(second - ns)),
        window("a window long past", Some(first - ms(86_400_000)), Some(first - ms(86_000_000))),
    ];
    check(&system, &charged, &windows, &mut failures);
    failures.finish();
}

/// Pays with various amounts at one api until it is told to end, or its owner is gone.
fn pay_until(way: &Way, is_over: &AtomicBool) {
    let (mut connection, deadline) = (way.connect(), Instant::now() + 3 * READY_TIMEOUT);
    for number in 0_u32.. {
        if is_over.load(Ordering::Relaxed) || Instant::now() > deadline {
            return;
        }
        let amount = format!("{}.{:02}", number % 7, 1 + number % 99);
        let answer = connection.ask(&pay(payment(&fresh_id(), &amount))).expect("an answer");
        assert_eq!(answer.status, 202);
    }
}

/// Asks one api after the other until the sum of this processor has grown so often, and ends at a sum that is less than one
/// that either of them has told before.
fn read_until_grown(
    apis: &mut [Connection; 2],
    processor: Processor,
    last: &mut PerProcessor<(u64, u64)>,
) -> Result<(), String> {
    let (mut grown, deadline) = (0, Instant::now() + READY_TIMEOUT);
    while grown < GROWN_MIN {
        for (number, api) in (1..).zip(&mut *apis) {
            let told = api.ask(&get("/payments-summary")).map_err(|end| end.to_string())?;
            if told.status != 200 {
                return Err(format!("api {number} answers {}: {}", told.status, told.body));
            }
            let told = told.json();
            for (name, part) in [(Processor::Default, "default"), (Processor::Fallback, "fallback")] {
                let (now, before) = (totals(&told[part]), last[name]);
                if now.0 < before.0 || now.1 < before.1 {
                    return Err(format!("{part}: api {number} tells {now:?} after {before:?}"));
                }
                grown += u32::from(name == processor && now > before);
                last[name] = now;
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{processor}: grown only {grown} times, to {last:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_charge_reported_to_one_api_is_in_the_next_sum_of_the_other() {
    let processors = Processors::start();
    // Nothing waits for the one that fails.
    let setup = Setup { store_args: vec!["--fee-default", "5", "--fee-fallback", "5"], ..Setup::default() };
    let mut system = System::start_as(setup, Some(&processors));
    let ways = [system.api(0), system.api(1)];
    let is_over = AtomicBool::new(false);
    let mut last = PerProcessor::default();
    let read = thread::scope(|scope| {
        for way in ways.iter().flat_map(|way| [way; PAYING]) {
            scope.spawn(|| pay_until(way, &is_over));
        }
        let mut apis = ways.each_ref().map(Way::connect);
        let read = Processor::BOTH.into_iter().try_for_each(|processor| {
            // Of two with the same fee the default one gets everything while it works.
            processors.set_failing(Processor::Default, processor == Processor::Fallback);
            read_until_grown(&mut apis, processor, &mut last)
        });
        is_over.store(true, Ordering::Relaxed);
        read
    });
    read.unwrap_or_else(|why| panic!("{why}\n{}", system.logs()));
    processors.set_failing(Processor::Default, false);
    system.until_settled();
    for way in ways {
        let told = way.ask(&get("/payments-summary")).expect("an answer").json();
        for (processor, part) in [(Processor::Default, "default"), (Processor::Fallback, "fallback")] {
            assert_eq!(totals(&told[part]), processors.totals(processor), "{way:?}, {part}");
        }
    }
}

#[test]
fn a_bound_may_be_written_in_every_way_of_the_table() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    let mut failures = Failures::default();
    let charged = charge_some(&mut system, &processors);
    let time = charged[2].requested_at;
    let plain = digits(time, 3);
    let local = plain.trim_end_matches('Z').to_owned();
    let at = |hours: i8| {
        let zoned = time.to_zoned_datetime(TimeZone::fixed(Offset::constant(hours)));
        format!("{:.3}{hours:+03}:00", zoned.datetime())
    };
    let odd_offset = {
        let zoned =
            time.to_zoned_datetime(TimeZone::fixed(Offset::from_seconds(5 * 3600 + 45 * 60).unwrap()));
        format!("{:.3}+05:45", zoned.datetime())
    };
    let all_encoded: String = plain.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let exact = [
        ("Z".to_owned(), plain.clone()),
        ("no offset".to_owned(), local.clone()),
        ("offset +00:00".to_owned(), format!("{local}+00:00")),
        ("offset -00:00".to_owned(), format!("{local}-00:00")),
        ("a raw offset to the east".to_owned(), at(3)),
        ("an encoded offset to the east".to_owned(), at(3).replace('+', "%2B")),
        ("an offset to the west".to_owned(), at(-11)),
        ("an offset with minutes".to_owned(), odd_offset),
        ("encoded colons".to_owned(), plain.replace(':', "%3A")),
        ("encoded colons in small letters".to_owned(), plain.replace(':', "%3a")),
        ("everything encoded".to_owned(), all_encoded),
    ];
    let of_digits = (3..=9).map(|count| (format!("{count} digits"), digits(time, count)));
    let mut windows: Vec<Window> = exact
        .into_iter()
        .chain(of_digits)
        .flat_map(|(name, text)| {
            let window = |query, from, to| Window { name: format!("{name}: {query}"), query, from, to };
            [
                window(format!("?from={text}&to={text}"), Some(time), Some(time)),
                window(format!("?to={text}&from={text}"), Some(time), Some(time)),
                window(format!("?from={text}"), Some(time), None),
                window(format!("?to={text}"), None, Some(time)),
            ]
        })
        .collect();
    for count in 0..3_u32 {
        let grain_us = 10_i64.pow(6 - count);
        let floor = Timestamp::from_microsecond(time.as_microsecond() / grain_us * grain_us).unwrap();
        let text = digits(floor, usize::try_from(count).unwrap());
        let window = |query, from, to| Window { name: format!("{count} digits: {query}"), query, from, to };
        windows.push(window(format!("?from={text}"), Some(floor), None));
        windows.push(window(format!("?to={text}"), None, Some(floor)));
        windows.push(window(format!("?from={text}&to={plain}"), Some(floor), Some(time)));
    }
    let others = ["?x=1&from=T&y", "?&from=T&&", "?from=T&From=nonsense"];
    windows.extend(others.map(|query| Window {
        name: format!("unknown parameters: {query}"),
        query: query.replace('T', &plain),
        from: Some(time),
        to: None,
    }));
    // The points in time of some libraries end 26 hours before the year 9999 does.
    for text in ["9999-12-30T22:00:01Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-23:59"] {
        let name = |query: &str| format!("the end of the year 9999: {query}");
        let to = format!("?from={plain}&to={text}");
        windows.push(Window { name: name(&to), query: to, from: Some(time), to: None });
        let all = format!("?from=0001-01-01T00:00:00%2B23:59&to={text}");
        windows.push(Window { name: name(&all), query: all, from: None, to: None });
    }
    check(&system, &charged, &windows, &mut failures);
    failures.finish();
}

#[test]
fn a_malformed_empty_or_repeated_bound_is_refused() {
    let system = System::start();
    let good = "2020-07-10T12:34:56.000Z";
    let mut rows = Vec::new();
    let bad = [
        ("empty", ""),
        ("no time at all", MARK),
        ("null", "null"),
        ("a number", "1594384496"),
        ("date only", "2020-07-10"),
        ("date and hour", "2020-07-10T12"),
        ("no seconds", "2020-07-10T12:34Z"),
        ("time only", "12:34:56Z"),
        ("30 February", "2020-02-30T00:00:00Z"),
        ("29 February of a common year", "2021-02-29T00:00:00Z"),
        ("31 April", "2020-04-31T00:00:00Z"),
        ("month 13", "2020-13-01T00:00:00Z"),
        ("month 0", "2020-00-10T00:00:00Z"),
        ("day 0", "2020-07-00T00:00:00Z"),
        ("hour 24", "2020-07-10T24:00:00Z"),
        ("minute 60", "2020-07-10T12:60:00Z"),
        ("second 61", "2020-07-10T12:34:61Z"),
        ("10 fraction digits", "2020-07-10T12:34:56.0000000000Z"),
        ("a point without digits", "2020-07-10T12:34:56.Z"),
        ("a comma for the point", "2020-07-10T12:34:56,000Z"),
        ("bytes after it", "2020-07-10T12:34:56ZZ"),
        ("a space after it", "2020-07-10T12:34:56Z%20"),
        ("a NUL after it", "2020-07-10T12:34:56Z%00"),
        ("an offset without minutes", "2020-07-10T12:34:56+03"),
        ("an offset of 24 hours", "2020-07-10T12:34:56+24:00"),
        ("an offset of 60 minutes", "2020-07-10T12:34:56+03:60"),
        ("Z and an offset", "2020-07-10T12:34:56Z+03:00"),
        ("one-digit month", "2020-7-10T12:34:56Z"),
        ("a sign before the year", "-2020-07-10T12:34:56Z"),
        ("slashes", "2020/07/10T12:34:56Z"),
        ("other digits", "%EF%BC%92020-07-10T12:34:56Z"),
        ("half an escape", "2020-07-10T12%3"),
        ("an escape that is none", "2020-07-10T12%zz34:56Z"),
        ("an escape outside UTF-8", "2020-07-10T12:34:56Z%ff"),
        ("encoded twice", "2020-07-10T12%253A34%253A56Z"),
        ("in quotes", "%222020-07-10T12:34:56Z%22"),
    ];
    for (name, text) in bad {
        for query in [format!("from={text}"), format!("to={text}"), format!("from={good}&to={text}")] {
            rows.push(row(format!("{name}: {query}"), get(&format!("/payments-summary?{query}")), 400));
        }
    }
    let repeated = [
        ("from twice", format!("from={good}&from={good}")),
        ("to twice", format!("to={good}&to={good}")),
        ("from twice, once empty", format!("from={good}&from=")),
        ("from twice around to", format!("from={good}&to={good}&from={good}")),
        ("from without a value", "from".to_owned()),
        ("to without a value", format!("from={good}&to")),
    ];
    rows.extend(repeated.map(|(name, query)| row(name, get(&format!("/payments-summary?{query}")), 400)));
    rows.push(row("HEAD with a bad bound", request("HEAD", "/payments-summary?from=x"), 400));
    rows.push(row("raw bytes outside ASCII", get("/payments-summary?from=２020-07-10T12:34:56Z"), 400));
    run(&system, &rows);
}

#[test]
fn without_a_store_a_summary_is_refused_after_a_second() {
    let mut system = System::start();
    let mut failures = Failures::default();
    system.store.signal(Signal::SIGSTOP);
    // What was asked of a store that is stopped may still be answered by it: unknown is as true as unavailable.
    refusals(&system, "stopped", &[503, 504], &mut failures);
    system.store.kill();
    for api in [system.api(0), system.api(1)] {
        system.until("the api misses its store", |_| api.status("/health") == Some(503));
    }
    refusals(&system, "killed", &[503], &mut failures);
    failures.finish();
}

fn refusals(system: &System, store: &str, expected: &[u16], failures: &mut Failures) {
    for way in system.ways() {
        let name = format!("with a {store} store ({way})");
        let asked = Instant::now();
        match way.ask(&get("/payments-summary")) {
            Ok(answer) => {
                if !expected.contains(&answer.status) {
                    failures.note(&name, format_args!("one of {expected:?}"), answer.status);
                }
                failures.equal(&format!("{name}, the error"), None, answer.error_flaw());
            }
            Err(end) => failures.note(&name, format_args!("one of {expected:?}"), end),
        }
        let held = asked.elapsed();
        if held < HELD_MIN {
            failures.note(&format!("{name}, held"), "1 s", format_args!("{held:?}"));
        }
    }
}

#[test]
fn head_is_answered_as_get_is_but_without_a_body() {
    let system = System::start();
    let mut failures = Failures::default();
    let bounds = "?from=2020-07-10T12:34:56.000Z&to=2020-07-10T12:35:56.000Z";
    for way in system.ways() {
        for target in ["/payments-summary".to_owned(), format!("/payments-summary{bounds}")] {
            head_of(&way, &target, &mut failures);
        }
    }
    failures.finish();
}

fn head_of(way: &Way, target: &str, failures: &mut Failures) {
    let name = format!("HEAD {target} ({way})");
    let got = way.ask(&get(target)).expect("an answer to GET");
    let mut connection = way.connect();
    match connection.ask(&request("HEAD", target)) {
        Ok(head) => {
            failures.equal(&name, 200, head.status);
            // RFC 9110 sections 8.6 and 9.3.2: it may be left out, but not be another number.
            if let Some(len) = head.field("content-length") {
                failures.equal(&format!("{name}, Content-Length"), got.field("content-length"), Some(len));
            }
            if let Some(content_type) = head.field("content-type") {
                let of_get = got.field("content-type");
                failures.equal(&format!("{name}, Content-Type"), of_get, Some(content_type));
            }
        }
        Err(end) => failures.note(&name, 200, end),
    }
    // A body would be taken for the next answer.
    match connection.ask(&get(target)) {
        Ok(next) => failures.equal(&format!("{name}, then GET"), got.json(), next.json()),
        Err(end) => failures.note(&format!("{name}, then GET"), 200, end),
    }
}
