//! The house rules of the design, read off the tree: sizes, documentation, layering, what is named where.
//!
//! All violations are listed at once. A rule's exceptions stand in its table, each with its reason.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Production lines of one file.
const FILE_LINES_MAX: usize = 500;
/// Share of doc lines in all production lines of `src`, percent. The aim is 15 to 20.
const DOC_PERCENT: RangeInclusive<f64> = 12.0..=22.0;
/// Share of plain `//` lines, percent.
const COMMENT_PERCENT_MAX: f64 = 5.0;
/// Lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 150;

/// What a layer may import besides itself. `*` is everything.
const LAYERS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("base", &[]),
    ("wire", &["base"]),
    ("cache", &["base"]),
    ("message", &["base"]),
    ("conn", &["base", "wire", "message"]),
    ("domain", &["base", "message"]),
    ("api", &["base", "wire", "message", "domain"]),
    ("link", &["base", "message"]),
    ("runtime", &["base"]),
    (
        "shard",
        &["base", "wire", "cache", "message", "conn", "domain", "api", "link", "runtime", "hashing", "telemetry"],
    ),
    ("store", &["base", "message", "link"]),
    ("cluster", &["base", "message", "link"]),
    ("hashing", &["base", "message", "link", "runtime"]),
    ("telemetry", &["base", "runtime"]),
    // Reads every layer's Settings; only boot reads it in turn.
    ("config", &["*"]),
    // Looks at what boot would start.
    ("doctor", &["*"]),
    ("boot", &["*"]),
    ("main", &["*"]),
];

/// A word, where production code may say it (prefixes of paths under `src`), and why nowhere else.
const PLACES: &[(&str, &[&str], &str)] = &[
    ("glommio", &["runtime/"], "only runtime/ names a runtime"),
    ("tokio", TOKIO, "only runtime/ names a runtime; tokio::sync is the bridge, signals are boot's"),
    ("tokio::sync", &["link", "shard/", "store/", "boot", "runtime/", "main", "cluster/"], "the bridges are link's"),
    ("unsafe", &["runtime/"], "unsafe is for the runtime's system calls, with a reason"),
    ("unsafe_code", &["runtime/"], "unsafe is for the runtime's system calls, with a reason"),
    ("Instant::now", CLOCKS, "only the clock reads the clock, so that the core can be simulated"),
    ("SystemTime::now", CLOCKS, "only the clock reads the clock, so that the core can be simulated"),
    ("serde", SERDE, SERDE_REASON),
    ("serde_json", SERDE, SERDE_REASON),
    ("simd_json", SERDE, SERDE_REASON),
    (".unwrap()", &[], "unwrap is for tests; expect with a reason, or handle it"),
    ("todo!", &[], "finish it or file an issue"),
    ("unimplemented!", &[], "finish it or file an issue"),
    ("dbg!", &[], "take it out"),
    ("std::env::var", &["config"], "settings are read once, by config"),
    ("thread::sleep", &["runtime/"], "a shard never blocks"),
];

/// Where tokio may be named at all: the runtime, the backend thread's own I/O, and the wait for a signal.
const TOKIO: &[&str] = &["runtime/", "cluster/", "store/postgres/", "boot", "main"];
/// Who may read a clock: the clock; hashing, whose requests age in real time on threads that no simulation runs; and a
/// runtime, which sleeps by it.
const CLOCKS: &[&str] = &["shard/clock.rs", "hashing", "runtime/timers.rs"];
/// Who may name serde: those whose bytes are JSON, the protocols' own handshakes included.
const SERDE: &[&str] = &["message/", "api/", "config", "doctor/", "store/", "wire/", "base/id.rs", "base/time.rs"];
const SERDE_REASON: &str = "serde is for message, api, config, doctor, stores and wire; base for ids and times";

/// All that may stand at the top of the tree, besides names that start with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "migrations",
    "bench",
    "tests",
    "systemd",
    "Dockerfile",
    "README.md",
    "ARCHITECTURE.md",
];
/// Made by building and running; not part of the tree.
const NOT_OURS: &[&str] = &["target", "data"];

