//! Builds what is to be measured: duet by cargo, the peers by their own script.
//!
//! Each is built once per run, and its tool's own output is shown. What cannot be built is an error that says how it would
//! be; nothing is skipped.

use std::path::PathBuf;
use std::process::Command;

use crate::servers::{Entry, Program};
use crate::tree;

/// cargo's words for duet and for its echo.
const BUILD_DUET: [&str; 7] = ["build", "--release", "--locked", "--bin", "duet", "--example", "duet-conformance"];
const BUILD_PEERS: &str = "bench/peers/build";

/// Builds the programs of these servers.
///
/// # Errors
/// The command that failed, or what it has not made.
pub fn build(servers: &[&Entry]) -> Result<(), String> {
    if servers.iter().any(|server| server.is_duet()) {
        run(Command::new("cargo").args(BUILD_DUET))?;
    }
    if servers.iter().any(|server| !server.is_duet()) {
        run(&mut Command::new(tree::root().join(BUILD_PEERS)))?;
    }
    for server in servers {
        let file = file(server.program);
        if !file.exists() {
            return Err(format!("{}: {} is not there after building", server.name, file.display()));
        }
    }
    Ok(())
}

/// The program to start, and the words before its arguments.
pub fn command(program: Program) -> (PathBuf, Vec<String>) {
    let file = file(program);
    match program {
        Program::Node(_) => (PathBuf::from("node"), vec![file.to_string_lossy().into_owned()]),
        _ => (file, Vec::new()),
    }
}

fn file(program: Program) -> PathBuf {
    match program {
        Program::Duet => tree::target().join("release/duet"),
        Program::DuetConformance => tree::target().join("release/examples/duet-conformance"),
        Program::Peer(binary) => tree::target().join("peers/release").join(binary),
        Program::Node(script) => tree::root().join("bench/peers/node").join(script),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    command.current_dir(tree::root());
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let shown = format!("{} {}", command.get_program().to_string_lossy(), words.join(" "));
    eprintln!("building: {shown}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` failed: {status}")),
        Err(error) => Err(format!("`{shown}` did not start: {error}")),
    }
}
