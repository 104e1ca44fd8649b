//! What the process says of itself to its operator: logs, memory, and the form of metrics.

pub mod exposition;
pub mod groups;
pub mod logs;
pub mod manager;
pub mod memory;
