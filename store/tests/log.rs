//! The log on a real disk: what was appended is read back, what is cut is a prefix, what is damaged is never wrong.

use std::fs;
use std::path::Path;
use store::core::queue::Ordinal;
use store::core::record::Record;
use store::inspect;
use store::log::recovery::{Image, Recovered, RecoveryError, recover, recover_images};
use store::log::{Durability, Log, segment};
use tempfile::TempDir;
use wire::{Cents, PaymentId};

fn accepted(number: u64) -> Record {
    Record::Accepted { id: PaymentId(u128::from(number) << 64 | 7), cents: Cents(1990) }
}

/// Appends frames of one to three records until `bytes` of records are in the log.
fn append_until(log: &mut Log, bytes: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut written = 0;
    while written < bytes {
        let mut encoded = Vec::new();
        let count = records.len() % 3 + 1;
        for _ in 0..count {
            let record = accepted(records.len() as u64);
            record.encode(&mut encoded);
            records.push(record);
        }
        log.append(&encoded, u32::try_from(count).unwrap()).unwrap();
        written += encoded.len();
    }
    records
}

fn read_back(dir: &Path) -> Result<(Vec<Record>, Recovered), RecoveryError> {
    let mut records = Vec::new();
    let recovered = recover(dir, |record| records.push(*record))?;
    Ok((records, recovered))
}

fn is_prefix(found: &[Record], all: &[Record]) -> bool {
    all.starts_with(found)
}

#[test]
fn what_was_appended_is_there_after_an_end_without_notice() {
    for durability in [Durability::Process, Durability::Always] {
        let dir = TempDir::new().unwrap();
        let (mut log, _) = Log::open(dir.path(), durability, |_| ()).unwrap();
        let records = append_until(&mut log, 10_000);
        // The file is as a killed process leaves it: nothing is closed or flushed on purpose.
        let (found, recovered) = read_back(dir.path()).unwrap();
        assert!(found == records);
        assert_eq!(recovered.sequence, records.len() as u64);
        assert_eq!(recovered.torn_bytes, 0);
    }
}

#[test]
fn a_log_goes_on_where_it_ended_and_over_segments() {
    let dir = TempDir::new().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut replayed = Vec::new();
        let (mut log, _) =
            Log::open(dir.path(), Durability::Process, |record| replayed.push(*record)).unwrap();
        assert!(replayed == all);
        let first = all.len();
        let large: Vec<Record> = (0..40_000).map(|number| accepted((first + number) as u64)).collect();
        for frame in large.chunks(4_000) {
            let mut encoded = Vec::new();
            frame.iter().for_each(|record| record.encode(&mut encoded));
            for _ in 0..7 {
                all.extend_from_slice(frame);
                log.append(&encoded, 4_000).unwrap();
            }
        }
    }
    assert!(segment::list(dir.path()).unwrap().len() > 1, "this log spans segments");
    let (found, _) = read_back(dir.path()).unwrap();
    assert_eq!(found.len(), all.len());
    assert!(found == all);
}

#[test]
fn a_second_store_on_the_same_log_is_refused() {
    let dir = TempDir::new().unwrap();
    let _first = Log::open(dir.path(), Durability::Process, |_| ()).unwrap();
    let second = Log::open(dir.path(), Durability::Process, |_| ()).unwrap_err();
    assert!(second.to_string().contains("held by another process"), "{second}");
}

/// A log of `bytes` of records as one image, cut behind its last frame.
fn image(bytes: usize) -> (Vec<Record>, Image) {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(dir.path(), Durability::Process, |_| ()).unwrap();
    let records = append_until(&mut log, bytes);
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let (_, end) = read_back(dir.path()).unwrap().1.end.unwrap();
    bytes.truncate(usize::try_from(end).unwrap());
    (records, Image { number: 0, path, bytes })
}

fn recover_one(image: &Image) -> Result<Vec<Record>, RecoveryError> {
    let mut found = Vec::new();
    recover_images(std::iter::once(Ok(image.clone())), |record| found.push(*record))?;
    Ok(found)
}

#[test]
fn a_log_cut_at_any_byte_is_a_prefix() {
    let (records, whole) = image(3_000);
    assert!(recover_one(&whole).unwrap() == records);
    for len in 64..whole.bytes.len() {
        for fill in [None, Some(0_u8), Some(0xff)] {
            let mut bytes = whole.bytes[..len].to_vec();
            bytes.resize(fill.map_or(len, |_| whole.bytes.len()), fill.unwrap_or(0));
            let cut = Image { bytes, ..whole.clone() };
            let found = recover_one(&cut).unwrap_or_else(|error| panic!("cut at {len}: {error}"));
            assert!(is_prefix(&found, &records), "cut at {len}");
        }
    }
}

#[test]
fn any_flipped_bit_is_a_prefix_or_a_refusal() {
    let (records, mut whole) = image(1_500);
    let mut refusals = 0;
    for bit in 0..whole.bytes.len() * 8 {
        whole.bytes[bit / 8] ^= 1 << (bit % 8);
        match recover_one(&whole) {
            Ok(found) => assert!(is_prefix(&found, &records) && found.len() < records.len(), "bit {bit}"),
            Err(RecoveryError::Corrupt { .. }) => refusals += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
        whole.bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refusals >= 64 * 8, "a damaged header is always refused");
}

#[test]
fn damage_before_what_was_durable_is_refused() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(dir.path(), Durability::Always, |_| ()).unwrap();
    let mut encoded = Vec::new();
    Record::Died { ordinal: Ordinal(3) }.encode(&mut encoded);
    for _ in 0..5 {
        log.append(&encoded, 1).unwrap();
        log.finish();
    }
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    // Frames of 48 bytes follow the header of 64; the third is damaged, and the fifth says that the fourth was durable.
    bytes[64 + 2 * 48 + 41] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = read_back(dir.path()).unwrap_err();
    assert!(matches!(&error, RecoveryError::Corrupt { offset: 160, .. }), "{error}");
    drop(log);
    let refused = Log::open(dir.path(), Durability::Always, |_| ()).unwrap_err();
    assert!(refused.to_string().contains("restore") || refused.to_string().contains("Restore"), "{refused}");
}

#[test]
fn check_and_dump_tell_what_is_in_a_log_and_whether_it_is_sound() {
    let dir = TempDir::new().unwrap();
    let (mut log, _) = Log::open(dir.path(), Durability::Process, |_| ()).unwrap();
    let records = append_until(&mut log, 2_000);
    let said = inspect::check(dir.path()).unwrap();
    assert!(
        said.contains("sound") && said.contains(&format!("accepted           {} payments", records.len())),
        "{said}"
    );
    let mut dumped = Vec::new();
    inspect::dump(dir.path(), &mut dumped).unwrap();
    assert_eq!(String::from_utf8(dumped).unwrap().lines().count(), records.len());
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = inspect::check(dir.path()).unwrap_err();
    assert!(error.to_string().contains("header is broken"), "{error}");
}

#[test]
fn a_missing_segment_and_a_foreign_version_are_refused() {
    let (_, first) = image(500);
    let later = Image { number: 2, ..first.clone() };
    let error = recover_images([Ok(first.clone()), Ok(later)].into_iter(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("segment 1 is missing"), "{error}");
    let mut foreign = first;
    foreign.bytes[8] = 9;
    let crc = crc32fast::hash(&foreign.bytes[..60]);
    foreign.bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let error = recover_one(&foreign).unwrap_err();
    assert!(matches!(error, RecoveryError::Version { found: 9, .. }), "{error}");
}
