//! Finds out, before any shard starts, whether glommio can run here: it panics, or ends the process, where io_uring is refused.
//! A kernel that has no ring of ours ([`super::ring`], since 6.1) gets epoll, which is faster than glommio's own streams.
//!
//! Owned by: boot (and `duet doctor`), once. Bound: four rings per shard, held for the length of the call, then one short-lived executor.
//! Not here: the choice's parsing, logging of the outcome, any fallback after the start.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use super::driver::Driver;
use super::resources::{self, Resource};
use super::{Choice, Kind};

/// Locked memory glommio insists on per process, in bytes, whoever runs it (glommio `sys/uring.rs`, `MIN_MEMLOCK_LIMIT`).
pub const MEMLOCK_MIN_BYTES: u64 = 512 * 1024;

/// Entries of each of glommio's rings (its default).
const RING_ENTRIES: libc::c_uint = 128;

/// glommio's three rings of one executor: main, poll and latency; flag 1 is `IORING_SETUP_IOPOLL`.
const RING_FLAGS: [u32; 3] = [0, 1, 0];

/// Operations glommio ends the process for when the kernel lacks one (`GLOMMIO_URING_OPS`), and `ASYNC_CANCEL` (14), which its drops use.
const OPERATIONS: [usize; 24] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 26, 27];

/// Which runtime the shards will use, and why, in words for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What to pass to [`spawn_shard`](super::spawn_shard).
    pub kind: Kind,
    /// Such as `io_uring_setup refused: EPERM (...), using epoll`.
    pub reason: String,
}

/// Decides on a runtime for `shards` shards by attempting what would fail: the rings of all of them, then one real executor.
///
/// Raises the soft limit of locked memory to the hard one where glommio needs it.
///
/// # Errors
/// One line, when io_uring is asked for and impossible.
pub fn probe(choice: Choice, shards: usize) -> Result<Probe, String> {
    if choice == Choice::Epoll {
        return Ok(Probe { kind: Kind::Epoll, reason: "epoll asked for".to_owned() });
    }
    match (attempt_apart(shards.max(1)), choice) {
        (Ok(()), Choice::Uring) => {
            Ok(Probe { kind: Kind::Uring, reason: "io_uring asked for and available".to_owned() })
        }
        (Ok(()), _) => Ok(Probe { kind: Kind::Uring, reason: "io_uring available".to_owned() }),
        (Err(refusal), Choice::Uring) => Err(format!("io_uring asked for but {refusal}")),
        (Err(refusal), _) => Ok(Probe { kind: Kind::Epoll, reason: format!("{refusal}, using epoll") }),
    }
}

/// [`attempt`] on a thread of its own: some milliseconds after a ring has ended the kernel interrupts the thread that made
/// it, whatever that waits for then (`EINTR`; a socket's timeout keeps the call from being restarted, signal(7)).
fn attempt_apart(shards: usize) -> Result<(), String> {
    let thread = thread::Builder::new().name("probe".to_owned()).spawn(move || attempt(shards));
    let thread = thread.map_err(|error| format!("no thread could be had to try: {error}"))?;
    thread.join().unwrap_or_else(|_| Err("the attempt panicked".to_owned()))
}

/// Why io_uring cannot be used here, if it cannot.
fn attempt(shards: usize) -> Result<(), String> {
    let first = set_up(RING_FLAGS[0]).map_err(|error| refusal(&error))?;
    check_operations(&first)?;
    raise_memlock()?;
    let mut rings = vec![first];
    for flags in (0..shards).flat_map(|_| RING_FLAGS).skip(1) {
        let ring = set_up(flags).map_err(|error| {
            format!(
                "only {} of the {} rings of {shards} shards could be made: {}",
                rings.len(),
                shards * RING_FLAGS.len(),
                refusal(&error)
            )
        })?;
        rings.push(ring);
    }
    let completion = (0..shards).map(|_| Driver::new()).collect::<io::Result<Vec<_>>>();
    let completion = completion.map_err(|error| {
        format!("a ring for connections could not be made: {} (kernel older than 6.1?)", describe(&error))
    })?;
    drop((rings, completion));
    run_executor()
}

