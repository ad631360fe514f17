//! A soak: clients send healthy and blocking requests to a service under two watchdogs, one per `Timing`, for as long
//! as you like. The driver compares the watchdogs' counts and reports with its own, and each claim holds or fails.
//! `scripts/soak` runs it, and writes its output to `docs/soak.md`.
//!
//! ```sh
//! cargo run --release --example soak -- --seconds 60
//! ```
//!
//! There are two processes. The *service* counts each poll in a wrapper around the watched future, and announces each
//! stall before it begins. The *driver* starts the service, makes random requests, scrapes it once a second, and checks
//! the claims. It runs in rounds. After each round it waits until nothing is in flight. Then both counts must be equal.
//!
//! `--sabotage` plants one fault, and the claim about it must fail. `--prove` plants one fault after the other, and
//! fails if a claim holds in spite of its fault.

mod driver;
mod random;
mod sabotage;
mod service;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sabotage::Sabotage;

/// Runs a service under load and faults, and checks the claims about its watchdog.
#[derive(Parser)]
struct Args {
    /// The time of all rounds, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The number of rounds
    #[arg(long, default_value_t = 4)]
    rounds: u64,
    /// The seed of the random requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The fault to plant
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Plant one fault after the other
    #[arg(long)]
    prove: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The service, as the driver starts it
    #[command(hide = true)]
    Serve,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let held = match args.role {
        Some(Role::Serve) => service::run(args.sabotage).map(|()| true),
        None => driver::run(&args),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
