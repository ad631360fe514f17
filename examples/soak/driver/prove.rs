//! Proves that each claim can fail, by one sabotage after the other.

use std::time::Duration;

use clap::ValueEnum as _;

use super::soak;
use crate::Result;
use crate::sabotage::Sabotage;

const TIME: Duration = Duration::from_secs(10);
const ROUNDS: u64 = 2;

/// Returns whether each sabotage made its claims fail, and no others.
pub(super) async fn run(seed: u64) -> Result<bool> {
    println!("| broken on purpose | claims that fail | |");
    println!("|---|---|---|");
    let mut as_expected = true;
    for sabotage in Sabotage::value_variants() {
        let (_, claims) = soak(TIME, ROUNDS, seed, Some(*sabotage)).await?;
        let failed = claims.iter().filter(|claim| !claim.holds());
        let failed: Vec<_> = failed.map(|claim| claim.name).collect();
        let outcome = match failed == sabotage.breaks() {
            true => "as it has to be",
            false => "**WRONG**",
        };
        println!(
            "| {} | {} | {outcome} |",
            sabotage.what(),
            failed.join(", ")
        );
        as_expected &= failed == sabotage.breaks();
    }
    Ok(as_expected)
}
