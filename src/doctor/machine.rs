//! The doctor's look at the machine: kernel, io_uring, limits, control groups, clock.

use std::fs::read_to_string;

use super::Finding;
use crate::base::Time;
use crate::config::{Config, System};
use crate::runtime::probe::{MEMLOCK_MIN_BYTES, probe};
use crate::runtime::{Choice, Kind, is_clock_synchronised};
use crate::shard::clock::Clock;

/// The first kernel on which connections are received by io_uring (`runtime/ring.rs`).
const URING_KERNEL: (u32, u32) = (6, 1);
/// This code is younger: 2025-01-01, ms since the epoch.
const PAST_MS: u64 = 1_735_689_600_000;
/// Nobody runs it so long: 2100-01-01.
const FUTURE_MS: u64 = 4_102_444_800_000;
/// So far the wall clock may drift from the monotonic one while the doctor looks around, ms.
const STEP_MS_MAX: u64 = 250;

pub(super) fn kernel() -> Finding {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(version) if version >= URING_KERNEL => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::warning(
            "kernel",
            format!("Linux {release}, older than 6.1"),
            "it works by epoll; io_uring needs Linux 6.1 or later",
        ),
        None => Finding::warning("kernel", format!("unknown release {release:?}"), "duet is for Linux 6.1 or later"),
    }
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn ring(config: &Config) -> Finding {
    match probe(config.runtime, usize::from(config.shards)) {
        Ok(probe) if probe.kind == Kind::Uring || config.runtime == Choice::Epoll => {
            Finding::ok("io_uring", probe.reason)
        }
        Ok(probe) => Finding::warning("io_uring", probe.reason.clone(), advice(&probe.reason)),
        Err(reason) => {
            let advice = format!("{}; or set RUNTIME=auto, which falls back to epoll", advice(&reason));
            Finding::error("io_uring", reason, advice)
        }
    }
}

/// What to do about a refusal, by the words of the probe.
fn advice(reason: &str) -> &'static str {
    if reason.contains("io_uring_disabled") {
        "set kernel.io_uring_disabled to 0 (sysctl), or stay on epoll"
    } else if reason.contains("locked memory") {
        "raise the locked memory limit (ulimit -l, LimitMEMLOCK= in systemd, --ulimit memlock= in Docker)"
    } else if reason.contains("seccomp") || reason.contains("sandbox") {
        "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, or stay on epoll"
    } else {
        "take Linux 6.1 or later and a container that allows io_uring, or stay on epoll"
    }
}

pub(super) fn locked_memory(system: &System) -> Finding {
    match system.locked_memory {
        u64::MAX => Finding::ok("memlock", "no limit"),
        bytes if bytes >= MEMLOCK_MIN_BYTES => Finding::ok("memlock", format!("{} KiB", bytes / 1024)),
        bytes => Finding::warning(
            "memlock",
            format!("{} KiB, io_uring needs {}", bytes / 1024, MEMLOCK_MIN_BYTES / 1024),
            "raise it (ulimit -l, LimitMEMLOCK= in systemd, --ulimit memlock= in Docker), or stay on epoll",
        ),
    }
}

pub(super) fn descriptors(config: &Config, system: &System) -> Finding {
    let (limit, connections) = (system.descriptors, config.connections_max);
    match limit {
        0 => Finding::warning("descriptors", "the limit is unknown", "see that ulimit -Hn is above the connections"),
        limit if limit <= connections as u64 => Finding::error(
            "descriptors",
            format!("{limit}, not enough for {connections} connections"),
            "raise the limit (ulimit -Hn, LimitNOFILE= in systemd, --ulimit nofile= in Docker)",
        ),
        limit => Finding::ok("descriptors", format!("{limit}, for {connections} connections")),
    }
}

