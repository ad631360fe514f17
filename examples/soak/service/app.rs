//! The routes, and their shared state.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use shotclock::{Lane, WatchLayer, Watchdog};
use tracing::{Instrument as _, info_span};

use super::announcer::Announcer;
use super::counting::{PollCounts, Spot};
use super::layer::{CountLayer, route};
use super::stall::Stall;
use super::{healthy, misbehaviour};
use crate::Result;
use crate::sabotage::Sabotage;

/// One path and its handler.
pub(super) type Route = (&'static str, MethodRouter<Arc<App>>);

/// The number of jobs of a lane that run at once.
const LANE: usize = 2;

/// The state of the routes under one watchdog.
pub(super) struct App {
    /// The first segment of the paths.
    pub(super) name: &'static str,
    pub(super) watchdog: Watchdog,
    pub(super) announcer: Announcer,
    pub(super) lane: Lane,
    pub(super) spots: Spots,
    pub(super) sabotage: Option<Sabotage>,
}

/// The watches inside the routes.
pub(super) struct Spots {
    pub(super) known: Spot,
    pub(super) burst: Spot,
    pub(super) pieces: Spot,
    pub(super) offloaded: Spot,
    pub(super) allowed: Spot,
    pub(super) nested: Spot,
    pub(super) task: Spot,
    pub(super) panic: Spot,
    pub(super) contained: Spot,
    pub(super) visitor: Spot,
}

impl Spots {
    fn new(app: &str, watchdog: &Watchdog, poll_counts: &PollCounts) -> Self {
        let watch = |name| watchdog.watch(format!("{app}-{name}"));
        let spot = |name| Spot::new(watch(name), poll_counts);
        Self {
            known: spot("known"),
            burst: spot("burst"),
            pieces: spot("pieces"),
            offloaded: spot("offloaded"),
            allowed: spot("allowed"),
            nested: spot("nested"),
            task: spot("task"),
            panic: spot("panic"),
            contained: Spot::new(watch("contained").contained(), poll_counts),
            visitor: spot("visitor"),
        }
    }
}

impl App {
    pub(super) fn new(
        name: &'static str,
        watchdog: &Watchdog,
        announcer: &Announcer,
        poll_counts: &PollCounts,
        sabotage: Option<Sabotage>,
    ) -> Result<Arc<Self>> {
        // On threads of its own: a worker would wait for a lock of tokio's pool if the holder is not scheduled.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(LANE).build()?;
        let lane = Lane::builder(format!("{name}-lane")).limit(LANE).queue(64);
        let lane = lane.rayon_pool(Arc::new(pool));
        Ok(Arc::new(Self {
            name,
            watchdog: watchdog.clone(),
            announcer: announcer.clone(),
            lane: lane.build()?,
            spots: Spots::new(name, watchdog, poll_counts),
            sabotage,
        }))
    }

    /// Returns the watch of a route.
    pub(super) fn path(&self, path: &str) -> String {
        format!("/{}{path}", self.name)
    }

    /// Runs a future as polls of that watch.
    pub(super) fn stall_in(&self, spot: &Spot, stall: Stall) {
        stall.happen(Some(spot.watch.name()), &self.announcer);
    }
}

pub(super) fn router(apps: &[Arc<App>], poll_counts: &PollCounts) -> Router {
    let nest = |router: Router, app: &Arc<App>| {
        let path = format!("/{}", app.name);
        router.nest(&path, router_of(app, poll_counts))
    };
    apps.iter().fold(Router::new(), nest)
}

fn router_of(app: &Arc<App>, poll_counts: &PollCounts) -> Router {
    let routes: Vec<Route> = healthy::routes()
        .into_iter()
        .chain(misbehaviour::routes())
        .collect();
    let paths: Vec<_> = routes.iter().map(|(path, _)| app.path(path)).collect();
    // At the start, so that their series exist from the beginning.
    for path in &paths {
        app.watchdog.watch(path.clone());
    }
    let twice = app.sabotage == Some(Sabotage::Answers);
    let count = CountLayer::new(&paths, poll_counts, twice);
    let add = |router: Router<Arc<App>>, (path, handler)| router.route(path, handler);
    let router = routes.into_iter().fold(Router::new(), add);
    // Directly around the watched service: axum does not pass `poll_ready` on from layer to layer.
    router
        .layer((count, WatchLayer::by(&app.watchdog, route)))
        .layer(from_fn(in_a_span))
        .with_state(Arc::clone(app))
}

async fn in_a_span(request: Request, next: Next) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    next.run(request).instrument(span).await
}