/// One file of `src`.
struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    /// Up to the first `#[cfg(test)]`.
    production: Vec<String>,
    /// The same without comments and without what stands in quotes.
    code: Vec<String>,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let production: Vec<String> =
            text.lines().take_while(|line| line.trim() != "#[cfg(test)]").map(str::to_owned).collect();
        let code = strip(&production.join("\n")).lines().map(str::to_owned).collect();
        Self { path, production, code }
    }

    /// The layer: the first folder, or the file's name.
    fn layer(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules lie between this file and the crate's root.
    fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        if self.path.ends_with("/mod.rs") || matches!(self.path.as_str(), "lib.rs" | "main.rs") {
            folders
        } else {
            folders + 1
        }
    }

    fn may(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|rest| place.contains(['/', '.']) || rest.starts_with(['/', '.']))
        })
    }
}

/// Blanks out comments, strings and characters, keeping lines.
fn strip(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_literal(&bytes, at);
        if end == at {
            kept.push(bytes[at]);
            at += 1;
            continue;
        }
        kept.push(' ');
        kept.extend(bytes[at..end].iter().filter(|c| **c == '\n'));
        at = end;
    }
    kept
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn end_of_literal(text: &[char], at: usize) -> usize {
    let find = |from: usize, what: &[char]| {
        (from..text.len()).find(|i| text[*i..].starts_with(what)).map_or(text.len(), |i| i + what.len())
    };
    let quoted = |from: usize, quote: char| {
        let mut i = from;
        while i < text.len() && text[i] != quote {
            i += if text[i] == '\\' { 2 } else { 1 };
        }
        (i + 1).min(text.len())
    };
    match text[at..] {
        ['/', '/', ..] => (at..text.len()).find(|i| text[*i] == '\n').unwrap_or(text.len()),
        ['/', '*', ..] => find(at + 2, &['*', '/']),
        ['r', '"', ..] if !in_word(text, at) => find(at + 2, &['"']),
        ['r', '#', '"', ..] if !in_word(text, at) => find(at + 3, &['"', '#']),
        ['"', ..] => quoted(at + 1, '"'),
        ['\'', '\\', ..] => quoted(at + 1, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn in_word(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_') && text[at - 1] != 'b'
}

/// Whether `code` says `word` as a word of its own.
fn says(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part) && word.starts_with(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part) && word.ends_with(part);
        !before && !after
    })
}

/// The modules that follow each `crate::`, braces opened.
fn imports(code: &str) -> Vec<String> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(|c| part(c) || c == '$') {
            continue;
        }
        let rest = code[at + start.len()..].trim_start();
        if !rest.starts_with('{') {
            found.push(rest.split(|c| !part(c)).next().unwrap_or_default().to_owned());
            continue;
        }
        let (mut level, mut fresh, mut word) = (0, true, String::new());
        for c in rest.chars() {
            if level == 1 && fresh && part(c) {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                found.push(std::mem::take(&mut word));
                fresh = false;
            }
            match c {
                '{' => level += 1,
                '}' => level -= 1,
                ',' if level == 1 => fresh = true,
                _ => {}
            }
            if level == 0 {
                break;
            }
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The sources below a folder of the tree.
fn sources(folder: &str) -> Vec<Source> {
    let src = root().join(folder);
    let mut list = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
                list.push(Source::new(relative, &text));
            }
        }
    }
    list.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!list.is_empty(), "no sources found");
    list
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    list.sort();
    list
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn sizes_and_headers(source: &Source, faults: &mut Vec<String>) {
    let lines = source.production.len();
    if lines > FILE_LINES_MAX {
        faults.push(format!("src/{}: {lines} production lines, at most {FILE_LINES_MAX}", source.path));
    }
    if !source.production.first().is_some_and(|line| line.starts_with("//!")) {
        faults.push(format!("src/{}: does not start with `//!`", source.path));
    }
}

