//! `cargo run`: see `cargo run -- --help`.

use std::process::ExitCode;

use boot::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match boot::commands::execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.status())
        }
    }
}
