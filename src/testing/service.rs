//! Audits each call of a `tower::Service`.

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
use super::finish_guard::{FinishGuard, OnEnd};
use super::origin::Origin;
use super::records::AuditRecord;
use crate::sync::IgnorePoison as _;

/// Audits each call of a [`tower::Service`](Service), such as an axum `Router`, optionally with a budget.
///
/// For a single call, use [`assert_poll_budget!`](crate::assert_poll_budget) around `oneshot`. This function is for a service
/// that the test passes to a client or a server.
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
        settings: CallSettings {
            location: Location::caller(),
            budget: None,
            audits: Arc::default(),
        },
    }
}

/// Audits the calls of a service. [`audit_service`] makes it.
///
/// Clones add to the same list.
#[derive(Clone)]
pub struct AuditedService<S> {
    service: S,
    settings: CallSettings,
}

/// The settings for the calls.
#[derive(Clone)]
struct CallSettings {
    location: &'static Location<'static>,
    budget: Option<Duration>,
    audits: Arc<Mutex<Vec<Audit<()>>>>,
}

impl<S> AuditedService<S> {
    /// Holds each call to a budget, as [`assert_poll_budget!`](crate::assert_poll_budget) does.
    ///
    /// The future of a call panics at its end or drop if a poll was over the budget. A server may close the connection after
    /// such a panic. The audits still have the poll.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.settings.budget = Some(budget);
        self
    }

    /// Takes the audits of the calls that have ended so far, in the order of their ends, and empties the list.
    ///
    /// The first poll of each audit is the call that returned the future. A call that was dropped before its end has an audit
    /// too.
    pub fn audits(&self) -> Vec<Audit<()>> {
        std::mem::take(&mut self.settings.audits())
    }
}

impl<S, R> Service<R> for AuditedService<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AuditedCall<S::Future>;

    /// Polls the readiness of the service. It is not audited, because it belongs to no call.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (origin, settings) = (Origin::of_future::<S::Future>(), self.settings.clone());
        let budget = settings.budget.unwrap_or(DEFAULT_BUDGET);
        let mut auditor = Auditor::new(origin, settings.location, budget);
        let future = auditor.run(|| self.service.call(request));
        AuditedCall {
            future,
            guard: FinishGuard::new(auditor, settings),
        }
    }
}

pin_project! {
    /// Audits the future of a call. [`AuditedService`] makes it.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct AuditedCall<F> {
        #[pin]
        future: F,
        guard: FinishGuard<CallSettings>,
    }
}

impl CallSettings {
    fn audits(&self) -> MutexGuard<'_, Vec<Audit<()>>> {
        self.audits.lock().ignore_poison()
    }
}

/// Keeps the audit, and then panics if a poll was over the budget.
impl OnEnd for CallSettings {
    fn end(&mut self, record: AuditRecord, may_panic: bool) {
        let is_held = may_panic && self.budget.is_some();
        let failure = || Some(Failure::of(&record, None)?.to_string());
        let failure = is_held.then(failure).flatten();
        self.audits().push(Audit { output: (), record });
        if let Some(failure) = failure {
            panic!("{failure}");
        }
    }
}

impl<F: Future> Future for AuditedCall<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.guard.poll(cx, |cx| this.future.poll(cx));
        if polled.is_ready() {
            this.guard.end();
        }
        polled
    }
}

impl<S: fmt::Debug> fmt::Debug for AuditedService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedService")
            .field("service", &self.service)
            .field("budget", &self.settings.budget)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for AuditedCall<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedCall").finish_non_exhaustive()
    }
}
