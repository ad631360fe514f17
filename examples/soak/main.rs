//! A soak: a service under two watchdogs, one per `Timing`, is sent requests that behave and requests that
//! do not, for as long as you like. What the watchdogs count and tell is compared with what this program
//! knows without them, and each claim holds or fails. `scripts/soak` runs it, and keeps what it printed in
//! `docs/soak.md`.
//!
//! ```sh
//! cargo run --release --example soak -- --seconds 60
//! ```
//!
//! Two processes. The *service* counts each poll by itself, in a wrapper around the watched future, and
//! announces each stall on purpose before it begins. The *driver* starts the service, draws what to ask it,
//! scrapes it once a second, and judges. It asks in rounds; after each of them it rests until nothing is in
//! flight, when two counts of the same thing have to be equal.
//!
//! `--sabotage` breaks one thing on purpose, upon which the claim about it has to fail; `--prove` does so with
//! one after the other, and fails if a claim does not.

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
    /// For how long requests are made
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// In how many rounds
    #[arg(long, default_value_t = 4)]
    rounds: u64,
    /// What is drawn follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to break on purpose
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Break one thing after the other
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
