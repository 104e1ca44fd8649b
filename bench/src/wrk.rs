//! `wrk`, the outside client: as many requests as a server answers, on so many connections.
//!
//! It inherits the generator's core. Its latencies are a closed loop's, and not read.

use std::process::Command;

/// What a run has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Answered.
    pub requests: u64,
    pub per_second: f64,
    /// Heads and bodies of all answers.
    pub bytes: f64,
    /// Answers other than 2xx and 3xx, and requests without an answer.
    pub failures: u64,
}

/// Runs it for so many whole seconds.
///
/// # Errors
/// It is missing, or failed.
pub fn run(url: &str, headers: &[String], connections: usize, seconds: u64) -> Result<Outcome, String> {
    let mut command = Command::new("wrk");
    command.args(["--threads=1", &format!("--connections={connections}"), &format!("--duration={seconds}s")]);
    headers.iter().for_each(|header| {
        command.args(["--header", header]);
    });
    let output = command
        .arg(url)
        .output()
        .map_err(|error| format!("wrk does not start: {error}. It is Debian's package `wrk`: apt-get install wrk"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    decode(&text).ok_or_else(|| format!("wrk said what is not understood: {text}"))
}

/// Reads its last lines; `None` if the rate is not among them.
fn decode(text: &str) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    let mut is_whole = false;
    for line in text.lines().map(str::trim) {
        if let Some((requests, rest)) = line.split_once(" requests in ") {
            outcome.requests = requests.parse().ok()?;
            outcome.bytes = bytes(rest.split_once(", ")?.1.strip_suffix(" read")?)?;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            outcome.per_second = rate.trim().parse().ok()?;
            is_whole = true;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            outcome.failures += count.trim().parse::<u64>().ok()?;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            let counts = errors.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            outcome.failures += counts.filter_map(|digits| digits.parse::<u64>().ok()).sum::<u64>();
        }
    }
    is_whole.then_some(outcome)
}

/// `1.50MB` and the like, of 1,024.
fn bytes(text: &str) -> Option<f64> {
    let (number, factor) = [("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)]
        .iter()
        .find_map(|(unit, power)| Some((text.strip_suffix(unit)?, f64::from(1_u32 << power))))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 8 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.00ms\n  \
                    2000 requests in 2.00s, 1.50MB read\n  \
                    Socket errors: connect 1, read 2, write 0, timeout 4\n  \
                    Non-2xx or 3xx responses: 10\nRequests/sec:  999.50\nTransfer/sec: 768.00KB\n";
        let outcome = decode(text).unwrap();
        assert_eq!(outcome, Outcome { requests: 2_000, per_second: 999.5, bytes: 1_572_864.0, failures: 17 });
        assert_eq!(decode("unable to connect"), None);
        assert_eq!(bytes("12.00KB"), Some(12_288.0));
        assert_eq!(bytes("7.00B"), Some(7.0));
    }
}
