//! What was learned of each process: one table of what a payment costs, one of system calls, one of functions.
//!
//! They are Markdown, so that they can be put into a document as they are. Everything is counted per payment that was
//! accepted, by whichever process, so the lines of two apis add up to what apis cost.

use super::counts::Counts;
use super::load::Work;
use super::stacks::{Function, Stacks};
use std::collections::BTreeMap;
use std::fmt;

/// Functions of each process that are listed; all of them are in the folded stacks.
const FUNCTIONS_SHOWN_MAX: usize = 15;

/// System calls of each process that are listed.
const CALLS_SHOWN_MAX: usize = 8;

/// Characters of a function's name that are shown, from its end, which tells the most.
const NAME_CHARS_MAX: usize = 90;

/// One process, looked at three times under the same load.
#[derive(Clone, Debug)]
pub struct Profile {
    /// How the process is called.
    pub name: String,
    /// What it used while nothing looked at it but the kernel.
    pub used: Counts,
    /// What perf sampled.
    pub stacks: Stacks,
    /// How often it made each system call; `None` when they cannot be counted.
    pub calls: Option<BTreeMap<String, u64>>,
}

/// Everything that is printed.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the load was.
    pub load: String,
    /// How the balancer passes clients on, and whether in containers.
    pub stack: String,
    /// Whether samples tell the kernel's functions from ours.
    pub sees_kernel: bool,
    /// What was not as good as it could be.
    pub reservations: Vec<&'static str>,
    /// What was done while counts were taken.
    pub counted: Work,
    /// What was done while samples were taken.
    pub recorded: Work,
    /// What was done while system calls were counted.
    pub called: Option<Work>,
    /// The processes.
    pub profiles: Vec<Profile>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Work { accepted, failed, took, latency } = self.counted;
        writeln!(f, "ProfileLoad: {}; {}.", self.load, self.stack)?;
        writeln!(
            f,
            "Counted over {:.0} s: {accepted} accepted, {failed} failed, p50 {:.2} ms, p99 {:.2} ms. \
             Sampled over {:.0} s: {} accepted.",
            took.as_secs_f64(),
            latency.p50_ms,
            latency.p99_ms,
            self.recorded.took.as_secs_f64(),
            self.recorded.accepted
        )?;
        for reservation in &self.reservations {
            writeln!(f, "Note: {reservation}.")?;
        }
        self.write_costs(f)?;
        self.write_calls(f)?;
        self.profiles.iter().try_for_each(|profile| write_functions(f, profile))
    }
}

impl Report {
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| per accepted payment | CPU us | of it in the kernel | waiting for a core, us | wake-ups | preemptions | \
             system calls |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        let per = |count: u64| ratio(count, self.counted.accepted);
        let calls_of = |profile: &Profile| profile.calls.as_ref().map(|calls| calls.values().sum::<u64>());
        let mut row = |name: &str, used: Counts, kernel: f64, calls: Option<u64>| {
            let kernel = if self.sees_kernel { format!("{kernel:.0} %") } else { "-".to_owned() };
            let calls = match (calls, self.called) {
                (Some(calls), Some(work)) => format!("{:.2}", ratio(calls, work.accepted)),
                _ => "-".to_owned(),
            };
            writeln!(
                f,
                "| {name} | {:.1} | {kernel} | {:.1} | {:.2} | {:.2} | {calls} |",
                per(used.cpu_ns) / 1e3,
                per(used.waited_ns) / 1e3,
                per(used.wake_ups),
                per(used.preemptions)
            )
        };
        let share = |stacks: &[&Stacks]| {
            let sum = |count: fn(&Stacks) -> u64| stacks.iter().map(|stacks| count(stacks)).sum();
            100.0 * ratio(sum(Stacks::in_kernel), sum(Stacks::samples))
        };
        for profile in &self.profiles {
            row(&profile.name, profile.used, share(&[&profile.stacks]), calls_of(profile))?;
        }
        let used = self.profiles.iter().fold(Counts::default(), |sum, profile| sum + profile.used);
        let all: Vec<&Stacks> = self.profiles.iter().map(|profile| &profile.stacks).collect();
        row("all", used, share(&all), self.profiles.iter().map(calls_of).sum())
    }

    fn write_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(work) = self.called else { return Ok(()) };
        writeln!(f, "\n| process | system calls per accepted payment |\n|---|---|")?;
        for Profile { name, calls, .. } in &self.profiles {
            let mut calls: Vec<(&String, &u64)> = calls.iter().flatten().collect();
            calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let tell =
                |(name, count): &(&String, &u64)| format!("{name} {:.2}", ratio(**count, work.accepted));
            let told: Vec<String> = calls.iter().take(CALLS_SHOWN_MAX).map(tell).collect();
            writeln!(f, "| {name} | {} |", told.join(", "))?;
        }
        Ok(())
    }
}

fn write_functions(f: &mut fmt::Formatter<'_>, profile: &Profile) -> fmt::Result {
    let samples = profile.stacks.samples();
    writeln!(f, "\n| {}: {samples} samples | self | total |\n|---|--:|--:|", profile.name)?;
    for Function { name, own, total } in profile.stacks.functions().iter().take(FUNCTIONS_SHOWN_MAX) {
        let percent = |count: u64| 100.0 * ratio(count, samples);
        writeln!(f, "| `{}` | {:.1} % | {:.1} % |", ending(name), percent(*own), percent(*total))?;
    }
    Ok(())
}

/// The end of a long name.
fn ending(name: &str) -> String {
    let skipped = name.chars().count().saturating_sub(NAME_CHARS_MAX);
    if skipped == 0 {
        name.to_owned()
    } else {
        name.chars().skip(skipped).fold("...".to_owned(), |text, c| text + c.encode_utf8(&mut [0; 4]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(count: u64, of: u64) -> f64 {
    count as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arena::tally::Latency;
    use std::time::Duration;

    #[test]
    fn a_report_counts_per_accepted_payment() {
        let work =
            Work { accepted: 1_000, failed: 0, took: Duration::from_secs(5), latency: Latency::default() };
        let used = Counts { cpu_ns: 12_000_000, waited_ns: 500_000, wake_ups: 2_000, preemptions: 10 };
        let profile = |name: &str| Profile {
            name: name.to_owned(),
            used,
            stacks: Stacks::default(),
            calls: Some(BTreeMap::from([("recvfrom".to_owned(), 3_000), ("sendto".to_owned(), 1_000)])),
        };
        let report = Report {
            load: "some".into(),
            stack: "here".into(),
            sees_kernel: true,
            reservations: vec!["the sky is grey"],
            counted: work,
            recorded: work,
            called: Some(work),
            profiles: vec![profile("lb"), profile("store")],
        };
        let text = report.to_string();
        assert!(text.contains("| lb | 12.0 | 0 % | 0.5 | 2.00 | 0.01 | 4.00 |"), "{text}");
        assert!(text.contains("| all | 24.0 | 0 % | 1.0 | 4.00 | 0.02 | 8.00 |"), "{text}");
        assert!(text.contains("| store | recvfrom 3.00, sendto 1.00 |"), "{text}");
        assert!(text.contains("Note: the sky is grey."), "{text}");
        let text = Report { sees_kernel: false, ..report }.to_string();
        assert!(text.contains("| lb | 12.0 | - | 0.5"), "{text}");
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = format!("{}::poll", "x".repeat(200));
        let short = ending(&name);
        assert!(short.starts_with("...x") && short.ends_with("::poll"));
        assert_eq!(short.len(), NAME_CHARS_MAX + 3);
        assert_eq!(ending("epoll_wait"), "epoll_wait");
    }
}
