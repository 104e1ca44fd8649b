//! permessage-deflate by itself: which offers are agreed on, and that messages come back whole or not at all.

use duet::base::Random;
use duet::base::limits::{INFLATE_RATIO_MAX, INFLATE_UNRATED_BYTES};
use duet::wire::deflate::{Agreement, Deflater, InflateError, Inflater, Policy, Window, negotiate};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

const PLAIN: Policy = Policy { level: 6, context_takeover: false };
const TAKEOVER: Policy = Policy { level: 6, context_takeover: true };
const OFF: Policy = Policy { level: 0, context_takeover: true };
const BYTES_MAX: usize = 2_000_000;

fn inflate(payload: &[u8]) -> Result<Vec<u8>, InflateError> {
    Inflater::default().inflate(payload, None, BYTES_MAX)
}

fn random_bytes(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length.div_ceil(32)).flat_map(|_| random.bytes::<32>()).take(length).collect()
}

/// Text as the server sends it: records that are alike and never the same.
fn json(random: &mut Random, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 100);
    while text.len() < length {
        let (id, age) = (random.below(1 << 40), random.below(80));
        text.extend_from_slice(
            format!("{{\"id\":\"{id:x}\",\"name\":\"Ann\",\"age\":{age},\"online\":true}},").as_bytes(),
        );
    }
    text.truncate(length);
    text
}

/// Inflates as a peer whose window is no larger than agreed: a distance beyond it fails.
fn inflate_in_window(payload: &[u8], window_bits: u8) -> Vec<u8> {
    let mut decompressor = Box::<DecompressorOxide>::default();
    let (mut ring, mut at) = (vec![0; 1 << window_bits], 0);
    let (mut input, mut message) = (&[payload, &[0, 0, 0xff, 0xff]].concat()[..], Vec::new());
    loop {
        let (status, used, made) = decompress(&mut decompressor, input, &mut ring, at, TINFL_FLAG_HAS_MORE_INPUT);
        input = &input[used..];
        message.extend_from_slice(&ring[at..at + made]);
        at = (at + made) % ring.len();
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput if input.is_empty() => return message,
            _ => panic!("{status:?} with a window of {window_bits} bits"),
        }
    }
}

/// Values of the header; the parameters of the answer without context takeover, and with.
type Case = (&'static [&'static str], &'static str, &'static str);

const SERVER: &str = "server_no_context_takeover";
const CLIENT: &str = "client_no_context_takeover";
const NEITHER: &str = "server_no_context_takeover; client_no_context_takeover";

const ACCEPTED: &[Case] = &[
    (&["permessage-deflate"], NEITHER, ""),
    (&["permessage-deflate; client_max_window_bits"], NEITHER, ""),
    (&["permessage-deflate; server_no_context_takeover"], NEITHER, SERVER),
    (&["permessage-deflate; client_no_context_takeover"], NEITHER, CLIENT),
    (&["permessage-deflate; client_no_context_takeover; server_no_context_takeover"], NEITHER, NEITHER),
    (&["permessage-deflate; server_max_window_bits=15"], "N; server_max_window_bits=15", "server_max_window_bits=15"),
    (&["permessage-deflate; server_max_window_bits=8"], "N; server_max_window_bits=8", "S; server_max_window_bits=8"),
    (
        &["permessage-deflate; server_max_window_bits=\"10\""],
        "N; server_max_window_bits=10",
        "S; server_max_window_bits=10",
    ),
    (&["permessage-deflate;client_max_window_bits=12"], "N; client_max_window_bits=12", "client_max_window_bits=12"),
    (
        &["permessage-deflate;client_max_window_bits=\"\\1\\2\""],
        "N; client_max_window_bits=12",
        "client_max_window_bits=12",
    ),
    (
        &["permessage-deflate; client_max_window_bits=9; server_max_window_bits=15; server_no_context_takeover"],
        "N; server_max_window_bits=15; client_max_window_bits=9",
        "S; server_max_window_bits=15; client_max_window_bits=9",
    ),
    // Spaces, and empty list elements.
    (&["\t,  permessage-deflate\t;\tclient_no_context_takeover ,"], NEITHER, CLIENT),
    (&["permessage-deflate;server_max_window_bits = 15"], "N; server_max_window_bits=15", "server_max_window_bits=15"),
    (&["", "permessage-deflate"], NEITHER, ""),
    // The first that is acceptable wins, on one line or several.
    (&["permessage-bzip2; a=\"b\"; c, permessage-deflate"], NEITHER, ""),
    (&["permessage-deflate; unknown, permessage-deflate; client_no_context_takeover"], NEITHER, CLIENT),
    (&["permessage-deflate; server_max_window_bits=7", "permessage-deflate"], NEITHER, ""),
    (&["permessage-deflate; server_no_context_takeover, permessage-deflate"], NEITHER, SERVER),
    (
        &["permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate"],
        "N; server_max_window_bits=10",
        "S; server_max_window_bits=10",
    ),
];

