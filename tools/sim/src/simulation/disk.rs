//! The store's disk: one segment of its log in memory, written with the real frames and read back by the real recovery,
//! and the last snapshot, with what lies before it made useless.
//!
//! A killed process leaves everything that it wrote. A power loss leaves what was flushed, and of the rest each frame
//! whole, torn, or not at all, in any combination.

use contest::chance::Chance;
use store::core::ledger::snapshot::{Frozen, Replay};
use store::log::frame::{self, SEGMENT_HEADER_BYTES, SegmentHeader, Sequence};
use store::log::recovery::{Image, RecoveryError, recover_segments};
use store::log::snapshot::Place;

/// A log on a disk that can fail.
#[derive(Clone, Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    /// Where each unflushed frame begins, and the last record of it.
    unflushed: Vec<(usize, Sequence)>,
    chain: u32,
    snapshot: Option<(Place, Vec<u8>)>,
    /// The last record that was written.
    pub written: Sequence,
    /// The last record that was flushed.
    pub durable: Sequence,
}

impl Default for Disk {
    fn default() -> Self {
        let header = SegmentHeader { segment: 0, first_sequence: 1, chain: 0, created_ms: 0 };
        let bytes = header.encode().to_vec();
        Self { bytes, unflushed: Vec::new(), chain: 0, snapshot: None, written: 0, durable: 0 }
    }
}

impl Disk {
    /// Writes the records of one turn.
    pub fn append(&mut self, records: &[u8], count: u32) {
        let start = self.bytes.len();
        let first = self.written + 1;
        self.chain = frame::encode(&mut self.bytes, 0, self.chain, first, self.durable, count, records);
        self.written += u64::from(count);
        self.unflushed.push((start, self.written));
    }

    /// A snapshot of everything written is on the disk, and the records before it may not be read.
    pub fn snapshot(&mut self, frozen: &Frozen) {
        let mut ledger = Vec::new();
        frozen.put(&mut ledger).expect("a vector takes everything");
        let offset = self.bytes.len() as u64;
        self.bytes[SEGMENT_HEADER_BYTES..].fill(0xaa);
        self.unflushed.clear();
        let place = Place { segment: 0, offset, sequence: self.written, chain: self.chain };
        self.snapshot = Some((place, ledger));
    }

    /// A flush that began when `target` was written has returned.
    pub fn flushed(&mut self, target: Sequence) {
        self.durable = self.durable.max(target);
        self.unflushed.retain(|(_, last)| *last > target);
    }

    /// The power fails: what was not flushed is kept, torn or lost, frame by frame.
    pub fn lose_power(&mut self, chance: &mut Chance) {
        let ends: Vec<usize> =
            self.unflushed.iter().skip(1).map(|(start, _)| *start).chain([self.bytes.len()]).collect();
        for ((start, _), end) in self.unflushed.iter().zip(ends) {
            let kept = match chance.between(0, 3) {
                0 => end,
                1 => *start,
                _ => usize::try_from(chance.between(*start as u64, end as u64)).expect("inside the frame"),
            };
            self.bytes[kept..end].fill(0);
        }
    }

    /// What a starting store does: reads everything back and clears the tail.
    ///
    /// # Errors
    /// When the log is refused.
    pub fn recover(&mut self, fold: &mut impl Replay) -> Result<(), RecoveryError> {
        let image = Image { number: 0, path: "simulated".into(), bytes: self.bytes.clone() };
        if let Some((_, ledger)) = &self.snapshot {
            fold.load(&ledger[..], ledger.len() as u64).expect("it was written by this version");
        }
        let place = self.snapshot.as_ref().map(|(place, _)| *place);
        let end = recover_segments(place, [image].as_mut_slice(), fold)?.end;
        self.bytes.truncate(usize::try_from(end.offset).expect("a small log"));
        self.unflushed.clear();
        (self.chain, self.written, self.durable) = (end.chain, end.sequence, end.sequence);
        Ok(())
    }
}
