//! What each processor charged inside a window of `requestedAt`: exact, in cents, in O(log n), whatever the order in
//! which charges become known.
//!
//! Only the store issues `requestedAt`, and it never goes back. So the entries, one for each time that was issued,
//! are sorted as they are made, and a charge only marks its entry. Entries lie in blocks of [`BLOCK_LEN`]; a Fenwick
//! tree over the blocks holds count and cents of what is charged in each. A window is two prefix sums; a prefix is a
//! walk over the tree and the part of one block. Marking is one walk.
//!
//! ```text
//!   issued   | R0 R1 .. R31 | R32 ..   R63 | R64 ..  |     sorted by R, 16 bytes each
//!   blocks   |   tree[0]    |    tree[1]   | tree[2] |     32 bytes each, 1 for an entry
//! ```
//!
//! A time that we did not issue in this order (a row adopted from a processor, a payment born from a tombstone) goes
//! into a sorted list beside it, which is searched linearly: it is as long as there are such rows, normally empty.

use super::chunked::Chunked;
use super::fields::Fields;
use super::queue::Ordinal;
use std::io::{self, Read, Write};
use std::ops::Range;
use wire::frame::Totals;
use wire::{Bounds, Cents, PerProcessor, Processor, Timestamp};

/// Entries in a block: what a prefix may have to walk, 512 bytes.
pub(super) const BLOCK_LEN: usize = 32;

/// Names one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// One issued time, and what was charged under it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Milliseconds since 1970, below the two bits for the processor that charged it.
    packed: u64,
    cents: i64,
}

const TIME_BITS: u32 = 62;

/// Memory of [`BLOCK_LEN`] entries, with their node of the tree, in bytes.
pub(super) const BLOCK_MEMORY_BYTES: usize = BLOCK_LEN * size_of::<Entry>() + size_of::<Node>();

/// Memory of a charge outside the order in bytes; a list that has just grown has room for twice as many.
pub(super) const FOREIGN_MEMORY_BYTES: usize = size_of::<Foreign>();

/// Bytes of an entry in a snapshot.
const ENTRY_BYTES: usize = 16;

/// Bytes of a charge outside the order in a snapshot.
const FOREIGN_BYTES: usize = 21;

impl Entry {
    fn requested_at_ms(&self) -> u64 {
        self.packed & ((1 << TIME_BITS) - 1)
    }

    fn charged_by(&self) -> Option<Processor> {
        match self.packed >> TIME_BITS {
            0 => None,
            1 => Some(Processor::Default),
            _ => Some(Processor::Fallback),
        }
    }
}

/// A charge whose time stands outside the order of issue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    pub(super) requested_at: Timestamp,
    pub(super) processor: Processor,
    pub(super) cents: Cents,
    pub(super) ordinal: Ordinal,
}

/// The index of all charges by time.
#[derive(Debug, Default)]
pub struct Summary {
    issued: Chunked<Entry>,
    /// Entries under which something is charged.
    charged_len: usize,
    tree: Fenwick,
    foreign: Vec<Foreign>,
}

/// Where the entries are after [`Summary::compact`]: for each block of old slots the first new slot, and a bit for each
/// entry that lives.
#[derive(Debug)]
pub(super) struct Moved {
    blocks: Vec<(u32, u32)>,
}

impl Moved {
    /// The new slot of an old one; `None` when its entry is forgotten.
    pub(super) fn new_slot(&self, old: Slot) -> Option<Slot> {
        let (first, lives) = self.blocks[old.0 as usize / BLOCK_LEN];
        let bit = 1 << (old.0 as usize % BLOCK_LEN);
        (lives & bit != 0).then(|| Slot(first + (lives & (bit - 1)).count_ones()))
    }
}

const _: () = assert!(BLOCK_LEN == u32::BITS as usize);

/// A summary as it was at one moment, to be written down.
#[derive(Debug)]
pub(super) struct Frozen {
    issued: Chunked<Entry>,
    foreign: Vec<Foreign>,
}

