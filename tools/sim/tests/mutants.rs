//! Each unsafe variant of the rules that docs/money.md names must be found by the simulation. Runs only with the feature
//! `mutants`, which no release build has:
//!
//! ```text
//! cargo test -p arena --features mutants --test mutants -- --nocapture
//! ```
#![cfg(feature = "mutants")]

use sim::simulation::run;
use std::panic::{catch_unwind, set_hook, take_hook};
use store::core::mutant::{Mutant, choose};

/// A mutant that so many seeds do not find would slip through the tests of every day.
const SEEDS_MAX: u64 = 3_000;

/// The first seed that finds a mutant, and what it says; an assertion of the store counts.
fn find(mutant: Mutant) -> Option<(u64, String)> {
    choose(Some(mutant));
    (0..SEEDS_MAX).find_map(|seed| match catch_unwind(|| run(seed)) {
        Ok(verdict) => verdict.violation.map(|what| (seed, format!("{what}, after {} steps", verdict.steps))),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "an assertion".to_owned());
            Some((seed, format!("assertion: {words}")))
        }
    })
}

#[test]
fn the_simulation_finds_every_mutant() {
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let found = Mutant::ALL.map(|mutant| (mutant, find(mutant)));
    choose(None);
    set_hook(hook);
    for (mutant, found) in &found {
        match found {
            Some((seed, what)) => println!("{mutant:32} seed {seed:5}: {what}"),
            None => println!("{mutant:32} not found in {SEEDS_MAX} seeds"),
        }
    }
    assert!(found.iter().all(|(_, found)| found.is_some()), "a mutant survived");
}

#[test]
fn without_a_mutant_the_same_seeds_find_nothing() {
    choose(None);
    for seed in 0..300 {
        assert_eq!(run(seed).violation, None, "seed {seed}");
    }
}
