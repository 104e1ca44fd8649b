//! The store: the suite that every database must pass, what is SQLite's own (files, locks, crashes, full disks), and what
//! is Postgres's own (TLS, schema, a server that goes away).
#![cfg(feature = "server")]

#[path = "store/journal.rs"]
mod journal;
#[path = "store/owners.rs"]
mod owners;
#[path = "store/postgres.rs"]
mod postgres;
#[path = "store/proxy.rs"]
mod proxy;
#[path = "store/running.rs"]
mod running;
#[path = "store/schema.rs"]
mod schema;
#[path = "store/sqlite.rs"]
mod sqlite;
#[path = "store/suite.rs"]
mod suite;
#[path = "store/world.rs"]
mod world;
