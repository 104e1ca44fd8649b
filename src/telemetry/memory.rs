//! The process's memory: what the allocator has handed out and taken, and what the kernel counts.

use crate::runtime::{Heap, heap};

/// What is resident and not allocated: code, stacks, some of what was freed. Over this, too much of that is kept, bytes.
const IDLE_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Bytes; 0 where nobody tells.
#[derive(Clone, Copy, Default, Debug)]
pub struct Memory {
    /// In use by the program.
    pub allocated: u64,
    /// Taken from the system for that by the allocator, touched or not.
    pub mapped: u64,
    /// All resident pages: those of the heap that were touched, stacks, code.
    pub resident: u64,
}

impl Memory {
    /// Asks the allocator, and the kernel through `/proc/self/status`. Where the allocator has no counts, the kernel's
    /// for anonymous pages and for address space stand in for them.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let bytes = |name| field(name).unwrap_or(0);
        let kernels = || Heap { allocated: bytes("RssAnon:"), mapped: bytes("VmData:") };
        let Heap { allocated, mapped } = heap().unwrap_or_else(kernels);
        Self { allocated, mapped, resident: bytes("VmRSS:") }
    }

    /// Whether the allocator keeps so much of what was freed that it is worth some milliseconds to have it back.
    pub fn is_hoarded(self) -> bool {
        self.resident.saturating_sub(self.allocated) > IDLE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_and_what_is_freed_is_not() {
        const BYTES: u64 = 256 * 1024 * 1024;
        let before = Memory::read();
        let block = std::hint::black_box(vec![1_u8; BYTES as usize]);
        let held = Memory::read();
        drop(block);
        let after = Memory::read();
        for (name, before, held, after) in [
            ("allocated", before.allocated, held.allocated, after.allocated),
            ("mapped", before.mapped, held.mapped, after.mapped),
            ("resident", before.resident, held.resident, after.resident),
        ] {
            // Other tests of this process allocate meanwhile, but not so much.
            assert!(
                before > 0 && held > before + BYTES / 2 && after < held - BYTES / 2,
                "{name}: {before} {held} {after}"
            );
        }
        assert!(held.allocated <= held.mapped, "{held:?}");
    }
}
