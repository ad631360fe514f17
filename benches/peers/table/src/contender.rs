//! One way to watch polls. It reads lines with a workload and its size from standard input, and answers each with a line of
//! nanoseconds.

use std::future::Future;
use std::io::{self, BufRead as _, Write as _};

use tokio::runtime::{Builder, Runtime};

use crate::workload::{self, Workload};

/// One way to watch polls.
pub trait Contender {
    /// Builds a runtime that is watched, where that is how it is done.
    fn runtime(&mut self, mut builder: Builder) -> Runtime {
        builder.build().expect("a runtime can be built")
    }

    /// Wraps a future, where that is how it is done.
    fn wrap<F>(&self, future: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        future
    }

    /// Whether a future that no runtime polls is watched.
    const WRAPS: bool;
}

/// Runs each requested workload, until the end of the input.
pub(crate) fn serve<C: Contender>(mut contender: C) -> io::Result<()> {
    let one = contender.runtime(Builder::new_current_thread());
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    let two = contender.runtime(builder);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (workload, polls) = line.split_once(' ').unwrap_or_default();
        let polls: u64 = polls.parse().map_err(io::Error::other)?;
        let taken = match Workload::named(workload) {
            Some(Workload::ByHand) if !C::WRAPS => None,
            Some(Workload::ByHand) => Some(workload::by_hand(&contender, polls)),
            Some(Workload::OneThread) => Some(workload::storm(&one, &contender, polls)),
            Some(Workload::TwoWorkers) => Some(workload::storm(&two, &contender, polls)),
            None => return Err(io::Error::other(format!("no such workload: {line}"))),
        };
        match taken {
            Some(taken) => println!("{}", taken.as_nanos()),
            None => println!("-"),
        }
        io::stdout().flush()?;
    }
    Ok(())
}
