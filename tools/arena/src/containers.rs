//! The stack in containers, for `arena fight --compose`: checked, started, measured by its control groups, taken down.
//!
//! It is the entry as it would be submitted (`docker-compose.yml`) beside simulated processors, under a project name
//! of its own, so that a stack that was started by hand is never touched. Whatever happens after the start, the
//! containers and their volumes are removed again. What they used is read where the kernel counts it, because what an
//! engine's own statistics say is a rate and comes late.

use crate::checkout::Checkout;
use crate::stack::StackArgs;
use anyhow::{Context, bail, ensure};
use contest::plan::Plan;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The compose project of a fight.
const PROJECT: &str = "espora-fight";

/// How long the containers may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Processes of the entry, as its services are called.
const SERVICES: [&str; 4] = ["lb", "api1", "api2", "store"];

/// The containers of a fight. [`Containers::stop`] removes them.
#[derive(Debug)]
pub struct Containers {
    checkout: Checkout,
    envs: Vec<(String, String)>,
    files: Vec<&'static str>,
    processes: Vec<(String, i32)>,
    groups: Vec<Group>,
}

/// A container's control groups.
#[derive(Debug)]
pub(crate) struct Group {
    /// The process, as its service is called.
    pub(crate) name: String,
    /// Quota and throttling.
    pub(crate) cpu: PathBuf,
    /// CPU time; the same as `cpu` but for some machines with version 1.
    pub(crate) accounting: PathBuf,
    /// The limit of memory, and what was used of it.
    pub(crate) memory: PathBuf,
}

/// What the kernel has counted for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// The service.
    pub name: String,
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Periods of its quota in which it was stopped because the quota was used up.
    pub throttled_periods: u64,
    /// For how long that was, in microseconds.
    pub throttled_us: u64,
    /// The most memory that it ever held, page cache included, in bytes.
    pub memory_peak_bytes: u64,
}

impl Used {
    /// What was used since `before`; the peak of memory is that of the whole life.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            name: self.name.clone(),
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            throttled_periods: self.throttled_periods.saturating_sub(before.throttled_periods),
            throttled_us: self.throttled_us.saturating_sub(before.throttled_us),
            memory_peak_bytes: self.memory_peak_bytes,
        }
    }
}

impl Containers {
    /// The containers of the checkout that arena runs in, not yet started, with the plan's fees and margin.
    ///
    /// # Errors
    /// When arena was not started through cargo in a checkout.
    pub fn of_plan(args: &StackArgs, plan: &Plan) -> anyhow::Result<Self> {
        let checkout = args.checkout().context("--compose needs a checkout: start arena as cargo arena")?;
        let [default, fallback] = plan.fee_percent.0;
        let envs = [
            ("FEE_DEFAULT", default.to_string()),
            ("FEE_FALLBACK", fallback.to_string()),
            ("AUDIT_MARGIN_MS", plan.audit.margin_ms.to_string()),
            ("LB_MODE", args.mode.clone()),
        ];
        Ok(Self {
            checkout,
            envs: envs.map(|(name, value)| (name.to_owned(), value)).into(),
            files: vec!["docker-compose.yml", "docker-compose.processors.yml"],
            processes: Vec::new(),
            groups: Vec::new(),
        })
    }

    /// The same with one compose file more.
    #[must_use]
    pub fn with_file(mut self, file: &'static str) -> Self {
        self.files.push(file);
        self
    }

    /// Sets a variable of the compose files.
    pub fn set(&mut self, name: &str, value: String) {
        self.envs.push((name.to_owned(), value));
    }

    /// The services of the entry and the process ids that they have on this machine, once they are started.
    #[must_use]
    pub fn processes(&self) -> &[(String, i32)] {
        &self.processes
    }

