//! What the log asks of the disk: witnesses of what was flushed, rotation without a wait, a start that flushes again, modes of
//! its files.

mod common;

use common::Trace;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use store::core::Room;
use store::core::ledger::Ledger;
use store::core::ledger::snapshot::{LoadError, Replay};
use store::core::record::Record;
use store::log::frame::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use store::log::recovery::{Image, RecoveryError, recover_segments};
use store::log::segment::SEGMENT_BYTES;
use store::log::snapshot::{self, Place};
use store::log::{Durability, Log, segment};
use tempfile::TempDir;
use wire::{Cents, PaymentId};

/// Grows so much before a snapshot is due that none is.
const NEVER: u64 = u64::MAX / 2;

/// Counts records.
#[derive(Default)]
struct Count(u64);

impl Replay for Count {
    fn load(&mut self, _: impl Read, _: u64) -> Result<(), LoadError> {
        Err(LoadError)
    }

    fn add(&mut self, _: &Record) {
        self.0 += 1;
    }
}

fn open(dir: &Path, durability: Durability) -> Log {
    Log::open(dir, durability, NEVER, &mut Count::default()).unwrap().0
}

fn encoded(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        Record::Accepted { id: PaymentId(u128::from(number)), cents: Cents(1990) }.encode(&mut bytes);
    }
    bytes
}

fn append(log: &mut Log, count: u32) {
    log.append(&encoded(u64::from(count)), count).unwrap();
}

/// The first segment without the zeros at its end, and its frames: where each begins, its length, its count of records.
fn first_segment(dir: &Path) -> (Image, Vec<(usize, usize, u32)>) {
    let path = segment::path(dir, 0);
    let mut bytes = fs::read(&path).unwrap();
    let mut frames = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(frame) = frame::decode(&bytes[offset..], 0) {
        frames.push((offset, frame.bytes, frame.count));
        offset += frame.bytes;
    }
    bytes.truncate(offset);
    (Image { number: 0, path, bytes }, frames)
}

