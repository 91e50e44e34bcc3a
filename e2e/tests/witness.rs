//! Damage to what the real store has acknowledged is refused at the next start, however the store ended.

use crate::harness::system::{Setup, System};
use crate::harness::{fresh_id, pay, payment};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::path::Path;
use store::core::ledger::snapshot::{LoadError, Replay};
use store::core::record::Record;
use store::log::frame::{self, SEGMENT_HEADER_BYTES};
use store::log::recovery::{RecoveryError, recover};
use store::log::segment;

/// Takes no record.
struct Nothing;

impl Replay for Nothing {
    fn load(&mut self, _ledger: impl Read, _len: u64) -> Result<(), LoadError> {
        unreachable!("so short a log has no snapshot")
    }

    fn add(&mut self, _record: &Record) {}
}

/// Offset, length and count of records of each frame of the log.
fn frames(log_dir: &Path) -> Vec<(usize, usize, u32)> {
    let bytes = fs::read(segment::path(log_dir, 0)).expect("the log is there");
    let mut frames = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(frame) = frame::decode(&bytes[offset..], 0) {
        frames.push((offset, frame.bytes, frame.count));
        offset += frame.bytes;
    }
    frames
}

/// Flips a bit in the last byte of the last record that a witness calls durable: the log is refused. Behind the last witness
/// there may be records that were written between it and a kill, and may be cut.
fn assert_damage_is_refused(log_dir: &Path) {
    let frames = frames(log_dir);
    let witness = frames.iter().rposition(|(.., count)| *count == 0).expect("a witness");
    let (start, ..) = *frames[..witness].iter().rfind(|(.., count)| *count > 0).expect("a record");
    let path = segment::path(log_dir, 0);
    let mut bytes = fs::read(&path).expect("the log is there");
    let len = frame::decode(&bytes[start..], 0).expect("a frame").records.len();
    bytes[start + frame::FRAME_HEADER_BYTES + len - 1] ^= 1;
    fs::write(&path, bytes).expect("a file of ours");
    let recovered = recover(log_dir, &mut Nothing);
    assert!(matches!(recovered, Err(RecoveryError::Corrupt { .. })), "{recovered:?}");
}

fn system_with_a_payment(is_flushed: bool) -> System {
    let system = System::start_as(Setup { is_flushed, ..Setup::default() }, None);
    let answer = system.lb().connect().ask(&pay(payment(&fresh_id(), "19.90"))).expect("an answer");
    assert_eq!(answer.status, 202);
    system
}

#[test]
fn damage_to_the_last_acknowledged_payment_is_refused_after_an_orderly_end() {
    for is_flushed in [false, true] {
        let mut system = system_with_a_payment(is_flushed);
        system.store.signal(Signal::SIGTERM);
        system.store.wait();
        assert_damage_is_refused(&system.log_dir());
    }
}

#[test]
fn damage_to_the_last_acknowledged_payment_is_refused_after_a_kill_in_mode_always() {
    let mut system = system_with_a_payment(true);
    let log_dir = system.log_dir();
    system.until("the last frame is a witness", |_| {
        frames(&log_dir).last().is_some_and(|(.., count)| *count == 0)
    });
    system.store.kill();
    assert_damage_is_refused(&log_dir);
}