const DECLINED: &[&[&str]] = &[
    &[],
    &["x-webkit-deflate-frame"],
    &["Permessage-Deflate"],
    &["permessage-deflate2"],
    &["permessage-deflate; unknown"],
    &["permessage-deflate; unknown=1"],
    &["permessage-deflate; Server_No_Context_Takeover"],
    &["permessage-deflate; server_no_context_takeover=1"],
    &["permessage-deflate; client_no_context_takeover=true"],
    &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
    &["permessage-deflate; client_no_context_takeover; client_no_context_takeover"],
    &["permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"],
    &["permessage-deflate; client_max_window_bits; client_max_window_bits=10"],
    &["permessage-deflate; client_max_window_bits=10; client_max_window_bits"],
    &["permessage-deflate; server_max_window_bits"],
    &["permessage-deflate; server_max_window_bits=7"],
    &["permessage-deflate; server_max_window_bits=16"],
    &["permessage-deflate; server_max_window_bits=010"],
    &["permessage-deflate; server_max_window_bits=+10"],
    &["permessage-deflate; server_max_window_bits=-10"],
    &["permessage-deflate; server_max_window_bits=10.0"],
    &["permessage-deflate; server_max_window_bits=99999999999999999999"],
    &["permessage-deflate; client_max_window_bits=0"],
    &["permessage-deflate; client_max_window_bits=08"],
    &["permessage-deflate; client_max_window_bits=ten"],
];

/// Not the grammar, be it behind an acceptable offer.
const MALFORMED: &[&[&str]] = &[
    &[""],
    &[" , ,"],
    &["permessage-deflate;"],
    &["permessage-deflate; ; client_max_window_bits"],
    &["permessage-deflate; client_max_window_bits="],
    &["permessage-deflate; client_max_window_bits=\"\""],
    &["permessage-deflate; client_max_window_bits=\"10"],
    &["permessage-deflate; client_max_window_bits=\"10\\"],
    &["permessage-deflate; client_max_window_bits=\"1 0\""],
    &["permessage-deflate; client_max_window_bits=\"10\"5"],
    &["permessage-deflate; client_max_window_bits=10=10"],
    &["permessage-deflate client_max_window_bits"],
    &["permessage-deflate, foo bar"],
    &["permessage-deflate", "=1"],
    &["permessage-deflate, (x)"],
    &["permessage-deflate; \u{e9}"],
];

/// The response's header, if the extension is agreed on; the status of the refusal otherwise.
fn answer(values: &[&str], policy: Policy) -> Result<Option<String>, u16> {
    let agreement = negotiate(values.iter().copied(), policy).map_err(|refusal| refusal.status)?;
    Ok(agreement.as_ref().map(Agreement::encode))
}

#[test]
fn acceptable_offers_are_accepted() {
    for (values, plain, takeover) in ACCEPTED {
        for (policy, expected) in [(PLAIN, plain), (TAKEOVER, takeover)] {
            let parameters = expected.replace('N', NEITHER).replace('S', SERVER);
            let separator = if parameters.is_empty() { "" } else { "; " };
            let expected = format!("permessage-deflate{separator}{parameters}");
            assert_eq!(answer(values, policy), Ok(Some(expected)), "{values:?} {policy:?}");
        }
    }
}

#[test]
fn other_offers_are_declined_and_all_are_when_off() {
    for values in DECLINED {
        assert_eq!(answer(values, PLAIN), Ok(None), "{values:?}");
        assert_eq!(answer(values, TAKEOVER), Ok(None), "{values:?}");
    }
    for (values, ..) in ACCEPTED {
        assert_eq!(answer(values, OFF), Ok(None), "{values:?}");
    }
}

#[test]
fn a_malformed_header_fails_the_handshake() {
    for values in MALFORMED {
        for policy in [PLAIN, TAKEOVER, OFF] {
            assert_eq!(answer(values, policy), Err(400), "{values:?}");
        }
    }
}

