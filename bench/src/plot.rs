//! Plots of a report as SVG: bars with whiskers from least to most, and curves of latency.
//!
//! Without a background, in greys and hues that are read on white and on black.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Metric, Report, Row};
use crate::table::number;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

const WIDTH: u32 = 860;
const NAMES: i32 = 150;
const VALUES: i32 = 170;
const BAR: i32 = 16;
const LINE: i32 = 24;
const HEAD: i32 = 34;
const TEXT: RGBColor = RGBColor(125, 133, 144);
const SERVERS: [RGBColor; 12] = [
    RGBColor(47, 129, 247),
    RGBColor(219, 109, 40),
    RGBColor(46, 160, 67),
    RGBColor(163, 113, 247),
    RGBColor(248, 81, 73),
    RGBColor(187, 128, 9),
    RGBColor(219, 97, 162),
    RGBColor(57, 171, 171),
    RGBColor(118, 131, 245),
    RGBColor(140, 160, 60),
    RGBColor(160, 110, 80),
    RGBColor(200, 150, 200),
];

/// Draws everything that the report has to show into a folder; gives the files' names.
pub fn draw(report: &Report, folder: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for metric in report.metrics.iter().filter(|metric| metric.is_plotted) {
        if report.rows.iter().any(|row| row.summary.contains_key(metric.key)) {
            let name = format!("{}.svg", metric.key);
            bars(report, metric, &folder.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            names.push(name);
        }
    }
    for (number, case) in report.cases().iter().enumerate() {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.case == *case && !row.curve.is_empty()).collect();
        if !rows.is_empty() {
            let name = format!("latency-{}.svg", number + 1);
            curves(report, case, &rows, &folder.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            names.push(name);
        }
    }
    Ok(names)
}

/// A server keeps its colour in all plots of a report.
fn color(report: &Report, server: &str) -> RGBColor {
    let mut servers: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !servers.contains(&row.server) {
            servers.push(row.server);
        }
    }
    SERVERS[servers.iter().position(|name| *name == server).unwrap_or_default() % SERVERS.len()]
}

fn write<'a>(area: &Area<'a>, text: &str, at: (i32, i32), size: f64) -> Result<(), Failed<'a>> {
    area.draw(&Text::new(text.to_owned(), at, ("sans-serif", size).into_font().color(&TEXT)))
}

/// A bar per case and server, as long as the median; whiskers to the least and the most of its rounds.
fn bars<'a>(report: &Report, metric: &Metric, file: &'a Path) -> Result<(), Failed<'a>> {
    let cases = report.cases();
    let height = HEAD + cases.len() as i32 * LINE + report.rows.len() as i32 * LINE;
    let area = SVGBackend::new(file, (WIDTH, height as u32)).into_drawing_area();
    let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
    write(&area, &format!("{}: {}{unit}", report.scenario, metric.title), (8, 8), 17.0)?;
    let summaries = report.rows.iter().filter_map(|row| row.summary.get(metric.key));
    let most = summaries.map(|summary| summary.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(WIDTH as i32 - NAMES - VALUES) / most;
    let x = |value: f64| NAMES + (value.max(0.0) * scale) as i32;
    let mut y = HEAD;
    for case in cases {
        write(&area, case, (8, y + 4), 14.0)?;
        y += LINE;
        for row in report.rows.iter().filter(|row| row.case == case) {
            write(&area, row.server, (20, y + 2), 13.0)?;
            if let Some(summary) = row.summary.get(metric.key) {
                let fill = color(report, row.server).filled();
                area.draw(&Rectangle::new([(NAMES, y), (x(summary.median), y + BAR)], fill))?;
                let middle = y + BAR / 2;
                let whisker = vec![(x(summary.min), middle), (x(summary.max), middle)];
                area.draw(&PathElement::new(whisker, TEXT.stroke_width(2)))?;
                for end in [summary.min, summary.max] {
                    let tick = vec![(x(end), middle - 4), (x(end), middle + 4)];
                    area.draw(&PathElement::new(tick, TEXT.stroke_width(2)))?;
                }
                let ratio = summary.ratio.filter(|_| metric.is_compared);
                let ratio = ratio.map(|ratio| format!("  {}×", number(ratio, 2))).unwrap_or_default();
                let label = format!("{}{ratio}", number(summary.median, metric.digits));
                write(&area, &label, (x(summary.max) + 8, y + 2), 13.0)?;
            } else {
                write(&area, "no figure", (NAMES + 8, y + 2), 13.0)?;
            }
            y += LINE;
        }
    }
    area.present()
}

