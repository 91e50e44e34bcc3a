//! `store reconcile` beside a running system: what a processor has lost, altered or invented is reported with its id, and
//! nothing else changes.

use crate::harness::processors::Processors;
use crate::harness::system::{Setup, System, binaries};
use crate::harness::{fresh_id, get, pay, payment};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use wire::{PerProcessor, Processor};

/// Payments of each half: the second half goes to the fallback.
const PAYMENTS_EACH: usize = 30;

/// What is charged where: ids in the order of their payment.
fn pay_both(system: &mut System, processors: &Processors) -> PerProcessor<Vec<String>> {
    let mut charged = PerProcessor([Vec::new(), Vec::new()]);
    for is_failing in [false, true] {
        processors.set_failing(Processor::Default, is_failing);
        let ids: Vec<String> = (0..PAYMENTS_EACH).map(|_| fresh_id()).collect();
        for (number, id) in ids.iter().enumerate() {
            let amount = format!("{}.{:02}", number + 1, number);
            assert_eq!(system.lb().ask(&pay(payment(id, &amount))).unwrap().status, 202);
        }
        system.until_settled();
        for id in ids {
            let (processor, _) = processors.requested_at(&id).expect("it is settled");
            charged[processor].push(id);
        }
    }
    processors.set_failing(Processor::Default, false);
    assert!(charged.iter().all(|(_, ids)| ids.len() > 4), "both have some: {charged:?}");
    charged
}

fn reconcile(system: &System, urls: &PerProcessor<String>, token: &str, more: &[&str]) -> Output {
    let mut command = Command::new(binaries().join("store"));
    command.args(["reconcile", "--margin-s", "0", "--window-s", "1", "--calls-per-s", "1000"]).args(more);
    command.arg("--log-dir").arg(system.log_dir()).env_clear();
    command.env("PROCESSOR_TOKEN", token);
    command.env("PROCESSOR_DEFAULT_URL", &urls[Processor::Default]);
    command.env("PROCESSOR_FALLBACK_URL", &urls[Processor::Fallback]);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The ids of a list of the report; `at` is where a member has its payment.
fn ids(report: &Value, processor: Processor, list: &str, at: &str) -> BTreeSet<String> {
    let members = report[processor.name()][list].as_array().unwrap();
    members.iter().map(|member| member.pointer(at).unwrap().as_str().unwrap().to_owned()).collect()
}

/// All that must not change: what the store counts, what its log holds, and what clients are told.
fn state(system: &System) -> String {
    let metrics = system.api(0).ask(&get("/metrics")).unwrap().body;
    let balance = metrics.lines().filter(|line| line.starts_with("store_payments"));
    let check = Command::new(binaries().join("store")).arg("check").arg(system.log_dir()).output().unwrap();
    let summary = system.lb().ask(&get("/payments-summary")).unwrap().body;
    format!("{:?}\n{}\n{summary}", balance.collect::<Vec<_>>(), text(&check.stdout))
}

#[test]
fn rows_that_a_processor_loses_are_reported_by_their_ids_and_nothing_changes() {
    let processors = Processors::start();
    let setup = Setup { store_args: vec!["--hold-timeout-ms", "0"], ..Setup::default() };
    let mut system = System::start_as(setup, Some(&processors));
    let urls = PerProcessor(processors.addrs.0.map(|addr| format!("http://{addr}/")));
    let charged = pay_both(&mut system, &processors);

    let agreed = reconcile(&system, &urls, "123", &[]);
    assert_eq!(agreed.status.code(), Some(0), "{}{}", text(&agreed.stdout), text(&agreed.stderr));
    assert_eq!(text(&agreed.stdout).matches("agrees").count(), 2);

    for (processor, ids) in charged.iter() {
        let order = format!(r#"{{"ids":["{}","{}"]}}"#, ids[0], ids[2]);
        assert_eq!(processors.order(processor, "POST /admin/lose-payments", &order).body, r#"{"lost":2}"#);
    }
    let (altered, moved) = (&charged[Processor::Default][1], &charged[Processor::Fallback][1]);
    let (_, time) = processors.requested_at(altered).unwrap();
    for (processor, id, time) in [
        (Processor::Default, altered, format!("{time}Z")),
        (Processor::Fallback, moved, "2020-01-01T00:00:00Z".to_owned()),
    ] {
        let row = format!(r#"{{"correlationId":"{id}","amount":77.77,"requestedAt":"{time}"}}"#);
        assert_eq!(processors.order(processor, "POST /admin/replace-payment", &row).status, 204);
    }
    let invented = format!(r#"{{"correlationId":"{}","amount":5.55,"requestedAt":"{time}Z"}}"#, fresh_id());
    assert_eq!(processors.order(Processor::Fallback, "POST /payments", &invented).status, 200);

    let before = state(&system);
    let held: PerProcessor<_> = PerProcessor::from_fn(|processor| processors.totals(processor));
    let differs = reconcile(&system, &urls, "123", &["--json"]);
    assert_eq!(differs.status.code(), Some(1), "{}", text(&differs.stderr));
    let report: Value = serde_json::from_slice(&differs.stdout).unwrap();
    for (processor, all) in charged.iter() {
        let lost = BTreeSet::from([all[0].clone(), all[2].clone()]);
        assert_eq!(ids(&report, processor, "missing", "/correlationId"), lost, "{report:#}");
        let other = BTreeSet::from([all[1].clone()]);
        assert_eq!(ids(&report, processor, "differing", "/ours/correlationId"), other, "{report:#}");
    }
    let unexplained = |processor: Processor| report[processor.name()]["unexplained"].clone();
    assert_eq!(unexplained(Processor::Default), serde_json::json!([]));
    assert_eq!(unexplained(Processor::Fallback)[0]["count"], 1);
    assert_eq!(unexplained(Processor::Fallback)[0]["cents"], 555);

    let shown = reconcile(&system, &urls, "123", &[]);
    assert_eq!(shown.status.code(), Some(1));
    for id in charged.0.iter().flat_map(|ids| &ids[..3]) {
        assert!(text(&shown.stdout).contains(id), "{}", text(&shown.stdout));
    }
    system.until_settled();
    assert_eq!(state(&system), before, "nothing changed here");
    assert_eq!(PerProcessor::from_fn(|processor| processors.totals(processor)), held, "nor there");
}

#[test]
fn an_impossible_comparison_is_reported_and_is_no_difference() {
    let processors = Processors::start();
    let mut system = System::start_as(Setup::default(), Some(&processors));
    assert_eq!(system.lb().ask(&pay(payment(&fresh_id(), "1"))).unwrap().status, 202);
    system.until_settled();
    let urls = PerProcessor(processors.addrs.0.map(|addr| format!("http://{addr}")));
    let nowhere = "http://127.0.0.1:1".to_owned();
    let away = PerProcessor([urls[Processor::Default].clone(), nowhere]);
    for (urls, token, advice) in [
        (&urls, "wrong", "PROCESSOR_TOKEN"),
        (&urls, "", "processor-token"),
        (&away, "123", "PROCESSOR_FALLBACK_URL"),
    ] {
        let failed = reconcile(&system, urls, token, &[]);
        assert_eq!(failed.status.code(), Some(2), "{}", text(&failed.stdout));
        assert!(text(&failed.stderr).contains(advice), "{}", text(&failed.stderr));
        assert!(!text(&failed.stdout).contains("differs"), "{}", text(&failed.stdout));
    }
    system.store.kill();
    let failed = reconcile(&system, &urls, "123", &[]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(text(&failed.stderr).contains("LOG_DIR"), "{}", text(&failed.stderr));
}