#[test]
fn an_agreement_says_what_each_side_does() {
    let agree = |value, policy| negotiate([value], policy).unwrap().unwrap();
    let agreement = agree("permessage-deflate; client_max_window_bits", PLAIN);
    assert_eq!((agreement.server_keeps_context, agreement.client_keeps_context), (false, false));
    assert_eq!((agreement.server_window_bits(), agreement.client_window_bits()), (15, 15));
    let agreement = agree("permessage-deflate; client_max_window_bits=9", TAKEOVER);
    assert_eq!((agreement.server_keeps_context, agreement.client_keeps_context), (true, true));
    assert_eq!((agreement.server_window_bits(), agreement.client_window_bits()), (15, 9));
    let agreement = agree("permessage-deflate; server_max_window_bits=9", TAKEOVER);
    assert_eq!((agreement.server_keeps_context, agreement.client_keeps_context), (false, true));
    assert_eq!(agreement.server_window_bits(), 9);
}

#[test]
fn whatever_is_offered_the_answer_is_no_panic() {
    let mut random = Random::from_seed(7);
    let pieces = [
        "permessage-deflate",
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits",
        "client_max_window_bits",
        ";",
        ";",
        ";",
        ",",
        "=",
        "=",
        "\"",
        "\\",
        " ",
        "\t",
        "15",
        "8",
        "0",
        "\u{e9}",
        "\u{1f600}",
        "\0",
    ];
    for _ in 0..10_000 {
        let count = random.below(12);
        let value: String = (0..count).map(|_| pieces[random.below(pieces.len() as u64) as usize]).collect();
        if let Ok(Some(agreement)) = negotiate([value.as_str()], TAKEOVER) {
            assert!((8..=15).contains(&agreement.server_window_bits()), "{value}");
        }
        let length = random.below(40) as usize;
        let bytes = random_bytes(&mut random, length);
        let _ = negotiate([String::from_utf8_lossy(&bytes).as_ref()], PLAIN);
    }
}

#[test]
fn the_examples_of_rfc_7692_7_2_3_come_out() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let mut deflater = Deflater::new(6, true);
    assert_eq!(deflater.deflate(&[b"Hello"], 15), hello);
    assert_eq!(deflater.deflate(&[b"Hel", b"", b"lo"], 15), again);
    assert_eq!(Deflater::new(6, false).deflate(&[], 15), [0]);
    assert_eq!(deflater.deflate(&[b"", b""], 15), [0]);

    let mut inflater = Inflater::default();
    let mut window = Window::new(15);
    assert_eq!(inflater.inflate(&hello, Some(&mut window), 5).unwrap(), b"Hello");
    assert_eq!(inflater.inflate(&again, Some(&mut window), 5).unwrap(), b"Hello");
    assert_eq!(inflater.inflate(&again, None, 5), Err(InflateError::Corrupt));
    for (name, payload) in [
        ("no compression", &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00][..]),
        ("final block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        ("final block alone", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
        ("two blocks", &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]),
    ] {
        assert_eq!(inflate(payload).as_deref(), Ok(&b"Hello"[..]), "{name}");
    }
    assert_eq!(inflate(&[0]).as_deref(), Ok(&b""[..]));
}

#[test]
fn blocks_follow_a_final_one_and_may_refer_back() {
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let payload = [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &again].concat();
    assert_eq!(inflate(&payload).unwrap(), b"HelloHello");
    let mut window = Window::new(15);
    let mut inflater = Inflater::default();
    inflater.inflate(&payload, Some(&mut window), 10).unwrap();
    assert_eq!(inflater.inflate(&again, Some(&mut window), 10).unwrap(), b"Hello");
    // To what earlier messages said, too.
    let payload = [&[0x03, 0x00][..], &again].concat();
    assert_eq!(inflater.inflate(&payload, Some(&mut window), 10).unwrap(), b"Hello");
}

#[test]
fn a_message_that_just_fills_what_was_allotted_comes_whole() {
    let (mut deflater, mut inflater) = (Deflater::new(6, false), Inflater::default());
    for length in 1..2_000 {
        let payload = deflater.deflate(&[&vec![0; length]], 15);
        assert_eq!(inflater.inflate(&payload, None, BYTES_MAX), Ok(vec![0; length]), "{length}");
    }
}

