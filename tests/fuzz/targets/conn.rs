//! A whole `Conn`: a list of operations, each a byte and what belongs to it, is done to one, and what must be true of
//! it holds behind each (see `world`); then all that its peer said is received again in pieces (see `split`).
#![no_main]

use std::sync::Arc;

use arbitrary::Unstructured;
use duet::conn::{CloseReason, Settings};
use duet::wire::deflate::{Deflater, Policy};
use duet::wire::proxy::LOCAL;
use duet_fuzz::world::{World, carrier_target, sid, upgrade};
use duet_fuzz::{chance, client_frame, pieces, split};
use libfuzzer_sys::fuzz_target;

const OPERATIONS_MAX: usize = 200;

const REASONS: [CloseReason; 10] = [
    CloseReason::SessionInvalidated,
    CloseReason::Banned,
    CloseReason::TooManyConnections,
    CloseReason::ServerShutdown,
    CloseReason::TooManyEvents,
    CloseReason::HandlerPanicked,
    CloseReason::RequestsOverlap,
    CloseReason::BadRequest,
    CloseReason::PeerReset,
    CloseReason::SlowReader,
];

const STATUSES: [u16; 8] = [200, 204, 304, 404, 101, 503, 201, 426];

/// What a client may offer.
const EXTENSIONS: [&str; 5] = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits; server_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "x-unknown, permessage-deflate; client_max_window_bits=8",
];

/// Words that a fuzzer would take long to find.
const WORDS: [&str; 10] = [
    "40",
    "41",
    "1",
    "3",
    "42[\"queue:join\"]",
    "427[\"room:chat\",{\"roomId\":\"r\",\"text\":\"t\"}]",
    "451-[\"x\",{\"_placeholder\":true,\"num\":0}]",
    "40\u{1e}42[\"auth\",{}]",
    "42[\"message\",1,{}]",
    "42/custom,1[\"message-with-ack\"]",
];

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let flags: u8 = input.arbitrary().unwrap_or_default();
    let flag = |bit: u8| flags >> bit & 1 != 0;
    let (is_polling, refuses) = (flag(0), flag(2));
    let settings = settings(flag);
    let mut world = World::new(settings.clone(), is_polling);
    let mut said = Vec::new();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || operate(&mut world, &mut input, &mut said).is_err() {
            break;
        }
    }
    world.finish();

    // Who echoes reads no more than was read of what came back.
    if settings.is_conformance_target {
        return;
    }
    // With an outbox that takes all: what does not fit depends on when it is written.
    let settings = Arc::new(Settings { outbox_bytes_max: 1 << 24, ..settings });
    let whole = split::hear(&settings, &[&said], refuses);
    let cut = split::hear(&settings, &pieces(&said, &mut chance(data)), refuses);
    assert_eq!(cut, whole, "a split changes what comes out");
});

fn settings(flag: impl Fn(u8) -> bool) -> Settings {
    let mut settings = Settings {
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        is_conformance_target: flag(3),
        proxy_protocol: flag(6) && flag(7),
        deflate: Policy { level: 1, context_takeover: flag(4) },
        deflate_bytes_min: if flag(5) { 0 } else { 64 },
        ..Settings::default()
    };
    if flag(1) {
        (settings.message_bytes_max, settings.body_bytes_max, settings.outbox_bytes_max) = (600, 300, 2000);
    }
    settings
}

/// Does the next operation; one that says something is received at once unless its first byte has the highest bit.
fn operate(world: &mut World, input: &mut Unstructured, said: &mut Vec<u8>) -> arbitrary::Result<()> {
    let code: u8 = input.arbitrary()?;
    if let Some(words) = words(code & 0x7f, input)? {
        said.extend_from_slice(&words);
        world.say(&words);
        if code & 0x80 == 0 {
            world.receive_all();
        }
        return Ok(());
    }
    let parameter: u8 = input.arbitrary()?;
    let number = usize::from(parameter);
    match code & 0x7f {
        16 => world.receive(number + 1),
        17 => world.receive_all(),
        18 => world.end(),
        19 => world.wait(u64::from(parameter) * 20),
        20 => world.wait_for_deadline(u64::from(parameter)),
        21 => world.wait(u64::from(parameter) * 1000),
        22 => world.early_timeout(),
        23 => world.respond(STATUSES[number % STATUSES.len()], (number / STATUSES.len()).pow(3)),
        24 => world.accept(),
        25 => world.refuse(),
        26 => world.send(number * number / 16),
        27 => world.acknowledge(),
        28 => world.close(REASONS[number % REASONS.len()]),
        29 => world.write(number % 16, number * 4),
        30 => world.write(usize::MAX, usize::MAX),
        31 => world.bind(number % 2 == 0),
        32 => world.poll(),
        33 => world.release_poll(),
        34 => world.upgrade(number & 1 != 0, number & 2 != 0, EXTENSIONS[number / 4 % EXTENSIONS.len()]),
        35 => world.send_batch(number),
        _ => {}
    }
    Ok(())
}

/// What the peer says by this operation; `None` when it is another's.
fn words(code: u8, input: &mut Unstructured) -> arbitrary::Result<Option<Vec<u8>>> {
    Ok(Some(match code {
        0 => take(input)?.to_vec(),
        1 => client_frame(0x81, take(input)?, input.arbitrary()?),
        2 => client_frame(input.arbitrary()?, take(input)?, input.arbitrary()?),
        3 => {
            let (first, byte, length): (u8, u8, u16) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
            client_frame(first, &vec![byte; usize::from(length)], [1, 2, 3, 4])
        }
        4 => upgrade("/socket.io/?EIO=4&transport=websocket", extensions(input)?),
        5 => upgrade("/ws", extensions(input)?),
        6 => upgrade(&carrier_target(), extensions(input)?),
        7 => b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        8 => b"HEAD /b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n".to_vec(),
        9 => {
            let body = take(input)?;
            let target = format!("/socket.io/?EIO=4&transport=polling&sid={}", sid().encode());
            let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }
        10 => {
            let (byte, length): (u8, u16) = (input.arbitrary()?, input.arbitrary()?);
            vec![byte; usize::from(length)]
        }
        11 => b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".to_vec(),
        12 => client_frame(0x81, WORDS[usize::from(input.arbitrary::<u8>()?) % WORDS.len()].as_bytes(), [0; 4]),
        13 => WORDS[usize::from(input.arbitrary::<u8>()?) % WORDS.len()].as_bytes().to_vec(),
        14 => [client_frame(0x81, b"2probe", [0; 4]), client_frame(0x81, b"5", [0; 4])].concat(),
        15 => {
            let (first, bits): (u8, u8) = (input.arbitrary()?, input.arbitrary()?);
            let payload = Deflater::new(1, false).deflate(&[take(input)?], 8 + bits % 8);
            client_frame(first, &payload, [0; 4])
        }
        35 => upgrade("/engine.io/?EIO=4&transport=websocket", extensions(input)?),
        36 => upgrade("/", extensions(input)?),
        37 => b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
        38 => LOCAL.to_vec(),
        _ => return Ok(None),
    }))
}

fn extensions(input: &mut Unstructured) -> arbitrary::Result<&'static str> {
    Ok(EXTENSIONS[usize::from(input.arbitrary::<u8>()?) % EXTENSIONS.len()])
}

/// A length of one byte, then as many bytes, or what is left.
fn take<'a>(input: &mut Unstructured<'a>) -> arbitrary::Result<&'a [u8]> {
    let length = usize::from(input.arbitrary::<u8>()?);
    input.bytes(length.min(input.len()))
}
