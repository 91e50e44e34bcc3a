//! Which faults happen when: a pure function of the seed.
//!
//! A round is [`Schedule::of`] one seed. Kinds are dealt from decks and not drawn, so that a round of the usual length
//! has every way of killing, every way of stopping and every trouble of a processor at least once; when, whom and for how
//! long is left to chance. What follows from the schedule still differs from run to run, because real processes do.
//!
//! ```text
//!   processes   kills at any moment, every third one followed by another in the middle of the recovery;
//!               stops, orderly ends, and outages: what is killed does not come back for a while
//!   disk        a fault each [`DISK_EVERY_MS`], and nothing else happens to the store around it
//!   processors  each has one trouble after the other, with a pause in which it is well;
//!               beside that two ways of answering health calls wrongly, each for half of the round
//! ```
//!
//! Every third seed spares the store. One that has just started makes no health calls for five seconds, so where it is
//! killed all the time what a processor says of its health is never heard.

use crate::processor::{HealthFault, PaymentFault};
use contest::chance::Chance;
use std::fmt;
use wire::Processor;

/// Before the first fault, so that there is something to lose.
const LEAD_MS: u64 = 200;

/// How long after a kill its recovery is disturbed: from before the new process has bound its socket to after it serves.
const RECOVERY_MS: (u64, u64) = (5, 80);

/// Of the kills, how many are followed by another one.
const RECOVERY_PERCENT: u64 = 33;

/// The disk fails this often, and in a long round once in each way: then the store can be stopped for long in between.
const DISK_EVERY_MS: u64 = 3_000;
const DISK_FAULTS_MAX: u64 = DISK_FAULTS.len() as u64;

/// Around a fault of the disk nothing else happens to the store: before it, to have it running, and after it, for the
/// fault to be met and its end to be seen.
const DISK_CLEAR_MS: (u64, u64) = (400, 1_000);

/// How long what is killed stays away in an outage: longer than the second for which lb and api hold a request, so that
/// clients are told 503.
const OUTAGE_MS: (u64, u64) = (1_100, 1_600);

/// The store is spared by one seed of so many.
const SPARED_EVERY: u64 = 3;

/// The longest stop and the longest late answer (docs/failures.md), and what they are of a round at most.
const STOP_MS_MAX: u64 = 30_000;
const LATE_MS_MAX: u64 = 35_000;
const ROUND_SHARE_MAX: u64 = 4;

/// Draws of a moment for a fault that must not come near another; after that it hits another process.
const DRAWS_MAX: usize = 50;

/// A process to kill, stop or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One api, by its number from 1.
    Api(u8),
    /// Both apis at once.
    Apis,
    /// The store.
    Store,
    /// The balancer.
    Lb,
    /// All of them at once.
    Everything,
}

impl Target {
    /// The names of the processes.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let api = |number: u8| format!("api{number}");
        match self {
            Self::Api(number) => vec![api(number)],
            Self::Apis => vec![api(1), api(2)],
            Self::Store => vec!["store".into()],
            Self::Lb => vec!["lb".into()],
            Self::Everything => vec!["store".into(), api(1), api(2), "lb".into()],
        }
    }

    fn is_store(self) -> bool {
        matches!(self, Self::Store | Self::Everything)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api(_) => "an api",
            Self::Apis => "both apis",
            Self::Store => "store",
            Self::Lb => "lb",
            Self::Everything => "everything",
        })
    }
}

/// What the store's disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Each flush takes this much longer, for a second.
    SlowFlush {
        /// In milliseconds.
        by_ms: u64,
    },
    /// The next flush fails.
    FlushFails(DiskError),
    /// The next write fails.
    WriteFails(DiskError),
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// Input/output error.
    Eio,
    /// No space left.
    Enospc,
}

impl DiskError {
    /// As strace has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eio => "EIO",
            Self::Enospc => "ENOSPC",
        }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowFlush { .. } => f.write_str("slow flush"),
            Self::FlushFails(error) => write!(f, "flush {}", error.name()),
            Self::WriteFails(error) => write!(f, "write {}", error.name()),
        }
    }
}

const DISK_FAULTS: [DiskFault; 5] = [
    DiskFault::FlushFails(DiskError::Eio),
    DiskFault::WriteFails(DiskError::Eio),
    DiskFault::SlowFlush { by_ms: 200 },
    DiskFault::WriteFails(DiskError::Enospc),
    DiskFault::FlushFails(DiskError::Enospc),
];

