//! duet: the self-hosted backend of one-to-one video chat.
pub mod base;
pub mod cache;
#[cfg(feature = "server")]
pub mod hashing;
#[cfg(feature = "server")]
pub mod link;
pub mod message;
#[cfg(feature = "server")]
pub mod store;
