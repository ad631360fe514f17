//! Floor 2: the process-wide counters of lanes, guarded runtimes and culprits, by name.

mod culprits;
mod lanes;
mod named;
mod runtimes;

#[cfg(any(test, fuzzing))]
#[allow(unused_imports, reason = "some test builds use it")]
pub(crate) use culprits::CulpritSums;
pub(crate) use culprits::count_culprit;
#[cfg(feature = "metrics")]
pub(crate) use culprits::{CulpritCount, culprits};
pub(crate) use lanes::LaneCounters;
pub(crate) use runtimes::RuntimeCounters;

use named::NamedCounters;

static LANES: NamedCounters<LaneCounters> = NamedCounters::new();
static RUNTIMES: NamedCounters<RuntimeCounters> = NamedCounters::new();

/// Returns the counters of the lanes of that name.
pub(crate) fn lane_counters(name: &str) -> &'static LaneCounters {
    LANES.get_or_leak(name)
}

/// Returns the counters of the runtimes of that name.
pub(crate) fn runtime_counters(name: &str) -> &'static RuntimeCounters {
    RUNTIMES.get_or_leak(name)
}

#[cfg(any(feature = "metrics", feature = "page"))]
pub(crate) fn all_lanes() -> Vec<&'static LaneCounters> {
    LANES.all()
}

#[cfg(feature = "metrics")]
pub(crate) fn all_runtimes() -> Vec<&'static RuntimeCounters> {
    RUNTIMES.all()
}
