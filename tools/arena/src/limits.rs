//! The entry's limits without containers: each process of a stack in a control group of its own, for `arena fight
//! --limits`.
//!
//! An engine does nothing else with `deploy.resources.limits`, so CPU quota, throttling and the limit of memory are
//! the same on any Linux machine, and nothing has to be built into images while one tunes. What is not there is the
//! containers' network. The split is read from the variables that docker-compose.yml has for it, with the same values
//! by themselves.
//!
//! ```text
//!   version 1    cpu/OWN/espora-PID-lb    cpuacct/OWN/espora-PID-lb    memory/OWN/espora-PID-lb
//!   version 2    espora-PID-lb at the root of the hierarchy, or beside arena in a group that was delegated to its user
//! ```
//!
//! A process enters its groups before it is what it is: a shell writes its own number there and then becomes the
//! process ([`Limits::entrances`]), so that nothing is spent outside, and one that is started again is inside again.
//! The groups are removed when [`Limits`] is dropped, which has to be after the processes have ended.

use crate::containers::{Group, Used};
use anyhow::{Context, ensure};
use clap::Args;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The period of a quota, as engines set it.
const PERIOD_US: u64 = 100_000;

/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";

/// What a group has only in version 2.
const CONTROLLERS: &str = "cgroup.controllers";

/// What is said when no group can be made.
const ADVICE: &str = "control groups cannot be made here: run as root, or with version 2 as\n  \
                      systemd-run --user --scope --property=Delegate=yes cargo arena fight --limits ...";

/// How 1.5 CPU and 350 MB are split; each api gets the same.
#[derive(Clone, Debug, Args)]
pub struct Split {
    /// CPUs of the balancer, with --limits and in containers
    #[arg(long, env = "LB_CPUS", value_name = "CPUS", default_value = "0.35", hide_short_help = true)]
    pub lb_cpus: Cpus,
    /// CPUs of each api
    #[arg(long, env = "API_CPUS", value_name = "CPUS", default_value = "0.45", hide_short_help = true)]
    pub api_cpus: Cpus,
    /// CPUs of the store
    #[arg(long, env = "STORE_CPUS", value_name = "CPUS", default_value = "0.25", hide_short_help = true)]
    pub store_cpus: Cpus,
    /// Memory of the balancer
    #[arg(long, env = "LB_MEMORY", value_name = "MB", default_value = "40MB", hide_short_help = true)]
    pub lb_memory: Megabytes,
    /// Memory of each api
    #[arg(long, env = "API_MEMORY", value_name = "MB", default_value = "60MB", hide_short_help = true)]
    pub api_memory: Megabytes,
    /// Memory of the store
    #[arg(long, env = "STORE_MEMORY", value_name = "MB", default_value = "190MB", hide_short_help = true)]
    pub store_memory: Megabytes,
}

/// A share of CPUs, as compose files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    quota_us: u64,
}

/// An amount of memory, as compose files write it: `40MB` is 40 x 1024 x 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Megabytes(u64);

/// The text is no share or amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// No share of CPUs.
    #[error("write CPUs as 0.35; at least 0.01, at most 64")]
    Cpus,
    /// No amount of memory.
    #[error("write memory as 40MB")]
    Memory,
}

impl std::str::FromStr for Cpus {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        let cpus: f64 = text.parse().map_err(|_| SplitError::Cpus)?;
        if !(0.01..=64.0).contains(&cpus) {
            return Err(SplitError::Cpus);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1,000 and 6,400,000"
        )]
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let quota_us = (cpus * PERIOD_US as f64).round() as u64;
        Ok(Self { quota_us })
    }
}

impl std::str::FromStr for Megabytes {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        let number = text.strip_suffix("MB").ok_or(SplitError::Memory)?;
        let megabytes: u32 = number.parse().map_err(|_| SplitError::Memory)?;
        Ok(Self(u64::from(megabytes) << 20))
    }
}

impl fmt::Display for Cpus {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.quota_us as f64 / PERIOD_US as f64)
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MB", self.0 >> 20)
    }
}

