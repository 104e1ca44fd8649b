//! The text in which Prometheus reads metrics (text exposition format, 0.0.4): families of samples, one line each.
//!
//! Held by whoever writes a page. Bound: what is written, of fixed families with labels of fixed values. Own lines, since
//! every crate for it brings a registry of atomics, which would be on the hot path. Not here: what is counted, and where.

use std::fmt::Write;

use crate::base::counters::Histogram;

/// The media type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a family's numbers move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only up; its name ends in `_total`.
    Counter,
    /// Up and down.
    Gauge,
    Histogram,
}

/// A name and its value.
pub type Label<'a> = (&'static str, &'a str);

/// A page that is being written.
#[derive(Default)]
pub struct Page(String);

/// One family of samples on a page.
pub struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Page {
    /// Begins a family. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        write(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {word}\n"));
        Family { page: &mut self.0, name }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds one sample.
    pub fn sample(&mut self, labels: &[Label], value: f64) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// Adds one sample without labels.
    pub fn value(&mut self, value: f64) -> &mut Self {
        self.sample(&[], value)
    }

    /// Adds a sample for each name under `label`.
    pub fn each<const N: usize>(&mut self, label: &'static str, names: &[&str; N], values: [u64; N]) -> &mut Self {
        for (name, value) in names.iter().zip(values) {
            self.sample(&[(label, name)], value as f64);
        }
        self
    }

    /// Adds a histogram whose values are told in units of which one has `divisor` of its own.
    pub fn histogram<const N: usize>(&mut self, labels: &[Label], histogram: &Histogram<N>, divisor: f64) -> &mut Self {
        for (bound, count) in histogram.up_to() {
            self.line("_bucket", labels, Some(&(bound as f64 / divisor).to_string()), count as f64);
        }
        let count = histogram.count() as f64;
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, histogram.sum() as f64 / divisor);
        self.line("_count", labels, None, count)
    }

    fn line(&mut self, suffix: &str, labels: &[Label], bound: Option<&str>, value: f64) -> &mut Self {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        for (index, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            write(self.page, format_args!("{opening}{name}=\"{}\"", Escaped(value)));
        }
        if !labels.is_empty() || bound.is_some() {
            self.page.push('}');
        }
        write(self.page, format_args!(" {value}\n"));
        self
    }
}

/// A label's value as it may stand between quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn write(text: &mut String, what: std::fmt::Arguments) {
    let written = text.write_fmt(what);
    debug_assert!(written.is_ok(), "a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "What a is.").each(
            "why",
            &["x", "y\"\\\n"],
            [1, u64::from(u32::MAX) + 1],
        );
        page.family("b_ratio", Kind::Gauge, "What b is.").value(0.25);
        let histogram = Histogram::new(&[100, 2_500_000]);
        [7, 100, 101, 3_000_000].into_iter().for_each(|value| histogram.observe(value));
        page.family("c_seconds", Kind::Histogram, "What c is.").histogram(&[("of", "z")], &histogram, 1e6);
        let expected = [
            "# HELP a_total What a is.",
            "# TYPE a_total counter",
            "a_total{why=\"x\"} 1",
            "a_total{why=\"y\\\"\\\\\\n\"} 4294967296",
            "# HELP b_ratio What b is.",
            "# TYPE b_ratio gauge",
            "b_ratio 0.25",
            "# HELP c_seconds What c is.",
            "# TYPE c_seconds histogram",
            "c_seconds_bucket{of=\"z\",le=\"0.0001\"} 2",
            "c_seconds_bucket{of=\"z\",le=\"2.5\"} 3",
            "c_seconds_bucket{of=\"z\",le=\"+Inf\"} 4",
            "c_seconds_sum{of=\"z\"} 3.000208",
            "c_seconds_count{of=\"z\"} 4",
            "",
        ];
        assert_eq!(page.finish(), expected.join("\n"));
    }
}