impl Summary {
    /// Takes note of an issued time, which must not be before the last one.
    ///
    /// # Panics
    /// When time goes back: then the order that every window rests on is gone (`time_never_goes_back`).
    pub fn issue(&mut self, requested_at: Timestamp) -> Slot {
        let ms = requested_at.as_ms();
        assert_eq!(Timestamp::from_ms(ms), requested_at, "requestedAt is whole milliseconds");
        let last = self.issued.last().map_or(0, Entry::requested_at_ms);
        assert!(ms >= last, "requestedAt went back from {last} to {ms}");
        let slot =
            Slot(u32::try_from(self.issued.len()).expect("fewer than 2^32 attempts between two purges"));
        self.append(Entry { packed: ms, cents: 0 });
        slot
    }

    fn append(&mut self, entry: Entry) {
        if self.issued.len().is_multiple_of(BLOCK_LEN) {
            self.tree.push();
        }
        self.issued.push(entry);
    }

    /// Entries under which nothing is charged: those of payments in flight, and those whose attempt was cleared.
    #[must_use]
    pub fn uncharged_len(&self) -> usize {
        self.issued.len() - self.charged_len
    }

    /// Forgets the entries that are neither charged nor in `kept`, which is sorted, and tells where the others are now. It
    /// takes no memory beside a quarter of a byte for each entry.
    pub(super) fn compact(&mut self, kept: &[Slot]) -> Moved {
        let mut moved = Moved { blocks: Vec::with_capacity(self.issued.len().div_ceil(BLOCK_LEN)) };
        let mut kept = kept.iter().peekable();
        let mut len = 0;
        for at in 0..self.issued.len() {
            if at.is_multiple_of(BLOCK_LEN) {
                moved.blocks.push((u32::try_from(len).expect("slots are 32 bits"), 0));
            }
            let entry = self.issued[at];
            let is_kept = kept.next_if(|slot| slot.0 as usize == at).is_some();
            if entry.charged_by().is_some() || is_kept {
                moved.blocks[at / BLOCK_LEN].1 |= 1 << (at % BLOCK_LEN);
                if len < at {
                    self.issued[len] = entry;
                }
                len += 1;
            }
        }
        self.issued.truncate(len);
        self.rebuild_tree();
        moved
    }

    /// Appends an entry that is charged, or not.
    fn restore(&mut self, entry: Entry) {
        let slot = self.issued.len();
        self.append(entry);
        if let Some(processor) = entry.charged_by() {
            self.charged_len += 1;
            self.tree.add(slot / BLOCK_LEN, processor, Cents(entry.cents));
        }
    }

    fn rebuild_tree(&mut self) {
        self.tree = Fenwick::default();
        for (at, entry) in self.issued.iter().enumerate() {
            if at.is_multiple_of(BLOCK_LEN) {
                self.tree.push();
            }
            if let Some(processor) = entry.charged_by() {
                self.tree.add(at / BLOCK_LEN, processor, Cents(entry.cents));
            }
        }
    }

    /// True while a snapshot shares the entries.
    pub(super) fn is_shared(&self) -> bool {
        self.issued.is_shared()
    }

    /// The time of an entry.
    #[must_use]
    pub fn requested_at(&self, slot: Slot) -> Timestamp {
        Timestamp::from_ms(self.issued[slot.0 as usize].requested_at_ms())
    }

    /// Marks an entry as charged.
    ///
    /// # Panics
    /// When it is charged already: charged is final (`charged_and_dead_are_final`).
    pub fn charge(&mut self, slot: Slot, processor: Processor, cents: Cents) {
        let at = slot.0 as usize;
        let entry = &mut self.issued[at];
        assert_eq!(entry.charged_by(), None, "an entry is charged once");
        entry.packed |= (processor as u64 + 1) << TIME_BITS;
        entry.cents = cents.0;
        self.charged_len += 1;
        self.tree.add(at / BLOCK_LEN, processor, cents);
    }

    /// Counts a charge under a time that stands outside the order of issue.
    pub fn charge_foreign(
        &mut self,
        requested_at: Timestamp,
        processor: Processor,
        cents: Cents,
        ordinal: Ordinal,
    ) {
        let at = self.foreign.partition_point(|other| other.requested_at <= requested_at);
        self.foreign.insert(at, Foreign { requested_at, processor, cents, ordinal });
    }

