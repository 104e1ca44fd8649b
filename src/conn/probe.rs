//! A WebSocket that wants to take over a session that polls: `2probe`, `3probe`, `5` (Engine.IO v4, upgrade).
//!
//! It belongs to no session before the last of these. Whatever else it says closes it, and the session goes on polling.

use super::deflation::Deflation;
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
    pub fn new(now: Time, sid: EngineSid, deflation: Option<Deflation>) -> Self {
        Self { sid, until: now + UPGRADE_TIMEOUT_MS, state: State::Opened, frames: Frames::new(deflation) }
    }

    /// What the frames that follow are read with.
    pub fn into_frames(self) -> Frames {
        self.frames
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
        match self.frames.next(bytes, context.settings.message_bytes_max) {
            Ok(None) => Step::Wait,
            Ok(Some((length, message))) => match self.receive(context, message) {
                Ok(None) => Step::Used(length),
                Ok(Some(stage)) => Step::Become(length, stage),
                Err(failure) => Step::Become(length, close(context, failure)),
            },
            Err(failure) => Step::Become(bytes.len(), close(context, failure)),
        }
    }

    fn receive(&mut self, context: &mut Context, message: Message) -> Result<Option<Stage>, Failure> {
        match message {
            Message::Text(text) if text == engineio::PROBE && self.state == State::Opened => {
                self.state = State::Probed;
                context.outbox.write(websocket::encode_text(&[engineio::PROBE_ANSWER.as_bytes()]));
                context.outbox.push(Output::Probed(self.sid));
            }
            Message::Text(text) if text == engineio::UPGRADE && self.state == State::Probed => {
                self.state = State::Upgraded;
                context.outbox.push(Output::Upgraded(self.sid));
            }
            Message::Ping(payload) => {
                let pong = websocket::encode_frame(OpCode::Control(Control::Pong), &[payload]);
                context.outbox.write_pong(pong);
            }
            Message::Pong | Message::Unfinished => {}
            Message::Close(payload) => {
                let code = websocket::decode_close(payload).map_err(|code| CloseReason::ProtocolError(code.into()))?;
                context.outbox.write(websocket::encode_close(code));
                return Ok(Some(context.closed(CloseReason::PeerClosed)));
            }
            Message::Text(_) | Message::Binary(_) => return Err(MALFORMED),
        }
        Ok(None)
    }
}

/// Ends the trial; the session does not notice.
pub(super) fn close(context: &mut Context, reason: Failure) -> Stage {
    context.outbox.write(websocket::encode_close(Some(reason.code())));
    let until = context.now + context.settings.close_timeout_ms;
    Stage::Closing(Closing { until, reason, is_deaf: true })
}
