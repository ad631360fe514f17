//! Ends an audit once: when its future is done, or when it is dropped.

use std::task::{Context, Poll};

use super::auditor::Auditor;
use super::records::AuditRecord;

/// Receives the record of an ended audit.
pub(super) trait OnEnd {
    /// Handles the record. `may_panic` is false during another panic.
    fn end(&mut self, record: AuditRecord, may_panic: bool);
}

/// Runs an audit, and ends it on drop.
pub(super) struct FinishGuard<E: OnEnd> {
    /// `None` after the end.
    auditor: Option<Auditor>,
    on_end: E,
}

impl<E: OnEnd> FinishGuard<E> {
    pub(super) fn new(auditor: Auditor, on_end: E) -> Self {
        Self {
            auditor: Some(auditor),
            on_end,
        }
    }

    /// Makes one poll. Inlined, so that the stack of the poll begins in the calling function.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.auditor {
            Some(auditor) => auditor.poll(cx, poll),
            // The future handles a poll after its end.
            None => poll(cx),
        }
    }

    /// Ends the audit when the future is done.
    pub(super) fn end(&mut self) {
        self.end_once(true);
    }

    fn end_once(&mut self, may_panic: bool) {
        if let Some(auditor) = self.auditor.take() {
            self.on_end.end(auditor.finish(), may_panic);
        }
    }
}

impl<E: OnEnd> Drop for FinishGuard<E> {
    fn drop(&mut self) {
        // The first panic has the better message.
        self.end_once(!std::thread::panicking());
    }
}