    /// Count and sum of each processor's charges inside the window, both ends included.
    #[must_use]
    pub fn window(&self, bounds: Bounds) -> PerProcessor<Totals> {
        let mut totals = PerProcessor::default();
        if let (Some(from), Some(to)) = (bounds.from, bounds.to)
            && from > to
        {
            return totals;
        }
        let entries = self.entries(bounds);
        let (upper, lower) = (self.prefix(entries.end), self.prefix(entries.start));
        for processor in Processor::BOTH {
            totals[processor] = Totals {
                count: upper[processor].count - lower[processor].count,
                cents: Cents(upper[processor].cents.0 - lower[processor].cents.0),
            };
        }
        for foreign in self.foreign_charges(bounds) {
            add(&mut totals[foreign.processor], foreign.cents);
        }
        totals
    }

    /// The entries inside the window, charged or not.
    pub(super) fn entries(&self, bounds: Bounds) -> Range<usize> {
        let end = bounds.to.map_or(self.issued.len(), |to| self.partition(|time| time <= to));
        let start = bounds.from.map_or(0, |from| self.partition(|time| time < from));
        start..end.max(start)
    }

    /// The charges inside the window whose times stand outside the order of issue, oldest first.
    pub(super) fn foreign_charges(&self, bounds: Bounds) -> impl Iterator<Item = &Foreign> {
        self.foreign.iter().filter(move |foreign| bounds.contains(foreign.requested_at))
    }

    /// True when something is charged under this entry.
    pub(super) fn is_charged(&self, slot: Slot) -> bool {
        self.issued[slot.0 as usize].charged_by().is_some()
    }

    /// The first time inside the window that was issued, or charged.
    #[must_use]
    pub fn first(&self, bounds: Bounds) -> Option<Timestamp> {
        let entries = self.entries(bounds);
        let issued = entries.into_iter().next().map(|at| self.issued[at].requested_at_ms());
        let foreign = self.foreign_charges(bounds).next().map(|foreign| foreign.requested_at);
        issued.map(Timestamp::from_ms).into_iter().chain(foreign).min()
    }

    /// This moment's summary, which shares its entries with the one that goes on.
    pub(super) fn freeze(&self) -> Frozen {
        Frozen { issued: self.issued.freeze(), foreign: self.foreign.clone() }
    }

    /// Takes a written summary off a snapshot. `None` when it is none.
    pub(super) fn take(fields: &mut Fields<impl Read>) -> Option<Self> {
        let mut summary = Self::default();
        for _ in 0..fields.count(ENTRY_BYTES)? {
            let entry = Entry { packed: fields.number()?, cents: fields.cents()?.0 };
            let last = summary.issued.last().map_or(0, Entry::requested_at_ms);
            if entry.requested_at_ms() < last || entry.packed >> TIME_BITS == 3 {
                return None;
            }
            summary.restore(entry);
        }
        for _ in 0..fields.count(FOREIGN_BYTES)? {
            let (requested_at, processor) = (fields.time()?, fields.processor()?);
            summary.charge_foreign(requested_at, processor, fields.cents()?, fields.ordinal()?);
        }
        Some(summary)
    }

    /// Charges under a time that stands outside the order of issue.
    pub(super) fn foreign_len(&self) -> usize {
        self.foreign.len()
    }

