//! The duet server.
fn main() {}
