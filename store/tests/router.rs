//! What the router makes of answers, of their absence, and of health calls, in a time that the test moves by hand.

use store::core::ApiId;
use store::core::calls::{Call, Calls};
use store::core::router::{Route, Router, RouterConfig, State};
use wire::frame::{AttemptId, Health, Outcome, Report};
use wire::{PaymentId, PerProcessor, Processor};

const DEFAULT: Processor = Processor::Default;
const FALLBACK: Processor = Processor::Fallback;

/// A router with its calls and a clock.
struct Trial {
    router: Router,
    calls: Calls,
    now_us: u64,
    attempts: u64,
    accepts: u64,
    charges: PerProcessor<u64>,
}

impl Trial {
    fn new() -> Self {
        let fees = PerProcessor([5.0, 15.0]);
        let config = RouterConfig {
            hold_share: 1.0,
            risk_share: 1e9,
            hold_timeout_ms: 10_000,
            ..RouterConfig::for_fees(fees, 1_500)
        };
        Self::with(config)
    }

    fn with(config: RouterConfig) -> Self {
        Self {
            router: Router::new(config, 0),
            calls: Calls::default(),
            now_us: 0,
            attempts: 0,
            accepts: 0,
            charges: PerProcessor::default(),
        }
    }

    /// Payments come in each 2 ms for so long.
    fn receive_for_ms(&mut self, ms: u64) {
        for _ in 0..ms / 2 {
            self.wait_ms(2);
            self.accepts += 1;
            self.router.note_turn(self.accepts, self.charges, self.now_us);
        }
    }

