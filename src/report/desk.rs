//! Where slow polls come in, from the worker that was held or from the sentinel while it still is:
//! decide, describe, hand over, return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{Dispatch, Span, dispatcher};

use super::outlet::{Outlet, reporting};
use super::slow_poll::{Cause, Context, Path, Phase, SlowPoll};
use crate::clock::Clock;
use crate::contain::contain;
use crate::publish;
use crate::slot::{Note, Told};
use crate::watch::{Core, Ledger, OnSlow, Slow, name_of};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How much may be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) per_second: u32,
}

/// The reporters of one watchdog, and what stands between them and a slow poll.
pub(crate) struct Desk {
    outlets: Vec<Outlet>,
    limits: Limits,
    ledger: Arc<Ledger>,
    clock: Clock,
}

impl Desk {
    pub(crate) fn new(
        outlets: Vec<Outlet>,
        limits: Limits,
        ledger: Arc<Ledger>,
        clock: Clock,
    ) -> Self {
        Self {
            outlets,
            limits,
            ledger,
            clock,
        }
    }

    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        // A time too far to be represented is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        self.outlets.iter().all(|outlet| outlet.flush(deadline))
    }

    /// Lets a poll be told of, or counts that it was left out: so many polls a second, each with all
    /// of its reports. Says how many of its watch were left out before.
    fn admit(&self, core: &Core) -> Option<u64> {
        let admitted = core
            .reports
            .admit(self.clock.nanos(), self.limits.per_second);
        if admitted.is_none() {
            self.ledger.tally.rate_limited.fetch_add(1, Relaxed);
        }
        admitted
    }

    fn hand_over(&self, core: &Core, slow: SlowPoll) {
        let slow = Arc::new(slow);
        let offers = self.outlets.iter().map(|outlet| outlet.offer(&slow));
        let refused = offers.filter(|taken| !taken).count();
        self.ledger.tally.dropped.fetch_add(refused as u64, Relaxed);
        if refused == self.outlets.len() {
            // Nobody got to know what this one would have said of those before it.
            core.reports.leave_out(slow.suppressed);
        }
    }

    fn finished(&self, core: &Core, slow: Slow, note: &Note) {
        let (id, suppressed) = match note.told {
            Told::Running { id, .. } => (id, 0),
            Told::LeftOut => return,
            Told::Nothing | Told::Ended => match self.admit(core) {
                Some(suppressed) => (next_id(), suppressed),
                None => return,
            },
        };
        // This runs code of the subscriber's, which may panic. The report is made all the same.
        let context = contain(context).unwrap_or_else(Context::none);
        let report = SlowPoll {
            phase: Phase::Finished,
            task: tokio::task::try_id(),
            suppressed,
            context,
            ..running(core, id, slow)
        };
        self.hand_over(core, report);
    }

    fn stalled(&self, core: &Core, slow: Slow, told: &mut Told) {
        let (id, suppressed) = match *told {
            Told::Running { id, .. } => (id, 0),
            Told::LeftOut | Told::Ended => return,
            Told::Nothing => match self.admit(core) {
                Some(suppressed) => (next_id(), suppressed),
                None => {
                    *told = Told::LeftOut;
                    return;
                }
            },
        };
        let again_at = slow.own.saturating_mul(2);
        *told = Told::Running { id, again_at };
        let report = SlowPoll {
            suppressed,
            ..running(core, id, slow)
        };
        self.hand_over(core, report);
    }
}

impl OnSlow for Desk {
    fn on_slow(&self, core: &Core, slow: Slow, note: Note) {
        publish::slow_poll(core, slow.elapsed);
        if self.outlets.is_empty() {
            return;
        }
        if reporting(|| contain(|| self.finished(core, slow, &note))).is_none() {
            self.ledger.tally.reentrant.fetch_add(1, Relaxed);
        }
    }

    fn on_stall(&self, core: &Core, slow: Slow, told: &mut Told) {
        if !self.outlets.is_empty() {
            self.stalled(core, slow, told);
        }
    }
}

fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

/// The report of a poll of which only other threads know, while it runs.
fn running(core: &Core, id: u64, slow: Slow) -> SlowPoll {
    SlowPoll {
        id,
        phase: Phase::Running,
        kind: slow.kind,
        watch: Arc::clone(&core.name),
        path: Path::new(slow.outer.into_iter().filter_map(name_of).collect()),
        elapsed: Duration::from_nanos(slow.elapsed),
        own: Duration::from_nanos(slow.own),
        budget: slow.budget,
        cause: Cause::Unknown,
        location: slow.location,
        thread: slow.thread,
        task: None,
        suppressed: 0,
        context: Context::none(),
    }
}

/// The span around the poll, and the subscriber that it belongs to.
fn context() -> Context {
    let span = Span::current();
    let of_span = span.with_subscriber(|(_, dispatch)| dispatch.clone());
    Context {
        dispatch: of_span.unwrap_or_else(|| dispatcher::get_default(Dispatch::clone)),
        span,
    }
}
