//! The product's rules.
pub mod rate;
