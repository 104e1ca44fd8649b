//! What must come before the first request where a proxy passes connections on: its PROXY header, and in time.
//!
//! It is never guessed whether there is one. Without it, or with one that is not believed, the connection is dropped
//! without a word: who speaks is unknown. Bound: the header's own (`wire/proxy.rs`).

use super::http::Http;
use super::{CloseReason, Context, Stage, Step};
use crate::base::Time;
use crate::wire::proxy::{Speaker, decode, is_secure};

/// Waiting for the header.
pub(super) struct Preface {
    /// It must be whole by then.
    pub until: Time,
}

impl Preface {
    /// Reads the header; what follows is the client's own.
    pub fn step(&self, context: &mut Context, bytes: &[u8]) -> Step {
        let (speaker, used) = match decode(bytes) {
            Ok(None) => return Step::Wait,
            Ok(Some(header)) if is_believed(context, header.0) => header,
            Ok(Some(_)) | Err(_) => return Step::Become(bytes.len(), context.closed(CloseReason::BadProxyHeader)),
        };
        if let Speaker::Client(address) = speaker {
            (*context.peer, *context.address) = (address, address);
        }
        let until = context.now + context.settings.head_timeout_ms;
        Step::Become(used, Stage::Http(Http::new(until, is_secure(&bytes[..used]))))
    }

    /// Gives up on who is late.
    pub fn timeout(&self, context: &mut Context) -> Option<Stage> {
        (self.until <= context.now).then(|| context.closed(CloseReason::HeadTimeout))
    }
}

/// A peer that is no proxy of ours may say that it speaks for itself, and nothing else.
fn is_believed(context: &Context, speaker: Speaker) -> bool {
    speaker == Speaker::Sender || context.settings.trusts(*context.peer)
}