/// How many records are read back; `None` when the log is refused as damaged.
fn records(image: &Image) -> Option<u64> {
    let mut count = Count::default();
    match recover_segments(None, [image.clone()].as_mut_slice(), &mut count) {
        Ok(_) => Some(count.0),
        Err(RecoveryError::Corrupt { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Flips each bit of the last frame that has records: refused. Flips each bit behind it: nothing is lost.
fn assert_last_group_has_a_witness(dir: &Path) {
    let (image, frames) = first_segment(dir);
    let all = frames.iter().map(|(_, _, count)| u64::from(*count)).sum::<u64>();
    let (start, len, _) = *frames.iter().rfind(|(_, _, count)| *count > 0).unwrap();
    for bit in start * 8..image.bytes.len() * 8 {
        let mut flipped = image.clone();
        flipped.bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = (bit / 8 >= start + len).then_some(all);
        assert_eq!(records(&flipped), expected, "bit {bit}, last group at byte {start}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_group_is_refused_after_an_orderly_end() {
    for durability in [Durability::Process, Durability::Always] {
        let dir = TempDir::new().unwrap();
        let mut log = open(dir.path(), durability);
        append(&mut log, 3);
        append(&mut log, 2);
        log.finish();
        drop(log);
        assert_last_group_has_a_witness(dir.path());
    }
}

#[test]
fn the_log_and_its_snapshots_are_for_their_owner_only() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Process);
    append(&mut log, 3);
    let place = Place { segment: 0, offset: 64, sequence: 0, chain: 0 };
    snapshot::write(dir.path(), place, &Ledger::new(1, [1, 2]).freeze()).unwrap();
    log.finish();
    drop(log);
    let modes = || {
        let files = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let named = files.filter(|file| file.file_name().to_str().unwrap() != "log.lock");
        let mode =
            |file: fs::DirEntry| format!("{:o}", file.metadata().unwrap().permissions().mode() & 0o777);
        named.map(mode).collect::<Vec<String>>()
    };
    assert!(modes().len() >= 2 && modes().iter().all(|mode| mode == "600"), "{:?}", modes());
    // Those of an earlier version were readable by all.
    for file in fs::read_dir(dir.path()).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    Log::open(dir.path(), Durability::Process, NEVER, &mut Ledger::new(1, [1, 2])).unwrap();
    assert!(modes().iter().all(|mode| mode == "600"), "{:?}", modes());
}

#[test]
fn the_deciding_thread_only_writes_while_the_log_goes_over_segments() {
    for durability in [Durability::Process, Durability::Always] {
        let dir = TempDir::new().unwrap();
        let mut log = open(dir.path(), durability);
        let Some(trace) = Trace::begin() else {
            println!("without strace: what the deciding thread asks of the system is not seen");
            return;
        };
        let large = encoded(40_000);
        while log.grown_bytes() < 3 * SEGMENT_BYTES {
            log.tend();
            if log.room() == Room::Ample {
                log.append(&large, 40_000).unwrap();
            } else {
                thread::yield_now();
            }
        }
        let calls = trace.end(dir.path());
        let others: Vec<_> = calls.iter().filter(|call| !call.starts_with("pwrite64(")).collect();
        assert!(calls.len() > 45 && others.is_empty(), "{durability:?}: {others:#?}");
    }
}

/// A log of three frames of two records each, of which the first is known to be flushed, as a crash leaves it.
fn write_log(dir: &Path) -> Vec<(u64, u64)> {
    let header = SegmentHeader { segment: 0, first_sequence: 1, chain: 0, created_ms: 0 };
    let mut bytes = header.encode().to_vec();
    let (mut chain, mut frames) = (0, Vec::new());
    for (sequence, durable) in [(1, 0), (3, 0), (5, 2)] {
        let start = bytes.len() as u64;
        chain = frame::encode(&mut bytes, 0, chain, sequence, durable, 2, &encoded(2));
        frames.push((start, bytes.len() as u64));
    }
    bytes.resize(usize::try_from(SEGMENT_BYTES).unwrap(), 0);
    fs::write(segment::path(dir, 0), bytes).unwrap();
    frames
}

/// The offset and the length of a `pwrite64` to this file.
fn written(call: &str, path: &str) -> Option<(u64, u64)> {
    let arguments = call.strip_prefix("pwrite64(").filter(|rest| rest.contains(path))?;
    let arguments = arguments.rsplit_once(')')?.0;
    let mut from_the_end = arguments.rsplit(", ");
    let offset = from_the_end.next()?.parse().ok()?;
    Some((offset, from_the_end.next()?.parse().ok()?))
}

#[test]
fn a_start_writes_and_flushes_again_what_is_not_known_to_be_flushed() {
    let dir = TempDir::new().unwrap();
    let frames = write_log(dir.path());
    let Some(trace) = Trace::begin() else {
        println!("without strace: what a start writes again is not seen");
        return;
    };
    let (log, _) = Log::open(dir.path(), Durability::Process, NEVER, &mut Count::default()).unwrap();
    let calls = trace.end(dir.path());
    drop(log);
    let path = segment::path(dir.path(), 0);
    let path = path.to_str().unwrap();
    let (from, to) = (frames[1].0, frames[2].1);
    let again = calls.iter().position(|call| {
        written(call, path).is_some_and(|(offset, len)| offset <= from && offset + len >= to)
    });
    let again = again.unwrap_or_else(|| panic!("bytes {from} to {to} are not written again: {calls:#?}"));
    let flush = |call: &String| call.starts_with("fdatasync(") || call.starts_with("fsync(");
    let flushed = calls[again..].iter().position(|call| flush(call) && call.contains(path));
    let folder = format!("<{}>", dir.path().to_str().unwrap());
    let folder_flushed = calls.iter().position(|call| call.starts_with("fsync(") && call.contains(&folder));
    assert!(flushed.is_some() && folder_flushed.is_some(), "{calls:#?}");
}

#[test]
fn a_start_writes_the_last_witness_again() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Process);
    append(&mut log, 3);
    log.finish();
    drop(log);
    let (image, frames) = first_segment(dir.path());
    let (start, len, count) = *frames.last().unwrap();
    assert_eq!((count, start + len), (0, image.bytes.len()));
    let Some(trace) = Trace::begin() else {
        println!("without strace: what a start writes again is not seen");
        return;
    };
    drop(open(dir.path(), Durability::Process));
    let calls = trace.end(dir.path());
    let is_again = |call: &String| {
        written(call, image.path.to_str().unwrap()).is_some_and(|(offset, bytes)| {
            offset <= start as u64 && offset + bytes >= image.bytes.len() as u64
        })
    };
    assert!(calls.iter().any(is_again), "{calls:#?}");
    assert_eq!(first_segment(dir.path()).1, frames, "a start adds no second witness");
}

#[test]
fn a_flipped_bit_in_the_last_flushed_group_is_refused_after_a_kill_in_mode_always() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Always);
    append(&mut log, 3);
    append(&mut log, 2);
    while log.durable() < log.appended() {
        thread::yield_now();
    }
    log.mark();
    let (_, frames) = first_segment(dir.path());
    // The file is as a killed process leaves it. Nothing more is written while nothing is appended.
    log.mark();
    assert_eq!(first_segment(dir.path()).1, frames);
    assert_last_group_has_a_witness(dir.path());
}

