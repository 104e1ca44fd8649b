//! Whether the instrument works: every scenario, in its quick form, gives figures of every server and no failure.
//!
//! Times are not judged. Needs two cores.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What no note may say: the server did wrong, however slow the machine is.
const WRONG: [&str; 7] =
    ["share a core", "were lost", "was lost", "did not arrive", "declined", "was answered", "[\"error\""];
/// Of these something must have happened, where there are any.
const RATES: [&str; 5] = ["calls", "deliveries", "success", "queue", "gzip"];

/// Runs all scenarios into `out`.
fn run_all(out: &Path) {
    let program = env!("CARGO_BIN_EXE_duet-bench");
    let output = Command::new(program).args(["all", "--quick", "--out"]).arg(out).output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {shown}", output.status);
}

/// The names that `list` gives.
fn scenarios() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_duet-bench")).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned).collect()
}

#[test]
fn every_scenario_measures_its_servers_and_writes_its_results() {
    let out = std::env::temp_dir().join(format!("duet-bench-quick-{}", std::process::id()));
    run_all(&out);
    let names = scenarios();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        let folder = out.join(&name);
        let text = fs::read_to_string(folder.join("results.json")).unwrap();
        let results: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(results["scenario"], name.as_str());
        assert!(results["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{name} has no commit");
        let rows = results["rows"].as_array().unwrap();
        assert!(!rows.is_empty(), "{name} has no rows");
        for row in rows {
            assert_eq!(row["failures"].as_array().map(Vec::len), Some(0), "{name}: {row}");
            let summary = row["summary"].as_object().unwrap();
            let medians: Vec<f64> = summary.values().map(|summary| summary["median"].as_f64().unwrap()).collect();
            assert!(medians.iter().any(|median| *median > 0.0), "{name}: {row}");
            for note in row["notes"].as_array().unwrap() {
                let note = note.as_str().unwrap();
                assert!(!WRONG.iter().any(|wrong| note.contains(wrong)), "{name}: {row}");
            }
            for rate in RATES {
                assert!(
                    summary.get(rate).is_none_or(|rate| rate["median"].as_f64() > Some(0.0)),
                    "{name}: {rate} {row}"
                );
            }
        }
        let table = fs::read_to_string(folder.join("results.md")).unwrap();
        assert!(rows.iter().all(|row| table.contains(row["server"].as_str().unwrap())), "{table}");
        let files = fs::read_dir(&folder).unwrap();
        assert!(
            files.flatten().any(|file| file.path().extension().is_some_and(|end| end == "svg")),
            "{name} has no plot"
        );
    }
    fs::remove_dir_all(out).unwrap();
}