    /// None comes for so long, in turns of the store 5 ms apart.
    fn receive_nothing_for_ms(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.wait_ms(5);
            self.router.note_turn(self.accepts, self.charges, self.now_us);
        }
    }

    /// The processor says by a bad answer that it does not work.
    fn fail(&mut self, processor: Processor, latency_ms: u32) {
        let attempt = self.send(processor);
        self.wait_ms(latency_ms.into());
        self.answer(processor, attempt, Outcome::Failing, latency_ms);
    }

    /// How many calls go out now if there is no end of payments.
    fn send_all(&mut self, processor: Processor) -> usize {
        let mut sent = 0;
        while self.route() == Route::To(processor) {
            self.send(processor);
            sent += 1;
        }
        sent
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now_us += ms * 1000;
    }

    /// Where the oldest of many goes.
    fn route(&mut self) -> Route {
        self.route_one_of(100_000)
    }

    fn route_one_of(&mut self, waiting: usize) -> Route {
        if self.state(FALLBACK) == State::Usable {
            // It needs no canary.
            self.router.on_dispatch(FALLBACK, self.now_us);
        }
        self.router.route(&self.calls, waiting, self.now_us)
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

    /// Both answer beyond the margin, the cheap one sooner.
    fn slow_both_down(&mut self) {
        self.get_used_to(DEFAULT, 2_000);
        self.get_used_to(FALLBACK, 3_000);
    }

    /// The books are compared twice, ten seconds apart, the second time now.
    fn learn_cut_offs(&mut self) {
        for _ in 0..2 {
            self.wait_ms(10_000);
            self.router.note_comparison(self.now_us);
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
fn a_failing_processor_is_waited_for_and_the_dear_one_gets_the_excess() {
    let mut trial = Trial::new();
    trial.get_used_to(FALLBACK, 1);
    trial.receive_for_ms(30_000);
    trial.fail(DEFAULT, 1);
    assert_eq!((trial.state(DEFAULT), trial.route()), (State::Failing, Route::Wait));
    trial.receive_for_ms(9_998);
    trial.send(DEFAULT);
    assert_eq!(trial.route(), Route::Wait);
    trial.receive_for_ms(2);
    assert_eq!(trial.route(), Route::To(FALLBACK));
    assert_eq!(
        trial.route_one_of(2_900),
        Route::Wait,
        "4,000 a second in what 100 and 150 ms leave of a second"
    );
    assert_eq!(trial.route_one_of(3_000), Route::To(FALLBACK));
}

#[test]
fn when_payments_stop_coming_nothing_waits_any_more() {
    let mut trial = Trial::new();
    trial.receive_for_ms(30_000);
    trial.fail(DEFAULT, 1);
    trial.send(DEFAULT);
    trial.receive_nothing_for_ms(95);
    assert_eq!(trial.route_one_of(1), Route::Wait);
    trial.receive_nothing_for_ms(5);
    assert_eq!(trial.route_one_of(1), Route::To(DEFAULT), "its canary");
    trial.send(DEFAULT);
    assert_eq!(trial.route_one_of(1), Route::To(FALLBACK));
    assert!(
        (0..5_000).all(|_| trial.router.take_token(trial.now_us)),
        "no client is left that could be disturbed"
    );
    trial.receive_for_ms(2);
    assert_eq!(trial.route_one_of(1), Route::Wait);
}

#[test]
fn a_pause_that_is_usual_or_our_own_is_no_end() {
    let mut trial = Trial::new();
    trial.receive_for_ms(30_000);
    trial.fail(DEFAULT, 1);
    trial.wait_ms(400);
    trial.router.note_turn(trial.accepts, trial.charges, trial.now_us);
    trial.send(DEFAULT);
    assert_eq!(trial.route_one_of(1), Route::Wait, "there was no turn in which a payment could have come");
    trial.accepts += 1;
    trial.router.note_turn(trial.accepts, trial.charges, trial.now_us);
    trial.receive_nothing_for_ms(900);
    trial.send(DEFAULT);
    assert_eq!(trial.route_one_of(1), Route::Wait, "400 ms without one have just been seen");
}

#[test]
fn a_single_payment_after_a_long_time_waits_some_seconds() {
    let mut trial = Trial::new();
    trial.get_used_to(FALLBACK, 1);
    trial.wait_ms(u64::MAX / 4_000_000);
    trial.receive_for_ms(2);
    trial.fail(DEFAULT, 1);
    let waits_ms = (0..20_000).step_by(5).find(|_| {
        trial.receive_nothing_for_ms(5);
        let route = trial.route_one_of(1);
        if route == Route::To(DEFAULT) {
            trial.fail(DEFAULT, 1);
        }
        route == Route::To(FALLBACK)
    });
    assert!(waits_ms.is_some_and(|ms| (5_000..8_000).contains(&ms)), "{waits_ms:?}");
}

#[test]
fn payments_that_waited_for_both_go_to_neither_before_the_cheap_one_answers() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    trial.fail(FALLBACK, 1_000);
    trial.send(FALLBACK);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(10_000);
    trial.health(FALLBACK, false, 20);
    assert_eq!(trial.state(FALLBACK), State::Usable);
    assert_eq!(trial.route(), Route::Wait);
    trial.router.on_health(
        DEFAULT,
        Health::Answered { failing: true, min_response_ms: 2_000 },
        &trial.calls,
        trial.now_us,
    );
    assert_eq!(trial.route(), Route::To(FALLBACK));
}

#[test]
fn a_word_of_the_cheap_one_that_takes_long_is_not_waited_for() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    trial.fail(FALLBACK, 1_000);
    trial.send(FALLBACK);
    trial.send(DEFAULT);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(20_000);
    trial.health(FALLBACK, false, 20);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(1_660);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(10);
    assert_eq!(trial.route(), Route::To(FALLBACK), "a sixth of 10 s");
}

#[test]
fn nothing_is_held_when_the_dear_processor_could_settle_none_of_it_at_the_end() {
    for (delay_ms, routed) in [(500, Route::Wait), (800, Route::Wait), (900, Route::To(FALLBACK))] {
        let mut trial = Trial::new();
        trial.get_used_to(FALLBACK, delay_ms);
        trial.receive_for_ms(30_000);
        trial.fail(DEFAULT, 1);
        assert_eq!(trial.route(), routed, "{delay_ms} ms");
    }
}

#[test]
fn canaries_each_100_ms_or_quarter_of_the_delay_find_out_that_it_works_again() {
    for (delay_ms, interval_ms) in [(1, 100_u64), (100, 100), (600, 150), (1_000, 250)] {
        let mut trial = Trial::new();
        trial.get_used_to(DEFAULT, delay_ms);
        trial.fail(DEFAULT, delay_ms);
        let mut sent_ms = Vec::new();
        for ms in 0..2_000_u64 {
            if trial.route() == Route::To(DEFAULT) {
                sent_ms.push(ms);
                trial.send(DEFAULT);
            }
            trial.wait_ms(1);
        }
        assert_eq!(sent_ms.len(), 4, "{delay_ms} ms: until four have no answer");
        let intervals = sent_ms.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(intervals.clone().all(|interval| interval_ms - interval <= 1), "{delay_ms} ms: {sent_ms:?}");
    }
}

#[test]
fn a_processor_that_stalls_gets_a_few_tens_of_payments() {
    for (delay_ms, most) in [(1, 40), (5, 60)] {
        let mut trial = Trial::new();
        trial.get_used_to(DEFAULT, delay_ms);
        let sent = trial.send_all(DEFAULT);
        trial.wait_ms(50);
        assert_eq!(trial.state(DEFAULT), State::Stalled);
        assert!(sent + trial.send_all(DEFAULT) <= most, "{delay_ms} ms: {sent}");
    }
}

#[test]
fn the_answer_to_an_old_call_says_nothing_about_the_delay_now() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 1_000);
    let (old, young) = (trial.send(DEFAULT), trial.send(DEFAULT));
    trial.wait_ms(1);
    trial.answer(DEFAULT, young, Outcome::Charged, 1);
    let delay_us = trial.router.delay_us(DEFAULT);
    trial.wait_ms(1_000);
    trial.answer(DEFAULT, old, Outcome::Charged, 1_001);
    assert_eq!(trial.router.delay_us(DEFAULT), delay_us);
}

