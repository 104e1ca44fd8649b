//! One conversation, received in pieces: however it is cut, the same outputs and the same bytes come out of a `Conn`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use duet::base::Time;
use duet::conn::{Conn, Output, Settings};
use duet::wire::http::Response;
use duet::wire::upgrade::EngineAsk;

/// What came out of a connection.
#[derive(PartialEq, Eq, Debug)]
pub struct Heard {
    /// Outputs in words.
    outputs: Vec<String>,
    /// All that was written.
    written: Vec<u8>,
}

/// Receives `reads` one after the other while no time passes, answering at once; then the stream ends.
///
/// What other connections would send, and the acknowledgements, which the shard sends when it has done with an event,
/// are left out: when they are written depends on the reads.
pub fn hear(settings: &Arc<Settings>, reads: &[&[u8]], refuses: bool) -> Heard {
    let now = Time(784_111_777_000);
    let mut conn = Conn::new(now, settings.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST), [7; 16]);
    let mut outputs = Vec::new();
    for read in reads {
        if !conn.wants_read() {
            break;
        }
        conn.receive(now, &mut read.to_vec());
        answer(&mut conn, now, refuses, &mut outputs);
    }
    conn.end_of_stream(now);
    answer(&mut conn, now, refuses, &mut outputs);
    let written = conn.chunks().drain(..).flatten().collect();
    Heard { outputs, written }
}

fn answer(conn: &mut Conn, now: Time, refuses: bool, outputs: &mut Vec<String>) {
    while let Some(output) = conn.poll() {
        outputs.push(format!("{output:?}"));
        match output {
            Output::Request(request) => conn.respond(now, Response::json(200, &request.path)),
            Output::Engine { ask, .. } => {
                let status = if matches!(ask, Ok(EngineAsk::Upgrade(_))) { 101 } else { 200 };
                conn.respond(now, Response::empty(status));
            }
            Output::Connect { .. } if refuses => conn.refuse_connect(now, "no"),
            Output::Connect { .. } => conn.accept_connect(now),
            _ => {}
        }
    }
}
