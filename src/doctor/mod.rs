//! `duet doctor`: looks at the machine, the store and the TURN servers as a start would need them, and says what to do.
//!
//! Runs on the main thread instead of a server, and changes nothing: no file stays, no schema is migrated. Each look is a
//! [`Finding`]. Time: what is not there costs its own timeout, a store its settings' own. Not here: the looks themselves
//! (`machine.rs`, `network.rs`).

mod machine;
mod network;
pub mod ready;

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{ConfigExit, Reading};
use crate::shard::clock::Clock;

/// How bad something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The server runs, but not as well as it could.
    Warning,
    /// The server does not start, or some of its users are not served.
    Error,
}

/// What was looked at, and what is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub name: String,
    pub verdict: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, advice: Some(advice.into()), ..Self::ok(name, found) }
    }

    fn error(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Error, advice: Some(advice.into()), ..Self::ok(name, found) }
    }
}

/// Looks at everything. The exit code is 1 if something is wrong.
pub fn examine(reading: &Reading) -> ConfigExit {
    let (clock, config, system) = (Clock::start(), reading.config_as_read(), &reading.system);
    let mut findings = vec![machine::kernel(), machine::ring(config), machine::locked_memory(system)];
    findings.extend([machine::descriptors(config, system), machine::memory(config, system)]);
    findings.push(machine::processors(config, system));
    findings.extend(settings(reading));
    findings.push(network::port(config));
    findings.push(network::store(config, &clock));
    findings.extend(network::ice(config, &clock));
    findings.push(machine::clock(&clock));
    let is_ill = findings.iter().any(|finding| finding.verdict == Verdict::Error);
    let text = if reading.is_json { json(&findings) } else { text(&findings) };
    ConfigExit::answer(text, i32::from(is_ill))
}

/// What `duet check-config` would find.
fn settings(reading: &Reading) -> Vec<Finding> {
    let advice = "see duet check-config";
    let errors = reading.errors.iter().map(|line| Finding::error("settings", line, advice));
    let warnings = reading.warnings.iter().map(|line| Finding::warning("settings", line, advice));
    let mut findings: Vec<_> = errors.chain(warnings).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("settings", "nothing speaks against them"));
    }
    findings
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { name, verdict, found, advice } in findings {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "error",
        };
        let _ = writeln!(text, "{verdict:7}  {name:width$}  {found}");
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:7}  {:width$}  -> {advice}", "", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (errors, warnings) = (count(Verdict::Error), count(Verdict::Warning));
    let _ = writeln!(text, "errors: {errors}, warnings: {warnings}");
    text
}

fn json(findings: &[Finding]) -> String {
    let mut text = serde_json::json!({ "findings": findings }).to_string();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_below_each_other_with_what_to_do() {
        let findings = [Finding::ok("kernel", "6.1.0"), Finding::error("port", "3001 is taken", "set PORT")];
        let expected = "ok       kernel  6.1.0\n\
                        error    port    3001 is taken\n                 -> set PORT\n\
                        errors: 1, warnings: 0\n";
        assert_eq!(text(&findings), expected);
        let parsed: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
        assert_eq!(parsed["findings"][1]["verdict"], "error");
        assert_eq!(parsed["findings"][1]["advice"], "set PORT");
        assert!(parsed["findings"][0].get("advice").is_none());
    }
}
