//! The log on a real disk: what was appended is read back, what is cut is a prefix, what is damaged is never wrong.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use store::core::Room;
use store::core::ledger::Ledger;
use store::core::ledger::snapshot::{LoadError, Replay};
use store::core::queue::Ordinal;
use store::core::record::{Record, Terms};
use store::inspect;
use store::log::recovery::{Image, Recovered, RecoveryError, recover, recover_segments};
use store::log::snapshot::{self, Place};
use store::log::{Durability, Log, segment};
use tempfile::TempDir;
use wire::{Cents, PaymentId, Processor};

/// Grows so much before a snapshot is due that none is.
const NEVER: u64 = u64::MAX / 2;

/// Every record, and nothing else.
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

fn open(dir: &Path, durability: Durability) -> Log {
    Log::open(dir, durability, NEVER, &mut Records::default()).unwrap().0
}

fn accepted(number: u64) -> Record {
    Record::Accepted { id: PaymentId(u128::from(number) << 64 | 7), cents: Cents(1990) }
}

/// Appends frames of one to a hundred records until `bytes` of records are in the log.
fn append_until(log: &mut Log, bytes: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut written = 0;
    while written < bytes {
        let mut encoded = Vec::new();
        let count = records.len() % 100 + 1;
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
    let mut records = Records::default();
    let recovered = recover(dir, &mut records)?;
    Ok((records.0, recovered))
}

#[test]
fn appended_records_are_there_after_a_sudden_end() {
    for durability in [Durability::Process, Durability::Always] {
        let dir = TempDir::new().unwrap();
        let mut log = open(dir.path(), durability);
        let records = append_until(&mut log, 10_000);
        // The file is as a killed process leaves it: nothing is closed or flushed on purpose.
        let (found, recovered) = read_back(dir.path()).unwrap();
        assert!(found == records);
        assert_eq!(recovered.end.sequence, records.len() as u64);
        assert_eq!(recovered.torn_bytes, 0);
    }
}

#[test]
fn a_log_goes_on_where_it_ended_and_over_segments() {
    let dir = TempDir::new().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut replayed = Records::default();
        let (mut log, _) = Log::open(dir.path(), Durability::Process, NEVER, &mut replayed).unwrap();
        assert!(replayed.0 == all);
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
    let _first = open(dir.path(), Durability::Process);
    let second = Log::open(dir.path(), Durability::Process, NEVER, &mut Records::default()).unwrap_err();
    assert!(second.to_string().contains("held by another process"), "{second}");
}

/// A log of `bytes` of records as one image, cut behind its last frame.
fn image(bytes: usize) -> (Vec<Record>, Image) {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Process);
    let records = append_until(&mut log, bytes);
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let end = read_back(dir.path()).unwrap().1.end.offset;
    bytes.truncate(usize::try_from(end).unwrap());
    (records, Image { number: 0, path, bytes })
}

fn recover_one(image: &Image) -> Result<Vec<Record>, RecoveryError> {
    let mut found = Records::default();
    recover_segments(None, [image.clone()].as_mut_slice(), &mut found)?;
    Ok(found.0)
}

/// Compares what is read with what was written, record by record.
struct Prefix<'a> {
    of: &'a [Record],
    len: usize,
}

impl Replay for Prefix<'_> {
    fn load(&mut self, _: impl Read, _: u64) -> Result<(), LoadError> {
        Err(LoadError)
    }

    fn add(&mut self, record: &Record) {
        assert_eq!(Some(record), self.of.get(self.len), "record {}", self.len);
        self.len += 1;
    }
}

/// How many of `records` are read back from `image`; `None` when it is refused as damaged. What comes before `place` is as
/// it was written, and is not read again.
fn prefix_len(records: &[Record], image: Image, place: Option<Place>) -> Option<usize> {
    let len = usize::try_from(place.map_or(0, |place| place.sequence)).unwrap();
    let mut prefix = Prefix { of: records, len };
    match recover_segments(place, [image].as_mut_slice(), &mut prefix) {
        Ok(_) => Some(prefix.len),
        Err(RecoveryError::Corrupt { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Where each frame of `image` begins.
fn places(image: &Image) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for len in (64..=image.bytes.len()).step_by(8) {
        let cut = Image { bytes: image.bytes[..len].to_vec(), ..image.clone() };
        let end = recover_segments(None, [cut].as_mut_slice(), &mut Records::default()).unwrap().end;
        if places.last() != Some(&end) {
            places.push(end);
        }
    }
    places
}

/// Does `work` for each number below `end`, on all cores, and sums what it gives.
fn on_all_cores(end: usize, work: impl Fn(usize) -> usize + Sync) -> usize {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let work = &work;
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || (part..end).step_by(threads).map(work).sum::<usize>()))
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    })
}

