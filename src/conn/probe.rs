//! A WebSocket that wants to take over a session that polls: `2probe`, `3probe`, `5` (Engine.IO v4, upgrade).
//!
//! It belongs to no session before the last of these. Whatever else it says closes it, and the session goes on polling.

use super::frames::{Failure, Frames, MALFORMED, Message};
use super::socket::Closing;
use super::{CloseReason, Context, Output, Stage, Step};
use crate::base::limits::UPGRADE_TIMEOUT_MS;
use crate::base::{EngineSid, Time};
use crate::wire::engineio;
use crate::wire::websocket::{self, Control, OpCode};

/// The WebSocket on trial.
pub(super) struct Probe {
    sid: EngineSid,
    pub until: Time,
    state: State,
    frames: Frames,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Opened,
    Probed,
    /// With the caller, who gives it to the session.
    Upgraded,
}

impl Probe {
    /// After the handshake was answered.
    pub fn new(now: Time, sid: EngineSid) -> Self {
        Self { sid, until: now + UPGRADE_TIMEOUT_MS, state: State::Opened, frames: Frames::default() }
    }

    /// Whether it is with the caller: what follows is for the session to read.
    pub fn is_asked(&self) -> bool {
        self.state == State::Upgraded
    }

    /// Bytes held in memory of its own.
    pub fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }

    /// Takes the next frame.
    pub fn step(&mut self, context: &mut Context, bytes: &mut [u8]) -> Step {
        if self.is_asked() {
            return Step::Wait;
        }
        let (sid, state, outbox) = (self.sid, &mut self.state, &mut *context.outbox);
        let taken = self.frames.next(bytes, context.settings.message_bytes_max, |message| match message {
            Message::Text(engineio::PROBE) if *state == State::Opened => {
                *state = State::Probed;
                outbox.write(websocket::encode_text(&[engineio::PROBE_ANSWER.as_bytes()]));
                outbox.push(Output::Probed(sid));
                Ok(None)
            }
            Message::Text(engineio::UPGRADE) if *state == State::Probed => {
                *state = State::Upgraded;
                outbox.push(Output::Upgraded(sid));
                Ok(None)
            }
            Message::Ping(payload) => {
                outbox.write_pong(websocket::encode_frame(OpCode::Control(Control::Pong), &[payload]));
                Ok(None)
            }
            Message::Pong | Message::Unfinished => Ok(None),
            Message::Close(payload) => websocket::decode_close(payload)
                .map(|code| {
                    outbox.write(websocket::encode_close(code));
                    outbox.push(Output::Close(CloseReason::PeerClosed));
                    Some(Stage::Closed)
                })
                .map_err(|code| CloseReason::ProtocolError(code.into())),
            Message::Text(_) | Message::Binary(_) => Err(MALFORMED),
        });
        match taken {
            Ok(None) => Step::Wait,
            Ok(Some((length, None))) => Step::Used(length),
            Ok(Some((length, Some(stage)))) => Step::Become(length, stage),
            Err(failure) => Step::Become(bytes.len(), close(context, failure)),
        }
    }
}

/// Ends the trial; the session does not notice.
pub(super) fn close(context: &mut Context, reason: Failure) -> Stage {
    context.outbox.write(websocket::encode_close(Some(reason.code())));
    let until = context.now + context.settings.close_timeout_ms;
    Stage::Closing(Closing { until, reason, is_deaf: true })
}
