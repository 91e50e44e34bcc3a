//! The lab: it replays, it agrees with the clairvoyant, and it measures how fast the router reacts, in simulated time.

use contest::plan::{Condition, Plan, Stage};
use sim::lab::scenario::{Lived, live, live_with};
use sim::lab::verdict::judge;
use std::time::Duration;
use store::core::router::RouterConfig;
use wire::{PerProcessor, Processor};

const WELL: Condition = Condition { delay_ms: 0, failing: false };
const DEFAULT: Processor = Processor::Default;

/// A plan of 40 s in which 200 users are there from the first second on. The default processor changes as told, the
/// fallback fails all the time, so that nothing but the default one gets payments.
fn plan(default: &[(u64, Condition)]) -> Plan {
    let stages = default.iter().map(|(from_ms, condition)| Stage {
        from: Duration::from_millis(*from_ms),
        condition: PerProcessor([*condition, Condition { failing: true, ..WELL }]),
    });
    Plan {
        duration: Duration::from_secs(40),
        users: 200,
        ramp: Duration::from_secs(1),
        stages: stages.collect(),
        ..Plan::preview()
    }
}

/// How long after `from_ms` the first payment of those begun later was recorded, in milliseconds.
fn first_recorded_ms(lived: &Lived, from_ms: u64) -> u64 {
    let recorded = lived.rows[DEFAULT].iter().map(|row| row.recorded_us / 1_000);
    recorded.filter(|at_ms| *at_ms >= from_ms).min().expect("it was recorded at last") - from_ms
}

#[test]
fn a_processor_that_fails_and_heals_gets_its_first_payment_within_a_quarter_of_its_delay_and_150_ms() {
    for delay_ms in [0, 50, 200, 600, 1_000] {
        for heals_ms in [20_000, 20_033, 20_071, 20_333] {
            let failing = Condition { delay_ms, failing: true };
            let healed = Condition { delay_ms, failing: false };
            let plan = plan(&[(1_000, WELL), (10_000, failing), (heals_ms, healed)]);
            let ms = first_recorded_ms(&live(&plan, heals_ms, false), heals_ms);
            assert!(ms <= delay_ms / 4 + 150, "delay {delay_ms} ms, healed at {heals_ms} ms: {ms} ms");
        }
    }
}

#[test]
fn a_processor_with_a_delay_beyond_the_margin_gets_its_first_payment_within_5500_ms_after_it() {
    for (delay_ms, failing) in [(1_600, false), (3_000, false), (3_000, true)] {
        for heals_ms in [20_000, 21_300, 22_600, 23_900] {
            let plan = plan(&[(1_000, WELL), (10_000, Condition { delay_ms, failing }), (heals_ms, WELL)]);
            let lived = live(&plan, heals_ms, false);
            let mut begun_ms = lived.rows[DEFAULT].iter().map(|row| row.begun_us / 1_000);
            let ms = begun_ms.find(|at_ms| *at_ms >= heals_ms).expect("it came back") - heals_ms;
            assert!(ms <= 5_500, "delay {delay_ms} ms, healed at {heals_ms} ms: {ms} ms");
        }
    }
}

#[test]
fn a_processor_that_stalls_gets_a_few_tens_of_payments_before_the_router_knows() {
    let stalled = Condition { delay_ms: 5_000, failing: false };
    let plan = plan(&[(1_000, WELL), (20_000, stalled)]);
    // What it gets knowingly, late rather than dear elsewhere, does not count.
    let router = RouterConfig::for_fees(plan.fee_percent, plan.audit.margin_ms);
    let lived = live_with(&plan, RouterConfig { late_after_ms: u64::from(u32::MAX), ..router }, 1, false);
    let unknowing =
        lived.rows[DEFAULT].iter().filter(|row| (20_000..22_000).contains(&row.requested_ms)).count();
    assert!(unknowing <= 40, "{unknowing} of 400");
}

#[test]
fn a_limiter_turns_no_call_away_and_health_calls_are_5_seconds_apart() {
    let slow = Condition { delay_ms: 1_300, failing: false };
    let mut plan = plan(&[(1_000, slow)]);
    plan.users = 2_000;
    let lived = live(&plan, 1, false);
    assert_eq!(lived.busy, 0);
    let gaps = |processor: Processor| lived.health_us[processor].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(Processor::BOTH.into_iter().flat_map(gaps).all(|gap_us| gap_us >= 5_100_000));
    assert!(lived.health_us[DEFAULT].len() >= 6);
}

#[test]
fn a_plan_is_lived_through_in_the_same_way_each_time() {
    let settled = || live(&contest::draw::plan(17), 17, false).settled;
    assert_eq!(settled(), settled());
}

#[test]
fn on_a_day_without_comparisons_no_payment_waits_for_a_minute_while_both_processors_work() {
    let plan = contest::draw::day(1);
    let lived = live(&plan, 1, false);
    let verdict = judge(1, &plan, &lived);
    println!("{verdict}");
    assert!(verdict.wait_max_ms <= 60_000, "{} ms: {verdict}", verdict.wait_max_ms);
    assert!(verdict.lag <= 4 * 60 && lived.arrivals_us.len() > 300_000, "{verdict}");
}

#[test]
fn the_official_plans_are_worth_99_per_cent_of_the_clairvoyant_and_no_fine() {
    for plan in [Plan::preview(), Plan::final_()] {
        let verdict = judge(0, &plan, &live(&plan, 0, false));
        assert!(verdict.share >= 99.0 && verdict.fine.is_none(), "{verdict}");
        assert_eq!(verdict.lag, 0, "{verdict}");
    }
}