/// The log that is cut and damaged below: 64 KiB.
const LOG_BYTES: usize = 64 << 10;

#[test]
fn a_log_of_64_kib_cut_at_any_byte_is_a_prefix() {
    let (records, whole) = image(LOG_BYTES);
    assert_eq!(prefix_len(&records, whole.clone(), None), Some(records.len()));
    on_all_cores(whole.bytes.len() - 64, |at| {
        let len = 64 + at;
        let fill = [None, Some(0_u8), Some(0xff)][len % 3];
        let mut bytes = whole.bytes[..len].to_vec();
        bytes.resize(fill.map_or(len, |_| whole.bytes.len()), fill.unwrap_or(0));
        let cut = Image { number: 0, path: whole.path.clone(), bytes };
        assert!(prefix_len(&records, cut, None).is_some(), "cut at {len}: what is torn is no damage");
        0
    });
}

#[test]
fn any_flipped_bit_of_a_log_of_64_kib_is_a_prefix_or_a_refusal() {
    let (records, whole) = image(LOG_BYTES);
    let places = places(&whole);
    let refusals = on_all_cores(whole.bytes.len() * 8, |bit| {
        let mut bytes = whole.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = Image { number: 0, path: whole.path.clone(), bytes };
        let before = places.iter().rfind(|place| place.offset <= (bit / 8) as u64).copied();
        match prefix_len(&records, flipped, before) {
            Some(len) => {
                assert!(len < records.len(), "bit {bit} was not noticed");
                0
            }
            None => 1,
        }
    });
    assert!(refusals >= 64 * 8, "a damaged header is always refused");
}

#[test]
fn damage_before_what_was_durable_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Always);
    let mut encoded = Vec::new();
    Record::Died { ordinal: Ordinal(3) }.encode(&mut encoded);
    for _ in 0..5 {
        log.append(&encoded, 1).unwrap();
        log.finish();
    }
    let path = segment::path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    // Behind the header of 64 bytes, each frame of 48 is followed by one of 40 that calls it durable; the third is damaged.
    let third = 64 + 2 * (48 + 40);
    bytes[third + 41] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = read_back(dir.path()).unwrap_err();
    assert!(matches!(&error, RecoveryError::Corrupt { offset: 240, .. }), "{error}");
    drop(log);
    let refused = Log::open(dir.path(), Durability::Always, NEVER, &mut Records::default()).unwrap_err();
    assert!(refused.to_string().contains("restore") || refused.to_string().contains("Restore"), "{refused}");
}

#[test]
fn check_and_dump_tell_what_is_in_a_log_and_whether_it_is_sound() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), Durability::Process);
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

/// A ledger that is told everything that the log is told.
struct Twin {
    ledger: Ledger,
    log: Log,
}

impl Twin {
    fn open(dir: &Path, snapshot_log_bytes: u64) -> Self {
        let mut ledger = Ledger::new(1_000_000, [1, 2]);
        let (log, _) = Log::open(dir, Durability::Process, snapshot_log_bytes, &mut ledger).unwrap();
        Self { ledger, log }
    }

    /// One turn: `count` payments are accepted, and every second one that is still queued is charged.
    fn turn(&mut self, count: u64) {
        let mut records = Vec::new();
        for number in 0..count {
            records.push(accepted(self.ledger.len() as u64));
            self.ledger.apply(&records[records.len() - 1]);
            if number % 2 == 0 {
                let ordinal = self.ledger.queue.first_free().unwrap();
                let (intended, _) = self.ledger.intend(ordinal, Processor::Default, self.ledger.len() as u64);
                self.ledger.apply(&intended);
                let charged = Record::Charged { ordinal, processor: Processor::Default, terms: Terms::Ours };
                self.ledger.apply(&charged);
                records.extend([intended, charged]);
            }
        }
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        self.log.append(&bytes, u32::try_from(records.len()).unwrap()).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.ledger.freeze().put(&mut bytes).unwrap();
        bytes
    }
}

