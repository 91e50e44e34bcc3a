//! What the kernel has counted for one process: CPU time, time spent waiting for a core, switches.
//!
//! Read from `/proc/PID/task/*/schedstat` and `status` (proc(5)), thread by thread, because the files of the process
//! itself tell of its first thread alone. CPU time there is exact to the nanosecond, where `/proc/PID/stat` counts
//! ticks.
//!
//! A process that gives up its core of its own accord sleeps until something wakes it, so voluntary switches are
//! counted as wake-ups: the kernel counts those themselves only with `CONFIG_SCHEDSTATS`, which few builds have. A
//! thread that ends between two readings takes its counts with it; ours live as long as their process.

use crate::proc::field;
use anyhow::Context;
use std::fs;
use std::ops::{Add, Sub};

/// Sums over the threads of a process, since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Time on a core, in nanoseconds.
    pub cpu_ns: u64,
    /// Time ready to run while others had the cores, in nanoseconds.
    pub waited_ns: u64,
    /// Times that it went to sleep, and so was woken.
    pub wake_ups: u64,
    /// Times that it was taken off its core.
    pub preemptions: u64,
}

impl Counts {
    /// What a running process has used up to now.
    ///
    /// # Errors
    /// When there is no such process, or this kernel does not count.
    pub fn of_process(pid: i32) -> anyhow::Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let mut sum = Self::default();
        for task in fs::read_dir(&tasks).with_context(|| format!("there is no process {pid} any more"))? {
            let task = task?.path();
            let read = |name| fs::read_to_string(task.join(name));
            let counts = Self::parse(&read("status")?, &read("schedstat")?);
            sum = sum + counts.with_context(|| format!("{} does not tell its counts", task.display()))?;
        }
        Ok(sum)
    }

    fn parse(status: &str, schedstat: &str) -> Option<Self> {
        let mut times = schedstat.split_whitespace().map(str::parse);
        Some(Self {
            cpu_ns: times.next()?.ok()?,
            waited_ns: times.next()?.ok()?,
            wake_ups: field(status, "voluntary_ctxt_switches")?,
            preemptions: field(status, "nonvoluntary_ctxt_switches")?,
        })
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            waited_ns: self.waited_ns + other.waited_ns,
            wake_ups: self.wake_ups + other.wake_ups,
            preemptions: self.preemptions + other.preemptions,
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
            wake_ups: self.wake_ups.saturating_sub(before.wake_ups),
            preemptions: self.preemptions.saturating_sub(before.preemptions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let status = "Name:\tlb\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        let counts = Counts { cpu_ns: 7_000, waited_ns: 45_508, wake_ups: 150, preemptions: 545 };
        assert_eq!(Counts::parse(status, "7000 45508 9\n"), Some(counts));
        assert_eq!(Counts::parse("Name:\tlb\n", "7000 45508 9\n"), None);
        assert_eq!(counts + counts - counts, counts);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(Counts::of_process(pid).unwrap().cpu_ns > 0);
        assert!(Counts::of_process(-1).is_err());
    }
}
