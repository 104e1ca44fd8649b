//! What the control groups of this process allow it: memory and processor time, of version 2 and of version 1.
//!
//! Read when asked, never kept. Every function takes the root of the file system, so that tests can bring their own. A
//! group has no more than the groups around it, so the least of all counts. Not here: what follows from a limit.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where version 2 stands, alone or beside version 1.
const UNIFIED: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// Bytes of the machine's memory.
pub fn machine_memory(root: &Path) -> Option<u64> {
    let text = read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Bytes that the control groups allow; `None`: no limit below the machine's.
pub fn memory_limit(root: &Path) -> Option<u64> {
    let new = files(root, "", &UNIFIED, "memory.max");
    let old = files(root, "memory", &["sys/fs/cgroup/memory"], "memory.limit_in_bytes");
    let limit = new.chain(old).filter_map(|file| number(&file)).filter(|limit| *limit > 0).min()?;
    // Version 1 says "no limit" by a number that no machine has.
    machine_memory(root).is_none_or(|machine| limit < machine).then_some(limit)
}

/// Thousandths of a core that the control groups allow; `None`: no limit.
pub fn processor_limit(root: &Path) -> Option<u64> {
    let new = files(root, "", &UNIFIED, "cpu.max").filter_map(|file| {
        let text = read_to_string(file).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        share(quota.parse().ok()?, period.parse().ok()?)
    });
    let folders = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"];
    let old = files(root, "cpu", &folders, "cpu.cfs_quota_us").filter_map(|file| {
        let quota = number(&file)?;
        share(quota, number(&file.with_file_name("cpu.cfs_period_us"))?)
    });
    new.chain(old).min()
}

fn share(quota: u64, period: u64) -> Option<u64> {
    (period > 0).then(|| quota.saturating_mul(1000) / period)
}

fn number(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

/// `file` in the group of this process under `controller` and in all groups around it, below each of `mounts`. The
/// controller without a name is version 2.
fn files(root: &Path, controller: &str, mounts: &[&str], file: &str) -> impl Iterator<Item = PathBuf> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| PathBuf::from(path.trim_start_matches('/')))
    });
    let mut found = Vec::new();
    for (mount, path) in mounts.iter().flat_map(|mount| path.iter().map(move |path| (mount, path))) {
        found.extend(path.ancestors().map(|path| root.join(mount).join(path).join(file)));
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A root of these files, gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("duet-groups-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_has_the_least_of_the_groups_around_it() {
        let root = Root::new(
            "v2",
            &[
                ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n"),
                ("proc/self/cgroup", "0::/system.slice/duet.service\n"),
                ("sys/fs/cgroup/system.slice/duet.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
                ("sys/fs/cgroup/system.slice/duet.service/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(memory_limit(&root.0), Some(512 * MIB));
        assert_eq!(processor_limit(&root.0), Some(1500));
        assert_eq!(machine_memory(&root.0), Some(8_000_000 * 1024));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let root = Root::new(
            "v1",
            &[
                ("proc/meminfo", "MemTotal: 8000000 kB\n"),
                ("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"),
                ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ],
        );
        assert_eq!((memory_limit(&root.0), processor_limit(&root.0)), (Some(1024 * MIB), Some(500)));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let root = Root::new(
            "none",
            &[
                ("proc/meminfo", "MemTotal: 8000000 kB\n"),
                ("proc/self/cgroup", "nonsense\n4:memory:/\n0::/\n"),
                ("sys/fs/cgroup/memory.max", "max\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!((memory_limit(&root.0), processor_limit(&root.0)), (None, None));
        let nothing = Root::new("nothing", &[]);
        assert_eq!((memory_limit(&nothing.0), machine_memory(&nothing.0)), (None, None));
    }
}
