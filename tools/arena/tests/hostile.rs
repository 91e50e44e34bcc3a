//! `arena hostile`: clients that hold all they can are borne.

use std::process::Command;

#[test]
fn clients_that_hold_all_they_can_are_borne_by_a_whole_stack() {
    let dir = tempfile::tempdir().expect("a folder");
    for mode in ["hand-off", "forward"] {
        let mut arena = Command::new(env!("CARGO_BIN_EXE_arena"));
        arena.args([
            "hostile",
            "--clients",
            "100",
            "--others",
            "2",
            "--for",
            "3",
            "--port",
            "0",
            "--mode",
            mode,
        ]);
        arena.arg("--run-dir").arg(dir.path().join(mode)).env("HELD_BYTES_MAX", "200000");
        let output = arena.output().expect("arena runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{mode}: {said}");
        assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("a payment over a new connection: 202"), "{said}");
    }
}
