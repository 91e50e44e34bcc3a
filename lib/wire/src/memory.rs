//! How much memory this process may use: the smallest limit of the control groups that it is in.
//!
//! A limit may stand at any level: a container's at the root of its own view, a systemd unit's some folders below the root
//! of the host's, a slice's between them. So all folders are asked, from the process's own group up to the root of the mounted
//! hierarchy (`cgroups(7)`, `proc(5)` on `/proc/PID/mountinfo`), in version 2 (`memory.max`) and 1
//! (`memory.limit_in_bytes`).

use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 says "no limit" with a number that no machine has.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// The smallest memory limit of this process, in bytes; `None` without one.
#[must_use]
pub fn limit() -> Option<u64> {
    limit_in(|path| fs::read_to_string(path).ok())
}

/// The same for a process that reads its files with `read`.
#[must_use]
pub fn limit_in(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let found = mounts.lines().filter_map(Mount::parse);
    // Where the table of mounts is hidden, they are where they always are.
    let usual = [("/sys/fs/cgroup", true), ("/sys/fs/cgroup/memory", false)]
        .map(|(point, is_version_2)| Mount { root: "/".into(), point: point.into(), is_version_2 });
    found.chain(usual).filter_map(|mount| mount.limit(&groups, &read)).min()
}

/// A mounted hierarchy of control groups that may limit memory.
struct Mount {
    /// The group that is seen at `point`.
    root: PathBuf,
    point: PathBuf,
    is_version_2: bool,
}

impl Mount {
    /// Reads a line of mountinfo: `31 23 0:28 ROOT POINT OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_version_2 = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.next_back()?.split(',').any(|option| option == "memory") => false,
            _ => return None,
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Self { root: unescape(root), point: unescape(point), is_version_2 })
    }

    fn limit(&self, groups: &str, read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
        let name = if self.is_version_2 { "memory.max" } else { "memory.limit_in_bytes" };
        let own = self.own_folder(groups);
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&self.point));
        let limits = folders.filter_map(|folder| read(&folder.join(name))?.trim().parse().ok());
        limits.filter(|limit| *limit < UNLIMITED_BYTES).min()
    }

    /// The folder of the process's own group, or the mount's root where the group cannot be seen from here.
    fn own_folder(&self, groups: &str) -> PathBuf {
        let group = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_ours = match self.is_version_2 {
                true => number == "0" && controllers.is_empty(),
                false => controllers.split(',').any(|controller| controller == "memory"),
            };
            is_ours.then(|| Path::new(path))
        });
        let below = group.and_then(|group| group.strip_prefix(&self.root).ok());
        match below {
            Some(below) if below.components().all(|part| part.as_os_str() != "..") => self.point.join(below),
            _ => self.point.clone(),
        }
    }
}

/// Spaces and the like stand as `\040` in mountinfo.
fn unescape(field: &str) -> PathBuf {
    let mut text = field.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escaped, plain);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MIB: u64 = 1 << 20;
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn limit_of(group: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        let mut tree: BTreeMap<&Path, &str> =
            files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        tree.insert(Path::new("/proc/self/cgroup"), group);
        tree.insert(Path::new("/proc/self/mountinfo"), mounts);
        limit_in(|path| tree.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_smallest_limit_from_the_own_group_to_the_root_counts() {
        let unit = "0::/espora.slice/store.service\n";
        let own = ("/sys/fs/cgroup/espora.slice/store.service/memory.max", "67108864\n");
        let slice = ("/sys/fs/cgroup/espora.slice/memory.max", "33554432\n");
        let unlimited = ("/sys/fs/cgroup/espora.slice/memory.max", "max\n");
        assert_eq!(limit_of(unit, V2, &[own]), Some(64 * MIB), "a unit of systemd");
        assert_eq!(limit_of(unit, V2, &[own, unlimited]), Some(64 * MIB), "a slice without a limit");
        assert_eq!(limit_of(unit, V2, &[own, slice]), Some(32 * MIB), "a slice with less");
        assert_eq!(limit_of(unit, V2, &[]), None, "no limit");
        let other = ("/sys/fs/cgroup/other.service/memory.max", "1048576\n");
        assert_eq!(limit_of(unit, V2, &[own, other]), Some(64 * MIB), "a group that is not ours");
    }

    #[test]
    fn a_container_is_seen_through_any_namespace() {
        let at_root = [("/sys/fs/cgroup/memory.max", "67108864\n")];
        assert_eq!(limit_of("0::/\n", V2, &at_root), Some(64 * MIB), "a namespace of its own");
        assert_eq!(
            limit_of("0::/../other\n", V2, &at_root),
            Some(64 * MIB),
            "a group outside of the namespace"
        );
        assert_eq!(limit_of("0::/\n", "", &at_root), Some(64 * MIB), "a hidden table of mounts");
        let host = "0::/system.slice/docker-ab.scope\n";
        let in_host = [("/sys/fs/cgroup/system.slice/docker-ab.scope/memory.max", "67108864\n")];
        assert_eq!(limit_of(host, V2, &in_host), Some(64 * MIB), "the host's namespace");
        let mounted = "30 23 0:26 /system.slice/docker-ab.scope /cg\\040roup ro - cgroup2 cgroup ro\n";
        let below = [("/cg roup/memory.max", "67108864\n")];
        assert_eq!(limit_of(host, mounted, &below), Some(64 * MIB), "only the own group is mounted");
    }

    #[test]
    fn version_1_is_read_as_well() {
        let groups = "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n";
        let nested = ("/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "67108864\n");
        let above = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of(groups, V1, &[nested, above]), Some(64 * MIB));
        assert_eq!(limit_of(groups, V1, &[above]), None, "a number that no machine has");
        let mounted = V1.replace("0:32 / ", "0:32 /docker/ab ");
        let own = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit_of(groups, &mounted, &[own]), Some(64 * MIB), "the host's namespace");
        let other = ("/sys/fs/cgroup/cpu/docker/ab/memory.limit_in_bytes", "1\n");
        assert_eq!(limit_of(groups, V1, &[nested, other]), Some(64 * MIB), "another hierarchy");
    }

    #[test]
    fn nothing_readable_is_no_limit() {
        assert_eq!(limit_in(|_| None), None);
        assert_eq!(limit_of("x\n::\n", "- \na - cgroup\n1 2 3 - cgroup2\n", &[]), None);
    }
}