impl Split {
    fn of(&self, name: &str) -> (Cpus, Megabytes) {
        match name {
            "lb" => (self.lb_cpus, self.lb_memory),
            "store" => (self.store_cpus, self.store_memory),
            _ => (self.api_cpus, self.api_memory),
        }
    }

    /// The variables of docker-compose.yml that say the same.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("LB_CPUS", self.lb_cpus.to_string()),
            ("API_CPUS", self.api_cpus.to_string()),
            ("STORE_CPUS", self.store_cpus.to_string()),
            ("LB_MEMORY", self.lb_memory.to_string()),
            ("API_MEMORY", self.api_memory.to_string()),
            ("STORE_MEMORY", self.store_memory.to_string()),
        ]
    }
}

/// The control groups of one stack.
#[derive(Debug)]
pub struct Limits {
    groups: Vec<Group>,
}

impl Limits {
    /// Makes a group for each process of a stack with so many apis.
    ///
    /// # Errors
    /// When groups cannot be made, with what would help.
    pub fn make(split: &Split, apis: u8) -> anyhow::Result<Self> {
        let table = fs::read_to_string("/proc/self/cgroup").context("this kernel has no control groups")?;
        let own = Group::find("arena", &table, Path::new(ROOT))?;
        let parent = if own.cpu.join(CONTROLLERS).exists() { delegated(own)? } else { own };
        Self::below(&parent, split, apis)
    }

    fn below(parent: &Group, split: &Split, apis: u8) -> anyhow::Result<Self> {
        // Whatever was made is removed again when the next one fails.
        let mut limits = Self { groups: Vec::new() };
        let apis = (1..=apis).map(|number| format!("api{number}"));
        for name in ["lb".to_owned(), "store".to_owned()].into_iter().chain(apis) {
            let place = |folder: &Path| folder.join(format!("espora-{}-{name}", std::process::id()));
            limits.groups.push(Group {
                cpu: place(&parent.cpu),
                accounting: place(&parent.accounting),
                memory: place(&parent.memory),
                name: name.clone(),
            });
            let group = limits.groups.last().expect("just made");
            for folder in folders(group) {
                fs::create_dir(&folder)
                    .with_context(|| format!("cannot make {}\n{ADVICE}", folder.display()))?;
            }
            let (cpus, memory) = split.of(&name);
            limit(group, cpus, memory)?;
        }
        Ok(limits)
    }

    /// For each process, the files that it writes its number to.
    #[must_use]
    pub fn entrances(&self) -> Vec<(String, Vec<PathBuf>)> {
        let entrance = |group: &Group| {
            let files = folders(group).into_iter().map(|folder| folder.join("cgroup.procs"));
            (group.name.clone(), files.collect())
        };
        self.groups.iter().map(entrance).collect()
    }

    /// What each process has used up to now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn used(&self) -> anyhow::Result<Vec<Used>> {
        self.groups.iter().map(Group::used).collect()
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for folder in self.groups.iter().flat_map(folders) {
            // One that was never made, or still has a process in it: the kernel keeps that one, and it costs nothing.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The different folders of a group: one with version 2, else up to three.
fn folders(group: &Group) -> Vec<PathBuf> {
    let mut folders = vec![group.cpu.clone(), group.accounting.clone(), group.memory.clone()];
    folders.dedup();
    folders
}

fn limit(group: &Group, Cpus { quota_us }: Cpus, Megabytes(bytes): Megabytes) -> anyhow::Result<()> {
    let is_version_2 = group.cpu == group.memory;
    let settings = if is_version_2 {
        vec![
            (&group.cpu, "cpu.max", format!("{quota_us} {PERIOD_US}")),
            (&group.memory, "memory.max", bytes.to_string()),
        ]
    } else {
        vec![
            (&group.cpu, "cpu.cfs_period_us", PERIOD_US.to_string()),
            (&group.cpu, "cpu.cfs_quota_us", quota_us.to_string()),
            (&group.memory, "memory.limit_in_bytes", bytes.to_string()),
        ]
    };
    settings.into_iter().try_for_each(|(folder, name, value)| write(&folder.join(name), &value))
}

/// With version 2, a group below which groups with limits can be made: the root of the hierarchy if we may, else
/// our own. A group with limits below it may have no process in it, so everybody in ours moves into one of its own.
fn delegated(own: Group) -> anyhow::Result<Group> {
    let all = "+cpu +memory";
    let root = PathBuf::from(ROOT);
    if write(&root.join("cgroup.subtree_control"), all).is_ok() {
        return Ok(Group { name: own.name, cpu: root.clone(), accounting: root.clone(), memory: root });
    }
    let leaf = own.cpu.join("espora-arena");
    ensure!(leaf.is_dir() || fs::create_dir(&leaf).is_ok(), ADVICE);
    let inside = fs::read_to_string(own.cpu.join("cgroup.procs")).context(ADVICE)?;
    for pid in inside.lines() {
        // One may have ended meanwhile.
        let _ = fs::write(leaf.join("cgroup.procs"), pid);
    }
    write(&own.cpu.join("cgroup.subtree_control"), all).context(ADVICE)?;
    Ok(own)
}

fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        split: Split,
    }

