//! permessage-deflate: whatever inflates keeps its bound and allots no more, what was deflated inflates to itself, in
//! any parts and for any window, and what was negotiated is what was offered.
#![no_main]

use duet::base::Random;
use duet::base::limits::{DEFLATE_BYTES_MAX, INFLATE_RATIO_MAX, INFLATE_UNRATED_BYTES};
use duet::wire::deflate::{
    Deflater, InflateError, Inflater, Policy, WINDOW_BITS_MAX, WINDOW_BITS_MIN, Window, negotiate,
};
use duet_fuzz::{chance, pieces};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut random = chance(data);
    check_inflate(data, random.below(100_000) as usize);
    check_round_trip(data, &mut random);
    check_negotiation(&String::from_utf8_lossy(data), &mut random);
});

/// Arbitrary bytes: within the bound, or an error; with a window as without one.
fn check_inflate(data: &[u8], bytes_max: usize) {
    let mut inflater = Inflater::default();
    let alone = inflater.inflate(data, None, bytes_max);
    if let Ok(message) = &alone {
        assert!(message.len() <= bytes_max.min((data.len() * INFLATE_RATIO_MAX).max(INFLATE_UNRATED_BYTES)));
        assert!(message.capacity() <= message.len().max(bytes_max + 1));
        let shorter = message.len().checked_sub(1).map(|shorter| inflater.inflate(data, None, shorter));
        assert!(shorter.is_none_or(|result| result == Err(InflateError::TooBig)), "one byte less is too few");
    }
    let mut window = Window::new(WINDOW_BITS_MIN);
    assert_eq!(inflater.inflate(data, Some(&mut window), bytes_max), alone, "an empty window is none");
    assert!(window.held_bytes() <= 1 << WINDOW_BITS_MIN);
    // With something to refer to, more may be well-formed; the bound is the same.
    if let Ok(message) = inflater.inflate(data, Some(&mut window), bytes_max) {
        assert!(message.len() <= bytes_max && window.held_bytes() <= 1 << WINDOW_BITS_MIN);
    }
}

/// Twice, so that something was deflated before; what stands alone inflates without knowing of that.
fn check_round_trip(data: &[u8], random: &mut Random) {
    let level = random.below(11) as u8;
    // Every other time the smallest window, which a short content fills.
    let larger = if random.one_in(2) { 0 } else { random.below(u64::from(WINDOW_BITS_MAX - WINDOW_BITS_MIN) + 1) };
    let bits = WINDOW_BITS_MIN + larger as u8;
    // Repeated, so that the window counts.
    let content = data.repeat(1 + random.below(4) as usize);
    let mut content = content[..content.len().min(DEFLATE_BYTES_MAX)].to_vec();
    let (mut alone, mut keeping, mut inflater) =
        (Deflater::new(level, false), Deflater::new(level, true), Inflater::default());
    let mut window = Window::new(bits);
    let length_max = content.len() * 9 / 8 + 16 * (content.len() >> bits) + 16;
    for _ in 0..2 {
        let payload = alone.deflate(&pieces(&content, random), bits);
        assert!(payload.len() <= length_max, "{} from {}", payload.len(), content.len());
        check_inflated(inflater.inflate(&payload, None, content.len()), &content);
        let payload = keeping.deflate(&pieces(&content, random), bits);
        check_inflated(inflater.inflate(&payload, Some(&mut window), content.len()), &content);
        assert!(window.held_bytes() <= 1 << bits);
        // What was at the end is further on, and what is near to it now was said long ago.
        let further = random.below(content.len().min(data.len()) as u64) as usize;
        content.rotate_left(further);
    }
}

/// The content, unless it is suspiciously compressible.
fn check_inflated(inflated: Result<Vec<u8>, InflateError>, content: &[u8]) {
    match inflated {
        Err(InflateError::TooBig) if content.len() > INFLATE_UNRATED_BYTES => {}
        other => assert_eq!(other.as_deref(), Ok(content)),
    }
}

fn check_negotiation(text: &str, random: &mut Random) {
    let policy = Policy { level: random.below(3) as u8, context_takeover: random.one_in(2) };
    let agreed = negotiate([text], policy);
    // Several fields are one list (RFC 9110 5.3), wherever a comma that separates offers was.
    if let Some((first, second)) = text.split_once(',')
        && !text.contains('"')
        && let Ok(agreed) = agreed
        && let Ok(again) = negotiate([first, second], policy)
    {
        assert_eq!(agreed, again);
    }
    let Ok(Some(agreement)) = agreed else { return };
    assert!(policy.level > 0 && text.contains("permessage-deflate"));
    let bits = WINDOW_BITS_MIN..=WINDOW_BITS_MAX;
    assert!(bits.contains(&agreement.server_window_bits()) && bits.contains(&agreement.client_window_bits()));
    assert!(policy.context_takeover || !(agreement.server_keeps_context || agreement.client_keeps_context));
    // What the client is told is an offer too, and agrees to itself.
    let said = agreement.encode();
    assert_eq!(negotiate([said.as_str()], policy), Ok(Some(agreement)), "{said}");
}
