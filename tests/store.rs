//! The store: the suite that every database must pass, and what is SQLite's own: files, locks, crashes, full disks.
#![cfg(feature = "server")]

#[path = "store/sqlite.rs"]
mod sqlite;
#[path = "store/suite.rs"]
mod suite;
#[path = "store/world.rs"]
mod world;
