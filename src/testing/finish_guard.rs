//! An audit that is over once: when its future is done, or when it is dropped.

use std::task::{Context, Poll};

use super::auditor::Auditor;
use super::records::AuditRecord;

/// What is to be done with the polls of an audit that is over.
pub(super) trait Ending {
    /// Called once, and told whether it may panic.
    fn end(&mut self, book: AuditRecord, may_panic: bool);
}

/// The polls so far.
pub(super) struct Held<E: Ending> {
    /// `None` when it is over.
    auditor: Option<Auditor>,
    ending: E,
}

impl<E: Ending> Held<E> {
    pub(super) fn new(auditor: Auditor, ending: E) -> Self {
        Self {
            auditor: Some(auditor),
            ending,
        }
    }

    /// Inlined, so that the stack of the poll begins in the function that calls this.
    #[inline(always)]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.auditor {
            Some(auditor) => auditor.poll(cx, poll),
            // What happens after the end is between the future and who polls it.
            None => poll(cx),
        }
    }

    /// To be called where the future is done.
    pub(super) fn end(&mut self) {
        self.end_once(true);
    }

    fn end_once(&mut self, may_panic: bool) {
        if let Some(auditor) = self.auditor.take() {
            self.ending.end(auditor.finish(), may_panic);
        }
    }
}

impl<E: Ending> Drop for Held<E> {
    fn drop(&mut self) {
        // A panic that is under way has more to say.
        self.end_once(!std::thread::panicking());
    }
}
