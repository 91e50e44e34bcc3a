//! What a process and all its descendants have used: time of the processors, and memory. Read from `/proc`, so that
//! nginx's workers count as much as a store's threads.
//!
//! Times are whole ticks of 10 ms in each process; over a second of work that is an error of a percent.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::ops::{Add, Sub};

/// A tick of `/proc/PID/stat`: USER_HZ is 100 in the interface of every Linux that we run on, whatever the kernel's own.
const TICK_US: u64 = 10_000;

/// Time of the processors, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the process's own code.
    pub user_us: u64,
    /// In the kernel on its behalf.
    pub system_us: u64,
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
            let own = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(unreadable)?;
            all = all + own;
        }
        Ok(all)
    }

    /// Of the thread that asks.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_this_thread() -> io::Result<Self> {
        let used = getrusage(UsageWho::RUSAGE_THREAD)?;
        let us = |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
        Ok(Self { user_us: us(used.user_time()), system_us: us(used.system_time()) })
    }

    /// Both together.
    #[must_use]
    pub fn total_us(self) -> u64 {
        self.user_us + self.system_us
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { user_us: self.user_us + other.user_us, system_us: self.system_us + other.system_us }
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
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
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
            all.rss_kib += kib(&rollup, "Rss:").ok_or_else(unreadable)?;
            all.pss_kib += kib(&rollup, "Pss:").ok_or_else(unreadable)?;
            all.peak_kib += kib(&status, "VmHWM:").ok_or_else(unreadable)?;
        }
        Ok(all)
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc says it in another way than expected")
}

/// A process and its descendants. Whoever ends meanwhile is left out.
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
fn parse_stat(stat: &str) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Usage { user_us: ticks(11)? * TICK_US, system_us: ticks(12)? * TICK_US })
}

fn kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 130 0 0 20 0 1 0 12345 1000 100 1844";
        assert_eq!(parse_stat(stat), Some(Usage { user_us: 2_500_000, system_us: 1_300_000 }));
        assert_eq!(parse_stat("42 (short) S 1"), None);
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "VmPeak:\t  9000 kB\nVmHWM:\t    1234 kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(1_234));
        assert_eq!(kib(status, "VmRSS:"), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let memory = Memory::of(Pid::this()).unwrap();
        assert!(memory.pss_kib > 0 && memory.pss_kib <= memory.rss_kib);
        assert!(Usage::of(Pid::this()).is_ok());
        assert!(Usage::of(Pid::from_raw(i32::MAX)).is_err());
    }
}
