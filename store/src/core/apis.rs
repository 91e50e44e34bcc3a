//! The apis: which are there, which may carry one more call, and what they still have to be told.

use super::effects::Effects;
use super::event::{ApiId, Now};
use std::collections::BTreeMap;
use wire::frame::FromStore;

/// An api that says nothing for so long is taken as dead; it beats each second (docs/money.md).
const API_SILENCE_MS: u64 = 3_000;

/// How long a report may wait for its acknowledgement when nothing else is said to its api. Until then the api keeps it.
const ACKNOWLEDGE_AFTER_MS: u64 = 100;

/// So many calls more or less at an api are no reason to wake another one.
const LITTLE_DIFFERENCE: usize = 8;

#[derive(Debug)]
struct Api {
    instance: u64,
    calls_max: usize,
    open: usize,
    draining: bool,
    heard_us: u64,
    reported: Option<Reported>,
}

/// Reports that are not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// The last one.
    sequence: u64,
    /// When the first one came.
    since_us: u64,
}

/// All that have said hello and have not gone.
#[derive(Debug, Default)]
pub(super) struct Apis(BTreeMap<ApiId, Api>);

impl Apis {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One says hello on a connection, with a number of its own that it keeps as long as it runs, and can carry so many
    /// calls.
    pub(super) fn join(&mut self, api: ApiId, instance: u64, calls_max: u16, now: Now) {
        let calls_max = usize::from(calls_max);
        let fresh = Api { instance, calls_max, open: 0, draining: false, heard_us: now.us, reported: None };
        self.0.insert(api, fresh);
    }

    /// The connections that this hello replaces: those of the same api, dead whether or not the kernel has said so.
    pub(super) fn replaced_by(&self, api: ApiId, instance: u64) -> Vec<ApiId> {
        let is_same = |(other, known): &(&ApiId, &Api)| known.instance == instance || **other == api;
        self.0.iter().filter(is_same).map(|(old, _)| *old).collect()
    }

    /// One is gone. False when it never said hello.
    pub(super) fn leave(&mut self, api: ApiId) -> bool {
        self.0.remove(&api).is_some()
    }

    /// One says something. False when it has not said hello.
    pub(super) fn note_heard(&mut self, api: ApiId, now: Now) -> bool {
        self.0.get_mut(&api).map(|known| known.heard_us = now.us).is_some()
    }

    /// No api was read for a while.
    pub(super) fn note_all_heard(&mut self, now: Now) {
        self.0.values_mut().for_each(|known| known.heard_us = now.us);
    }

    /// Those that have said nothing for too long.
    pub(super) fn silent(&self, now: Now) -> Vec<ApiId> {
        let is_silent =
            |(_, known): &(&ApiId, &Api)| now.us.saturating_sub(known.heard_us) > API_SILENCE_MS * 1000;
        self.0.iter().filter(is_silent).map(|(api, _)| *api).collect()
    }

    /// One takes no more calls.
    pub(super) fn note_draining(&mut self, api: ApiId) {
        if let Some(known) = self.0.get_mut(&api) {
            known.draining = true;
        }
    }

    /// A call begins at one, if it is still there.
    pub(super) fn note_begun(&mut self, api: ApiId) {
        if let Some(known) = self.0.get_mut(&api) {
            known.open += 1;
        }
    }

    /// A call that began there has ended.
    pub(super) fn note_ended(&mut self, api: ApiId) {
        if let Some(known) = self.0.get_mut(&api) {
            known.open -= 1;
        }
    }

    /// The one with the fewest open calls that can carry one more; where it makes little difference, the one that was
    /// spoken to last in this turn, because it is woken anyway.
    pub(super) fn pick(&self, effects: &Effects) -> Option<ApiId> {
        let spoken_to = effects.sends.last().map(|(api, _)| *api);
        self.0
            .iter()
            .filter(|(_, known)| !known.draining && known.open < known.calls_max)
            .min_by_key(|(api, known)| (known.open / LITTLE_DIFFERENCE, Some(**api) != spoken_to, known.open))
            .map(|(api, _)| *api)
    }

    /// A report came from one.
    pub(super) fn note_report(&mut self, api: ApiId, sequence: u64, now: Now) {
        let Some(known) = self.0.get_mut(&api) else { return };
        let reported = known.reported.get_or_insert(Reported { sequence, since_us: now.us });
        reported.sequence = reported.sequence.max(sequence);
    }

    /// Acknowledges reports of each api that gets a message anyway, or drains, or has waited: a message of its own would only wake
    /// its receiver.
    pub(super) fn acknowledge(&mut self, now: Now, effects: &mut Effects) {
        for (&api, known) in &mut self.0 {
            let Some(Reported { sequence, since_us }) = known.reported else { continue };
            let is_old = now.us.saturating_sub(since_us) >= ACKNOWLEDGE_AFTER_MS * 1000;
            if is_old || known.draining || effects.sends.iter().any(|(to, _)| *to == api) {
                known.reported = None;
                effects.sends.push((api, FromStore::Acknowledge { sequence }));
            }
        }
    }
}
