//! What the process says of itself to its operator: logs and memory. Metrics come later.

pub mod groups;
pub mod logs;
pub mod manager;
pub mod memory;