/// Latency over percentiles, both axes labelled, the y axis logarithmic.
fn curves<'a>(report: &Report, case: &str, rows: &[&Row], file: &'a Path) -> Result<(), Failed<'a>> {
    const HEIGHT: u32 = 420;
    let area = SVGBackend::new(file, (WIDTH, HEIGHT)).into_drawing_area();
    let points = || rows.iter().flat_map(|row| &row.curve);
    let least = points().map(|(_, ms)| *ms).fold(f64::MAX, f64::min).max(1e-4);
    let most = points().map(|(_, ms)| *ms).fold(least * 10.0, f64::max);
    let percents: Vec<f64> = rows[0].curve.iter().map(|(percent, _)| *percent).collect();
    let font = || ("sans-serif", 13).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: latency, {case}", report.scenario), ("sans-serif", 17).into_font().color(&TEXT))
        .margin(10)
        .margin_right(VALUES)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..(percents.len() - 1) as f64, (least..most * 1.2).log_scale())?;
    let percent_label = |place: &f64| percents.get(place.round() as usize).map(|p| format!("p{p}")).unwrap_or_default();
    chart
        .configure_mesh()
        .x_labels(percents.len())
        .x_label_formatter(&percent_label)
        .y_label_formatter(&|ms| number(*ms, if *ms < 0.1 { 3 } else { 1 }))
        .y_desc("ms")
        .label_style(font())
        .axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.3))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (number, row) in rows.iter().enumerate() {
        let color = color(report, row.server);
        let line = row.curve.iter().enumerate().map(|(place, (_, ms))| (place as f64, ms.max(least)));
        chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
        let y = 50 + number as i32 * 20;
        let left = WIDTH as i32 - VALUES + 10;
        area.draw(&Rectangle::new([(left, y), (left + 12, y + 12)], color.filled()))?;
        write(&area, row.server, (left + 18, y), 13.0)?;
    }
    area.present()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::latency::histogram;
    use crate::machine::Machine;
    use crate::report::Measured;

    #[test]
    fn bars_and_curves_are_drawn_with_their_names() {
        let metric = Metric::new("rate", "Rate", "/s", 0).compared();
        let mut report = Report {
            scenario: "relay",
            about: "",
            commit: String::new(),
            date: String::new(),
            machine: Machine::here(1),
            settings: BTreeMap::new(),
            baseline: Some("node"),
            metrics: vec![metric],
            rows: Vec::new(),
        };
        for (server, value) in [("node", 10.0), ("duet-uring", 30.0)] {
            let mut measured = Measured::default();
            measured.set(metric, value);
            let mut times = histogram();
            times.record(1_000_000).unwrap();
            measured.set_latency(times);
            report.add("50 connections", server, Ok(measured));
        }
        let folder = std::env::temp_dir().join(format!("duet-bench-plot-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let names = draw(&report, &folder).unwrap();
        assert_eq!(names, ["rate.svg", "latency-1.svg"]);
        let bars = fs::read_to_string(folder.join("rate.svg")).unwrap();
        assert!(bars.starts_with("<svg") && bars.contains("duet-uring") && bars.contains("3.00×"), "{bars}");
        assert!(fs::read_to_string(folder.join("latency-1.svg")).unwrap().contains("p99.9"));
        fs::remove_dir_all(folder).unwrap();
    }
}
