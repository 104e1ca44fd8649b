//! Results: what was measured per case, server and round; their medians, spread and ratios; written as JSON.
//!
//! Tables and plots are made from this alone (`table.rs`, `plot.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency;
use crate::machine::Machine;

/// One column of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name in JSON and in file names.
    pub key: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    /// Decimal digits shown.
    #[serde(skip)]
    pub digits: usize,
    /// Whether it is shown as a multiple of the baseline's too.
    #[serde(skip)]
    pub is_compared: bool,
    /// Whether it gets a plot.
    #[serde(skip)]
    pub is_plotted: bool,
}

impl Metric {
    /// Shown in the table only.
    pub const fn new(key: &'static str, title: &'static str, unit: &'static str, digits: usize) -> Self {
        Self { key, title, unit, digits, is_compared: false, is_plotted: false }
    }

    /// Shown as a multiple of the baseline's, and plotted.
    pub const fn compared(self) -> Self {
        Self { is_compared: true, is_plotted: true, ..self }
    }

    /// Plotted, for what the baseline has no part in.
    pub const fn plotted(self) -> Self {
        Self { is_plotted: true, ..self }
    }
}

/// What one server did in one case and round.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    values: BTreeMap<&'static str, f64>,
    latency: Option<Histogram<u64>>,
    notes: Vec<String>,
}

impl Measured {
    /// A figure of this round.
    pub fn set(&mut self, metric: Metric, value: f64) {
        self.values.insert(metric.key, value);
    }

    /// Times for the curve; of several rounds they are added up. ns.
    pub fn set_latency(&mut self, times: Histogram<u64>) {
        self.latency = Some(times);
    }

    /// Something that the reader of the figures must know.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// The middle, the ends, and the middle's multiple of the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Summary {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, min, max, ratio: None })
    }
}

/// One server in one case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub case: String,
    pub server: &'static str,
    /// By metric, one value per round in which there was one.
    pub rounds: BTreeMap<&'static str, Vec<f64>>,
    pub summary: BTreeMap<&'static str, Summary>,
    /// Percent and ms, over all rounds.
    pub curve: Vec<(f64, f64)>,
    pub notes: Vec<String>,
    /// Why rounds have no figures.
    pub failures: Vec<String>,
    #[serde(skip)]
    latency: Option<Histogram<u64>>,
}

/// Everything that one scenario has measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    pub about: &'static str,
    pub commit: String,
    pub date: String,
    pub machine: Machine,
    pub settings: BTreeMap<&'static str, String>,
    pub baseline: Option<&'static str>,
    pub metrics: Vec<Metric>,
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds what one round has measured.
    pub fn add(&mut self, case: &str, server: &'static str, outcome: Result<Measured, String>) {
        let at = self.rows.iter().position(|row| row.case == case && row.server == server).unwrap_or_else(|| {
            self.rows.push(Row::new(case, server));
            self.rows.len() - 1
        });
        self.rows[at].add(outcome);
        self.compare();
    }

    /// In the order in which they were measured.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }

    /// Every round that gave no figures, with its case and server.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.rows
            .iter()
            .flat_map(|row| row.failures.iter().map(move |failure| format!("{}, {}: {failure}", row.case, row.server)))
    }

    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(file, json)
    }

    /// Ratios anew, of every row to the baseline's in the same case.
    fn compare(&mut self) {
        let Some(baseline) = self.baseline else { return };
        let bases: Vec<Row> = self.rows.iter().filter(|row| row.server == baseline).cloned().collect();
        for row in &mut self.rows {
            let Some(base) = bases.iter().find(|base| base.case == row.case) else { continue };
            for (key, summary) in &mut row.summary {
                let of = base.summary.get(key).map(|base| base.median).filter(|median| *median != 0.0);
                summary.ratio = of.map(|median| summary.median / median);
            }
        }
    }
}

impl Row {
    fn new(case: &str, server: &'static str) -> Self {
        Self {
            case: case.to_owned(),
            server,
            rounds: BTreeMap::new(),
            summary: BTreeMap::new(),
            curve: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            latency: None,
        }
    }

    fn add(&mut self, outcome: Result<Measured, String>) {
        let measured = match outcome {
            Ok(measured) => measured,
            Err(failure) => return self.failures.push(failure),
        };
        for (key, value) in measured.values {
            let values = self.rounds.entry(key).or_default();
            values.push(value);
            if let Some(summary) = Summary::of(values) {
                self.summary.insert(key, summary);
            }
        }
        for note in measured.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        if let Some(times) = measured.latency {
            let all = self.latency.get_or_insert_with(latency::histogram);
            all.add(&times).expect("all histograms have the same bounds");
            self.curve = latency::curve(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric::new("rate", "Rate", "/s", 0).compared();

    fn report() -> Report {
        Report {
            scenario: "test",
            about: "",
            commit: String::new(),
            date: String::new(),
            machine: Machine::here(1),
            settings: BTreeMap::new(),
            baseline: Some("node"),
            metrics: vec![RATE],
            rows: Vec::new(),
        }
    }

    fn row<'a>(report: &'a Report, case: &str, server: &str) -> &'a Row {
        report.rows.iter().find(|row| row.case == case && row.server == server).unwrap()
    }

    fn rate(value: f64) -> Result<Measured, String> {
        let mut measured = Measured::default();
        measured.set(RATE, value);
        Ok(measured)
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_it() {
        let summary = Summary::of(&[3.0, 1.0, 100.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (3.0, 1.0, 100.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 100.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_the_baselines_median_in_the_same_case() {
        let mut report = report();
        for value in [10.0, 30.0, 20.0] {
            report.add("a", "duet-uring", rate(value * 4.0));
            report.add("a", "node", rate(value));
        }
        report.add("b", "duet-uring", rate(7.0));
        let ratio = |case, server| row(&report, case, server).summary["rate"].ratio;
        assert_eq!(ratio("a", "duet-uring"), Some(4.0));
        assert_eq!(ratio("a", "node"), Some(1.0));
        assert_eq!(ratio("b", "duet-uring"), None);
    }

    #[test]
    fn a_failed_round_leaves_the_others_and_is_told() {
        let mut report = report();
        report.add("a", "node", rate(5.0));
        report.add("a", "node", Err("it ended".to_owned()));
        assert_eq!(row(&report, "a", "node").summary["rate"].median, 5.0);
        assert_eq!(report.failures().collect::<Vec<_>>(), ["a, node: it ended"]);
    }

    #[test]
    fn json_holds_medians_and_every_round() {
        let mut report = report();
        report.add("a", "node", rate(5.0));
        report.add("a", "node", rate(7.0));
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["rounds"]["rate"], serde_json::json!([5.0, 7.0]));
        assert_eq!(json["rows"][0]["summary"]["rate"]["median"], 6.0);
    }
}
