//! The compression of one WebSocket's messages, by what its handshake agreed on (RFC 7692).
//!
//! Without context takeover a connection owns nothing for it: the compressor and the decompressor are one each per
//! thread, and a message that goes to many is compressed once. With takeover it owns up to 312 KiB and 32 KiB.

use std::cell::RefCell;

use bytes::Bytes;

use super::CloseReason;
use super::frames::Failure;
use super::settings::Settings;
use crate::base::limits::DEFLATE_BYTES_MAX;
use crate::wire::deflate::{Agreement, Deflater, InflateError, Inflater, Window};
use crate::wire::websocket::{Data, encode_compressed};

/// What a connection remembers of the agreement.
pub(super) struct Deflation {
    window_bits: u8,
    /// Only with context takeover.
    own: Option<Box<Own>>,
}

/// The contexts that go on from one message to the next.
struct Own {
    deflater: Option<Deflater>,
    window: Option<Window>,
}

/// What all connections of a thread use in turn. No message leaves a trace in it that another could refer to.
#[derive(Default)]
struct Shared {
    /// With its level.
    deflater: Option<(u8, Deflater)>,
    inflater: Inflater,
    last: Option<Last>,
}

/// The last message that may go to many: what it was made of, and its frame.
struct Last {
    prefix: &'static str,
    event_json: Bytes,
    window_bits: u8,
    frame: Option<Bytes>,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

impl Deflation {
    /// As agreed.
    pub fn new(agreement: &Agreement, settings: &Settings) -> Self {
        let deflater = agreement.server_keeps_context.then(|| Deflater::new(settings.deflate.level, true));
        let window = agreement.client_keeps_context.then(|| Window::new(agreement.client_window_bits()));
        let is_owner = deflater.is_some() || window.is_some();
        let own = is_owner.then(|| Box::new(Own { deflater, window }));
        Self { window_bits: agreement.server_window_bits(), own }
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        self.own.as_ref().map_or(0, |own| {
            let deflater = own.deflater.as_ref().map_or(0, Deflater::held_bytes);
            deflater + own.window.as_ref().map_or(0, Window::held_bytes)
        })
    }

    /// The message of a compressed payload.
    ///
    /// # Errors
    /// It is longer than `bytes_max`, or suspiciously longer than its payload; or it is not deflated data.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let window = self.own.as_mut().and_then(|own| own.window.as_mut());
        let inflated = SHARED.with_borrow_mut(|shared| shared.inflater.inflate(payload, window, bytes_max));
        inflated.map_err(|error| match error {
            InflateError::TooBig => CloseReason::MessageTooBig,
            InflateError::Corrupt => CloseReason::ProtocolError(1007),
        })
    }

    /// The compressed frame of a message in parts; `None` when it is better sent as it is.
    pub fn frame(&mut self, settings: &Settings, kind: Data, parts: &[&[u8]]) -> Option<Bytes> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let compresses_all = settings.deflate_bytes_min == 0;
        if !compresses_all && !(settings.deflate_bytes_min..=DEFLATE_BYTES_MAX).contains(&length) {
            return None;
        }
        if let Some(deflater) = self.own.as_mut().and_then(|own| own.deflater.as_mut()) {
            // What was compressed has changed the context: the peer has to see it, however long it is.
            return Some(encode_compressed(kind, &deflater.deflate(parts, self.window_bits)));
        }
        let payload = SHARED.with_borrow_mut(|shared| {
            let level = settings.deflate.level;
            if shared.deflater.as_ref().is_none_or(|(other, _)| *other != level) {
                shared.deflater = Some((level, Deflater::new(level, false)));
            }
            shared.deflater.as_mut().map(|(_, deflater)| deflater.deflate(parts, self.window_bits))
        })?;
        (compresses_all || payload.len() < length).then(|| encode_compressed(kind, &payload))
    }

    /// [`Deflation::frame`] for an event that may go to many connections one after the other.
    pub fn event_frame(&mut self, settings: &Settings, prefix: &'static str, event_json: &Bytes) -> Option<Bytes> {
        let parts = [prefix.as_bytes(), event_json];
        if self.own.is_some() || prefix.len() + event_json.len() < settings.deflate_bytes_min {
            return self.frame(settings, Data::Text, &parts);
        }
        let known = SHARED.with_borrow(|shared| {
            let last = shared.last.as_ref().filter(|last| last.is_of(prefix, event_json, self.window_bits));
            last.map(|last| last.frame.clone())
        });
        known.unwrap_or_else(|| {
            let frame = self.frame(settings, Data::Text, &parts);
            let (event_json, window_bits) = (event_json.clone(), self.window_bits);
            let last = Last { prefix, event_json, window_bits, frame: frame.clone() };
            SHARED.with_borrow_mut(|shared| shared.last = Some(last));
            frame
        })
    }
}

impl Last {
    /// Whether it is of the same bytes in memory, which it keeps from being reused.
    fn is_of(&self, prefix: &str, event_json: &Bytes, window_bits: u8) -> bool {
        let place = |bytes: &Bytes| (bytes.as_ptr(), bytes.len());
        (self.prefix, self.window_bits) == (prefix, window_bits) && place(&self.event_json) == place(event_json)
    }
}
