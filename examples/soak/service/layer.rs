//! Counts the polls and the answers of a service that `WatchLayer` watches, from outside.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use metrics::{Counter, counter};
use tower::{Layer, Service};

use super::counting::{Counting, PollCount, PollCounts};

/// Returns the watch of a request for both layers: its route.
pub(crate) fn route(request: &Request) -> Cow<'static, str> {
    let path = request.extensions().get::<MatchedPath>();
    path.map_or(UNMATCHED.into(), |path| path.as_str().to_owned().into())
}

const UNMATCHED: &str = "unmatched";

/// The counts of one route.
#[derive(Clone)]
struct Books {
    poll_count: Arc<PollCount>,
    answers: Counter,
}

impl Books {
    fn new(route: &str, poll_counts: &PollCounts) -> Self {
        Self {
            poll_count: poll_counts.of(route),
            answers: counter!("soak_answers_total", "route" => route.to_owned()),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CountLayer {
    books: Arc<HashMap<String, Books>>,
    unmatched: Books,
    ready: Arc<PollCount>,
    twice: bool,
}

impl CountLayer {
    /// Makes the layer with all routes known, so that no request waits for a lock. With `twice`, each answer
    /// counts twice.
    pub(crate) fn new(routes: &[String], poll_counts: &PollCounts, twice: bool) -> Self {
        let books = |route: &String| (route.clone(), Books::new(route, poll_counts));
        Self {
            books: Arc::new(routes.iter().map(books).collect()),
            unmatched: Books::new(UNMATCHED, poll_counts),
            ready: poll_counts.of("poll_ready"),
            twice,
        }
    }
}

impl<S> Layer<S> for CountLayer {
    type Service = CountService<S>;

    fn layer(&self, watched: S) -> CountService<S> {
        CountService {
            watched,
            layer: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CountService<S> {
    watched: S,
    layer: CountLayer,
}

impl<S, B> Service<Request> for CountService<S>
where
    S: Service<Request, Response = Response<B>>,
{
    type Response = Response<Counting<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.layer.ready.count(|| self.watched.poll_ready(cx))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let CountLayer {
            books,
            unmatched,
            twice,
            ..
        } = &self.layer;
        let books = books.get(&*route(&request)).unwrap_or(unmatched).clone();
        let future = books.poll_count.count(|| self.watched.call(request));
        Answer {
            future: Counting::new(future, &books.poll_count),
            books,
            twice: *twice,
        }
    }
}

/// The future of a call.
pub(crate) struct Answer<F> {
    future: Counting<F>,
    books: Books,
    twice: bool,
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Counting<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.future).poll(cx));
        self.books.answers.increment(1 + u64::from(self.twice));
        let poll_count = &self.books.poll_count;
        Poll::Ready(answer.map(|answer| answer.map(|body| Counting::new(body, poll_count))))
    }
}
