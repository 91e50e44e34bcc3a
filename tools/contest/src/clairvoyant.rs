//! The most that any router could have settled, had it known the future: the measure beside every score.
//!
//! All payments have the same amount, so a run is worth the number settled at each processor. [`best`] computes the
//! largest numbers there are, in O(n), for a world of which everything is known: when each payment arrives, how
//! each processor behaves at every microsecond, how many calls it runs at once, and when the sums are taken.
//!
//! The world. A call sent at `s` is due at `c(s) = s + delay(s)`: the delay is read on arrival and the failure flag at
//! `c(s)` (docs/contract.md), so it is worth sending only if the processor does not fail then. It is recorded at or
//! after `c(s)`, recordings of one processor are [`Capacity::record_gap_us`] apart, and from `s` until then it is one
//! of the at most [`Capacity::calls_max`] open ones. It counts if it is recorded by the end.
//!
//! Why a recurrence is exact
//! 1. A send `s` for which there is a later `s'` with `c(s') <= c(s)` is never needed: `s'` holds its call for a part
//!    of the same time. On what remains (`Sends`), `c` grows with `s`.
//! 2. There, by induction over k, no schedule has its k-th send or its k-th recording before
//!    `s(k) = first send >= max(arrival(k), r(k - calls_max))` and `r(k) = max(c(s(k)), r(k - 1) + gap)`.
//! 3. Read backwards, the same recurrence gives the latest sends that record as many. These leave the other processor
//!    the most payments at every instant: those that stay unmatched when each late send takes the newest payment.
//! 4. One payment less at the cheap processor makes room for at most one more at the dear one. So the cheap one is
//!    filled first, and what the dear one then adds is the best total too.
//!
//! Being late. A call that is in flight for longer than the audit's margin may be fined, so the clairvoyant makes none
//! unless more payments are settled that way. For a router that did make some, by mistake or by luck, `late_conceded`
//! concedes as many to the clairvoyant, at the cheaper price and free of the rules above; without that, it could be
//! beaten. The numbers are exact when no call has to be late, and otherwise no less than the optimum.

use wire::{PerProcessor, Processor};

/// A value that changes at known times: each entry holds from its time until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps<T>(Vec<(u64, T)>);

impl<T: Copy> Steps<T> {
    /// Holds `first` from the beginning of time.
    #[must_use]
    pub fn new(first: T) -> Self {
        Self(vec![(0, first)])
    }

    /// From `at_us` on the value is `value`.
    ///
    /// # Panics
    /// When `at_us` is before the last change.
    pub fn change(&mut self, at_us: u64, value: T) {
        let last = self.0.last_mut().expect("never empty");
        assert!(last.0 <= at_us, "changes come in the order of time");
        if last.0 == at_us {
            last.1 = value;
        } else {
            self.0.push((at_us, value));
        }
    }

    /// The value at that time.
    #[must_use]
    pub fn at(&self, at_us: u64) -> T {
        self.0[self.0.partition_point(|(from, _)| *from <= at_us) - 1].1
    }

    /// The value held last.
    #[must_use]
    pub fn last(&self) -> T {
        self.0.last().expect("never empty").1
    }

    /// When the value of that time, above `bound`, came to be above it, and what it was before. `None` when it is not
    /// above it, or always was.
    #[must_use]
    pub fn rise_above(&self, at_us: u64, bound: T) -> Option<(u64, T)>
    where
        T: PartialOrd,
    {
        let past = &self.0[..self.0.partition_point(|(from, _)| *from <= at_us)];
        let below = past.iter().rposition(|(_, value)| *value <= bound)?;
        let (from, _) = past.get(below + 1)?;
        Some((*from, past[below].1))
    }

    /// Each value with the half-open interval in which it holds, cut off at `end`.
    fn intervals(&self, end: u64) -> impl Iterator<Item = (u64, u64, T)> {
        let untils = self.0.iter().skip(1).map(|(from, _)| *from).chain([end]);
        self.0.iter().zip(untils).map(move |((from, value), until)| (*from, until.min(end), *value))
    }
}

/// How one processor behaves over time, in microseconds since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The delay of a call sent at that time.
    pub delay_us: Steps<u64>,
    /// Whether a call due at that time is refused.
    pub failing: Steps<bool>,
}

/// What a processor can do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Calls under way at once.
    pub calls_max: usize,
    /// Time between two recordings; 0 when nothing limits their rate.
    pub record_gap_us: u64,
}

