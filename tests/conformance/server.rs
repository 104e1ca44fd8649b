//! What protocol suites test: duet itself with every setting of its own, but echoing instead of the product.
//!
//! WebSocket echo at `/`, Engine.IO echo at `/engine.io/`, Socket.IO at `/socket.io/` with namespaces `/` and `/custom`
//! (`src/conn/echo.rs`). Its database, which nothing uses, lives in a temporary folder for as long as it runs.

use std::process::ExitCode;

use duet::boot;
use duet::config::Config;

fn main() -> ExitCode {
    let mut config = match Config::from_args(std::env::args_os()) {
        Ok(config) => config,
        Err(exit) => {
            eprint!("{}", exit.text);
            return ExitCode::from(exit.code as u8);
        }
    };
    config.is_conformance_target = true;
    config.data = std::env::temp_dir().join(format!("duet-conformance-{}", std::process::id()));
    let outcome = boot::run(&config);
    let _ = std::fs::remove_dir_all(&config.data);
    outcome.map_or_else(
        |error| {
            eprintln!("duet-conformance: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
