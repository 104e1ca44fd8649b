//! The page at `/demo`: its files, how they are kept and encoded, and that it can be switched off.

use std::sync::Arc;

use duet::api::Settings;
use duet::api::demo::Demo;
use duet::wire::encoding;
use duet::wire::http::Method;

use crate::fake::{Answer, Fake, assert_refused};

const FILES: [&str; 10] = [
    "/demo",
    "/demo/style.css",
    "/demo/icon.svg",
    "/demo/main.js",
    "/demo/server.js",
    "/demo/lobby.js",
    "/demo/room.js",
    "/demo/call.js",
    "/demo/media.js",
    "/demo/page.js",
];

fn server(encoding: encoding::Settings) -> Fake {
    Fake::new(Settings { demo: Some(Arc::new(Demo::new(encoding))), ..Settings::default() })
}

fn get(server: &Fake, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.send(Method::Get, path, headers, "")
}

#[test]
fn every_file_has_a_strict_policy_and_a_tag_and_is_asked_about_each_time() {
    let server = server(encoding::Settings::default());
    for path in FILES {
        let answer = get(&server, path, &[]);
        assert_eq!((answer.status(), answer.header("Cache-Control")), (200, Some("no-cache")), "{path}");
        assert!(answer.header("ETag").unwrap().starts_with("W/\""));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
    assert_eq!(get(&server, "/demo/", &[]).0.body, get(&server, "/demo", &[]).0.body);
    assert_eq!(get(&server, "/demo/none.js", &[]).status(), 404);
}

#[test]
fn who_has_a_file_is_not_sent_it_again() {
    let server = server(encoding::Settings::default());
    let tag = get(&server, "/demo", &[]).header("ETag").unwrap().to_owned();
    assert_ne!(get(&server, "/demo/main.js", &[]).header("ETag"), Some(tag.as_str()));
    for tags in [tag.as_str(), tag.trim_start_matches("W/"), "*", &format!("\"other\", {tag}")] {
        let answer = get(&server, "/demo", &[("if-none-match", tags), ("accept-encoding", "br")]);
        assert_eq!(
            (answer.status(), answer.0.body.len(), answer.header("ETag")),
            (304, 0, Some(tag.as_str())),
            "{tags}"
        );
    }
    assert_eq!(get(&server, "/demo", &[("if-none-match", "\"other\"")]).status(), 200);
}

#[test]
fn a_file_comes_in_the_coding_that_the_client_likes() {
    let server = server(encoding::Settings::default());
    let plain = get(&server, "/demo/style.css", &[]);
    assert_eq!((plain.header("Content-Encoding"), plain.header("Vary")), (None, Some("Origin, Accept-Encoding")));
    for coding in ["br", "gzip", "deflate"] {
        let answer = get(&server, "/demo/style.css", &[("accept-encoding", coding)]);
        assert_eq!(answer.header("Content-Encoding"), Some(coding));
        assert!(answer.0.body.len() < plain.0.body.len() / 2);
    }
    let off = self::server(encoding::Settings { level: 0, ..encoding::Settings::default() });
    assert_eq!(get(&off, "/demo", &[("accept-encoding", "br")]).header("Content-Encoding"), None);
}

#[test]
fn switched_off_there_is_no_page() {
    for path in FILES {
        assert_refused(&Fake::new(Settings::default()).get(path, None), 404, "Not found");
    }
}
