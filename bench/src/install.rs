//! Builds what is to be measured: duet and the Rust peers by cargo, the Node peers' packages by npm.
//!
//! Each is built once per run, and its tool's own output is shown. What cannot be built is an error that says how it would
//! be; nothing is skipped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::{Entry, Program};
use crate::tree;

/// What npm installed is kept while the lock stays the same.
const MARK: &str = "node_modules/.lock-installed";

/// Builds the programs of these servers.
///
/// # Errors
/// The command that failed, and what it was for.
pub fn build(servers: &[&Entry]) -> Result<(), String> {
    let mut done = BTreeSet::new();
    for server in servers {
        let kind = match server.program {
            Program::Duet | Program::DuetConformance => "duet",
            Program::Peer(binary) => binary,
            Program::Node(_) => "node",
        };
        if done.insert(kind) {
            build_one(server).map_err(|error| format!("{}: {error}", server.name))?;
        }
    }
    Ok(())
}

/// The program and the words before its arguments.
pub fn command(program: Program) -> (PathBuf, Vec<String>) {
    let built = |folder: PathBuf, name: &str| (folder.join("release").join(name), Vec::new());
    match program {
        Program::Duet => built(tree::target(), "duet"),
        Program::DuetConformance => built(tree::target(), "examples/duet-conformance"),
        Program::Peer(binary) => built(tree::peers_target(), binary),
        Program::Node(script) => {
            (PathBuf::from("node"), vec![node_folder().join(script).to_string_lossy().into_owned()])
        }
    }
}

fn build_one(server: &Entry) -> Result<(), String> {
    match server.program {
        Program::Duet | Program::DuetConformance => run(
            "cargo",
            &tree::root(),
            &["build", "--release", "--locked", "--bin", "duet", "--example", "duet-conformance"],
        ),
        Program::Peer(binary) => build_peer(binary),
        Program::Node(_) => install_packages(&node_folder()),
    }
}

fn build_peer(binary: &str) -> Result<(), String> {
    let folder = tree::root().join("bench/peers/rust");
    let source = folder.join("src/bin");
    if !source.join(format!("{binary}.rs")).exists() && !source.join(binary).exists() {
        return Err(format!("there is no {binary} in bench/peers/rust/src/bin"));
    }
    let target = tree::peers_target().to_string_lossy().into_owned();
    run("cargo", &folder, &["build", "--release", "--locked", "--bin", binary, "--target-dir", &target])
}

fn node_folder() -> PathBuf {
    tree::root().join("bench/peers/node")
}

fn install_packages(folder: &Path) -> Result<(), String> {
    let lock = fs::read(folder.join("package-lock.json")).map_err(|error| format!("bench/peers/node: {error}"))?;
    if fs::read(folder.join(MARK)).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    run("npm", folder, &["ci", "--no-audit", "--no-fund", "--ignore-scripts"])?;
    fs::write(folder.join(MARK), lock).map_err(|error| error.to_string())
}

fn run(program: &str, folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let shown = format!("{program} {}", arguments.join(" "));
    eprintln!("building: {shown}");
    let status = Command::new(program).args(arguments).current_dir(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` in {} failed: {status}", folder.display())),
        Err(error) => Err(format!("`{shown}` needs {program}, which did not start: {error}")),
    }
}
