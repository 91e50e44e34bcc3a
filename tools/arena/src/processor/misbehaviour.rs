//! What a processor does wrong on purpose: the list, who is hit, and what was seen meanwhile.
//!
//! The official ones know a delay and a failure flag. Real ones also break off, lie, flood and forget, and a client that
//! pays through them has to survive that. `arena chaos` sets a misbehaviour while a processor runs:
//!
//! ```text
//! PUT /admin/misbehaviour    {"payments":"late_answer","health":"lie","share_percent":50,"late_ms":[1000,3000],"turn":0}
//! GET /admin/misbehaviour    what is set, how often each was done, and what was observed
//! POST /admin/lose-payments  {"share_percent":10}: these rows are deleted, and listed by
//! GET /admin/lost-payments   in the shape of GET /admin/payments
//! POST /admin/lose-payments  {"ids":["..",".."]}: these rows, and no others
//! POST /admin/replace-payment  a body as POST /payments has it: the row with its id gets that amount and time
//! ```
//!
//! A field that is left out means that this part behaves well. These routes are ours and not the competition's; they want
//! the token as all of `/admin/`, and nothing of this is done unless it was asked for.
//!
//! A count decides which call is hit, not chance, so a share of 25 % is every fourth call. The bytes at which
//! something breaks off are swept, one further each time. No misbehaviour takes back what a processor's answer proves
//! (docs/contract.md): a row is kept with none of the statuses that say that nothing was recorded.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Places in an answer at which it is cut: more than one has bytes (some 190), so the whole answer is among them.
const ANSWER_SWEEP_BYTES: usize = 256;

/// What is done wrong with a `POST /payments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentFault {
    /// The row is inserted and the connection reset before the first byte of the answer.
    ResetAfterInsert,
    /// The row is inserted and the answer cut after so many bytes, by a reset and by an orderly close in turns.
    CutInAnswer,
    /// The connection ends before the request was read whole, after so many of its bytes; there is no row.
    CutInRequest,
    /// The row is inserted at once and the answer comes late.
    LateAnswer,
    /// 500 in words, and the row is kept.
    ErrorWithRow,
    /// 500 in words, and no row.
    ErrorWithoutRow,
    /// 429 for everybody.
    TooMany,
    /// Bytes that are not HTTP; the row is kept every second time.
    Garbage,
    /// A body of 100 MB, one without an end, or bytes without an end that are not HTTP.
    Flood,
    /// Other 2xx and 3xx, with and without a row; 401, 403, 404, 405, without.
    StrangeStatus,
    /// A gateway in front of it gives up and says 504, and the processor inserts the row late: until then it finds none.
    GatewayTimeout,
}

impl PaymentFault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ResetAfterInsert,
        Self::CutInAnswer,
        Self::CutInRequest,
        Self::LateAnswer,
        Self::ErrorWithRow,
        Self::ErrorWithoutRow,
        Self::TooMany,
        Self::Garbage,
        Self::Flood,
        Self::StrangeStatus,
        Self::GatewayTimeout,
    ];

    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResetAfterInsert => "reset_after_insert",
            Self::CutInAnswer => "cut_in_answer",
            Self::CutInRequest => "cut_in_request",
            Self::LateAnswer => "late_answer",
            Self::ErrorWithRow => "error_with_row",
            Self::ErrorWithoutRow => "error_without_row",
            Self::TooMany => "too_many",
            Self::Garbage => "garbage",
            Self::Flood => "flood",
            Self::StrangeStatus => "strange_status",
            Self::GatewayTimeout => "gateway_timeout",
        }
    }
}

/// What is done wrong with a health call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthFault {
    /// It is never answered.
    Hang,
    /// It says failing while all is well, and the reverse.
    Lie,
    /// Bytes that are not HTTP.
    Garbage,
}

impl HealthFault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hang, Self::Lie, Self::Garbage];

    /// As JSON has it, with what it is about.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hang => "health_hang",
            Self::Lie => "health_lie",
            Self::Garbage => "health_garbage",
        }
    }
}

/// What `PUT /admin/misbehaviour` sets. The default behaves well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Misbehaviour {
    /// With payments.
    pub payments: Option<PaymentFault>,
    /// With health calls: every one of them.
    pub health: Option<HealthFault>,
    /// Of the payments, how many are hit.
    pub share_percent: u8,
    /// How long late answers, and late rows, take, in milliseconds: from, to.
    pub late_ms: [u64; 2],
    /// Where the sweep of `payments` begins, if it has not begun: how often others have done it before.
    pub turn: usize,
}

impl Default for Misbehaviour {
    fn default() -> Self {
        Self { payments: None, health: None, share_percent: 100, late_ms: [1_000, 35_000], turn: 0 }
    }
}

/// How a connection ends that is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Reset,
    Close,
}

/// What a processor has seen and done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// How often each fault was done.
    pub done: BTreeMap<String, u64>,
    /// The most payments that were in the handler at once.
    pub running_max: usize,
    /// Health calls that came.
    pub health_calls: u64,
    /// The shortest time between two of them.
    pub health_gap_min_ms: Option<u64>,
}

/// The misbehaviour of one processor and its counts.
#[derive(Debug, Default)]
pub(super) struct Conduct(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    set: Misbehaviour,
    calls: u64,
    sweeps: BTreeMap<PaymentFault, usize>,
    observed: Observed,
    health_at: Option<Instant>,
}

