//! The hash containers of the core: seedless, so that a run can be replayed from its seed.
//!
//! For keys that we drew ourselves (user, call, connection). A key that a peer chooses (an address, an e-mail)
//! belongs in a `BTreeMap`, where it cannot be chosen to collide.

/// A hash map whose iteration order depends only on its history.
#[allow(clippy::disallowed_types)]
pub type Map<K, V> = std::collections::HashMap<K, V, rustc_hash::FxBuildHasher>;

/// A hash set whose iteration order depends only on its history.
#[allow(clippy::disallowed_types)]
pub type Set<K> = std::collections::HashSet<K, rustc_hash::FxBuildHasher>;
