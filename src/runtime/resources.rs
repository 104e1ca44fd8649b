//! The process's resources: soft limits are raised to the hard ones where more is needed, freed memory goes back.
//!
//! Owned by: boot, before any shard runs; counts may be read anywhere. The allocator is the C library's: others keep
//! more of what is freed (mimalloc), or more for themselves (jemalloc). Not here: deciding what a limit means for the
//! number of connections.

use std::time::Duration;

/// A limit of `setrlimit(2)`.
#[derive(Clone, Copy)]
pub(super) enum Resource {
    /// Bytes.
    LockedMemory,
    /// File descriptors.
    Descriptors,
}

impl Resource {
    fn number(self) -> libc::c_int {
        match self {
            Self::LockedMemory => libc::RLIMIT_MEMLOCK as libc::c_int,
            Self::Descriptors => libc::RLIMIT_NOFILE as libc::c_int,
        }
    }
}

/// Raises the number of file descriptors as far as the hard limit allows, and tells it. Each connection takes one.
pub fn raise_descriptor_limit() -> u64 {
    raise(Resource::Descriptors, u64::MAX)
}

/// File descriptors that the hard limit allows; 0 if unknown.
pub fn descriptor_limit() -> u64 {
    hard_limit(Resource::Descriptors)
}

/// Bytes that the hard limit allows to be locked in memory; 0 if unknown.
pub fn locked_memory_limit() -> u64 {
    hard_limit(Resource::LockedMemory)
}

/// How much less the calling thread is to be preferred, of 19: for one of such a niceness a thread of the usual one is
/// interrupted as soon as it wakes, yet where all are busy it has a tenth of a core left.
const NICENESS: libc::c_int = 10;

/// Whose processor time.
#[derive(Clone, Copy)]
pub enum Processor {
    /// Of all threads of the process.
    Process,
    /// Of the calling thread; what the kernel does for it counts, too.
    Thread,
}

/// Time that a processor has worked, for the program and in the kernel.
#[allow(unsafe_code)]
pub fn processor_time(whose: Processor) -> Duration {
    let clock = match whose {
        Processor::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
        Processor::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes `time`, which outlives it; both clocks are there on every Linux.
    unsafe {
        libc::clock_gettime(clock, &mut time);
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lets the other threads of the machine go before the calling one, which computes for long.
#[allow(unsafe_code)]
pub fn give_way() {
    // SAFETY: setpriority takes and gives numbers; 0 is the calling thread. Being nicer needs no right, so that it cannot
    // fail but for a policy of the system, under which the thread works as it would have.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
    }
}

/// Blocks from this size on are the system's own, bytes: what is freed of them leaves the process at once.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 64 * 1024;

/// Lets large blocks go back to the system when they are freed. glibc would keep those below 32 MiB once a larger one
/// was freed, so a thousand request bodies held at a time would stay for ever.
#[allow(unsafe_code)]
pub fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// What the allocator says of itself, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Heap {
    /// In use by the program. What threads keep at hand for their next allocations counts, too.
    pub allocated: u64,
    /// Taken from the system, touched or not.
    pub mapped: u64,
}

/// Reads the allocator's counts; `None` where it has none. Walks what is free, one arena after the other, each locked
/// meanwhile.
#[allow(unsafe_code)]
pub fn heap() -> Option<Heap> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo2 takes nothing and only reads, under the allocator's own locks.
        let counts = unsafe { libc::mallinfo2() };
        let bytes = |blocks: usize| (blocks + counts.hblkhd) as u64;
        Some(Heap { allocated: bytes(counts.uordblks), mapped: bytes(counts.arena) })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Gives back to the system what the allocator keeps of freed memory.
#[allow(unsafe_code)]
pub fn give_free_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn hard_limit(resource: Resource) -> u64 {
    read(resource).map_or(0, |limit| limit.rlim_max)
}

#[allow(unsafe_code)]
fn read(resource: Resource) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call only writes to `limit`, which outlives it.
    (unsafe { libc::getrlimit(resource.number() as _, &mut limit) } == 0).then_some(limit)
}

/// Raises the soft limit to the hard one if it is below `wanted`; the soft limit that holds then, 0 if unknown.
#[allow(unsafe_code)]
pub(super) fn raise(resource: Resource, wanted: u64) -> u64 {
    let Some(mut limit) = read(resource) else { return 0 };
    let soft = limit.rlim_cur;
    if soft < wanted && limit.rlim_max > soft {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the call only reads `limit`, which outlives it.
        if unsafe { libc::setrlimit(resource.number() as _, &limit) } != 0 {
            return soft;
        }
    }
    limit.rlim_cur
}
