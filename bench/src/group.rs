//! A control group that bounds a server's memory, as a container of that size does, without swap; of version 2, or of 1.
//!
//! It takes root to make one. It goes when it is dropped; the server must have ended before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::pause;

const NEW_ROOT: &str = "/sys/fs/cgroup";
const OLD_ROOT: &str = "/sys/fs/cgroup/memory";
/// A group can be removed a moment after its last process has ended.
const REMOVALS: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The memory controller in a hierarchy of its own.
    Old,
    /// All controllers in one.
    New,
}

/// The group.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    version: Version,
}

/// What a group holds, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory of its processes that stands in no file.
    pub anonymous: u64,
    /// The kernel's own objects for them: sockets, descriptors, rings.
    pub kernel: u64,
    /// Data in TCP's queues.
    pub queues: u64,
    pub swap: u64,
    /// Processes that were killed because nothing was left.
    pub kills: u64,
}

impl Held {
    /// What cannot be taken away.
    pub fn lasting(&self) -> u64 {
        self.anonymous + self.kernel + self.queues
    }
}

impl Group {
    /// A group of this process's own that may hold so many bytes.
    ///
    /// # Errors
    /// It takes root, and a memory controller.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let version = if Path::new(OLD_ROOT).is_dir() { Version::Old } else { Version::New };
        let root = if version == Version::Old { OLD_ROOT } else { NEW_ROOT };
        let folder = Path::new(root).join(format!("duet-bench-{}", std::process::id()));
        let why = |error: io::Error| format!("a memory control group, which takes root, {}: {error}", folder.display());
        fs::create_dir(&folder).map_err(why)?;
        let group = Self { folder: folder.clone(), version };
        let (limit, swap) = match version {
            // Queues of TCP are counted once they have a limit.
            Version::Old => {
                (["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"].as_slice(), "memory.swappiness")
            }
            Version::New => (["memory.max"].as_slice(), "memory.swap.max"),
        };
        for file in limit {
            fs::write(folder.join(file), bytes.to_string()).map_err(why)?;
        }
        // A kernel without swap has no such file.
        let _ = fs::write(folder.join(swap), "0");
        Ok(group)
    }

    /// The words before a command that let it run in the group.
    pub fn enter(&self) -> Vec<String> {
        let script = format!("echo 0 >'{}/cgroup.procs' && exec \"$@\"", self.folder.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// As it is now.
    pub fn held(&self) -> Held {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let number = |file: &str| read(file).trim().parse().unwrap_or_default();
        let stat = read("memory.stat");
        let of = |text: &str, name: &str| named(text, name).unwrap_or_default();
        match self.version {
            Version::Old => Held {
                anonymous: of(&stat, "total_rss"),
                kernel: number("memory.kmem.usage_in_bytes"),
                queues: number("memory.kmem.tcp.usage_in_bytes"),
                swap: of(&stat, "total_swap"),
                kills: of(&read("memory.oom_control"), "oom_kill"),
            },
            Version::New => Held {
                anonymous: of(&stat, "anon"),
                kernel: of(&stat, "kernel"),
                queues: of(&stat, "sock"),
                swap: number("memory.swap.current"),
                kills: of(&read("memory.events"), "oom_kill"),
            },
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            pause(LOOK_AGAIN);
        }
    }
}

/// The number on the line of this name.
fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let text = "anon_thp 3\nanon 5\nfile 7\n";
        assert_eq!((named(text, "anon"), named(text, "file"), named(text, "kernel")), (Some(5), Some(7), None));
    }
}
