//! By which names requests are counted: their endpoint, or what answered instead; and the class of their status.
//!
//! Not here: the numbers, which are the host's. No path of a request is ever a name: those are anybody's choice.

/// What answers without an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answerer {
    /// The Engine.IO path.
    Engine = 16,
    Preflight,
    ForeignOrigin,
    Redirect,
    /// No such path, or no such method there.
    Unmatched,
    /// The connection, for a handler that panicked.
    Panicked,
}

/// A name for each endpoint in the order of its table, then for each [`Answerer`].
pub const NAMES: [&str; 22] = [
    "root",
    "health",
    "ready",
    "live_stats",
    "sign_up",
    "link",
    "log_in",
    "profile",
    "edit_profile",
    "queue",
    "reel",
    "history",
    "room_profile",
    "turn_credentials",
    "turn_status",
    "demo",
    "engine",
    "preflight",
    "foreign_origin",
    "redirect",
    "unmatched",
    "panicked",
];

/// Classes of a status, in the order of their first digit.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Places for each name and class.
pub const PLACES: usize = NAMES.len() * CLASSES.len();

/// The place of a name, by its index, and a status.
pub fn place(name: usize, status: u16) -> usize {
    let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
    name * CLASSES.len() + class
}

const _: () = assert!(super::Endpoint::Demo as usize + 1 == Answerer::Engine as usize);
const _: () = assert!(Answerer::Panicked as usize + 1 == NAMES.len());
