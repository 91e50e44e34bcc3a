//! What a process and all its descendants have used: time of the processors, and memory, so that nginx's workers count as
//! much as a store's threads.
//!
//! The time is that of the process's own clock, in nanoseconds. How much of it was in the kernel is a guess: which of both
//! the kernel's tick met, and whole ticks of 10 ms in each process.

use crate::proc::field;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::ClockId;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::ops::{Add, Sub};

/// A tick of `/proc/PID/stat`: USER_HZ is 100 in the interface of every Linux that we run on, whatever the kernel's own.
const TICK_US: u64 = 10_000;

/// Time of the processors, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the process's own code and in the kernel on its behalf.
    pub total_us: u64,
    /// In the process's own code, by the kernel's tick.
    pub user_us: u64,
}

/// Memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub rss_kib: u64,
    /// Resident, pages that processes share counted in parts.
    pub pss_kib: u64,
    /// The most that was ever resident.
    pub peak_kib: u64,
}

impl Usage {
    /// Of a process and its descendants so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let mut all = Self::default();
        for pid in family(pid) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let total = ClockId::pid_cpu_clock_id(pid)?.now()?;
            let user_us = parse_user_us(&stat).ok_or_else(unreadable)?;
            all = all + Self { total_us: as_us(total.num_microseconds()), user_us };
        }
        Ok(all)
    }

    /// Of the thread that asks.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_this_thread() -> io::Result<Self> {
        let used = getrusage(UsageWho::RUSAGE_THREAD)?;
        let (user, system) = (used.user_time(), used.system_time());
        Ok(Self {
            total_us: as_us((user + system).num_microseconds()),
            user_us: as_us(user.num_microseconds()),
        })
    }

    /// In the kernel on its behalf.
    #[must_use]
    pub fn system_us(self) -> u64 {
        // The two clocks do not agree to the tick.
        self.total_us.saturating_sub(self.user_us)
    }
}

fn as_us(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0)
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { total_us: self.total_us + other.total_us, user_us: self.user_us + other.user_us }
    }
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib + other.rss_kib,
            pss_kib: self.pss_kib + other.pss_kib,
            peak_kib: self.peak_kib + other.peak_kib,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            total_us: self.total_us.saturating_sub(earlier.total_us),
            user_us: self.user_us.saturating_sub(earlier.user_us),
        }
    }
}

impl Memory {
    /// Of a process and its descendants now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let mut all = Self::default();
        for pid in family(pid) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            all.rss_kib += field(&rollup, "Rss").ok_or_else(unreadable)?;
            all.pss_kib += field(&rollup, "Pss").ok_or_else(unreadable)?;
            all.peak_kib += field(&status, "VmHWM").ok_or_else(unreadable)?;
        }
        Ok(all)
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc says it in another way than expected")
}

/// A process and its descendants. A process that ends meanwhile is left out.
fn family(pid: Pid) -> Vec<Pid> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", all[at])).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|text| text.parse().ok()).map(Pid::from_raw));
        at += 1;
    }
    all
}

/// The name in the second field may hold anything, brackets too: what counts begins after the last one.
fn parse_user_us(stat: &str) -> Option<u64> {
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()?;
    Some(ticks * TICK_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 130 0 0 20 0 1 0 12345 1000 100 1844";
        assert_eq!(parse_user_us(stat), Some(2_500_000));
        assert_eq!(parse_user_us("42 (short) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let memory = Memory::of(Pid::this()).unwrap();
        assert!(memory.pss_kib > 0 && memory.pss_kib <= memory.rss_kib);
        let before = Usage::of(Pid::this()).unwrap();
        let thread_before = Usage::of_this_thread().unwrap();
        while (Usage::of_this_thread().unwrap() - thread_before).total_us < 1_000 {}
        assert!((Usage::of(Pid::this()).unwrap() - before).total_us >= 1_000, "a millisecond is seen");
        assert!(Usage::of(Pid::from_raw(i32::MAX)).is_err());
    }
}
