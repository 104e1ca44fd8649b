//! `Date` as HTTP writes it: IMF-fixdate (RFC 9110 5.6.7), computed from a [`Time`] without a calendar library.

use std::fmt::Write;

use crate::base::Time;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends `time` as in `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn encode_date(time: Time, out: &mut String) {
    let seconds = time.0 / 1000;
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let month = MONTHS[month - 1];
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let written = write!(out, "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    debug_assert!(written.is_ok(), "a String takes every write");
}

/// Year, month (1..=12) and day of the month, so many days after the epoch.
///
/// Counts in eras of 400 years that start on 1 March, so that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, usize, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month as usize, day)
}
