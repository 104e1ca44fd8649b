//! The report as Markdown: a table per case, a line per server; and what the reader must know.

use std::fmt::Write;

use crate::report::{Metric, Report, Row, Summary};

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n\n", report.scenario, report.about);
    let machine = &report.machine;
    let settings: Vec<String> = report.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let _ = writeln!(
        text,
        "Commit {}, {}. {}, {} cores, {} MiB, Linux {}, Node {}, {}. {}. Medians of the rounds (least to most){}.",
        report.commit,
        report.date,
        machine.processor,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.node,
        machine.rust,
        settings.join(", "),
        report.baseline.map(|name| format!("; × is the multiple of {name}'s")).unwrap_or_default(),
    );
    for case in report.cases() {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.case == case).collect();
        let _ = write!(text, "\n## {case}\n\n{}", table(report, &rows));
        let notes = rows.iter().flat_map(|row| row.notes.iter().chain(&row.failures).map(|note| (row.server, note)));
        for (number, (server, note)) in notes.enumerate() {
            let _ = writeln!(text, "{}- {server}: {note}", if number == 0 { "\n" } else { "" });
        }
    }
    text
}

/// Columns without a figure in this case are left out.
fn table(report: &Report, rows: &[&Row]) -> String {
    let has = |metric: &&Metric| rows.iter().any(|row| row.summary.contains_key(metric.key));
    let metrics: Vec<&Metric> = report.metrics.iter().filter(has).collect();
    let mut text = "| server |".to_owned();
    for metric in &metrics {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
        let _ = write!(text, " {}{unit} |", metric.title);
    }
    let _ = writeln!(text, "\n| --- |{}", " --- |".repeat(metrics.len()));
    for row in rows {
        let _ = write!(text, "| {} |", row.server);
        for metric in &metrics {
            let cell = row.summary.get(metric.key).map(|summary| cell(metric, summary)).unwrap_or_default();
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// The median, the ends if they differ, the multiple if the metric is compared.
fn cell(metric: &Metric, summary: &Summary) -> String {
    let show = |value| number(value, metric.digits);
    let mut text = show(summary.median);
    if summary.min != summary.max {
        let _ = write!(text, " ({} to {})", show(summary.min), show(summary.max));
    }
    if let Some(ratio) = summary.ratio.filter(|_| metric.is_compared) {
        let _ = write!(text, " {}×", number(ratio, 2));
    }
    text
}

/// With commas between thousands.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("-", rest));
    let mut grouped = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(number(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(number(-999.0, 0), "-999");
        assert_eq!(number(0.126, 2), "0.13");
    }

    #[test]
    fn a_cell_shows_spread_and_ratio_where_there_is_one() {
        let metric = Metric::new("x", "X", "", 0).compared();
        let summary = Summary { median: 2_000.0, min: 1_000.0, max: 3_000.0, ratio: Some(2.0) };
        assert_eq!(cell(&metric, &summary), "2,000 (1,000 to 3,000) 2.00×");
        let alone = Summary { median: 5.0, min: 5.0, max: 5.0, ratio: None };
        assert_eq!(cell(&metric, &alone), "5");
    }
}
