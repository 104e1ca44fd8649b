//! Secrets: from a flag, a variable, a file that a variable names, or the folder of credentials that a service manager
//! makes; in this order.
//!
//! Arguments are read by every user of a machine, and variables by what the process starts and by who inspects its
//! container: a file is read by its owner only. Bound: [`FILE_BYTES_MAX`]. No error repeats what was read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::flags::{CREDENTIALS, Flag};
use super::reader::{Reader, Source};

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Shorter secrets are guessed, bytes.
const SECRET_BYTES_MIN: usize = 16;
/// The same of a database's password, which nobody can try without reaching the database.
const PASSWORD_BYTES_MIN: usize = 8;

/// What documentation, examples and images use. Compared without case.
const WELL_KNOWN: [&str; 24] = [
    "secret",
    "password",
    "passwd",
    "changeme",
    "changemeplease",
    "change-me",
    "change_me",
    "default",
    "example",
    "test",
    "admin",
    "root",
    "letmein",
    "north",
    "postgres",
    "postgresql",
    "duet",
    "turn",
    "coturn",
    "turn-secret",
    "static-auth-secret",
    "your-secret-here",
    "mysecretpassword",
    "supersecretpassword",
];

/// The secret `name` and where it comes from; blank if there is none. What is wrong is noted.
pub(super) fn read(reader: &mut Reader, secret: &Flag) -> (String, Source) {
    let (given, source) = reader.value(secret.name);
    let (file, file_source) = reader.value(secret.file());
    if !given.is_empty() {
        if !file.is_empty() {
            let variable = secret.variable;
            reader.errors.push(format!("{variable} and {variable}_FILE are both set: leave one of them out"));
        }
        return (given, source);
    }
    if !file.is_empty() {
        let setting = format!("--{} ({}_FILE)", secret.file(), secret.variable);
        let text = content(Path::new(&file)).unwrap_or_else(|reason| {
            reader.errors.push(format!("{setting}: the file {file} {reason}"));
            String::new()
        });
        return (text, Source::File(Box::new(file_source)));
    }
    let folder = reader.text(CREDENTIALS);
    let path = Path::new(&folder).join(secret.name);
    if folder.is_empty() || !path.exists() {
        return (String::new(), Source::Default);
    }
    let text = content(&path).unwrap_or_else(|reason| {
        reader.errors.push(format!("the credential {} {reason}", path.display()));
        String::new()
    });
    (text, Source::Credential)
}

/// The text of a file without the newline that editors add.
fn content(path: &Path) -> Result<String, String> {
    match text(path)?.trim() {
        "" => Err("is empty".to_owned()),
        secret => Ok(secret.to_owned()),
    }
}

/// All of a file, or in words why not.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => Err(format!("is longer than {FILE_BYTES_MAX} bytes")),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("is no text".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Why a secret of ours is too weak to be trusted, if it is.
pub(super) fn weakness(secret: &str) -> Option<String> {
    judge(secret.as_bytes(), SECRET_BYTES_MIN)
}

/// The same of a database's password.
pub(super) fn password_weakness(password: &[u8]) -> Option<String> {
    judge(password, PASSWORD_BYTES_MIN)
}

fn judge(secret: &[u8], bytes_min: usize) -> Option<String> {
    let is_well_known = WELL_KNOWN.iter().any(|known| secret.eq_ignore_ascii_case(known.as_bytes()));
    let is_one_byte = secret.iter().all(|byte| Some(byte) == secret.first());
    if is_well_known {
        Some("is a well-known default".to_owned())
    } else if secret.len() < bytes_min {
        Some(format!("is shorter than {bytes_min} bytes"))
    } else if is_one_byte {
        Some("is one character repeated".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_known() {
        for weak in ["", "north", "ChangeMe", "static-auth-secret", "fifteen-letters", "aaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(weakness(weak).is_some(), "{weak}");
        }
        assert_eq!(weakness("8f3b1c5e9d7a2460"), None);
        assert!(password_weakness(b"postgres").is_some() && password_weakness(b"mysecretpassword").is_some());
        assert_eq!(password_weakness(b"q7h2kd0a"), None);
    }

    #[test]
    fn a_file_is_read_without_its_last_newline_and_never_repeated() {
        let path = std::env::temp_dir().join(format!("duet-secret-{}", std::process::id()));
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(content(&path).as_deref(), Ok("s3cret"));
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(content(&path), Err("is empty".to_owned()));
        std::fs::write(&path, "s".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
        assert_eq!(content(&path), Err("is longer than 65536 bytes".to_owned()));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(content(&path), Err("is no text".to_owned()));
        std::fs::remove_file(&path).unwrap();
        assert!(content(&path).unwrap_err().starts_with("cannot be read"));
    }
}
