//! duet: the self-hosted backend of one-to-one video chat.
pub mod base;
#[cfg(feature = "server")]
pub mod runtime;