    /// How many entries there are, charged or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.issued.len()
    }

    /// True before the first entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }

    /// The first entry for which `before` does not hold.
    fn partition(&self, before: impl Fn(Timestamp) -> bool) -> usize {
        let (mut low, mut high) = (0, self.issued.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if before(Timestamp::from_ms(self.issued[middle].requested_at_ms())) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// What is charged among the first `len` entries.
    fn prefix(&self, len: usize) -> PerProcessor<Totals> {
        let block = len / BLOCK_LEN;
        let mut totals = self.tree.prefix(block);
        for at in block * BLOCK_LEN..len {
            let entry = &self.issued[at];
            if let Some(processor) = entry.charged_by() {
                add(&mut totals[processor], Cents(entry.cents));
            }
        }
        totals
    }
}

impl Frozen {
    /// Writes the summary down.
    pub(super) fn put(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&u32::try_from(self.issued.len()).expect("slots are 32 bits").to_le_bytes())?;
        for entry in self.issued.iter() {
            out.write_all(&entry.packed.to_le_bytes())?;
            out.write_all(&entry.cents.to_le_bytes())?;
        }
        out.write_all(&u32::try_from(self.foreign.len()).expect("fewer than payments").to_le_bytes())?;
        for foreign in &self.foreign {
            out.write_all(&foreign.requested_at.0.to_le_bytes())?;
            out.write_all(&[foreign.processor as u8])?;
            out.write_all(&foreign.cents.0.to_le_bytes())?;
            out.write_all(&foreign.ordinal.0.to_le_bytes())?;
        }
        Ok(())
    }
}

fn add(totals: &mut Totals, cents: Cents) {
    totals.count += 1;
    totals.cents.0 += cents.0;
}

/// A Fenwick tree (P. Fenwick, 1994) of totals, which grows at its end.
#[derive(Debug, Default)]
struct Fenwick {
    nodes: Chunked<Node>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    totals: PerProcessor<Totals>,
}

impl Fenwick {
    /// Appends a block of nothing. Its node covers the blocks before it that its index says, so it starts as their sum.
    fn push(&mut self) {
        let index = self.nodes.len() + 1;
        let mut totals = PerProcessor::<Totals>::default();
        let mut child = index - 1;
        while child > index - lowest_bit(index) {
            plus(&mut totals, &self.nodes[child - 1].totals);
            child -= lowest_bit(child);
        }
        self.nodes.push(Node { totals });
    }

    fn add(&mut self, block: usize, processor: Processor, cents: Cents) {
        let mut index = block + 1;
        while index <= self.nodes.len() {
            add(&mut self.nodes[index - 1].totals[processor], cents);
            index += lowest_bit(index);
        }
    }

    /// The sum of the first `len` blocks.
    fn prefix(&self, len: usize) -> PerProcessor<Totals> {
        let mut totals = PerProcessor::default();
        let mut index = len;
        while index > 0 {
            plus(&mut totals, &self.nodes[index - 1].totals);
            index -= lowest_bit(index);
        }
        totals
    }
}

fn lowest_bit(index: usize) -> usize {
    index & index.wrapping_neg()
}

