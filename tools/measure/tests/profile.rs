//! `measure profile` where it cannot work: it says what is missing before it builds or starts anything.

use std::process::Command;

#[test]
fn without_perf_the_package_that_has_it_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_measure"))
        .args(["profile", "--out"])
        .arg(empty.path().join("out"))
        .env("PATH", empty.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("linux-perf") && said.contains("scripts/install-profiling-tools"), "{said}");
    assert!(!empty.path().join("out").exists());
}
