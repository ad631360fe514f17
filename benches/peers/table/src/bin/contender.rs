//! One contender of the table, or, without an argument, the names of those that this build has.

use std::process::ExitCode;

use shotclock_peers_table::{names, serve};

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        names().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    match serve(&name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
