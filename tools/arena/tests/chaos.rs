//! The short form of `arena chaos`: two rounds with real processes, one with everything and one that spares the store.
//!
//! What is asserted is money and that every fault was done, and never how long something took: a summary that came late on
//! a machine that is busy with everything else is a status of its own.

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use tempfile::TempDir;

/// The seeds of the two rounds: 8 begins with a purge and has faults of the disk, 9 spares the store.
const SEED: &str = "8";

/// Of a run, what `--json` tells.
fn run(dir: &TempDir, flags: &[&str]) -> Value {
    let json = dir.path().join("chaos.json");
    let output = Command::new(env!("CARGO_BIN_EXE_arena"))
        .args(["chaos", "--port", "0", "--seed", SEED, "--log-level", "warn"])
        .arg("--json")
        .arg(&json)
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}\n{said}", output.status);
    let text = std::fs::read(&json).unwrap_or_else(|error| panic!("{error}\n{said}"));
    serde_json::from_slice(&text).unwrap()
}

fn counts(totals: &Value, name: &str) -> BTreeMap<String, u64> {
    serde_json::from_value(totals[name].clone()).unwrap()
}

#[test]
fn nothing_is_lost_or_doubled_under_every_fault_there_is() {
    let dir = TempDir::new().unwrap();
    let totals = run(&dir, &["--for", "18", "--round", "9", "--kills", "30", "--rate", "300"]);
    assert_eq!(totals["wrong"], serde_json::json!({}), "{totals:#}");
    assert_eq!(totals["differing"], 0, "{totals:#}");
    let sums = totals["sums"].as_array().unwrap();
    assert!(sums.iter().all(|sum| *sum == sums[0] && sum["count"].as_u64() > Some(0)), "{sums:?}");

    let faults = counts(&totals, "faults");
    let kills = ["kill an api", "kill both apis", "kill store", "kill lb", "kill everything"];
    let stops = ["SIGSTOP an api", "SIGSTOP lb", "SIGTERM an api", "SIGTERM lb", "outage of both apis"];
    let troubles = [
        "reset_after_insert",
        "cut_in_answer",
        "cut_in_request",
        "late_answer",
        "error_with_row",
        "error_without_row",
        "too_many",
        "garbage",
        "flood",
        "strange_status",
        "gateway_timeout",
        "loses_rows",
        "delay",
        "failing",
        "heals_with_calls_waiting",
        "health_hang",
        "health_lie",
        "health_garbage",
    ];
    for name in kills.iter().chain(&stops).chain(&troubles) {
        assert!(faults.contains_key(*name), "{name} was not done: {faults:#?}");
    }
    // On a slow machine some kills meet a process that is not back yet.
    let killed: u64 = counts(&totals, "killed").values().sum();
    let missed = faults.get("kill that met no process").copied().unwrap_or(0);
    assert!(killed + missed >= 30, "{killed} processes were killed, {missed} were not there");
    assert_eq!(totals["purges"], 1);
    if totals["has_disk_faults"] == true {
        let met: Vec<&String> = faults.keys().filter(|name| name.starts_with("disk: ")).collect();
        let is_as_it_should_be = !met.is_empty() && met.iter().all(|name| !name.contains("otherwise"));
        assert!(is_as_it_should_be, "each error ends the store with 74, and it comes back: {faults:#?}");
    }
}

#[test]
fn the_sequences_that_broke_a_promise_are_played_in_both_modes() {
    for mode in ["forward", "hand-off"] {
        let dir = TempDir::new().unwrap();
        let short = ["--round", "6", "--for", "6", "--kills", "1", "--rate", "50", "--mode", mode];
        let totals = run(&dir, &short);
        assert_eq!(
            (&totals["wrong"], &totals["differing"]),
            (&serde_json::json!({}), &0.into()),
            "{totals:#}"
        );
        let mut faults = counts(&totals, "faults");
        // A machine may be too slow for a purge to reach the api that is stopped.
        if let Some(unmet) = faults.remove("purge that met no stopped api") {
            faults.insert("purge through a stopped api".into(), unmet);
        }
        for staged in [
            "purge through a stopped api",
            "purge through a stopped store",
            "apis that die with what they asked of a stopped store",
        ] {
            assert_eq!(faults.get(staged), Some(&1), "{staged}, mode {mode}: {faults:#?}");
        }
    }
}

#[test]
fn a_run_goes_on_where_its_state_was_left() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state.json");
    let state = state.to_str().unwrap();
    let short = ["--round", "6", "--kills", "2", "--rate", "50", "--state", state];
    let first = run(&dir, &[&short[..], &["--for", "6"]].concat());
    assert_eq!(first["rounds"], 1);
    let again = run(&dir, &[&short[..], &["--for", "6"]].concat());
    assert_eq!(again, first, "a run that is done is only told again");
}