/// Everything that a router would have to know.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The processors' behaviour.
    pub timelines: PerProcessor<Timeline>,
    /// What each keeps, in per cent; below 100.
    pub fee_percent: PerProcessor<f64>,
    /// The limits of each processor.
    pub capacity: Capacity,
    /// A call in flight for longer is late.
    pub margin_us: u64,
    /// What is recorded after this does not count.
    pub end_us: u64,
}

/// How many payments a router that knows the world settles where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Best {
    /// Settled by each processor.
    pub settled: PerProcessor<usize>,
    /// How many of them are in flight for longer than the margin.
    pub late: usize,
    /// Payments that no router could settle in time.
    pub unsettled: usize,
}

/// The best that can be done with payments that arrive at `arrivals_us`, in ascending order, when `late_conceded`
/// calls may be late without need.
#[must_use]
pub fn best(world: &World, arrivals_us: &[u64], late_conceded: usize) -> Best {
    assert!(arrivals_us.is_sorted(), "payments are given in the order of their arrival");
    let [default, fallback] = world.fee_percent.0;
    let cheap = if fallback < default { Processor::Fallback } else { Processor::Default };
    let punctual = Filled::new(world, cheap, arrivals_us, world.margin_us);
    let any = Filled::new(world, cheap, arrivals_us, u64::MAX);
    let late = (any.total - punctual.total) + late_conceded;
    let at_cheap = any.cheap.min(punctual.cheap + late);
    let mut settled = PerProcessor([any.total - at_cheap; 2]);
    settled[cheap] = at_cheap;
    Best { settled, late: late.min(any.total), unsettled: arrivals_us.len() - any.total }
}

/// The cheap processor filled first, then the dear one, with calls in flight for at most a given time.
struct Filled {
    cheap: usize,
    total: usize,
}

impl Filled {
    fn new(world: &World, cheap: Processor, arrivals: &[u64], flight_max: u64) -> Self {
        let sends = |processor: Processor| Sends::new(&world.timelines[processor], flight_max, world.end_us);
        let at_cheap = sends(cheap);
        let count = at_cheap.earliest(arrivals, world.capacity, world.end_us);
        let left = left_over(arrivals, &at_cheap.latest(count, world.capacity, world.end_us));
        let more = sends(cheap.other()).earliest(&left, world.capacity, world.end_us);
        Self { cheap: count, total: count + more }
    }
}

/// The times at which sending makes sense: the call succeeds, and no later one is over as early.
///
/// Ascending intervals of sends with one delay each; the due times ascend with them.
struct Sends(Vec<Interval>);

#[derive(Clone, Copy, Debug)]
struct Interval {
    from: u64,
    until: u64,
    delay: u64,
}

impl Sends {
    fn new(timeline: &Timeline, flight_max: u64, end: u64) -> Self {
        let mut found = Vec::new();
        for (from, until, delay) in timeline.delay_us.intervals(end) {
            if delay > flight_max {
                continue;
            }
            for (up_from, up_until, failing) in timeline.failing.intervals(u64::MAX) {
                let from = from.max(up_from.saturating_sub(delay));
                let until = until.min(up_until.saturating_sub(delay));
                if !failing && from < until {
                    found.push(Interval { from, until, delay });
                }
            }
        }
        // From the last to the first: keep what is due before everything that can be sent later.
        let mut due_next = u64::MAX;
        found.reverse();
        found.retain_mut(|interval| {
            interval.until = interval.until.min(due_next.saturating_sub(interval.delay));
            due_next = due_next.min(interval.from + interval.delay);
            interval.from < interval.until
        });
        found.reverse();
        Self(found)
    }

    /// How many calls can be recorded by the end, each sent at its payment's arrival or later.
    fn earliest(&self, arrivals: &[u64], capacity: Capacity, end: u64) -> usize {
        let mut recorded: Vec<u64> = Vec::with_capacity(arrivals.len());
        let mut rest = self.0.as_slice();
        for arrival in arrivals {
            let call_over = recorded.len().checked_sub(capacity.calls_max).map_or(0, |call| recorded[call]);
            let ready = call_over.max(*arrival);
            while rest.first().is_some_and(|interval| interval.until <= ready) {
                rest = &rest[1..];
            }
            let Some(interval) = rest.first() else { break };
            let due = interval.from.max(ready) + interval.delay;
            let at = recorded.last().map_or(due, |last| due.max(last + capacity.record_gap_us));
            if at > end {
                break;
            }
            recorded.push(at);
        }
        recorded.len()
    }