fn bytes_read_from(dir: &Path) -> Result<Vec<u8>, RecoveryError> {
    let mut ledger = Ledger::new(1_000_000, [1, 2]);
    recover(dir, &mut ledger)?;
    let mut bytes = Vec::new();
    ledger.freeze().put(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn snapshots_keep_the_log_short_and_what_it_says_the_same() {
    let dir = TempDir::new().unwrap();
    let mut twin = Twin::open(dir.path(), 1 << 20);
    while twin.log.snapshots() < 3 {
        twin.turn(1_000);
        twin.log.tend();
        if twin.log.is_snapshot_due(twin.ledger.len()) {
            twin.log.snapshot(twin.ledger.freeze());
        }
    }
    assert_eq!(snapshot::list(dir.path()).unwrap().len(), 1, "older snapshots are removed");
    assert!(twin.log.grown_bytes() < 3 * (1 << 20) + twin.ledger.len() as u64 * 200);
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
    let said = inspect::check(dir.path()).unwrap();
    assert!(said.contains(&format!("accepted           {} payments", twin.ledger.len())), "{said}");
    let mut dumped = Vec::new();
    inspect::dump(dir.path(), &mut dumped).unwrap();
    assert!(String::from_utf8(dumped).unwrap().contains("snapshot #0 "));
    let before = twin.bytes();
    drop(twin);
    // It goes on behind the snapshot, and is read again.
    let mut twin = Twin::open(dir.path(), NEVER);
    assert!(twin.bytes() == before);
    twin.turn(10);
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
}

#[test]
fn a_crash_at_any_step_of_a_snapshot_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let mut twin = Twin::open(dir.path(), NEVER);
    while twin.log.grown_bytes() < segment::SEGMENT_BYTES {
        twin.turn(10_000);
    }
    twin.turn(10);
    let mut place = recover(dir.path(), &mut Records::default()).unwrap().end;
    let whole = twin.bytes();
    // Written, not renamed: another name is not looked at.
    fs::write(dir.path().join("snapshot.tmp"), b"half of it").unwrap();
    assert!(bytes_read_from(dir.path()).unwrap() == whole);
    // Renamed, nothing removed.
    snapshot::write(dir.path(), place, &twin.ledger.freeze()).unwrap();
    assert!(bytes_read_from(dir.path()).unwrap() == whole);
    // A later one, and the older one still there.
    twin.turn(10);
    place = Place {
        segment: place.segment,
        ..recover(dir.path(), &mut Ledger::new(1_000_000, [1, 2])).unwrap().end
    };
    snapshot::write(dir.path(), place, &twin.ledger.freeze()).unwrap();
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
    // Removed half, removed all.
    fs::remove_file(segment::path(dir.path(), 0)).unwrap();
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
    snapshot::prune(dir.path(), place).unwrap();
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
    assert_eq!(snapshot::list(dir.path()).unwrap(), [place.sequence]);
    // Without what it rests on, or damaged, it is refused.
    let rest = segment::path(dir.path(), place.segment);
    fs::rename(&rest, dir.path().join("away")).unwrap();
    let error = bytes_read_from(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    fs::rename(dir.path().join("away"), &rest).unwrap();
    let path = snapshot::path(dir.path(), place.sequence);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = bytes_read_from(dir.path()).unwrap_err();
    assert!(error.to_string().contains("its ledger is damaged"), "{error}");
}

#[test]
fn a_full_disk_first_costs_new_payments_then_the_pace_and_is_over_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    drop(Twin::open(dir.path(), NEVER));
    // No next segment is there, and where it is prepared stands something that no file can replace.
    let _ = fs::remove_file(segment::path(dir.path(), 1));
    let obstacle = dir.path().join("next.tmp");
    fs::create_dir(&obstacle).unwrap();
    let mut twin = Twin::open(dir.path(), NEVER);
    let tend_until = |twin: &mut Twin, room: Room| {
        while twin.log.room() != room {
            twin.log.tend();
            thread::yield_now();
        }
    };
    while twin.log.grown_bytes() < segment::SEGMENT_BYTES / 2 {
        twin.turn(1_000);
    }
    tend_until(&mut twin, Room::NoAccepts);
    // It is tried again each second, and a try is no room.
    let tried_until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < tried_until {
        twin.log.tend();
        assert_eq!(twin.log.room(), Room::NoAccepts);
        thread::yield_now();
    }
    while twin.log.grown_bytes() < segment::SEGMENT_BYTES - (1 << 20) {
        twin.turn(100);
    }
    tend_until(&mut twin, Room::NoIntents);
    let bytes = twin.bytes();
    drop(twin);
    let mut twin = Twin::open(dir.path(), NEVER);
    assert_eq!(twin.log.room(), Room::NoIntents, "a start promises nothing either");
    assert!(twin.bytes() == bytes);
    fs::remove_dir(&obstacle).unwrap();
    tend_until(&mut twin, Room::Ample);
    assert!(bytes_read_from(dir.path()).unwrap() == twin.bytes());
}

#[test]
fn a_missing_segment_and_a_foreign_version_are_refused() {
    let (_, first) = image(500);
    let later = Image { number: 2, ..first.clone() };
    let error =
        recover_segments(None, [first.clone(), later].as_mut_slice(), &mut Records::default()).unwrap_err();
    assert!(error.to_string().contains("segment 1 is missing"), "{error}");
    let mut foreign = first;
    foreign.bytes[8] = 9;
    let crc = crc32fast::hash(&foreign.bytes[..60]);
    foreign.bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let error = recover_one(&foreign).unwrap_err();
    assert!(matches!(error, RecoveryError::Version { found: 9, .. }), "{error}");
}
