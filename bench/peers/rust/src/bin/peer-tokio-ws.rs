//! The raw WebSocket peer on tokio, axum and fastwebsockets: echo; a message that starts with `*` goes to every
//! connection.
//!
//! Each connection has a task that reads and echoes and one that writes what goes to all; a client that falls too far
//! behind misses the oldest of these.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use fastwebsockets::upgrade::{IncomingUpgrade, UpgradeFut};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};

const BEHIND_MAX: usize = 1024;

#[derive(Clone)]
struct Message {
    opcode: OpCode,
    content: Arc<[u8]>,
}

type Everybody = broadcast::Sender<Message>;

fn main() -> io::Result<()> {
    duet_peers::runtime()?.block_on(async {
        let listener = TcpListener::from_std(duet_peers::listen()?)?;
        let routes = Router::new().route("/", get(upgrade)).with_state(Everybody::new(BEHIND_MAX));
        axum::serve(listener, routes).await
    })
}

async fn upgrade(State(everybody): State<Everybody>, incoming: IncomingUpgrade) -> impl IntoResponse {
    let (response, upgrading) = incoming.upgrade().map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    // An error is the end of its connection, and nothing else.
    tokio::spawn(serve(upgrading, everybody));
    Ok::<_, (StatusCode, String)>(response)
}

async fn serve(upgrading: UpgradeFut, everybody: Everybody) -> Result<(), WebSocketError> {
    let (read, write) = upgrading.await?.split(tokio::io::split);
    let mut read = FragmentCollectorRead::new(read);
    let write = Arc::new(Mutex::new(write));
    let forwarding = tokio::spawn(forward(everybody.subscribe(), write.clone()));
    let result = async {
        loop {
            let frame = read.read_frame(&mut |frame| async { write.lock().await.write_frame(frame).await }).await?;
            match frame.opcode {
                OpCode::Close => return Ok(()),
                OpCode::Text | OpCode::Binary if frame.payload.first() == Some(&b'*') => {
                    let message = Message { opcode: frame.opcode, content: frame.payload.to_vec().into() };
                    // We listen ourselves, so there is always a receiver.
                    _ = everybody.send(message);
                }
                OpCode::Text | OpCode::Binary => write.lock().await.write_frame(frame).await?,
                _ => {}
            }
        }
    };
    let result = result.await;
    forwarding.abort();
    result
}

async fn forward<W: AsyncWrite + Unpin>(
    mut messages: broadcast::Receiver<Message>,
    write: Arc<Mutex<WebSocketWrite<W>>>,
) -> Result<(), WebSocketError> {
    loop {
        match messages.recv().await {
            Ok(Message { opcode, content }) => {
                let frame = Frame::new(true, opcode, None, Payload::Borrowed(&content));
                write.lock().await.write_frame(frame).await?;
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}
