//! The doctor's look around: the port to listen on, the store, and the STUN and TURN servers that callers are given.
//!
//! A STUN binding request shows that a server lives and is reached from here; whether callers reach it, and whether it
//! shares our secret, only a call can show. Bound: three datagrams, or one connection, and [`PATIENCE_MS`] for each
//! address.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use super::{Finding, ready};
use crate::config::Config;
use crate::shard::clock::Clock;
use crate::store::{self, Condition, OpenError};
use crate::wire::stun::{Answer, HEAD_BYTES, Transaction, decode_answer, encode_request};

/// Waits for an answer after each datagram, ms (RFC 8489 6.2.1: doubled each time).
const WAITS_MS: [u64; 3] = [500, 1_000, 1_500];
/// After these the next datagram is sent; `Interrupted` comes when we were stopped and continued (signal(7)).
const ASK_AGAIN: [io::ErrorKind; 3] = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted];
/// For one server.
const PATIENCE_MS: u64 = 3_000;
/// Ports of STUN and TURN without and with TLS (RFC 7065 3.1).
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// Whether the port can be listened on, or a duet does so already.
pub(super) fn port(config: &Config) -> Finding {
    let address = SocketAddr::new(config.host, config.port);
    let port = config.port;
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match ready::ask(ready::address(config), config.proxy_protocol) {
                Ok(()) => Finding::ok("port", format!("a server is ready on {address}")),
                Err(reason) => Finding::error(
                    "port",
                    format!("{address} is taken by what is not ready: {reason}"),
                    format!("stop what listens on {port}, or choose another PORT"),
                ),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::error(
            "port",
            format!("{address}: {error}"),
            "take a port from 1024 on, or give CAP_NET_BIND_SERVICE",
        ),
        Err(error) => Finding::error("port", format!("{address}: {error}"), "HOST must be an address of this machine"),
    }
}

/// Whether the store can be opened, and how far its schema is.
pub(super) fn store(config: &Config, clock: &Clock) -> Finding {
    let (kind, from) = (config.store_description(), clock.now());
    let name = format!("store ({kind})");
    match store::inspect(&config.store_settings()) {
        Ok(Condition { at, schema, known }) => {
            let ms = clock.now() - from;
            let schema = match schema {
                0 => "empty, to be made at the start".to_owned(),
                schema if schema == known => format!("schema {schema}"),
                schema => format!("schema {schema}, to be brought to {known} at the start"),
            };
            Finding::ok(name, format!("{at}: {schema}, looked up in {ms} ms"))
        }
        Err(error @ OpenError::InUse { .. }) => Finding::ok(name, error.to_string()),
        Err(error) => {
            let advice = match error {
                OpenError::NotWritable { .. } => "let the user that runs duet write there, or set DATA_DIR",
                OpenError::Unreachable { .. } => {
                    "see that the database runs, and host, user and password in DATABASE_URL"
                }
                OpenError::NewerSchema { .. } | OpenError::NewerDatabase { .. } => "run the newer duet that wrote it",
                _ => "see the message; a backup may be at hand",
            };
            Finding::error(name, error.to_string(), advice)
        }
    }
}

/// Each server that callers are given.
pub(super) fn ice(config: &Config, clock: &Clock) -> Vec<Finding> {
    let urls: Vec<_> = config.stun_urls.iter().chain(&config.turn_urls).collect();
    if urls.is_empty() {
        let found = "no STUN and no TURN server";
        return vec![Finding::warning(
            "turn",
            found,
            "set TURN_URLS: without, two people behind strict NATs never meet",
        )];
    }
    urls.into_iter().map(|url| server(url, clock)).collect()
}

fn server(url: &str, clock: &Clock) -> Finding {
    let Some(target) = Target::decode(url) else {
        return Finding::error(url, "not of the form turn:host:port?transport=udp", "correct TURN_URLS or STUN_URLS");
    };
    let unreachable = "see that the server runs, its firewall, and that this machine may send there";
    let addresses = match (target.host, target.port).to_socket_addrs() {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(error) => return Finding::error(url, format!("{}: {error}", target.host), "correct the name, or its DNS"),
    };
    let mut why = format!("{} has no address", target.host);
    let mut transaction = Transaction::default();
    if let Err(error) = getrandom::fill(&mut transaction) {
        return Finding::error(url, format!("the system gives no entropy: {error}"), "see the machine");
    }
    for address in addresses {
        let from = clock.now();
        let outcome = match target.transport {
            Transport::Udp => by_udp(address, transaction),
            Transport::Tcp => by_tcp(address, transaction),
            Transport::Tls => TcpStream::connect_timeout(&address, Duration::from_millis(PATIENCE_MS)).map(|_| None),
        };
        let ms = clock.now() - from;
        match outcome {
            Ok(Some(Answer::Bound(Some(seen)))) => {
                return Finding::ok(url, format!("{address} answers in {ms} ms, and sees us as {}", seen.ip()));
            }
            Ok(Some(_)) => return Finding::ok(url, format!("{address} answers in {ms} ms")),
            Ok(None) => {
                return Finding::ok(
                    url,
                    format!("{address} takes connections after {ms} ms; its TLS was not looked at"),
                );
            }
            Err(error) => why = format!("{address}: {}", words(&error)),
        }
    }
    Finding::error(url, why, unreachable)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {PATIENCE_MS} ms"),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::InvalidData => "what answers there does not speak STUN".to_owned(),
        _ => error.to_string(),
    }
}