/// Three segments that were never flushed, of 16 frames of 40,000 records each.
fn unflushed_segments(dir: &Path) -> Vec<Image> {
    let mut images = Vec::new();
    let (mut chain, mut sequence) = (0, 1);
    for number in 0..3 {
        let header = SegmentHeader { segment: number, first_sequence: sequence, chain, created_ms: 0 };
        let mut bytes = header.encode().to_vec();
        for _ in 0..16 {
            chain = frame::encode(&mut bytes, number, chain, sequence, 0, 40_000, &encoded(40_000));
            sequence += 40_000;
        }
        bytes.resize(usize::try_from(SEGMENT_BYTES).unwrap(), 0);
        images.push(Image { number, path: segment::path(dir, number), bytes });
    }
    images
}

#[test]
fn a_tail_that_is_torn_over_segments_is_cut_and_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    for torn_at in
        [(0, 64 + 5_000_000), (0, 0), (1, 0), (1, 64), (1, 64 + 15_000_000), (2, 20), (2, 64 + 5_000_000)]
    {
        let mut images = unflushed_segments(dir.path());
        images[torn_at.0].bytes[torn_at.1] ^= 1;
        images.push(Image {
            number: 3,
            path: segment::path(dir.path(), 3),
            bytes: vec![0; usize::try_from(SEGMENT_BYTES).unwrap()],
        });
        for image in &images {
            fs::write(&image.path, &image.bytes).unwrap();
        }
        let mut count = Count::default();
        let opened = Log::open(dir.path(), Durability::Process, NEVER, &mut count);
        if torn_at == (0, 0) {
            assert!(opened.is_err(), "the first segment's header was flushed before its name was there");
            continue;
        }
        let (mut log, recovered) = opened.unwrap();
        let before = torn_at.0 as u64 * 16 + (torn_at.1.saturating_sub(64) / 1_000_048) as u64;
        assert_eq!((count.0, recovered.torn_bytes > 0), (before * 40_000, true), "{torn_at:?}");
        append(&mut log, 7);
        log.finish();
        drop(log);
        let mut again = Count::default();
        let (log, recovered) = Log::open(dir.path(), Durability::Process, NEVER, &mut again).unwrap();
        assert_eq!((again.0, recovered.torn_bytes), (count.0 + 7, 0), "{torn_at:?}");
        drop(log);
        for number in segment::list(dir.path()).unwrap() {
            fs::remove_file(segment::path(dir.path(), number)).unwrap();
        }
    }
}

#[test]
fn damage_is_refused_when_a_later_segment_says_that_it_was_durable() {
    let dir = TempDir::new().unwrap();
    let mut images = unflushed_segments(dir.path());
    let last = 2 * 16 * 40_000;
    let header = SegmentHeader { segment: 2, first_sequence: last + 1, chain: 0, created_ms: 0 };
    images[2].bytes = header.encode().to_vec();
    frame::encode(&mut images[2].bytes, 2, 0, last + 1, last, 1, &encoded(1));
    for damaged in [(0, 64 + 5_000_000), (1, 0), (1, 64 + 15_000_000)] {
        let mut images = images.clone();
        images[damaged.0].bytes[damaged.1] ^= 1;
        let error = recover_segments(None, images.as_mut_slice(), &mut Count::default()).unwrap_err();
        assert!(error.to_string().contains("says that this was durable"), "{error}");
    }
}

#[test]
fn a_start_gives_what_it_has_flushed_a_witness() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Process);
    append(&mut log, 3);
    append(&mut log, 2);
    // The log is as a killed process leaves it, and the start after that adds nothing else.
    drop(log);
    drop(open(dir.path(), Durability::Process));
    assert_last_group_has_a_witness(dir.path());
}