#[test]
fn the_reason_of_a_belief_is_told() {
    let mut trial = Trial::new();
    let why = |trial: &Trial| trial.router.why(DEFAULT, &trial.calls, trial.now_us).to_string();
    assert_eq!(why(&trial), "nothing was heard of it");
    trial.get_used_to(DEFAULT, 2);
    assert_eq!(why(&trial), "its last answer was Charged after 2 ms");
    trial.send(DEFAULT);
    trial.wait_ms(1_400);
    assert_eq!(trial.state(DEFAULT), State::Slow);
    assert_eq!(why(&trial), "its oldest call has no answer for 1400 ms");
    trial.health(DEFAULT, true, 3_000);
    assert_eq!(why(&trial), "it says that it fails with a delay of 3000 ms");
}

#[test]
fn a_call_that_is_late_holds_the_next_ones_back_within_milliseconds() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2);
    let late = trial.send(DEFAULT);
    trial.wait_ms(20);
    assert_eq!(trial.state(DEFAULT), State::Usable, "a hiccup of the machine");
    trial.wait_ms(30);
    assert_eq!((trial.state(DEFAULT), trial.route_one_of(1_000)), (State::Stalled, Route::Wait));
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
    trial.receive_for_ms(2);
    trial.get_used_to(DEFAULT, 2_000);
    assert_eq!((trial.state(DEFAULT), trial.route()), (State::Slow, Route::Wait));
    trial.wait_ms(5_000);
    assert_eq!(trial.route(), Route::Wait, "not even a canary");
    trial.health(DEFAULT, false, 20);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn a_bad_health_call_keeps_canaries_away_for_half_a_minute_at_most() {
    let mut trial = Trial::new();
    trial.receive_for_ms(2);
    trial.get_used_to(DEFAULT, 1);
    trial.fail(DEFAULT, 1_500);
    let mut sent_ms = Vec::new();
    for ms in (0..40_000).step_by(100) {
        while let Some(processor) = trial.router.take_health_call(trial.now_us) {
            let health = match processor {
                Processor::Default => Health::Answered { failing: true, min_response_ms: 2_000 },
                Processor::Fallback => Health::Answered { failing: false, min_response_ms: 0 },
            };
            trial.router.on_health(processor, health, &trial.calls, trial.now_us);
        }
        if trial.route() == Route::To(DEFAULT) {
            sent_ms.push(ms);
            trial.send(DEFAULT);
        }
        trial.wait_ms(100);
    }
    assert_eq!(sent_ms.iter().filter(|ms| **ms < 28_000).count(), 4, "before it said so: {sent_ms:?}");
    sent_ms.retain(|ms| *ms >= 28_000);
    assert!(sent_ms.windows(2).all(|pair| pair[1] - pair[0] >= 2_000), "{sent_ms:?}");
    assert!(sent_ms.len() >= 3, "{sent_ms:?}");
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
    trial.get_used_to(DEFAULT, 20);
    let calls: Vec<AttemptId> = (0..100).map(|_| trial.send(DEFAULT)).collect();
    assert_eq!(trial.route(), Route::To(DEFAULT));
    for attempt in &calls[..10] {
        trial.answer(DEFAULT, *attempt, Outcome::Busy, 20);
    }
    assert_eq!(trial.state(DEFAULT), State::Usable, "429 is no failure");
    assert_eq!(trial.route_one_of(1_000), Route::Wait, "90 are open, and fewer than that are allowed now");
    for attempt in &calls[10..] {
        trial.answer(DEFAULT, *attempt, Outcome::Charged, 20);
    }
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn payments_beyond_the_hold_timeout_of_the_cheap_processor_go_to_the_dear_one_at_once() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 1_000);
    while trial.route_one_of(2_000) == Route::To(DEFAULT) {
        trial.send(DEFAULT);
    }
    // 10 s of timeout, 768 at a time.
    let through = 7_680;
    assert_eq!(trial.route_one_of(through * 9 / 10), Route::Wait);
    assert_eq!(trial.route_one_of(through * 11 / 10), Route::To(FALLBACK));
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
    trial.slow_both_down();
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(10_299);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(1);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn the_more_has_been_accepted_the_later_it_is_late() {
    let mut trial = Trial::new();
    trial.receive_for_ms(40_000);
    trial.slow_both_down();
    trial.receive_for_ms(2);
    assert_eq!(trial.route(), Route::Wait);
    trial.wait_ms(15_300);
    assert_eq!(trial.route(), Route::Wait, "20,001 payments are worth more than five seconds");
    trial.wait_ms(1);
    assert_eq!(trial.route(), Route::To(DEFAULT));
}

