//! Ground floor: identities, bounds, counters, values of time and chance, placement.
//!
//! Everything here is plain data that any layer may hold. Nothing reads a clock, draws entropy or does I/O.

pub mod collections;
pub mod counters;
pub mod id;
pub mod limits;
pub mod placement;
pub mod random;
pub mod time;

pub use collections::{Map, Set};
pub use id::{CallId, ConnId, EngineSid, InviteId, ShardId, Token, TokenHash, UserId};
pub use random::Random;
pub use time::Time;