/// What is the matter with a processor for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It misbehaves towards a share of the payments.
    Payments(PaymentFault, u8),
    /// The official delay.
    Delay {
        /// In milliseconds.
        ms: u64,
    },
    /// The official failure flag.
    Failing,
    /// Failing and so slow that calls wait when it is healed.
    HealsWithCallsWaiting,
    /// It loses this share of its rows, once.
    Loses(u8),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payments(fault, _) => fault.name(),
            Self::Delay { .. } => "delay",
            Self::Failing => "failing",
            Self::HealsWithCallsWaiting => "heals_with_calls_waiting",
            Self::Loses(_) => "loses_rows",
        })
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill {
        /// Whom.
        target: Target,
        /// In the middle of the recovery from another one.
        is_recovering: bool,
    },
    /// SIGSTOP, and SIGCONT after that time.
    Stop {
        /// Whom.
        target: Target,
        /// For how long.
        for_ms: u64,
    },
    /// SIGTERM.
    Terminate(Target),
    /// SIGKILL, and nothing follows for that time.
    Outage {
        /// Whom.
        target: Target,
        /// For how long.
        for_ms: u64,
    },
    /// The disk.
    Disk(DiskFault),
    /// A processor begins to be in trouble.
    Trouble(Processor, Trouble),
    /// A processor is well again, but for its health calls.
    Heal(Processor),
    /// A processor answers health calls wrongly from now on.
    Health(Processor, HealthFault),
}

/// A fault and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the start of the round.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// How much happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long faults go on.
    pub round_ms: u64,
    /// Kills, those in the middle of a recovery included.
    pub kills: u32,
    /// Whether the disk can be made to fail here.
    pub has_disk_faults: bool,
}

impl Settings {
    /// The longest that an answer is late.
    #[must_use]
    pub fn late_ms_max(&self) -> u64 {
        LATE_MS_MAX.min(self.round_ms / ROUND_SHARE_MAX)
    }
}

/// The faults of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Whether a purge opens the round while payments are in flight.
    pub has_purge: bool,
    /// In the order of time.
    pub faults: Vec<Planned>,
}

impl Schedule {
    /// The schedule of this seed.
    #[must_use]
    pub fn of(seed: u64, settings: &Settings) -> Self {
        let is_spared = seed.is_multiple_of(SPARED_EVERY);
        let (chance, settings) = (Chance::new(seed), *settings);
        let mut faults = Faults { chance, settings, is_spared, faults: Vec::new(), clear: Vec::new() };
        if settings.has_disk_faults && !is_spared {
            faults.add_disk(seed);
        }
        faults.add_processes();
        faults.add_kills();
        for processor in Processor::BOTH {
            faults.add_troubles(processor);
            faults.add_health(processor, seed);
        }
        let mut faults = faults.faults;
        faults.sort_by_key(|planned| planned.at_ms);
        Self { has_purge: seed.is_multiple_of(2), faults }
    }
}

struct Faults {
    chance: Chance,
    settings: Settings,
    is_spared: bool,
    faults: Vec<Planned>,
    /// When nothing may happen to the store.
    clear: Vec<(u64, u64)>,
}

impl Faults {
    fn add(&mut self, at_ms: u64, fault: Fault) {
        self.faults.push(Planned { at_ms, fault });
    }

    fn disk_faults(&self) -> u64 {
        (self.settings.round_ms / DISK_EVERY_MS).clamp(1, DISK_FAULTS_MAX)
    }

    fn add_disk(&mut self, seed: u64) {
        let count = self.disk_faults();
        let share = self.settings.round_ms / count;
        for number in 0..count {
            let first = number * share + DISK_CLEAR_MS.0;
            let last = ((number + 1) * share).saturating_sub(DISK_CLEAR_MS.1).max(first + 1);
            let at_ms = self.chance.between(first, last);
            let kind = seed.wrapping_mul(count).wrapping_add(number) % DISK_FAULTS.len() as u64;
            let fault = DISK_FAULTS[usize::try_from(kind).expect("below the length")];
            self.add(at_ms, Fault::Disk(fault));
            self.clear.push((at_ms - DISK_CLEAR_MS.0, at_ms + DISK_CLEAR_MS.1));
        }
    }