fn plus(sum: &mut PerProcessor<Totals>, more: &PerProcessor<Totals>) {
    for processor in Processor::BOTH {
        sum[processor].count += more[processor].count;
        sum[processor].cents.0 += more[processor].cents.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, as a list that is searched whole.
    fn naive(rows: &[(u64, Option<(Processor, i64)>)], bounds: Bounds) -> PerProcessor<Totals> {
        let mut totals = PerProcessor::default();
        for (ms, charge) in rows {
            if let Some((processor, cents)) = charge
                && bounds.contains(Timestamp::from_ms(*ms))
            {
                add(&mut totals[*processor], Cents(*cents));
            }
        }
        totals
    }

    proptest! {
        #[test]
        fn any_window_is_exact_in_whatever_order_charges_come(
            steps in proptest::collection::vec(0_u64..3, 1..400),
            charges in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 1_i64..1000), 0..500),
            windows in proptest::collection::vec((0_u64..500, 0_u64..500, any::<bool>(), any::<bool>()), 1..20),
        ) {
            let mut summary = Summary::default();
            let mut rows = Vec::new();
            let mut ms = 0;
            for step in steps {
                ms += step;
                let slot = summary.issue(Timestamp::from_ms(ms));
                prop_assert_eq!(slot, Slot(u32::try_from(rows.len()).unwrap()));
                rows.push((ms, None));
            }
            for (at, fallback, cents) in charges {
                let at = at.index(rows.len());
                if rows[at].1.is_none() {
                    let processor = if fallback { Processor::Fallback } else { Processor::Default };
                    summary.charge(Slot(u32::try_from(at).unwrap()), processor, Cents(cents));
                    rows[at].1 = Some((processor, cents));
                }
            }
            for (from, to, no_from, no_to) in windows {
                let bounds = Bounds {
                    from: (!no_from).then_some(Timestamp::from_ms(from)),
                    to: (!no_to).then_some(Timestamp::from_ms(to)),
                };
                prop_assert_eq!(summary.window(bounds), naive(&rows, bounds));
            }
        }

        #[test]
        fn entries_made_after_charges_count_as_well(rounds in proptest::collection::vec((1_usize..50, 0_usize..50), 1..20)) {
            let mut summary = Summary::default();
            let mut rows: Vec<(u64, Option<(Processor, i64)>)> = Vec::new();
            for (issue, charge) in rounds {
                for _ in 0..issue {
                    let ms = rows.len() as u64;
                    summary.issue(Timestamp::from_ms(ms));
                    rows.push((ms, None));
                }
                for at in 0..charge.min(rows.len()) {
                    if rows[at].1.is_none() {
                        summary.charge(Slot(u32::try_from(at).unwrap()), Processor::Default, Cents(7));
                        rows[at].1 = Some((Processor::Default, 7));
                    }
                }
                prop_assert_eq!(summary.window(Bounds::default()), naive(&rows, Bounds::default()));
            }
        }
    }

    #[test]
    fn a_compaction_keeps_entries_and_sums() {
        let mut summary = Summary::default();
        let slots: Vec<Slot> = (0..100).map(|ms| summary.issue(Timestamp::from_ms(ms))).collect();
        // Every third is charged, every seventh is in flight, the others are forgotten.
        for slot in slots.iter().step_by(3) {
            summary.charge(*slot, Processor::Fallback, Cents(i64::from(slot.0) + 1));
        }
        let kept: Vec<Slot> = slots.iter().copied().step_by(7).collect();
        let before: Vec<_> = (0..100).map(|ms| summary.window(to(ms))).collect();
        let moved = summary.compact(&kept);
        for slot in slots {
            let lives = slot.0 % 3 == 0 || slot.0 % 7 == 0;
            let time = moved.new_slot(slot).map(|slot| summary.requested_at(slot));
            assert_eq!(time, lives.then(|| Timestamp::from_ms(u64::from(slot.0))), "{slot:?}");
        }
        assert_eq!((0..100).map(|ms| summary.window(to(ms))).collect::<Vec<_>>(), before);
        // It goes on.
        let slot = summary.issue(Timestamp::from_ms(200));
        summary.charge(slot, Processor::Default, Cents(5));
        assert_eq!(summary.window(Bounds::default())[Processor::Default].cents, Cents(5));
        assert_eq!(summary.uncharged_len(), 10);
    }

    fn to(ms: u64) -> Bounds {
        Bounds { from: None, to: Some(Timestamp::from_ms(ms)) }
    }

    #[test]
    fn both_ends_are_inside_and_a_reversed_window_is_empty() {
        let mut summary = Summary::default();
        for ms in [10, 20, 30] {
            let slot = summary.issue(Timestamp::from_ms(ms));
            summary.charge(slot, Processor::Default, Cents(100));
        }
        let window = |from, to| {
            let bounds = Bounds { from: Some(Timestamp::from_ms(from)), to: Some(Timestamp::from_ms(to)) };
            summary.window(bounds)[Processor::Default].count
        };
        assert_eq!(window(10, 30), 3);
        assert_eq!(window(20, 20), 1);
        assert_eq!(window(11, 29), 1);
        assert_eq!(window(30, 10), 0);
    }

    #[test]
    fn a_row_adopted_from_a_processor_counts_under_its_own_time() {
        let mut summary = Summary::default();
        summary.issue(Timestamp::from_ms(50));
        summary.charge_foreign(Timestamp(20_000_500), Processor::Fallback, Cents(9), Ordinal(1));
        summary.charge_foreign(Timestamp(10_000), Processor::Fallback, Cents(5), Ordinal(2));
        let bounds = Bounds { from: Some(Timestamp(20_000_500)), to: None };
        assert_eq!(summary.window(bounds)[Processor::Fallback], Totals { count: 1, cents: Cents(9) });
        assert_eq!(summary.window(Bounds::default())[Processor::Fallback].cents, Cents(14));
    }
}
