//! Carries the caller's context to a thread of the lane: the span, its subscriber, the runtime, and the user's hooks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::{Span, dispatcher};

/// The lane calls it on the caller's thread, and its result around the work on the lane's thread.
pub(super) type Hook = Arc<dyn Fn() -> Around + Send + Sync>;
pub(super) type Around = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

pub(super) struct OffloadContext {
    span: Span,
    runtime: Option<Handle>,
    arounds: Vec<Around>,
}

impl OffloadContext {
    /// Takes the context of the calling thread. Calls the user's hooks.
    pub(super) fn from_here(runtime: Option<Handle>, hooks: &[Hook]) -> Self {
        Self {
            span: Span::current(),
            runtime,
            arounds: hooks.iter().map(|hook| hook()).collect(),
        }
    }

    /// Runs the work in this context.
    pub(super) fn around<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        // The span may have a subscriber that is scoped to the caller's thread.
        match self.span.with_subscriber(|(_, dispatch)| dispatch.clone()) {
            Some(dispatch) => dispatcher::with_default(&dispatch, || {
                self.span.in_scope(|| self.within_hooks(work))
            }),
            None => self.within_hooks(work),
        }
    }

    /// Runs the work inside the hooks, or after them if they did not call it. So the result is never `None`.
    fn within_hooks<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        if self.arounds.is_empty() {
            return Some(work());
        }
        let (mut work, mut result) = (Some(work), None);
        let mut call = || {
            if let Some(work) = work.take() {
                result = Some(work());
            }
        };
        nest(&self.arounds, &mut call);
        call();
        result
    }
}

fn nest(arounds: &[Around], work: &mut dyn FnMut()) {
    match arounds.split_first() {
        Some((outer, inner)) => outer(&mut || nest(inner, work)),
        None => work(),
    }
}