pub(super) fn memory(config: &Config, system: &System) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let plan = config.plan;
    let found = match (system.group_memory, system.machine_memory) {
        (Some(group), _) => format!("{} by control group, plan {}", mib(group), plan.name),
        (None, Some(machine)) => format!("{} of the machine, no control group, plan {}", mib(machine), plan.name),
        (None, None) => {
            return Finding::warning("memory", "nobody tells how much there is", "set MEMORY_LIMIT_MIB and PLAN");
        }
    };
    if system.memory().is_some_and(|memory| plan.fits(memory)) {
        return Finding::ok("memory", found);
    }
    Finding::warning("memory", format!("{found}, which needs more"), "give it more memory, or take a smaller plan")
}

pub(super) fn processors(config: &Config, system: &System) -> Finding {
    let quota = system.group_processor.map(|milli| format!(", {}.{:03} by control group", milli / 1000, milli % 1000));
    let found = format!("{} usable{}, {} shards", system.cores, quota.unwrap_or_default(), config.shards);
    match system.group_processor {
        Some(milli) if milli < 1000 => Finding::warning(
            "processors",
            found,
            "below one core the kernel stops all shards for part of each period: give it a whole core",
        ),
        _ if usize::from(config.shards) > system.cores => {
            Finding::warning("processors", found, "leave SHARDS at auto: shards without a core wait for each other")
        }
        _ => Finding::ok("processors", found),
    }
}

/// Looks at the wall clock; `clock` was started when the doctor came.
pub(super) fn clock(clock: &Clock) -> Finding {
    judge(Clock::start().now(), clock.now(), is_clock_synchronised())
}

/// `steady` is what the wall clock said when the doctor came, advanced by the monotonic clock.
fn judge(wall: Time, steady: Time, is_synchronised: Option<bool>) -> Finding {
    let synchronise =
        "synchronise it (chrony, systemd-timesyncd, or the host's): TURN credentials and sessions expire by it";
    if !(PAST_MS..FUTURE_MS).contains(&wall.0) {
        return Finding::error("clock", format!("{} s since 1970 cannot be", wall.0 / 1000), synchronise);
    }
    let step = (wall - steady).max(steady - wall);
    if step > STEP_MS_MAX {
        return Finding::warning("clock", format!("it was set by {step} ms just now"), synchronise);
    }
    match is_synchronised {
        Some(true) => Finding::ok("clock", "plausible, steady, synchronised"),
        Some(false) => Finding::warning("clock", "plausible and steady, but nothing synchronises it", synchronise),
        None => Finding::ok("clock", "plausible and steady; whether it is synchronised the kernel does not tell"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.153.1-microsoft-standard-WSL2"), Some((5, 15)));
        assert!(version("10.0.1").unwrap() > URING_KERNEL);
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn a_clock_is_judged_by_plausibility_steps_and_synchronisation() {
        let now = Time(PAST_MS + 1_000_000);
        let verdict = |wall, steady, synchronised| judge(wall, steady, synchronised).verdict;
        assert_eq!(verdict(now, now, Some(true)), Verdict::Ok);
        assert_eq!(verdict(now, now, None), Verdict::Ok);
        assert_eq!(verdict(now, now, Some(false)), Verdict::Warning);
        assert_eq!(verdict(now, now + 10_000, Some(true)), Verdict::Warning);
        assert_eq!(verdict(now + 10_000, now, Some(true)), Verdict::Warning);
        assert_eq!(verdict(Time(1_000), Time(1_000), Some(true)), Verdict::Error);
    }

    #[test]
    fn every_refusal_has_its_advice() {
        for (reason, word) in [
            ("io_uring_setup refused: EPERM (kernel.io_uring_disabled=2)", "sysctl"),
            ("io_uring_setup refused: EPERM (seccomp or container policy?), using epoll", "seccomp profile"),
            ("the locked memory limit (ulimit -l) is 64 KiB and io_uring needs 512 KiB", "LimitMEMLOCK"),
            ("the kernel's io_uring lacks operation 27 (kernel older than 5.8?)", "6.1"),
        ] {
            assert!(advice(reason).contains(word), "{reason}");
        }
    }
}