#[test]
fn messages_of_any_size_fit_any_window() {
    let mut random = Random::from_seed(1);
    let (mut deflater, mut inflater) = (Deflater::new(6, false), Inflater::default());
    for length in [0, 1, 1023, 1024, 1025, 32_767, 32_768, 32_769, 100_000, 1_000_000] {
        for content in [random_bytes(&mut random, length), vec![0; length], json(&mut random, length)] {
            // In the largest messages the windows between say nothing new.
            for window_bits in (8..=15).filter(|bits| length < 1_000_000 || matches!(bits, 9 | 15)) {
                let (left, right) = content.split_at(length / 3);
                let payload = deflater.deflate(&[left, &[], right], window_bits);
                let segments = length.div_ceil(1 << window_bits).max(1);
                assert!(payload.len() <= length * 9 / 8 + 16 * segments, "{length} {window_bits}: {}", payload.len());
                assert!(inflate_in_window(&payload, window_bits) == content, "{length} {window_bits}");
                // Zeros get smaller than the ratio allows.
                let inflated = inflater.inflate(&payload, None, BYTES_MAX);
                if length <= payload.len() * INFLATE_RATIO_MAX || length <= INFLATE_UNRATED_BYTES {
                    assert!(inflated.unwrap() == content, "{length} {window_bits}");
                } else {
                    assert_eq!(inflated, Err(InflateError::TooBig), "{length} {window_bits}");
                }
            }
        }
    }
}

#[test]
fn every_level_compresses() {
    let mut random = Random::from_seed(2);
    let contents = [random_bytes(&mut random, 70_000), json(&mut random, 70_000)];
    for level in 0..=10 {
        let mut deflater = Deflater::new(level, false);
        for content in &contents {
            let payload = deflater.deflate(&[content], 15);
            assert!(payload.len() <= content.len() * 9 / 8 + 16, "{level}: {}", payload.len());
            assert!(inflate(&payload).unwrap() == *content, "{level}");
        }
        let is_smaller = deflater.deflate(&[&contents[1]], 15).len() < contents[1].len() / 2;
        assert_eq!(is_smaller, level > 0, "{level}");
    }
}

#[test]
fn without_takeover_each_message_stands_alone() {
    let mut random = Random::from_seed(3);
    let mut deflater = Deflater::new(6, false);
    for _ in 0..300 {
        let (length, bits) = (random.below(3_000) as usize, 8 + random.below(8) as u8);
        let message = json(&mut random, length);
        assert_eq!(inflate_in_window(&deflater.deflate(&[&message], bits), bits), message);
    }
}

#[test]
fn with_takeover_messages_refer_back_as_far_as_the_window() {
    let mut random = Random::from_seed(4);
    let (mut deflater, mut inflater, mut window) = (Deflater::new(6, true), Inflater::default(), Window::new(15));
    let message = json(&mut random, 2_000);
    let first = deflater.deflate(&[&message], 15);
    let second = deflater.deflate(&[&message], 15);
    assert!(second.len() * 10 < first.len(), "{} then {}", first.len(), second.len());
    for payload in [&first, &second] {
        assert_eq!(inflater.inflate(payload, Some(&mut window), BYTES_MAX).as_ref(), Ok(&message));
    }
    assert_eq!(window.held_bytes(), 4_000);
    for _ in 0..100 {
        let length = random.below(4_000) as usize;
        let message = json(&mut random, length);
        let payload = deflater.deflate(&[&message], 15);
        assert_eq!(inflater.inflate(&payload, Some(&mut window), BYTES_MAX), Ok(message));
    }
    assert_eq!(window.held_bytes(), 32_768);
    // No context outlives a smaller window.
    let mut deflater = Deflater::new(6, true);
    for _ in 0..3 {
        assert_eq!(inflate_in_window(&deflater.deflate(&[&message], 12), 12), message);
    }
}

#[test]
fn a_small_window_remembers_no_more() {
    let mut inflater = Inflater::default();
    let mut window = Window::new(8);
    let payload = Deflater::new(6, false).deflate(&[&[7; 1_000]], 8);
    assert_eq!(inflater.inflate(&payload, Some(&mut window), BYTES_MAX), Ok(vec![7; 1_000]));
    assert_eq!(window.held_bytes(), 256);
}

#[test]
fn an_error_empties_the_window() {
    let (mut deflater, mut inflater, mut window) = (Deflater::new(6, true), Inflater::default(), Window::new(15));
    inflater.inflate(&deflater.deflate(&[b"Hello"], 15), Some(&mut window), 5).unwrap();
    assert_eq!(inflater.inflate(&[0xff], Some(&mut window), 5), Err(InflateError::Corrupt));
    assert_eq!(window.held_bytes(), 0);
    let refers_back = deflater.deflate(&[b"Hello"], 15);
    assert_eq!(inflater.inflate(&refers_back, Some(&mut window), 5), Err(InflateError::Corrupt));
    assert_eq!(inflater.inflate(&Deflater::new(6, false).deflate(&[b"Hello"], 15), None, 5).unwrap(), b"Hello");
}

