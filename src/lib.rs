//! duet: the self-hosted backend of one-to-one video chat.
pub mod base;
pub mod conn;
pub mod message;
pub mod wire;
