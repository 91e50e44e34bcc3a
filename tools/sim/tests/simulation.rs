//! Seeds of the simulation: none may break an invariant, and each unsafe variant of the rules must be found.

use sim::simulation::{Cells, SeedResult, run, tell};
use std::panic::catch_unwind;
use std::process::{Command, Stdio};

/// Runs one seed; an assertion of the store that fails is a violation like any other.
fn run_caught(seed: u64) -> SeedResult {
    let is_told = std::env::var("SIMULATION_TELL").is_ok();
    catch_unwind(|| if is_told { tell(seed, |us, text| println!("{us:>12} {text}")) } else { run(seed) })
        .unwrap_or_else(|_| panic!("seed {seed} panicked"))
}

fn seeds_from_env(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SIMULATION_FIRST_SEED").unwrap_or(0);
    first..first + number("SIMULATION_SEEDS").unwrap_or(default)
}

#[test]
fn a_reader_that_leaves_breaks_nothing() {
    let mut arena = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["simulate", "--tell", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(arena.stdout.take());
    let output = arena.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(not(feature = "mutants"))]
#[test]
fn no_seed_breaks_an_invariant() {
    let mut cells = Cells::default();
    let (mut payments, mut faults, mut simulated_us) = (0, 0, 0);
    for seed in seeds_from_env(1_000) {
        let verdict = run_caught(seed);
        if let Some(violation) = verdict.violation {
            panic!("seed {seed} after {} steps: {violation}", verdict.steps);
        }
        cells.add(&verdict.cells);
        payments += verdict.payments;
        faults += verdict.faults;
        simulated_us += verdict.simulated_us;
    }
    println!(
        "{payments} payments, {faults} faults, {} simulated hours\n{cells}",
        simulated_us / 3_600_000_000
    );
}

#[test]
fn a_seed_replays_to_the_letter() {
    for seed in 0..20 {
        assert_eq!(run_caught(seed), run_caught(seed), "seed {seed}");
    }
}
