//! What goes along from the caller to a thread of the lane: the span, its subscriber, the runtime, and
//! what the user's hooks carry.

use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::{Span, dispatcher};

/// Called where something is offloaded; what it returns is called around it, on the lane's thread.
pub(super) type Hook = Arc<dyn Fn() -> Around + Send + Sync>;
pub(super) type Around = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

pub(super) struct OffloadContext {
    span: Span,
    runtime: Option<Handle>,
    arounds: Vec<Around>,
}

impl OffloadContext {
    /// From here. It runs code of the user's.
    pub(super) fn from_here(runtime: Option<Handle>, hooks: &[Hook]) -> Self {
        Self {
            span: Span::current(),
            runtime,
            arounds: hooks.iter().map(|hook| hook()).collect(),
        }
    }

    /// Runs the work with all of it around.
    pub(super) fn around<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        // The thread may have another subscriber than the span: one that is scoped is scoped to a
        // thread.
        match self.span.with_subscriber(|(_, dispatch)| dispatch.clone()) {
            Some(dispatch) => dispatcher::with_default(&dispatch, || {
                self.span.in_scope(|| self.within_hooks(work))
            }),
            None => self.within_hooks(work),
        }
    }

    /// `None` never happens: what a hook did not call is called here.
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
