//! `duet healthcheck`: asks the server that runs here whether it is ready, as a container's probe does.
//!
//! One request over loopback, within [`WITHIN`]; it needs no TLS, no shell and no other program. Bound: the head of one
//! answer. Not here: what makes a server ready (`api/service.rs`).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::base::Time;
use crate::config::{Config, ConfigExit};
use crate::shard::clock::Clock;
use crate::wire::proxy::LOCAL;

/// For all of it.
const WITHIN: Duration = Duration::from_millis(2_900);
/// More than the answer has, bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// As a proxy would ask, so that production does not send it to HTTPS.
const REQUEST: &str = "GET /ready HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";

/// Prints whether the server is ready, and why not.
pub fn check(config: &Config) -> ConfigExit {
    let address = address(config);
    match ask(address, config.proxy_protocol) {
        Ok(()) => ConfigExit::answer(format!("ready: {address}\n"), 0),
        Err(reason) => {
            ConfigExit { text: format!("duet: not ready: {address}: {reason}\n"), code: 1, is_answer: false }
        }
    }
}

/// Where a server with these settings is reached from the machine that it runs on.
pub(super) fn address(config: &Config) -> SocketAddr {
    let ip = match config.host {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, config.port)
}

/// Asks the server at `address`, which may want to be told that no proxy asks.
///
/// # Errors
/// Why it is not ready, in words.
pub(super) fn ask(address: SocketAddr, proxy_protocol: bool) -> Result<(), String> {
    if address.port() == 0 {
        return Err("the port is 0, so only the server knows its port: set PORT".to_owned());
    }
    let clock = Clock::start();
    let until = clock.now() + WITHIN.as_millis() as u64;
    let request = [if proxy_protocol { &LOCAL[..] } else { &[] }, REQUEST.as_bytes()].concat();
    let answer = exchange(address, &request, &clock, until).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => format!("no answer within {} ms", WITHIN.as_millis()),
        _ => error.to_string(),
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    match status {
        "200" => Ok(()),
        "" => Err("what answers there does not speak HTTP".to_owned()),
        status => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
            Err(format!("{status} {body}"))
        }
    }
}

/// All that the server says until it closes.
fn exchange(address: SocketAddr, request: &[u8], clock: &Clock, until: Time) -> io::Result<Vec<u8>> {
    let left = || match until - clock.now() {
        0 => Err(io::Error::from(io::ErrorKind::TimedOut)),
        ms => Ok(Duration::from_millis(ms)),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            // We were stopped and continued (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is said of a server that answers with these bytes.
    fn said_of(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /ready HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
        });
        let said = ask(address, false);
        server.join().unwrap();
        said
    }

    #[test]
    fn only_200_is_ready() {
        assert_eq!(said_of(b"HTTP/1.1 200 OK\r\n\r\n{}"), Ok(()));
        assert_eq!(said_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"a\":1}"), Err("503 {\"a\":1}".to_owned()));
        assert!(said_of(b"SSH-2.0-OpenSSH\r\n").unwrap_err().contains("does not speak HTTP"));
        assert!(said_of(b"").is_err());
    }

    #[test]
    fn where_nobody_listens_it_says_so() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(ask(free, false), Err("nobody listens there".to_owned()));
        assert!(ask(SocketAddr::new(free.ip(), 0), false).unwrap_err().contains("PORT"));
    }
}
