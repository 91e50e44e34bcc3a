//! The measurements do measure: the shortest form of some of them, with real processes. The figures are not this test's
//! business here.

use std::process::Command;
use tempfile::TempDir;

/// Measures once and gives what was found.
fn measure(args: &[&str]) -> serde_json::Value {
    let dir = TempDir::new().unwrap();
    let json = dir.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_measure"))
        .args(args)
        .args(["--turns", "1", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
}

fn figure(found: &serde_json::Value, contestant: &str, metric: usize) -> f64 {
    let contestants = found[0]["contestants"].as_array().unwrap();
    let of = contestants.iter().find(|other| other["name"] == contestant);
    of.unwrap_or_else(|| panic!("no {contestant} in {found:#}"))["turns"][0][metric].as_f64().unwrap()
}

/// How long lb or an api holds a payment before it is refused because a process is away (docs/http.md), in
/// milliseconds: a machine that gives a process no turn for so long has refusals, too, and no fault of ours.
const HOLD_MS: f64 = 1_000.0;

#[test]
fn the_floor_answers_payments_of_the_judges_users() {
    let found = measure(&["floor", "--for", "1"]);
    for contestant in ["floor", "floor again (A/A)"] {
        // A user gives a payment up after 1.5 s, which a busy machine may take for some.
        let [posted, failed] = [3, 4].map(|metric| figure(&found, contestant, metric));
        assert!(posted > failed, "{contestant}: {posted} posted, {failed} failed");
    }
}

#[test]
fn a_floor_of_two_processes_answers_as_well_as_one_and_as_ours() {
    let found = measure(&["preview", "--for", "1", "--modes", "hand-off"]);
    for contestant in ["floor", "floor of two processes", "ours, hand-off, process"] {
        // As above.
        let [posted, failed] = [3, 4].map(|metric| figure(&found, contestant, metric));
        assert!(posted > failed, "{contestant}: {posted} posted, {failed} failed");
    }
}

#[test]
fn the_least_balancers_serve_every_connection_as_lb_does() {
    let found =
        measure(&["lb", "--modes", "forward,hand-off", "--for", "1", "--rate", "100", "--connections", "2"]);
    for contestant in ["lb, forward", "the least forward", "lb, hand-off", "the least hand-off"] {
        assert!(figure(&found, contestant, 7) > 0.0, "connections went through {contestant}");
        assert!(figure(&found, contestant, 10) == 0.0, "and no request failed");
    }
}

#[test]
fn a_stalled_peer_costs_the_others_no_payment() {
    let found = measure(&["stalls", "--modes", "hand-off", "--for", "1", "--rate", "200", "--clients", "20"]);
    let stalled = ["a stalled processor", "a stalled api", "clients that do not read"];
    for contestant in stalled.into_iter().chain(["undisturbed", "undisturbed again (A/A)"]) {
        let [accepted, refused, unanswered] = [3, 4, 5].map(|metric| figure(&found, contestant, metric));
        assert!(accepted > 0.0, "{contestant}: none accepted, {refused} refused");
        if refused > 0.0 {
            let refused_min_ms = figure(&found, contestant, 6);
            assert!(
                refused_min_ms >= HOLD_MS,
                "{contestant}: {refused} refused, one after {refused_min_ms} ms"
            );
        }
        // Those that are with the stopped api itself; all others have an answer, however long it took.
        assert!(unanswered == 0.0 || contestant == "a stalled api", "{contestant}: {unanswered} unanswered");
    }
}
