//! Where the database is, read from its URL: what libpq understands of TLS, and the rest as tokio-postgres does.
//!
//! A URL holds a password, so nothing of one that is wrong is ever repeated; `shown` is what may be.

use std::fmt;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// A URL as it is to be written, for who wrote another.
const FORM: &str = "must be postgres://user:password@host:port/database, special characters percent-encoded";
/// `sslmode` as duet takes it.
const MODES: &str = "sslmode must be disable, prefer, require, verify-ca or verify-full";

/// A database server and a database there.
#[derive(Clone, PartialEq)]
pub struct Address {
    pub(super) config: Config,
    pub(super) verify: Verify,
    /// Certificates of authorities, PEM; `None`: those that the system trusts.
    pub(super) roots: Option<PathBuf>,
}

/// What of a server's certificate has to be right, where there is TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verify {
    Nothing,
    /// An authority has signed it.
    Authority,
    /// And it names the host.
    Host,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, in words that repeat nothing of it.
    pub fn decode(url: &str) -> Result<Self, String> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(FORM.to_owned());
        }
        // A question mark in the password begins no parameters.
        let host = url.find('@').unwrap_or(0);
        let end = url[host..].find('?').map_or(url.len(), |at| host + at);
        let (server, query) = (&url[..end], url[end..].trim_start_matches('?'));
        let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => roots = Some(value),
                Some(("sslcert" | "sslkey" | "sslcrl" | "passfile" | "service", _)) => {
                    return Err(
                        "has a parameter that is not supported: sslcert, sslkey, sslcrl, passfile, service".into()
                    );
                }
                _ => rest.push(parameter),
            }
        }
        let rest = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
        let mut config: Config = format!("{server}{rest}").parse().map_err(|_| FORM.to_owned())?;
        let names_a_host = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
        if !names_a_host || config.get_user().is_none() {
            return Err(FORM.to_owned());
        }
        let roots = match roots {
            None | Some("" | "system") => None,
            Some(path) => Some(PathBuf::from(percent_decoded(path).ok_or_else(|| FORM.to_owned())?)),
        };
        let (ssl_mode, verify) = match mode.unwrap_or("prefer") {
            "disable" => (SslMode::Disable, Verify::Nothing),
            "prefer" => (SslMode::Prefer, Verify::Nothing),
            // As libpq does: authorities that are named are asked.
            "require" if roots.is_some() => (SslMode::Require, Verify::Authority),
            "require" => (SslMode::Require, Verify::Nothing),
            "verify-ca" => (SslMode::Require, Verify::Authority),
            "verify-full" => (SslMode::Require, Verify::Host),
            _ => return Err(MODES.to_owned()),
        };
        config.ssl_mode(ssl_mode).target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("duet");
        }
        Ok(Self { config, verify, roots })
    }

    /// The password, to be judged and not to be shown.
    pub fn password(&self) -> Option<&[u8]> {
        self.config.get_password()
    }
}

/// Host, port, database and user.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "{separator}[{name}]:{port}")?,
                Host::Tcp(name) => write!(f, "{separator}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{separator}{}:{port}", path.display())?,
            }
        }
        let user = self.config.get_user().unwrap_or_default();
        write!(f, "/{} as {user}", self.config.get_dbname().unwrap_or(user))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => u8::from_str_radix(std::str::from_utf8(&[rest.next()?, rest.next()?]).ok()?, 16).ok()?,
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let address = Address::decode("postgres://ann:s3cr%40t@db.example:6000/duet?sslmode=disable").unwrap();
        assert_eq!(address.to_string(), "db.example:6000/duet as ann");
        assert!(!format!("{address:?}").contains("s3cr"));
        let address = Address::decode("postgresql://ann@[::1]/duet").unwrap();
        assert_eq!(address.to_string(), "[::1]:5432/duet as ann");
        let address = Address::decode("postgres://ann@/duet?host=/run/postgresql").unwrap();
        assert_eq!(address.to_string(), "/run/postgresql:5432/duet as ann");
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let read = |query: &str| {
            let address = Address::decode(&format!("postgres://ann@h/d{query}")).unwrap();
            (address.config.get_ssl_mode(), address.verify)
        };
        assert_eq!(read(""), (SslMode::Prefer, Verify::Nothing));
        assert_eq!(read("?sslmode=disable"), (SslMode::Disable, Verify::Nothing));
        assert_eq!(read("?sslmode=require&connect_timeout=3"), (SslMode::Require, Verify::Nothing));
        assert_eq!(read("?sslrootcert=%2Fca.pem&sslmode=require"), (SslMode::Require, Verify::Authority));
        assert_eq!(read("?sslmode=verify-ca"), (SslMode::Require, Verify::Authority));
        assert_eq!(read("?sslmode=verify-full"), (SslMode::Require, Verify::Host));
        let address = Address::decode("postgres://ann@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b.pem").unwrap();
        assert_eq!(address.roots.unwrap().to_str(), Some("/a b.pem"));
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_it() {
        for url in [
            "mysql://ann:secret@h/d",
            "postgres://ann:secret@h:port/d",
            "postgres://ann:se/cret@h/d?sslcert=1",
            "postgres://ann:secret@h/d?sslmode=secret",
            "postgres://ann:secret@h/d?secret=1",
            "postgres://ann:secret@h/d?sslkey=secret",
            "postgres://ann:secret@h/d?sslrootcert=%zzsecret",
            "secret",
        ] {
            let error = Address::decode(url).expect_err(url);
            assert!(!error.contains("secret") && !error.contains("cret"), "{url}: {error}");
        }
    }
}