fn layering(source: &Source, faults: &mut Vec<String>) {
    let layer = source.layer();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        faults.push(format!("src/{}: `{layer}` is no layer of the design", source.path));
        return;
    };
    let code = source.code.join("\n");
    for import in imports(&code) {
        let known = LAYERS.iter().any(|(name, _)| *name == import);
        if import == "config" && !["boot", "doctor", "main"].contains(&layer) {
            faults.push(format!("src/{}: config is read by boot and doctor only", source.path));
        }
        if known && import != layer && !allowed.contains(&import.as_str()) && !allowed.contains(&"*") {
            faults.push(format!("src/{}: {layer} may not import {import}", source.path));
        }
        if import == "*" || import.is_empty() {
            faults.push(format!("src/{}: imports all of the crate", source.path));
        }
    }
    let too_far = "super::".repeat(source.depth());
    if source.depth() > 1 && code.contains(&too_far) {
        faults.push(format!("src/{}: reaches another layer by super:: (say crate::)", source.path));
    }
}

fn places(source: &Source, faults: &mut Vec<String>) {
    for (word, places, why) in PLACES {
        if source.may(places) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            let bridge = *word == "tokio" && says(line, "tokio::sync");
            if says(line, word) && !bridge {
                faults.push(format!("src/{}:{}: `{word}`: {why}", source.path, number + 1));
            }
        }
    }
}

fn comments(sources: &[Source], faults: &mut Vec<String>) {
    let count = |test: fn(&str) -> bool| {
        sources.iter().flat_map(|source| &source.production).filter(|line| test(line.trim_start())).count() as f64
    };
    let all = count(|_| true);
    let docs = count(|line| line.starts_with("//!") || line.starts_with("///")) * 100.0 / all;
    let plain = count(|line| line.starts_with("//") && !line.starts_with("//!") && !line.starts_with("///"));
    let plain = plain * 100.0 / all;
    if !DOC_PERCENT.contains(&docs) {
        faults.push(format!("src: {docs:.1} % doc lines, not within {DOC_PERCENT:?}"));
    }
    if plain > COMMENT_PERCENT_MAX {
        faults.push(format!("src: {plain:.1} % plain comment lines, at most {COMMENT_PERCENT_MAX}"));
    }
}

fn tree(faults: &mut Vec<String>) {
    for path in entries(&root()) {
        let name = name(&path);
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) && !NOT_OURS.contains(&name.as_str()) {
            faults.push(format!("{name}: does not belong at the top of the tree"));
        }
    }
    if let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) {
        let lines = text.lines().count();
        if lines > ARCHITECTURE_LINES_MAX {
            faults.push(format!("ARCHITECTURE.md: {lines} lines, at most {ARCHITECTURE_LINES_MAX}"));
        }
    }
}

/// What measures duet is no layer of it, but is written as it is.
fn instrument(faults: &mut Vec<String>) {
    let mut found = Vec::new();
    let sources = sources("bench/src");
    for source in &sources {
        sizes_and_headers(source, &mut found);
        for (number, line) in source.code.iter().enumerate() {
            if line.contains(".unwrap()") {
                found.push(format!("src/{}:{}: unwrap is for tests", source.path, number + 1));
            }
        }
    }
    comments(&sources, &mut found);
    faults.extend(found.iter().map(|fault| format!("bench/{fault}")));
}

/// Each database's migrations are `0001_name.sql`, `0002_name.sql`, … without a gap.
fn migrations(faults: &mut Vec<String>) {
    let folder = root().join("migrations");
    if !folder.is_dir() {
        return;
    }
    for database in entries(&folder) {
        if !database.is_dir() {
            faults.push(format!("migrations/{}: belongs into a database's folder", name(&database)));
            continue;
        }
        for (index, file) in entries(&database).iter().enumerate() {
            let expected = format!("{:04}_", index + 1);
            if !name(file).starts_with(&expected) || !name(file).ends_with(".sql") {
                faults.push(format!("migrations/{}/{}: expected {expected}….sql", name(&database), name(file)));
            }
        }
    }
}

