//! Floor 2: what lanes, guarded runtimes and culprits count, each under its name.

mod by_name;
mod culprits;
mod lanes;
mod runtimes;

#[cfg(any(test, fuzzing))]
#[allow(unused_imports, reason = "where nothing is fuzzed nobody takes it")]
pub(crate) use culprits::CulpritSums;
pub(crate) use culprits::count_culprit;
#[cfg(feature = "metrics")]
pub(crate) use culprits::{CulpritCount, culprits};
pub(crate) use lanes::LaneCounts;
pub(crate) use runtimes::RuntimeCounts;

use by_name::ByName;

static LANES: ByName<LaneCounts> = ByName::new();
static RUNTIMES: ByName<RuntimeCounts> = ByName::new();

/// The counts of the lanes of that name.
pub(crate) fn enroll_lane(name: &str) -> &'static LaneCounts {
    LANES.enroll(name)
}

/// The counts of the runtimes of that name.
pub(crate) fn enroll_runtime(name: &str) -> &'static RuntimeCounts {
    RUNTIMES.enroll(name)
}

#[cfg(any(feature = "metrics", feature = "page"))]
pub(crate) fn lanes() -> Vec<&'static LaneCounts> {
    LANES.all()
}

#[cfg(feature = "metrics")]
pub(crate) fn runtimes() -> Vec<&'static RuntimeCounts> {
    RUNTIMES.all()
}
