//! The driver: makes requests, scrapes the service, and checks the claims.

mod child;
mod claims;
mod client_counts;
mod http;
mod load;
mod polls;
mod print;
mod process;
mod prove;
mod rounds;
mod scrape;
mod stalls;

use std::time::Duration;

use crate::sabotage::Sabotage;
use crate::{Args, Result};
use claims::Claim;
use rounds::Soak;

/// Returns whether every claim holds. With `--prove`, returns whether every claim can fail.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if args.prove {
            return prove::run(args.seed).await;
        }
        let time = Duration::from_secs(args.seconds);
        let (soak, claims) = soak(time, args.rounds.max(2), args.seed, args.sabotage).await?;
        print::print(&soak, &claims);
        Ok(claims.iter().all(Claim::holds))
    })
}

async fn soak(
    time: Duration,
    rounds: u64,
    seed: u64,
    sabotage: Option<Sabotage>,
) -> Result<(Soak, Vec<Claim>)> {
    let mut soak = Soak::start(rounds, sabotage).await?;
    for round in 0..rounds {
        let seed = seed.wrapping_mul(1_000).wrapping_add(round);
        soak.round(time.div_f64(rounds as f64), seed).await?;
        eprintln!("round {} of {rounds}", round + 1);
    }
    let (counts, scrape) = soak.last.take().ok_or("no round was made")?;
    let ended = soak.service.end().await?;
    let claims = claims::claims(&soak, &counts, &scrape, ended);
    Ok((soak, claims))
}