#[test]
fn the_tree_keeps_the_house_rules() {
    let sources = sources("src");
    let mut faults = Vec::new();
    for source in &sources {
        sizes_and_headers(source, &mut faults);
        layering(source, &mut faults);
        places(source, &mut faults);
    }
    comments(&sources, &mut faults);
    instrument(&mut faults);
    tree(&mut faults);
    migrations(&mut faults);
    assert!(faults.is_empty(), "{} violations of the house rules:\n  {}\n", faults.len(), faults.join("\n  "));
}

/// The faults that the rules of one file find in `text` as `src/{path}`.
fn faults_of(path: &str, text: &str) -> Vec<String> {
    let source = Source::new(path.to_owned(), text);
    let mut faults = Vec::new();
    sizes_and_headers(&source, &mut faults);
    layering(&source, &mut faults);
    places(&source, &mut faults);
    faults
}

#[test]
fn every_rule_sees_its_violation() {
    let cases = [
        ("base/a.rs", "use std::fmt;", "does not start with"),
        ("base/a.rs", "//! A.\nuse crate::wire::Frame;", "base may not import wire"),
        ("domain/a.rs", "//! A.\nuse crate::{base::Time, message::{Card}, conn::Conn};", "domain may not import conn"),
        (
            "domain/a.rs",
            "//! A.\nuse crate::{\n    base::{Time, UserId},\n    shard,\n};",
            "domain may not import shard",
        ),
        ("cache/a.rs", "//! A.\nlet x = crate::domain::X;", "cache may not import domain"),
        ("conn/a.rs", "//! A.\nuse super::super::domain::X;", "reaches another layer"),
        ("elsewhere/a.rs", "//! A.", "is no layer"),
        ("shard/a.rs", "//! A.\nuse glommio::Task;", "`glommio`"),
        ("shard/a.rs", "//! A.\nuse tokio::net::TcpStream;", "`tokio`"),
        ("domain/a.rs", "//! A.\nuse tokio::sync::mpsc;", "`tokio::sync`"),
        ("shard/a.rs", "//! A.\nunsafe { }", "`unsafe`"),
        ("shard/a.rs", "//! A.\nlet x = y.unwrap();", "unwrap"),
        ("shard/a.rs", "//! A.\ntodo!()", "todo!"),
        ("shard/a.rs", "//! A.\nlet now = Instant::now();", "Instant::now"),
        ("conn/a.rs", "//! A.\nuse serde::Serialize;", "`serde`"),
    ];
    for (path, text, expected) in cases {
        let faults = faults_of(path, text);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{path} {text:?}: {faults:?}");
    }
    let long = format!("//! A.\n{}", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
    assert_eq!(faults_of("base/a.rs", &long).len(), 1);
}

#[test]
fn what_is_allowed_is_no_violation() {
    let cases = [
        (
            "domain/a.rs",
            "//! A.\nuse crate::base::{Time, UserId};\nuse crate::{base, message::Card};\nuse super::rate;",
        ),
        ("shard/clock.rs", "//! A.\nlet now = SystemTime::now();"),
        ("shard/a.rs", "//! A.\nuse tokio::sync::mpsc;"),
        ("boot.rs", "//! A.\nuse crate::store;\nuse tokio::signal;"),
        ("runtime/a.rs", "//! A.\n#![allow(unsafe_code)]\nunsafe { glommio::x() }"),
        ("base/a.rs", "//! A.\n// glommio, unsafe, crate::wire\nlet a = \"unsafe crate::wire x.unwrap()\";"),
        ("base/a.rs", "//! A.\nlet a = r#\"dbg!\"#; let b = '\"'; let c: &'static str = \"todo!\"; let d = b'\\'';"),
        ("base/a.rs", "//! A.\nlet a = x.unwrap_or(1);\n#[cfg(test)]\nmod tests { fn a() { x.unwrap(); } }"),
        ("wire/a/b.rs", "//! A.\nuse super::super::bytes;"),
    ];
    for (path, text) in cases {
        assert_eq!(faults_of(path, text), Vec::<String>::new(), "{path} {text:?}");
    }
}