    /// A moment at which this may happen; `None` when chance found none.
    fn moment(&mut self, is_store: bool, lasts_ms: u64) -> Option<u64> {
        if is_store && self.is_spared {
            return None;
        }
        let end = self.settings.round_ms.saturating_sub(lasts_ms).max(LEAD_MS + 1);
        (0..DRAWS_MAX).map(|_| self.chance.between(LEAD_MS, end)).find(|at| {
            let hits = |(from, to): &(u64, u64)| at + lasts_ms >= *from && at <= to;
            !(is_store && self.clear.iter().any(hits))
        })
    }

    fn add_processes(&mut self) {
        let longest = STOP_MS_MAX.min(self.settings.round_ms / ROUND_SHARE_MAX);
        for target in [Target::Api(1), Target::Store, Target::Lb, Target::Api(2)] {
            // Between two faults of the disk there is only so much room.
            let room = (self.settings.round_ms / self.disk_faults())
                .saturating_sub(DISK_CLEAR_MS.0 + DISK_CLEAR_MS.1);
            let longest =
                if target.is_store() && self.settings.has_disk_faults { longest.min(room) } else { longest };
            let for_ms = self.chance.between(200, longest.max(201));
            if let Some(at_ms) = self.moment(target.is_store(), for_ms) {
                self.add(at_ms, Fault::Stop { target, for_ms });
            }
        }
        for target in [Target::Store, Target::Apis] {
            let for_ms = self.chance.between(OUTAGE_MS.0, OUTAGE_MS.1);
            if let Some(at_ms) = self.moment(target.is_store(), for_ms) {
                self.add(at_ms, Fault::Outage { target, for_ms });
            }
        }
        for target in [Target::Store, Target::Lb, Target::Api(self.an_api())] {
            if let Some(at_ms) = self.moment(target.is_store(), 0) {
                self.add(at_ms, Fault::Terminate(target));
            }
        }
    }

    fn an_api(&mut self) -> u8 {
        if self.chance.percent(50) { 1 } else { 2 }
    }

    fn add_kills(&mut self) {
        let mut deck: Vec<Target> = Vec::new();
        let mut left = self.settings.kills;
        while left > 0 {
            if deck.is_empty() {
                let (first, second) = (Target::Api(self.an_api()), Target::Api(self.an_api()));
                deck = vec![
                    first,
                    Target::Store,
                    Target::Everything,
                    Target::Lb,
                    Target::Apis,
                    second,
                    Target::Store,
                ];
                self.shuffle(&mut deck);
            }
            let wanted = deck.pop().expect("dealt anew when it is empty");
            let (target, at_ms) = match self.moment(wanted.is_store(), RECOVERY_MS.1) {
                Some(at_ms) => (wanted, at_ms),
                None => (Target::Api(self.an_api()), self.chance.between(LEAD_MS, self.settings.round_ms)),
            };
            self.add(at_ms, Fault::Kill { target, is_recovering: false });
            left -= 1;
            if left > 0 && self.chance.percent(RECOVERY_PERCENT) {
                let at_ms = at_ms + self.chance.between(RECOVERY_MS.0, RECOVERY_MS.1);
                self.add(at_ms, Fault::Kill { target, is_recovering: true });
                left -= 1;
            }
        }
    }

    fn add_troubles(&mut self, processor: Processor) {
        let shares =
            PaymentFault::ALL.map(|fault| Trouble::Payments(fault, self.chance.pick(&[100, 50, 50, 20])));
        let mut deck = shares.to_vec();
        let ms = self.chance.between(50, self.settings.late_ms_max().max(51));
        deck.extend([Trouble::Delay { ms }, Trouble::Failing, Trouble::HealsWithCallsWaiting]);
        deck.push(Trouble::Loses(self.chance.pick(&[1, 5, 20])));
        self.shuffle(&mut deck);
        let slot_ms = self.settings.round_ms / deck.len() as u64;
        for (number, trouble) in (0..).zip(deck) {
            let begin_ms = number * slot_ms;
            let at_ms = begin_ms + self.chance.between(0, slot_ms / 4 + 1);
            let heal_ms = begin_ms + slot_ms * 3 / 4 + self.chance.between(0, slot_ms / 4 + 1);
            self.add(at_ms, Fault::Trouble(processor, trouble));
            self.add(heal_ms, Fault::Heal(processor));
        }
    }

    fn add_health(&mut self, processor: Processor, seed: u64) {
        for half in 0..2 {
            let kind = (seed / SPARED_EVERY + half + processor as u64) % HealthFault::ALL.len() as u64;
            let fault = HealthFault::ALL[usize::try_from(kind).expect("below the length")];
            self.add(half * self.settings.round_ms / 2, Fault::Health(processor, fault));
        }
    }

