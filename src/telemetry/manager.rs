//! How full the process's memory is, and in which words operators are told.
//!
//! Reading and judging only: boot asks on a timer, and has caches shrunk and connections refused where it must be. The
//! limit is a setting, else what the control group allows, else the machine's memory.

use std::path::Path;

/// Share of the limit from which memory is short, and from which something has to be done, percent.
const WARNING_PERCENT: u64 = 75;
const CRITICAL_PERCENT: u64 = 90;

/// How full the memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    /// Of so many resident bytes; without a limit all is well.
    pub fn of(resident: u64, limit: Option<u64>) -> Self {
        let Some(limit) = limit else { return Self::Ok };
        match resident.saturating_mul(100) / limit.max(1) {
            CRITICAL_PERCENT.. => Self::Critical,
            WARNING_PERCENT.. => Self::Warning,
            _ => Self::Ok,
        }
    }

    /// The line that tells it.
    pub fn line(self, resident: u64, limit: Option<u64>) -> String {
        let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / (1024.0 * 1024.0));
        let (sign, name) = match self {
            Self::Ok => ("🟢", "OK"),
            Self::Warning => ("🟡", "WARNING"),
            Self::Critical => ("🔴", "CRITICAL"),
        };
        let limit = limit.map_or("no limit".to_owned(), megabytes);
        format!("[MemoryManager] {sign} {name}: {} / {limit}", megabytes(resident))
    }
}

/// What the system lets this process have, bytes: the least of its control groups' limits and the machine's memory.
pub fn system_limit() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let groups = read(Path::new("/proc/self/cgroup"));
    let of_groups = groups.lines().filter_map(group).flat_map(|(root, path, file)| {
        // A group has no more than the groups around it.
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        let files: Vec<_> = ancestors.map(|path| Path::new(root).join(path).join(file)).collect();
        files.into_iter().filter_map(|file| read(&file).trim().parse().ok())
    });
    let machine = read(Path::new("/proc/meminfo"));
    let machine = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let machine = machine.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok());
    of_groups.chain(machine.map(|kib| kib * 1024)).filter(|limit| *limit > 0).min()
}

/// Where a line of `/proc/self/cgroup` leads: mount, path in it, file with the limit. Version 2 has one hierarchy for
/// all, version 1 one for memory.
fn group(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    match controllers {
        "" => Some(("/sys/fs/cgroup", path, "memory.max")),
        list if list.split(',').any(|controller| controller == "memory") => {
            Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn levels_follow_the_share_of_the_limit() {
        let level = |mib| Level::of(mib * MIB, Some(100 * MIB));
        assert_eq!([level(0), level(74), level(75), level(89), level(90), level(1_000)], {
            use Level::{Critical, Ok, Warning};
            [Ok, Ok, Warning, Warning, Critical, Critical]
        });
        assert_eq!((Level::of(u64::MAX, None), Level::of(1, Some(0))), (Level::Ok, Level::Critical));
    }

    #[test]
    fn lines_read_as_operators_know_them() {
        let line = Level::Ok.line(173_487_063, Some(220 * MIB));
        assert_eq!(line, "[MemoryManager] 🟢 OK: 165.45 MB / 220.00 MB");
        assert!(Level::Critical.line(MIB, None).ends_with("CRITICAL: 1.00 MB / no limit"));
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        assert_eq!(group("0::/system.slice/duet.service").unwrap().2, "memory.max");
        let old = ("/sys/fs/cgroup/memory", "/docker/abc", "memory.limit_in_bytes");
        assert_eq!((group("9:memory:/docker/abc"), group("4:cpu,memory:/docker/abc")), (Some(old), Some(old)));
        assert_eq!((group("7:cpuset:/docker/abc"), group("nonsense")), (None, None));
        assert!(system_limit().is_some_and(|limit| limit > 1_000_000));
    }
}
