//! A log as it was written, and then damaged: recovery refuses it, or gives back a prefix of what was written, with at least
//! what a later sound frame calls durable. Bytes that are a record are encoded to the same record again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::path::PathBuf;
use store::core::ledger::snapshot::{Replay, LoadError};
use store::core::record::Record;
use store::log::frame::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use store::log::recovery::{Image, RecoveryError, recover_segments};

#[derive(Default)]
struct Records(Vec<Record>);

impl Replay for Records {
    fn load(&mut self, _: impl Read, _: u64) -> Result<(), LoadError> {
        Err(LoadError)
    }

    fn add(&mut self, record: &Record) {
        self.0.push(*record);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[damages, per_frame, lag], mut rest)) = data.split_first_chunk::<3>() else { return };
    // Positions and bits of the damage, then the records.
    let (hits, records) = rest.split_at(rest.len().min(usize::from(damages % 8) * 3));
    rest = records;
    let mut written = Vec::new();
    while let Ok(record) = Record::decode(&mut rest) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&mut &bytes[..]).ok(), Some(record));
        written.push(record);
    }
    let (bytes, ends) = log(&written, usize::from(per_frame % 5) + 1, u64::from(lag));
    let mut damaged = bytes.clone();
    for hit in hits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([hit[0], hit[1]])) % damaged.len();
        match hit[2] {
            0 => damaged.truncate(at.max(SEGMENT_HEADER_BYTES)),
            bits => damaged[at] ^= bits,
        }
    }
    let image = Image { number: 0, path: PathBuf::from("log"), bytes: damaged.clone() };
    let mut found = Records::default();
    match recover_segments(None, &mut [image][..], &mut found) {
        Ok(_) => {
            assert!(written.starts_with(&found.0), "{} records are no prefix of {}", found.0.len(), written.len());
            if damaged == bytes {
                assert_eq!(found.0.len(), written.len());
            }
            let first_difference = bytes.iter().zip(&damaged).position(|(a, b)| a != b);
            let sound = first_difference.unwrap_or(bytes.len().min(damaged.len()));
            let sound_records = ends.iter().take_while(|(end, _)| *end <= sound).last().map_or(0, |(_, records)| *records);
            assert!(found.0.len() >= sound_records, "sound frames before the damage are kept");
        }
        Err(RecoveryError::Corrupt { .. } | RecoveryError::Version { .. }) => assert!(damaged != bytes),
        Err(error) => panic!("{error}"),
    }
});

/// A segment of these records, and for each frame where it ends and how many records there are by then.
fn log(records: &[Record], per_frame: usize, lag: u64) -> (Vec<u8>, Vec<(usize, usize)>) {
    let header = SegmentHeader { segment: 0, first_sequence: 1, chain: 0, created_ms: 0 };
    let mut bytes = header.encode().to_vec();
    let (mut chain, mut sequence, mut ends) = (0, 1, Vec::new());
    for group in records.chunks(per_frame) {
        let mut encoded = Vec::new();
        group.iter().for_each(|record| record.encode(&mut encoded));
        let count = u32::try_from(group.len()).expect("few");
        chain = frame::encode(&mut bytes, 0, chain, sequence, (sequence - 1).saturating_sub(lag), count, &encoded);
        sequence += u64::from(count);
        ends.push((bytes.len(), usize::try_from(sequence - 1).expect("few")));
    }
    (bytes, ends)
}
