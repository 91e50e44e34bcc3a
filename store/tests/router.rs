//! What the router makes of answers, of their absence, and of health calls, in a time that the test moves by hand.

use store::core::ApiId;
use store::core::calls::{Call, Calls};
use store::core::router::{OPEN_MAX, Route, Router, RouterConfig, State};
use wire::frame::{AttemptId, Health, Outcome, Report};
use wire::{PaymentId, Processor};

const DEFAULT: Processor = Processor::Default;
const FALLBACK: Processor = Processor::Fallback;

/// A router with its calls and a clock.
struct Trial {
    router: Router,
    calls: Calls,
    now_us: u64,
    attempts: u64,
}

impl Trial {
    fn new() -> Self {
        let config = RouterConfig {
            audit_margin_ms: 1_500,
            preferred: DEFAULT,
            patience_ms: 10_000,
            dispatch_per_s: 1_000_000,
            open_max: OPEN_MAX,
        };
        Self { router: Router::new(config, 0), calls: Calls::default(), now_us: 0, attempts: 0 }
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now_us += ms * 1000;
    }

    fn route(&mut self) -> Route {
        self.router.route(&self.calls, self.now_us)
    }

    fn state(&self, processor: Processor) -> State {
        self.router.state(processor, &self.calls, self.now_us)
    }

    /// A call goes out.
    fn send(&mut self, processor: Processor) -> AttemptId {
        self.attempts += 1;
        let attempt = AttemptId(self.attempts);
        let call = Call { api: ApiId(1), id: PaymentId(1), since_us: self.now_us };
        self.calls.begin(processor, attempt, call);
        self.router.on_dispatch(processor, self.now_us);
        attempt
    }

    /// Its answer comes after so long.
    fn answer(&mut self, processor: Processor, attempt: AttemptId, outcome: Outcome, latency_ms: u32) {
        self.calls.end(processor, attempt);
        let latency_us = latency_ms * 1000;
        let report =
            Report { sequence: 1, attempt, id: PaymentId(1), processor, outcome, status: 0, latency_us };
        self.router.on_report(&report, self.now_us);
    }

    /// Calls and answers until the delay is believed.
    fn get_used_to(&mut self, processor: Processor, delay_ms: u32) {
        for _ in 0..40 {
            let attempt = self.send(processor);
            self.wait_ms(u64::from(delay_ms));
            self.answer(processor, attempt, Outcome::Charged, delay_ms);
        }
    }

    fn health(&mut self, processor: Processor, failing: bool, min_response_ms: u32) {
        self.wait_ms(16_001);
        while self.router.take_health_call(self.now_us).is_some() {}
        self.router.on_health(
            processor,
            Health::Answered { failing, min_response_ms },
            &self.calls,
            self.now_us,
        );
    }
}

#[test]
fn the_cheap_processor_gets_everything_while_it_works() {
    let mut trial = Trial::new();
    for delay_ms in [1, 100, 1_000] {
        trial.get_used_to(DEFAULT, delay_ms);
        assert_eq!(trial.route(), Route::To(DEFAULT), "{delay_ms} ms");
    }
}

#[test]
fn one_that_fails_is_waited_for_and_then_the_dear_one_gets_it() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 1);
    let attempt = trial.send(DEFAULT);
    trial.answer(DEFAULT, attempt, Outcome::Failing, 1);
    assert_eq!((trial.state(DEFAULT), trial.route()), (State::Failing, Route::Wait));
    trial.wait_ms(9_999);
    trial.send(DEFAULT);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(1);
    assert_eq!(trial.route(), Route::To(FALLBACK));
}

#[test]
fn a_canary_each_100_ms_and_never_more_than_four_find_out_that_it_works_again() {
    let mut trial = Trial::new();
    let attempt = trial.send(DEFAULT);
    trial.answer(DEFAULT, attempt, Outcome::Failing, 1);
    let mut canaries = Vec::new();
    for _ in 0..20 {
        assert_eq!(trial.route(), Route::Wait);
        trial.wait_ms(100);
        if trial.route() == Route::To(DEFAULT) {
            canaries.push(trial.send(DEFAULT));
        }
    }
    assert_eq!(canaries.len(), 4, "one each 100 ms, until four have no answer");
    trial.answer(DEFAULT, canaries[0], Outcome::Charged, 1);
    canaries[1..].iter().for_each(|canary| trial.answer(DEFAULT, *canary, Outcome::Charged, 1));
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn a_call_that_is_late_holds_the_next_ones_back_within_milliseconds() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2);
    let late = trial.send(DEFAULT);
    trial.wait_ms(20);
    assert_eq!(trial.state(DEFAULT), State::Usable, "a hiccup of the machine");
    trial.wait_ms(30);
    assert_eq!((trial.state(DEFAULT), trial.route()), (State::Stalled, Route::Wait));
    trial.answer(DEFAULT, late, Outcome::Charged, 50);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn a_lost_call_does_not_hold_a_processor_back_that_answers_others() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2);
    trial.send(DEFAULT);
    let younger = trial.send(DEFAULT);
    trial.wait_ms(2);
    trial.answer(DEFAULT, younger, Outcome::Charged, 2);
    trial.wait_ms(5_000);
    assert_eq!(trial.state(DEFAULT), State::Usable, "what is older than an answer is lost, not late");
}

#[test]
fn a_delay_beyond_the_audit_margin_is_left_to_the_health_call() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    assert_eq!((trial.state(DEFAULT), trial.route()), (State::Slow, Route::Wait));
    trial.wait_ms(5_000);
    assert_eq!(trial.route(), Route::Wait, "not even a canary");
    trial.health(DEFAULT, false, 20);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn a_health_call_is_made_by_one_at_a_time_and_seldom() {
    let mut trial = Trial::new();
    assert_eq!(trial.router.take_health_call(4_999_000), None, "the store before may just have made one");
    let mut made_us = Vec::new();
    for ms in (5_000..60_000).step_by(50) {
        while let Some(processor) = trial.router.take_health_call(ms * 1000) {
            if processor == DEFAULT {
                made_us.push(ms * 1000);
            }
            let health = Health::Answered { failing: false, min_response_ms: 0 };
            trial.router.on_health(processor, health, &trial.calls, ms * 1000 + 3_000);
        }
    }
    assert!(made_us.windows(2).all(|pair| pair[1] - pair[0] >= 5_200_000), "{made_us:?}");
    assert!(made_us.len() >= 10);
}

#[test]
fn turned_down_by_the_limiter_it_sends_less_at_a_time() {
    let mut trial = Trial::new();
    let calls: Vec<AttemptId> = (0..100).map(|_| trial.send(DEFAULT)).collect();
    assert_eq!(trial.route(), Route::To(DEFAULT));
    for attempt in &calls[..10] {
        trial.answer(DEFAULT, *attempt, Outcome::Busy, 1);
    }
    assert_eq!(trial.state(DEFAULT), State::Usable, "429 is no failure");
    assert_eq!(trial.route(), Route::Wait, "90 are open, and fewer than that are allowed now");
    for attempt in &calls[10..] {
        trial.answer(DEFAULT, *attempt, Outcome::Charged, 1);
    }
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn a_payment_that_may_only_go_there_goes_to_a_slow_processor() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    assert!(trial.router.admits_bound(DEFAULT, &trial.calls, trial.now_us));
    assert!(!trial.router.admits(DEFAULT, &trial.calls, trial.now_us));
}

#[test]
fn when_both_are_slow_but_answer_the_cheap_one_gets_it_late() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    trial.get_used_to(FALLBACK, 3_000);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(10_000);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}