    /// The latest times of sending, ascending, at which `count` calls are still recorded by the end.
    ///
    /// Arrivals need not be looked at: [`Sends::earliest`] found sends that are earlier, one by one, and fit them.
    fn latest(&self, count: usize, capacity: Capacity, end: u64) -> Vec<u64> {
        let mut sent: Vec<u64> = Vec::with_capacity(count);
        let mut rest = self.0.as_slice();
        let mut record_by = end;
        for call in 0..count {
            if let Some(next) = call.checked_sub(capacity.calls_max) {
                record_by = record_by.min(sent[next]);
            }
            while rest.last().is_some_and(|interval| interval.from + interval.delay > record_by) {
                rest = &rest[..rest.len() - 1];
            }
            let interval = rest.last().expect("the earliest sends show that as many fit");
            sent.push((interval.until - 1).min(record_by - interval.delay));
            record_by = record_by.saturating_sub(capacity.record_gap_us);
        }
        sent.reverse();
        sent
    }
}

/// The arrivals that remain when each send takes the newest payment that is there.
///
/// At any time as many of them have arrived as can be sent elsewhere by then without taking one from a later send.
fn left_over(arrivals: &[u64], sends: &[u64]) -> Vec<u64> {
    let mut left = Vec::with_capacity(arrivals.len() - sends.len());
    let mut arrivals = arrivals.iter().copied().peekable();
    for send in sends {
        while let Some(arrival) = arrivals.next_if(|arrival| arrival <= send) {
            left.push(arrival);
        }
        left.pop().expect("a send has a payment, because the earliest schedule had one for it");
    }
    left.extend(arrivals);
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use proptest::prelude::*;

    const WIDE: Capacity = Capacity { calls_max: 1_000, record_gap_us: 0 };

    fn timeline(delays: &[(u64, u64)], failing: &[(u64, bool)]) -> Timeline {
        let mut made = Timeline { delay_us: Steps::new(0), failing: Steps::new(false) };
        delays.iter().for_each(|(at, delay)| made.delay_us.change(*at, *delay));
        failing.iter().for_each(|(at, failing)| made.failing.change(*at, *failing));
        made
    }

    fn world(default: Timeline, fallback: Timeline, end_us: u64) -> World {
        let timelines = PerProcessor([default, fallback]);
        World { timelines, fee_percent: PerProcessor([5.0, 15.0]), capacity: WIDE, margin_us: 10, end_us }
    }

    fn numbers(best: Best) -> (usize, usize, usize) {
        (best.settled.0[0], best.settled.0[1], best.unsettled)
    }

    #[test]
    fn everything_goes_to_the_cheap_processor_while_it_works() {
        let world = world(timeline(&[], &[]), timeline(&[], &[]), 100);
        assert_eq!(
            numbers(best(&world, &[0, 1, 2, 50, 100], 0)),
            (4, 0, 1),
            "nothing is sent at the end itself"
        );
    }

    #[test]
    fn payments_wait_for_the_cheap_processor_when_it_comes_back_in_time() {
        let down = timeline(&[], &[(10, true), (90, false)]);
        assert_eq!(numbers(best(&world(down.clone(), timeline(&[], &[]), 100), &[5, 20, 30], 0)), (3, 0, 0));
        assert_eq!(numbers(best(&world(down, timeline(&[], &[]), 90), &[5, 20, 30], 0)), (1, 2, 0));
    }

    #[test]
    fn a_call_succeeds_when_the_failure_is_over_before_its_delay() {
        let healing = timeline(&[(0, 8), (50, 60)], &[(0, true), (50, false)]);
        let dead = timeline(&[], &[(0, true)]);
        let mut world = world(healing, dead, 51);
        assert_eq!(
            numbers(best(&world, &[40, 41, 42, 43, 44], 0)),
            (4, 0, 1),
            "sent at 42 and 43, due at 50 and 51"
        );
        world.capacity.calls_max = 2;
        assert_eq!(numbers(best(&world, &[40, 41, 42, 43, 44], 0)), (2, 0, 3));
    }

    #[test]
    fn a_slow_processor_is_bound_by_its_open_calls() {
        let mut world = world(timeline(&[(0, 10)], &[]), timeline(&[], &[(0, true)]), 100);
        world.capacity.calls_max = 3;
        assert_eq!(numbers(best(&world, &[0; 100], 0)), (30, 0, 70));
        world.capacity.record_gap_us = 5;
        assert_eq!(numbers(best(&world, &[0; 100], 0)), (19, 0, 81), "at 10, 15, and so on to 100");
    }

    #[test]
    fn no_call_is_late_unless_that_settles_more() {
        let slow = timeline(&[(0, 11)], &[]);
        let both = world(slow.clone(), timeline(&[], &[]), 100);
        assert_eq!(numbers(best(&both, &[0, 1, 2], 0)), (0, 3, 0));
        assert_eq!(numbers(best(&both, &[0, 1, 2], 2)), (2, 1, 0), "two late calls are conceded");
        let alone = world(slow, timeline(&[], &[(0, true)]), 100);
        assert_eq!(
            best(&alone, &[0, 1, 2], 0),
            Best { settled: PerProcessor([3, 0]), late: 3, unsettled: 0 }
        );
    }

    #[test]
    fn the_cheap_processor_takes_what_comes_late_when_the_dear_one_works_early() {
        let cheap_at_the_end = timeline(&[], &[(0, true), (99, false)]);
        let dear_at_the_start = timeline(&[], &[(10, true)]);
        let mut world = world(cheap_at_the_end, dear_at_the_start, 100);
        world.capacity.record_gap_us = 5;
        assert_eq!(numbers(best(&world, &[0, 50], 0)), (1, 1, 0));
        assert_eq!(numbers(best(&world, &[50, 60], 0)), (1, 0, 1));
    }

    #[test]
    fn a_busy_cheap_processor_cannot_wait_for_what_comes_late() {
        let slow = timeline(&[(0, 40)], &[]);
        let dear_at_the_start = timeline(&[], &[(15, true)]);
        let mut world = world(slow, dear_at_the_start, 100);
        (world.capacity.calls_max, world.margin_us) = (1, 40);
        assert_eq!(
            numbers(best(&world, &[0, 30, 30], 0)),
            (2, 0, 1),
            "sent by 20 and by 60, so 0 is not left over"
        );
        assert_eq!(numbers(best(&world, &[0, 0, 30], 0)), (2, 1, 0));
    }

    #[test]
    fn the_cheaper_fee_decides_and_not_the_name() {
        let mut world = world(timeline(&[], &[]), timeline(&[], &[]), 100);
        world.fee_percent = PerProcessor([15.0, 5.0]);
        assert_eq!(numbers(best(&world, &[0, 1, 2], 0)), (0, 3, 0));
    }

    #[test]
    fn the_official_plans_settle_everything_and_the_preview_all_of_it_cheaply() {
        let best = |plan: Plan| {
            let (world, arrivals) = as_planned(&plan);
            (arrivals.len(), super::best(&world, &arrivals, 0))
        };
        let (asked, preview) = best(Plan::preview());
        assert_eq!(numbers(preview), (asked, 0, 0));
        let (asked, last) = best(Plan::final_());
        assert_eq!((last.unsettled, last.late), (0, 0));
        let share = last.settled.0[1] * 1_000 / asked;
        assert!((185..200).contains(&share), "the last stage is dear, {share} per mille");
    }

    /// The world of a plan that is kept to the microsecond, by users that are answered in one millisecond.
    fn as_planned(plan: &Plan) -> (World, Vec<u64>) {
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap();
        let timelines = PerProcessor::from_fn(|processor| {
            let mut made = timeline(&[], &[]);
            for stage in &plan.stages {
                made.delay_us.change(us(stage.from), stage.condition[processor].delay_ms * 1_000);
                made.failing.change(us(stage.from), stage.condition[processor].failing);
            }
            made
        });
        let mut arrivals: Vec<u64> =
            plan.user_starts().flat_map(|start| (us(start)..us(plan.duration)).step_by(1_001_000)).collect();
        arrivals.sort_unstable();
        let world = World {
            timelines,
            fee_percent: plan.fee_percent,
            capacity: Capacity { calls_max: 800, record_gap_us: 100 },
            margin_us: plan.audit.margin_ms * 1_000 - 1,
            end_us: us(plan.duration) + 1_000_000,
        };
        (world, arrivals)
    }

    /// Every schedule of a small world, tried one after the other.
    struct Naive<'a> {
        world: &'a World,
        arrivals: &'a [u64],
        /// When each call of the schedule at hand is sent and recorded, and how many calls are late.
        calls: PerProcessor<Vec<(u64, u64)>>,
        late: usize,
        /// The best worth and its numbers, by the number of late calls.
        best: Vec<(f64, (usize, usize))>,
    }

    impl Naive<'_> {
        fn solve(&mut self, payment: usize) {
            let counts = self.calls.0.each_ref().map(Vec::len);
            let worth = worth(self.world, counts);
            if worth > self.best[self.late].0 {
                self.best[self.late] = (worth, (counts[0], counts[1]));
            }
            if payment == self.arrivals.len() {
                return;
            }
            self.solve(payment + 1);
            for processor in Processor::BOTH {
                for (sent, recorded, is_late) in self.next_calls(processor, self.arrivals[payment]) {
                    self.calls[processor].push((sent, recorded));
                    self.late += usize::from(is_late);
                    self.solve(payment + 1);
                    self.late -= usize::from(is_late);
                    self.calls[processor].pop();
                }
            }
        }

        /// Every call for one more payment that the world allows beside those that are made already.
        fn next_calls(&self, processor: Processor, arrival: u64) -> Vec<(u64, u64, bool)> {
            let (world, line) = (self.world, &self.world.timelines[processor]);
            let (others, delay) = (&self.calls[processor], |sent| line.delay_us.at(sent));
            let apart =
                |at: u64| others.iter().all(|(_, other)| other.abs_diff(at) >= world.capacity.record_gap_us);
            let open_at = |time| others.iter().filter(|(from, to)| *from <= time && time < *to).count();
            let mut found = Vec::new();
            for sent in (arrival..world.end_us).filter(|sent| !line.failing.at(sent + delay(*sent))) {
                for recorded in (sent + delay(sent)..=world.end_us).filter(|at| apart(*at)) {
                    if (sent..recorded).all(|time| open_at(time) < world.capacity.calls_max) {
                        found.push((sent, recorded, delay(sent) > world.margin_us));
                    }
                }
            }
            found
        }
    }

    fn naive(world: &World, arrivals: &[u64]) -> Vec<(f64, (usize, usize))> {
        let best = vec![(0.0, (0, 0)); arrivals.len() + 1];
        let mut naive = Naive { world, arrivals, calls: PerProcessor::default(), late: 0, best };
        naive.solve(0);
        naive.best
    }

    fn worth(world: &World, settled: [usize; 2]) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let worth = |at: usize| settled[at] as f64 * (100.0 - world.fee_percent.0[at]);
        worth(0) + worth(1)
    }

    prop_compose! {
        fn any_timeline()(
            delays in prop::collection::vec((0..9_u64, 0..6_u64), 0..4),
            failing in prop::collection::vec((0..12_u64, any::<bool>()), 0..4),
        ) -> Timeline {
            let (mut delays, mut failing) = (delays, failing);
            delays.sort_unstable();
            failing.sort_unstable();
            timeline(&delays, &failing)
        }
    }

    prop_compose! {
        fn any_world()(
            default in any_timeline(), fallback in any_timeline(),
            calls_max in 1..3_usize, record_gap_us in 0..3_u64, end_us in 1..9_u64, margin_us in 0..6_u64,
            is_fallback_cheap in any::<bool>(),
        ) -> World {
            let fee_percent = PerProcessor(if is_fallback_cheap { [40.0, 2.0] } else { [5.0, 15.0] });
            let capacity = Capacity { calls_max, record_gap_us };
            World { timelines: PerProcessor([default, fallback]), fee_percent, capacity, margin_us, end_us }
        }
    }

    fn any_arrivals() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0..8_u64, 0..5).prop_map(|mut arrivals| {
            arrivals.sort_unstable();
            arrivals
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn where_nothing_is_late_the_numbers_are_those_of_the_best_schedule(
            mut world in any_world(), arrivals in any_arrivals()
        ) {
            world.margin_us = u64::MAX;
            let expected = naive(&world, &arrivals)[0].1;
            let found = best(&world, &arrivals, 0).settled.0;
            prop_assert_eq!((found[0], found[1]), expected);
        }

        #[test]
        fn no_schedule_with_as_many_late_calls_as_are_conceded_is_better(
            world in any_world(), arrivals in any_arrivals()
        ) {
            let schedules = naive(&world, &arrivals);
            for (late, (worth_of_schedule, _)) in schedules.iter().enumerate() {
                prop_assert!(worth(&world, best(&world, &arrivals, late).settled.0) >= *worth_of_schedule);
            }
            let found = best(&world, &arrivals, 0);
            if found.late == 0 {
                prop_assert_eq!((found.settled.0[0], found.settled.0[1]), schedules[0].1);
            }
        }
    }
}
