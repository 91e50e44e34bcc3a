//! The calls that are out: which api makes them, since when, and how many each side may still carry.
//!
//! This is the volatile half of an attempt. A call that is open keeps its payment from being repeated and counts
//! against the caps (`open_calls_are_capped`). A call that is overdue does neither: its api keeps the socket and still takes the
//! answer, so that no operator decides about its payment meanwhile. All of it dies with the process; what an attempt
//! proves does not depend on it.

use super::event::ApiId;
use std::collections::BTreeMap;
use std::ops::Bound;
use wire::frame::{AttemptId, CallKind};
use wire::{PaymentId, PerProcessor, Processor};

/// One call that is out.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The api that makes it.
    pub api: ApiId,
    /// Its payment.
    pub id: PaymentId,
    /// When its lease was given, in monotonic microseconds.
    pub since_us: u64,
}

/// All calls that are out.
#[derive(Debug, Default)]
pub struct Calls {
    open: PerProcessor<BTreeMap<AttemptId, Call>>,
    /// Which api keeps the socket of an overdue call. Bounded by what apis hold: a hello lists them.
    overdue: PerProcessor<BTreeMap<AttemptId, (ApiId, PaymentId)>>,
    /// `GET`s. They charge nothing, so they have numbers of their own and no intent.
    inquiries: PerProcessor<BTreeMap<AttemptId, Call>>,
    next_inquiry: u64,
}

/// Sets the numbers of inquiries apart from those of attempts.
const INQUIRY_BIT: u64 = 1 << 63;

impl Calls {
    /// No call is out. Inquiries are numbered from anywhere, by chance: what was asked by the store before, of which nothing is
    /// remembered, is not taken for one of these.
    #[must_use]
    pub fn new(chance: u64) -> Self {
        Self { next_inquiry: chance, ..Self::default() }
    }

    /// Notes a call that goes out.
    pub fn begin(&mut self, processor: Processor, attempt: AttemptId, call: Call) {
        self.open[processor].insert(attempt, call);
    }

    /// Notes a `GET` that goes out and gives it a number.
    pub fn begin_inquiry(&mut self, processor: Processor, call: Call) -> AttemptId {
        self.next_inquiry = self.next_inquiry.wrapping_add(1);
        let inquiry = AttemptId(INQUIRY_BIT | self.next_inquiry);
        self.inquiries[processor].insert(inquiry, call);
        inquiry
    }

    /// Forgets the inquiries: what they ask about is of the world before a purge.
    pub fn drop_inquiries(&mut self) {
        self.inquiries = PerProcessor::default();
    }

    /// True for a number of an inquiry.
    #[must_use]
    pub fn is_inquiry(attempt: AttemptId) -> bool {
        attempt.0 & INQUIRY_BIT != 0
    }

    /// A call is overdue: its socket is kept. Tells the call if it was open until now.
    pub fn keep_overdue(
        &mut self,
        processor: Processor,
        attempt: AttemptId,
        api: ApiId,
        id: PaymentId,
    ) -> Option<Call> {
        let call = self.open[processor].remove(&attempt);
        self.overdue[processor].insert(attempt, (api, id));
        call
    }

    /// Ends a call of either kind and tells which it was. `None` when it was not out.
    pub fn end(&mut self, processor: Processor, attempt: AttemptId) -> Option<(Call, CallKind)> {
        self.overdue[processor].remove(&attempt);
        let post = self.open[processor].remove(&attempt).map(|call| (call, CallKind::Post));
        post.or_else(|| self.inquiries[processor].remove(&attempt).map(|call| (call, CallKind::Get)))
    }

    /// Ends all calls of an api and tells the posts among them.
    pub fn end_all_of(&mut self, api: ApiId) -> Vec<(Processor, AttemptId, Call)> {
        let mut ended = Vec::new();
        for processor in Processor::BOTH {
            self.inquiries[processor].retain(|_, call| call.api != api);
            self.overdue[processor].retain(|_, (keeper, _)| *keeper != api);
            let gone = self.open[processor].extract_if(.., |_, call| call.api == api);
            ended.extend(gone.map(|(attempt, call)| (processor, attempt, call)));
        }
        ended
    }

    /// How many posts are open at a processor, over all apis.
    #[must_use]
    pub fn open_len(&self, processor: Processor) -> usize {
        self.open[processor].len()
    }

    /// How many `GET`s are out at a processor.
    #[must_use]
    pub fn inquiries_len(&self, processor: Processor) -> usize {
        self.inquiries[processor].len()
    }

    /// True when this attempt's call is open.
    #[must_use]
    pub fn is_open(&self, processor: Processor, attempt: AttemptId) -> bool {
        self.open[processor].contains_key(&attempt)
    }

    /// True while an answer of this attempt may still come: its call is open or overdue.
    #[must_use]
    pub fn may_be_answered(&self, processor: Processor, attempt: AttemptId) -> bool {
        self.is_open(processor, attempt) || self.overdue[processor].contains_key(&attempt)
    }

    /// True while any call of this payment may still be answered, one that its flight lists no more included. Looks at all
    /// calls: for operators.
    #[must_use]
    pub fn may_be_answered_for(&self, processor: Processor, id: PaymentId) -> bool {
        self.open[processor].values().any(|call| call.id == id)
            || self.overdue[processor].values().any(|(_, overdue)| *overdue == id)
    }

    /// When the oldest open call after `watermark` went out. Attempts are numbered in the order of their leases.
    #[must_use]
    pub fn oldest_since_us(&self, processor: Processor, watermark: AttemptId) -> Option<u64> {
        let after = (Bound::Excluded(watermark), Bound::Unbounded);
        self.open[processor].range(after).next().map(|(_, call)| call.since_us)
    }

    /// The oldest open call, if it went out before `since_us`.
    #[must_use]
    pub fn oldest(&self, processor: Processor, since_us: u64) -> Option<(AttemptId, PaymentId)> {
        let (attempt, call) = self.open[processor].first_key_value()?;
        (call.since_us < since_us).then_some((*attempt, call.id))
    }

    /// The youngest attempt whose call is open.
    #[must_use]
    pub fn youngest(&self, processor: Processor) -> Option<AttemptId> {
        self.open[processor].last_key_value().map(|(attempt, _)| *attempt)
    }
}
