//! The machine that a figure was taken on: without it a figure says nothing.

use serde::Serialize;
use std::fmt;
use std::fs;
use std::num::NonZero;
use std::thread;
use wire::Timestamp;

/// What there is to say about this machine, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The name of its processor.
    pub cpu: String,
    /// How many of its cores this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// When it was asked.
    pub at: String,
    /// Processes that wanted a core on average during the last minute: above the number of cores, other programs run as well.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: model(&read("/proc/cpuinfo")).unwrap_or_else(|| "unknown processor".into()),
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            at: Timestamp::now().to_string(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, at, load } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}, load {load} at {at}")
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_the_kernel_names_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)   Processor @ 2.10GHz\nflags\t: fpu\n";
        assert_eq!(model(cpuinfo).as_deref(), Some("Intel(R) Xeon(R) Processor @ 2.10GHz"));
        assert_eq!(model("processor\t: 0\n"), None);
    }
}
