//! Real processes under load are killed, and nothing that was acknowledged is lost or charged twice: a short fight of
//! the judge, with the processors' rows compared payment by payment at the end.

use contest::plan::Plan;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Eight seconds of the preview plan, with a slow and a failing stage.
fn short_plan() -> Plan {
    let mut plan = Plan::preview();
    plan.name = "short".to_owned();
    plan.duration = Duration::from_secs(8);
    plan.ramp = plan.duration;
    plan.users = 80;
    for (stage, from_s) in plan.stages.iter_mut().zip([0.2, 2.0, 3.0, 4.0, 5.0, 6.5]) {
        stage.from = Duration::from_secs_f64(from_s);
    }
    plan
}

#[test]
fn a_fight_loses_nothing_when_the_store_and_an_api_are_killed_in_the_middle() {
    let dir = TempDir::new().unwrap();
    let (plan, report) = (dir.path().join("plan.json"), dir.path().join("report.json"));
    std::fs::write(&plan, serde_json::to_vec(&short_plan()).unwrap()).unwrap();
    let kills =
        ["--kill-store-at", "1.5", "--kill-api-at", "2.5", "--kill-store-at", "5.5", "--kill-api-at", "7"];
    let output = Command::new(env!("CARGO_BIN_EXE_arena"))
        .arg("fight")
        .arg(&plan)
        .args(["--port", "0"])
        .arg("--json")
        .arg(&report)
        .args(kills)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // 3 would be money. 4 is a machine that was slow: what is not settled at the end of the plan settles after it.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}\n{said}", output.status);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let killed = report["kills"].as_array().map_or(0, Vec::len);
    assert_eq!(killed, 4, "{report:#}");
}
