//! Audited polls in the slot of their thread, where the sentinel sees them.
//!
//! They have a watch that is in no books: it counts nothing, is published nowhere and belongs to no
//! watchdog of the user's. What the sentinel finds stays in the slot's diagnostics until the poll ends.

use std::io::Write as _;
use std::panic::Location;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::clock::{Clock, nanos_of};
use crate::sentinel;
use crate::service_thread;
use crate::slot::{
    self, Diagnosis, FrameToken, Kind, MAX_DEPTH, PollStart, ReportState, SENTINEL_PARKER, Seqs,
    Slot,
};
use crate::sys::{self, CAPTURE_SIGNAL};
use crate::watch::{
    BudgetToken, Containment, Judge, OnSlow, Orders, Registry, Slow, Stacks, StuckWorkers, Timing,
    Watch, WatchCounters, WatchdogInner,
};

/// The sentinel looks at polls that are over their budget, and at none that is shorter than this: then
/// it is certain of what it sees.
///
/// It must not look before: a thread that sleeps is woken for its stack, and if it then waits for a
/// processor until its sleep is over, nobody knows how long it would have slept. What is certain by
/// then, that it was over its budget, remains.
const LEAST: Duration = Duration::from_millis(1);

/// What is stuck for longer is told while it is, because the test may never end. The sentinel looks at
/// doubling times, so it is told before it is twice as old.
const TOO_LONG: u64 = 2_500_000_000;

pub(super) static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

/// Where audited polls are at watchdog.
pub(super) struct Place {
    pub(super) clock: Clock,
    /// Held also because the sentinel reaches its watchdog by its id.
    pub(super) watch: Watch,
    /// Whether stacks can be taken; if not, why.
    pub(super) stacks: Result<(), String>,
}

impl Place {
    fn new() -> Self {
        let clock = Clock::new();
        let registry = Registry::new(1);
        let counters = registry.get_or_register("audit".into()).counters;
        let watchdog = Arc::new(WatchdogInner {
            clock: clock.clone(),
            timing: Timing::Exact,
            budget: Duration::MAX,
            registry,
            slow: Arc::new(Listener {
                orders: Orders {
                    stacks: Stacks::Auto,
                    without_paths: false,
                    steps: Vec::new(),
                },
            }),
            containment: Containment {
                everywhere: false,
                limit: 0,
                now: AtomicUsize::new(0),
            },
            stuck_workers: StuckWorkers::default(),
            busy_workers: StuckWorkers::default(),
        });
        // Without it polls are timed and judged all the same, and have no stack.
        let started = sentinel::start(&clock, Stacks::Auto, CAPTURE_SIGNAL);
        let started = started.map_err(|error| error.whole());
        Self {
            clock,
            watch: Watch::new(counters, &watchdog),
            // Waited for, so that the first poll that a test makes can have a stack.
            stacks: started.and_then(|()| sentinel::can_take_stacks()),
        }
    }
}

struct Listener {
    orders: Orders,
}

impl OnSlow for Listener {
    fn on_slow(&self, _: &Arc<WatchCounters>, _: Slow, _: ReportState, _: Judge) {}

    fn on_stall(&self, _: &WatchCounters, slow: Slow, finding: Diagnosis, _: &mut ReportState) {
        if slow.elapsed >= TOO_LONG {
            tell(&slow, &finding);
        }
    }

    fn on_escalation(
        &self,
        _: &WatchCounters,
        _: Slow,
        _: Diagnosis,
        _: &mut ReportState,
        _: Option<usize>,
    ) {
    }

    fn orders(&self) -> &Orders {
        &self.orders
    }
}

/// On a thread of its own, because naming the frames takes long.
fn tell(slow: &Slow, finding: &Diagnosis) {
    let (elapsed, location) = (Duration::from_nanos(slow.elapsed), slow.location);
    let (cause, stack, thread) = (finding.cause, finding.stack.clone(), slow.thread.clone());
    let tell = move || {
        let stack = stack.map_or(String::new(), |stack| format!("\n{stack}"));
        // Not `eprintln!`: that would go into the captured output of a test that may never end.
        let _ = writeln!(
            std::io::stderr(),
            "shotclock: a poll audited at {location} is stuck for {elapsed:.1?} on {thread}: \
             {cause}{stack}"
        );
    };
    // If no thread can be had, the poll is told of when it ends.
    let _ = service_thread::spawn("shotclock-stuck", tell);
}

/// Has the sentinel look at the polls of one audit.
pub(super) struct Lookout {
    look_at: u64,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: BudgetToken,
}

impl Lookout {
    pub(super) fn new(budget: Duration) -> Self {
        LazyLock::force(&PLACE);
        let look_at = nanos_of(budget.max(LEAST));
        Self {
            look_at,
            in_use: BudgetToken::new(look_at, false),
        }
    }

    /// Inlined, so that the stack pointer is that of the function that polls.
    #[inline(always)]
    pub(super) fn begin(&self, location: &'static Location<'static>, start: u64) -> InSight {
        let stack = sys::stack_pointer();
        let slot = slot::current().map(|slot| {
            let mark = slot.begin(PollStart {
                by_ticks: false,
                watch: PLACE.watch.counters().id,
                kind: Kind::Audited,
                start,
                budget: self.look_at,
                location,
                stack,
            });
            SENTINEL_PARKER.notify();
            (slot, mark)
        });
        InSight {
            slot,
            start,
            disturbed: slot.map_or(0, |(slot, _)| slot.diagnostics().disturbed()),
        }
    }
}

/// An audited poll in flight.
pub(super) struct InSight {
    slot: Option<(&'static Slot, FrameToken)>,
    start: u64,
    disturbed: u64,
}

/// What was seen of a poll. Times are nanoseconds.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) finding: Option<Diagnosis>,
    /// What was declared to be allowed.
    pub(super) allowed: u64,
    /// It waited for a processor so long because it was woken for its stack.
    pub(super) disturbed: u64,
}

impl InSight {
    /// To be called first where a poll ends.
    pub(super) fn withdraw(&self) {
        if let Some((slot, mark)) = self.slot {
            slot.withdraw(mark);
        }
    }

    /// What is known of a poll that ended at `end`, a raw reading of the clock.
    pub(super) fn seen(&self, end: u64) -> Seen {
        let Some((slot, mark)) = self.slot else {
            return Seen::default();
        };
        let elapsed = |since| PLACE.clock.nanos_between(since, end);
        let mut diagnostics = slot.diagnostics();
        let excused = |poll| {
            let around = slot.seqs();
            let polls: Seqs = around.into_iter().chain([poll]).take(MAX_DEPTH).collect();
            let exceptions = &diagnostics.exceptions;
            exceptions.excuse(poll, self.start, &polls, elapsed)
        };
        let allowed = mark.seq().map_or(0, excused);
        Seen {
            allowed,
            disturbed: diagnostics.disturbed().saturating_sub(self.disturbed),
            finding: diagnostics.close(mark, None).0.finding,
        }
    }
}