#[test]
fn nothing_is_owned_before_it_is_needed() {
    let (mut deflater, mut inflater) = (Deflater::new(6, false), Inflater::default());
    deflater.deflate(&[], 15);
    assert_eq!((deflater.held_bytes(), inflater.held_bytes(), Window::new(15).held_bytes()), (0, 0, 0));
    inflater.inflate(&deflater.deflate(&[b"Hello"], 15), None, 5).unwrap();
    assert!(deflater.held_bytes() < 320 * 1024 && inflater.held_bytes() < 48 * 1024);
}

#[test]
fn a_message_that_was_cut_short_is_corrupt() {
    let mut random = Random::from_seed(5);
    let mut inflater = Inflater::default();
    for content in [json(&mut random, 3_000), random_bytes(&mut random, 300), vec![0; 3_000], b"Hello".to_vec()] {
        let payload = Deflater::new(6, false).deflate(&[&content], 15);
        for length in 0..payload.len() {
            match inflater.inflate(&payload[..length], None, BYTES_MAX) {
                Err(error) => assert_eq!(error, InflateError::Corrupt, "{length}"),
                // Cut right behind the header of a stored block, it is a whole message: an empty one.
                Ok(message) => assert_eq!((&payload[..length], message.len()), (&[0][..], 0)),
            }
        }
    }
}

#[test]
fn a_message_is_as_long_as_allowed_and_no_longer() {
    let mut random = Random::from_seed(6);
    let mut inflater = Inflater::default();
    for length in [1, 5, 300, 5_000, 70_000] {
        for content in [json(&mut random, length), random_bytes(&mut random, length)] {
            let payload = Deflater::new(6, false).deflate(&[&content], 15);
            assert!(inflater.inflate(&payload, None, length).as_ref() == Ok(&content), "{length}");
            assert_eq!(inflater.inflate(&payload, None, length - 1), Err(InflateError::TooBig), "{length}");
        }
    }
    assert_eq!(inflater.inflate(&[0], None, 0), Ok(Vec::new()));
}

#[test]
fn a_bomb_is_too_big() {
    let megabyte = vec![0; 1_000_000];
    let parts = [megabyte.as_slice(); 100];
    let payload = Deflater::new(1, false).deflate(&parts, 15);
    assert!(payload.len() < 1_000_000, "{}", payload.len());
    assert_eq!(inflate(&payload), Err(InflateError::TooBig));
    // Within the limit, but not within the ratio.
    let payload = Deflater::new(6, false).deflate(&[&megabyte], 15);
    assert_eq!(inflate(&payload), Err(InflateError::TooBig));
    let payload = Deflater::new(6, false).deflate(&[&megabyte[..INFLATE_UNRATED_BYTES]], 15);
    assert_eq!(inflate(&payload), Ok(vec![0; INFLATE_UNRATED_BYTES]));
}

#[test]
fn more_blocks_than_bytes_warrant_are_too_big() {
    // Empty blocks: with fixed codes, four in 40 bits; the same as final ones; stored.
    for block in [&[0x02, 0x08, 0x20, 0x80, 0x00][..], &[0x03, 0x00], &[0, 0, 0, 0xff, 0xff]] {
        let message = |count| [&block.repeat(count)[..], &[0]].concat();
        assert_eq!(inflate(&message(15)).as_deref(), Ok(&b""[..]), "{block:?}");
        assert_eq!(inflate(&message(1_000)), Err(InflateError::TooBig), "{block:?}");
    }
    // Small segments of what compresses best are still honest.
    let zeros = vec![0; 60_000];
    assert_eq!(inflate(&Deflater::new(6, false).deflate(&[&zeros], 8)), Ok(zeros));
}

#[test]
fn whatever_is_sent_inflating_does_not_panic() {
    let mut random = Random::from_seed(8);
    let (mut inflater, mut window) = (Inflater::default(), Window::new(15));
    let text = json(&mut random, 500);
    let payload = Deflater::new(6, false).deflate(&[&text], 15);
    for _ in 0..10_000 {
        let length = random.below(80) as usize;
        let noise = random_bytes(&mut random, length);
        let mut broken = payload.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(broken.len() as u64) as usize;
            broken[at] ^= 1 << random.below(8);
        }
        for bytes in [noise, broken] {
            let bytes_max = random.below(1_000) as usize;
            for window in [None, Some(&mut window)] {
                if let Ok(message) = inflater.inflate(&bytes, window, bytes_max) {
                    assert!(message.len() <= bytes_max);
                }
            }
        }
    }
    assert_eq!(inflater.inflate(&payload, None, 500), Ok(text));
}
