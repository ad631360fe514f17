//! Where slow polls come in, on the worker that was held: decide, describe, hand over, return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{Dispatch, Span, dispatcher};

use super::outlet::{Outlet, reporting};
use super::slow_poll::{Cause, Context, Path, Phase, SlowPoll, ThreadInfo};
use crate::contain::contain;
use crate::publish;
use crate::watch::{Ended, Ledger, OnSlow, Watch, name_of};

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
}

impl Desk {
    pub(crate) fn new(outlets: Vec<Outlet>, limits: Limits, ledger: Arc<Ledger>) -> Self {
        Self {
            outlets,
            limits,
            ledger,
        }
    }

    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        // A time too far to be represented is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        self.outlets.iter().all(|outlet| outlet.flush(deadline))
    }

    fn report(&self, watch: &Watch, poll: Ended) {
        let tally = &self.ledger.tally;
        let now = watch.home().clock.nanos();
        let limiter = &watch.core().reports;
        let Some(suppressed) = limiter.admit(now, self.limits.per_second) else {
            tally.rate_limited.fetch_add(1, Relaxed);
            return;
        };
        let slow = Arc::new(describe(watch, poll, suppressed));
        let offers = self.outlets.iter().map(|outlet| outlet.offer(&slow));
        let refused = offers.filter(|taken| !taken).count();
        tally.dropped.fetch_add(refused as u64, Relaxed);
        if refused == self.outlets.len() {
            // Nobody got to know what this one would have said of those before it.
            limiter.leave_out(suppressed);
        }
    }
}

impl OnSlow for Desk {
    fn on_slow(&self, watch: &Watch, poll: Ended) {
        publish::slow_poll(watch.core(), poll.elapsed);
        if self.outlets.is_empty() {
            return;
        }
        if reporting(|| contain(|| self.report(watch, poll))).is_none() {
            self.ledger.tally.reentrant.fetch_add(1, Relaxed);
        }
    }
}

fn describe(watch: &Watch, poll: Ended, suppressed: u64) -> SlowPoll {
    SlowPoll {
        id: NEXT_ID.fetch_add(1, Relaxed),
        phase: Phase::Finished,
        kind: poll.kind,
        watch: Arc::clone(&watch.core().name),
        path: Path::new(poll.outer.into_iter().filter_map(name_of).collect()),
        elapsed: Duration::from_nanos(poll.elapsed),
        own: Duration::from_nanos(poll.own),
        budget: watch.budget(),
        cause: Cause::Unknown,
        location: poll.location,
        thread: ThreadInfo::current(),
        task: tokio::task::try_id(),
        suppressed,
        // This runs code of the subscriber's, which may panic. The report is made all the same.
        context: contain(context).unwrap_or_else(|| Context {
            span: Span::none(),
            dispatch: Dispatch::none(),
        }),
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
