//! What the machine and its limits give this process, read once beside the settings.
//!
//! A plain value, so that tests can bring any machine. Not here: what the kernel allows (`runtime/probe.rs`), and
//! whether a limit is enough (`checks.rs`).

use std::path::Path;

use crate::runtime::{descriptor_limit, locked_memory_limit, usable_cpus};
use crate::telemetry::groups;

/// Limits of the system that settings depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct System {
    /// Bytes of the machine.
    pub machine_memory: Option<u64>,
    /// Bytes that the control groups allow, if less.
    pub group_memory: Option<u64>,
    /// Usable by affinity and quota, at least 1.
    pub cores: usize,
    /// Thousandths of a core that the control groups allow.
    pub group_processor: Option<u64>,
    /// File descriptors, hard limit; 0 if unknown.
    pub descriptors: u64,
    /// Bytes that may be locked, hard limit; 0 if unknown.
    pub locked_memory: u64,
}

impl System {
    /// Reads them.
    pub fn read() -> Self {
        let root = Path::new("/");
        Self {
            machine_memory: groups::machine_memory(root),
            group_memory: groups::memory_limit(root),
            cores: usable_cpus().len(),
            group_processor: groups::processor_limit(root),
            descriptors: descriptor_limit(),
            locked_memory: locked_memory_limit(),
        }
    }

    /// Bytes that this process may have, if anything says so.
    pub fn memory(&self) -> Option<u64> {
        self.group_memory.or(self.machine_memory)
    }

    /// Two cores, a gigabyte, limits that are no hindrance.
    #[cfg(test)]
    pub fn of_tests() -> Self {
        Self {
            machine_memory: Some(8 * 1024 * 1024 * 1024),
            group_memory: Some(1024 * 1024 * 1024),
            cores: 2,
            group_processor: None,
            descriptors: 1_048_576,
            locked_memory: 8 * 1024 * 1024,
        }
    }
}
