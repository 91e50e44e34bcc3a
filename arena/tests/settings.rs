//! Variables that are set and empty, over all variables of all binaries: each is as unset, and an empty secret is refused.

mod common;

use clap::{Command, CommandFactory, Parser};
use common::system::binaries;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::process;

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

/// The only test of this file that changes variables: they belong to the whole process.
#[test]
fn an_empty_variable_is_as_unset() {
    check::<lb::config::Arguments>(&[&["lb"], &["lb", "healthcheck"]]);
    check::<api::config::Arguments>(&[&["api"], &["api", "healthcheck"]]);
    check::<store::config::Arguments>(&[&["store"], &["store", "list", "conflicts"]]);
    check::<arena::config::Arguments>(&[
        &["arena", "processors"],
        &["arena", "up"],
        &["arena", "fight", "preview"],
        &["arena", "chaos"],
        &["arena", "profile"],
        &["arena", "bench", "floor"],
    ]);
}

fn check<A: Parser + CommandFactory + Debug>(lines: &[&[&str]]) {
    let parse = |line: &[&str]| format!("{:?}", wire::config::try_parse_from::<A>(line.iter().copied()));
    let mut variables = BTreeSet::new();
    collect(&A::command(), &mut variables);
    assert!(!variables.is_empty());
    for line in lines {
        let unset = parse(line);
        assert!(unset.starts_with("Ok"), "{line:?}: {unset}");
        for variable in &variables {
            let before = std::env::var_os(variable);
            // SAFETY: other threads of this process read variables through the standard library only, which locks them.
            unsafe { std::env::set_var(variable, "") };
            let empty = parse(line);
            // SAFETY: as above.
            unsafe {
                match before {
                    Some(value) => std::env::set_var(variable, value),
                    None => std::env::remove_var(variable),
                }
            }
            // What cargo tells a test about itself is set.
            if !variable.starts_with("CARGO") {
                assert_eq!(empty, unset, "{variable} is empty for {line:?}");
            }
        }
    }
}

/// The variables of a command and of all its subcommands.
fn collect(command: &Command, variables: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    variables.extend(names.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| collect(command, variables));
}
