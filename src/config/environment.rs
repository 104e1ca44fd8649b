//! The file of variables, for what the environment leaves open: a process's own environment cannot change, a file can.
//!
//! Lines `NAME=value`, empty ones, and comments that begin with `#`: what systemd's `EnvironmentFile=` and docker's
//! `--env-file` read alike. Where the two differ (quotes, backslashes, a name alone) a line is refused. Of one name the
//! last line counts, as with both. Bound: that of a file with a secret. No error repeats a value.

use std::collections::BTreeMap;
use std::path::Path;

use super::flags::{ENV_FILE, FLAGS};
use super::reader::Reader;
use super::secrets;

/// Values by the names of their variables.
#[derive(Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value of the variable, unless it is blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads the file that the settings name, if they do, into `reader`. What is wrong with it is noted.
pub(super) fn read(reader: &mut Reader) {
    let path = reader.text(ENV_FILE);
    if path.is_empty() {
        return;
    }
    let setting = format!("--{ENV_FILE} (ENV_FILE): the file {path}");
    let text = match secrets::text(Path::new(&path)) {
        Ok(text) => text,
        Err(reason) => return reader.errors.push(format!("{setting} {reason}")),
    };
    for (number, line) in (1..).zip(text.lines()) {
        match decode(line) {
            Ok(None) => {}
            Ok(Some(("ENV_FILE", _))) => reader.errors.push(format!("{setting} cannot name another, line {number}")),
            Ok(Some((name, value))) => {
                if !FLAGS.iter().any(|flag| flag.variable == name) {
                    reader
                        .warnings
                        .push(format!("{setting} sets {name} in line {number}, which is no setting of duet"));
                }
                reader.file.0.insert(name.to_owned(), value.to_owned());
            }
            Err(reason) => reader.errors.push(format!("{setting} {reason}, line {number}")),
        }
    }
}

/// Name and value of a line, if it has any.
fn decode(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let is_name = |name: &str| {
        let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty() && name.bytes().all(part)
    };
    let Some((name, value)) = line.split_once('=').filter(|(name, _)| is_name(name)) else {
        return Err("has a line that is not NAME=value");
    };
    let value = value.trim();
    if value.starts_with(['"', '\'']) || value.contains('\\') {
        return Err("has a value with quotes or a backslash, which are not read alike everywhere: leave them out");
    }
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_a_value_or_nothing() {
        for (line, expected) in [
            ("LOG_LEVEL=debug", Some(("LOG_LEVEL", "debug"))),
            ("  API_BASE = no", None),
            ("API_BASE= https://a.example \r", Some(("API_BASE", "https://a.example"))),
            ("DATABASE_URL=postgres://a:b=c#d@h/d?x=\"y\"", Some(("DATABASE_URL", "postgres://a:b=c#d@h/d?x=\"y\""))),
            ("TURN_URLS=", Some(("TURN_URLS", ""))),
        ] {
            assert_eq!(decode(line).ok().flatten(), expected, "{line}");
        }
        for nothing in ["", "   ", "# LOG_LEVEL=debug", "\t#"] {
            assert_eq!(decode(nothing), Ok(None), "{nothing:?}");
        }
    }

    #[test]
    fn what_systemd_and_docker_read_differently_is_refused() {
        for line in ["LOG_LEVEL", "export LOG_LEVEL=debug", "; comment=1", "1A=b", "=b", "LOG-LEVEL=debug", "A =b"] {
            assert!(decode(line).is_err(), "{line}");
        }
        for line in
            ["LOG_LEVEL=\"debug\"", "LOG_LEVEL='debug'", "ALLOWED_ORIGINS=https://a.example,\\", "DATA_DIR=a\\ b"]
        {
            assert!(decode(line).is_err(), "{line}");
        }
    }
}
