//! Variables that are set and empty, over all variables of all binaries: each is as unset, and an empty secret is refused.

use crate::harness::system::binaries;
use contest::plan::Plan;
use std::collections::BTreeSet;
use std::process;
use wire::Processor;

/// Command lines that end before anything starts, with a variable that is empty.
fn output(program: &str, args: &[&str], envs: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = process::Command::new(binaries().join(program));
    command.args(args).env_clear().envs(envs.iter().copied());
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_empty_secret_is_refused_at_the_start() {
    for (program, args, envs, name) in [
        ("api", &[][..], &[("PURGE", "token"), ("PURGE_TOKEN", "")][..], "PURGE_TOKEN"),
        ("api", &["--purge", "token"], &[("PURGE_TOKEN", "")], "PURGE_TOKEN"),
        ("api", &["--purge", "token"], &[], "PURGE_TOKEN"),
        ("api", &["--purge", "token", "--purge-token", ""], &[], "--purge-token"),
        ("api", &["--purge-token", ""], &[], "--purge-token"),
        ("arena", &["processors", "--token", ""], &[], "--token"),
        ("arena", &["fight", "preview", "--token", ""], &[], "--token"),
    ] {
        let (code, stderr) = output(program, args, envs);
        assert_eq!(code, Some(2), "{program} {args:?} {envs:?}: {stderr}");
        assert!(stderr.contains(name), "{program} {args:?} {envs:?}: {stderr}");
    }
}

/// Command lines that read every setting and end at once, because nothing answers in an empty folder.
#[test]
fn an_empty_variable_is_as_unset() {
    let nothing = tempfile::tempdir().expect("a folder");
    let dir = nothing.path().to_str().expect("a name");
    for (program, command, args) in [
        ("lb", &["healthcheck"][..], &["--socket-dir", dir, "healthcheck"][..]),
        ("api", &["healthcheck"], &["--socket-dir", dir, "healthcheck"]),
        ("store", &["list"], &["--store-socket-dir", dir, "list", "conflicts"]),
        ("arena", &["up"], &["up", "--bin-dir", dir]),
        ("arena", &["fight"], &["fight", "preview", "--bin-dir", dir]),
        ("arena", &["chaos"], &["chaos", "--bin-dir", dir]),
    ] {
        let variables: BTreeSet<String> =
            [&[][..], command].into_iter().flat_map(|command| variables(program, command)).collect();
        assert!(variables.len() > 3, "{program} {command:?}: {variables:?}");
        let unset = output(program, args, &[]);
        assert_eq!(unset.0, Some(1), "{program} {args:?}: {unset:?}");
        let empty = variables.iter().map(|name| (name.as_str(), "")).collect::<Vec<_>>();
        assert_eq!(output(program, args, &empty), unset, "{program} {args:?} {variables:?}");
    }
}

/// The variables that the help of a command names.
fn variables(program: &str, command: &[&str]) -> Vec<String> {
    let help = process::Command::new(binaries().join(program)).args(command).arg("--help").output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    let names = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    names.map(str::to_owned).collect()
}

/// The value that the help of the store gives a variable without one.
fn store_default(variable: &str) -> f64 {
    let help = process::Command::new(binaries().join("store")).arg("--help").output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let rest = help.split(&format!("[env: {variable}=]")).nth(1).expect("a variable of the store");
    let default = rest.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
    default.and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn the_store_is_made_for_the_preview_unless_it_is_told_otherwise() {
    let plan = Plan::preview();
    assert_eq!(store_default("FEE_DEFAULT"), plan.fee_percent[Processor::Default]);
    assert_eq!(store_default("FEE_FALLBACK"), plan.fee_percent[Processor::Fallback]);
    assert_eq!(store_default("AUDIT_MARGIN_MS"), plan.audit.margin_ms as f64);
}
