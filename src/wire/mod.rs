//! Bytes to packets and back, as pure functions: HTTP/1.1 and its content codings, the WebSocket handshake and frames,
//! permessage-deflate, Engine.IO, Socket.IO; the PROXY protocol; and STUN's binding request.
//!
//! Stateless: what a codec must remember between two reads is a value that its caller keeps (`conn/`). Nothing here
//! buffers input, knows a user, or does I/O. What a peer sent is never asserted: it is refused by value.

pub mod deflate;
pub mod encoding;
pub mod engineio;
pub mod forwarded;
pub mod http;
pub mod proxy;
pub mod socketio;
pub mod stun;
pub mod upgrade;
pub mod websocket;