fn by_udp(server: SocketAddr, transaction: Transaction) -> io::Result<Option<Answer>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    // Others' datagrams do not arrive, and a refusal does.
    socket.connect(server)?;
    let mut datagram = [0; 1500];
    for wait_ms in WAITS_MS {
        socket.send(&encode_request(transaction))?;
        socket.set_read_timeout(Some(Duration::from_millis(wait_ms)))?;
        match socket.recv(&mut datagram) {
            Ok(length) => {
                let answer = decode_answer(&datagram[..length], transaction);
                return answer.map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
            }
            Err(error) if ASK_AGAIN.contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

/// Over a stream a message has no other frame than its own length (RFC 8489 6.2.2).
fn by_tcp(server: SocketAddr, transaction: Transaction) -> io::Result<Option<Answer>> {
    let patience = Duration::from_millis(PATIENCE_MS);
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&encode_request(transaction))?;
    let mut message = vec![0; HEAD_BYTES];
    stream.read_exact(&mut message)?;
    let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
    message.resize(HEAD_BYTES + length, 0);
    stream.read_exact(&mut message[HEAD_BYTES..])?;
    decode_answer(&message, transaction).map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Where a URL leads (RFC 7064, RFC 7065).
#[derive(PartialEq, Eq, Debug)]
struct Target<'a> {
    host: &'a str,
    port: u16,
    transport: Transport,
}

#[derive(PartialEq, Eq, Debug)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl<'a> Target<'a> {
    fn decode(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_tls = scheme.ends_with('s');
        let transport = match (is_tls, query) {
            (true, "" | "transport=tcp") => Transport::Tls,
            (false, "" | "transport=udp") => Transport::Udp,
            (false, "transport=tcp") => Transport::Tcp,
            _ => return None,
        };
        let usual = if is_tls { TLS_PORT } else { PORT };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(usual), |port| port.parse().ok())?;
        (!host.is_empty()).then_some(Self { host, port, transport })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn urls_lead_to_host_port_and_transport() {
        let target = |url| Target::decode(url).map(|Target { host, port, transport }| (host, port, transport));
        assert_eq!(target("stun:a.example"), Some(("a.example", 3478, Transport::Udp)));
        assert_eq!(target("turn:a.example:80?transport=tcp"), Some(("a.example", 80, Transport::Tcp)));
        assert_eq!(target("turns:a.example"), Some(("a.example", 5349, Transport::Tls)));
        assert_eq!(target("turn:[2001:db8::1]:3479"), Some(("2001:db8::1", 3479, Transport::Udp)));
        assert_eq!(target("turn:[::1]"), Some(("::1", 3478, Transport::Udp)));
        for wrong in ["turn:", "turn:a:port", "turn:a?transport=sctp", "turn:[::1", "turn:[::1]x", "turn"] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }

    /// A server on loopback that answers the second datagram, and what is found of it.
    fn found_of(answer: fn(&[u8]) -> Vec<u8>) -> Finding {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let url = format!("stun:127.0.0.1:{}", socket.local_addr().unwrap().port());
        let server = std::thread::spawn(move || {
            let mut request = [0; 100];
            socket.recv_from(&mut request).unwrap();
            let (length, from) = socket.recv_from(&mut request).unwrap();
            socket.send_to(&answer(&request[..length]), from).unwrap();
        });
        let found = self::server(&url, &Clock::start());
        server.join().unwrap();
        found
    }

    #[test]
    fn a_server_that_answers_is_found_though_a_datagram_is_lost() {
        let found = found_of(|request| [&[1, 1], &request[2..]].concat());
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    }

    #[test]
    fn what_does_not_speak_stun_is_no_server() {
        let found = found_of(|_| b"what?".to_vec());
        assert_eq!(found.verdict, Verdict::Error);
        assert!(found.found.contains("does not speak STUN"), "{found:?}");
    }

    #[test]
    fn where_nobody_listens_the_kernel_says_so_at_once() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = server(&format!("turn:{free}"), &Clock::start());
        assert!(found.found.contains("nobody listens there"), "{found:?}");
    }
}
