//! Every message that crosses a boundary, as plain owned data: what a browser may say ([`client`]), what it may
//! hear ([`server`]), what homes of users tell each other ([`shard`]), and what is asked of the store ([`store`]).

pub mod client;
pub mod model;
pub mod server;
pub mod shard;
pub mod store;

pub use client::{ClientEvent, Leave};
pub use model::{Card, Gender, PaidStatus};
pub use server::ServerEvent;
pub use shard::{Delta, UserMessage};
