//! What people type into forms, checked and brought into one form (contract 2.5, D26, D34). Pure functions.

use crate::base::Random;
use crate::base::limits::{EMAIL_BYTES_MAX, NAME_CHARS_MAX, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
use crate::message::Gender;

use super::ApiError;

/// Characters of an invite code, and of a referral code (contract 1).
const INVITE_CODE_CHARS: usize = 16;
const REFERRAL_CODE_CHARS: usize = 10;
const CODE_ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Longest local part of an address, bytes (RFC 5321 4.5.3.1.1).
const EMAIL_LOCAL_BYTES_MAX: usize = 64;

/// The name, trimmed.
pub fn name(text: &str) -> Result<&str, ApiError> {
    let name = text.trim();
    if name.is_empty() {
        return Err(ApiError::NameRequired);
    }
    let fits = name.chars().count() <= NAME_CHARS_MAX;
    let legible = name.chars().all(is_printable) && name.chars().any(is_visible);
    if fits && legible { Ok(name) } else { Err(ApiError::NameNotAllowed) }
}

/// Neither a control nor one that turns the direction of the text around it.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Leaves a mark. Joiners and variation selectors belong into names, but do not make one.
fn is_visible(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}')
        && !matches!(c, '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{115f}' | '\u{1160}' | '\u{ffa0}')
}

/// The gender.
pub fn gender(text: &str) -> Result<Gender, ApiError> {
    Gender::decode(text).ok_or(ApiError::InvalidGender)
}

/// The invite code in upper case; `None` when none was given.
pub fn invite_code(text: &str) -> Result<Option<String>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    code(text, INVITE_CODE_CHARS).map(Some).ok_or(ApiError::InviteCodeFormat)
}

/// The referral code in upper case; one that cannot be one is as good as none.
pub fn referral_code(text: &str) -> Option<String> {
    code(text, REFERRAL_CODE_CHARS)
}

fn code(text: &str, chars: usize) -> Option<String> {
    let code = text.trim().to_ascii_uppercase();
    (code.len() == chars && code.bytes().all(|byte| CODE_ALPHABET.contains(&byte))).then_some(code)
}

/// Draws an invite code: 82 bits.
pub fn draw_invite_code(random: &mut Random) -> String {
    let mut character = || char::from(CODE_ALPHABET[random.below(CODE_ALPHABET.len() as u64) as usize]);
    (0..INVITE_CODE_CHARS).map(|_| character()).collect()
}

/// The e-mail address, trimmed and in lower case, if it looks like one (D26). Whether it exists nobody asks.
pub fn email(text: &str) -> Option<String> {
    let email = text.trim().to_ascii_lowercase();
    let (local, domain) = email.rsplit_once('@')?;
    let local_fits = (1..=EMAIL_LOCAL_BYTES_MAX).contains(&local.len())
        && !local.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@');
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    (email.len() <= EMAIL_BYTES_MAX && local_fits && domain.split('.').all(label)).then_some(email)
}

/// Whether a password has an allowed length, in characters. What it is made of is the user's business.
pub fn password_fits(text: &str) -> bool {
    (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_legible() {
        let longest = "é".repeat(100);
        for good in ["Ann", "  Ann ", "Zoë", "李", "👩‍🚀", "O'Neil-Smith 2", &longest] {
            assert_eq!(name(good), Ok(good.trim()));
        }
        for blank in ["", "   ", "\t\n"] {
            assert_eq!(name(blank), Err(ApiError::NameRequired));
        }
        for bad in [&"é".repeat(101), "a\u{0}b", "a\nb", "a\u{202e}b", "\u{200b}", "\u{3164}", "\u{200d}\u{fe0f}"] {
            assert_eq!(name(bad), Err(ApiError::NameNotAllowed), "{bad:?}");
        }
    }

    #[test]
    fn emails_have_one_form() {
        assert_eq!(email("  Ann.B+x@Mail.Example "), Some("ann.b+x@mail.example".to_owned()));
        assert_eq!(email("ann@localhost"), Some("ann@localhost".to_owned()));
        assert_eq!(email("ann@bücher.example"), Some("ann@bücher.example".to_owned()));
        let long_local = "a".repeat(65) + "@b.c";
        let long = format!("a@{}.c", "b".repeat(251));
        for bad in
            ["", "@", "ann", "ann@", "@b.c", "a b@c.d", "a@b c", "a@b..c", "a@.b", "a@b.", "a@b@c", &long_local, &long]
        {
            assert_eq!(email(bad), None, "{bad}");
        }
    }

    #[test]
    fn codes_are_upper_case_letters_and_digits() {
        assert_eq!(invite_code(""), Ok(None));
        assert_eq!(invite_code(" abcdefgh12345678 "), Ok(Some("ABCDEFGH12345678".to_owned())));
        for bad in [" ", "ABCDEFGH1234567", "ABCDEFGH123456789", "ABCDEFGH1234567-", "ÄBCDEFGH1234567"] {
            assert_eq!(invite_code(bad), Err(ApiError::InviteCodeFormat), "{bad}");
        }
        assert_eq!(referral_code("abcde12345").as_deref(), Some("ABCDE12345"));
        assert_eq!(referral_code("abcde1234"), None);
        let drawn = draw_invite_code(&mut Random::from_seed(1));
        assert_eq!(invite_code(&drawn), Ok(Some(drawn)));
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for (good, length) in [(false, 7), (true, 8), (true, 128), (false, 129)] {
            assert_eq!(password_fits(&"ä".repeat(length)), good, "{length}");
        }
    }
}