    /// Checks the rules, builds the images, starts everything, and checks what the engine made of it.
    ///
    /// # Errors
    /// When a rule is broken, or something cannot be built or started; what was started is still to be stopped.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let check = "the entry breaks a rule of the competition";
        self.run("check-entry", &["--file-only", "docker-compose.yml"]).await.context(check)?;
        let up = "the containers do not start. Is the engine running, and port 9999 free? Without an image registry \
                  run scripts/build-base-image first";
        self.run("compose", &["up", "--build", "--detach"]).await.context(up)?;
        self.run("check-entry", &["docker-compose.yml"]).await.context(check)?;
        for service in SERVICES {
            let pid = self.find_process(service).await?;
            self.groups.push(Group::of_process(service, pid)?);
            self.processes.push((service.to_owned(), pid));
        }
        Ok(())
    }

    /// Removes the containers, their network and their volumes.
    ///
    /// # Errors
    /// When the engine does not do it.
    pub async fn stop(self) -> anyhow::Result<()> {
        let timeout = STOP_TIMEOUT.as_secs().to_string();
        self.run("compose", &["down", "--volumes", "--timeout", &timeout])
            .await
            .with_context(|| format!("containers may be left: docker ps --filter name={PROJECT}"))
    }

    /// What each of them has used up to now.
    ///
    /// # Errors
    /// When the kernel's files are not where a container's control groups have them.
    pub fn used(&self) -> anyhow::Result<Vec<Used>> {
        self.groups.iter().map(Group::used).collect()
    }

    async fn run(&self, script: &str, args: &[&str]) -> anyhow::Result<()> {
        let status = self.command(script).args(args).status().await;
        let status = status.with_context(|| format!("cannot run scripts/{script}"))?;
        ensure!(status.success(), "scripts/{script} {} failed: {status}", args.join(" "));
        Ok(())
    }

    fn command(&self, script: &str) -> Command {
        let workspace = &self.checkout.workspace;
        let mut command = Command::new(workspace.join("scripts").join(script));
        command
            .current_dir(workspace)
            .env("COMPOSE_PROJECT_NAME", PROJECT)
            .env("COMPOSE_FILE", self.files.join(":"))
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    async fn find_process(&self, service: &str) -> anyhow::Result<i32> {
        let ids = self.output(self.command("compose").args(["ps", "--quiet", service])).await?;
        let id = ids.lines().next().with_context(|| format!("{service} has no container"))?;
        let mut inspect = Command::new("docker");
        let pid = self.output(inspect.args(["inspect", "--format", "{{.State.Pid}}", id])).await?;
        pid.trim().parse().with_context(|| format!("the process of {service}: {pid}"))
    }

    async fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        let output = command.output().await.context("cannot ask the engine")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Group {
    /// The control groups that a running process is in.
    fn of_process(name: &str, pid: i32) -> anyhow::Result<Self> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let table = table.with_context(|| {
            format!(
                "the process of {name} is not here: it has ended, or the containers run on another kernel"
            )
        })?;
        Self::find(name, &table, Path::new("/sys/fs/cgroup"))
    }

    /// Reads /proc/PID/cgroup: `0::PATH` in version 2, `N:cpu,cpuacct:PATH` and `N:memory:PATH` in version 1.
    pub(crate) fn find(name: &str, table: &str, root: &Path) -> anyhow::Result<Self> {
        let path_of = |controller: &str| {
            let mut lines = table
                .lines()
                .filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
            lines.find_map(|[names, path]: [&str; 2]| {
                let is_it = names.split(',').any(|name| name == controller);
                is_it.then(|| root.join(names).join(path.trim_start_matches('/')))
            })
        };
        let unified = path_of("");
        let find = |controller| path_of(controller).or_else(|| unified.clone());
        let (Some(cpu), Some(accounting), Some(memory)) = (find("cpu"), find("cpuacct"), find("memory"))
        else {
            bail!("the control group of {name} is not in\n{table}");
        };
        Ok(Self { name: name.to_owned(), cpu, accounting, memory })
    }

    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        let stat = read(&self.cpu.join("cpu.stat"))?;
        let cpu_us = match value(&stat, "usage_usec") {
            Some(us) => us,
            None => read(&self.accounting.join("cpuacct.usage"))?.trim().parse::<u64>()? / 1_000,
        };
        let throttled_us = value(&stat, "throttled_usec")
            .or_else(|| value(&stat, "throttled_time").map(|ns| ns / 1_000))
            .unwrap_or(0);
        let peak = read(&self.memory.join("memory.peak"))
            .or_else(|_| read(&self.memory.join("memory.max_usage_in_bytes")))?;
        Ok(Used {
            name: self.name.clone(),
            cpu_us,
            throttled_periods: value(&stat, "nr_throttled").unwrap_or(0),
            throttled_us,
            memory_peak_bytes: peak.trim().parse()?,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The number behind `name` in lines of a name and a number.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        write(&dir.join("docker/a/cpu.stat"), "usage_usec 1500\nnr_throttled 2\nthrottled_usec 70\n");
        write(&dir.join("docker/a/memory.peak"), "4096\n");
        let two = Group::find("lb", "0::/docker/a\n", dir).unwrap().used().unwrap();
        let used = |name: &str, cpu_us, throttled_periods, throttled_us, memory_peak_bytes| Used {
            name: name.to_owned(),
            cpu_us,
            throttled_periods,
            throttled_us,
            memory_peak_bytes,
        };
        assert_eq!(two, used("lb", 1_500, 2, 70, 4_096));
        write(
            &dir.join("cpu,cpuacct/docker/b/cpu.stat"),
            "nr_periods 9\nnr_throttled 3\nthrottled_time 5000\n",
        );
        write(&dir.join("cpu,cpuacct/docker/b/cpuacct.usage"), "2500000\n");
        write(&dir.join("memory/docker/b/memory.max_usage_in_bytes"), "8192\n");
        let table = "9:name=systemd:/docker/b\n4:memory:/docker/b\n3:cpu,cpuacct:/docker/b\n0::/\n";
        let one = Group::find("store", table, dir).unwrap().used().unwrap();
        assert_eq!(one, used("store", 2_500, 3, 5, 8_192));
        assert!(Group::find("api", "9:pids:/\n", dir).is_err());
    }

    #[test]
    fn usage_before_the_start_does_not_count() {
        let at = |cpu_us, throttled_periods| Used {
            name: "lb".to_owned(),
            cpu_us,
            throttled_periods,
            throttled_us: 10,
            memory_peak_bytes: 5,
        };
        let used = at(100, 3).since(&at(40, 1));
        assert_eq!(
            (used.cpu_us, used.throttled_periods, used.throttled_us, used.memory_peak_bytes),
            (60, 2, 0, 5)
        );
    }
}