    fn split() -> Split {
        Flags::parse_from(["arena"]).split
    }

    #[test]
    fn the_split_is_that_of_the_compose_file() {
        let compose = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker-compose.yml");
        let compose = fs::read_to_string(compose).unwrap();
        let command = <Flags as clap::CommandFactory>::command();
        for argument in command.get_arguments().filter(|argument| argument.get_env().is_some()) {
            let (variable, value) = (argument.get_env().unwrap(), &argument.get_default_values()[0]);
            let default = format!("\"${{{}:-{}}}\"", variable.display(), value.display());
            assert!(compose.contains(&default), "{default}");
            let mut variables = split().variables().into_iter();
            assert!(variables.any(|(name, text)| variable == name && *value == *text), "{default}");
        }
    }

    #[test]
    fn shares_are_written_as_in_compose_files() {
        assert_eq!("0.35".parse(), Ok(Cpus { quota_us: 35_000 }));
        assert_eq!("40MB".parse(), Ok(Megabytes(41_943_040)));
        assert_eq!("0".parse::<Cpus>(), Err(SplitError::Cpus));
        assert_eq!("40".parse::<Megabytes>(), Err(SplitError::Memory));
    }

    #[test]
    fn every_process_gets_a_group_with_its_limits_and_none_stays() {
        let dir = tempfile::tempdir().unwrap();
        for version in [1, 2] {
            let of = |controller: &str| {
                let folder =
                    if version == 1 { dir.path().join(controller) } else { dir.path().join("unified") };
                fs::create_dir_all(&folder).unwrap();
                folder
            };
            let parent = Group {
                name: "arena".into(),
                cpu: of("cpu"),
                accounting: of("cpuacct"),
                memory: of("memory"),
            };
            let limits = Limits::below(&parent, &split(), 2).unwrap();
            let names: Vec<&str> = limits.groups.iter().map(|group| &*group.name).collect();
            assert_eq!(names, ["lb", "store", "api1", "api2"]);
            let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
            let (lb, api) = (&limits.groups[0], &limits.groups[3]);
            if version == 1 {
                assert_eq!(read(&lb.cpu, "cpu.cfs_quota_us"), "35000");
                assert_eq!(read(&api.memory, "memory.limit_in_bytes"), "62914560");
            } else {
                assert_eq!(read(&lb.cpu, "cpu.max"), "35000 100000");
                assert_eq!(read(&api.memory, "memory.max"), "62914560");
            }
            let entrances = limits.entrances();
            assert_eq!(entrances[0].1.len(), if version == 1 { 3 } else { 1 });
            // The kernel's own files are no obstacle to removing a group; ours here are.
            for folder in limits.groups.iter().flat_map(folders) {
                for file in fs::read_dir(folder).unwrap() {
                    fs::remove_file(file.unwrap().path()).unwrap();
                }
            }
            drop(limits);
            assert_eq!(fs::read_dir(&parent.cpu).unwrap().count(), 0);
        }
    }
}