impl State {
    fn count(&mut self, name: &str) {
        *self.observed.done.entry(name.to_owned()).or_default() += 1;
    }

    fn is_hit(&mut self) -> bool {
        let share = u64::from(self.set.share_percent.min(100));
        let before = self.calls * share / 100;
        self.calls += 1;
        self.calls * share / 100 > before
    }
}

impl Conduct {
    pub(super) fn set(&self, misbehaviour: Misbehaviour) {
        self.state().set = misbehaviour;
    }

    pub(super) fn get(&self) -> (Misbehaviour, Observed) {
        let state = self.state();
        (state.set, state.observed.clone())
    }

    /// What to do wrong with a payment that is read whole.
    pub(super) fn with_payment(&self) -> Option<PaymentFault> {
        let mut state = self.state();
        let fault = state.set.payments.filter(|fault| *fault != PaymentFault::CutInRequest)?;
        let is_hit = state.is_hit();
        is_hit.then(|| {
            state.count(fault.name());
            fault
        })
    }

    /// After how many of its `len` bytes this request breaks off.
    pub(super) fn in_request(&self, len: usize) -> Option<(usize, Ending)> {
        let mut state = self.state();
        let fault = state.set.payments.filter(|fault| *fault == PaymentFault::CutInRequest)?;
        if len == 0 || !state.is_hit() {
            return None;
        }
        state.count(fault.name());
        drop(state);
        Some(self.sweep(fault, len))
    }

    /// After how many of its bytes an answer breaks off.
    pub(super) fn in_answer(&self) -> (usize, Ending) {
        self.sweep(PaymentFault::CutInAnswer, ANSWER_SWEEP_BYTES)
    }

    /// The next place below `len`; after each round of all places the other ending.
    fn sweep(&self, fault: PaymentFault, len: usize) -> (usize, Ending) {
        let number = self.turn(fault);
        (number % len, if (number / len).is_multiple_of(2) { Ending::Reset } else { Ending::Close })
    }

    /// How often this fault has had a choice to make before.
    pub(super) fn turn(&self, fault: PaymentFault) -> usize {
        let mut state = self.state();
        let first = state.set.turn;
        let turns = state.sweeps.entry(fault).or_insert(first);
        *turns += 1;
        *turns - 1
    }

    /// How long the next late answer, or late row, takes.
    pub(super) fn lateness(&self, fault: PaymentFault) -> Duration {
        let turn = self.turn(fault) as u64;
        let [from, to] = self.state().set.late_ms;
        // A step that shares no factor with most lengths visits short and long ones in turns.
        Duration::from_millis(from + turn * 7_919 % (to.saturating_sub(from) + 1))
    }

    pub(super) fn with_health(&self) -> Option<HealthFault> {
        let mut state = self.state();
        let now = Instant::now();
        let gap = state.health_at.replace(now).map(|before| now.duration_since(before).as_millis());
        if let Some(gap_ms) = gap.and_then(|gap| u64::try_from(gap).ok()) {
            let shortest = state.observed.health_gap_min_ms.map_or(gap_ms, |least| least.min(gap_ms));
            state.observed.health_gap_min_ms = Some(shortest);
        }
        state.observed.health_calls += 1;
        let fault = state.set.health?;
        state.count(fault.name());
        Some(fault)
    }

    pub(super) fn observe_running(&self, running: usize) {
        let mut state = self.state();
        state.observed.running_max = state.observed.running_max.max(running);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conduct(text: &str) -> Conduct {
        let conduct = Conduct::default();
        conduct.set(serde_json::from_str(text).unwrap());
        conduct
    }

    #[test]
    fn names_are_those_of_the_json() {
        for fault in PaymentFault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
        for fault in HealthFault::ALL {
            assert_eq!(
                format!("health_{}", serde_json::to_value(fault).unwrap().as_str().unwrap()),
                fault.name()
            );
        }
    }

    #[test]
    fn a_share_of_the_payments_is_hit_evenly() {
        let conduct = conduct(r#"{"payments":"garbage","share_percent":25}"#);
        let hits: Vec<bool> = (0..8).map(|_| conduct.with_payment().is_some()).collect();
        assert_eq!(hits, [false, false, false, true, false, false, false, true]);
        assert_eq!(conduct.get().1.done["garbage"], 2);
    }

    #[test]
    fn every_byte_of_request_and_answer_has_its_turn_with_both_endings() {
        let conduct = conduct(r#"{"payments":"cut_in_request"}"#);
        let cuts: Vec<(usize, Ending)> = (0..6).filter_map(|_| conduct.in_request(3)).collect();
        let [reset, close] = [Ending::Reset, Ending::Close];
        assert_eq!(cuts, [(0, reset), (1, reset), (2, reset), (0, close), (1, close), (2, close)]);
        assert_eq!(conduct.with_payment(), None, "what was cut is not read whole");
        let mut seen: Vec<usize> = (0..ANSWER_SWEEP_BYTES).map(|_| conduct.in_answer().0).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..ANSWER_SWEEP_BYTES).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_word_everything_goes_well() {
        let conduct = conduct("{}");
        assert_eq!(
            (conduct.with_payment(), conduct.in_request(9), conduct.with_health()),
            (None, None, None)
        );
        assert!(serde_json::from_str::<Misbehaviour>(r#"{"payments":"explode"}"#).is_err());
        assert!(serde_json::from_str::<Misbehaviour>(r#"{"payment":"flood"}"#).is_err());
    }
}
