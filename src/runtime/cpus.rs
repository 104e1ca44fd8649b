//! Which CPUs this process may use, and pinning a thread to one.
//!
//! Owned by: boot, before any shard runs. Bound: one entry per usable CPU.
//! Not here: the number of shards an operator asks for, NUMA, priorities.

use std::fs;
use std::io;
use std::thread::available_parallelism;

/// One entry per shard worth starting, at least one: the CPU to pin it to, or `None` where pinning would do harm.
///
/// The count is the thread's affinity limited by the cgroup's CPU quota (v2 `cpu.max`, v1 `cpu.cfs_quota_us`, rounded down), never the
/// host's core count. Under a quota smaller than the affinity nothing is pinned: containers that share a host would all pick its
/// first cores.
/// To be called by a thread that is not pinned itself.
pub fn usable_cpus() -> Vec<Option<usize>> {
    let count = available_parallelism().map_or(1, usize::from);
    let allowed = allowed_cpus();
    if allowed.len() == count { allowed.into_iter().map(Some).collect() } else { vec![None; count] }
}

/// Pins the calling thread.
#[allow(unsafe_code)]
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
    }
    // SAFETY: a cpu_set_t is a plain bit set, valid when zeroed; `cpu` is below its size; the call reads the set and keeps nothing.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if status == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("cannot pin to CPU {cpu}: {error}")))
}

/// The CPUs in the calling thread's affinity, ascending; empty if the kernel does not tell.
fn allowed_cpus() -> Vec<usize> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(parse_list).unwrap_or_default()
}

/// Decodes the kernel's list format, such as `0-3,8`.
fn parse_list(list: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    #[test]
    fn kernel_list_is_decoded() {
        assert_eq!(parse_list("\t0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_list("\t3\n"), [3]);
        assert!(parse_list("").is_empty());
    }
}