#[test]
fn once_the_cut_offs_are_known_it_is_late_at_once_but_clear_of_them() {
    let mut trial = Trial::new();
    trial.slow_both_down();
    assert_eq!(trial.route(), Route::Wait);
    trial.learn_cut_offs();
    assert_eq!(trial.route(), Route::To(DEFAULT));
    // What goes out 8 s after a comparison would be recorded during the next one.
    let waits_ms: Vec<u64> = (1..10_000)
        .filter(|_| {
            trial.wait_ms(1);
            trial.route() != Route::To(DEFAULT)
        })
        .collect();
    assert_eq!((waits_ms[0], waits_ms.len()), (7_699, 603));
}

#[test]
fn a_slow_cheap_processor_beats_a_dear_one_while_no_books_are_compared() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    trial.get_used_to(FALLBACK, 1);
    trial.learn_cut_offs();
    trial.send(DEFAULT);
    assert_eq!(
        trial.route_one_of(1),
        Route::Wait,
        "it has only now turned out to be slow, and its canary is out"
    );
    trial.wait_ms(300);
    assert_eq!(trial.route_one_of(1), Route::To(DEFAULT));
}

#[test]
fn no_more_is_held_than_may_be_lost() {
    let mut trial = Trial::with(RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500));
    trial.get_used_to(FALLBACK, 1);
    trial.receive_for_ms(4_000);
    trial.fail(DEFAULT, 1);
    trial.send(DEFAULT);
    let held = (1..3_000).take_while(|waiting| trial.route_one_of(*waiting) == Route::Wait).count();
    // A quarter of what 2,000 are worth, in payments of which the dear one leaves 85 in 95.
    assert_eq!(held, 558);
}

#[test]
fn while_many_wait_the_dear_one_gets_a_canary() {
    let mut trial = Trial::new();
    trial.get_used_to(FALLBACK, 1);
    trial.receive_for_ms(30_000);
    trial.fail(DEFAULT, 1);
    trial.send(DEFAULT);
    let mut route = |waiting| trial.router.route(&trial.calls, waiting, trial.now_us);
    assert_eq!((route(100), route(101)), (Route::Wait, Route::To(FALLBACK)));
    trial.send(FALLBACK);
    assert_eq!(trial.router.route(&trial.calls, 101, trial.now_us), Route::Wait);
}

#[test]
fn one_fast_answer_ends_a_long_delay() {
    let mut trial = Trial::new();
    trial.get_used_to(DEFAULT, 2_000);
    let canary = trial.send(DEFAULT);
    trial.wait_ms(20);
    trial.answer(DEFAULT, canary, Outcome::Charged, 20);
    assert_eq!((trial.state(DEFAULT), trial.router.delay_us(DEFAULT)), (State::Usable, 20_000));
}

#[test]
fn after_a_week_of_payments_one_that_is_late_anyway_waits_no_longer_than_after_a_minute() {
    let config = RouterConfig::for_fees(PerProcessor([5.0, 15.0]), 1_500);
    let waits_ms = |seconds: u64| {
        let mut trial = Trial::with(config);
        for _ in 0..seconds {
            trial.wait_ms(1_000);
            trial.accepts += 100;
            trial.router.note_turn(trial.accepts, trial.charges, trial.now_us);
            let _ = trial.router.route(&trial.calls, 0, trial.now_us);
        }
        // Both take longer than the audit margin from now on, and no books are compared.
        for processor in [DEFAULT, FALLBACK] {
            let attempt = trial.send(processor);
            trial.answer(processor, attempt, Outcome::Charged, 6_000);
        }
        let began_us = trial.now_us;
        while trial.route_one_of(1_000) == Route::Wait {
            trial.wait_ms(100);
            trial.router.note_turn(trial.accepts, trial.charges, trial.now_us);
            assert!(trial.now_us - began_us < 3_600_000_000, "nothing goes out for an hour");
        }
        (trial.now_us - began_us) / 1_000
    };
    let (short_ms, long_ms) = (waits_ms(360), waits_ms(7 * 24 * 3_600));
    assert!(long_ms <= short_ms + 1_000, "{long_ms} ms after a week, {short_ms} ms after six minutes");
}
