//! What the kernel says about a process and about sockets, read from /proc.
//!
//! Processor time is the scheduler's, in nanoseconds, where the kernel keeps it (schedstat), else in ticks. Kernel memory
//! has no owner there: `SocketMemory` is the whole machine's, both ends of each loopback connection included.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Bytes of a page, as /proc/net/sockstat counts.
const PAGE_BYTES: u64 = 4096;

/// Processor time and switches of a process, since it began.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// By thread: a thread that ends takes its figure with it.
    threads: BTreeMap<u32, Thread>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    nanos: u64,
    voluntary: u64,
    involuntary: u64,
}

/// What a process used between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    pub cpu_seconds: f64,
    /// It waited for something.
    pub voluntary_switches: u64,
    /// It was made to give way.
    pub involuntary_switches: u64,
}

impl Usage {
    /// Of all threads of a process; nothing of one that is gone.
    pub fn of(pid: u32) -> Self {
        let threads = tasks(pid).into_iter().filter_map(|task| {
            let thread = task.rsplit('/').next()?.parse().ok()?;
            Some((thread, Thread::of(&task)?))
        });
        Self { threads: threads.collect() }
    }

    /// Of a process and all that it has started.
    pub fn of_family(pid: u32) -> Self {
        let mut all = Self::of(pid);
        let mut parents = vec![pid];
        while let Some(parent) = parents.pop() {
            for task in tasks(parent) {
                let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
                for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
                    all.threads.extend(Self::of(child).threads);
                    parents.push(child);
                }
            }
        }
        all
    }

    pub fn since(&self, earlier: &Self) -> Spent {
        let mut spent = Spent::default();
        for (id, thread) in &self.threads {
            let before = earlier.threads.get(id).copied().unwrap_or_default();
            spent.cpu_seconds += thread.nanos.saturating_sub(before.nanos) as f64 / 1e9;
            spent.voluntary_switches += thread.voluntary.saturating_sub(before.voluntary);
            spent.involuntary_switches += thread.involuntary.saturating_sub(before.involuntary);
        }
        spent
    }
}

/// The folders of a process's threads.
fn tasks(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().to_string_lossy().into_owned()).collect()
}

impl Thread {
    fn of(folder: &str) -> Option<Self> {
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        let nanos = fs::read_to_string(format!("{folder}/schedstat")).ok().and_then(|text| first_number(&text));
        Some(Self {
            nanos: nanos.filter(|nanos| *nanos > 0).or_else(|| ticks_as_nanos(folder))?,
            voluntary: field(&status, "voluntary_ctxt_switches:").unwrap_or_default(),
            involuntary: field(&status, "nonvoluntary_ctxt_switches:").unwrap_or_default(),
        })
    }
}

/// The same from `stat`, for kernels without schedstat: 100 ticks a second on every Linux we run on.
fn ticks_as_nanos(folder: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * 10_000_000)
}

/// Processor time of the calling thread, seconds.
pub fn own_cpu_seconds() -> f64 {
    Thread::of("/proc/thread-self").map_or(0.0, |thread| thread.nanos as f64 / 1e9)
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, shared pages included.
    pub resident: u64,
    /// Resident, shared pages by share.
    pub proportional: u64,
    /// Resident and nobody else's.
    pub private: u64,
    /// The most that was resident since the process began, or since `forget_peak`.
    pub peak: u64,
}

/// Lets the process's peak begin anew.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Resident memory of a process, bytes, from what the kernel counts anyway: cheap enough while it is under load.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmRSS:").unwrap_or_default() * 1024
}

impl Memory {
    pub fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (pages, status) = (read("smaps_rollup"), read("status"));
        let kib = |text: &str, name: &str| field(text, name).unwrap_or_default() * 1024;
        Self {
            resident: kib(&pages, "Rss:"),
            proportional: kib(&pages, "Pss:"),
            private: kib(&pages, "Private_Clean:") + kib(&pages, "Private_Dirty:"),
            peak: kib(&status, "VmHWM:"),
        }
    }
}

/// Kernel memory of the whole machine that sockets are made of, bytes. Compared before and after, it says what
/// connections take, both ends together, the generator's among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketMemory {
    /// The kernel's own objects: sockets, files, epoll entries, requests of io_uring; and other things, which hold still
    /// while nothing else runs.
    pub slab: u64,
    /// Data in TCP's queues.
    pub queues: u64,
}

impl SocketMemory {
    pub fn now() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let pages = read("/proc/net/sockstat").lines().find_map(|line| {
            let words: Vec<&str> = line.strip_prefix("TCP:")?.split_whitespace().collect();
            words.iter().position(|word| *word == "mem").and_then(|at| words.get(at + 1)?.parse::<u64>().ok())
        });
        Self {
            slab: field(&read("/proc/meminfo"), "Slab:").unwrap_or_default() * 1024,
            queues: pages.unwrap_or_default() * PAGE_BYTES,
        }
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| first_number(line.strip_prefix(name)?))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn work_of_this_process_is_seen() {
        let pid = std::process::id();
        let (before, own) = (Usage::of(pid), own_cpu_seconds());
        let from = crate::clock::now();
        let mut sum = 0_u64;
        while crate::clock::now() < from + 30 * crate::clock::MILLISECOND {
            sum = black_box(sum.wrapping_add(1));
        }
        assert!(Usage::of(pid).since(&before).cpu_seconds > 0.0);
        assert!(own_cpu_seconds() > own);
    }

    #[test]
    fn what_a_process_has_started_belongs_to_its_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = Usage::of_family(std::process::id());
        let alone = Usage::of(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.threads.contains_key(&child.id()) && !alone.threads.contains_key(&child.id()));
    }

    #[test]
    fn memory_that_was_taken_is_resident() {
        let pid = std::process::id();
        let before = Memory::of(pid);
        let taken = black_box(vec![1_u8; 32 << 20]);
        let after = Memory::of(pid);
        assert!(after.private >= before.private + (taken.len() as u64 / 2), "{before:?} {after:?}");
        assert!(after.resident >= after.private && after.peak >= after.resident);
        assert!(SocketMemory::now().slab > 0);
    }
}
