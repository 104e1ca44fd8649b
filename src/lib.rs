//! duet: the self-hosted backend of one-to-one video chat.
pub mod api;
pub mod base;
pub mod domain;
pub mod message;
#[cfg(feature = "server")]
pub mod runtime;
