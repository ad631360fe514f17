//! Auditing every call of a `tower::Service`.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_service::Service;

use super::Audit;
use super::auditor::{Auditor, DEFAULT_BUDGET};
use super::failure::Failure;
use super::finish_guard::{Ending, Held};
use super::origin::Origin;
use super::records::AuditRecord;
use crate::sync::IgnorePoison as _;

/// Audits every call of a [`tower::Service`](Service), an axum `Router` say, and holds it to a budget
/// if it is given one.
///
/// For a single call, [`assert_poll_budget!`](crate::assert_poll_budget) around `oneshot` is enough;
/// this is for a service that is handed on, to a client or a server of the test.
///
/// # Examples
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use shotclock::testing::audit_service;
/// use std::time::Duration;
/// use tower::ServiceExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::new().route("/hello", get(|| async { "hello" }));
/// let app = audit_service(router).budget(Duration::from_secs(1));
///
/// let request = Request::get("/hello").body(Body::empty())?;
/// let response = app.clone().oneshot(request).await?; // panics if a poll is over the budget
///
/// assert_eq!(response.status(), 200);
/// assert_eq!(app.audits().len(), 1);
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn audit_service<S>(service: S) -> AuditedService<S> {
    AuditedService {
        service,
        terms: Terms {
            location: Location::caller(),
            budget: None,
            audits: Arc::default(),
        },
    }
}

/// A service whose calls are audited. Made by [`audit_service`].
///
/// Clones audit into the same list.
#[derive(Clone)]
pub struct AuditedService<S> {
    service: S,
    terms: Terms,
}

/// What is to be done about the calls.
#[derive(Clone)]
struct Terms {
    location: &'static Location<'static>,
    budget: Option<Duration>,
    audits: Arc<Mutex<Vec<Audit<()>>>>,
}

impl<S> AuditedService<S> {
    /// Holds every call to a budget: its future panics when it is done or dropped, if a poll was over
    /// it, as [`assert_poll_budget!`](crate::assert_poll_budget) does.
    ///
    /// A server may answer that panic with a closed connection: the audits tell what it was.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.terms.budget = Some(budget);
        self
    }

    /// The audits of the calls that have ended so far, in the order of their ends; they are handed over,
    /// so that the list is empty again.
    ///
    /// The first stretch of each is the call itself, before there is a future; it counts as a poll. A
    /// call that was dropped before it was done has an audit as well.
    pub fn audits(&self) -> Vec<Audit<()>> {
        std::mem::take(&mut self.terms.audits())
    }
}

impl<S, R> Service<R> for AuditedService<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AuditedCall<S::Future>;

    /// Not audited: it belongs to no call.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (origin, terms) = (Origin::of_future::<S::Future>(), self.terms.clone());
        let budget = terms.budget.unwrap_or(DEFAULT_BUDGET);
        let mut auditor = Auditor::new(origin, terms.location, budget);
        let future = auditor.run(|| self.service.call(request));
        AuditedCall {
            future,
            held: Held::new(auditor, terms),
        }
    }
}

pin_project! {
    /// The future of a call that is being audited. Made by [`AuditedService`].
    #[must_use = "futures do nothing unless they are polled"]
    pub struct AuditedCall<F> {
        #[pin]
        future: F,
        held: Held<Terms>,
    }
}

impl Terms {
    fn audits(&self) -> MutexGuard<'_, Vec<Audit<()>>> {
        self.audits.lock().ignore_poison()
    }
}

/// Keeps the audit; then panics, if a poll was over the budget.
impl Ending for Terms {
    fn end(&mut self, book: AuditRecord, may_panic: bool) {
        let is_held = may_panic && self.budget.is_some();
        let failure = || Some(Failure::of(&book, None)?.to_string());
        let failure = is_held.then(failure).flatten();
        self.audits().push(Audit { output: (), book });
        if let Some(failure) = failure {
            panic!("{failure}");
        }
    }
}

impl<F: Future> Future for AuditedCall<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.held.poll(cx, |cx| this.future.poll(cx));
        if polled.is_ready() {
            this.held.end();
        }
        polled
    }
}

impl<S: fmt::Debug> fmt::Debug for AuditedService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedService")
            .field("service", &self.service)
            .field("budget", &self.terms.budget)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for AuditedCall<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedCall").finish_non_exhaustive()
    }
}