    /// Fisher and Yates.
    fn shuffle<T>(&mut self, deck: &mut [T]) {
        for last in (1..deck.len()).rev() {
            let other = self.chance.between(0, last as u64 + 1);
            deck.swap(last, usize::try_from(other).expect("an index"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { round_ms: 15_000, kills: 40, has_disk_faults: true };

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(Schedule::of(7, &SETTINGS), Schedule::of(7, &SETTINGS));
        assert_ne!(Schedule::of(7, &SETTINGS), Schedule::of(8, &SETTINGS));
    }

    #[test]
    fn a_round_has_every_kind_of_fault() {
        for seed in (0..200).filter(|seed: &u64| !seed.is_multiple_of(SPARED_EVERY)) {
            let faults = Schedule::of(seed, &SETTINGS).faults;
            let all: Vec<String> = faults.iter().map(|planned| format!("{:?}", planned.fault)).collect();
            assert_eq!(all.iter().filter(|fault| fault.starts_with("Kill")).count(), 40, "seed {seed}");
            let of = |kind: &str, targets: &[&str]| -> Vec<String> {
                targets.iter().map(|target| format!("{kind}{target}")).collect()
            };
            let kinds = [
                of("Kill { target: ", &["Api(", "Apis", "Store", "Lb", "Everything"]),
                of("Stop { target: ", &["Api(", "Lb"]),
                of("Outage { target: ", &["Apis"]),
                of("Terminate(", &["Api(", "Lb"]),
                of("Disk(", &["Flush", "Write"]),
            ];
            for kind in kinds.concat() {
                assert!(all.iter().any(|fault| fault.starts_with(&kind)), "seed {seed}: {kind}");
            }
            for fault in PaymentFault::ALL {
                let is_it = |other: &&Planned| matches!(other.fault, Fault::Trouble(_, Trouble::Payments(at, _)) if at == fault);
                assert_eq!(faults.iter().filter(is_it).count(), 2, "seed {seed}: {fault:?}");
            }
            assert!(faults.is_sorted_by_key(|planned| planned.at_ms));
        }
    }

    #[test]
    fn every_third_round_leaves_the_store_alone() {
        for seed in (0..60).filter(|seed: &u64| seed.is_multiple_of(SPARED_EVERY)) {
            for planned in Schedule::of(seed, &SETTINGS).faults {
                let hit = match planned.fault {
                    Fault::Kill { target, .. }
                    | Fault::Stop { target, .. }
                    | Fault::Outage { target, .. } => target,
                    Fault::Terminate(target) => target,
                    Fault::Disk(_) => Target::Store,
                    _ => continue,
                };
                assert!(!hit.is_store(), "seed {seed}: {planned:?}");
            }
        }
    }

    #[test]
    fn nothing_else_happens_to_the_store_around_a_fault_of_its_disk() {
        for seed in 0..200 {
            let faults = Schedule::of(seed, &SETTINGS).faults;
            let disk: Vec<u64> = faults
                .iter()
                .filter(|planned| matches!(planned.fault, Fault::Disk(_)))
                .map(|planned| planned.at_ms)
                .collect();
            for Planned { at_ms, fault } in faults {
                let (is_store, lasts_ms) = match fault {
                    Fault::Kill { target, .. } | Fault::Terminate(target) => (target.is_store(), 0),
                    Fault::Stop { target, for_ms } | Fault::Outage { target, for_ms } => {
                        (target.is_store(), for_ms)
                    }
                    _ => (false, 0),
                };
                let is_near =
                    |at: &u64| at_ms + lasts_ms + DISK_CLEAR_MS.0 >= *at && at_ms <= at + DISK_CLEAR_MS.1;
                assert!(
                    !is_store || !disk.iter().any(is_near),
                    "seed {seed}: {fault:?} at {at_ms}, disk {disk:?}"
                );
            }
        }
    }

    #[test]
    fn a_processor_is_healed_before_its_next_trouble() {
        for processor in Processor::BOTH {
            let mut is_well = true;
            for Planned { fault, .. } in Schedule::of(3, &SETTINGS).faults {
                match fault {
                    Fault::Trouble(at, _) if at == processor => {
                        assert!(std::mem::replace(&mut is_well, false));
                    }
                    Fault::Heal(at) if at == processor => {
                        assert!(!std::mem::replace(&mut is_well, true));
                    }
                    _ => (),
                }
            }
        }
    }
}
