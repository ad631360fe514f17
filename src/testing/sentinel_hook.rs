//! Publishes audited polls in the slot of their thread, so that the sentinel diagnoses them.
//!
//! Their watch counts nothing, is not published, and belongs to a watchdog without reporters. The diagnosis stays in the
//! slot's diagnostics until the poll ends.

use std::io::Write as _;
use std::panic::Location;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::background_thread;
use crate::clock::{Clock, nanos_of};
use crate::report::SectionKind;
use crate::sentinel;
use crate::slot::{
    self, Diagnosis, FrameToken, MAX_DEPTH, PollStart, ReportState, SENTINEL_PARKER, Seqs, Slot,
};
use crate::sys::{self, CAPTURE_SIGNAL};
use crate::watch::{
    BudgetToken, Containment, EndDiagnosis, Overrun, Policy, Registry, SlowPollSink, Stacks,
    StuckWorkers, Timing, Watch, WatchCounters, WatchdogInner,
};

/// The least budget that the sentinel sees: attribution is exact from this length on.
///
/// The sentinel must not diagnose a poll within its budget. Its signal wakes a sleeping thread, which may then wait for a
/// processor until its sleep is over. The intended length of the sleep is unknown then, but not that the poll was over
/// its budget.
const MIN_BUDGET: Duration = Duration::from_millis(1);

/// The age at which a stalled poll is written to stderr, because the test may never end. The sentinel reports at doubling
/// times, so the line comes before the poll is twice as old.
const WARN_AGE_NANOS: u64 = 2_500_000_000;

pub(super) static HOOK: LazyLock<SentinelHook> = LazyLock::new(SentinelHook::new);

/// The watch of all audited polls.
pub(super) struct SentinelHook {
    pub(super) clock: Clock,
    /// Kept, because the sentinel finds its watchdog by its id.
    pub(super) watch: Watch,
    /// Whether stacks are available. An error says why not.
    pub(super) stacks: Result<(), String>,
}

impl SentinelHook {
    fn new() -> Self {
        let clock = Clock::new();
        let registry = Registry::new(1);
        let counters = registry.get_or_register("audit".into()).counters;
        let watchdog = Arc::new(WatchdogInner {
            clock: clock.clone(),
            timing: Timing::Exact,
            budget: Duration::MAX,
            registry,
            sink: Arc::new(StderrSink {
                policy: Policy {
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
        // Without a sentinel, the audit still times polls, and has no stacks.
        let started = sentinel::start(&clock, Stacks::Auto, CAPTURE_SIGNAL);
        let started = started.map_err(|error| error.with_source());
        Self {
            clock,
            watch: Watch::new(counters, &watchdog),
            // Waits for the self-test, so that the first poll of a test can have a stack.
            stacks: started.and_then(|()| sentinel::can_take_stacks()),
        }
    }
}

/// Writes polls that stall for very long to stderr, and ignores all others.
struct StderrSink {
    policy: Policy,
}

impl SlowPollSink for StderrSink {
    fn on_slow_poll(&self, _: &Arc<WatchCounters>, _: Overrun, _: ReportState, _: EndDiagnosis) {}

    fn on_stall(
        &self,
        _: &WatchCounters,
        poll: Overrun,
        diagnosis: Diagnosis,
        _: &mut ReportState,
    ) {
        if poll.elapsed_nanos >= WARN_AGE_NANOS {
            write_stall(&poll, &diagnosis);
        }
    }

    fn on_escalation(
        &self,
        _: &WatchCounters,
        _: Overrun,
        _: Diagnosis,
        _: &mut ReportState,
        _: Option<usize>,
    ) {
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Writes on a thread of its own, because looking up names takes long.
fn write_stall(poll: &Overrun, diagnosis: &Diagnosis) {
    let elapsed = Duration::from_nanos(poll.elapsed_nanos);
    let (location, thread) = (poll.location, poll.thread.clone());
    let (cause, stack) = (diagnosis.cause, diagnosis.stack.clone());
    let write = move || {
        let stack = stack.map_or(String::new(), |stack| format!("\n{stack}"));
        // `eprintln!` would write to the captured output of a test that may never end.
        let _ = writeln!(
            std::io::stderr(),
            "shotclock: a poll audited at {location} has stalled for {elapsed:.1?} on {thread}: \
             {cause}{stack}"
        );
    };
    // If the system refuses a thread, the end of the poll still reports it.
    let _ = background_thread::spawn("shotclock-stuck", write);
}

/// Publishes the polls of one audit.
pub(super) struct AuditSlots {
    budget_nanos: u64,
    #[expect(dead_code, reason = "held for its destructor")]
    in_use: BudgetToken,
}

impl AuditSlots {
    pub(super) fn new(budget: Duration) -> Self {
        LazyLock::force(&HOOK);
        let budget_nanos = nanos_of(budget.max(MIN_BUDGET));
        Self {
            budget_nanos,
            in_use: BudgetToken::new(budget_nanos),
        }
    }

    /// Inlined, so that the stack pointer is that of the function that polls.
    #[inline(always)]
    pub(super) fn begin(&self, location: &'static Location<'static>, start: u64) -> PublishedPoll {
        let stack = sys::stack_pointer();
        let slot = slot::current().map(|slot| {
            let token = slot.begin(PollStart {
                is_ticked: false,
                watch: HOOK.watch.counters().id,
                kind: SectionKind::Audited,
                start,
                budget: self.budget_nanos,
                location,
                stack,
            });
            SENTINEL_PARKER.notify();
            (slot, token)
        });
        PublishedPoll {
            slot,
            start,
            disturbed: slot.map_or(0, |(slot, _)| slot.diagnostics().disturbed_nanos()),
        }
    }
}

/// An audited poll in flight.
pub(super) struct PublishedPoll {
    slot: Option<(&'static Slot, FrameToken)>,
    start: u64,
    disturbed: u64,
}

/// What the sentinel and the slot know of a poll. Times are nanoseconds.
#[derive(Default)]
pub(super) struct PollFindings {
    pub(super) diagnosis: Option<Diagnosis>,
    /// The time under `allow_blocking`.
    pub(super) allowed: u64,
    /// The wait for a processor that our own signal caused.
    pub(super) disturbed: u64,
}

impl PublishedPoll {
    /// Takes the poll out of its slot. The first step of a poll's end.
    pub(super) fn withdraw(&self) {
        if let Some((slot, token)) = self.slot {
            slot.withdraw(token);
        }
    }

    /// Returns the findings of a poll that ended at `end`, a raw clock reading.
    pub(super) fn findings(&self, end: u64) -> PollFindings {
        let Some((slot, token)) = self.slot else {
            return PollFindings::default();
        };
        let elapsed = |since| HOOK.clock.nanos_between(since, end);
        let mut diagnostics = slot.diagnostics();
        let excused = |poll| {
            let around = slot.seqs();
            let polls: Seqs = around.into_iter().chain([poll]).take(MAX_DEPTH).collect();
            let allowances = &diagnostics.allowances;
            allowances.excused(poll, self.start, &polls, elapsed)
        };
        let allowed = token.seq().map_or(0, excused);
        PollFindings {
            allowed,
            disturbed: diagnostics.disturbed_nanos().saturating_sub(self.disturbed),
            diagnosis: diagnostics.close(token, None).0.diagnosis,
        }
    }
}
