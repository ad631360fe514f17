//! Everybody who contends, by the name that the table shows.

#[cfg(all(feature = "hooks", tokio_unstable))]
mod hooks;
mod ours;
#[cfg(all(feature = "traced", tokio_unstable))]
mod traced;
mod wrappers;

use std::io;

use shotclock::Timing;

use crate::contender;

const PLAIN: &[&str] = &[
    "bare",
    "bare once more",
    "shotclock, `Timing::Ticked`",
    "shotclock, `Timing::Exact`",
    "shotclock, guard only",
    "future-timed",
    "tokio-metrics `TaskMonitor`",
    "hotpath `future!`",
];
const HOOKS: &[&str] = &["tokio's poll-time histogram", "dial9, to memory"];
const TRACED: &[&str] = &["tokio-blocked", "console-subscriber"];

/// Returns the contenders of this build. Some need a build of their own.
pub fn names() -> impl Iterator<Item = &'static str> {
    let (hooks, traced) = (cfg!(feature = "hooks"), cfg!(feature = "traced"));
    let of = |is_theirs: bool, names| if is_theirs { names } else { &[] as &[_] };
    let plain = of(!hooks && !traced, PLAIN).iter();
    let others = of(hooks, HOOKS).iter().chain(of(traced, TRACED));
    plain.chain(others).copied()
}

/// Contends under that name.
///
/// # Errors
///
/// If this build has no contender of that name, or if a request cannot be read or answered.
pub fn serve(name: &str) -> io::Result<()> {
    match name {
        "bare" | "bare once more" => contender::serve(wrappers::Bare),
        "shotclock, `Timing::Exact`" => contender::serve(ours::Watched::new(Timing::Exact)),
        "shotclock, `Timing::Ticked`" => contender::serve(ours::Watched::new(Timing::Ticked)),
        "shotclock, guard only" => contender::serve(ours::Guarded::new()),
        "future-timed" => contender::serve(wrappers::FutureTimed),
        "tokio-metrics `TaskMonitor`" => contender::serve(wrappers::Monitored::new()),
        "hotpath `future!`" => contender::serve(wrappers::Hotpath::new()),
        #[cfg(all(feature = "hooks", tokio_unstable))]
        "tokio's poll-time histogram" => contender::serve(hooks::Histogram),
        #[cfg(all(feature = "hooks", tokio_unstable))]
        "dial9, to memory" => contender::serve(hooks::Dial9::new()),
        #[cfg(all(feature = "traced", tokio_unstable))]
        "tokio-blocked" => contender::serve(traced::blocked()),
        #[cfg(all(feature = "traced", tokio_unstable))]
        "console-subscriber" => contender::serve(traced::console()),
        _ => Err(io::Error::other(format!(
            "this build has no contender {name}"
        ))),
    }
}
