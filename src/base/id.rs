//! Identities: users, calls, invites and tokens (drawn at random), shards and connections (numbered here).
//!
//! Random ids are UUIDv4 on the wire (contract, head). A connection id carries a generation, so that a late
//! message to a reused slot is dropped instead of reaching a stranger.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Random;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Draws a new id.
            pub fn draw(random: &mut Random) -> Self {
                Self(uuid::Builder::from_random_bytes(random.bytes()).into_uuid())
            }

            /// The id written as `text` (a UUID in any of its usual forms), if it is one.
            pub fn decode(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok().map(Self)
            }

            /// The id stored as these 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes to store.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// A person's account.
    UserId
);
uuid_id!(
    /// A call; `roomId` on the wire.
    CallId
);
uuid_id!(
    /// A pending offer of a call.
    InviteId
);

/// The number of a shard within this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

/// A connection: the shard that owns it, its slot there, and how often that slot was used before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId {
    /// The shard whose slot it is.
    pub shard: ShardId,
    /// The slot.
    pub index: u32,
    /// How many connections held the slot earlier.
    pub generation: u32,
}

/// An Engine.IO session opened by polling: 104 bits of chance and the shard where it began, 20 characters on the wire.
///
/// Any shard finds from it where to ask for the session; who does not know it cannot guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineSid([u8; 15]);

impl EngineSid {
    /// Draws a new id for a session that begins on `shard`.
    pub fn draw(shard: ShardId, random: &mut Random) -> Self {
        let mut bytes: [u8; 15] = random.bytes();
        bytes[13..].copy_from_slice(&shard.0.to_be_bytes());
        Self(bytes)
    }

    /// The id written as `text`; `None` unless it is exactly the form that [`EngineSid::encode`] gives.
    pub fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; 15];
        let is_whole = text.len() == 20 && URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(15);
        is_whole.then_some(Self(bytes))
    }

    /// The 20 characters that a client repeats in each request.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The shard where the session began.
    pub fn shard(&self) -> ShardId {
        ShardId(u16::from_be_bytes([self.0[13], self.0[14]]))
    }
}

/// Like a token, it is all that a client needs to speak for the session: never logged.
impl fmt::Debug for EngineSid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineSid(..)")
    }
}

/// A bearer token: the user it belongs to and a secret of 128 bits, 43 characters of base64url on the wire.
///
/// The user id inside lets any shard find the home shard before anything is looked up. Never logged: `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    user: UserId,
    secret: [u8; 16],
}

/// What the store keeps of a token: the SHA-256 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash(pub [u8; 32]);

impl Token {
    /// Draws a new token for `user`.
    pub fn draw(user: UserId, random: &mut Random) -> Self {
        Self { user, secret: random.bytes() }
    }

    /// The token written as `text`; `None` unless it is exactly the form that [`Token::encode`] gives.
    pub fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 43 || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(32) {
            return None;
        }
        let (user, secret) = bytes.split_at(16);
        Some(Self { user: UserId::from_bytes(user.try_into().ok()?), secret: secret.try_into().ok()? })
    }

    /// The 43 characters that a client keeps.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes())
    }

    /// The user it claims to belong to; only the store can confirm it.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// What the store knows it by.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.bytes()).into())
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(self.user.as_bytes());
        bytes[16..].copy_from_slice(&self.secret);
        bytes
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_refuses_other_forms() {
        let mut random = Random::from_seed(1);
        let token = Token::draw(UserId::draw(&mut random), &mut random);
        let text = token.encode();
        assert_eq!(text.len(), 43);
        assert_eq!(Token::decode(&text), Some(token));
        for bad in ["", "x", &text[..42], &format!("{text}A"), &text.replace(&text[..1], "!"), "ä".repeat(21).as_str()]
        {
            assert_eq!(Token::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn engine_sid_round_trips_and_names_its_shard() {
        let sid = EngineSid::draw(ShardId(513), &mut Random::from_seed(3));
        let text = sid.encode();
        assert_eq!((text.len(), sid.shard(), EngineSid::decode(&text)), (20, ShardId(513), Some(sid)));
        for bad in ["", &text[..19], &format!("{text}A"), &text.replace(&text[..1], "!")] {
            assert_eq!(EngineSid::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_are_uuid_version_4() {
        let id = CallId::draw(&mut Random::from_seed(2)).to_string();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
    }
}
