//! How full the process's memory is, and in which words operators are told.
//!
//! Reading and judging only: boot asks on a timer, and has caches shrunk and connections refused where it must be. The
//! limit and the thresholds are settings.

/// From where on, as a share of the limit, percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Memory is short.
    pub warning: u8,
    /// Something has to be done. More than `warning`.
    pub critical: u8,
}

/// How full the memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    /// Of so many resident bytes; without a limit all is well.
    pub fn of(resident: u64, limit: Option<u64>, thresholds: Thresholds) -> Self {
        let Some(limit) = limit else { return Self::Ok };
        match resident.saturating_mul(100) / limit.max(1) {
            share if share >= u64::from(thresholds.critical) => Self::Critical,
            share if share >= u64::from(thresholds.warning) => Self::Warning,
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn levels_follow_the_share_of_the_limit() {
        let thresholds = Thresholds { warning: 75, critical: 90 };
        let level = |mib| Level::of(mib * MIB, Some(100 * MIB), thresholds);
        assert_eq!([level(0), level(74), level(75), level(89), level(90), level(1_000)], {
            use Level::{Critical, Ok, Warning};
            [Ok, Ok, Warning, Warning, Critical, Critical]
        });
        assert_eq!(
            (Level::of(u64::MAX, None, thresholds), Level::of(1, Some(0), thresholds)),
            (Level::Ok, Level::Critical)
        );
    }

    #[test]
    fn lines_read_as_operators_know_them() {
        let line = Level::Ok.line(173_487_063, Some(220 * MIB));
        assert_eq!(line, "[MemoryManager] 🟢 OK: 165.45 MB / 220.00 MB");
        assert!(Level::Critical.line(MIB, None).ends_with("CRITICAL: 1.00 MB / no limit"));
    }
}