/// Words for the refusal of a ring, with the cause where the kernel tells it.
fn refusal(error: &io::Error) -> String {
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let cause = match (error.raw_os_error(), setting.trim()) {
        (Some(libc::EPERM), disabled @ ("1" | "2")) => {
            format!(" (kernel.io_uring_disabled={disabled})")
        }
        (Some(libc::EPERM), _) => " (seccomp or container policy?)".to_owned(),
        (Some(libc::ENOSYS), _) => " (kernel without io_uring, or a sandbox)".to_owned(),
        (Some(libc::ENOMEM), _) => " (locked memory limit?)".to_owned(),
        _ => String::new(),
    };
    format!("io_uring_setup refused: {}{cause}", describe(error))
}

/// The error's symbolic name, which is what one searches for.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::ENOSYS) => "ENOSYS".to_owned(),
        Some(libc::ENOMEM) => "ENOMEM".to_owned(),
        Some(libc::EINVAL) => "EINVAL".to_owned(),
        Some(libc::EMFILE) => "EMFILE".to_owned(),
        _ => error.to_string(),
    }
}

/// Makes one ring; dropping the descriptor ends it.
#[allow(unsafe_code)]
fn set_up(flags: u32) -> io::Result<OwnedFd> {
    // struct io_uring_params is 30 words, the third of which holds the flags; the kernel fills in the rest.
    let mut params = [0_u32; 30];
    params[2] = flags;
    // SAFETY: the kernel writes within the 120 bytes of the structure, which outlives the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_io_uring_setup, RING_ENTRIES, params.as_mut_ptr()) };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the ring which operations the kernel has.
#[allow(unsafe_code)]
fn check_operations(ring: &OwnedFd) -> Result<(), String> {
    const REGISTER_PROBE: libc::c_uint = 8;
    const COUNT: usize = 256;
    // struct io_uring_probe: a head of 16 bytes, then 8 bytes per operation, whose flags begin at the third.
    let mut report = [[0_u8; 8]; 2 + COUNT];
    // SAFETY: the kernel writes at most COUNT operations after the head, all within `report`, which outlives the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            report.as_mut_ptr(),
            COUNT as libc::c_uint,
        )
    };
    if status < 0 {
        return Err(format!(
            "io_uring_register refused: {} (kernel older than 5.8?)",
            describe(&io::Error::last_os_error())
        ));
    }
    let supported = |operation: &usize| report[2 + operation][2] & 1 == 1;
    match OPERATIONS.iter().find(|operation| !supported(operation)) {
        None => Ok(()),
        Some(operation) => Err(format!("the kernel's io_uring lacks operation {operation} (kernel older than 5.8?)")),
    }
}

/// Lifts the soft limit of locked memory as far as glommio needs and the hard limit allows.
fn raise_memlock() -> Result<(), String> {
    let have = resources::raise(Resource::LockedMemory, MEMLOCK_MIN_BYTES);
    if have >= MEMLOCK_MIN_BYTES {
        return Ok(());
    }
    let (have, need) = (have / 1024, MEMLOCK_MIN_BYTES / 1024);
    Err(format!("the locked memory limit (ulimit -l) is {have} KiB and io_uring needs {need} KiB"))
}

/// Lets a real shard sleep and wake once, on a thread that may panic.
fn run_executor() -> Result<(), String> {
    let trial = || super::sleep(Duration::from_millis(1));
    let thread = super::spawn_shard(Kind::Uring, "probe".to_owned(), None, trial);
    let thread = thread.map_err(|error| format!("glommio could not start: {error}"))?;
    thread.join().map_err(|_| "glommio panicked while starting".to_owned())
}
